//! A link: dials one other node, again and again, and sends it what waits in its outbox.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use coracle_core::host::RouterInput;
use coracle_core::peer::{Backoff, HELLO_BYTES_MAX, Meeting, PeerHappening, PeerRefusal, Welcome};
use coracle_core::proxy::ProxyInput;
use coracle_core::raft::NodeId;
use coracle_core::{Input, Instant};
use rustix::net::sockopt::set_tcp_user_timeout;

use crate::clock::Clock;
use crate::network::{Line, Network};
use crate::proxy::ProxyEvent;
use crate::threads::{is_timeout, lock};

/// How long a connection, or an answer to a greeting, is waited for.
pub(crate) const GREETING_PATIENCE: Duration = Duration::from_secs(2);
/// How long a peer may take none of the bytes that are sent to it before its connection is given up: a hung peer.
const SEND_PATIENCE: Duration = Duration::from_secs(5);
/// How long the other machine may acknowledge nothing of what was sent, before the operating system gives the connection up:
/// it would wait for many minutes otherwise, with ever longer pauses.
const SILENCE_MAX: Duration = Duration::from_secs(2);
/// Bytes sent at once: what is urgent waits for no more than this.
const SEND_BYTES: usize = 256 << 10;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Refused(#[from] PeerRefusal),
    #[error("it has no cluster yet")]
    NotReady,
}

/// Keeps a link up until its near end is dropped.
pub(crate) fn run(network: &Arc<Network>, node: NodeId, address: &str, line: &Arc<Line>) {
    let mut backoff = Backoff::new(fastrand::u64(..));
    let mut told = String::new();
    loop {
        let to = network.dial_overrides.get(&node).map_or(address, |address| address);
        let ended = match dial(network, Some(node), to) {
            Ok((stream, meeting, _)) if meeting.is_of_cluster => {
                backoff.reset();
                told.clear();
                // Before the line is locked: who forwards locks both, and this first.
                lock(&network.forwarder).connected(node, meeting.incarnation);
                if !line.go_up(&stream, || go_up(network, meeting)) {
                    return;
                }
                let ended = send(&stream, line, format!("ear {} to {node}", network.id()));
                line.go_down(|| go_down(network, node));
                DialError::Io(ended)
            }
            Ok(_) => DialError::NotReady,
            Err(error) => error,
        };
        if line.is_over() {
            return;
        }
        // Once per reason, not once per attempt.
        let why = ended.to_string();
        if why != told {
            told.clone_from(&why);
            network.tell(match ended {
                DialError::Refused(refusal) => PeerHappening::Refused(node, refusal),
                _ => PeerHappening::Lost(node, why),
            });
        }
        if !line.rest(backoff.pause()) {
            return;
        }
    }
}

fn go_up(network: &Network, meeting: Meeting) {
    let met = meeting.met();
    let Meeting { node, client_address, .. } = meeting;
    network.tell(PeerHappening::Connected(node));
    network.inbox.send(met.into());
    let reachable = ProxyInput::Reachable(node, client_address);
    let _ = network.proxy.send(ProxyEvent::Router(RouterInput::FromNode(vec![reachable])));
}

fn go_down(network: &Network, node: NodeId) {
    let unreachable = ProxyInput::Unreachable(node);
    let _ = network.proxy.send(ProxyEvent::Router(RouterInput::FromNode(vec![unreachable])));
    network.inbox.send(Input::PeerUnreachable(node).into());
}

/// Ends a link when it is dropped, and tells everybody that its connection is gone. It does so at once, not when the
/// link's thread ends: by then another link to the same node may be up.
pub(crate) struct Downed {
    pub(crate) network: Weak<Network>,
    pub(crate) node: NodeId,
    pub(crate) line: Arc<Line>,
}

impl Drop for Downed {
    fn drop(&mut self) {
        self.line.end();
        match self.network.upgrade() {
            Some(network) => self.line.go_down(|| go_down(&network, self.node)),
            // There is nobody to tell.
            None => self.line.go_down(|| {}),
        }
    }
}

