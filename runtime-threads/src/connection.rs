//! A client's TCP connection: one reader and one writer, which carry out the decisions of the
//! [`ClientHost`] that they share.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use coracle_core::host::{
    CLIENT_KEEPALIVE, CLIENT_READ_BYTES, CLIENT_WRITE_BYTES, ClientHost, Pace, ReadStep, ToWriter,
};
use coracle_storage::sockets;
use coracle_tls::{Received, Session};

use crate::clock::Clock;
use crate::inputs::{ProxyEvent, Way};
use crate::threads::{Permit, is_timeout, lock};
use crate::wiring::route;

/// The stack size of a connection's threads, which have no deep call chains.
pub(crate) const STACK_BYTES: usize = 256 << 10;

/// The size of a connection's own read buffer.
const READ_BYTES: usize = 16 << 10;

/// A larger read buffer, which all connections share.
///
/// The operating system gives each thread its share of the processors. With hundreds of clients
/// that send as fast as they can, hundreds of threads would run before a node's thread runs again.
/// So a connection that has filled its own buffer reads on into this one: one connection at a time,
/// while the others wait for it. The lines in it are parsed after that.
#[derive(Clone, Debug)]
pub(crate) struct Bulk {
    shared: Arc<Mutex<(Pace, Box<[u8]>)>>,
    clock: Clock,
}

impl Bulk {
    pub(crate) fn new(clock: Clock) -> Self {
        let buffer = vec![0; CLIENT_READ_BYTES].into();
        Self { shared: Arc::new(Mutex::new((Pace::default(), buffer))), clock }
    }
}

/// A connection that the listener has accepted.
pub(crate) struct Accepted {
    pub(crate) client: ClientHost,
    /// Encrypts, if clients speak TLS.
    pub(crate) session: Option<Session>,
    pub(crate) bulk: Bulk,
    /// Returned when the connection begins to read.
    pub(crate) starting: Permit,
}

/// Serves a client until it disconnects, is silent for too long, or the proxy stops. Fails when the
/// socket or the writer's thread cannot be set up.
pub(crate) fn serve(
    number: u64,
    stream: TcpStream,
    Accepted { client, session, bulk, starting }: Accepted,
    proxy: &Sender<ProxyEvent>,
    idle_timeout: Option<Duration>,
) -> io::Result<()> {
    // Replies are small, and a client waits for each.
    stream.set_nodelay(true)?;
    sockets::set_keepalive(&stream, &CLIENT_KEEPALIVE);
    stream.set_read_timeout(idle_timeout)?;
    stream.set_write_timeout(idle_timeout)?;
    let (to_writer, from_others) = channel();
    let (made_room, room) = sync_channel(1);
    let (reader_is_done, reader_end) = channel();
    let (client, session) =
        (Arc::new(Mutex::new(client)), session.map(|session| Arc::new(Mutex::new(session))));
    let shared = Shared { client, session, proxy: proxy.clone() };
    let stream = Arc::new(stream);
    let writer = Writer { stream: Arc::clone(&stream), shared: shared.clone(), from_others, made_room };
    let writer = thread::Builder::new()
        .name(format!("client {number} writer"))
        .stack_size(STACK_BYTES)
        .spawn(move || writer.run(&reader_end))?;
    let way = Way { replies: to_writer.clone(), socket: Arc::clone(&stream) };
    if proxy.send(ProxyEvent::Connected(number, way)).is_ok() {
        let mut reader = Reader { stream, shared, to_writer, room, bulk };
        drop(starting);
        reader.run();
        // This drops the reader's channels, but not the stream.
        let Reader { stream, shared, bulk, .. } = reader;
        let (_, reads_on) = lock(&shared.client).linger();
        if reads_on {
            drain(&stream, &bulk);
            drop(reader_is_done);
        }
    } else {
        // The writer ends when no sender is left.
        drop((to_writer, reader_is_done, starting));
    }
    // A writer that panicked has already printed a message; the client is gone either way.
    let _ = writer.join();
    let _ = proxy.send(ProxyEvent::Disconnected(number));
    Ok(())
}

/// Reads until the client stops sending, or the writer closes the socket.
fn drain(stream: &TcpStream, bulk: &Bulk) {
    while matches!(read_bulk(stream, bulk, |_| ()), Ok(1..)) {}
}

/// Waits for bytes, then for the shared buffer, and hands them to `take`. Returns their number; 0
/// at the end of the stream.
fn read_bulk(mut stream: &TcpStream, bulk: &Bulk, take: impl FnOnce(&[u8])) -> io::Result<usize> {
    if stream.peek(&mut [0])? == 0 {
        return Ok(0);
    }
    let (pace, buffer) = &mut *lock(&bulk.shared);
    let len = stream.read(buffer)?;
    take(&buffer[..len]);
    if let Some(pause) = pace.moved(bulk.clock.now()) {
        // The others wait, too.
        thread::sleep(bulk.clock.until(pause));
    }
    Ok(len)
}

#[derive(Clone)]
struct Shared {
    client: Arc<Mutex<ClientHost>>,
    session: Option<Arc<Mutex<Session>>>,
    proxy: Sender<ProxyEvent>,
}

impl Shared {
    /// Accepts bytes of the socket.
    fn receive(&self, bytes: &[u8]) {
        let mut client = lock(&self.client);
        match &self.session {
            None => client.received(bytes),
            Some(session) => {
                let received = lock(session).receive(bytes, |plaintext| client.received(plaintext));
                note(&mut client, received);
            }
        }
    }

