//! One client's TCP connection: a reader that turns bytes into requests, and a writer that turns replies into bytes.
//! What they mean is the core's business; both share its state of the connection.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use coracle_core::host::RouterInput;
use coracle_core::protocol::{Connection, IDLE_LINE};
use coracle_core::proxy::Reply;

use crate::proxy::ProxyEvent;
use crate::threads::{is_timeout, lock};

/// Bytes read at once.
const READ_BYTES: usize = 64 << 10;
/// Replies are turned into bytes up to this many at a time; a reply that is longer goes alone.
const WRITE_BYTES: usize = 64 << 10;
/// The stack of a connection's threads: nothing here calls deeply.
pub(crate) const STACK_BYTES: usize = 256 << 10;

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
///
/// # Errors
///
/// When the socket or a second thread is not to be had.
pub(crate) fn serve(
    number: u64,
    stream: TcpStream,
    state: Connection,
    proxy: &Sender<ProxyEvent>,
    idle_timeout: Option<Duration>,
) -> io::Result<()> {
    // Replies are small and waited for.
    stream.set_nodelay(true)?;
    stream.set_read_timeout(idle_timeout)?;
    stream.set_write_timeout(idle_timeout)?;
    let (to_writer, from_others) = channel();
    let (made_room, room) = sync_channel(1);
    let (reader_is_done, reader_end) = channel();
    let state = Arc::new(Mutex::new(state));
    let requests = Requests { number, state, proxy: proxy.clone() };
    let writer = Writer { stream: stream.try_clone()?, requests: requests.clone(), from_others, made_room };
    let writer = thread::Builder::new()
        .name(format!("client {number} writer"))
        .stack_size(STACK_BYTES)
        .spawn(move || writer.run(&reader_end))?;
    if proxy.send(ProxyEvent::Connected(number, to_writer.clone())).is_ok() {
        let mut reader = Reader { stream, requests, to_writer, room };
        reader.run();
        // Its channels end here, but for the stream.
        let Reader { mut stream, .. } = reader;
        drain(&mut stream);
        drop(reader_is_done);
    } else {
        // The writer ends when nobody can tell it anything.
        drop(to_writer);
    }
    // A writer that panicked has said so; the client is gone either way.
    let _ = writer.join();
    let _ = proxy.send(ProxyEvent::Disconnected(number));
    Ok(())
}

/// Reads what the client still sends until it stops. A socket that is closed with unread bytes resets the connection,
/// and what was just written may be lost with it.
fn drain(stream: &mut TcpStream) {
    let mut rest = vec![0; READ_BYTES];
    while matches!(stream.read(&mut rest), Ok(1..)) {}
}

/// What came in, on its way to the proxy. Both halves hand it on: the reader when bytes came, the writer when replies
/// let requests run that had waited.
#[derive(Clone)]
struct Requests {
    number: u64,
    state: Arc<Mutex<Connection>>,
    proxy: Sender<ProxyEvent>,
}

impl Requests {
    /// Hands over every request that may run, in their order. Returns whether there can be more, now or later.
    fn hand_over(&self) -> bool {
        let mut state = lock(&self.state);
        let requests: Vec<_> = std::iter::from_fn(|| state.next_request()).collect();
        let is_over = state.is_finished();
        // The state stays locked meanwhile: what the other half hands over comes after this.
        let asked = requests.is_empty()
            || self.proxy.send(ProxyEvent::Router(RouterInput::Asked(self.number, requests))).is_ok();
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
    fn run(&mut self) {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let was_due = lock(&self.requests.state).has_reply_due();
            let may_go_on = self.requests.hand_over();
            let is_due = lock(&self.requests.state).has_reply_due();
            if (is_due && !was_due) || !may_go_on {
                // Pings and lines that are no requests are answered without the proxy.
                let _ = self.to_writer.send(ToWriter::Look);
            }
            if !may_go_on {
                return;
            }
            if !lock(&self.requests.state).wants_input() {
                if self.room.recv().is_err() {
                    return;
                }
                continue;
            }
            match self.stream.read(&mut buffer) {
                Ok(len @ 1..) => lock(&self.requests.state).receive(&buffer[..len]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_timeout(&error) => {
                    if lock(&self.requests.state).is_idle() {
                        lock(&self.requests.state).refuse_input();
                        let _ = self.to_writer.send(ToWriter::Idle);
                        return;
                    }
                }
                Ok(0) | Err(_) => lock(&self.requests.state).end_input(),
            }
        }
    }
}

struct Writer {
    stream: TcpStream,
    requests: Requests,
    from_others: Receiver<ToWriter>,
    made_room: SyncSender<()>,
}

impl Writer {
    /// Writes until nothing more will come, then ends the connection in order: the client is given a moment to stop
    /// sending.
    fn run(mut self, reader_end: &Receiver<()>) {
        const PATIENCE: Duration = Duration::from_millis(500);
        if self.write_all_replies().is_ok() && self.stream.shutdown(Shutdown::Write).is_ok() {
            // Either way the reader is done then, or has had its time.
            let _ = reader_end.recv_timeout(PATIENCE);
        }
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    fn write_all_replies(&mut self) -> io::Result<()> {
        let mut output = String::new();
        let mut is_stopping = false;
        while let Ok(first) = self.from_others.recv() {
            let rest = std::iter::from_fn(|| self.from_others.try_recv().ok());
            for told in std::iter::once(first).chain(rest) {
                match told {
                    ToWriter::Reply(slot, reply) => lock(&self.requests.state).reply(slot, reply),
                    ToWriter::Look => {}
                    ToWriter::Stop => is_stopping = true,
                    ToWriter::Idle => return self.stream.write_all(IDLE_LINE.as_bytes()),
                }
            }
            loop {
                // Every reply that was written makes room for a request that waits, so this comes before each look.
                if lock(&self.requests.state).may_have_requests() {
                    self.requests.hand_over();
                }
                output.clear();
                output.shrink_to(2 * WRITE_BYTES);
                lock(&self.requests.state).write_replies(&mut output, WRITE_BYTES);
                if output.is_empty() {
                    break;
                }
                self.stream.write_all(output.as_bytes())?;
            }
            // The reader may wait for room; one that does not finds this later and looks again.
            let _ = self.made_room.try_send(());
            if is_stopping || lock(&self.requests.state).is_finished() {
                break;
            }
        }
        Ok(())
    }
}
