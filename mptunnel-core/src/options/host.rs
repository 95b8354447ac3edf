// SPDX-License-Identifier: BSD-2-Clause
//! Where something is: a host and a port.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// A host name or an IP address, and a port from 1 to 65535. (0, where a server listens: the system
/// chooses.)
///
/// As text `HOST:PORT`, IPv6 addresses in brackets: `bridge1.example:4000`, `192.0.2.1:4000`,
/// `[2001:db8::1]:4000`, `[fe80::1%eth0]:4000`. A host is kept as it was written; nothing is
/// resolved here.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct HostPort {
    host: String,
    port: u16,
}

/// Why a text is no host and port.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// There is no host.
    #[error("{0:?} has no host: expected HOST:PORT, such as bridge1.example:4000")]
    NoHost(String),
    /// There is no port.
    #[error("{0:?} has no port: expected HOST:PORT, such as {0}:4000")]
    NoPort(String),
    /// The port is not a number from 1 to 65535.
    #[error("port {0:?}: expected a number from {min} to 65535", min = .1)]
    Port(String, u16),
    /// A bracket is not closed, or what it holds is no IPv6 address.
    #[error("{0:?}: expected an IPv6 address in the brackets, such as [2001:db8::1]:4000")]
    Brackets(String),
    /// An IPv6 address without brackets leaves open where the port begins.
    #[error("{0:?}: an IPv6 address before a port needs brackets, such as [2001:db8::1]:4000")]
    NoBrackets(String),
    /// Neither an address nor a name that could exist.
    #[error("{0:?} is neither an IP address nor a host name")]
    Host(String),
    /// A name where only an address can be used.
    #[error("{0:?}: expected PORT, ADDR:PORT or [IPV6]:PORT with an IP address")]
    NotLocal(String),
}

impl HostPort {
    /// The place `host` and `port`. An IPv6 address may be in brackets or not.
    ///
    /// # Errors
    ///
    /// `host` is neither an IP address nor a possible host name, or `port` is 0.
    pub fn new(host: &str, port: u16) -> Result<HostPort, AddressError> {
        let host = match host.strip_prefix('[') {
            Some(rest) => rest
                .strip_suffix(']')
                .filter(|inner| is_ipv6(inner))
                .ok_or_else(|| AddressError::Brackets(host.to_owned()))?,
            None => host,
        };
        if host.is_empty() {
            return Err(AddressError::NoHost(host.to_owned()));
        }
        if !is_host(host) {
            return Err(AddressError::Host(host.to_owned()));
        }
        if port == 0 {
            return Err(AddressError::Port("0".to_owned(), 1));
        }
        Ok(HostPort { host: host.to_owned(), port })
    }

    /// Where a server listens: an IP address, and a port that may be 0.
    pub(super) fn parse_local(text: &str) -> Result<HostPort, AddressError> {
        match parse_listen(text)? {
            (Some(ip), port) => Ok(HostPort { host: ip.to_string(), port }),
            (None, _) => Err(AddressError::NotLocal(text.to_owned())),
        }
    }

    /// As [`new`](Self::new), with the port as text.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new), or `port` is not a number from 1 to 65535 in decimal digits.
    pub fn from_words(host: &str, port: &str) -> Result<HostPort, AddressError> {
        HostPort::new(host, parse_port(port, 1)?)
    }

    /// The name or address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address, if the host is one and needs no resolving. An IPv6 address with a zone
    /// (`fe80::1%eth0`) does.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        let ip: IpAddr = self.host.parse().ok()?;
        Some(SocketAddr::new(ip, self.port))
    }

    /// Whether the host is an IPv4 or an IPv6 address, with or without a zone; `None` for a name.
    pub(super) fn is_ipv6(&self) -> Option<bool> {
        match self.host.parse::<IpAddr>() {
            Ok(ip) => Some(ip.is_ipv6()),
            Err(_) => is_ipv6(&self.host).then_some(true),
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for HostPort {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<HostPort, AddressError> {
        let (host, port) = split_port(text)?;
        HostPort::from_words(host, port)
    }
}

/// Reads where to listen: `PORT`, `ADDR:PORT` or `[IPV6]:PORT`. Without an address the caller
/// chooses one. Port 0 lets the system choose.
///
/// # Errors
///
/// The text has another form, or the address is not an IP address.
pub fn parse_listen(text: &str) -> Result<(Option<IpAddr>, u16), AddressError> {
    if !text.contains([':', '[', '.']) {
        return Ok((None, parse_port(text, 0)?));
    }
    let (host, port) = split_port(text)?;
    let inner = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').unwrap_or(rest),
        None => host,
    };
    let ip = inner.parse().map_err(|_| AddressError::NotLocal(text.to_owned()))?;
    Ok((Some(ip), parse_port(port, 0)?))
}

/// Splits `HOST:PORT`; the brackets stay with the host.
fn split_port(text: &str) -> Result<(&str, &str), AddressError> {
    if text.starts_with('[') {
        let end = text.find(']').ok_or_else(|| AddressError::Brackets(text.to_owned()))?;
        let (host, rest) = text.split_at(end + 1);
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, port)),
            None if rest.is_empty() => Err(AddressError::NoPort(text.to_owned())),
            None => Err(AddressError::Brackets(text.to_owned())),
        };
    }
    let (host, port) =
        text.rsplit_once(':').ok_or_else(|| AddressError::NoPort(text.to_owned()))?;
    if host.contains(':') {
        return Err(AddressError::NoBrackets(text.to_owned()));
    }
    if host.is_empty() {
        return Err(AddressError::NoHost(text.to_owned()));
    }
    Ok((host, port))
}

