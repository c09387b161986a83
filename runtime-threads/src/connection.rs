//! A client's TCP connection: one reader and one writer, which carry out the decisions of the
//! [`ClientHost`] that they share.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use coracle_core::host::{CLIENT_KEEPALIVE, CLIENT_READ_BYTES, ClientHost, ReadStep, ToWriter};
use coracle_storage::sockets;

use crate::inputs::{ProxyEvent, Way};
use crate::threads::{is_timeout, lock};
use crate::wiring::route;

/// The stack size of a connection's threads, which have no deep call chains.
pub(crate) const STACK_BYTES: usize = 256 << 10;

/// Serves a client until it disconnects, is silent for too long, or the proxy stops. Fails when the
/// socket or the writer's thread cannot be set up.
pub(crate) fn serve(
    number: u64,
    stream: TcpStream,
    client: ClientHost,
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
    let shared = Shared { client: Arc::new(Mutex::new(client)), proxy: proxy.clone() };
    let stream = Arc::new(stream);
    let writer = Writer { stream: Arc::clone(&stream), shared: shared.clone(), from_others, made_room };
    let writer = thread::Builder::new()
        .name(format!("client {number} writer"))
        .stack_size(STACK_BYTES)
        .spawn(move || writer.run(&reader_end))?;
    let way = Way { replies: to_writer.clone(), socket: Arc::clone(&stream) };
    if proxy.send(ProxyEvent::Connected(number, way)).is_ok() {
        let mut reader = Reader { stream, shared, to_writer, room };
        reader.run();
        // This drops the reader's channels, but not the stream.
        let Reader { stream, .. } = reader;
        drain(&stream);
        drop(reader_is_done);
    } else {
        // The writer ends when no sender is left.
        drop(to_writer);
    }
    // A writer that panicked has already printed a message; the client is gone either way.
    let _ = writer.join();
    let _ = proxy.send(ProxyEvent::Disconnected(number));
    Ok(())
}

/// Reads until the client stops sending. A socket that is closed with unread bytes resets the
/// connection, and the last reply may be lost with it.
fn drain(mut stream: &TcpStream) {
    // Small, because clients that are evicted for memory end here, too.
    let mut rest = [0; 4 << 10];
    while matches!(stream.read(&mut rest), Ok(1..)) {}
}

#[derive(Clone)]
struct Shared {
    client: Arc<Mutex<ClientHost>>,
    proxy: Sender<ProxyEvent>,
}

struct Reader {
    stream: Arc<TcpStream>,
    shared: Shared,
    to_writer: Sender<ToWriter>,
    room: Receiver<()>,
}

impl Reader {
    fn run(&mut self) {
        let mut buffer = vec![0; CLIENT_READ_BYTES];
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
            if step == ReadStep::WaitForRoom {
                if self.room.recv().is_err() {
                    return;
                }
                continue;
            }
            match (&*self.stream).read(&mut buffer) {
                Ok(len @ 1..) => lock(&self.shared.client).received(&buffer[..len]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_timeout(&error) => {
                    if lock(&self.shared.client).was_silent() {
                        let _ = self.to_writer.send(ToWriter::Idle);
                        return;
                    }
                }
                Ok(0) | Err(_) => lock(&self.shared.client).input_ended(),
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
        const TIMEOUT: Duration = Duration::from_millis(500);
        if self.write_all_replies().is_ok() && self.stream.shutdown(Shutdown::Write).is_ok() {
            // Either the reader has ended by then, or its time is up.
            let _ = reader_end.recv_timeout(TIMEOUT);
        }
        let _ = self.stream.shutdown(Shutdown::Both);
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
                (&*self.stream).write_all(output.as_bytes())?;
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
