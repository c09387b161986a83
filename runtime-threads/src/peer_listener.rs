//! The listener for other nodes: performs the handshake and reads the frames of nodes of the same
//! cluster.

use std::collections::BTreeMap;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use coracle_core::host::{
    HANDSHAKE_TIMEOUT, Handshakes, Inbound, PEER_KEEPALIVE, PEER_SILENCE_MAX, PeerNews, REFUSAL_TIMEOUT,
    SEND_TIMEOUT,
};
use coracle_core::peer::PeerEvent;
use coracle_core::raft::NodeId;
use coracle_storage::sockets;
use coracle_tls::Fault;

use crate::link::Patience;
use crate::network::Network;
use crate::secured::{Channel, leave, shake_hands};
use crate::threads::{ListenerThread, lock, spawn};

const READ_BYTES: usize = 256 << 10;
/// How long to wait when the operating system has no more sockets, and before a full inbox is
/// checked again.
const AGAIN_AFTER: Duration = Duration::from_millis(5);

/// The connections of the nodes that have dialled.
type Connections = Arc<Mutex<BTreeMap<NodeId, Arc<TcpStream>>>>;

/// The handshakes under way. A program that has not proven its identity cannot take the place of
/// one that has.
#[derive(Clone)]
struct Waiting {
    /// Nodes speak TLS, and these have not proven their identity yet.
    unproven: Table,
    /// These may say which node they are.
    greeted: Table,
}

type Table = Arc<Mutex<Handshakes<Arc<TcpStream>>>>;

impl Waiting {
    /// Adds a connection. The oldest one ends if there are too many.
    fn begin(table: &Table, number: u64, stream: &Arc<TcpStream>) {
        let oldest = lock(table).begin(number, Arc::clone(stream));
        if let Some(oldest) = oldest {
            let _ = oldest.shutdown(Shutdown::Both);
        }
    }

    fn end(&self, number: u64) {
        lock(&self.unproven).end(number);
        lock(&self.greeted).end(number);
    }
}

/// Starts the thread that accepts connections at `socket`, which is bound to `address`.
pub(crate) fn start(network: &Arc<Network>, socket: TcpListener, address: SocketAddr) -> ListenerThread {
    let is_stopping = Arc::new(AtomicBool::new(false));
    let (network, its_end) = (Arc::clone(network), Arc::clone(&is_stopping));
    let thread = spawn("peer listener".into(), move || run(&network, &socket, &its_end));
    ListenerThread { thread, is_stopping, address }
}

/// Accepts connections until the listener is stopped, which also ends the connections.
fn run(network: &Arc<Network>, socket: &TcpListener, is_stopping: &Arc<AtomicBool>) {
    let connections = Connections::default();
    let handshakes_max = lock(&network.directory).handshakes_max();
    let table = || Table::new(Mutex::new(Handshakes::new(handshakes_max)));
    let waiting = Waiting { unproven: table(), greeted: table() };
    let first = if network.wiring.protection.peers.is_some() { &waiting.unproven } else { &waiting.greeted };
    for number in 0.. {
        let accepted = socket.accept();
        if is_stopping.load(Ordering::Acquire) {
            break;
        }
        let Ok((stream, _)) = accepted else {
            thread::sleep(AGAIN_AFTER);
            continue;
        };
        let Some(end) = network.threads_end() else { break };
        let stream = Arc::new(stream);
        Waiting::begin(first, number, &stream);
        let (network, connections, tables) = (Arc::clone(network), Arc::clone(&connections), waiting.clone());
        let is_stopping = Arc::clone(is_stopping);
        let serve = move || {
            let channel = secure(&network, number, stream, &tables);
            let inbound = channel.and_then(|channel| greet(&network, number, channel, &connections));
            tables.end(number);
            // When the listener stopped, it ended the connections that were registered; this one
            // may be later.
            if let Some((mut inbound, channel)) = inbound.filter(|_| !is_stopping.load(Ordering::Acquire)) {
                listen(&network, &mut inbound, channel);
                let mut connections = lock(&connections);
                if lock(&network.directory).leave(inbound.node(), number) {
                    connections.remove(&inbound.node());
                }
            }
            drop(end);
        };
        // Without a thread the connection ends here, and the other node will dial again.
        if thread::Builder::new().name("peer connection".into()).spawn(serve).is_err() {
            waiting.end(number);
        }
    }
    for stream in lock(&connections).values() {
        let _ = stream.shutdown(Shutdown::Both);
    }
}

