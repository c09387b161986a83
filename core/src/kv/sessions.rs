//! What has become of the clients' writes: so that one that is sent again is answered again and not
//! done again.
//!
//! A client that got no answer cannot know whether its write was done. With a [`Session`] it may
//! send the same write until it is answered. Of every client this table remembers the outcomes of
//! its last writes, by their numbers. They need not come in order: of those that a client has under
//! way together, one that was lost may be applied late.
//!
//! The table has limits, and what it forgets it refuses. A write at or below a number that was
//! forgotten, and any write of a client that was forgotten, is answered as expired and not done: it
//! may have been done before. Of forgotten clients a fingerprint of the name stays behind, so a new
//! client whose name has the same one is refused as well, which is safe. Fingerprints have a limit,
//! too. Only who comes back after that many other clients were forgotten is a stranger.
//!
//! It is a part of the state that the log builds, and equal on all nodes. So nothing here is
//! decided by a clock: who goes first is decided by the order of the log. And it is not the place
//! for who may use which name: names are not secret.

mod lines;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::session::{ClientName, Session};
use super::store::Outcome;
use super::text::Value;
use crate::mutant::{self, Mutant};

pub use lines::SessionLineError;

/// How many numbers below a client's highest one are told from forgotten ones. A connection has as
/// many requests under way at the most.
pub const SESSION_WINDOW: u64 = 1024;
/// The most clients that are remembered.
pub const SESSIONS_MAX: usize = 10_000;
/// The most bytes that the memory of all clients takes, roughly.
pub const SESSION_BYTES_MAX: usize = 64 << 20;
/// The most bytes that the memory of one client takes, roughly, beyond its last outcome: only swaps
/// that failed on large values come near it.
pub const CLIENT_MEMORY_BYTES_MAX: usize = 1 << 20;
/// The most clients that are remembered as forgotten.
pub const EXPIRED_MAX: usize = 100_000;

/// What a client takes beside its name and outcomes: three nodes of trees and two counters. An
/// estimate.
const CLIENT_OVERHEAD_BYTES: usize = 256;
/// What an outcome takes beside a value: its share of a tree's node, half full. An estimate.
const OUTCOME_OVERHEAD_BYTES: usize = 64;

/// How much is remembered of clients.
///
/// All nodes of a cluster must have the same limits, at all times: they decide what an entry of the
/// log does. A version with other defaults builds another state from the same log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// See [`SESSIONS_MAX`]. One is remembered in any case.
    pub clients_max: usize,
    /// See [`SESSION_BYTES_MAX`]. One client is remembered in any case.
    pub bytes_max: usize,
    /// See [`SESSION_WINDOW`].
    pub window: u64,
    /// See [`CLIENT_MEMORY_BYTES_MAX`].
    pub client_bytes_max: usize,
    /// See [`EXPIRED_MAX`].
    pub expired_max: usize,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self {
            clients_max: SESSIONS_MAX,
            bytes_max: SESSION_BYTES_MAX,
            window: SESSION_WINDOW,
            client_bytes_max: CLIENT_MEMORY_BYTES_MAX,
            expired_max: EXPIRED_MAX,
        }
    }
}

/// What is remembered of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Memory {
    /// Nothing: it was never done.
    New,
    /// It was done, with this outcome.
    Done(Outcome),
    /// It may have been done: too much was forgotten to tell.
    Expired,
}

/// The outcomes of clients' last writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sessions {
    limits: SessionLimits,
    clients: BTreeMap<ClientName, Client>,
    /// Who wrote least recently comes first. The numbers only grow.
    by_use: BTreeMap<u64, ClientName>,
    /// What all clients take, roughly.
    bytes: usize,
    /// Fingerprints of forgotten clients, the first forgotten first.
    expired: VecDeque<u64>,
    /// The same, to look up.
    expired_set: BTreeSet<u64>,
}

/// What is remembered of one client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Client {
    /// Its place in `by_use`.
    used: u64,
    /// All numbers up to this one are forgotten.
    forgotten: Option<u64>,
    outcomes: BTreeMap<u64, Outcome>,
    /// What it takes, roughly.
    bytes: usize,
}

impl Sessions {
    /// A table that remembers nobody yet.
    #[must_use]
    pub fn new(limits: SessionLimits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// How many clients are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.clients.len()
    }

