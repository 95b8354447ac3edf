// SPDX-License-Identifier: BSD-2-Clause
//! The words of `mptunnel bridge`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU64;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::{RangedU64ValueParser, TypedValueParser};
use clap::{Args, ValueEnum};
use mptunnel_core::options::Unit;
use mptunnel_core::sim::link::{Burst, LinkConfig};

use crate::time;

/// Forward UDP datagrams, and impair them on request
///
/// Whatever arrives on a listening port goes to HOST:PORT, and each answer goes back to the peer
/// that it answers. Each peer gets an upstream socket of its own, as a NAT would give it. A bridge
/// needs no key and understands nothing of what it carries.
///
/// With the options under "Impairments" it is also a bad network in a box: the same random
/// decisions for the same --seed, separately for each port, peer and direction. Times without a
/// unit are milliseconds, or seconds where they are long: --idle, --stats and --blackhole-*.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct BridgeArgs {
    /// Where to listen; a port alone means all addresses, IPv6 and IPv4, and port 0 any free one.
    /// May be given several times
    #[arg(short, long, value_name = "[ADDR:]PORT", required = true)]
    pub listen: Vec<ListenAt>,

    /// Where to forward to. A name is looked up once, at the start
    #[arg(short, long, value_name = "HOST:PORT")]
    pub to: HostPort,

    /// Time without a datagram in either direction after which a peer is forgotten
    #[arg(long, value_name = "TIME", default_value = "300s", value_parser = period())]
    pub idle: Duration,

    /// Peers served at a time; where one more comes, the peer that was idle longest makes room
    #[arg(
        long, value_name = "N", default_value_t = 1024,
        value_parser = RangedU64ValueParser::<usize>::new().range(1..=65_536)
    )]
    pub max_peers: usize,

    /// Print counters so often, one line for each listening port [default: at the end only]
    #[arg(long, value_name = "TIME", value_parser = period())]
    pub stats: Option<Duration>,

    #[command(flatten)]
    #[allow(missing_docs, reason = "documentation would become the text of --help")]
    pub impairments: Impairments,
}

#[allow(missing_docs, reason = "documentation would become the text of --help")]
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Impairments")]
pub struct Impairments {
    /// Direction to impair: `up` is towards HOST:PORT, `down` is back to the peers. Applies to all
    /// impairments, blackouts included
    #[arg(long, value_enum, default_value_t)]
    pub dir: Direction,

    /// Start from a typical link; the options below change single properties of it
    #[arg(long, value_enum, value_name = "LINK")]
    pub preset: Option<Preset>,

    /// Probability of losing a datagram, such as 0.1 or 10%
    #[arg(long, value_name = "P", value_parser = probability)]
    pub loss: Option<f64>,

    /// Loss in bursts: the link turns bad with probability P for each datagram and good again with
    /// probability R, so that a burst lasts 1/R datagrams on average. While bad it loses the share
    /// L [default: 100%]
    #[arg(long, value_name = "P,R[,L]", value_parser = burst)]
    pub burst: Option<Burst>,

    /// Delay, such as 20ms; up to 1h
    #[arg(long, value_name = "TIME", value_parser = delay())]
    pub delay: Option<Duration>,

    /// Vary the delay by at most this either way, evenly distributed; never below 0
    #[arg(long, value_name = "TIME", value_parser = delay())]
    pub jitter: Option<Duration>,

    /// Jitter lets no datagram overtake another
    #[arg(long)]
    pub in_order: bool,

    /// Probability of holding a datagram back so that later ones overtake it
    #[arg(long, value_name = "P", value_parser = probability)]
    pub reorder: Option<f64>,

    /// How long --reorder holds a datagram back [default: 10ms]
    #[arg(long, value_name = "TIME", requires = "reorder", value_parser = delay())]
    pub reorder_by: Option<Duration>,

    /// Probability of delivering a datagram twice
    #[arg(long, value_name = "P", value_parser = probability)]
    pub dup: Option<f64>,

    /// Probability of flipping one random bit of a datagram
    #[arg(long, value_name = "P", value_parser = probability)]
    pub corrupt: Option<f64>,

    /// Rate limit in Mbit/s of UDP payload
    #[arg(long, value_name = "MBIT", value_parser = mbit_per_s)]
    pub rate: Option<NonZeroU64>,

    /// Bytes that may wait for the rate limit; what comes on top is dropped [default: 65536]
    #[arg(long, value_name = "BYTES")]
    pub buffer: Option<usize>,

    /// Drop datagrams with a larger payload
    #[arg(long, value_name = "BYTES")]
    pub mtu: Option<usize>,

