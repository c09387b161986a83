//! The end of a turn: acts on timers that are due, and returns the outputs that have been collected
//! since the last turn.
//!
//! The changes of a turn go to the disk as one persist, and a leader sends messages after it has
//! handed its own entries to the disk.

use super::batch::Entries;
use super::durability::{HardState, LogChange, Persist, PersistScope};
use super::output::Output;
use super::state::{Node, Part};
use crate::mutant::{self, Mutant};
use crate::time::Instant;

impl Node {
    /// Ends the turn: acts on timers that are due, and appends the outputs of this turn to
    /// `outputs`.
    pub fn end_turn(&mut self, now: Instant, outputs: &mut Vec<Output>) {
        if now >= self.deadline() {
            self.discount_sleep(now);
            self.act_on_time(now);
        }
        self.last_turn = now;
        self.route_reads(now);
        self.leave_joint_configuration();
        self.seal_proposals();
        let persist = self.build_persist(now);
        self.lead_on(now);
        self.note_removal();
        self.turn.events.extend(self.durability.hang_event(now));
        self.drop_overtaken_snapshot();
        outputs.extend(self.turn.events.drain(..).map(Output::Event));
        if let Some(persist) = persist {
            outputs.push(Output::Persist(persist));
        }
        let mut send = |message| outputs.push(Output::Send(message));
        self.durability.release(&mut send);
        for (promise, message) in self.turn.messages.drain(..) {
            self.durability.release_or_hold(promise, message, &mut send);
        }
        if self.turn.concerns_snapshots() {
            outputs.extend(self.take_snapshot_outputs());
        }
        if !self.turn.reads.is_empty() {
            outputs.extend(self.take_reads());
        }
    }

    /// When the next turn is due if nothing arrives before.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        match &self.part {
            Part::Leader(_) if self.is_leave_due() => self.last_turn,
            Part::Leader(leadership) => leadership.deadline(),
            _ => self.election_deadline,
        }
    }

    /// Does not count the time during which this node slept. A node that wakes long after its
    /// deadline has heard nothing because it slept (a stopped process, a machine without a free
    /// CPU), and not because the others were silent. This is forgiven once in a row, so that a node
    /// that is always late still acts.
    fn discount_sleep(&mut self, now: Instant) {
        if now.since(self.deadline()) <= self.config.heartbeat_interval {
            self.sleep_was_discounted = false;
            return;
        }
        if std::mem::replace(&mut self.sleep_was_discounted, true) {
            return;
        }
        let asleep = now.since(self.last_turn);
        match &mut self.part {
            Part::Leader(leadership) => leadership.forgive(asleep, now),
            _ => self.election_deadline = self.election_deadline + asleep,
        }
    }

    fn act_on_time(&mut self, now: Instant) {
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

    /// The leader's part of the end of a turn, after its own entries went to its disk: commit, then
    /// send.
    fn lead_on(&mut self, now: Instant) {
        if !matches!(self.part, Part::Leader(_)) {
            return;
        }
        self.advance_commit_index();
        self.lead_reads(now);
        self.lead_transfer(now);
        self.send_news(now);
        self.step_down_if_removed(now);
    }

    /// Builds the persist of this turn, if there is anything to write.
    fn build_persist(&mut self, now: Instant) -> Option<Persist> {
        let compaction = if self.turn.is_compaction_due { self.compaction() } else { None };
        let turn = &mut self.turn;
        turn.is_compaction_due = false;
        let log_changed = turn.cut_from.is_some() || !turn.appended.is_empty() || compaction.is_some();
        let last_index = self.log.last().index;
        let durable_index = self.durability.durable_index();
        let is_durable = self.commit_index <= durable_index || mutant::is_active(Mutant::FloorAboveDurable);
        let floor = if is_durable { self.commit_index } else { durable_index };
        let floor_is_due = self.durability.floor_is_due(floor, now);
        if !turn.hard_state_changed && !log_changed && !floor_is_due {
            return None;
        }
        let bytes = turn.appended.iter().map(Entries::bytes).sum();
        let scope = PersistScope { hard_state: turn.hard_state_changed, log: log_changed, bytes, last_index };
        let id = self.durability.start(&scope, now);
        let hard_state = HardState { current_term: self.current_term, voted_for: self.voted_for };
        let notes_floor = std::mem::take(&mut turn.hard_state_changed) || floor_is_due;
        if notes_floor {
            self.durability.note_floor(floor, now);
        }
        turn.handed_out = last_index;
        let (cut_from, appended) = (turn.cut_from.take(), std::mem::take(&mut turn.appended));
        let log = match compaction {
            Some(compaction) => LogChange::Compact(compaction),
            None => LogChange::Append { cut_from, entries: appended },
        };
        Some(Persist { id, hard_state: notes_floor.then_some(hard_state), log, floor })
    }
}
