//! The load generator: runs all clients on one thread, each as a task with its own connection.
//!
//! It must use little processor time, because it shares the machine with the servers that it
//! measures. So requests are encoded in advance, replies are only searched for their status, and a
//! client waits until its socket is readable before it reads, which saves the read that would find
//! nothing.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use coracle_tls::{Received, Session};
use smol::{Async, LocalExecutor, Timer, future};
use thiserror::Error;

use super::lane::{Lane, Next};
use super::tally::{Tally, Window};
use crate::tls::{Trust, prove, shake_hands};

/// The timeout of a connection attempt. Arbitrary, but longer than the first retransmission of a
/// lost SYN (1 s).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long to wait for replies after the load is over: twice a server's default request timeout.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The same after an interrupt; shorter, because a user waits for the program to end.
const TIMEOUT_INTERRUPTED: Duration = Duration::from_secs(2);

/// The interval at which progress is checked.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The size of the read buffer, in bytes: room for some hundred replies.
const READ_BYTES: usize = 64 << 10;

/// Why a load ended early.
#[derive(Debug, Error)]
pub(crate) enum LoadError {
    #[error("cannot connect to {address}: {cause}")]
    Connect { address: SocketAddr, cause: io::Error },
    #[error("the connection to {address} was lost: {cause}")]
    Lost { address: SocketAddr, cause: io::Error },
    #[error("{address} closed the connection")]
    Closed { address: SocketAddr },
    #[error("{address} sent a line that answers no request: {line}")]
    Unasked { address: SocketAddr, line: String },
}

/// A callback that watches a load: receives the number of successful requests so far and the time
/// since the load began.
pub(super) type Watch<'a> = &'a mut dyn FnMut(u64, Duration);

/// Parameters of a load: its servers, its measurement window, and when it ends although replies are
/// missing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan<'a> {
    /// At least one.
    pub(super) addresses: &'a [SocketAddr],
    pub(super) trust: &'a Trust,
    pub(super) window: Window,
    pub(super) gives_up: GivesUp,
}

/// The event after which the load waits only [`TIMEOUT`] longer for missing replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GivesUp {
    AfterWindow,
    AfterLastAnswer,
}

/// State that all clients share.
struct Shared<'a, 'r> {
    begin: Instant,
    tally: RefCell<Tally>,
    buffer: RefCell<Vec<u8>>,
    failure: RefCell<Option<LoadError>>,
    lanes: &'a [RefCell<Lane<'r>>],
}

/// Runs one client per lane, spread over the addresses, until all clients are done, the user
/// interrupts, or replies are missing for too long.
pub(super) fn run(
    plan: Plan<'_>,
    lanes: Vec<Lane<'_>>,
    is_interrupted: &AtomicBool,
    watch: Watch<'_>,
) -> Result<Tally, LoadError> {
    let mut streams = Vec::with_capacity(lanes.len());
    for (address, _) in plan.addresses.iter().cycle().zip(&lanes) {
        streams.push((*address, connect(*address, plan.trust)?));
    }
    let lanes: Vec<_> = lanes.into_iter().map(RefCell::new).collect();
    let shared = Shared {
        begin: Instant::now(),
        tally: RefCell::new(Tally::new(plan.window)),
        buffer: RefCell::new(vec![0; READ_BYTES]),
        failure: RefCell::new(None),
        lanes: &lanes,
    };
    let executor = LocalExecutor::new();
    let tasks: Vec<_> = streams
        .into_iter()
        .zip(&lanes)
        .map(|((address, line), lane)| executor.spawn(shared.client(address, line, lane)))
        .collect();
    let all = async {
        for task in tasks {
            task.await;
        }
    };
    let overseer = shared.oversee(plan, is_interrupted, watch);
    smol::block_on(executor.run(future::or(all, overseer)));
    drop(executor);
    if let Some(failure) = shared.failure.take() {
        return Err(failure);
    }
    let now = shared.now();
    let mut tally = shared.tally.into_inner();
    for lane in &lanes {
        lane.borrow_mut().abandon(now, &mut tally);
    }
    Ok(tally)
}

/// A client's connection, with its session if the server speaks TLS.
struct Line {
    stream: Async<TcpStream>,
    session: Option<RefCell<Session>>,
}

fn connect(address: SocketAddr, trust: &Trust) -> Result<Line, LoadError> {
    let connected = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT).and_then(|stream| {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(CONNECT_TIMEOUT))?;
        let session = trust.call(&address.ip().to_string(), address).transpose().map_err(io::Error::other)?;
        let session = session.map(|mut session| shake_hands(&stream, &mut session).map(|()| session));
        let mut session = session.transpose()?;
        if let Some(token) = trust.token() {
            prove(&stream, session.as_mut(), token)?;
        }
        Ok(Line { session: session.map(RefCell::new), stream: Async::new(stream)? })
    });
    connected.map_err(|cause| LoadError::Connect { address, cause })
}

