//! Socket options (TCP keepalive, user timeout, backlog), which both runtimes set in the same way.
//!
//! They are in this crate because it is the only one below both runtimes that may call the
//! operating system.

use std::os::fd::AsFd;
use std::time::Duration;

use coracle_core::host::Keepalive;
use rustix::io;
use rustix::net::sockopt;

/// Lets the operating system close a connection whose other end has vanished. On a system that
/// lacks one of the options this takes longer.
pub fn set_keepalive(stream: impl AsFd, keepalive: &Keepalive) {
    let options = || -> io::Result<()> {
        sockopt::set_tcp_keepidle(&stream, keepalive.idle)?;
        sockopt::set_tcp_keepintvl(&stream, keepalive.interval)?;
        sockopt::set_tcp_keepcnt(&stream, keepalive.probes)?;
        sockopt::set_socket_keepalive(&stream, true)?;
        sockopt::set_tcp_user_timeout(&stream, milliseconds(keepalive.unacknowledged_max))
    };
    let _ = options();
}

/// The most connections that may wait to be accepted. Chosen because thousands of clients reconnect
/// at once when a server was restarted, and one that finds no place in the backlog retries after a
/// second, then after three. The operating system may have a lower limit (`net.core.somaxconn`).
pub const BACKLOG_MAX: i32 = 4096;

/// Returns the same listening socket, with room for [`BACKLOG_MAX`] connections that wait to be
/// accepted. If the operating system refuses, its backlog stays unchanged.
pub fn with_backlog<S: AsFd>(listener: S) -> S {
    let _ = rustix::net::listen(&listener, BACKLOG_MAX);
    listener
}

fn milliseconds(span: Duration) -> u32 {
    u32::try_from(span.as_millis()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// No connection is accepted, and yet hundreds of clients connect at once.
    #[test]
    fn hundreds_may_wait_to_be_accepted() {
        let listener = with_backlog(TcpListener::bind("127.0.0.1:0").unwrap());
        let address = listener.local_addr().unwrap();
        let clients: Vec<_> = (0..400)
            .map(|_| {
                TcpStream::connect_timeout(&address, Duration::from_millis(900)).expect("there is a place")
            })
            .collect();
        drop((clients, listener));
    }
}
