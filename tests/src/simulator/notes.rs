//! Trace lines and sightings for the outputs of nodes.

use coracle_core::raft::{Body, Entries, Event, Message, MessageRefusal, Persist, StepDown};

use super::world::World;

impl World {
    pub(super) fn note_persist(&mut self, node: usize, persist: &Persist) {
        if persist.cut_from().is_some() && !persist.entries().is_empty() {
            self.trace.sight("a follower's entries gave way to its leader's");
        }
        self.trace.note(self.now, [6, node as u64, persist.id.0], || {
            let entries: usize = persist.entries().iter().map(Entries::len).sum();
            format!(
                "node {node} persists {}: {:?}, anew after {:?}, cut {:?}, {entries} entries",
                persist.id.0,
                persist.hard_state,
                persist.compaction().map(|compaction| compaction.after.index),
                persist.cut_from()
            )
        });
    }

    pub(super) fn note_send(&mut self, message: &Message, arrivals: [Option<u64>; 2]) {
        if arrivals[1].is_some() {
            self.trace.sight("a message was doubled");
        }
        if arrivals[0].is_none() {
            self.trace.sight("a message was lost");
        }
        if let Body::InstallSnapshot(part) = &message.body {
            // A follower that answers the question is sent only the rest.
            let link = (message.from, message.to);
            if part.is_question() {
                self.asked_for_snapshots.insert(link);
            } else if self.asked_for_snapshots.remove(&link) && part.offset > 0 {
                self.trace.sight("an installation went on where it had stopped");
            }
        }
        self.trace.note(self.now, [7, message.from.0, message.to.0], || {
            let fate = if arrivals[0].is_some() { "" } else { " (lost)" };
            format!("{} → {} in term {}: {:?}{fate}", message.from, message.to, message.term, message.body)
        });
    }

    pub(super) fn note_event(&mut self, node: usize, event: &Event) {
        match event {
            Event::BecameLeader { .. } => self.trace.sight("a leader was elected"),
            Event::LogCut { from, to } if to > from => self.trace.sight("two or more entries were cut"),
            Event::BecameFollower { because: StepDown::QuorumLost, .. } => {
                self.trace.sight("a leader without a majority gave up");
            }
            Event::BecameFollower { because: StepDown::DiskStalled, .. } => {
                self.trace.sight("a leader with a hanging disk gave up");
            }
            Event::SnapshotInstalled { last } => {
                self.trace.sight("a snapshot was installed");
                // The disk still has the log from before.
                let durable = &self.processes[node].durable;
                let at_end = durable.point_at(*last);
                let was_longer = durable.log.last().is_some_and(|end| end.index > *last);
                if was_longer && self.invariants.is_committed(at_end) {
                    self.trace.sight("an installation kept entries behind the snapshot");
                } else if was_longer {
                    self.trace.sight("an installation took the place of a longer log");
                }
            }
            Event::MessageRefused {
                because: MessageRefusal::SnapshotDamaged | MessageRefusal::SnapshotNotUnderstood,
                ..
            } => {
                self.trace.sight("a damaged snapshot was refused");
            }
            Event::TransferFailed { .. } => self.trace.sight("a transfer of leadership failed"),
            _ => {}
        }
        self.trace.note(self.now, [8, node as u64, 0], || format!("node {node} {event}"));
    }
}
