//! The listener for other nodes: performs the handshake and reads the frames of nodes of the same
//! cluster.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use coracle_core::host::{
    HANDSHAKE_TIMEOUT, Handshakes, Inbound, PEER_KEEPALIVE, PEER_SILENCE_MAX, PeerNews, SEND_TIMEOUT,
};
use coracle_core::peer::PeerEvent;
use coracle_core::raft::NodeId;
use coracle_storage::sockets;
use coracle_tls::Fault;
use futures_lite::{StreamExt, future};
use smol::net::{TcpListener, TcpStream};
use smol::{Task, Timer};

use crate::alarm::within;
use crate::network::Network;
use crate::secured::{Channel, leave, shake_hands};

const READ_BYTES: usize = 256 << 10;
/// How long to wait when the operating system has no more sockets, and before a full inbox is
/// checked again.
const AGAIN_AFTER: Duration = Duration::from_millis(5);

/// The connections of the nodes that have dialled.
type Connections = Rc<RefCell<BTreeMap<NodeId, Task<()>>>>;

/// The handshakes under way. A program that has not proven its identity cannot take the place of
/// one that has.
#[derive(Clone)]
struct Waiting {
    /// Nodes speak TLS, and these have not proven their identity yet.
    unproven: Table,
    /// These may say which node they are.
    greeted: Table,
}

type Table = Rc<RefCell<Handshakes<Task<()>>>>;

pub(crate) async fn run(network: Rc<Network>, socket: TcpListener) {
    let connections = Connections::default();
    let handshakes_max = network.directory.borrow().handshakes_max();
    let table = || Rc::new(RefCell::new(Handshakes::new(handshakes_max)));
    let waiting = Waiting { unproven: table(), greeted: table() };
    let first = if network.wiring.protection.peers.is_some() { &waiting.unproven } else { &waiting.greeted };
    for number in 0.. {
        let Ok((stream, _)) = socket.accept().await else {
            Timer::after(AGAIN_AFTER).await;
            continue;
        };
        let (its_network, tables) = (Rc::clone(&network), waiting.clone());
        let connections = Rc::clone(&connections);
        let greet = async move {
            if let Some(channel) = secure(&its_network, number, stream, &tables).await {
                greet(&its_network, number, channel, &connections).await;
            }
            for table in [tables.unproven, tables.greeted] {
                let itself = table.borrow_mut().end(number);
                itself.into_iter().for_each(Task::detach);
            }
        };
        let oldest = first.borrow_mut().begin(number, network.wiring.executor.spawn(greet));
        // Dropping a task ends it and its connection.
        drop(oldest);
        // Other tasks get their turn even when there is always another connection to accept.
        future::yield_now().await;
    }
}

/// Performs the TLS handshake, if nodes speak TLS. `None`: the connection is closed.
async fn secure(
    network: &Rc<Network>,
    number: u64,
    mut stream: TcpStream,
    waiting: &Waiting,
) -> Option<Channel> {
    let _ = stream.set_nodelay(true);
    sockets::set_keepalive(&stream, &PEER_KEEPALIVE);
    let Some(port) = &network.wiring.protection.peers else { return Some(Channel::new(stream, None)) };
    let shaken = match port.accept() {
        Ok(session) => within(HANDSHAKE_TIMEOUT, shake_hands(&mut stream, session)).await,
        Err(fault) => Some(Err(fault)),
    };
    match shaken.unwrap_or(Err(Fault::Silent)) {
        Ok(secured) => {
            let itself = waiting.unproven.borrow_mut().end(number)?;
            let oldest = waiting.greeted.borrow_mut().begin(number, itself);
            drop(oldest);
            Some(Channel::new(stream, Some(secured)))
        }
        Err(fault) => {
            network
                .change(|directory, now, actions| directory.unproven(&fault.between_nodes(), now, actions));
            leave(&mut stream).await;
            None
        }
    }
}

async fn greet(network: &Rc<Network>, number: u64, mut channel: Channel, connections: &Connections) {
    let proven = channel.proven();
    let Some(Ok(line)) = within(HANDSHAKE_TIMEOUT, channel.read_line()).await else { return };
    let greeting =
        network.change(|directory, now, actions| directory.greet_proven(proven, &line, now, actions));
    let Some(Ok(())) = within(HANDSHAKE_TIMEOUT, channel.write_all(&greeting.reply)).await else { return };
    let Some(handshake) = greeting.handshake else { return leave(&mut channel.stream).await };
    let inbound = network.change(|directory, now, actions| directory.admit(handshake, number, now, actions));
    if let Some(inbound) = inbound {
        let node = inbound.node();
        let listen = listen(Rc::clone(network), inbound, number, channel);
        let mut connections = connections.borrow_mut();
        connections.retain(|_, connection| !connection.is_finished());
        // The node's older connection, if any, ends here.
        connections.insert(node, network.wiring.executor.spawn(listen));
    }
}

/// Delivers what a node sends, until it disconnects or breaks the protocol.
async fn listen(network: Rc<Network>, mut inbound: Inbound, number: u64, mut channel: Channel) {
    let mut bytes = vec![0; READ_BYTES];
    let mut watch = Timer::interval(PEER_SILENCE_MAX);
    let mut is_silent = false;
    loop {
        let read = async { Some(channel.read(&mut bytes).await) };
        let read = match future::or(read, async { watch.next().await.and(None) }).await {
            Some(Ok(read)) if !read.is_empty() => read,
            // The dialling node pings often. The last read may have been within this interval, so
            // only the next tick without a read shows that the node is silent.
            None if !is_silent => {
                is_silent = true;
                continue;
            }
            Some(Ok(_) | Err(_)) | None => break,
        };
        is_silent = false;
        match inbound.receive(read) {
            Ok(received) => {
                received.input.into_iter().for_each(|input| network.deliver(PeerNews::Node(input)));
                network.deliver(PeerNews::Router(received.answers));
                if !matches!(within(SEND_TIMEOUT, channel.write_all(&received.reply)).await, Some(Ok(()))) {
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