    /// Begin a blackout, in which everything is lost, so long after the first datagram. SIGUSR1
    /// and SIGUSR2 begin and end one at any time
    #[arg(long, value_name = "TIME", value_parser = moment())]
    pub blackhole_after: Option<Duration>,

    /// End that blackout after this time [default: never]
    #[arg(long, value_name = "TIME", requires = "blackhole_after", value_parser = moment())]
    pub blackhole_for: Option<Duration>,

    /// Seed of all random decisions, to repeat a run [default: another one each time, which is
    /// told at the start]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
}

const EXAMPLES: &str = "\
Examples:
  A plain bridge, as `socat udp-listen:4000,fork udp4:server.example:2000`:
      mptunnel bridge --listen 4000 --to server.example:2000

  Three bridges in one process, each losing a third of what it carries:
      mptunnel bridge -l 4001 -l 4002 -l 4003 --to 127.0.0.1:2000 --loss 33%

  A slow line with a long buffer, 40 to 60 ms away, counters every second:
      mptunnel bridge -l 4000 -t 127.0.0.1:2000 --rate 5 --buffer 500000 \\
          --delay 50ms --jitter 10ms --in-order --stats 1s

  Gaps of 20 datagrams on average, in 5% of the traffic towards the server:
      mptunnel bridge -l 4000 -t 127.0.0.1:2000 --dir up --burst 0.0026,0.05

  A mobile network whose signal is lost for 5 s, once by the clock and then by hand:
      mptunnel bridge -l 4000 -t 127.0.0.1:2000 --preset cellular \\
          --blackhole-after 10s --blackhole-for 5s &
      sleep 30; kill -USR1 $!; sleep 5; kill -USR2 $!

Counters: `in` and `out` are datagrams received and sent in each direction. What was not sent is \
counted by cause: lost, burst, dark (blackout), overflow (of the buffer), too_large, blocked (the \
socket was full), failed. `refused` counts reports that the other end has closed its port, and \
`rejected` datagrams of peers for which no socket could be opened. Zeros are left out.";

/// The directions that are impaired.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum Direction {
    /// From the peers to the destination.
    Up,
    /// From the destination to the peers.
    Down,
    /// Both of them.
    #[default]
    Both,
}

/// Typical links, as described at the presets of [`LinkConfig`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Preset {
    /// 10 ms, 100 Mbit/s, no loss
    Clean,
    /// 5 ms with much jitter, 40 Mbit/s, 3.8% loss in short bursts
    LossyWifi,
    /// 40 ms with much jitter, 10 Mbit/s with 0.4 s of buffer, 1% loss
    Cellular,
    /// 270 ms, 25 Mbit/s, 1.1% loss in long bursts
    Satellite,
}

impl Impairments {
    /// What happens to datagrams upwards and downwards; `None` where nothing does.
    pub fn links(&self) -> [Option<LinkConfig>; 2] {
        let config = Some(self.link()).filter(|config| *config != LinkConfig::default());
        let [up, down] = self.directions();
        [config.clone().filter(|_| up), config.filter(|_| down)]
    }

    /// Whether upwards and downwards are to be impaired at all.
    pub fn directions(&self) -> [bool; 2] {
        [self.dir != Direction::Down, self.dir != Direction::Up]
    }

    fn link(&self) -> LinkConfig {
        let base = match self.preset {
            None => LinkConfig::default(),
            Some(Preset::Clean) => LinkConfig::clean(),
            Some(Preset::LossyWifi) => LinkConfig::lossy_wifi(),
            Some(Preset::Cellular) => LinkConfig::cellular(),
            Some(Preset::Satellite) => LinkConfig::satellite(),
        };
        LinkConfig {
            loss: self.loss.unwrap_or(base.loss),
            burst: self.burst.or(base.burst),
            delay: self.delay.unwrap_or(base.delay),
            jitter: self.jitter.unwrap_or(base.jitter),
            in_order: self.in_order || base.in_order,
            reorder: self.reorder.unwrap_or(base.reorder),
            reorder_delay: self.reorder_by.unwrap_or(base.reorder_delay),
            duplicate: self.dup.unwrap_or(base.duplicate),
            corrupt: self.corrupt.unwrap_or(base.corrupt),
            rate: self.rate.or(base.rate),
            buffer: self.buffer.unwrap_or(base.buffer),
            mtu: self.mtu.or(base.mtu),
            ..base
        }
    }
}

/// A place to listen at: an address, or all of them, and a port.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ListenAt {
    /// `None` for all addresses of both families.
    pub address: Option<IpAddr>,
    /// 0 for any free port.
    pub port: u16,
}

