// SPDX-License-Identifier: BSD-2-Clause
//! What a forked child does with an endpoint that it inherited.

use std::os::fd::AsFd;

use super::*;
use crate::io::wake::{PollFd, poll};
use crate::{Error, Server, Tunnel};

#[test]
fn a_child_that_closes_what_it_inherited_leaves_the_parent_alone() {
    let server = Server::builder().key(&[7; 32]).listen(address(V4)).bind().unwrap();
    let to = server.local_addrs()[0];
    let client = Tunnel::builder().key(&[7; 32]).path(&format!("to={to}")).connect().unwrap();
    client.wait_ready(Some(Duration::from_secs(5))).unwrap();

    // SAFETY: the child takes no lock that another thread may have held at the fork: every call
    // asks first whether this is a child. It leaves by `_exit`.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    if pid == 0 {
        let forked = matches!(client.send(b"x"), Err(Error::Forked))
            && matches!(client.next_event(None), Err(Error::Forked))
            && client.paths().is_empty()
            && server.peers().is_empty();
        client.close();
        server.close();
        // SAFETY: ends the process at once; no destructor of the parent's values runs.
        unsafe { libc::_exit(i32::from(!forked)) };
    }
    let mut status = 0;
    // SAFETY: `pid` is our child, and `status` a live local for waitpid(2) to write.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);

    assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "{status:#x}");
    for fd in [client.as_fd(), server.as_fd()] {
        let mut fds = [PollFd::readable(&fd)];
        assert_eq!(poll(&mut fds, Some(Duration::ZERO)).unwrap(), 0, "nothing to take");
    }
    client.send(b"x").unwrap();
    let mut buffer = [0; 10];
    assert_eq!(server.recv_from_timeout(&mut buffer, Duration::from_secs(5)).unwrap().0, 1);
}
