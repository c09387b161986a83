//! Exactly-once sessions: remembers the outcomes of each client's recent writes, so that a retried
//! write is answered with its first outcome and not applied again.
//!
//! A client that got no answer cannot know whether its write was applied. With a [`Session`] it may
//! retry the write until it is answered. For every client, this table keeps the outcomes of its
//! last writes by sequence number. The numbers need not arrive in order: of several writes in
//! flight, one that was lost may be applied late.
//!
//! The table has limits, and it rejects what it can no longer deduplicate. A write at or below a
//! forgotten number, and any write of a forgotten client, is answered as expired and not applied,
//! because it may have been applied before. Of each forgotten client, a fingerprint of the name
//! remains. A new client whose name has the same fingerprint is rejected as well, which is safe. A
//! fingerprint is kept for a time, and new clients are rejected while there are too many
//! ([`forgotten`]). Only a cluster whose level is the first one has no log time: there, a client
//! that returns after a number of other clients were forgotten is taken for a new one.
//!
//! The table is part of the replicated state and equal on all nodes. So no clock decides here:
//! clients are forgotten in the order of their last use in the log. The table does not authenticate
//! clients: names are not secret.

mod forgotten;
mod lines;

use std::collections::BTreeMap;
use std::time::Duration;

use super::outcome::{Applied, Outcome};
use super::session::{ClientName, Session};
use super::ttl::LogTime;
use crate::mutant::{self, Mutant};

use forgotten::{Forgotten, MARKS_PER_TIME};
pub use lines::SessionLineError;
pub(super) use lines::SessionLines;

/// The number of sequence numbers below a client's highest one that the table deduplicates. It
/// equals the most requests that a connection has in flight.
pub const SESSION_WINDOW: u64 = 1024;
/// The most clients that the table remembers.
pub const SESSIONS_MAX: usize = 10_000;
/// The approximate limit of memory for all clients, in bytes.
pub const SESSION_BYTES_MAX: usize = 64 << 20;
/// The approximate limit of memory for one client, in bytes. The outcome of its highest number is
/// kept even if it alone exceeds the limit. Only CAS commands that failed on large values, and
/// transactions that read such values, come near it.
pub const CLIENT_MEMORY_BYTES_MAX: usize = 1 << 20;
/// The most forgotten clients whose fingerprints are kept in a cluster whose level is the first
/// one.
pub const EXPIRED_MAX: usize = 100_000;
/// The number of fingerprints of forgotten clients at which new clients are rejected: about 16 MB.
/// Above half of it, fingerprints are removed once their time has passed. So on average 400 new
/// clients a second are accepted without end, and 500,000 at once.
pub const FINGERPRINTS_MAX: usize = 500_000;
/// The least time for which the fingerprint of a forgotten client is kept, chosen much longer than
/// any client goes on retrying a write.
pub const FINGERPRINT_KEPT_FOR: Duration = Duration::from_secs(600);

/// The estimated memory of a client without its name and outcomes: three tree nodes and two
/// counters.
const CLIENT_OVERHEAD_BYTES: usize = 256;
/// The estimated memory of an outcome without a value: its share of a half-full tree node.
const OUTCOME_OVERHEAD_BYTES: usize = 64;

/// The limits of the session table.
///
/// All nodes of a cluster must have the same limits at all times, because the limits decide how an
/// entry of the log is applied. A version with other defaults builds another state from the same
/// log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// See [`SESSIONS_MAX`]. At least one client is remembered.
    pub clients_max: usize,
    /// See [`SESSION_BYTES_MAX`]. At least one client is remembered.
    pub bytes_max: usize,
    /// See [`SESSION_WINDOW`].
    pub window: u64,
    /// See [`CLIENT_MEMORY_BYTES_MAX`].
    pub client_bytes_max: usize,
    /// See [`EXPIRED_MAX`].
    pub expired_max: usize,
    /// See [`FINGERPRINTS_MAX`].
    pub fingerprints_max: usize,
    /// See [`FINGERPRINT_KEPT_FOR`], in log time.
    pub kept_for: Duration,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self {
            clients_max: SESSIONS_MAX,
            bytes_max: SESSION_BYTES_MAX,
            window: SESSION_WINDOW,
            client_bytes_max: CLIENT_MEMORY_BYTES_MAX,
            expired_max: EXPIRED_MAX,
            fingerprints_max: FINGERPRINTS_MAX,
            kept_for: FINGERPRINT_KEPT_FOR,
        }
    }
}

