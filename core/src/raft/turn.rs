//! The turn: what becomes of all that has gathered since the last one ended.
//!
//! A turn's changes to the log are handed to the disk as one persist, so whatever happens to the log passes through here.

use super::batch::Entries;
use super::durability::{HardState, Persist, PersistScope};
use super::event::Event;
use super::runs::Runs;
use super::state::{Node, Part};
use super::types::LogIndex;
use crate::mutant::{self, Mutant};
use crate::time::Instant;

impl Node {
    /// Moves what was proposed into the log.
    pub(super) fn seal_proposals(&mut self) {
        if let Some(entries) = self.proposals.finish() {
            if let Part::Leader(leadership) = &mut self.part {
                leadership.appended(entries.last().index, entries.bytes());
            }
            self.append(entries);
        }
    }

    /// Adds entries to the log, and to what this turn writes.
    pub(super) fn append(&mut self, entries: Entries) {
        self.log.append(entries.clone());
        self.take_configurations(&entries);
        self.turn.appended.push(entries);
    }

    /// Removes the entries from `from` on. What is committed is never removed.
    pub(super) fn cut_log(&mut self, from: LogIndex) {
        assert!(
            from > self.commit_index,
            "an order to remove committed entries: the safety of Raft is broken"
        );
        let to = self.log.last().index;
        self.log.cut(from);
        if self.membership.cut(from) {
            let (index, configuration) = (self.membership.index(), self.configuration().clone());
            self.tell(Event::MembershipChanged { index, configuration });
        }
        self.durability.cut(from);
        // An acknowledgement of what is cut, made for an earlier leader and still waiting, would name entries that the disk
        // is not going to hold.
        self.turn.messages.retain(|(_, message)| !message.acknowledges(from));
        self.durability.forget_acknowledgements(from);
        self.turn.cut(from);
        self.tell(Event::LogCut { from, to });
    }

    /// What the disk has to do for this turn.
    pub(super) fn take_persist(&mut self, now: Instant) -> Option<Persist> {
        let compaction = if self.turn.is_compaction_due { self.compaction() } else { None };
        let turn = &mut self.turn;
        turn.is_compaction_due = false;
        let log_changed = turn.cut_from.is_some() || !turn.appended.is_empty() || compaction.is_some();
        if !turn.hard_state_changed && !log_changed {
            return None;
        }
        let last_index = self.log.last().index;
        let bytes = turn.appended.iter().map(Entries::bytes).sum();
        let scope = PersistScope { hard_state: turn.hard_state_changed, log: log_changed, bytes, last_index };
        let id = self.durability.start(&scope, now);
        let hard_state = HardState { current_term: self.current_term, voted_for: self.voted_for };
        let takes_all = mutant::is_active(Mutant::FloorAboveDurable);
        let durable_index = if takes_all { last_index } else { self.durability.durable_index() };
        turn.handed_out = last_index;
        let (cut_from, appended) = (turn.cut_from.take(), std::mem::take(&mut turn.appended));
        // What the log is made anew from has the turn's changes in it.
        let (cut_from, entries) =
            if compaction.is_some() { (None, Runs::new()) } else { (cut_from, appended) };
        Some(Persist {
            id,
            hard_state: std::mem::take(&mut turn.hard_state_changed).then_some(hard_state),
            compaction,
            cut_from,
            entries,
            floor: self.commit_index.min(durable_index),
        })
    }

    /// A node that wakes long after its deadline has heard nobody because it slept, not because nobody spoke: a process
    /// that was stopped, a machine without a processor to spare. Its silence proves nothing, so the time asleep does not
    /// count, once in a row; a node that is always late still acts.
    pub(super) fn forgive_oversleeping(&mut self, now: Instant) {
        let due = self.deadline();
        if now < due {
            return;
        }
        if now.since(due) <= self.config.heartbeat_interval {
            self.was_forgiven = false;
            return;
        }
        if std::mem::replace(&mut self.was_forgiven, true) {
            return;
        }
        let asleep = now.since(self.last_turn);
        match &mut self.part {
            Part::Leader(leadership) => leadership.forgive(asleep, now),
            _ => self.election_deadline = self.election_deadline + asleep,
        }
    }

    pub(super) fn act_on_time(&mut self, now: Instant) {
        match &self.part {
            Part::Leader(leadership) => {
                if now >= leadership.next_heartbeat {
                    self.on_heartbeat_timeout(now);
                }
            }
            _ => {
                if now >= self.election_deadline {
                    self.on_election_timeout(now);
                }
            }
        }
    }
}
