//! Load of a chaos campaign: threads that write and read, and record the answers.
//!
//! Most clients have a session. They retry a write, with the same sequence number and through
//! whichever node answers, until its outcome is known, and each also increments a counter. The
//! other clients send a write once and may never learn its outcome.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Violation;
use super::caller::{Caller, Heard, understand};
use super::counters::Counter;
use super::gaps::Gaps;
use super::history::{History, Taken};
use crate::checker::{Answered, Asked, Observed};

/// Order to the clients: write and read.
pub(super) const LOAD: u8 = 0;
/// Order to the clients: finish requests in flight and begin no others.
pub(super) const FINISH: u8 = 1;
/// Order to the clients: stop at once.
pub(super) const LEAVE: u8 = 2;

/// The range of times for which a client waits for a reply before it tries another node, in
/// milliseconds. Drawn for each connection.
const TIMEOUT_MS: std::ops::Range<u64> = 300..3000;
/// The longest pause between two operations, in microseconds.
const THINKS_US_MAX: u64 = 4000;

/// The state that the clients of a run share.
#[derive(Debug)]
pub(super) struct Shared {
    start: Instant,
    /// The current address of each node; a node that is down may still be listed.
    pub(super) addresses: Mutex<Vec<SocketAddr>>,
    pub(super) history: History,
    pub(super) counters: Vec<Counter>,
    pub(super) gaps: Gaps,
    pub(super) order: AtomicU8,
    pub(super) acknowledged: AtomicU64,
    pub(super) reads: AtomicU64,
    pub(super) retried: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) unknown: AtomicU64,
    pub(super) unanswered: AtomicU64,
    violations: Mutex<Vec<Violation>>,
    next_value: AtomicU32,
}

impl Shared {
    pub(super) fn new(counters: usize) -> Self {
        Self {
            start: Instant::now(),
            addresses: Mutex::default(),
            history: History::default(),
            counters: (0..counters).map(Counter::new).collect(),
            gaps: Gaps::default(),
            order: LOAD.into(),
            acknowledged: 0.into(),
            reads: 0.into(),
            retried: 0.into(),
            refused: 0.into(),
            unknown: 0.into(),
            unanswered: 0.into(),
            violations: Mutex::default(),
            next_value: 1.into(),
        }
    }

    /// Nanoseconds since the run began, the only clock of all records.
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    pub(super) fn complain(&self, violation: Violation) {
        self.violations.lock().unwrap_or_else(PoisonError::into_inner).push(violation);
    }

