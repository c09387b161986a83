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
use crate::kv::{Command, Key, Level, LogTime, Revision, Tick};
use crate::mutant::{self, Mutant};
use crate::raft::{Elapsed, LogIndex, Role, Term};
use crate::time::Instant;

/// The most ticks of a leader in flight. Arbitrary: with one, the expiry of many keys would take a
/// commit each time.
const TICKS_IN_FLIGHT_MAX: usize = 4;
/// How long a leader waits after a tick could not be proposed, because the log was full or
/// leadership was being transferred. Arbitrary.
const TICK_RETRY_AFTER: Duration = Duration::from_millis(50);

/// A tick that was proposed and is not applied yet.
#[derive(Debug)]
struct InFlight {
    index: LogIndex,
    term: Term,
    tick: Arc<Tick>,
    proposed_at: Instant,
}

/// The ticks that this leader has proposed and not applied yet.
#[derive(Debug, Default)]
pub(super) struct Ticks {
    in_flight: VecDeque<InFlight>,
    /// Their keys.
    keys: BTreeSet<Key>,
    /// No tick is proposed before this time.
    retry_at: Instant,
}

impl Ticks {
    /// Removes the ticks up to `applied`, and those of other terms, whose entries may be cut off.
    fn retain(&mut self, applied: LogIndex, term: Term) {
        let is_over = |of: &mut InFlight| of.index <= applied || of.term != term;
        while let Some(InFlight { tick, .. }) = self.in_flight.pop_front_if(is_over) {
            for key in &tick.expired {
                self.keys.remove(key);
            }
        }
    }

    /// The log time by the last tick in flight.
    fn log_time(&self, now: Instant) -> LogTime {
        self.in_flight
            .back()
            .map_or(LogTime::default(), |last| last.tick.time.after(now.since(last.proposed_at)))
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
            let (dates, at_least) = (self.ticks.in_flight.is_empty(), self.ticks.log_time(now));
            let is_proposed = |key: &Key| keys.contains(key);
            let tick = self.state.due_tick(at_least, Revision(applied.0), dates, is_proposed);
            let Some(tick) = tick else { return };
            let tick = Arc::new(tick);
            let command = Command::Tick(Arc::clone(&tick));
            match self.node.propose(|line| command.write_payload(None, line)) {
                Ok((index, term)) => {
                    self.ticks.keys.extend(tick.expired.iter().cloned());
                    self.ticks.in_flight.push_back(InFlight { index, term, tick, proposed_at: now });
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::{Ttl, Value};
    use crate::raft::{Config, NodeId, PersistId, Restored, Voters};
    use crate::replica::{Input, Output, Request, RequestId};

    /// The only node of a cluster, with a disk that finishes its writes when the test says so.
    struct Slow {
        replica: Replica,
        unfinished: Vec<PersistId>,
        inputs: Vec<Input>,
    }

    impl Slow {
        /// Runs one step at this time, in milliseconds.
        fn step(&mut self, ms: u64) {
            let mut outputs = Vec::new();
            self.replica.step(Instant::from_micros(1000 * ms), &mut self.inputs, &mut outputs);
            let persist =
                |output| if let Output::Persist(persist) = output { Some(persist.id) } else { None };
            self.unfinished.extend(outputs.into_iter().filter_map(persist));
        }

        fn put(&mut self, ms: u64, key: &str, ttl: u64) {
            let (key, value) = (Key::new(key).unwrap(), Value::from_json("1").unwrap());
            let put = Command::PutExpiring { key, value, ttl: Ttl::from_ms(ttl).unwrap() };
            self.inputs.push(Input::Request(RequestId(ms), Request::write(put)));
            self.step(ms);
        }

        /// Finishes all writes but the last `left`, and the work that follows.
        fn finish(&mut self, ms: u64, left: usize) {
            while self.unfinished.len() > left {
                let finished = self.unfinished.len() - left;
                self.inputs.extend(self.unfinished.drain(..finished).map(Input::Persisted));
                self.step(ms);
            }
        }
    }

    /// A tick that states less than an earlier one in flight dates a key too early, and log time
    /// jumps when the earlier one is applied.
    #[test]
    fn a_tick_states_no_less_than_those_in_flight() {
        let config = Config::new(NodeId(0), Voters::new([NodeId(0)]).unwrap());
        let replica = Replica::new(config, Restored::default(), 1, Instant::default()).unwrap();
        let mut node = Slow { replica, unfinished: Vec::new(), inputs: Vec::new() };
        for ms in 0..1000 {
            node.step(ms);
            node.finish(ms, 0);
        }
        for (key, ttl) in [("a", 70), ("b", 100)] {
            node.put(1000, key, ttl);
            node.finish(1000, 0);
        }
        node.step(1071);
        node.put(1072, "c", 1);
        node.put(1095, "later", 200);
        node.step(1101);
        assert_eq!(node.replica.ticks.in_flight.len(), 2);
        // The first tick and the puts are applied, and the second tick is in flight.
        node.finish(1102, 1);
        let is_there = |node: &Slow, key| node.replica.store().value(key).is_some();
        assert!(!is_there(&node, "a") && is_there(&node, "b") && is_there(&node, "later"));
        node.step(1104);
        assert_eq!(node.replica.ticks.in_flight.len(), 2);
        node.finish(1105, 0);
        for ms in 1106..1500 {
            node.step(ms);
            node.finish(ms, 0);
            assert!(is_there(&node, "later") || ms >= 1302, "it was committed at 1102, and has gone at {ms}");
        }
        assert!(!is_there(&node, "later"));
    }
}
