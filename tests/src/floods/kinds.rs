//! The kinds of floods, and the clients that produce them.
//!
//! Each flooder holds as many connections as is useful, replaces those that the server closes, and
//! continues as fast as it can. It ignores answers, except in a flood of requests.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::net::sockopt;
use rustix::process::{Resource, Rlimit, getrlimit, setpriority_process, setrlimit};

use super::strangers;

/// The number of connections that a flooder holds, unless its kind says otherwise.
const HELD: usize = 500;
/// The length of an unfinished line: less than the longest line allowed.
const HALF_LINE_BYTES: usize = (1 << 20) - 100;
/// The number of writes that a flooder of sessions has in flight.
const WRITES_UNDER_WAY: usize = 64;
/// The timeout of a flooder for any operation.
const TIMEOUT: Duration = Duration::from_millis(200);
/// The lowest priority.
const PRIORITY: i32 = 19;

/// The kind of flood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Connections that are opened, send a request or nothing, and are closed.
    Connections,
    /// Unfinished lines of almost the longest length.
    HalfLines,
    /// Scans whose replies are never read.
    UnreadScans,
    /// Writes of sessions, each with a new client name.
    Sessions,
    /// Connections to the port for nodes by clients that are no nodes.
    Strangers,
    /// HTTP requests.
    Http,
}

/// The addresses that are flooded.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// The client address.
    pub(super) clients: SocketAddr,
    /// The peer addresses.
    pub(super) peers: Vec<SocketAddr>,
}

/// Lowers the priority of this thread, and raises its limit of open files.
pub(super) fn lower_priority() {
    // On Linux the priority is that of the calling thread alone. Where this fails, the latencies
    // are worse, but still valid.
    _ = setpriority_process(None, PRIORITY);
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 6] =
        [Self::Connections, Self::HalfLines, Self::UnreadScans, Self::Sessions, Self::Strangers, Self::Http];

    /// The name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::HalfLines => "half-lines",
            Self::UnreadScans => "unread-scans",
            Self::Sessions => "sessions",
            Self::Strangers => "strangers",
            Self::Http => "http",
        }
    }

    /// The kind with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Floods until the end. Returns the number of connections, lines or requests.
    pub(super) fn flood(self, target: &Target, flooder: usize, is_over: &AtomicBool) -> u64 {
        match self {
            Self::Connections => connections(target.clients, is_over),
            Self::HalfLines => half_lines(target.clients, is_over),
            Self::UnreadScans => unread_scans(target.clients, is_over),
            Self::Sessions => sessions(target.clients, flooder, is_over),
            Self::Strangers => strangers::flood(&target.peers, is_over),
            Self::Http => http(target.clients, is_over),
        }
    }
}

/// Opens a connection that is reset when it is dropped, so that this side does not run out of
/// ports.
pub(super) fn connect(address: SocketAddr) -> Option<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, TIMEOUT).ok()?;
    sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).ok()?;
    stream.set_read_timeout(Some(TIMEOUT)).ok()?;
    stream.set_write_timeout(Some(TIMEOUT)).ok()?;
    Some(stream)
}

fn connections(address: SocketAddr, is_over: &AtomicBool) -> u64 {
    let (mut held, mut done) = (VecDeque::new(), 0);
    while !is_over.load(Ordering::Relaxed) {
        let Some(mut stream) = connect(address) else { continue };
        if done % 2 == 0 {
            // Ignore the error: the server may close the connection.
            _ = stream.write_all(b"{\"op\":\"ping\"}\n");
        }
        held.push_back(stream);
        if held.len() > HELD {
            held.pop_front();
        }
        done += 1;
    }
    done
}

fn half_lines(address: SocketAddr, is_over: &AtomicBool) -> u64 {
    let line = [br#"{"op":"put","key":"a","value":""#.as_slice(), &vec![b'x'; HALF_LINE_BYTES]].concat();
    let (mut held, mut done): (VecDeque<(TcpStream, usize)>, u64) = (VecDeque::new(), 0);
    while !is_over.load(Ordering::Relaxed) {
        if held.len() < HELD
            && let Some(stream) = connect(address)
            && stream.set_nonblocking(true).is_ok()
        {
            held.push_back((stream, 0));
        }
        let Some((mut stream, sent)) = held.pop_front() else { continue };
        let rest = &line[sent..HALF_LINE_BYTES.min(sent + (256 << 10))];
        if rest.is_empty() {
            // Everything except the end was sent. The connection is held while others have sent
            // less.
            done += 1;
            if held.len() < HELD - 1 {
                held.push_back((stream, sent));
            }
            continue;
        }
        match stream.write(rest) {
            Ok(len) => held.push_back((stream, sent + len)),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                held.push_back((stream, sent));
                std::thread::sleep(Duration::from_micros(100));
            }
            Err(_) => done += 1,
        }
    }
    done
}

fn unread_scans(address: SocketAddr, is_over: &AtomicBool) -> u64 {
    let scans = "{\"op\":\"scan\",\"prefix\":\"\",\"limit\":10000}\n".repeat(4);
    let (mut held, mut done): (VecDeque<TcpStream>, u64) = (VecDeque::new(), 0);
    while !is_over.load(Ordering::Relaxed) {
        if held.len() < HELD
            && let Some(mut stream) = connect(address)
        {
            _ = sockopt::set_socket_recv_buffer_size(&stream, 4096);
            _ = stream.write_all(scans.as_bytes());
            _ = stream.set_nonblocking(true);
            held.push_back(stream);
            done += 1;
            continue;
        }
        // Sends more scans where the server still reads. A connection that was closed is replaced
        // by another one.
        let Some(mut stream) = held.pop_front() else { continue };
        match stream.write(scans.as_bytes()) {
            Ok(_) => held.push_back(stream),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => held.push_back(stream),
            Err(_) => {}
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    done
}

fn sessions(address: SocketAddr, flooder: usize, is_over: &AtomicBool) -> u64 {
    let (mut done, mut number) = (0, 0_u64);
    while !is_over.load(Ordering::Relaxed) {
        let Some(mut stream) = connect(address) else { continue };
        let mut bytes = [0; 16 << 10];
        let mut under_way = 0;
        while !is_over.load(Ordering::Relaxed) {
            let mut lines = String::new();
            while under_way < WRITES_UNDER_WAY {
                let session = format!(r#"{{"client":"flood-{flooder}-{number}","seq":1}}"#);
                lines += &format!("{{\"key\":\"s{}\",\"value\":1,\"session\":{session}}}\n", number % 1000);
                (number, under_way) = (number + 1, under_way + 1);
            }
            if stream.write_all(lines.as_bytes()).is_err() {
                break;
            }
            match stream.read(&mut bytes) {
                Ok(len @ 1..) => {
                    let answered = bytes[..len].iter().filter(|byte| **byte == b'\n').count();
                    (under_way, done) = (under_way.saturating_sub(answered), done + answered as u64);
                }
                _ => break,
            }
        }
    }
    done
}

fn http(address: SocketAddr, is_over: &AtomicBool) -> u64 {
    let request =
        "POST /keys HTTP/1.1\r\nHost: here\r\nContent-Length: 27\r\n\r\n{\"key\":\"http\",\"value\":true}\n";
    let mut done = 0;
    while !is_over.load(Ordering::Relaxed) {
        let Some(mut stream) = connect(address) else { continue };
        if stream.write_all(request.as_bytes()).is_ok() {
            let mut bytes = [0; 1024];
            while matches!(stream.read(&mut bytes), Ok(1..)) {}
        }
        done += 1;
    }
    done
}
