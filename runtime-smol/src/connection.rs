//! A client's TCP connection: one reader and one writer, which carry out the decisions of the
//! [`ClientHost`] that they share.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, Read};
use std::net::Shutdown;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use coracle_core::host::{
    CLIENT_KEEPALIVE, CLIENT_READ_BYTES, CLIENT_WRITE_BYTES, ClientHost, ReadStep, ToWriter,
};
use coracle_storage::sockets;
use coracle_tls::{Received, Session};
use futures_lite::{AsyncWriteExt, future};
use smol::net::TcpStream;
use smol::{Async, Timer};

use crate::alarm::{Alarm, in_time, within};
use crate::bulk::Bulk;
use crate::clock::Clock;
use crate::inputs::{ProxyEvent, Way};
use crate::listener::Place;
use crate::mailbox::{Receiver, Sender, mailbox};
use crate::wiring::{Wiring, route};

/// A client's socket, to read from.
type Socket = Arc<Async<std::net::TcpStream>>;

/// Read and write buffers, shared by all connections of a thread.
///
/// A silent client holds no buffer. All connections read into the same buffer, borrowed for one
/// read at a time, and replies are built in a string that is given back once it is written. So ten
/// thousand silent clients need no more memory for buffers than one.
#[derive(Clone)]
pub(crate) struct Buffers {
    input: Rc<RefCell<Box<[u8]>>>,
    output: Rc<Cell<String>>,
    sealed: Rc<Cell<Vec<u8>>>,
    bulk: Bulk,
}

impl Buffers {
    /// Creates the buffers. A connection that moves more than a buffer holds waits for a turn of
    /// `bulk`.
    pub(crate) fn new(bulk: Bulk) -> Self {
        let input = Rc::new(RefCell::new(vec![0; CLIENT_READ_BYTES].into()));
        Self { input, output: Rc::default(), sealed: Rc::default(), bulk }
    }

    /// Waits for bytes and hands them to `take`. Returns their number; 0 at the end of the stream.
    ///
    /// The socket is read only when it is readable, because a read that finds nothing costs as much
    /// as one that does, and the reader is polled whenever the writer of the same client has work.
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

    /// Waits for a turn after a read of this length, if it filled the buffer: more is waiting.
    async fn pause_after(&self, len: usize) {
        if len == CLIENT_READ_BYTES {
            self.bulk.turn().await;
        }
    }

    /// Returns an empty string, with spare capacity unless another connection is using it now.
    fn lend(&self) -> String {
        self.output.take()
    }

    /// Takes back a string from [`Buffers::lend`]. A string that a long reply has made large is not
    /// kept.
    fn take_back(&self, mut output: String) {
        if output.capacity() <= 2 * CLIENT_WRITE_BYTES {
            output.clear();
            self.output.set(output);
        }
    }
}

/// The parts of a connection when it begins.
pub(crate) struct Accepted {
    pub(crate) stream: TcpStream,
    pub(crate) client: ClientHost,
    /// Encrypts, if clients speak TLS.
    pub(crate) session: Option<Session>,
}

/// Serves a client until it disconnects, is silent for too long, or the proxy stops. Then drops its
/// `place`.
///
/// This is not an `async fn`: its future would hold the arguments beside the values made of them,
/// as long as the client stays connected.
pub(crate) fn serve(
    number: u64,
    Accepted { stream, client, session }: Accepted,
    wiring: &Wiring,
    buffers: Buffers,
    idle_timeout: Option<Duration>,
    place: Place,
) -> impl Future<Output = ()> + use<> {
    // Replies are small, and a client waits for each.
    let _ = stream.set_nodelay(true);
    sockets::set_keepalive(&stream, &CLIENT_KEEPALIVE);
    let (to_writer, from_others) = mailbox();
    let (made_room, room) = async_channel::bounded(1);
    let socket: Socket = stream.clone().into();
    let way = Way { replies: to_writer.clone(), socket: Arc::clone(&socket) };
    let is_welcome = wiring.proxy.send(ProxyEvent::Connected(number, way)).is_ok();
    let (client, session) =
        (Rc::new(RefCell::new(client)), session.map(|session| Rc::new(RefCell::new(session))));
    let shared = Shared { client, session, proxy: wiring.proxy.clone() };
    let clock = wiring.clock;
    let mut reader = Reader { socket, buffers: buffers.clone(), shared: shared.clone(), to_writer, room };
    let mut writer = Writer { stream, buffers, shared, from_others, made_room };
    async move {
        let _place = place;
        if !is_welcome {
            return;
        }
        // When the reader ends, the writer still has to write the pending replies. When the writer
        // ends, no work is left.
        let read = async move {
            reader.run(clock, idle_timeout).await;
            drop(reader);
            future::pending().await
        };
        let written = future::or(writer.run(idle_timeout), read).await;
        let written = written.and(writer.end_session(idle_timeout).await);
        let Writer { stream, buffers, shared, .. } = &writer;
        let _ = shared.proxy.send(ProxyEvent::Disconnected(number));
        let linger = shared.client.borrow().linger();
        if written.is_ok() {
            leave(&stream.clone().into(), buffers, linger).await;
        }
    }
}

