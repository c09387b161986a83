//! One client's TCP connection: a reader and a writer, which do what the [`ClientHost`] that they
//! share says.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, Read};
use std::net::Shutdown;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use coracle_core::host::{
    CLIENT_READ_BYTES, CLIENT_WATCH, CLIENT_WRITE_BYTES, ClientHost, ReadStep, ToWriter,
};
use coracle_storage::sockets;
use futures_lite::{AsyncWriteExt, future};
use smol::Async;
use smol::net::TcpStream;

use crate::alarm::{Alarm, in_time, within};
use crate::bulk::Bulk;
use crate::clock::Clock;
use crate::inputs::{ProxyEvent, Way};
use crate::listener::Place;
use crate::mailbox::{Receiver, Sender, mailbox};
use crate::wiring::{Wiring, route};

/// A client's socket, to read from.
type Socket = Arc<Async<std::net::TcpStream>>;

/// Room for bytes on their way, shared by all connections of a thread.
///
/// A client that is silent holds none of it: what arrives is read into one place that belongs to
/// everybody, borrowed for one read at a time, and what leaves is made in a string that is handed
/// on when it was written. So ten thousand silent clients need no more room than one.
#[derive(Clone)]
pub(crate) struct Buffers {
    input: Rc<RefCell<Box<[u8]>>>,
    output: Rc<Cell<String>>,
    bulk: Bulk,
}

impl Buffers {
    /// Who moves more than fits in this waits for a turn of `bulk`.
    pub(crate) fn new(bulk: Bulk) -> Self {
        let input = Rc::new(RefCell::new(vec![0; CLIENT_READ_BYTES].into()));
        Self { input, output: Rc::default(), bulk }
    }

