//! The listener for other nodes: performs the handshake and reads the frames of nodes of the same
//! cluster.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
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

use crate::link::{Patience, read_line, write_line};
use crate::network::Network;
use crate::threads::{ListenerThread, lock, spawn};

const READ_BYTES: usize = 256 << 10;
/// How long to wait when the operating system has no more sockets, and before a full inbox is
/// checked again.
const AGAIN_AFTER: Duration = Duration::from_millis(5);

/// The connections of the nodes that have dialled.
type Connections = Arc<Mutex<BTreeMap<NodeId, Arc<TcpStream>>>>;

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
    let handshakes = Arc::new(Mutex::new(Handshakes::new(handshakes_max)));
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
        let oldest = lock(&handshakes).begin(number, Arc::clone(&stream));
        if let Some(oldest) = oldest {
            let _ = oldest.shutdown(Shutdown::Both);
        }
        let (network, connections, waiting) =
            (Arc::clone(network), Arc::clone(&connections), Arc::clone(&handshakes));
        let is_stopping = Arc::clone(is_stopping);
        let serve = move || {
            let inbound = greet(&network, number, &stream, &connections);
            lock(&waiting).end(number);
            // When the listener stopped, it ended the connections that were registered; this one
            // may be later.
            if let Some(mut inbound) = inbound.filter(|_| !is_stopping.load(Ordering::Acquire)) {
                listen(&network, &mut inbound, &stream);
                let mut connections = lock(&connections);
                if lock(&network.directory).leave(inbound.node(), number) {
                    connections.remove(&inbound.node());
                }
            }
            drop(end);
        };
        // Without a thread the connection ends here, and the other node will dial again.
        if thread::Builder::new().name("peer connection".into()).spawn(serve).is_err() {
            lock(&handshakes).end(number);
        }
    }
    for stream in lock(&connections).values() {
        let _ = stream.shutdown(Shutdown::Both);
    }
}

/// Performs the handshake. Returns the connection if frames are to follow.
fn greet(
    network: &Arc<Network>,
    number: u64,
    stream: &Arc<TcpStream>,
    connections: &Connections,
) -> Option<Inbound> {
    network.hold(stream).ok()?;
    let _ = stream.set_nodelay(true);
    sockets::set_keepalive(&**stream, &PEER_KEEPALIVE);
    let line = read_line(stream, &Patience::new(network.wiring.clock, HANDSHAKE_TIMEOUT)).ok()?;
    let greeting = network.change(|directory, now, actions| directory.greet(&line, now, actions));
    write_line(stream, &greeting.reply, &Patience::new(network.wiring.clock, HANDSHAKE_TIMEOUT)).ok()?;
    let Some(handshake) = greeting.handshake else {
        leave(stream, &Patience::new(network.wiring.clock, REFUSAL_TIMEOUT));
        return None;
    };
    // The dialling node pings often, so silence for this long means that it is gone.
    stream.set_read_timeout(Some(PEER_SILENCE_MAX)).ok()?;
    stream.set_write_timeout(Some(SEND_TIMEOUT)).ok()?;
    let mut connections = lock(connections);
    let inbound =
        network.change(|directory, now, actions| directory.admit(handshake, number, now, actions))?;
    // The node's older connection, if any, ends here.
    if let Some(older) = connections.insert(inbound.node(), Arc::clone(stream)) {
        let _ = older.shutdown(Shutdown::Both);
    }
    Some(inbound)
}

/// Closes a rejected connection once the peer has stopped sending: closing it at once would reset
/// it, and the refusal would be lost.
fn leave(mut stream: &TcpStream, patience: &Patience) {
    let mut rest = [0; 1024];
    let _ = stream.shutdown(Shutdown::Write);
    while let Ok(left) = patience.left()
        && stream.set_read_timeout(Some(left)).is_ok()
        && matches!(stream.read(&mut rest), Ok(1..))
    {}
}

/// Delivers what a node sends, until it disconnects or breaks the protocol.
fn listen(network: &Network, inbound: &mut Inbound, mut stream: &TcpStream) {
    let mut bytes = vec![0; READ_BYTES];
    loop {
        let len = match stream.read(&mut bytes) {
            Ok(len @ 1..) => len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Ok(0) | Err(_) => return,
        };
        match inbound.receive(&bytes[..len]) {
            Ok(received) => {
                received.input.into_iter().for_each(|input| network.deliver(PeerNews::Node(input)));
                network.deliver(PeerNews::Router(received.answers));
                if stream.write_all(&received.reply).is_err() {
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
