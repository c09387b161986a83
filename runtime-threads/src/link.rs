//! The thread of a link: dials one other node, sends what waits for it, and dials again after a
//! failure.
//!
//! A peer may accept a connection and then hang, or vanish without closing it. A thread that
//! writes, and dials again when a write fails, notices neither: the kernel takes bytes into its
//! buffer for minutes, and a half-open connection never fails a read. So a write must make progress
//! within [`SEND_TIMEOUT`], the link pings every second and expects receipts, and a second thread,
//! the *receipts* thread, reads them and sees the end of the stream. A blocking read or write
//! cannot be cancelled, so whichever thread fails first shuts the socket down, which ends the other
//! one.
//! Dialling is limited by time at each step: name look-up, connect per address, handshake.
//!
//! [`Link`](coracle_core::host::Link) decides: how long to back off, what is reported, what is sent
//! next.

use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use coracle_core::Instant;
use coracle_core::host::{
    DialAddresses, DialError, HANDSHAKE_TIMEOUT, PEER_KEEPALIVE, RESOLVE_TIMEOUT, SEND_TIMEOUT, share_of,
};
use coracle_core::peer::{HandshakeResult, Welcome};
use coracle_core::raft::NodeId;
use coracle_storage::sockets;

use crate::clock::Clock;
use crate::network::{Line, Network};
use crate::secured::{Channel, shake_hands};
use crate::threads::{is_timeout, lock};

/// The most bytes read at once: a few receipts.
const HEAR_BYTES: usize = 512;

/// Keeps a link connected until it is told to end.
pub(crate) fn run(network: &Arc<Network>, node: NodeId, address: &str, line: &Arc<Line>) {
    let mut addresses = DialAddresses::default();
    loop {
        let failure = match dial(network, Some(node), address, &mut addresses) {
            Ok((channel, handshake, _)) if handshake.is_of_cluster => {
                if !network.go_up(line, &handshake, &channel.stream) {
                    return;
                }
                send(network.wiring.clock, &channel, line, format!("receipts {} to {node}", network.id))
                    .into()
            }
            Ok(_) => DialError::NotReady,
            Err(failure) => failure,
        };
        let Some(pause) = line.failed(network, failure) else { return };
        if !line.rest(pause) {
            return;
        }
    }
}

/// Connects to a node and performs the handshake. `to` is the expected node; `None` accepts any
/// node.
pub(crate) fn dial(
    network: &Network,
    to: Option<NodeId>,
    address: &str,
    addresses: &mut DialAddresses,
) -> Result<(Channel, HandshakeResult, Welcome), DialError> {
    let name = lock(&network.directory).address_to_dial(to, address);
    let candidates = addresses.candidates(resolve(&name))?;
    let patience = Patience::new(network.wiring.clock, HANDSHAKE_TIMEOUT);
    let (stream, worked) = connect(&candidates, &patience)?;
    let stream = Arc::new(stream);
    network.hold(&stream)?;
    let _ = stream.set_nodelay(true);
    sockets::set_keepalive(&*stream, &PEER_KEEPALIVE);
    let mut channel = secure(network, stream, &patience)?;
    let proven = channel.proven();
    let hello = lock(&network.directory).hello_to(to, proven)?;
    channel.write_line(&hello, &patience)?;
    let line = channel.read_line(&patience)?;
    let now = network.wiring.clock.now();
    let (handshake, welcome) = lock(&network.directory).accept_proven(to, proven, &line, now)?;
    addresses.worked(worked);
    Ok((channel, handshake, welcome))
}

/// Performs the TLS handshake, if nodes speak TLS.
fn secure(network: &Network, stream: Arc<TcpStream>, patience: &Patience) -> Result<Channel, DialError> {
    let Some(port) = &network.wiring.protection.peers else { return Ok(Channel::new(stream, None)) };
    let shaken = port.dial().and_then(|session| shake_hands(&stream, session, patience));
    let secured = shaken.map_err(|fault| DialError::Unproven(fault.between_nodes().into()))?;
    Ok(Channel::new(stream, Some(secured)))
}

