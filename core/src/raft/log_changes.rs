//! Changes of the log: every entry that is appended or cut passes through here.
//!
//! What depends on the log changes with it: the configuration in force (§6), the leader's
//! followers, the acknowledgements that wait for the disk, and what the turn is going to write.

use super::batch::Entries;
use super::event::Event;
use super::state::{Node, Part};
use super::types::LogIndex;
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
        // An acknowledgement of what is cut, made for an earlier leader and still waiting, would
        // name entries that the disk is not going to hold.
        self.turn.messages.retain(|(_, message)| !message.acknowledges(from));
        self.durability.forget_acknowledgements(from);
        self.turn.cut(from);
        self.tell(Event::LogCut { from, to });
    }

    /// Entries with configurations were appended.
    fn take_configurations(&mut self, entries: &Entries) {
        let mut is_new = false;
        for (index, configuration) in entries.configurations() {
            self.tell(Event::MembershipChanged { index, configuration: configuration.clone() });
            self.membership.append(index, configuration);
            is_new = true;
        }
        if is_new {
            self.follow_membership(self.last_turn);
        }
    }

    /// The leader sends to whoever takes part now.
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