impl FromStr for ListenAt {
    type Err = ArgError;

    fn from_str(text: &str) -> Result<Self, ArgError> {
        if let Ok(port) = text.parse() {
            return Ok(ListenAt { address: None, port });
        }
        let at: SocketAddr = text.parse().map_err(|_| ArgError::Listen)?;
        Ok(ListenAt { address: Some(at.ip()), port: at.port() })
    }
}

impl fmt::Display for ListenAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => SocketAddr::new(address, self.port).fmt(f),
            None => write!(f, "port {}", self.port),
        }
    }
}

/// A name or an address, and a port.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HostPort {
    /// Without the brackets that an IPv6 address is written in.
    pub host: String,
    /// Not 0.
    pub port: u16,
}

impl FromStr for HostPort {
    type Err = ArgError;

    fn from_str(text: &str) -> Result<Self, ArgError> {
        let (host, port) = text.rsplit_once(':').ok_or(ArgError::HostPort)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        // Only brackets tell where an IPv6 address ends and the port begins.
        if bare.is_none() && host.contains([':', '[', ']']) {
            return Err(ArgError::Brackets);
        }
        let host = bare.unwrap_or(host);
        let port = port.parse().ok().filter(|&port| port != 0).ok_or(ArgError::HostPort)?;
        if host.is_empty() {
            return Err(ArgError::HostPort);
        }
        Ok(HostPort { host: host.to_owned(), port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HostPort { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// Why a word on the command line is not understood, and what would be.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum ArgError {
    #[error("expected a port, or an address and a port: 4000, 127.0.0.1:4000, [::1]:4000")]
    Listen,
    #[error(
        "expected a name or an address, a colon, and a port from 1 to 65535: server.example:2000"
    )]
    HostPort,
    #[error("an IPv6 address is written in brackets before the port: [2001:db8::1]:2000")]
    Brackets,
    #[error("expected a probability from 0 to 1, or a percentage from 0% to 100%")]
    Probability,
    #[error("expected P,R or P,R,L, each a probability: 0.01,0.1 or 1%,10%,80%")]
    Burst,
    #[error("expected Mbit/s from 0.001 to 100000, such as 10 or 0.5")]
    Rate,
}

fn probability(text: &str) -> Result<f64, ArgError> {
    let (number, scale) = match text.strip_suffix('%') {
        Some(percent) => (percent, 100.0),
        None => (text, 1.0),
    };
    number
        .parse::<f64>()
        .map(|number| number / scale)
        .ok()
        .filter(|p| (0.0..=1.0).contains(p))
        .ok_or(ArgError::Probability)
}

fn burst(text: &str) -> Result<Burst, ArgError> {
    let numbers: Result<Vec<f64>, ArgError> = text.split(',').map(probability).collect();
    match numbers.map_err(|_| ArgError::Burst)?[..] {
        [to_bad, to_good] => Ok(Burst::gaps(to_bad, to_good)),
        [to_bad, to_good, loss_bad] => Ok(Burst { loss_bad, ..Burst::gaps(to_bad, to_good) }),
        _ => Err(ArgError::Burst),
    }
}

/// A delay, in milliseconds without a unit.
fn delay() -> impl TypedValueParser<Value = Duration> {
    time::parser(Unit::Milliseconds, Duration::ZERO, Duration::from_secs(3_600))
}

/// A time from now, in seconds without a unit.
fn moment() -> impl TypedValueParser<Value = Duration> {
    time::parser(Unit::Seconds, Duration::ZERO, A_LONG_TIME)
}

/// A time that passes, in seconds without a unit.
fn period() -> impl TypedValueParser<Value = Duration> {
    time::parser(Unit::Seconds, Duration::from_millis(1), A_LONG_TIME)
}

/// A year.
const A_LONG_TIME: Duration = Duration::from_secs(365 * 86_400);

/// Megabits per second, in bytes per second.
fn mbit_per_s(text: &str) -> Result<NonZeroU64, ArgError> {
    number_in(text, 0.001, 100_000.0)
        .and_then(|mbit| NonZeroU64::new((mbit * 125_000.0).round() as u64))
        .ok_or(ArgError::Rate)
}

fn number_in(text: &str, min: f64, max: f64) -> Option<f64> {
    text.parse().ok().filter(|number| (min..=max).contains(number))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Wrapped {
        #[command(flatten)]
        args: BridgeArgs,
    }

    fn parse(words: &str) -> Result<BridgeArgs, clap::Error> {
        let given = format!("bridge -l 1 -t h:2 {words}");
        Wrapped::try_parse_from(given.split_whitespace()).map(|wrapped| wrapped.args)
    }

    fn links(words: &str) -> [Option<LinkConfig>; 2] {
        parse(words).unwrap().impairments.links()
    }

    #[test]
    fn without_options_nothing_is_impaired() {
        assert_eq!(links(""), [None, None]);
        assert_eq!(links("--seed 9 --dir up --buffer 65536"), [None, None]);
    }

    #[test]
    fn every_impairment_reaches_the_link() {
        let words = "--loss 10% --burst 1%,0.5,80% --delay 20ms --jitter 2.5 --in-order \
                     --reorder 0.2 --reorder-by 7ms --dup 0.3 --corrupt 0.4 --rate 8 \
                     --buffer 5000 --mtu 1200";

        let [up, down] = links(words);

        let expected = LinkConfig {
            loss: 0.1,
            fades: None,
            burst: Some(Burst { to_bad: 0.01, to_good: 0.5, loss_good: 0.0, loss_bad: 0.8 }),
            delay: Duration::from_millis(20),
            jitter: Duration::from_micros(2500),
            in_order: true,
            reorder: 0.2,
            reorder_delay: Duration::from_millis(7),
            duplicate: 0.3,
            copies: 1,
            corrupt: 0.4,
            rate: NonZeroU64::new(1_000_000),
            buffer: 5000,
            mtu: Some(1200),
            down: false,
        };
        assert_eq!(up.as_ref(), Some(&expected));
        assert_eq!(down.as_ref(), Some(&expected));
    }

    #[test]
    fn a_direction_alone_leaves_the_other_perfect() {
        assert!(matches!(links("--loss 1 --dir up"), [Some(_), None]));
        assert!(matches!(links("--loss 1 --dir down"), [None, Some(_)]));
    }

    #[test]
    fn single_options_change_a_preset() {
        let [up, _] = links("--preset satellite --delay 300 --loss 0");

        let expected =
            LinkConfig { delay: Duration::from_millis(300), loss: 0.0, ..LinkConfig::satellite() };
        assert_eq!(up, Some(expected));
    }

    #[test]
    fn a_place_to_listen_is_a_port_or_an_address_and_a_port() {
        let all = ListenAt { address: None, port: 4000 };
        assert_eq!("4000".parse(), Ok(all));
        let one = ListenAt { address: Some([127, 0, 0, 1].into()), port: 0 };
        assert_eq!("127.0.0.1:0".parse(), Ok(one));
        let six = "[::1]:65535".parse::<ListenAt>().unwrap();
        assert_eq!((six.address, six.port), (Some("::1".parse().unwrap()), 65535));
        for wrong in ["", "65536", "-1", "localhost:4000", "127.0.0.1", "::1:4000", ":4000"] {
            assert_eq!(wrong.parse::<ListenAt>(), Err(ArgError::Listen), "{wrong}");
        }
    }

    #[test]
    fn a_destination_is_a_host_and_a_port() {
        let host = |text: &str| text.parse::<HostPort>().map(|to| (to.host, to.port));

        assert_eq!(host("h.example:1"), Ok(("h.example".into(), 1)));
        assert_eq!(host("10.0.0.1:65535"), Ok(("10.0.0.1".into(), 65535)));
        assert_eq!(host("[fe80::1%eth0]:9"), Ok(("fe80::1%eth0".into(), 9)));
        assert_eq!("[::1]:9".parse::<HostPort>().unwrap().to_string(), "[::1]:9");
        assert_eq!(host("2001:db8::1:2000"), Err(ArgError::Brackets));
        for wrong in ["host", "host:", "host:0", "host:65536", ":2000", "[]:2000"] {
            assert_eq!(host(wrong), Err(ArgError::HostPort), "{wrong}");
        }
    }

    #[test]
    fn numbers_out_of_range_are_refused_at_the_first_value_outside() {
        for right in
            ["--loss 0", "--loss 1", "--loss 100%", "--rate 0.001", "--delay 3600000", "--delay 1h"]
        {
            assert!(parse(right).is_ok(), "{right}");
        }
        for wrong in [
            "--loss 1.01",
            "--loss 101%",
            "--loss -0.1",
            "--loss NaN",
            "--loss ten",
            "--burst 0.1",
            "--burst 0.1,0.2,0.3,0.4",
            "--burst 0.1,2",
            "--rate 0",
            "--rate inf",
            "--delay -1",
            "--delay 3600001",
            "--idle 0",
            "--stats 0",
            "--max-peers 0",
            "--max-peers 65537",
            "--reorder-by 5",
            "--blackhole-for 5",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
