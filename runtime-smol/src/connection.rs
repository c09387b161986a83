//! One client's TCP connection: a reader that turns bytes into requests, and a writer that turns replies into bytes.
//! What they mean is the core's business; both share its state of the connection.

use std::cell::RefCell;
use std::io;
use std::net::Shutdown;
use std::rc::Rc;
use std::time::{Duration, Instant};

use async_channel::{Receiver, Sender};
use coracle_core::protocol::{Connection, IDLE_LINE};
use coracle_core::proxy::Reply;
use futures_lite::{AsyncReadExt, AsyncWriteExt, future};
use smol::Timer;
use smol::net::TcpStream;

use crate::proxy::ProxyEvent;

/// Bytes read at once.
const READ_BYTES: usize = 64 << 10;
/// Replies are turned into bytes up to this many at a time; a reply that is longer goes alone.
const WRITE_BYTES: usize = 64 << 10;

/// What a writer is told.
#[derive(Debug)]
pub(crate) enum ToWriter {
    /// The reply to a slot's request.
    Reply(u64, Reply),
    /// There may be lines to write that no reply brought about.
    Look,
    /// The client was silent for too long.
    Idle,
    /// The server stops, and every reply that is owed was given before this.
    Stop,
}

/// Serves a client until it leaves, is silent for too long, or the proxy stops.
pub(crate) async fn serve(
    number: u64,
    stream: TcpStream,
    state: Connection,
    proxy: Sender<ProxyEvent>,
    idle_timeout: Option<Duration>,
) {
    // Replies are small and waited for.
    let _ = stream.set_nodelay(true);
    let (to_writer, from_others) = async_channel::unbounded();
    let (made_room, room) = async_channel::bounded(1);
    let state = Rc::new(RefCell::new(state));
    if proxy.try_send(ProxyEvent::Connected(number, to_writer.clone())).is_err() {
        return;
    }
    let requests = Requests { number, state, proxy: proxy.clone() };
    let reader = Reader { stream: stream.clone(), requests: requests.clone(), to_writer, room };
    let writer = Writer { stream: stream.clone(), requests, from_others, made_room };
    // A reader that ends leaves the replies under way to the writer; a writer that ends leaves nothing to do.
    let read = async {
        reader.run(idle_timeout).await;
        future::pending().await
    };
    let written = future::or(writer.run(idle_timeout), read).await;
    let _ = proxy.try_send(ProxyEvent::Disconnected(number));
    if written.is_ok() {
        leave(stream).await;
    }
}

/// Ends a connection in order. A socket that is closed with unread bytes resets the connection, and what was just
/// written may be lost with it: so the client is given a moment to stop sending.
async fn leave(mut stream: TcpStream) {
    const PATIENCE: Duration = Duration::from_millis(500);
    if stream.shutdown(Shutdown::Write).is_err() {
        return;
    }
    let mut rest = vec![0; READ_BYTES];
    let drain = async { while matches!(stream.read(&mut rest).await, Ok(1..)) {} };
    let give_up = async {
        Timer::after(PATIENCE).await;
    };
    future::or(drain, give_up).await;
}

/// What came in, on its way to the proxy. Both halves hand it on: the reader when bytes came, the writer when replies
/// let requests run that had waited.
#[derive(Clone)]
struct Requests {
    number: u64,
    state: Rc<RefCell<Connection>>,
    proxy: Sender<ProxyEvent>,
}

impl Requests {
    /// Hands over every request that may run, in their order. Returns whether there can be more, now or later.
    fn hand_over(&self) -> bool {
        let mut state = self.state.borrow_mut();
        let requests: Vec<_> = std::iter::from_fn(|| state.next_request()).collect();
        let is_over = state.is_finished();
        let asked =
            requests.is_empty() || self.proxy.try_send(ProxyEvent::Asked(self.number, requests)).is_ok();
        asked && !is_over
    }
}

struct Reader {
    stream: TcpStream,
    requests: Requests,
    to_writer: Sender<ToWriter>,
    room: Receiver<()>,
}