/// Looks up the addresses of a name. A look-up takes as long as the operating system allows, many
/// seconds if the resolver is down, and cannot be cancelled. So a separate thread does it, and the
/// link waits at most [`RESOLVE_TIMEOUT`].
fn resolve(name: &str) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = name.parse() {
        return Ok(vec![address]);
    }
    let (found, answer) = channel();
    let name = name.to_owned();
    let look_up = move || {
        let _ = found.send(name.to_socket_addrs().map(Iterator::collect));
    };
    thread::Builder::new().name("resolver".into()).spawn(look_up)?;
    let too_late = || io::Error::new(io::ErrorKind::TimedOut, "the name look-up timed out");
    answer.recv_timeout(RESOLVE_TIMEOUT).unwrap_or_else(|_| Err(too_late()))
}

/// Connects to the first address that accepts; each address gets its share of the time.
fn connect(addresses: &[SocketAddr], patience: &Patience) -> io::Result<(TcpStream, SocketAddr)> {
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for (tried, address) in addresses.iter().enumerate() {
        let share = share_of(patience.left()?, addresses.len() - tried);
        match TcpStream::connect_timeout(address, share) {
            Ok(stream) => return Ok((stream, *address)),
            Err(error) => failed = no_answer(error),
        }
    }
    Err(failed)
}

/// Sends what waits, until a write fails, the peer closes the connection, or its receipts stop.
fn send(clock: Clock, channel: &Channel, line: &Arc<Line>, reader_name: String) -> io::Error {
    let stream = &channel.stream;
    let (mut back, its_line) = (channel.clone(), Arc::clone(line));
    let listen = move || {
        let error = hear(clock, &mut back, &its_line);
        its_line.breaks(&back.stream, error);
    };
    let speak = || {
        stream.set_read_timeout(None)?;
        stream.set_write_timeout(Some(SEND_TIMEOUT))?;
        let reader = thread::Builder::new().name(reader_name).spawn(listen)?;
        let (mut bytes, mut sealed) = (Vec::new(), Vec::new());
        let mut speak = || -> io::Result<()> {
            loop {
                line.take(clock, &mut bytes)?;
                (&**stream).write_all(channel.seal(&bytes, &mut sealed)?)?;
            }
        };
        let spoken = speak();
        // How the peer ended the connection says more than the error of a failed write.
        let broken = line.broken();
        let _ = stream.shutdown(Shutdown::Both);
        let _ = reader.join();
        broken.map_or(spoken, Err)
    };
    match speak() {
        Ok(()) => unreachable!("it speaks until it cannot"),
        Err(error) if is_timeout(&error) => timed_out("the peer accepts no data"),
        Err(error) => error,
    }
}

/// Reads receipts and hands them to the link, until the connection ends.
fn hear(clock: Clock, channel: &mut Channel, line: &Line) -> io::Error {
    let mut bytes = [0; HEAR_BYTES];
    loop {
        let heard = match channel.read(&mut bytes) {
            Ok(receipts) => line.with(|link| link.hear(receipts, clock.now())),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return error,
        };
        if let Err(error) = heard {
            return error;
        }
    }
}

/// A time limit for work of several steps.
pub(crate) struct Patience {
    clock: Clock,
    until: Instant,
}

impl Patience {
    pub(crate) fn new(clock: Clock, patience: Duration) -> Self {
        Self { clock, until: clock.now() + patience }
    }

    /// The time that is left; an error when there is none.
    pub(crate) fn left(&self) -> io::Result<Duration> {
        let left = self.clock.until(self.until);
        if left.is_zero() { Err(timed_out("timed out")) } else { Ok(left) }
    }
}

pub(crate) fn no_answer(error: io::Error) -> io::Error {
    if is_timeout(&error) { timed_out("timed out") } else { error }
}

fn timed_out(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}
