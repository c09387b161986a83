//! The task of a link: dials one other node, sends what waits for it, and dials again after a
//! failure.
//!
//! A peer may accept a connection and then hang, or vanish without closing it. A task that writes,
//! and dials again when a write fails, notices neither: the kernel takes bytes into its buffer for
//! minutes, and a half-open connection never fails a read. So three loops run on each connection,
//! and the first that fails ends it: one writes and expects the peer to take some bytes within
//! [`SEND_TIMEOUT`], one reads receipts and sees the end of the stream, and one pings, so that
//! missing receipts show. Dialling, too, is limited by time at each step: name look-up, connect per
//! address, handshake.
//!
//! [`Link`](coracle_core::host::Link) decides: how long to back off, what is reported, what is sent
//! next.

use std::convert::Infallible;
use std::io::{self, Read};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use coracle_core::host::{
    DialAddresses, DialError, HANDSHAKE_TIMEOUT, PEER_KEEPALIVE, RESOLVE_TIMEOUT, SEND_TIMEOUT, share_of,
};
use coracle_core::peer::{HandshakeResult, Welcome};
use coracle_core::raft::NodeId;
use coracle_storage::sockets;
use coracle_tls::Fault;
use futures_lite::{AsyncWriteExt, future};
use smol::net::{TcpStream, resolve};
use smol::{Async, Timer};

use crate::alarm::{in_time, within};
use crate::network::{Line, Network};
use crate::secured::{Channel, shake_hands};

/// The most bytes read at once: a few receipts.
const HEAR_BYTES: usize = 512;

/// Keeps a link connected until the task is dropped.
pub(crate) async fn run(network: Rc<Network>, node: NodeId, address: Box<str>, line: Rc<Line>) {
    let mut addresses = DialAddresses::default();
    loop {
        let failure = match dial(&network, Some(node), &address, &mut addresses).await {
            Ok((channel, handshake, _)) if handshake.is_of_cluster => {
                if !network.go_up(&line, &handshake) {
                    return;
                }
                send(&network, channel, &line).await.into()
            }
            Ok(_) => DialError::NotReady,
            Err(failure) => failure,
        };
        let mut news = Vec::new();
        let pause = line.link.borrow_mut().failed(failure, &mut news);
        news.into_iter().for_each(|news| network.deliver(news));
        Timer::after(pause).await;
    }
}

/// Connects to a node and performs the handshake. `to` is the expected node; `None` accepts any
/// node.
pub(crate) async fn dial(
    network: &Network,
    to: Option<NodeId>,
    address: &str,
    addresses: &mut DialAddresses,
) -> Result<(Channel, HandshakeResult, Welcome), DialError> {
    let until = network.wiring.clock.now() + HANDSHAKE_TIMEOUT;
    let name = network.directory.borrow().address_to_dial(to, address);
    let resolved = in_time(RESOLVE_TIMEOUT, "the name look-up timed out", resolve(&*name)).await;
    let candidates = addresses.candidates(resolved)?;
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for (tried, &candidate) in candidates.iter().enumerate() {
        let left = until.since(network.wiring.clock.now());
        let share = share_of(left, candidates.len() - tried);
        match in_time(share, "timed out", TcpStream::connect(candidate)).await {
            Ok(stream) => {
                let left = until.since(network.wiring.clock.now());
                let channel = secure(network, stream, left).await?;
                let left = until.since(network.wiring.clock.now());
                let shaken = in_time(left, "timed out", greet(network, to, channel)).await?;
                addresses.worked(candidate);
                return Ok(shaken);
            }
            Err(error) => failed = error,
        }
    }
    Err(failed.into())
}

/// Performs the TLS handshake, if nodes speak TLS.
async fn secure(network: &Network, mut stream: TcpStream, left: Duration) -> Result<Channel, DialError> {
    let _ = stream.set_nodelay(true);
    sockets::set_keepalive(&stream, &PEER_KEEPALIVE);
    let Some(port) = &network.wiring.protection.peers else { return Ok(Channel::new(stream, None)) };
    let shaken = match port.dial() {
        Ok(session) => within(left, shake_hands(&mut stream, session)).await.unwrap_or(Err(Fault::Silent)),
        Err(fault) => Err(fault),
    };
    let secured = shaken.map_err(|fault| DialError::Unproven(fault.between_nodes().into()))?;
    Ok(Channel::new(stream, Some(secured)))
}

async fn greet(
    network: &Network,
    to: Option<NodeId>,
    mut channel: Channel,
) -> Result<(Channel, HandshakeResult, Welcome), DialError> {
    let proven = channel.proven();
    let hello = network.directory.borrow().hello_to(to, proven)?;
    channel.write_all(&hello).await?;
    let line = channel.read_line().await?;
    let now = network.wiring.clock.now();
    let (handshake, welcome) = network.directory.borrow_mut().accept_proven(to, proven, &line, now)?;
    Ok((channel, handshake, welcome))
}

/// Sends what waits, until a write fails, the peer closes the connection, or its receipts stop.
async fn send(network: &Network, channel: Channel, line: &Line) -> io::Error {
    let hearing = hear(network, channel.clone(), line);
    let asking = async {
        loop {
            let ping_at = line.link.borrow().ping_at();
            Timer::at(network.wiring.clock.system_instant(ping_at)).await;
            line.with(|link| link.ask(network.wiring.clock.now()))?;
        }
    };
    let Err(error) = future::or(speak(network, channel, line), future::or(hearing, asking)).await;
    error
}

async fn speak(network: &Network, mut channel: Channel, line: &Line) -> io::Result<Infallible> {
    let (mut bytes, mut sealed) = (Vec::new(), Vec::new());
    loop {
        line.link.borrow_mut().sent();
        line.has_work().await;
        bytes.clear();
        line.link.borrow_mut().drain(network.wiring.clock.now(), &mut bytes);
        let mut rest = channel.seal(&bytes, &mut sealed)?;
        while !rest.is_empty() {
            // A slow peer is still alive as long as it takes some bytes.
            let write = channel.stream.write(rest);
            rest = &rest[in_time(SEND_TIMEOUT, "the peer accepts no data", write).await?..];
        }
    }
}

/// Reads receipts and hands them to the link, until the connection ends. The socket is read only
/// when it is readable, because this future is polled whenever there is something to send.
async fn hear(network: &Network, mut channel: Channel, line: &Line) -> io::Result<Infallible> {
    let socket = Arc::<Async<std::net::TcpStream>>::from(channel.stream.clone());
    let hear = |bytes: &[u8]| line.with(|link| link.hear(bytes, network.wiring.clock.now()));
    let early = channel.rest();
    if !early.is_empty() {
        hear(&early)?;
    }
    let mut bytes = [0; HEAR_BYTES];
    loop {
        match socket.readable().await.and_then(|()| socket.get_ref().read(&mut bytes)) {
            Ok(len) => channel.open(&bytes[..len])?.map_or(Ok(()), hear)?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
