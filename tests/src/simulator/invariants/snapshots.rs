//! A snapshot holds what replaying the committed log up to its last entry gives, sessions included; a state that was
//! installed is that replay; and the beginning of a log goes only when a snapshot in its place is durable and was read back
//! (Raft, §7; S17).
//!
//! The replay uses the state that ships: whether that does the right thing is asked by other properties, with a model of
//! their own.

use std::collections::BTreeMap;

use coracle_core::Output;
use coracle_core::kv::{LoggedWrite, SessionLimits, State};
use coracle_core::raft::{Event, Log, LogIndex, LogPoint, NodeId, Persist, SnapshotPart};

use super::{ByNode, CommittedEntry, Process, Running, Verdict, committed_at, require};

/// Every so many entries the replayed state is kept, and that for ever at every so many of these. Arbitrary: most snapshots
/// are of what was committed last.
const KEPT_EVERY: u64 = 64;
const KEPT_LONG: u64 = 32;

/// What is being written, and the replayed log.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    session_limits: SessionLimits,
    kept: BTreeMap<LogIndex, State>,
    /// The parts that each node has handed out.
    begun: ByNode<(LogPoint, String)>,
    /// The logs, after the last turn, of the nodes that are being sent a snapshot.
    logs: ByNode<Log>,
}

impl Snapshots {
    pub(super) fn new(session_limits: SessionLimits) -> Self {
        Self { session_limits, ..Self::default() }
    }

    pub(super) fn restarted(&mut self, node: NodeId) {
        self.begun.remove(&node);
        self.logs.remove(&node);
    }

    pub(super) fn check(
        &mut self,
        process: &Process,
        running: &Running,
        outputs: &[Output],
        committed: &[CommittedEntry],
    ) -> Verdict {
        let replica = &running.replica;
        let (id, claimed) = (process.id, replica.status().snapshot_index);
        require(claimed <= process.durable.snapshot_index(), "snapshots", || {
            format!("node {id} relies on snapshot {claimed}, which is not in its place on the disk")
        })?;
        for output in outputs {
            match output {
                Output::WriteSnapshot(part) => self.check_part(id, part, committed)?,
                Output::Persist(persist) => check_compaction(process, persist)?,
                Output::Event(Event::SnapshotInstalled { last }) => {
                    let applied = replica.status().last_applied;
                    let expected = self.replay(applied, committed);
                    let is_it =
                        (replica.store(), replica.sessions()) == (expected.store(), expected.sessions());
                    require(is_it && applied >= *last, "snapshots", || {
                        format!(
                            "node {id} installed snapshot {last}, and is not what the log up to {applied} gives"
                        )
                    })?;
                    self.check_suffix(id, *last, running, outputs, committed)?;
                }
                _ => {}
            }
        }
        if replica.node().receives_snapshot() {
            self.logs.insert(id, replica.node().log().clone());
        } else {
            self.logs.remove(&id);
        }
        Ok(())
    }

    /// Fig. 13, InstallSnapshot receiver 6: a log that agrees with the snapshot keeps what it has behind it, but for what the
    /// leader then has replaced.
    fn check_suffix(
        &self,
        id: NodeId,
        last: LogIndex,
        running: &Running,
        outputs: &[Output],
        committed: &[CommittedEntry],
    ) -> Verdict {
        let Some(before) = self.logs.get(&id) else { return Ok(()) };
        let point = committed_at(committed, last).map(|entry| entry.point);
        let agreed = before.point_at(last).is_some_and(|held| Some(held) == point);
        let is_replaced =
            |output: &Output| matches!(output, Output::Event(Event::LogCut { from, .. }) if *from > last);
        if !agreed || outputs.iter().any(is_replaced) {
            return Ok(());
        }
        let (end, now) = (before.last(), running.replica.node().log());
        require(now.point_at(end.index) == Some(end), "snapshots", || {
            format!(
                "node {id} installed snapshot {last} and dropped its log up to {}, which agreed",
                end.index
            )
        })
    }

    fn check_part(&mut self, node: NodeId, part: &SnapshotPart, committed: &[CommittedEntry]) -> Verdict {
        let last = part.meta.last;
        if part.offset == 0 {
            self.begun.insert(node, (last, String::new()));
        }
        let begun = self
            .begun
            .get_mut(&node)
            .filter(|(begun, text)| (*begun, text.len() as u64) == (last, part.offset));
        let Some((_, text)) = begun else {
            return require(false, "snapshots", || format!("node {node}'s parts do not follow one another"));
        };
        text.push_str(&part.text);
        if part.end.is_none() {
            return Ok(());
        }
        let text = std::mem::take(text);
        let is_committed = committed_at(committed, last.index).is_some_and(|entry| entry.point == last);
        require(is_committed, "snapshots", || {
            format!("node {node} writes a snapshot of {}, which is not committed", last.index)
        })?;
        let mut expected = self.replay(last.index, committed);
        let mut restored = State::new(self.session_limits);
        let is_understood = text.lines().all(|line| restored.restore(line).is_ok());
        require(is_understood && restored == expected, "snapshots", || {
            format!("node {node}'s snapshot {} is not what the log gives", last.index)
        })?;
        let mut canonical = String::new();
        expected.freeze();
        expected.read_frozen(&mut canonical, usize::MAX);
        require(text == canonical, "snapshots", || {
            format!("node {node}'s snapshot {} is written otherwise than other nodes would", last.index)
        })
    }

    /// What the committed log up to `index` gives.
    fn replay(&mut self, index: LogIndex, committed: &[CommittedEntry]) -> State {
        let kept = self.kept.range(..=index).next_back();
        let (from, mut state) = kept
            .map_or_else(|| (0, State::new(self.session_limits)), |(from, state)| (from.0, state.clone()));
        let place = |index: u64| usize::try_from(index).expect("a simulated log is short");
        for entry in &committed[place(from)..place(index.0)] {
            if let Some(write) = LoggedWrite::read(&entry.payload) {
                state.apply(&write);
            }
            if entry.point.index.0.is_multiple_of(KEPT_EVERY) {
                self.kept.insert(entry.point.index, state.clone());
                let old = LogIndex(entry.point.index.0.saturating_sub(KEPT_EVERY * KEPT_LONG));
                if !old.0.is_multiple_of(KEPT_EVERY * KEPT_LONG) {
                    self.kept.remove(&old);
                }
            }
        }
        state
    }
}

/// What is durable already covers what the new log lacks.
fn check_compaction(process: &Process, persist: &Persist) -> Verdict {
    let Some(compaction) = &persist.compaction else { return Ok(()) };
    let after = compaction.after;
    let is_covered = process.durable.snapshot_index() >= after.index && process.durable.holds(after);
    require(is_covered, "snapshots", || {
        format!(
            "node {} trims its log up to {}, which no snapshot on its disk covers",
            process.id, after.index
        )
    })
}