    pub(super) fn violations(&self) -> Vec<Violation> {
        self.violations.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn is_ordered(&self, order: u8) -> bool {
        self.order.load(Ordering::Relaxed) == order
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// One client.
pub(super) struct Client<'a> {
    shared: &'a Shared,
    rng: fastrand::Rng,
    number: usize,
    /// The session name and the latest sequence number. The name changes when the session has
    /// expired.
    session: Option<(String, u64)>,
    /// Whether clients without a session only read, because a write without a session may be
    /// applied twice.
    only_sessions_write: bool,
    /// The connection, and below it the position of its address.
    caller: Option<Caller>,
    at: usize,
}

/// The outcome of an operation, the time of its call, and the time when the answered attempt was
/// sent.
struct Outcome {
    heard: Heard,
    called: u64,
    sent: u64,
}

impl<'a> Client<'a> {
    pub(super) fn new(shared: &'a Shared, number: usize, has_session: bool, seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed.wrapping_mul(0x9e37_79b9).wrapping_add(number as u64));
        let session = has_session.then(|| (format!("client-{number}"), 0));
        let only_sessions_write = false;
        Self { shared, number, session, only_sessions_write, caller: None, at: rng.usize(..64), rng }
    }

    /// Sets whether a client without a session only reads.
    pub(super) fn only_sessions_write(mut self, only_sessions_write: bool) -> Self {
        self.only_sessions_write = only_sessions_write;
        self
    }

    /// Runs until ordered to stop.
    pub(super) fn run(mut self) {
        while self.shared.is_ordered(LOAD) {
            match self.rng.u8(..10) {
                0..=1 if self.session.is_some() => self.count_up(),
                2 => self.look_at_a_counter(),
                3..=5 => self.read(),
                _ if self.session.is_none() && self.only_sessions_write => self.read(),
                _ => self.write(),
            }
            let thinks = self.rng.u64(..THINKS_US_MAX);
            thread::sleep(Duration::from_micros(thinks));
        }
    }

    fn write(&mut self) {
        let taken = self.shared.history.take(&mut self.rng);
        let value = self.shared.next_value.fetch_add(1, Ordering::Relaxed);
        let key = &taken.key;
        let (request, asked) = match self.rng.u8(..10) {
            0..=4 => (json!({"op":"put","key":key,"value":value}), Asked::Put(value)),
            5..=7 => {
                let request = json!({"op":"cas","key":key,"expect":taken.hint,"value":value});
                (request, Asked::Swap(taken.hint, value))
            }
            _ => (json!({"op":"delete","key":key}), Asked::Delete),
        };
        let outcome = self.ask(request);
        let answered = match outcome.heard {
            Heard::Done => Answered::Done,
            Heard::NotFound => Answered::NotFound,
            Heard::Mismatch(actual) => Answered::Mismatch(actual),
            Heard::Unknown => Answered::Unknown,
            _ => return,
        };
        self.note_write(&outcome);
        self.record(&taken, outcome.called, asked, answered);
    }

    fn read(&mut self) {
        let taken = self.shared.history.take(&mut self.rng);
        let request = json!({"op":"get","key":taken.key,"consistency":"linearizable"});
        let called = self.shared.now();
        // A read without an answer proves nothing.
        if let Heard::Found(value) = self.attempt(&request) {
            count(&self.shared.reads);
            self.record(&taken, called, Asked::Get, Answered::Found(value));
        }
    }

    fn record(&self, taken: &Taken, call: u64, asked: Asked, answered: Answered) {
        self.shared.history.record(taken, Observed { call, ret: self.shared.now(), asked, answered });
    }

    fn note_write(&self, outcome: &Outcome) {
        match outcome.heard {
            Heard::Unknown => count(&self.shared.unknown),
            // A mismatch went through the log as well.
            _ => {
                count(&self.shared.acknowledged);
                self.shared.gaps.acknowledge(outcome.sent, self.shared.now());
            }
        }
    }

    /// Increments the client's counter by one, or finds out the outcome of the last attempt.
    fn count_up(&mut self) {
        let shared = self.shared;
        let counter = &shared.counters[self.number];
        if counter.is_in_doubt() {
            let floor = counter.acknowledged();
            let request = json!({"op":"get","key":counter.key,"consistency":"linearizable"});
            if let Heard::Found(found) = self.attempt(&request) {
                self.hold_to(counter.check(floor, found));
                counter.settle(found);
            }
            return;
        }
        let (expect, value) = counter.send();
        let outcome = self.ask(json!({"op":"cas","key":counter.key,"expect":expect,"value":value}));
        match outcome.heard {
            Heard::Done => counter.acknowledge(),
            Heard::Mismatch(actual) => {
                let what = format!("{}: {expect:?} for {value} found {actual:?}", counter.key);
                self.shared.complain(Violation { rule: "exactly once", what });
                counter.settle(actual);
            }
            Heard::Unknown => {}
            // The request had no effect. The next read settles the counter.
            _ => return,
        }
        self.note_write(&outcome);
    }

    fn look_at_a_counter(&mut self) {
        let shared = self.shared;
        let counter = &shared.counters[self.rng.usize(..shared.counters.len())];
        let floor = counter.acknowledged();
        let request = json!({"op":"get","key":counter.key,"consistency":"linearizable"});
        if let Heard::Found(found) = self.attempt(&request) {
            count(&shared.reads);
            self.hold_to(counter.check(floor, found));
        }
    }

    fn hold_to(&self, held: Result<(), Violation>) {
        if let Err(violation) = held {
            self.shared.complain(violation);
        }
    }

    /// Sends a write: once, or until it is answered.
    fn ask(&mut self, mut request: Value) -> Outcome {
        let called = self.shared.now();
        let Some((client, seq)) = &mut self.session else {
            let heard = self.attempt(&request);
            return Outcome { heard, called, sent: called };
        };
        *seq += 1;
        request["session"] = json!({"client":client,"seq":seq});
        let mut may_have_happened = false;
        loop {
            let sent = self.shared.now();
            let heard = match self.attempt(&request) {
                Heard::Refused => None,
                Heard::Unknown => {
                    may_have_happened = true;
                    None
                }
                Heard::Expired => {
                    self.session = Some((format!("client-{}-from-{sent}", self.number), 0));
                    Some(if may_have_happened { Heard::Unknown } else { Heard::Refused })
                }
                heard => Some(heard),
            };
            if let Some(heard) = heard {
                return Outcome { heard, called, sent };
            }
            if self.shared.is_ordered(LEAVE) {
                count(&self.shared.unanswered);
                return Outcome { heard: Heard::Unknown, called, sent };
            }
            count(&self.shared.retried);
            thread::sleep(Duration::from_micros(self.rng.u64(500..20_000)));
        }
    }

    /// Sends a request once, on the existing connection or on a new one to the next node.
    fn attempt(&mut self, request: &Value) -> Heard {
        if self.caller.is_none() {
            let addresses = self.shared.addresses.lock().unwrap_or_else(PoisonError::into_inner).clone();
            self.at += 1;
            let Some(address) = addresses.get(self.at % addresses.len().max(1)) else {
                return Heard::Refused;
            };
            let patience = Duration::from_millis(self.rng.u64(TIMEOUT_MS));
            self.caller = Caller::open(*address, patience).ok();
        }
        // No request was sent.
        let Some(caller) = &mut self.caller else { return self.refused() };
        let heard = match caller.ask(request.clone()) {
            Ok(reply) => understand(request, &reply),
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                Heard::Nonsense(error.to_string())
            }
            Err(_) => Heard::Unknown,
        };
        match heard {
            Heard::Unknown => self.caller = None,
            Heard::Refused => {
                self.caller = None;
                return self.refused();
            }
            Heard::Nonsense(what) => {
                self.caller = None;
                self.shared.complain(Violation { rule: "replies are what the contract says", what });
                return Heard::Unknown;
            }
            _ => {}
        }
        heard
    }

    fn refused(&mut self) -> Heard {
        count(&self.shared.refused);
        // Without a pause, clients of a cluster that is down would dial in a busy loop.
        thread::sleep(Duration::from_micros(self.rng.u64(500..5_000)));
        Heard::Refused
    }
}