    /// Waits for bytes and shows them to `take`. Returns how many there were; 0 at the end of the
    /// stream.
    ///
    /// The socket is looked at only when there is something to read: a try that finds nothing costs
    /// as much as one that does, and the reader is looked after whenever the writer of its client
    /// has something to do.
    async fn read(&self, socket: &Socket, mut take: impl FnMut(&[u8])) -> io::Result<usize> {
        poll_fn(|context| {
            loop {
                if let Err(error) = ready!(socket.poll_readable(context)) {
                    return Poll::Ready(Err(error));
                }
                let mut buffer = self.input.borrow_mut();
                match (&mut socket.get_ref()).read(&mut buffer) {
                    Ok(len) => {
                        take(&buffer[..len]);
                        return Poll::Ready(Ok(len));
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
        })
        .await
    }

    /// An empty string, with room in it unless somebody else is writing just now.
    fn lend(&self) -> String {
        self.output.take()
    }

    /// Takes a string back that was lent. One that a long reply has made large is not kept.
    fn take_back(&self, mut output: String) {
        if output.capacity() <= 2 * CLIENT_WRITE_BYTES {
            output.clear();
            self.output.set(output);
        }
    }
}

/// Serves a client until it leaves, is silent for too long, or the proxy stops. Then it gives up
/// its place.
///
/// No `async fn`: its future would hold the arguments beside what is made of them, for as long as
/// the client stays.
pub(crate) fn serve(
    number: u64,
    stream: TcpStream,
    client: ClientHost,
    wiring: &Wiring,
    buffers: Buffers,
    idle_timeout: Option<Duration>,
    place: Place,
) -> impl Future<Output = ()> + use<> {
    // Replies are small and waited for.
    let _ = stream.set_nodelay(true);
    sockets::watch(&stream, &CLIENT_WATCH);
    let (to_writer, from_others) = mailbox();
    let (made_room, room) = async_channel::bounded(1);
    let socket: Socket = stream.clone().into();
    let way = Way { replies: to_writer.clone(), socket: Arc::clone(&socket) };
    let is_welcome = wiring.proxy.send(ProxyEvent::Connected(number, way)).is_ok();
    let shared = Shared { client: Rc::new(RefCell::new(client)), proxy: wiring.proxy.clone() };
    let clock = wiring.clock;
    let mut reader = Reader { socket, buffers: buffers.clone(), shared: shared.clone(), to_writer, room };
    let mut writer = Writer { stream, buffers, shared, from_others, made_room };
    async move {
        let _place = place;
        if !is_welcome {
            return;
        }
        // A reader that ends leaves the replies under way to the writer; a writer that ends leaves
        // nothing to do.
        let read = async move {
            reader.run(clock, idle_timeout).await;
            drop(reader);
            future::pending().await
        };
        let written = future::or(writer.run(idle_timeout), read).await;
        let Writer { stream, buffers, shared, .. } = &writer;
        let _ = shared.proxy.send(ProxyEvent::Disconnected(number));
        if written.is_ok() {
            leave(&stream.clone().into(), buffers).await;
        }
    }
}

/// Ends a connection in order. A socket that is closed with unread bytes resets the connection, and
/// what was just written may be lost with it: so the client is given a moment to stop sending.
async fn leave(socket: &Socket, buffers: &Buffers) {
    const PATIENCE: Duration = Duration::from_millis(500);
    if socket.get_ref().shutdown(Shutdown::Write).is_err() {
        return;
    }
    let drain = async { while matches!(buffers.read(socket, |_| ()).await, Ok(1..)) {} };
    within(PATIENCE, drain).await;
}

/// What both halves of a connection share.
#[derive(Clone)]
struct Shared {
    client: Rc<RefCell<ClientHost>>,
    proxy: Sender<ProxyEvent>,
}

struct Reader {
    socket: Socket,
    buffers: Buffers,
    shared: Shared,
    to_writer: Sender<ToWriter>,
    room: async_channel::Receiver<()>,
}

impl Reader {
    async fn run(&mut self, clock: Clock, idle_timeout: Option<Duration>) {
        let mut alarm = Alarm::new(clock);
        let silent_at = || idle_timeout.map(|timeout| clock.now() + timeout);
        let mut deadline = silent_at();
        loop {
            let (for_router, wakes_writer, step) = self.shared.client.borrow_mut().next_read();
            let goes_on =
                route(&self.shared.proxy, for_router.into_iter().flatten()) && step != ReadStep::End;
            if wakes_writer || !goes_on {
                let _ = self.to_writer.send(ToWriter::Look);
            }
            if !goes_on {
                return;
            }
            if step == ReadStep::WaitForRoom {
                if self.room.recv().await.is_err() {
                    return;
                }
                continue;
            }
            let silence = async {
                alarm.wait(deadline).await;
                None
            };
            let client = &self.shared.client;
            let receive = |bytes: &[u8]| client.borrow_mut().received(bytes);
            let read = async { Some(self.buffers.read(&self.socket, receive).await) };
            match future::or(read, silence).await {
                Some(Ok(len @ 1..)) => {
                    deadline = silent_at();
                    if len == CLIENT_READ_BYTES {
                        self.buffers.bulk.turn().await;
                    }
                }
                Some(Ok(0) | Err(_)) => client.borrow_mut().input_ended(),
                None => {
                    deadline = silent_at();
                    if client.borrow_mut().was_silent() {
                        let _ = self.to_writer.send(ToWriter::Idle);
                    }
                }
            }
        }
    }
}

struct Writer {
    stream: TcpStream,
    buffers: Buffers,
    shared: Shared,
    from_others: Receiver<ToWriter>,
    made_room: async_channel::Sender<()>,
}

impl Writer {
    /// Writes until nothing more will come.
    async fn run(&mut self, patience: Option<Duration>) -> io::Result<()> {
        while let Ok(first) = self.from_others.recv().await {
            let rest = std::iter::from_fn(|| self.from_others.take());
            for told in std::iter::once(first).chain(rest) {
                self.shared.client.borrow_mut().told(told);
            }
            let mut output = self.buffers.lend();
            loop {
                let for_router = self.shared.client.borrow_mut().next_write(&mut output);
                route(&self.shared.proxy, for_router.into_iter().flatten());
                if output.is_empty() {
                    break;
                }
                self.write(&output, patience).await?;
                if output.len() >= CLIENT_WRITE_BYTES {
                    self.buffers.bulk.turn().await;
                }
            }
            self.buffers.take_back(output);
            // The reader may wait for room; one that does not finds this later and looks again.
            let _ = self.made_room.try_send(());
            if self.shared.client.borrow().has_ended() {
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
                Some(patience) => in_time(patience, "it takes nothing", self.stream.write(rest)).await?,
            };
            rest = &rest[written..];
        }
        Ok(())
    }
}
