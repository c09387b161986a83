//! Notifications for the supervisor that started the process, as systemd's `Type=notify` expects
//! them: one datagram each, to the socket that `NOTIFY_SOCKET` names (`sd_notify(3)`).

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use crate::output::harmless;

/// A variable with the path of a socket, or the name of an abstract one behind `@`.
const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";

/// A change of the server's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It is ready.
    Ready,
    /// It has begun to stop.
    Stopping,
    /// A line for people.
    Status(String),
}

impl State {
    /// The datagram.
    fn text(&self) -> String {
        match self {
            Self::Ready => "READY=1".to_owned(),
            Self::Stopping => "STOPPING=1".to_owned(),
            // A line break would begin another assignment.
            Self::Status(line) => format!("STATUS={}", harmless(line)),
        }
    }
}

/// Notifies the supervisor, if there is one. A supervisor that does not read loses the message, and
/// does not stop the server.
pub(super) fn notify(state: &State) {
    if let Some(socket) = env::var_os(NOTIFY_SOCKET).filter(|name| !name.is_empty()) {
        _ = send(&socket, state);
    }
}

fn send(socket: &OsStr, state: &State) -> io::Result<()> {
    let sender = UnixDatagram::unbound()?;
    sender.set_nonblocking(true)?;
    sender.send_to_addr(state.text().as_bytes(), &address(socket)?).map(drop)
}

fn address(socket: &OsStr) -> io::Result<SocketAddr> {
    match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => abstract_address(name),
        None => SocketAddr::from_pathname(socket),
    }
}

#[cfg(target_os = "linux")]
fn abstract_address(name: &[u8]) -> io::Result<SocketAddr> {
    use std::os::linux::net::SocketAddrExt;
    SocketAddr::from_abstract_name(name)
}

#[cfg(not(target_os = "linux"))]
fn abstract_address(_: &[u8]) -> io::Result<SocketAddr> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_with_a_path_and_an_abstract_one_receive_a_datagram() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("@coracle-test-{}", std::process::id());
        for socket in [path.as_os_str(), OsStr::new(&name)] {
            let receiver = UnixDatagram::bind_addr(&address(socket).unwrap()).unwrap();
            send(socket, &State::Ready).unwrap();
            let mut bytes = [0; 64];
            let len = receiver.recv(&mut bytes).unwrap();
            assert_eq!(&bytes[..len], b"READY=1");
        }
        assert!(send(OsStr::new("/nowhere/at/all"), &State::Stopping).is_err());
    }

    #[test]
    fn a_status_is_one_line() {
        let state = State::Status("node 1: a\nREADY=1".to_owned());
        assert_eq!(state.text(), "STATUS=node 1: a\\nREADY=1");
    }

    #[test]
    fn a_socket_that_is_full_does_not_block() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let _receiver = UnixDatagram::bind(&path).unwrap();
        let sent = (0..100_000).find_map(|_| send(path.as_os_str(), &State::Ready).err());
        assert_eq!(sent.map(|error| error.kind()), Some(io::ErrorKind::WouldBlock));
    }
}
