//! Expiry: which keys have a time to live, and when a leader lets them go.
//!
//! A key expires by an entry of the log ([`Tick`]), never by a clock on its own: so all nodes agree
//! on what exists, and a write that comes before the tick in the log wins. Two promises must hold.
//! A key lives at least its time to live, counted from the commit, over every restart and every
//! change of the leader. And on a healthy cluster it does not live much longer.
//!
//! The naive way stamps each write with the leader's time when it is proposed. But a write may be
//! committed long after that, by another leader, and its key would then expire early. So a write
//! carries no time. Each node counts the time to live from the moment at which it applied the
//! entry, which is after the commit, by its own monotonic clock. That alone would be safe. But a
//! node that restarts would count from the beginning again, and after a few restarts a key would
//! never expire. So a tick also *dates* keys: it states the leader's log time, and the last entry
//! that the leader had applied by then. Every key whose time to live was set up to that entry
//! expires when log time has advanced by the time to live from there.
//!
//! Why a dated key does not expire early: a leader's log time is that of the last tick in its log,
//! plus the time since it proposed that tick, or since it applied it, which is less. So between the
//! proposals of two ticks, log time never advances by more than true time does, whichever leaders
//! propose them. The last tick that is *applied* would not do: a tick that states less than an
//! earlier one in flight dates keys too early, and log time jumps when the other one is applied.
//!
//! A node that restarts has applied the last tick only just now, and its log time would lag by the
//! time since the tick. So heartbeats state the time since the leader applied a tick, with the
//! index of that tick ([`Expiries::learn_elapsed`]).

use std::collections::BTreeSet;
use std::time::Duration;

use super::revision::Revision;
use super::shards::Shards;
use super::text::Key;
use super::ttl::{LogTime, TICK_KEYS_MAX, Tick, Ttl};
use crate::mutant::{self, Mutant};
use crate::time::Instant;

/// How long a leader waits before it dates the keys that it has applied. Arbitrary: a restart
/// within this time after the write prolongs the life of a key by at most its time to live. One
/// entry dates all keys of that time.
const DATE_AFTER: Duration = Duration::from_secs(1);
/// The most keys of a tick that a leader proposes, fewer than the format allows: in a process with
/// five nodes, their removal takes a few milliseconds, for which every put waits.
const KEYS_PROPOSED_MAX: usize = 250;
const _: () = assert!(KEYS_PROPOSED_MAX <= TICK_KEYS_MAX);
/// The most bytes of keys in a tick; one key may exceed it.
const BYTES_PROPOSED_MAX: usize = 32 << 10;

/// The time to live of a key, as the log has set it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Expiry {
    /// The entry that has set it.
    pub(super) since: Revision,
    pub(super) ttl: Ttl,
    /// When the key expires, in log time; `None`: no tick has dated it yet.
    pub(super) until: Option<LogTime>,
}

/// An expiry with its place in this node's schedule.
#[derive(Clone, Copy, Debug)]
struct Scheduled {
    expiry: Expiry,
    /// When the key expires if it is not dated: its time to live after it was applied here. `None`
    /// until the clock is known, in a state that is being restored.
    due: Option<Instant>,
}

/// All keys that expire. Equal logs give the same expiries; the schedule is each node's own.
#[derive(Clone, Debug)]
pub(super) struct Expiries {
    by_key: Shards<Scheduled>,
    len: usize,
    /// The last tick, and its log time.
    tick: Revision,
    time: LogTime,
    dated: BTreeSet<(LogTime, Key)>,
    /// The other keys, by the entry that has set their time to live.
    undated: BTreeSet<(Revision, Key)>,
    /// The same keys by the time at which they are due, as far as that is known.
    due: BTreeSet<(Instant, Key)>,
    now: Instant,
    /// When this node applied the last tick.
    ticked_at: Option<Instant>,
    /// How much more time had passed since that tick, by what the leader has stated.
    ahead: Duration,
}

impl Expiries {
    pub(super) fn seeded(seed: u64) -> Self {
        Self {
            by_key: Shards::seeded(seed),
            len: 0,
            tick: Revision::NONE,
            time: LogTime::default(),
            dated: BTreeSet::new(),
            undated: BTreeSet::new(),
            due: BTreeSet::new(),
            now: Instant::default(),
            ticked_at: None,
            ahead: Duration::ZERO,
        }
    }

