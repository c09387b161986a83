//! A link: dials one other node, again and again, and sends it what waits in its outbox.

use std::future::Future;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use coracle_core::Input;
use coracle_core::host::RouterInput;
use coracle_core::peer::{Backoff, HELLO_BYTES_MAX, Meeting, PeerHappening, PeerRefusal, Welcome};
use coracle_core::proxy::ProxyInput;
use coracle_core::raft::NodeId;
use futures_lite::{AsyncReadExt, AsyncWriteExt, future};
use rustix::net::sockopt::set_tcp_user_timeout;
use smol::Timer;
use smol::net::TcpStream;

use crate::network::{Line, Network};
use crate::proxy::ProxyEvent;

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

/// Keeps a link up until it is dropped.
pub(crate) async fn run(network: Rc<Network>, node: NodeId, address: Box<str>, line: Rc<Line>) {
    let mut backoff = Backoff::new(fastrand::u64(..));
    let mut told = String::new();
    let guard = Downed { network: Rc::clone(&network), node, line: Rc::clone(&line) };
    loop {
        let to = network.dial_overrides.get(&node).unwrap_or(&address).clone();
        let ended = match dial(&network, Some(node), &to).await {
            Ok((stream, meeting, _)) if meeting.is_of_cluster => {
                backoff.reset();
                told.clear();
                guard.network.tell(PeerHappening::Connected(node));
                network.forwarder.borrow_mut().connected(node, meeting.incarnation);
                line.is_up.set(true);
                let _ = network.inbox.send(meeting.met().into());
                let reachable = ProxyInput::Reachable(node, meeting.client_address);
                let _ = network.proxy.send(ProxyEvent::Router(RouterInput::FromNode(vec![reachable])));
                let ended = send(stream, &line).await;
                guard.go_down();
                DialError::Io(ended)
            }
            Ok(_) => DialError::NotReady,
            Err(error) => error,
        };
        // Once per reason, not once per attempt.
        let why = ended.to_string();
        if why != told {
            told.clone_from(&why);
            network.tell(match ended {
                DialError::Refused(refusal) => PeerHappening::Refused(node, refusal),
                _ => PeerHappening::Lost(node, why),
            });
        }
        Timer::after(backoff.pause()).await;
    }
}

/// Tells everybody when a connection is gone, also when the link itself is dropped.
struct Downed {
    network: Rc<Network>,
    node: NodeId,
    line: Rc<Line>,
}

impl Downed {
    fn go_down(&self) {
        if self.line.is_up.replace(false) {
            self.line.is_sending.set(false);
            self.line.outbox.borrow_mut().disconnect();
            let unreachable = ProxyInput::Unreachable(self.node);
            let _ = self.network.proxy.send(ProxyEvent::Router(RouterInput::FromNode(vec![unreachable])));
            let _ = self.network.inbox.send(Input::PeerUnreachable(self.node).into());
        }
    }
}

impl Drop for Downed {
    fn drop(&mut self) {
        self.go_down();
    }
}

/// Connects and greets. The name is looked up each time: it may have moved. `to`: `None` is whoever is there.
pub(crate) async fn dial(
    network: &Network,
    to: Option<NodeId>,
    address: &str,
) -> Result<(TcpStream, Meeting, Welcome), DialError> {
    let greet = async {
        let mut stream = TcpStream::connect(address).await?;
        let _ = stream.set_nodelay(true);
        // What was sent and is not even acknowledged by the other machine is a connection that is gone.
        let _ = set_tcp_user_timeout(&stream, millis(SILENCE_MAX));
        let hello = network.local.borrow().hello(to, network.address.borrow().as_deref());
        stream.write_all(&hello.encode()).await?;
        let welcome = Welcome::decode(&read_line(&mut stream).await?)?;
        let meeting = network.local.borrow().accept(to, &welcome)?;
        Ok((stream, meeting, welcome))
    };
    within(GREETING_PATIENCE, greet).await.unwrap_or_else(|| Err(timed_out("no answer").into()))
}

/// Sends what waits, until that fails or the other end hangs up.
async fn send(mut stream: TcpStream, line: &Line) -> io::Error {
    let mut back = stream.clone();
    let listen = async {
        // Nothing is ever said here: whatever can be read is the end.
        match back.read(&mut [0]).await {
            Ok(0) => io::Error::new(io::ErrorKind::UnexpectedEof, "the other end hung up"),
            Ok(_) => io::Error::new(io::ErrorKind::InvalidData, "the other end spoke out of turn"),
            Err(error) => error,
        }
    };
    let speak = async {
        let mut bytes = Vec::new();
        loop {
            line.is_sending.set(false);
            line.has_work().await;
            line.is_sending.set(true);
            bytes.clear();
            line.outbox.borrow_mut().take(&mut bytes, SEND_BYTES);
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                // However slow it is: as long as it takes something it is there.
                let written = within(SEND_PATIENCE, stream.write(rest)).await;
                match written.unwrap_or_else(|| Err(timed_out("it takes nothing"))) {
                    Ok(len) => rest = &rest[len..],
                    Err(error) => return error,
                }
            }
        }
    };
    future::or(speak, listen).await
}

/// Reads the line of a greeting, without its line break. Byte by byte: what follows it is not a line.
pub(crate) async fn read_line(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
        stream.read_exact(&mut byte).await?;
        if byte == *b"\n" {
            return Ok(line);
        }
        line.push(byte[0]);
        if line.len() > HELLO_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a greeting without an end"));
        }
    }
}

/// What the future gives, if it does so in time.
pub(crate) async fn within<T>(patience: Duration, work: impl Future<Output = T>) -> Option<T> {
    let work = async { Some(work.await) };
    let give_up = async {
        Timer::after(patience).await;
        None
    };
    future::or(work, give_up).await
}

fn millis(span: Duration) -> u32 {
    u32::try_from(span.as_millis()).unwrap_or(u32::MAX)
}

fn timed_out(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}
