//! Options of sockets: the one thing beside files that both runtimes ask of the operating system in the same words.
//!
//! It stands here because this crate is the only one below both that may ask the operating system for anything.

use std::os::fd::AsFd;
use std::time::Duration;

use coracle_core::host::Watch;
use rustix::io;
use rustix::net::sockopt;

/// Has the operating system give up a connection whose other end has vanished. On a system that lacks one of the options it
/// is noticed later.
pub fn watch(stream: impl AsFd, watch: &Watch) {
    let options = || -> io::Result<()> {
        sockopt::set_tcp_keepidle(&stream, watch.idle)?;
        sockopt::set_tcp_keepintvl(&stream, watch.interval)?;
        sockopt::set_tcp_keepcnt(&stream, watch.probes)?;
        sockopt::set_socket_keepalive(&stream, true)?;
        sockopt::set_tcp_user_timeout(&stream, milliseconds(watch.unacknowledged_max))
    };
    let _ = options();
}

fn milliseconds(span: Duration) -> u32 {
    u32::try_from(span.as_millis()).unwrap_or(u32::MAX)
}