/// Connects and greets. The name is looked up each time: it may have moved. `to`: `None` is whoever is there.
pub(crate) fn dial(
    network: &Network,
    to: Option<NodeId>,
    address: &str,
) -> Result<(Arc<TcpStream>, Meeting, Welcome), DialError> {
    // Looking up a name takes as long as the operating system lets it.
    let addresses: Vec<_> = address.to_socket_addrs()?.collect();
    let patience = Patience::new(network.clock, GREETING_PATIENCE);
    let stream = Arc::new(connect(&addresses, &patience)?);
    network.hold(&stream)?;
    let _ = stream.set_nodelay(true);
    // What was sent and is not even acknowledged by the other machine is a connection that is gone.
    let _ = set_tcp_user_timeout(&*stream, millis(SILENCE_MAX));
    let hello = lock(&network.local).hello(to, lock(&network.address).as_deref());
    write_line(&stream, &hello.encode(), &patience)?;
    let welcome = Welcome::decode(&read_line(&stream, &patience)?)?;
    let meeting = lock(&network.local).accept(to, &welcome)?;
    Ok((stream, meeting, welcome))
}

/// Connects to the first address that takes it; each gets its share of the time.
fn connect(addresses: &[SocketAddr], patience: &Patience) -> io::Result<TcpStream> {
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for (tried, address) in addresses.iter().enumerate() {
        let untried = u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        match TcpStream::connect_timeout(address, patience.left()? / untried) {
            Ok(stream) => return Ok(stream),
            Err(error) if is_timeout(&error) => failed = timed_out("no answer"),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// Sends what waits, until that fails or the other end hangs up.
fn send(stream: &Arc<TcpStream>, line: &Arc<Line>, ear: String) -> io::Error {
    let (back, its_line) = (Arc::clone(stream), Arc::clone(line));
    let listen = move || its_line.breaks(&back, end_of(&back));
    let speak = || {
        stream.set_read_timeout(None)?;
        stream.set_write_timeout(Some(SEND_PATIENCE))?;
        let ear = thread::Builder::new().name(ear).spawn(listen)?;
        let mut bytes = Vec::new();
        let mut speak = || -> io::Result<()> {
            loop {
                line.take(&mut bytes, SEND_BYTES)?;
                (&**stream).write_all(&bytes)?;
            }
        };
        let spoken = speak();
        // How the other end has ended it says more than that nothing can be written any more.
        let broken = line.broken();
        let _ = stream.shutdown(Shutdown::Both);
        let _ = ear.join();
        broken.map_or(spoken, Err)
    };
    match speak() {
        Ok(()) => unreachable!("it speaks until it cannot"),
        Err(error) if is_timeout(&error) => timed_out("it takes nothing"),
        Err(error) => error,
    }
}

/// Waits for the end of a connection. Nothing is ever said here: whatever can be read is the end.
fn end_of(mut stream: &TcpStream) -> io::Error {
    loop {
        match stream.read(&mut [0]) {
            Ok(0) => return io::Error::new(io::ErrorKind::UnexpectedEof, "the other end hung up"),
            Ok(_) => return io::Error::new(io::ErrorKind::InvalidData, "the other end spoke out of turn"),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return error,
        }
    }
}

/// Reads the line of a greeting, without its line break. Byte by byte: what follows it is not a line.
pub(crate) fn read_line(mut stream: &TcpStream, patience: &Patience) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
        stream.set_read_timeout(Some(patience.left()?))?;
        stream.read_exact(&mut byte).map_err(no_answer)?;
        if byte == *b"\n" {
            return Ok(line);
        }
        line.push(byte[0]);
        if line.len() > HELLO_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a greeting without an end"));
        }
    }
}

/// Writes the line of a greeting.
pub(crate) fn write_line(mut stream: &TcpStream, line: &[u8], patience: &Patience) -> io::Result<()> {
    stream.set_write_timeout(Some(patience.left()?))?;
    stream.write_all(line).map_err(no_answer)
}

fn millis(span: Duration) -> u32 {
    u32::try_from(span.as_millis()).unwrap_or(u32::MAX)
}

/// A time within which something has to be done, in however many steps.
pub(crate) struct Patience {
    clock: Clock,
    until: Instant,
}

impl Patience {
    pub(crate) fn new(clock: Clock, patience: Duration) -> Self {
        Self { clock, until: clock.now() + patience }
    }

    /// How much of it is left.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub(crate) fn left(&self) -> io::Result<Duration> {
        let left = self.clock.until(self.until);
        if left.is_zero() { Err(timed_out("no answer")) } else { Ok(left) }
    }
}

fn no_answer(error: io::Error) -> io::Error {
    if is_timeout(&error) { timed_out("no answer") } else { error }
}

fn timed_out(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}
