//! Changes of the log: every append and every cut goes through here.
//!
//! The state that depends on the log is updated with it: the configuration in force (§6), the
//! leader's followers, the acknowledgements that wait for the disk, and the writes of this turn.

use super::batch::Entries;
use super::event::Event;
use super::state::{Node, Part};
use super::types::LogIndex;
use crate::time::Instant;

impl Node {
    /// Moves the proposals of this turn into the log.
    pub(super) fn seal_proposals(&mut self) {
        if let Some(entries) = self.proposals.finish() {
            if let Part::Leader(leadership) = &mut self.part {
                leadership.appended(entries.last().index, entries.bytes());
            }
            self.append(entries);
        }
    }

    /// Appends entries to the log and to the writes of this turn.
    pub(super) fn append(&mut self, entries: Entries) {
        self.log.append(entries.clone());
        self.take_configurations(&entries);
        self.turn.appended.push(entries);
    }

    /// Removes the entries from `from` on. Committed entries are never removed.
    pub(super) fn cut_log(&mut self, from: LogIndex) {
        assert!(
            from > self.commit_index,
            "an order to remove committed entries: the safety of Raft is broken"
        );
        let to = self.log.last().index;
        self.log.cut(from);
        if self.membership.cut(from) {
            let (index, configuration) = (self.membership.index(), self.configuration().clone());
            self.report(Event::MembershipChanged { index, configuration });
        }
        self.durability.cut(from);
        // A waiting acknowledgement for an earlier leader may cover entries that are cut. It must
        // be dropped, because the disk is not going to hold them.
        self.turn.messages.retain(|(_, message)| !message.acknowledges(from));
        self.durability.forget_acknowledgements(from);
        self.turn.cut(from);
        self.report(Event::LogCut { from, to });
    }

    /// Puts the configurations among the appended entries into force.
    fn take_configurations(&mut self, entries: &Entries) {
        let mut is_new = false;
        for (index, configuration) in entries.configurations() {
            self.report(Event::MembershipChanged { index, configuration: configuration.clone() });
            self.membership.append(index, configuration);
            is_new = true;
        }
        if is_new {
            self.follow_membership(self.last_turn);
        }
    }

    /// Updates the followers of a leader to the configuration in force.
    pub(super) fn follow_membership(&mut self, now: Instant) {
        let configuration = self.configuration().clone();
        let incarnation = |node| configuration.roster().member(node).and_then(|member| member.incarnation);
        let peers: Vec<_> = self.peers().into_iter().map(|node| (node, incarnation(node))).collect();
        let votes = self.votes_itself();
        let voters = configuration.voters();
        let last_index = self.log.last().index;
        if let Part::Leader(leadership) = &mut self.part {
            leadership.awaits_configuration = configuration.is_joint() || !votes;
            leadership.followers.serve(&peers, last_index, self.membership.index(), now);
            let loses_target =
                leadership.transfer.as_ref().is_some_and(|transfer| !voters.contains(transfer.target));
            if loses_target {
                leadership.transfer = None;
            }
        }
    }
}