    /// Whether no client is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// What the memory of all clients takes, roughly, without the fingerprints of forgotten ones.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The same with those fingerprints.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        /// A place in a queue, and one in a tree that is half full.
        const FINGERPRINT_BYTES: usize = 48;
        self.bytes + FINGERPRINT_BYTES * self.expired.len()
    }

    /// What is remembered of a write that is due to be applied. It counts as a use of the client,
    /// whatever comes of it.
    pub(super) fn recall(&mut self, session: &Session) -> Memory {
        self.touch(session.client().as_str());
        let Some(client) = self.clients.get(session.client()) else {
            let is_expired = self.expired_set.contains(&fingerprint(session.client().as_str()))
                && !mutant::is_active(Mutant::ExpiredSessionTakenForNew);
            return if is_expired { Memory::Expired } else { Memory::New };
        };
        match client.outcomes.get(&session.seq()) {
            Some(_) if mutant::is_active(Mutant::RetryExecutedAgain) => Memory::New,
            Some(_) if mutant::is_active(Mutant::RetryOutcomeForgotten) => Memory::Done(Outcome::Done),
            Some(outcome) => Memory::Done(outcome.clone()),
            None if mutant::is_active(Mutant::ForgottenNumberTakenForNew) => Memory::New,
            None if client.forgotten.is_some_and(|forgotten| session.seq() <= forgotten) => Memory::Expired,
            None => Memory::New,
        }
    }

    /// Remembers what became of a write that was new, and forgets what is above the limits.
    pub(super) fn remember(&mut self, session: &Session, outcome: Outcome) {
        if !self.clients.contains_key(session.client()) {
            let name = session.client().clone();
            let client = Client { used: self.next_use(), bytes: bytes_of_client(&name), ..Client::default() };
            self.bytes += client.bytes;
            self.by_use.insert(client.used, name.clone());
            self.clients.insert(name, client);
        }
        let client = self.clients.get_mut(session.client()).expect("it was there or was put there");
        self.bytes -= client.bytes;
        client.remember(session.seq(), outcome, &self.limits);
        self.bytes += client.bytes;
        self.forget_clients();
    }

    /// The number of the next use.
    fn next_use(&self) -> u64 {
        self.by_use.last_key_value().map_or(0, |(last, _)| last + 1)
    }

    fn touch(&mut self, name: &str) {
        let next = self.next_use();
        let Some(client) = self.clients.get_mut(name) else { return };
        let name = self.by_use.remove(&client.used).expect("every client has a place");
        client.used = next;
        self.by_use.insert(next, name);
    }

    /// Forgets those who wrote least recently, until the rest is within the limits; never the last
    /// one.
    fn forget_clients(&mut self) {
        while self.clients.len() > 1
            && (self.clients.len() > self.limits.clients_max || self.bytes > self.limits.bytes_max)
        {
            let (_, name) = self.by_use.pop_first().expect("every client has a place");
            let client = self.clients.remove(&name).expect("every place has a client");
            self.bytes -= client.bytes;
            let fingerprint = fingerprint(name.as_str());
            if self.expired_set.insert(fingerprint) {
                self.expired.push_back(fingerprint);
            }
        }
        while self.expired.len() > self.limits.expired_max {
            let fingerprint = self.expired.pop_front().expect("there are too many");
            self.expired_set.remove(&fingerprint);
        }
    }
}

impl Client {
    /// Whether it could be what is left of a client after any write.
    fn is_within(&self, limits: &SessionLimits) -> bool {
        let highest = self.outcomes.last_key_value().map(|(highest, _)| *highest);
        let is_in_window = self.forgotten >= highest.and_then(|highest| highest.checked_sub(limits.window));
        is_in_window && (self.bytes <= limits.client_bytes_max || self.outcomes.len() == 1)
    }

    fn remember(&mut self, seq: u64, outcome: Outcome, limits: &SessionLimits) {
        self.bytes += bytes_of_outcome(&outcome);
        if let Some(earlier) = self.outcomes.insert(seq, outcome) {
            self.bytes -= bytes_of_outcome(&earlier);
        }
        let highest = self.outcomes.last_key_value().map(|(highest, _)| *highest);
        // `None` is below every number.
        self.forgotten = self.forgotten.max(highest.and_then(|highest| highest.checked_sub(limits.window)));
        while let Some(first) = self.outcomes.first_entry() {
            let is_forgotten = Some(*first.key()) <= self.forgotten;
            let is_too_much = self.bytes > limits.client_bytes_max && Some(*first.key()) != highest;
            if !is_forgotten && !is_too_much {
                break;
            }
            self.forgotten = self.forgotten.max(Some(*first.key()));
            self.bytes -= bytes_of_outcome(&first.remove());
        }
    }
}

fn bytes_of_client(name: &ClientName) -> usize {
    CLIENT_OVERHEAD_BYTES + name.as_str().len()
}

fn bytes_of_outcome(outcome: &Outcome) -> usize {
    let value = match outcome {
        Outcome::Mismatch { actual: Some(value) } => Value::as_json(value).len(),
        Outcome::Mismatch { actual: None } | Outcome::Done | Outcome::NotFound | Outcome::SessionExpired => 0,
    };
    OUTCOME_OVERHEAD_BYTES + value
}

/// 64-bit FNV-1a.
fn fingerprint(name: &str) -> u64 {
    const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    name.bytes().fold(OFFSET_BASIS, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests;
