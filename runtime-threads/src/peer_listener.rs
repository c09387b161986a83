//! Accepts other nodes: greets those that dial, and hands on what those of the same cluster send.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use coracle_core::host::{HostInput, RouterInput};
use coracle_core::peer::{FrameBuffer, Hello, Meeting, PeerFrame, PeerHappening};
use coracle_core::proxy::ProxyInput;
use coracle_core::raft::NodeId;

use crate::link::{GREETING_PATIENCE, Patience, read_line, write_line};
use crate::network::Network;
use crate::node::NodeInput;
use crate::proxy::ProxyEvent;
use crate::threads::{ListenerThread, lock, spawn};

/// Bytes read at once.
const READ_BYTES: usize = 256 << 10;
/// The most nodes heard at once: several times as many as a cluster has members. Above it the one that was quiet
/// longest does not matter: the newest is turned away.
const HEARD_MAX: usize = 128;
/// The most greetings under way at once.
const GREETINGS_MAX: usize = 64;
/// How long to wait when the operating system gives no more sockets, and how long a full inbox is given.
const AGAIN_AFTER: Duration = Duration::from_millis(5);

/// The connections of those who dialled, each with its number in the order in which they came. A node's newer one takes the
/// place of its older one, and not the other way round: two greetings may end in another order than they began.
type Heard = Arc<Mutex<BTreeMap<NodeId, (u64, Arc<TcpStream>)>>>;

/// Starts to accept at `socket`, which is at `address`.
pub(crate) fn start(network: &Arc<Network>, socket: TcpListener, address: SocketAddr) -> ListenerThread {
    let is_stopping = Arc::new(AtomicBool::new(false));
    let (network, its_end) = (Arc::clone(network), Arc::clone(&is_stopping));
    let thread = spawn("peer listener".into(), move || run(&network, &socket, &its_end));
    ListenerThread { thread, is_stopping, address }
}

/// Accepts until it is told to stop. The connections end with it.
fn run(network: &Arc<Network>, socket: &TcpListener, is_stopping: &Arc<AtomicBool>) {
    let heard = Heard::default();
    let greetings = Arc::new(());
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
        if Arc::strong_count(&greetings) > GREETINGS_MAX {
            continue;
        }
        let (network, heard, place) = (Arc::clone(network), Arc::clone(&heard), Arc::clone(&greetings));
        let is_stopping = Arc::clone(is_stopping);
        let serve = move || {
            let stream = Arc::new(stream);
            let met = greet(&network, number, &stream, &heard);
            drop(place);
            // The listener has ended the connections that it knew of.
            if let Some(meeting) = met.filter(|_| !is_stopping.load(Ordering::Acquire)) {
                listen(&network, &meeting, &stream);
                leave(&heard, meeting.node, number);
            }
            drop(end);
        };
        // Without a thread for it the connection ends here, and its node will dial again.
        let _ = thread::Builder::new().name("peer connection".into()).spawn(serve);
    }
    for (_, stream) in lock(&heard).values() {
        let _ = stream.shutdown(Shutdown::Both);
    }
}

/// The meeting, if frames are to follow.
fn greet(network: &Arc<Network>, number: u64, stream: &Arc<TcpStream>, heard: &Heard) -> Option<Meeting> {
    network.hold(stream).ok()?;
    let _ = stream.set_nodelay(true);
    let line = read_line(stream, &Patience::new(network.clock, GREETING_PATIENCE)).ok()?;
    let hello = Hello::decode(&line);
    let answered = hello.as_ref().map_err(Clone::clone).and_then(|hello| lock(&network.local).answer(hello));
    let (line, meeting) = match answered {
        Ok((welcome, meeting)) => (welcome.encode(), Some(meeting)),
        Err(refusal) => {
            if let Ok(hello) = hello {
                network.tell_stranger(hello.node(), &refusal);
            }
            (refusal.encode(), None)
        }
    };
    write_line(stream, &line, &Patience::new(network.clock, GREETING_PATIENCE)).ok()?;
    let meeting = meeting.filter(|meeting| meeting.is_of_cluster)?;
    stream.set_read_timeout(None).ok()?;
    network.hear(&meeting);
    network.inbox.send(meeting.met().into());
    let mut heard = lock(heard);
    match heard.get(&meeting.node) {
        Some((latest, _)) if *latest > number => return None,
        Some((_, older)) => drop(older.shutdown(Shutdown::Both)),
        None if heard.len() >= HEARD_MAX => return None,
        None => {}
    }
    heard.insert(meeting.node, (number, Arc::clone(stream)));
    Some(meeting)
}

/// The connection of `node` is over, unless a newer one has taken its place.
fn leave(heard: &Heard, node: NodeId, number: u64) {
    let mut heard = lock(heard);
    if heard.get(&node).is_some_and(|(latest, _)| *latest == number) {
        heard.remove(&node);
    }
}

/// Hands on what a node sends, until it hangs up or says what it should not.
fn listen(network: &Network, meeting: &Meeting, mut stream: &TcpStream) {
    let mut buffer = FrameBuffer::default();
    let mut bytes = vec![0; READ_BYTES];
    loop {
        let len = match stream.read(&mut bytes) {
            Ok(len @ 1..) => len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Ok(0) | Err(_) => return,
        };
        buffer.push(&bytes[..len]);
        if let Err(error) = hand_on(network, meeting, &mut buffer) {
            return network.tell(PeerHappening::Lost(meeting.node, error.to_string()));
        }
        // Whoever sends more than can be taken is held back by its own socket.
        while network.inbox.is_full() && !network.is_over() {
            thread::sleep(AGAIN_AFTER);
        }
    }
}

fn hand_on(network: &Network, meeting: &Meeting, buffer: &mut FrameBuffer) -> io::Result<()> {
    let from = meeting.node;
    let invalid = |why: &dyn std::fmt::Display| io::Error::new(io::ErrorKind::InvalidData, why.to_string());
    let (mut frames, mut answers) = (Vec::new(), Vec::new());
    while let Some(bytes) = buffer.next_frame().map_err(|fault| invalid(&fault))? {
        match PeerFrame::read(bytes).map_err(|fault| invalid(&fault))? {
            PeerFrame::Message(message) if (message.from, message.to) != (from, network.id()) => {
                return Err(invalid(&"a message in another node's name"));
            }
            PeerFrame::Answer { call, answer } if call.boot == network.boot => {
                answers.push(ProxyInput::Answer(from, call.request, answer));
            }
            // The answer to what was asked before this node was restarted, or a question of the other's earlier run.
            PeerFrame::Answer { .. } => {}
            PeerFrame::Ask { call, .. } if call.boot != meeting.boot => {}
            frame => frames.push(frame),
        }
    }
    if !frames.is_empty() {
        network.inbox.send(NodeInput::Host(HostInput::FromPeer(from, meeting.incarnation, frames)));
    }
    if !answers.is_empty() {
        let _ = network.proxy.send(ProxyEvent::Router(RouterInput::FromNode(answers)));
    }
    Ok(())
}
