//! Expiry on the replica: a leader proposes the ticks by which keys expire.
//!
//! The state machine says which keys are due, and when the next one is (`kv/expiry.rs`). A leader
//! proposes a tick only once it has applied everything that was in its log when it was elected:
//! before that, its log time may be that of an older tick. A few ticks may be in flight, so that a
//! million keys that are due at the same time do not wait for a million round trips. The session
//! table needs ticks, too, while it holds the fingerprints of many forgotten clients.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::Replica;
use crate::kv::{Command, Key, Level, Revision, Tick};
use crate::mutant::{self, Mutant};
use crate::raft::{Elapsed, LogIndex, Role, Term};
use crate::time::Instant;

/// The most ticks of a leader in flight. Arbitrary: with one, the expiry of many keys would take a
/// commit each time.
const TICKS_IN_FLIGHT_MAX: usize = 4;
/// How long a leader waits after a tick could not be proposed, because the log was full or
/// leadership was being transferred. Arbitrary.
const TICK_RETRY_AFTER: Duration = Duration::from_millis(50);

/// The ticks that this leader has proposed and not applied yet.
#[derive(Debug, Default)]
pub(super) struct Ticks {
    in_flight: VecDeque<(LogIndex, Term, Arc<Tick>)>,
    /// Their keys.
    keys: BTreeSet<Key>,
    /// No tick is proposed before this time.
    retry_at: Instant,
}

impl Ticks {
    /// Removes the ticks up to `applied`, and those of other terms, whose entries may be cut off.
    fn retain(&mut self, applied: LogIndex, term: Term) {
        let is_over = |(index, of, _): &mut (LogIndex, Term, Arc<Tick>)| *index <= applied || *of != term;
        while let Some((_, _, tick)) = self.in_flight.pop_front_if(is_over) {
            for key in &tick.expired {
                self.keys.remove(key);
            }
        }
    }
}

impl Replica {
    /// Moves the clock by which keys expire on, and proposes the ticks that are due.
    pub(super) fn expire(&mut self, now: Instant) {
        self.state.advance(now);
        self.ticks.retain(self.last_applied, self.node.current_term());
        while self.may_tick() && now >= self.ticks.retry_at {
            let applied = beyond_by_mutant(self.node.log().last().index).unwrap_or(self.last_applied);
            let keys = &self.ticks.keys;
            let dates = self.ticks.in_flight.is_empty();
            let Some(tick) = self.state.due_tick(Revision(applied.0), dates, |key| keys.contains(key)) else {
                return;
            };
            let tick = Arc::new(tick);
            let command = Command::Tick(Arc::clone(&tick));
            match self.node.propose(|line| command.write_payload(None, line)) {
                Ok((index, term)) => {
                    self.ticks.keys.extend(tick.expired.iter().cloned());
                    self.ticks.in_flight.push_back((index, term, tick));
                }
                Err(_) => self.ticks.retry_at = now + retry_after_unless_mutant(),
            }
        }
    }

    /// Returns whether this node leads, knows the log time, and has not too many ticks in flight.
    fn may_tick(&self) -> bool {
        self.state.needs_ticks()
            && self.ticks.in_flight.len() < TICKS_IN_FLIGHT_MAX
            && self.node.role() == Role::Leader
            && self.level() >= Level::REVISIONS
            && self.leader_knows_level()
    }

    /// When this leader has to propose the next tick; `None`: a step that applies entries comes
    /// before.
    pub(super) fn next_tick_at(&self) -> Option<Instant> {
        let has_dated = self.ticks.in_flight.is_empty();
        let next = self.state.next_tick_at().filter(|_| self.may_tick() && has_dated)?;
        Some(next.max(self.ticks.retry_at))
    }

    /// States with the next heartbeats how much time has passed since the last tick, or learns it
    /// from those of the leader.
    pub(super) fn exchange_elapsed(&mut self) {
        if let Some(Elapsed { since, time }) = self.node.take_elapsed() {
            self.state.learn_elapsed(Revision(since.0), time);
        }
        let is_understood = self.node.role() == Role::Leader && self.level() >= Level::REVISIONS;
        let elapsed = self.state.elapsed().filter(|_| is_understood);
        self.node.set_elapsed(elapsed.map(|(tick, time)| Elapsed { since: LogIndex(tick.0), time }));
    }
}

/// Deliberate bug: a tick states entries as applied that are not.
fn beyond_by_mutant(last: LogIndex) -> Option<LogIndex> {
    mutant::is_active(Mutant::DatedBeforeCommit).then_some(last)
}

/// The time until the next attempt; deliberate bug: there is none.
fn retry_after_unless_mutant() -> Duration {
    if mutant::is_active(Mutant::TickNotRetried) { Duration::MAX } else { TICK_RETRY_AFTER }
}