/// Closes a connection in order: the client gets a moment to stop sending.
async fn leave(socket: &Socket, buffers: &Buffers, (time_left, reads_on): (Duration, bool)) {
    if socket.get_ref().shutdown(Shutdown::Write).is_err() {
        return;
    }
    let drain = async {
        while reads_on && let Ok(len @ 1..) = buffers.read(socket, |_| ()).await {
            buffers.pause_after(len).await;
        }
        if !reads_on {
            future::pending::<()>().await;
        }
    };
    within(time_left, drain).await;
}

#[derive(Clone)]
struct Shared {
    client: Rc<RefCell<ClientHost>>,
    session: Option<Rc<RefCell<Session>>>,
    proxy: Sender<ProxyEvent>,
}

impl Shared {
    /// Accepts bytes of the socket.
    fn receive(&self, bytes: &[u8]) {
        let mut client = self.client.borrow_mut();
        match &self.session {
            None => client.received(bytes),
            Some(session) => {
                let received = session.borrow_mut().receive(bytes, |plaintext| client.received(plaintext));
                note(&mut client, received);
            }
        }
    }

    /// Accepts the end of the socket's stream.
    fn stream_ended(&self) {
        let mut client = self.client.borrow_mut();
        match &self.session {
            None => client.input_ended(),
            Some(session) => note(&mut client, session.borrow_mut().stream_ended()),
        }
    }
}

fn note(client: &mut ClientHost, received: Received) {
    match received {
        Received::Open => {}
        Received::Ended => client.input_ended(),
        Received::Broken => client.cut_off(),
    }
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
            if let ReadStep::Rest(time) = step {
                Timer::after(time).await;
                self.shared.client.borrow_mut().end_rest();
                continue;
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
            let (client, shared) = (&self.shared.client, &self.shared);
            let receive = |bytes: &[u8]| {
                if !bytes.is_empty() {
                    shared.receive(bytes);
                }
            };
            let read = async { Some(self.buffers.read(&self.socket, receive).await) };
            match future::or(read, silence).await {
                Some(Ok(len @ 1..)) => {
                    deadline = silent_at();
                    self.buffers.pause_after(len).await;
                }
                Some(Ok(0) | Err(_)) => shared.stream_ended(),
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
    /// Writes replies until no more will come.
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
            // The reader may wait for room. If it does not, it finds this signal later and checks
            // again.
            let _ = self.made_room.try_send(());
            if self.shared.client.borrow().has_ended() {
                break;
            }
        }
        Ok(())
    }

    /// Writes all of `text`, unless the client accepts no bytes for longer than `patience`.
    async fn write(&mut self, text: &str, patience: Option<Duration>) -> io::Result<()> {
        let Some(session) = self.shared.session.clone() else {
            return self.write_bytes(text.as_bytes(), patience).await;
        };
        // A long reply is encrypted piece by piece, so that it is not held twice.
        for piece in text.as_bytes().chunks(CLIENT_WRITE_BYTES) {
            let mut sealed = self.buffers.sealed.take();
            sealed.clear();
            session.borrow_mut().seal(piece, &mut sealed).map_err(io::Error::other)?;
            self.write_bytes(&sealed, patience).await?;
            self.buffers.sealed.set(sealed);
        }
        Ok(())
    }

    /// Ends the session in order, or sends the reason of its failure.
    async fn end_session(&mut self, patience: Option<Duration>) -> io::Result<()> {
        let Some(session) = self.shared.session.clone() else { return Ok(()) };
        let mut last = Vec::new();
        session.borrow_mut().drain(&mut last);
        session.borrow_mut().close(&mut last);
        self.write_bytes(&last, patience).await
    }

    async fn write_bytes(&mut self, bytes: &[u8], patience: Option<Duration>) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let written = match patience {
                None => self.stream.write(rest).await?,
                Some(patience) => {
                    in_time(patience, "the client accepts no data", self.stream.write(rest)).await?
                }
            };
            rest = &rest[written..];
        }
        Ok(())
    }
}