impl Shared<'_, '_> {
    fn now(&self) -> Duration {
        self.begin.elapsed()
    }

    /// Supervises the load, and returns when it must end although clients still wait.
    async fn oversee(&self, plan: Plan<'_>, is_interrupted: &AtomicBool, watch: Watch<'_>) {
        let mut last = plan.window.until.saturating_add(TIMEOUT);
        let mut answers = 0;
        let mut was_interrupted = is_interrupted.load(Ordering::Acquire);
        while self.now() < last && self.failure.borrow().is_none() {
            Timer::after(LOOK_EVERY).await;
            let now = self.now();
            watch(self.tally.borrow().operations(), now);
            let answers_before = std::mem::replace(&mut answers, self.tally.borrow().answers());
            if plan.gives_up == GivesUp::AfterLastAnswer && answers > answers_before {
                last = now + TIMEOUT;
            }
            if !was_interrupted && is_interrupted.load(Ordering::Acquire) {
                was_interrupted = true;
                last = now + TIMEOUT_INTERRUPTED;
                self.lanes.iter().for_each(|lane| lane.borrow_mut().stop());
            }
        }
    }

    /// Sends a lane's requests and receives its replies until the lane has nothing left to do.
    async fn client(&self, address: SocketAddr, line: Line, lane: &RefCell<Lane<'_>>) {
        if let Err(failure) = self.carry(address, &line, lane).await {
            self.failure.borrow_mut().get_or_insert(failure);
        }
    }

    async fn carry(
        &self,
        address: SocketAddr,
        line: &Line,
        lane: &RefCell<Lane<'_>>,
    ) -> Result<(), LoadError> {
        let lost = |cause| LoadError::Lost { address, cause };
        let stream = &line.stream;
        let (mut out, mut plain) = (Vec::new(), Vec::new());
        let mut sent = 0;
        loop {
            let now = self.now();
            match &line.session {
                None => lane.borrow_mut().start_due(now, &mut out),
                Some(session) => {
                    lane.borrow_mut().start_due(now, &mut plain);
                    if !plain.is_empty() {
                        let sealed = session.borrow_mut().seal(&plain, &mut out);
                        sealed.map_err(io::Error::other).map_err(lost)?;
                        plain.clear();
                    }
                }
            }
            sent += write_some(stream.get_ref(), &out[sent..]).map_err(lost)?;
            let is_all_sent = sent == out.len();
            if is_all_sent {
                out.clear();
                sent = 0;
            }
            let next = lane.borrow().next(now);
            let due = match next {
                Next::Nothing => return Ok(()),
                Next::Reply => None,
                Next::At(due) => Some(self.begin + due),
            };
            if wait(stream, !is_all_sent, due).await.map_err(lost)? {
                self.read(address, line, lane)?;
            }
        }
    }

    /// Reads and accepts the bytes that have arrived.
    fn read(&self, address: SocketAddr, line: &Line, lane: &RefCell<Lane<'_>>) -> Result<(), LoadError> {
        let mut buffer = self.buffer.borrow_mut();
        let len = match line.stream.get_ref().read(&mut buffer) {
            Ok(0) => return Err(LoadError::Closed { address }),
            Ok(len) => len,
            Err(error) if is_for_later(&error) => return Ok(()),
            Err(cause) => return Err(LoadError::Lost { address, cause }),
        };
        let mut plain = Vec::new();
        let bytes = match &line.session {
            None => &buffer[..len],
            Some(session) => {
                let mut session = session.borrow_mut();
                let received = session.receive(&buffer[..len], |bytes| plain.extend_from_slice(bytes));
                match session.fault() {
                    Some(fault) => {
                        return Err(LoadError::Lost { address, cause: io::Error::other(fault.clone()) });
                    }
                    None if received == Received::Ended && plain.is_empty() => {
                        return Err(LoadError::Closed { address });
                    }
                    None => &plain[..],
                }
            }
        };
        let taken = lane.borrow_mut().take(bytes, self.now(), &mut self.tally.borrow_mut());
        taken.map_err(|unasked| LoadError::Unasked { address, line: unasked.0 })
    }
}

/// Writes as much as the socket accepts without blocking; returns the number of bytes.
fn write_some(mut stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut written = 0;
    while written < bytes.len() {
        match stream.write(&bytes[written..]) {
            Ok(len) => written += len,
            Err(error) if is_for_later(&error) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}

/// Waits until the socket is ready or the next request is due; returns whether there may be
/// something to read.
async fn wait(stream: &Async<TcpStream>, wants_to_write: bool, due: Option<Instant>) -> io::Result<bool> {
    let readable = async { stream.readable().await.map(|()| true) };
    let writable = async {
        if !wants_to_write {
            return future::pending().await;
        }
        stream.writable().await.map(|()| false)
    };
    let is_due = async {
        let Some(due) = due else { return future::pending().await };
        Timer::at(due).await;
        Ok(false)
    };
    future::or(readable, future::or(writable, is_due)).await
}

fn is_for_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
