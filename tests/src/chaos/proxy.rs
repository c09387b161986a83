//! TCP proxy between two nodes that knows the boundaries of frames and injects network faults.
//!
//! A node dials its peers and sends frames on the connection that it dialed. The other direction of
//! that connection carries a single line. So one listener per ordered pair of nodes sees exactly
//! what the first sends to the second, and can delay, hold back, repeat, change or cut any of it.
//!
//! ```text
//!   node 1 ──dials──► listener 1→2 ── reader ──► queue ── writer ──dials──► node 2
//!          ◄──────────────────── welcome line ─────────────────────────────
//! ```

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::link_faults::{LinkFaults, SharedFaults, TICK, count};
use super::stream::{Cutter, Piece};

/// The most pieces that wait for their time; after that, the dialer has to wait.
const QUEUE_MAX: usize = 4096;
/// The number of old frames that are kept for replays, and below it their greatest length. Both are
/// arbitrary.
const MEMORY_MAX: usize = 64;
const REMEMBERED_BYTES_MAX: usize = 64 << 10;
/// The number of bytes of a frame that trickle. The rest follows at once, because otherwise large
/// frames would never arrive.
const TRICKLE_BYTES_MAX: usize = 48;
/// The time after which a frame that is held back is sent even when no other follows it.
const HELD_FOR_MAX: Duration = Duration::from_millis(200);
/// The time that a node has to accept a connection.
const DIAL_TIMEOUT: Duration = Duration::from_secs(2);

/// The address at which a node listens, which may change.
pub(super) type Target = Arc<Mutex<SocketAddr>>;

/// The route of a proxy.
#[derive(Debug)]
struct Route {
    target: Target,
    /// The faults on the way there,
    there: Arc<SharedFaults>,
    /// and back: the welcome line meets the faults of the other node's messages.
    back: Arc<SharedFaults>,
    /// Frames that passed earlier, for replays, also on later connections.
    memory: Mutex<VecDeque<Vec<u8>>>,
    seed: u64,
}

/// Listens for one node that dials another, until the process ends. Returns the address.
///
/// # Errors
///
/// When there is no free port.
pub(super) fn start(
    target: Target,
    there: Arc<SharedFaults>,
    back: Arc<SharedFaults>,
    seed: u64,
) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let route = Arc::new(Route { target, there, back, memory: Mutex::default(), seed });
    thread::spawn(move || {
        let connections = listener.incoming().filter_map(Result::ok);
        for (number, dialler) in (0..).zip(connections) {
            let route = Arc::clone(&route);
            thread::spawn(move || {
                // Ignore the error: connections break here on purpose.
                _ = carry(&dialler, &route, number);
                _ = dialler.shutdown(Shutdown::Both);
            });
        }
    });
    Ok(address)
}

fn carry(dialler: &TcpStream, route: &Arc<Route>, number: u64) -> io::Result<()> {
    let storms = route.there.storms();
    if !route.there.lets_pass(storms) {
        return Ok(());
    }
    let target = *route.target.lock().unwrap_or_else(PoisonError::into_inner);
    let acceptor = TcpStream::connect_timeout(&target, DIAL_TIMEOUT)?;
    for stream in [dialler, &acceptor] {
        stream.set_nodelay(true)?;
    }
    let (queue, pieces) = sync_channel(QUEUE_MAX);
    let (from, link) = (dialler.try_clone()?, Arc::clone(&route.there));
    let rng = fastrand::Rng::with_seed(route.seed ^ number);
    let delays = rng.clone();
    thread::spawn(move || read_pieces(from, &queue, &link, delays));
    let (welcome, dialler_too, way) = (acceptor.try_clone()?, dialler.try_clone()?, Arc::clone(route));
    thread::spawn(move || bring_back(&welcome, &dialler_too, &way));
    let mut outlet = Outlet { stream: &acceptor, route, rng, held: None, is_first: true };
    let result = outlet.write_pieces(&pieces, storms);
    _ = acceptor.shutdown(Shutdown::Both);
    result
}

/// Reads the dialer's stream, and sets the time at which each piece may be sent.
fn read_pieces(
    mut from: TcpStream,
    queue: &SyncSender<(Instant, Piece)>,
    link: &SharedFaults,
    mut rng: fastrand::Rng,
) {
    let mut bytes = vec![0; 64 << 10];
    let mut cutter = Cutter::default();
    let mut last_due = Instant::now();
    while let Ok(len @ 1..) = from.read(&mut bytes) {
        cutter.push(&bytes[..len]);
        while let Some(piece) = cutter.next_piece() {
            let faults = link.faults();
            let late = faults.delay + faults.jitter.mul_f64(rng.f64());
            if !late.is_zero() {
                count(&link.done.delayed);
            }
            // A stream keeps its order, however late it is.
            last_due = last_due.max(Instant::now() + late);
            if queue.send((last_due, piece)).is_err() {
                return;
            }
        }
    }
}

fn bring_back(mut from: &TcpStream, mut to: &TcpStream, route: &Route) {
    let storms = route.back.storms();
    let mut bytes = vec![0; 64 << 10];
    while let Ok(len @ 1..) = from.read(&mut bytes) {
        if !route.back.lets_pass(storms) || to.write_all(&bytes[..len]).is_err() {
            break;
        }
    }
    for stream in [from, to] {
        _ = stream.shutdown(Shutdown::Both);
    }
}