/// Performs the TLS handshake, if nodes speak TLS. `None`: the connection is closed.
fn secure(network: &Arc<Network>, number: u64, stream: Arc<TcpStream>, waiting: &Waiting) -> Option<Channel> {
    network.hold(&stream).ok()?;
    let _ = stream.set_nodelay(true);
    sockets::set_keepalive(&*stream, &PEER_KEEPALIVE);
    let Some(port) = &network.wiring.protection.peers else { return Some(Channel::new(stream, None)) };
    let patience = Patience::new(network.wiring.clock, HANDSHAKE_TIMEOUT);
    match port.accept().and_then(|session| shake_hands(&stream, session, &patience)) {
        Ok(secured) => {
            // A connection that is not in the table any more has made room, and is shut down.
            lock(&waiting.unproven).end(number)?;
            Waiting::begin(&waiting.greeted, number, &stream);
            Some(Channel::new(stream, Some(secured)))
        }
        Err(fault) => {
            tell(network, &fault);
            leave(&stream, &Patience::new(network.wiring.clock, REFUSAL_TIMEOUT));
            None
        }
    }
}

fn tell(network: &Arc<Network>, fault: &Fault) {
    network.change(|directory, now, actions| directory.unproven(&fault.between_nodes(), now, actions));
}

/// Performs the handshake. Returns the connection if frames are to follow.
fn greet(
    network: &Arc<Network>,
    number: u64,
    mut channel: Channel,
    connections: &Connections,
) -> Option<(Inbound, Channel)> {
    let (proven, clock) = (channel.proven(), network.wiring.clock);
    let line = channel.read_line(&Patience::new(clock, HANDSHAKE_TIMEOUT)).ok()?;
    let greeting =
        network.change(|directory, now, actions| directory.greet_proven(proven, &line, now, actions));
    channel.write_line(&greeting.reply, &Patience::new(clock, HANDSHAKE_TIMEOUT)).ok()?;
    let Some(handshake) = greeting.handshake else {
        leave(&channel.stream, &Patience::new(clock, REFUSAL_TIMEOUT));
        return None;
    };
    // The dialling node pings often, so silence for this long means that it is gone.
    channel.stream.set_read_timeout(Some(PEER_SILENCE_MAX)).ok()?;
    channel.stream.set_write_timeout(Some(SEND_TIMEOUT)).ok()?;
    let mut connections = lock(connections);
    let inbound =
        network.change(|directory, now, actions| directory.admit(handshake, number, now, actions))?;
    // The node's older connection, if any, ends here.
    if let Some(older) = connections.insert(inbound.node(), Arc::clone(&channel.stream)) {
        let _ = older.shutdown(Shutdown::Both);
    }
    Some((inbound, channel))
}

/// Delivers what a node sends, until it disconnects or breaks the protocol.
fn listen(network: &Network, inbound: &mut Inbound, mut channel: Channel) {
    let mut bytes = vec![0; READ_BYTES];
    loop {
        let read = match channel.read(&mut bytes) {
            Ok(read) if !read.is_empty() => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Ok(_) | Err(_) => return,
        };
        match inbound.receive(read) {
            Ok(received) => {
                received.input.into_iter().for_each(|input| network.deliver(PeerNews::Node(input)));
                network.deliver(PeerNews::Router(received.answers));
                if channel.write_all(&received.reply).is_err() {
                    return;
                }
            }
            Err(fault) => {
                let lost = PeerEvent::Lost(inbound.node(), fault.to_string());
                return network.deliver(PeerNews::Report(lost));
            }
        }
        // Backpressure: while the inbox is full nothing is read, so the sender's socket fills up.
        while network.inbox_is_full() && !network.is_over() {
            thread::sleep(AGAIN_AFTER);
        }
    }
}