    /// The number of keys that expire.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, key: &Key) -> Option<Expiry> {
        self.by_key.get(key).map(|scheduled| scheduled.expiry)
    }

    /// The last tick and its log time.
    pub(super) fn last_tick(&self) -> (Revision, LogTime) {
        (self.tick, self.time)
    }

    /// Moves this node's clock on, before entries are applied.
    pub(super) fn advance(&mut self, now: Instant) {
        self.now = self.now.max(now);
        if self.ticked_at.is_none() {
            self.ticked_at = Some(self.now);
            self.schedule_restored();
        }
    }

    /// Counts the time to live of restored keys from now: they were applied before.
    fn schedule_restored(&mut self) {
        for (_, key) in &self.undated {
            let Some(scheduled) = self.by_key.get_mut(key) else { continue };
            let due = at_once_by_mutant().unwrap_or(self.now + scheduled.expiry.ttl.duration());
            scheduled.due = Some(due);
            self.due.insert((due, key.clone()));
        }
    }

    /// Sets the time to live of a key by the entry at `since`.
    pub(super) fn set(&mut self, key: &Key, ttl: Ttl, since: Revision) {
        self.remove(key);
        let due = self.now + ttl.duration();
        self.undated.insert((since, key.clone()));
        self.due.insert((due, key.clone()));
        let expiry = Expiry { since, ttl, until: None };
        self.by_key.insert(key, Scheduled { expiry, due: Some(due) });
        self.len += 1;
    }

    /// Adds a key from a snapshot.
    pub(super) fn restore(&mut self, key: &Key, expiry: Expiry) {
        match expiry.until {
            Some(until) => drop(self.dated.insert((until, key.clone()))),
            None => drop(self.undated.insert((expiry.since, key.clone()))),
        }
        self.by_key.insert(key, Scheduled { expiry, due: None });
        self.len += 1;
        // The clock counts from the next step on.
        self.ticked_at = None;
    }

    /// Sets the last tick of a snapshot.
    pub(super) fn restore_tick(&mut self, tick: Revision, time: LogTime) {
        (self.tick, self.time, self.ticked_at) = (tick, time, None);
    }

    /// Lets a key live without a limit.
    pub(super) fn remove(&mut self, key: &Key) {
        let Some(Scheduled { expiry, due }) = self.by_key.remove(key) else { return };
        self.len -= 1;
        match expiry.until {
            Some(until) => drop(self.dated.remove(&(until, key.clone()))),
            None => drop(self.undated.remove(&(expiry.since, key.clone()))),
        }
        if let Some(due) = due {
            self.due.remove(&(due, key.clone()));
        }
    }

    /// Returns whether a key expires by a tick of a leader that had applied `applied`.
    pub(super) fn is_expired_by(&self, key: &Key, applied: Revision) -> bool {
        let is_older = |expiry: Expiry| expiry.since <= applied || mutant::is_active(Mutant::TickBeatsPut);
        self.get(key).is_some_and(is_older)
    }

    /// The keys that a tick dates whose leader had applied `applied`.
    pub(super) fn dated_by(&self, applied: Revision) -> Vec<Key> {
        let dated = self.undated.iter().take_while(|(since, _)| *since <= applied);
        dated.map(|(_, key)| key.clone()).collect()
    }

    /// Dates a key by a tick at this log time.
    pub(super) fn date(&mut self, key: &Key, time: LogTime) {
        let Some(scheduled) = self.by_key.get_mut(key) else { return };
        let until = time.after(scheduled.expiry.ttl.duration());
        scheduled.expiry.until = Some(until);
        if let Some(due) = scheduled.due.take() {
            self.due.remove(&(due, key.clone()));
        }
        self.undated.remove(&(scheduled.expiry.since, key.clone()));
        self.dated.insert((until, key.clone()));
    }

    /// Notes that the tick of the entry at `at` is applied.
    pub(super) fn ticked(&mut self, at: Revision, time: LogTime) {
        (self.tick, self.time) = (at, self.time.max(time));
        (self.ticked_at, self.ahead) = (Some(self.now), Duration::ZERO);
    }

    /// The time since this node applied the last tick, as far as it knows.
    pub(super) fn elapsed(&self) -> Duration {
        self.ticked_at.map_or(Duration::ZERO, |ticked_at| self.now.since(ticked_at)) + self.ahead
    }

    /// Learns from a leader that at least this time has passed since it applied a tick.
    pub(super) fn learn_elapsed(&mut self, tick: Revision, elapsed: Duration) {
        if tick == self.tick {
            self.ahead += elapsed.saturating_sub(self.elapsed());
        }
    }

    fn log_time(&self) -> LogTime {
        self.time.after(self.elapsed())
    }

    /// The time to live that is left to a key.
    pub(super) fn left(&self, key: &Key) -> Option<Ttl> {
        let Scheduled { expiry, due } = self.by_key.get(key)?;
        Some(Ttl::left(match (expiry.until, due) {
            (Some(until), _) => until.since(self.log_time()),
            (None, Some(due)) => due.since(self.now),
            (None, None) => expiry.ttl.duration(),
        }))
    }

    /// When this time has passed since the last tick.
    pub(super) fn at_elapsed(&self, time: Duration) -> Instant {
        self.now + time.saturating_sub(self.elapsed())
    }

    /// A tick that states only the log time, which is `at_least` this one.
    pub(super) fn empty_tick(&self, at_least: LogTime, applied: Revision) -> Tick {
        Tick { time: self.log_time().max(at_least), applied, expired: Vec::new() }
    }

    /// When a leader has to propose a tick, if nothing changes before.
    pub(super) fn next_tick_at(&self) -> Option<Instant> {
        let dated = self.dated.first().map(|(until, _)| self.now + until.since(self.log_time()));
        let due = self.due.first().map(|(due, _)| *due);
        dated.into_iter().chain(due).chain(self.date_at()).min()
    }

    /// When the oldest undated key must be dated.
    fn date_at(&self) -> Option<Instant> {
        let (_, key) = self.undated.first()?;
        let Scheduled { expiry, due } = self.by_key.get(key)?;
        Some(due.map_or(self.now, |due| due - expiry.ttl.duration()) + DATE_AFTER)
    }

    /// Returns the tick that a leader has to propose now, if one is due. `at_least` is the log time
    /// by the leader's ticks in flight, and `is_proposed` are their keys; `dates`: whether to
    /// propose a tick that only dates keys.
    pub(super) fn due_tick(
        &self,
        at_least: LogTime,
        applied: Revision,
        dates: bool,
        is_proposed: impl Fn(&Key) -> bool,
    ) -> Option<Tick> {
        let time = self.log_time().max(at_least);
        let dated = self.dated.iter().take_while(|(until, _)| *until <= time);
        let mut dated = dated.map(|(until, key)| (time.since(*until), key)).peekable();
        let due = self.due.iter().take_while(|(due, _)| *due <= self.now);
        let mut due = due.map(|(due, key)| (self.now.since(*due), key)).peekable();
        let (mut expired, mut bytes) = (Vec::new(), 0);
        while expired.len() < KEYS_PROPOSED_MAX && bytes < BYTES_PROPOSED_MAX {
            let dated_first = match (dated.peek(), due.peek()) {
                (Some((dated, _)), Some((due, _))) => dated >= due,
                (dated, _) => dated.is_some(),
            };
            let Some((_, key)) = (if dated_first { dated.next() } else { due.next() }) else { break };
            if !is_proposed(key) {
                bytes += key.as_str().len();
                expired.push(key.clone());
            }
        }
        let is_dating = dates && self.date_at().is_some_and(|at| at <= self.now);
        (is_dating || !expired.is_empty()).then_some(Tick { time, applied, expired })
    }
}

/// Two nodes have the same expiries when they have the same number, and the same log time; the
/// store compares key by key.
impl PartialEq for Expiries {
    fn eq(&self, other: &Self) -> bool {
        (self.len, self.tick, self.time) == (other.len, other.tick, other.time)
    }
}

/// Deliberate bug: a key that was not dated before a restart is due at once.
fn at_once_by_mutant() -> Option<Instant> {
    mutant::is_active(Mutant::RestoredKeyIsDue).then(Instant::default)
}

#[cfg(test)]
mod tests;