    /// Accepts the end of the socket's stream.
    fn stream_ended(&self) {
        let mut client = lock(&self.client);
        match &self.session {
            None => client.input_ended(),
            Some(session) => note(&mut client, lock(session).stream_ended()),
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
    stream: Arc<TcpStream>,
    shared: Shared,
    to_writer: Sender<ToWriter>,
    room: Receiver<()>,
    bulk: Bulk,
}

impl Reader {
    fn run(&mut self) {
        let mut buffer = vec![0; READ_BYTES];
        let mut last_len = 0;
        loop {
            let mut client = lock(&self.shared.client);
            let (for_router, wakes_writer, step) = client.next_read();
            let goes_on =
                route(&self.shared.proxy, for_router.into_iter().flatten()) && step != ReadStep::End;
            drop(client);
            if wakes_writer || !goes_on {
                let _ = self.to_writer.send(ToWriter::Look);
            }
            if !goes_on {
                return;
            }
            if let ReadStep::Rest(time) = step {
                thread::sleep(time);
                lock(&self.shared.client).end_rest();
                continue;
            }
            if step == ReadStep::WaitForRoom {
                if self.room.recv().is_err() {
                    return;
                }
                continue;
            }
            let receive = |bytes: &[u8]| {
                if !bytes.is_empty() {
                    self.shared.receive(bytes);
                }
            };
            let read = if last_len >= READ_BYTES {
                read_bulk(&self.stream, &self.bulk, receive)
            } else {
                let read = (&*self.stream).read(&mut buffer);
                read.inspect(|len| receive(&buffer[..*len]))
            };
            match read {
                Ok(len @ 1..) => last_len = len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_timeout(&error) => {
                    if lock(&self.shared.client).was_silent() {
                        let _ = self.to_writer.send(ToWriter::Idle);
                        return;
                    }
                }
                Ok(0) | Err(_) => self.shared.stream_ended(),
            }
        }
    }
}

struct Writer {
    stream: Arc<TcpStream>,
    shared: Shared,
    from_others: Receiver<ToWriter>,
    made_room: SyncSender<()>,
}

impl Writer {
    /// Writes replies until no more will come, then closes the connection in order: the client gets
    /// a moment to stop sending.
    fn run(mut self, reader_end: &Receiver<()>) {
        let written = self.write_all_replies();
        if written.and(self.end_session()).is_ok() && self.stream.shutdown(Shutdown::Write).is_ok() {
            let (time_left, _) = lock(&self.shared.client).linger();
            // Either the reader has ended by then, or its time is up.
            let _ = reader_end.recv_timeout(time_left);
        }
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    fn write(&self, text: &[u8]) -> io::Result<()> {
        let Some(session) = &self.shared.session else { return (&*self.stream).write_all(text) };
        // A long reply is encrypted piece by piece, so that it is not held twice.
        let mut sealed = Vec::new();
        for piece in text.chunks(CLIENT_WRITE_BYTES) {
            sealed.clear();
            lock(session).seal(piece, &mut sealed).map_err(io::Error::other)?;
            (&*self.stream).write_all(&sealed)?;
        }
        Ok(())
    }

    /// Ends the session in order, or sends the reason of its failure.
    fn end_session(&self) -> io::Result<()> {
        let Some(session) = &self.shared.session else { return Ok(()) };
        let mut last = Vec::new();
        let mut session = lock(session);
        session.drain(&mut last);
        session.close(&mut last);
        drop(session);
        (&*self.stream).write_all(&last)
    }

    fn write_all_replies(&mut self) -> io::Result<()> {
        let mut output = String::new();
        while let Ok(first) = self.from_others.recv() {
            let rest = std::iter::from_fn(|| self.from_others.try_recv().ok());
            for told in std::iter::once(first).chain(rest) {
                lock(&self.shared.client).told(told);
            }
            loop {
                let mut client = lock(&self.shared.client);
                let for_router = client.next_write(&mut output);
                route(&self.shared.proxy, for_router.into_iter().flatten());
                drop(client);
                if output.is_empty() {
                    break;
                }
                self.write(output.as_bytes())?;
            }
            // The reader may wait for room. If it does not, it finds this signal later and checks
            // again.
            let _ = self.made_room.try_send(());
            if lock(&self.shared.client).has_ended() {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    /// A silent client that held the buffer while it is read would stop all others that move much.
    #[test]
    fn a_silent_client_does_not_wait_for_the_shared_buffer() {
        const LONG: Duration = Duration::from_secs(60);
        let bulk = Bulk::new(Clock::start());
        let (silent, from_silent) = pair();
        let held = lock(&bulk.shared);
        let (done, is_done) = channel();
        thread::spawn({
            let bulk = bulk.clone();
            move || done.send(read_bulk(&from_silent, &bulk, |_| ()).unwrap())
        });
        drop(silent);
        assert_eq!(is_done.recv_timeout(LONG), Ok(0), "the end of the stream needs no buffer");
        drop(held);
    }

    #[test]
    fn bytes_come_through_the_shared_buffer_in_order() {
        let bulk = Bulk::new(Clock::start());
        let (mut client, from_client) = pair();
        let sent: Vec<u8> = (0_u8..251).cycle().take(10 * CLIENT_READ_BYTES).collect();
        let sending = thread::spawn({
            let sent = sent.clone();
            move || client.write_all(&sent).unwrap()
        });
        let mut received = Vec::new();
        while read_bulk(&from_client, &bulk, |bytes| received.extend_from_slice(bytes)).unwrap() > 0 {}
        sending.join().unwrap();
        assert!(received == sent);
    }
}