impl Reader {
    async fn run(mut self, idle_timeout: Option<Duration>) {
        let mut buffer = vec![0; READ_BYTES];
        let mut idle = idle_timeout.map(IdleTimer::new);
        loop {
            let was_due = self.requests.state.borrow().has_reply_due();
            let may_go_on = self.requests.hand_over();
            let is_due = self.requests.state.borrow().has_reply_due();
            if (is_due && !was_due) || !may_go_on {
                // Pings and lines that are no requests are answered without the proxy.
                let _ = self.to_writer.try_send(ToWriter::Look);
            }
            if !may_go_on {
                return;
            }
            let wants_input = self.requests.state.borrow().wants_input();
            if !wants_input {
                if self.room.recv().await.is_err() {
                    return;
                }
                continue;
            }
            let silence = async {
                match &mut idle {
                    Some(idle) => idle.wait().await,
                    None => future::pending().await,
                }
                None
            };
            let read = async { Some(self.stream.read(&mut buffer).await) };
            match future::or(read, silence).await {
                Some(Ok(len @ 1..)) => {
                    self.requests.state.borrow_mut().receive(&buffer[..len]);
                    if let Some(idle) = &mut idle {
                        idle.heard();
                    }
                }
                Some(Ok(0) | Err(_)) => self.requests.state.borrow_mut().end_input(),
                None if self.requests.state.borrow().is_idle() => {
                    self.requests.state.borrow_mut().refuse_input();
                    let _ = self.to_writer.try_send(ToWriter::Idle);
                }
                None => {}
            }
        }
    }
}

struct Writer {
    stream: TcpStream,
    requests: Requests,
    from_others: Receiver<ToWriter>,
    made_room: Sender<()>,
}

impl Writer {
    /// Writes until nothing more will come.
    async fn run(mut self, patience: Option<Duration>) -> io::Result<()> {
        let mut output = String::new();
        let mut is_stopping = false;
        while let Ok(first) = self.from_others.recv().await {
            let rest = std::iter::from_fn(|| self.from_others.try_recv().ok());
            for told in std::iter::once(first).chain(rest) {
                match told {
                    ToWriter::Reply(slot, reply) => self.requests.state.borrow_mut().reply(slot, reply),
                    ToWriter::Look => {}
                    ToWriter::Stop => is_stopping = true,
                    ToWriter::Idle => return self.write(IDLE_LINE, patience).await,
                }
            }
            loop {
                // Every reply that was written makes room for a request that waits, so this comes before each look.
                if self.requests.state.borrow().may_have_requests() {
                    self.requests.hand_over();
                }
                output.clear();
                output.shrink_to(2 * WRITE_BYTES);
                self.requests.state.borrow_mut().write_replies(&mut output, WRITE_BYTES);
                if output.is_empty() {
                    break;
                }
                self.write(&output, patience).await?;
            }
            // The reader may wait for room; one that does not finds this later and looks again.
            let _ = self.made_room.try_send(());
            if is_stopping || self.requests.state.borrow().is_finished() {
                break;
            }
        }
        Ok(())
    }

    /// Writes all of `text`, unless the client takes nothing for longer than `patience`.
    async fn write(&mut self, text: &str, patience: Option<Duration>) -> io::Result<()> {
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            let written = match patience {
                None => self.stream.write(rest).await?,
                Some(patience) => {
                    let give_up = async {
                        Timer::after(patience).await;
                        Err(io::ErrorKind::TimedOut.into())
                    };
                    future::or(self.stream.write(rest), give_up).await?
                }
            };
            rest = &rest[written..];
        }
        Ok(())
    }
}

/// Goes off when a client was silent for long. It is set anew when it goes off, and not at every byte.
struct IdleTimer {
    timeout: Duration,
    last_heard: Instant,
    timer: Timer,
}

impl IdleTimer {
    fn new(timeout: Duration) -> Self {
        Self { timeout, last_heard: Instant::now(), timer: Timer::after(timeout) }
    }

    fn heard(&mut self) {
        self.last_heard = Instant::now();
    }

    async fn wait(&mut self) {
        loop {
            (&mut self.timer).await;
            let silence = self.last_heard.elapsed();
            if silence >= self.timeout {
                self.last_heard = Instant::now();
                self.timer.set_after(self.timeout);
                return;
            }
            self.timer.set_after(self.timeout - silence);
        }
    }
}