/// The result of looking up a write in the session table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Memory {
    /// The write was never applied.
    New,
    /// The write was applied, with this outcome.
    Done(Applied),
    /// The write may have been applied: its outcome was forgotten.
    Expired,
    /// The client is new, and too many clients were forgotten a short time ago.
    Full,
}

/// The session table: the outcomes of the clients' recent writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionTable {
    limits: SessionLimits,
    clients: BTreeMap<ClientName, Client>,
    /// The clients by their last use, least recent first. The numbers only grow.
    by_use: BTreeMap<u64, ClientName>,
    /// The approximate memory of all clients, in bytes, as the limits count it.
    bytes: usize,
    /// The number of outcomes of all clients.
    outcomes: usize,
    /// The fingerprints of forgotten clients.
    expired: Forgotten,
    /// Whether fingerprints are kept for a time, because the log has a time.
    keeps_by_time: bool,
}

/// The table's entry for one client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Client {
    /// The client's key in `by_use`.
    used: u64,
    /// The outcomes of all sequence numbers up to this one are forgotten.
    forgotten: Option<u64>,
    outcomes: BTreeMap<u64, Applied>,
    /// The approximate memory of the client, in bytes.
    bytes: usize,
}

impl SessionTable {
    /// An empty table.
    #[must_use]
    pub fn new(limits: SessionLimits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// The number of clients that are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.clients.len()
    }

    /// Returns whether no client is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// Returns whether the table is as it was created.
    pub(super) fn is_untouched(&self) -> bool {
        self.clients.is_empty() && self.expired.is_empty()
    }