/// The end of the proxy, where frames are damaged.
struct Outlet<'a> {
    stream: &'a TcpStream,
    route: &'a Route,
    rng: fastrand::Rng,
    /// A frame that later ones overtake, with the number of frames that still do, and the latest
    /// time to send it.
    held: Option<(Vec<u8>, u32, Instant)>,
    is_first: bool,
}

impl Outlet<'_> {
    fn write_pieces(&mut self, pieces: &Receiver<(Instant, Piece)>, storms: u64) -> io::Result<()> {
        loop {
            let next = pieces.recv_timeout(TICK);
            if !self.route.there.lets_pass(storms) {
                return Ok(());
            }
            match next {
                Ok((due, piece)) => {
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                    if !self.route.there.lets_pass(storms) {
                        return Ok(());
                    }
                    self.write_piece(&piece)?;
                }
                Err(RecvTimeoutError::Timeout) => self.release(|until| Instant::now() >= until)?,
                Err(RecvTimeoutError::Disconnected) => return self.release(|_| true),
            }
        }
    }

    fn write_piece(&mut self, piece: &Piece) -> io::Result<()> {
        let faults = self.route.there.faults();
        if let Piece::Line(_) = piece {
            return self.write(piece.bytes(), &faults);
        }
        count(&self.route.there.done.carried);
        if self.happens(faults.reorder) && self.held.is_none() {
            count(&self.route.there.done.reordered);
            self.held = Some((piece.bytes().to_vec(), self.rng.u32(1..=3), Instant::now() + HELD_FOR_MAX));
            return Ok(());
        }
        self.mistreat(piece.bytes(), &faults)?;
        if let Some((_, overtakers, _)) = &mut self.held {
            *overtakers -= 1;
            let is_enough = *overtakers == 0;
            self.release(|_| is_enough)?;
        }
        Ok(())
    }

    fn mistreat(&mut self, frame: &[u8], faults: &LinkFaults) -> io::Result<()> {
        let done = &self.route.there.done;
        if self.happens(faults.cut) {
            count(&done.cut);
            let len = self.rng.usize(1..frame.len());
            self.write(&frame[..len], faults)?;
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        if self.happens(faults.flip) {
            count(&done.flipped);
            return self.write_flipped(frame, ..frame.len() * 8, faults);
        }
        if self.happens(faults.lengthen) {
            count(&done.lengthened);
            // Flip a bit that adds at least half a megabyte, which is more than the link carries
            // for some time.
            return self.write_flipped(frame, 19..24, faults);
        }
        self.write(frame, faults)?;
        let may_repeat = faults.repeats_asks || !Piece::is_ask(frame);
        if may_repeat && self.happens(faults.duplicate) {
            count(&done.duplicated);
            self.write(frame, faults)?;
        }
        // A new connection begins with a few frames of old ones.
        let old_ones = if self.is_first && faults.replay > 0 { 8 } else { 1 };
        self.is_first = false;
        for _ in 0..old_ones {
            if (old_ones > 1 || self.happens(faults.replay))
                && let Some(old) = self.remembered()
            {
                count(&done.replayed);
                self.write(&old, faults)?;
            }
        }
        if may_repeat {
            self.remember(frame);
        }
        Ok(())
    }

    /// Sends a frame with one flipped bit. A receiver of a wrong length waits for bytes that never
    /// come, and must not wait forever.
    fn write_flipped(
        &mut self,
        frame: &[u8],
        bits: impl std::ops::RangeBounds<usize>,
        faults: &LinkFaults,
    ) -> io::Result<()> {
        let mut flipped = frame.to_vec();
        let bit = self.rng.usize(bits);
        flipped[bit / 8] ^= 1 << (bit % 8);
        self.write(&flipped, faults)
    }

    /// Sends the frame that was held back, if `is_time` returns true for its latest time.
    fn release(&mut self, is_time: impl Fn(Instant) -> bool) -> io::Result<()> {
        match self.held.take_if(|(_, _, until)| is_time(*until)) {
            Some((frame, ..)) => self.write(&frame, &LinkFaults::default()),
            None => Ok(()),
        }
    }

    fn write(&self, bytes: &[u8], faults: &LinkFaults) -> io::Result<()> {
        let mut stream = self.stream;
        let slow = if faults.trickles { bytes.len().min(TRICKLE_BYTES_MAX) } else { 0 };
        if slow > 0 {
            count(&self.route.there.done.trickled);
        }
        for byte in &bytes[..slow] {
            stream.write_all(std::slice::from_ref(byte))?;
            thread::sleep(Duration::from_micros(50));
        }
        stream.write_all(&bytes[slow..])
    }

    fn happens(&mut self, per_mille: u32) -> bool {
        per_mille > 0 && self.rng.u32(..1000) < per_mille
    }

    fn remember(&self, frame: &[u8]) {
        if frame.len() > REMEMBERED_BYTES_MAX {
            return;
        }
        let mut memory = self.route.memory.lock().unwrap_or_else(PoisonError::into_inner);
        if memory.len() == MEMORY_MAX {
            memory.pop_front();
        }
        memory.push_back(frame.to_vec());
    }

    fn remembered(&mut self) -> Option<Vec<u8>> {
        let memory = self.route.memory.lock().unwrap_or_else(PoisonError::into_inner);
        (!memory.is_empty()).then(|| memory[self.rng.usize(..memory.len())].clone())
    }
}

#[cfg(test)]
mod tests;