fn parse_port(text: &str, min: u16) -> Result<u16, AddressError> {
    let malformed = || AddressError::Port(text.to_owned(), min);
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(malformed());
    }
    text.parse().ok().filter(|port| *port >= min).ok_or_else(malformed)
}

/// An IPv6 address, with or without a zone.
fn is_ipv6(text: &str) -> bool {
    let (address, zone) = match text.split_once('%') {
        Some((address, zone)) => (address, Some(zone)),
        None => (text, None),
    };
    let zone_is_sound = zone.is_none_or(|zone| {
        !zone.is_empty() && zone.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    });
    address.parse::<Ipv6Addr>().is_ok() && zone_is_sound
}

/// An IP address, or a name that the resolver could know (RFC 1123, section 2.1, and underscores,
/// which real names have).
fn is_host(text: &str) -> bool {
    if text.parse::<IpAddr>().is_ok() || is_ipv6(text) {
        return true;
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    let labels_are_sound = name.split('.').all(|label| {
        (1..=MAX_LABEL).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    });
    // `10.0.0.256` and `10.1` are mistyped addresses: no top-level domain is a number.
    let last_is_a_name =
        name.rsplit('.').next().is_some_and(|label| !label.bytes().all(|b| b.is_ascii_digit()));
    name.len() <= MAX_NAME && labels_are_sound && last_is_a_name
}

/// Bytes of a host name and of one label of it (RFC 1035, section 2.3.4; the name as text).
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports_round_trip() {
        for text in [
            "bridge1.example:4000",
            "bridge-1.example.:1",
            "_srv.example:65535",
            "localhost:3000",
            "192.0.2.1:4000",
            "[2001:db8::1]:4000",
            "[fe80::1%eth0]:4000",
            "[::]:4000",
        ] {
            let parsed: HostPort = text.parse().unwrap();
            assert_eq!(parsed.to_string(), text);
        }
    }

    #[test]
    fn an_ipv6_address_may_be_given_bare_where_the_port_is_apart() {
        assert_eq!(HostPort::new("fd00::1", 4000), HostPort::new("[fd00::1]", 4000));
        assert_eq!(HostPort::new("fd00::1", 4000).unwrap().to_string(), "[fd00::1]:4000");
    }

    #[test]
    fn only_an_address_needs_no_resolving() {
        let addr = |text: &str| text.parse::<HostPort>().unwrap().socket_addr();

        assert_eq!(addr("192.0.2.1:4000"), Some("192.0.2.1:4000".parse().unwrap()));
        assert_eq!(addr("[2001:db8::1]:1"), Some("[2001:db8::1]:1".parse().unwrap()));
        assert_eq!(addr("[fe80::1%eth0]:1"), None);
        assert_eq!(addr("bridge1.example:1"), None);
    }

    #[test]
    fn each_mistake_has_its_own_message() {
        let error = |text: &str| text.parse::<HostPort>().unwrap_err().to_string();

        assert_eq!(
            error("bridge1.example"),
            "\"bridge1.example\" has no port: expected HOST:PORT, such as bridge1.example:4000"
        );
        assert_eq!(
            error(":4000"),
            "\":4000\" has no host: expected HOST:PORT, such as \
                    bridge1.example:4000"
        );
        assert_eq!(error("h:0"), "port \"0\": expected a number from 1 to 65535");
        for port in ["65536", "", "x", "+1", "-1", "1 "] {
            assert_eq!(
                error(&format!("h:{port}")),
                format!("port {port:?}: expected a number from 1 to 65535")
            );
        }
        assert!(error("2001:db8::1:4000").contains("needs brackets"));
        for text in ["[2001:db8::1:4000", "[192.0.2.1]:4000", "[h]:1", "[]:1", "[::1]4000"] {
            assert!(error(text).contains("expected an IPv6 address in the brackets"), "{text}");
        }
        assert!(error("[::1]").contains("has no port"));
        for host in ["10.0.0.256", "10.1", "1234", "a b", "a..b", "-a", "a-", "ä", "a/b", "a%b"] {
            assert!(error(&format!("{host}:1")).contains("neither an IP address nor"), "{host}");
        }
    }

    #[test]
    fn names_have_253_bytes_at_most_and_their_labels_63() {
        let label = "a".repeat(63);
        let name = format!("{label}.{label}.{label}.{}", "a".repeat(61));

        assert_eq!(name.len(), 253);
        assert!(HostPort::new(&name, 1).is_ok());
        assert!(HostPort::new(&format!("{name}a"), 1).is_err());
        assert!(HostPort::new(&format!("{label}a.x"), 1).is_err());
    }

    #[test]
    fn where_to_listen_is_a_port_or_an_address_and_a_port() {
        assert_eq!(parse_listen("3000"), Ok((None, 3000)));
        assert_eq!(parse_listen("0"), Ok((None, 0)));
        assert_eq!(parse_listen("0.0.0.0:1"), Ok((Some([0, 0, 0, 0].into()), 1)));
        assert_eq!(parse_listen("[::]:65535"), Ok((Some(Ipv6Addr::UNSPECIFIED.into()), 65535)));
        for text in
            ["", "x", "65536", "localhost:1", "::1:1", "[::1]", "127.0.0.1", "1.2.3.4:", "[::1"]
        {
            assert!(parse_listen(text).is_err(), "{text:?}");
        }
    }
}