    /// The approximate memory of all clients in bytes, without the fingerprints of forgotten ones.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The approximate memory of the whole table in bytes, including the fingerprints.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        /// The size of an element of a queue and of a tree, both with spare capacity.
        const FINGERPRINT_BYTES: usize = 32;
        /// The memory of the revisions of an outcome. It does not count towards the limits, because
        /// the limits decide what the table holds, and all versions must hold the same.
        const META_BYTES: usize = 32;
        self.bytes + META_BYTES * self.outcomes + FINGERPRINT_BYTES * self.expired.len()
    }

    /// Returns whether a new client is rejected. One that is remembered may still cause others to
    /// be forgotten, so there are at most [`SessionLimits::clients_max`] fingerprints more than the
    /// limit.
    fn is_full(&self) -> bool {
        self.keeps_by_time && self.expired.len() >= self.limits.fingerprints_max
    }

    /// Keeps fingerprints for a time from now on, because the log has a time.
    pub(super) fn keep_by_time(&mut self) {
        self.keeps_by_time = true;
    }

    /// Notes that a tick with this log time was applied. `is_settled`: its leader had applied the
    /// tick before.
    pub(super) fn ticked(&mut self, time: LogTime, is_settled: bool) {
        if self.keeps_by_time {
            let len_max = self.limits.fingerprints_max / 2;
            self.expired.ticked(time, is_settled, self.limits.kept_for, len_max);
        }
    }

    /// How long after the last tick this table needs another one; `None`: it needs none.
    pub(super) fn next_tick_after(&self) -> Option<Duration> {
        let is_half_full = self.keeps_by_time && self.expired.len() > self.limits.fingerprints_max / 2;
        is_half_full.then_some(self.limits.kept_for / MARKS_PER_TIME)
    }

    /// The log time of the last mark; `None`: there is none.
    pub(super) fn last_mark(&self) -> Option<LogTime> {
        self.expired.marks().back().map(|mark| mark.time)
    }

    /// Looks up a write that is about to be applied. This counts as a use of the client, whatever
    /// the result.
    pub(super) fn recall(&mut self, session: &Session) -> Memory {
        self.touch(session.client().as_str());
        let Some(client) = self.clients.get(session.client()) else {
            let is_expired = self.expired.contains(fingerprint(session.client().as_str()))
                && !mutant::is_active(Mutant::ExpiredSessionTakenForNew);
            return match is_expired {
                true => Memory::Expired,
                false if self.is_full() => Memory::Full,
                false => Memory::New,
            };
        };
        match client.outcomes.get(&session.seq()) {
            Some(outcome) => recalled_by_mutant().unwrap_or_else(|| Memory::Done(outcome.clone())),
            None => {
                let is_forgotten = client.forgotten.is_some_and(|forgotten| session.seq() <= forgotten)
                    && !mutant::is_active(Mutant::ForgottenNumberTakenForNew);
                if is_forgotten { Memory::Expired } else { Memory::New }
            }
        }
    }

    /// Remembers the outcome of a new write, and forgets what exceeds the limits. The time to live
    /// that is left to the key is not remembered: it is not the same on all nodes.
    pub(super) fn remember(&mut self, session: &Session, mut outcome: Applied) {
        outcome.meta.ttl = None;
        if !self.clients.contains_key(session.client()) {
            let name = session.client().clone();
            let client = Client { used: self.next_use(), bytes: bytes_of_client(&name), ..Client::default() };
            self.bytes += client.bytes;
            self.by_use.insert(client.used, name.clone());
            self.clients.insert(name, client);
        }
        let client = self.clients.get_mut(session.client()).expect("it was there or was put there");
        self.bytes -= client.bytes;
        self.outcomes -= client.outcomes.len();
        client.remember(session.seq(), outcome, &self.limits);
        self.bytes += client.bytes;
        self.outcomes += client.outcomes.len();
        self.forget_clients();
    }

    /// The number for the next use of a client.
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

    /// Forgets the least recently used clients until the rest is within the limits, but never the
    /// last one.
    fn forget_clients(&mut self) {
        while self.clients.len() > 1
            && (self.clients.len() > self.limits.clients_max || self.bytes > self.limits.bytes_max)
        {
            let (_, name) = self.by_use.pop_first().expect("every client has a place");
            let client = self.clients.remove(&name).expect("every place has a client");
            self.bytes -= client.bytes;
            self.outcomes -= client.outcomes.len();
            self.expired.add(fingerprint(name.as_str()));
        }
        if !self.keeps_by_time {
            self.expired.remove(self.expired.len().saturating_sub(self.limits.expired_max));
        }
    }
}

impl Client {
    /// Returns whether the entry is within the limits, as it is after every write.
    fn is_within(&self, limits: &SessionLimits) -> bool {
        let highest = self.outcomes.last_key_value().map(|(highest, _)| *highest);
        let is_in_window = self.forgotten >= highest.and_then(|highest| highest.checked_sub(limits.window));
        is_in_window && (self.bytes <= limits.client_bytes_max || self.outcomes.len() == 1)
    }

    fn remember(&mut self, seq: u64, outcome: Applied, limits: &SessionLimits) {
        self.bytes += bytes_of_outcome(&outcome);
        if let Some(earlier) = self.outcomes.insert(seq, outcome) {
            self.bytes -= bytes_of_outcome(&earlier);
        }
        let highest = self.outcomes.last_key_value().map(|(highest, _)| *highest);
        // `None` compares below every sequence number.
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

fn bytes_of_outcome(applied: &Applied) -> usize {
    OUTCOME_OVERHEAD_BYTES + applied.outcome.value_bytes()
}

/// The 64-bit FNV-1a hash of a client name.
fn fingerprint(name: &str) -> u64 {
    const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    name.bytes().fold(OFFSET_BASIS, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}

/// Deliberate bugs: a retried write is a new one, or was successful whatever its first outcome was.
fn recalled_by_mutant() -> Option<Memory> {
    let is_new = mutant::is_active(Mutant::RetryExecutedAgain).then_some(Memory::New);
    let done = || Memory::Done(Outcome::Done.without_meta());
    is_new.or_else(|| mutant::is_active(Mutant::RetryOutcomeForgotten).then(done))
}

#[cfg(test)]
mod tests;
