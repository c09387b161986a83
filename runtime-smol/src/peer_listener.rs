//! The listener for other nodes: performs the handshake and reads the frames of nodes of the same
//! cluster.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::Shutdown;
use std::rc::Rc;
use std::time::Duration;

use coracle_core::host::{
    HANDSHAKE_TIMEOUT, Handshakes, Inbound, PEER_KEEPALIVE, PEER_SILENCE_MAX, PeerNews, REFUSAL_TIMEOUT,
    SEND_TIMEOUT,
};
use coracle_core::peer::PeerEvent;
use coracle_core::raft::NodeId;
use coracle_storage::sockets;
use futures_lite::{AsyncReadExt, AsyncWriteExt, StreamExt, future};
use smol::net::{TcpListener, TcpStream};
use smol::{Task, Timer};

use crate::alarm::within;
use crate::link::read_line;
use crate::network::Network;

const READ_BYTES: usize = 256 << 10;
/// How long to wait when the operating system has no more sockets, and before a full inbox is
/// checked again.
const AGAIN_AFTER: Duration = Duration::from_millis(5);

/// The connections of the nodes that have dialled.
type Connections = Rc<RefCell<BTreeMap<NodeId, Task<()>>>>;

pub(crate) async fn run(network: Rc<Network>, socket: TcpListener) {
    let connections = Connections::default();
    let handshakes_max = network.directory.borrow().handshakes_max();
    let handshakes = Rc::new(RefCell::new(Handshakes::new(handshakes_max)));
    for number in 0.. {
        let Ok((stream, _)) = socket.accept().await else {
            Timer::after(AGAIN_AFTER).await;
            continue;
        };
        let (its_network, waiting) = (Rc::clone(&network), Rc::clone(&handshakes));
        let connections = Rc::clone(&connections);
        let greet = async move {
            greet(&its_network, number, stream, &connections).await;
            let itself = waiting.borrow_mut().end(number);
            itself.into_iter().for_each(Task::detach);
        };
        let oldest = handshakes.borrow_mut().begin(number, network.wiring.executor.spawn(greet));
        // Dropping a task ends it and its connection.
        drop(oldest);
        // Other tasks get their turn even when there is always another connection to accept.
        future::yield_now().await;
    }
}

async fn greet(network: &Rc<Network>, number: u64, mut stream: TcpStream, connections: &Connections) {
    let _ = stream.set_nodelay(true);
    sockets::set_keepalive(&stream, &PEER_KEEPALIVE);
    let Some(Ok(line)) = within(HANDSHAKE_TIMEOUT, read_line(&mut stream)).await else { return };
    let greeting = network.change(|directory, now, actions| directory.greet(&line, now, actions));
    let Some(Ok(())) = within(HANDSHAKE_TIMEOUT, stream.write_all(&greeting.reply)).await else { return };
    let Some(handshake) = greeting.handshake else { return leave(stream).await };
    let inbound = network.change(|directory, now, actions| directory.admit(handshake, number, now, actions));
    if let Some(inbound) = inbound {
        let node = inbound.node();
        let listen = listen(Rc::clone(network), inbound, number, stream);
        let mut connections = connections.borrow_mut();
        connections.retain(|_, connection| !connection.is_finished());
        // The node's older connection, if any, ends here.
        connections.insert(node, network.wiring.executor.spawn(listen));
    }
}

/// Closes a rejected connection once the peer has stopped sending: closing it at once would reset
/// it, and the refusal would be lost.
async fn leave(mut stream: TcpStream) {
    let _ = stream.shutdown(Shutdown::Write);
    let mut rest = [0; 1024];
    let drain = async { while matches!(stream.read(&mut rest).await, Ok(1..)) {} };
    within(REFUSAL_TIMEOUT, drain).await;
}

/// Delivers what a node sends, until it disconnects or breaks the protocol.
async fn listen(network: Rc<Network>, mut inbound: Inbound, number: u64, mut stream: TcpStream) {
    let mut bytes = vec![0; READ_BYTES];
    let mut watch = Timer::interval(PEER_SILENCE_MAX);
    let mut is_silent = false;
    loop {
        let read = async { Some(stream.read(&mut bytes).await) };
        let len = match future::or(read, async { watch.next().await.and(None) }).await {
            Some(Ok(len @ 1..)) => len,
            // The dialling node pings often. The last read may have been within this interval, so
            // only the next tick without a read shows that the node is silent.
            None if !is_silent => {
                is_silent = true;
                continue;
            }
            Some(Ok(0) | Err(_)) | None => break,
        };
        is_silent = false;
        match inbound.receive(&bytes[..len]) {
            Ok(received) => {
                received.input.into_iter().for_each(|input| network.deliver(PeerNews::Node(input)));
                network.deliver(PeerNews::Router(received.answers));
                if !matches!(within(SEND_TIMEOUT, stream.write_all(&received.reply)).await, Some(Ok(()))) {
                    break;
                }
            }
            Err(fault) => {
                network.deliver(PeerNews::Report(PeerEvent::Lost(inbound.node(), fault.to_string())));
                break;
            }
        }
        // The node gets its turn even when there is always more to read.
        future::yield_now().await;
        // Backpressure: while the inbox is full nothing is read, so the sender's socket fills up.
        while network.inbox_is_full() {
            Timer::after(AGAIN_AFTER).await;
        }
    }
    network.directory.borrow_mut().leave(inbound.node(), number);
}
