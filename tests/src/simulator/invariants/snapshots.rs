//! Snapshots and compaction: a snapshot equals the replay of the committed log up to its last
//! entry, sessions included; an installed state equals that replay; and the beginning of a log is
//! removed only when a snapshot that covers it is durable and was read back (Raft, §7; S17).
//!
//! The replay uses the real state machine. Whether that is correct is checked by other properties,
//! with an independent model.

use std::collections::BTreeMap;

use coracle_core::Output;
use coracle_core::kv::SessionLimits;
use coracle_core::raft::{Event, Log, LogIndex, LogPoint, NodeId, Persist, SnapshotPart};

use super::replay::Replay;
use super::{ByNode, CommittedEntry, Process, Running, Verdict, Violation, committed_at, require};
use crate::simulator::snapshots::read_part;

/// One of this many different snapshots is parsed again, as an installation would do it; installed
/// ones are parsed anyway. The value is arbitrary.
const READ_EVERY: u64 = 8;
/// How many snapshots are remembered as correct, because the other nodes soon take the same ones.
/// The value is arbitrary.
const RIGHT_KEPT: usize = 8;

/// The snapshots that are being written, and the replayed log.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    replay: Replay,
    /// The texts of the latest correct snapshots: an identical one of another node is correct as
    /// well.
    right: BTreeMap<LogIndex, String>,
    /// The number of different snapshots so far.
    different: u64,
    /// The text of the snapshot that each node is writing, as far as it was emitted.
    begun: ByNode<(LogPoint, String)>,
    /// The logs, after the last turn, of the nodes that are receiving a snapshot.
    logs: ByNode<Log>,
}

impl Snapshots {
    pub(super) fn new(session_limits: SessionLimits) -> Self {
        Self { replay: Replay::new(session_limits), ..Self::default() }
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
                    let expected = self.replay.up_to(applied, committed);
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

    /// Fig. 13, InstallSnapshot receiver 6: a log that agrees with the snapshot keeps its entries
    /// behind it, except for those that the leader then replaces.
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
        if self.right.get(&last.index) == Some(&text) {
            return Ok(());
        }
        self.check_text(node, last.index, &text, committed)?;
        self.right.insert(last.index, text);
        if self.right.len() > RIGHT_KEPT {
            self.right.pop_first();
        }
        Ok(())
    }

    fn check_text(
        &mut self,
        node: NodeId,
        last: LogIndex,
        text: &str,
        committed: &[CommittedEntry],
    ) -> Verdict {
        let mut canonical = String::with_capacity(text.len());
        let expected = self.replay.up_to(last, committed);
        expected.freeze();
        expected.read_frozen(&mut canonical, usize::MAX);
        expected.thaw();
        let is_canonical = text == canonical;
        self.different += 1;
        if !is_canonical || self.different.is_multiple_of(READ_EVERY) {
            self.read_again(node, last, text, committed)?;
        }
        require(is_canonical, "snapshots", || {
            format!("node {node}'s snapshot {last} is written otherwise than other nodes would")
        })
    }

    fn read_again(
        &mut self,
        node: NodeId,
        last: LogIndex,
        text: &str,
        committed: &[CommittedEntry],
    ) -> Verdict {
        let mut restored = self.replay.empty();
        let is_understood = text.lines().all(|line| restored.restore(line).is_ok());
        let expected = self.replay.up_to(last, committed);
        require(is_understood && restored == *expected, "snapshots", || {
            format!("node {node}'s snapshot {last} is not what the log gives")
        })
    }

    /// Checks a node at rest: reads the snapshot on its disk, even if it was read before.
    pub(super) fn check_at_rest(&mut self, process: &Process, committed: &[CommittedEntry]) -> Verdict {
        let Some(last) = process.durable.snapshot else { return Ok(()) };
        let part = read_part(&process.disk, process.id, last, 0, usize::MAX).map_err(|fault| Violation {
            property: "snapshots",
            what: format!("node {}'s snapshot {} cannot be read: {fault}", process.id, last.index),
        })?;
        // A newer one may be about to become durable in its place.
        let Some(part) = part else { return Ok(()) };
        self.read_again(process.id, last.index, &part.text, committed)
    }
}

/// Checks that the durable state covers the entries that a compacted log lacks.
fn check_compaction(process: &Process, persist: &Persist) -> Verdict {
    let Some(compaction) = persist.compaction() else { return Ok(()) };
    let after = compaction.after;
    let is_covered = process.durable.snapshot_index() >= after.index && process.durable.holds(after);
    require(is_covered, "snapshots", || {
        format!(
            "node {} trims its log up to {}, which no snapshot on its disk covers",
            process.id, after.index
        )
    })
}
