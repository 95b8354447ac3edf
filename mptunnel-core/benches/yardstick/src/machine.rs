// SPDX-License-Identifier: BSD-2-Clause
//! Where it was measured.

use std::fs;
use std::process::Command;

/// Which network the datagrams went through.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Place {
    /// The loopback interface of a network namespace of our own.
    Namespace,
    /// The loopback interface that everybody uses.
    Loopback,
}

/// Goes into a network namespace of its own, if it may: firewalls, port numbers and other traffic of
/// the machine have no part in the figures then. To be called before there are threads.
pub fn isolate() -> Place {
    // SAFETY: unshare(2) takes flags and no pointer.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } == 0 && loopback_up() {
        return Place::Namespace;
    }
    eprintln!("not root: measuring on the machine's own loopback interface");
    Place::Loopback
}

fn loopback_up() -> bool {
    // SAFETY: socket(2) takes numbers. Of this C struct all bytes zero is a value.
    let (socket, mut request) = unsafe {
        (libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0), std::mem::zeroed::<libc::ifreq>())
    };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: netdevice(7): SIOCSIFFLAGS reads the name and the flags of an `ifreq`.
    let outcome = unsafe { libc::ioctl(socket, libc::SIOCSIFFLAGS, &raw mut request) };
    // SAFETY: the descriptor is ours and not used again.
    unsafe { libc::close(socket) };
    outcome == 0
}

/// The results file.
pub fn report(tables: &str, place: Place) -> String {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kernel = kernel.split(['-', '+', '\n']).next().unwrap_or_default();
    let (rustc, date) = (first_line("rustc", "--version"), first_line("date", "+%F"));
    let network = match place {
        Place::Namespace => "in a network namespace of its own",
        Place::Loopback => "on the machine's loopback interface",
    };
    format!(
        "<!-- Written by `make bench`. -->\n\
         # Results\n\n\
         Measured by `make bench` on {date}: {}, {cpus} cores, Linux {kernel}, {rustc}, {network}.\n\
         The README here says what each row is and how it is measured.\n\
         {tables}",
        model.unwrap_or("unknown processor"),
    )
}

fn first_line(program: &str, argument: &str) -> String {
    let output = Command::new(program).arg(argument).output();
    let text = output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or("unknown").to_owned()
}
