//! Accepts other nodes: greets those that dial, and hands on what those of the same cluster send.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use coracle_core::host::{HostInput, RouterInput};
use coracle_core::peer::{FrameBuffer, Hello, Meeting, PeerFrame, PeerHappening};
use coracle_core::proxy::ProxyInput;
use coracle_core::raft::NodeId;
use futures_lite::{AsyncReadExt, AsyncWriteExt, future};
use smol::net::{TcpListener, TcpStream};
use smol::{Task, Timer};

use crate::link::{GREETING_PATIENCE, read_line, within};
use crate::network::Network;
use crate::node::NodeInput;
use crate::peers::INBOX_MAX;
use crate::proxy::ProxyEvent;

/// Bytes read at once.
const READ_BYTES: usize = 256 << 10;
/// The most nodes heard, of today and of earlier: several times as many as a cluster has members. A node more is turned
/// away.
const HEARD_MAX: usize = 128;
/// The most greetings under way at once.
const GREETINGS_MAX: usize = 64;
/// How long to wait when the operating system gives no more sockets, and how long a full inbox is given.
const AGAIN_AFTER: Duration = Duration::from_millis(5);

/// The connections of those who dialled, each with its number in the order in which they came. A node's newer one takes the
/// place of its older one, and not the other way round: two greetings may end in another order than they began.
type Heard = Rc<RefCell<BTreeMap<NodeId, (u64, Task<()>)>>>;

/// Accepts until it is dropped.
pub(crate) async fn run(network: Rc<Network>, socket: TcpListener) {
    let heard = Heard::default();
    let greetings = Rc::new(());
    for number in 0.. {
        let Ok((stream, _)) = socket.accept().await else {
            Timer::after(AGAIN_AFTER).await;
            continue;
        };
        if Rc::strong_count(&greetings) > GREETINGS_MAX {
            continue;
        }
        let (network, heard, place) = (Rc::clone(&network), Rc::clone(&heard), Rc::clone(&greetings));
        let executor = Rc::clone(&network.executor);
        let greet = async move {
            greet(&network, number, stream, &heard).await;
            drop(place);
        };
        executor.spawn(greet).detach();
    }
}

async fn greet(network: &Rc<Network>, number: u64, mut stream: TcpStream, heard: &Heard) {
    let _ = stream.set_nodelay(true);
    let Some(Ok(line)) = within(GREETING_PATIENCE, read_line(&mut stream)).await else { return };
    let hello = Hello::decode(&line);
    let answered =
        hello.as_ref().map_err(Clone::clone).and_then(|hello| network.local.borrow().answer(hello));
    let (line, meeting) = match answered {
        Ok((welcome, meeting)) => (welcome.encode(), Some(meeting)),
        Err(refusal) => {
            if let Ok(hello) = hello {
                network.tell_stranger(hello.node(), &refusal);
            }
            (refusal.encode(), None)
        }
    };
    let Some(Ok(())) = within(GREETING_PATIENCE, stream.write_all(&line)).await else { return };
    let Some(meeting) = meeting.filter(|meeting| meeting.is_of_cluster) else { return };
    network.hear(&meeting);
    let _ = network.inbox.send(meeting.met().into());
    let latest = heard.borrow().get(&meeting.node).map(|(latest, _)| *latest);
    if heard.borrow().len() >= HEARD_MAX {
        heard.borrow_mut().retain(|_, (_, connection)| !connection.is_finished());
    }
    let has_room = heard.borrow().len() < HEARD_MAX;
    if latest.map_or(has_room, |latest| latest < number) {
        let listen = listen(Rc::clone(network), meeting.clone(), stream);
        // The older connection, if any, ends here.
        heard.borrow_mut().insert(meeting.node, (number, network.executor.spawn(listen)));
    }
}

/// Hands on what a node sends, until it hangs up or says what it should not.
async fn listen(network: Rc<Network>, meeting: Meeting, mut stream: TcpStream) {
    let mut buffer = FrameBuffer::default();
    let mut bytes = vec![0; READ_BYTES];
    loop {
        let Ok(len @ 1..) = stream.read(&mut bytes).await else { return };
        buffer.push(&bytes[..len]);
        if let Err(error) = hand_on(&network, &meeting, &mut buffer) {
            return network.tell(PeerHappening::Lost(meeting.node, error.to_string()));
        }
        // The node gets its turn also while there is always more to read.
        future::yield_now().await;
        // Whoever sends more than can be taken is held back by its own socket.
        while network.inbox.len() >= INBOX_MAX {
            Timer::after(AGAIN_AFTER).await;
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
        let _ = network.inbox.send(NodeInput::Host(HostInput::FromPeer(from, meeting.incarnation, frames)));
    }
    if !answers.is_empty() {
        let _ = network.proxy.send(ProxyEvent::Router(RouterInput::FromNode(answers)));
    }
    Ok(())
}
