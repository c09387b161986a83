//! Forged messages: sends, in the name of a member, messages that no correct member sends. No node
//! may act on them.

use coracle_core::Input;
use coracle_core::host::HostInput;
use coracle_core::raft::{
    AppendEntriesResponse, AppendOutcome, Body, Checksum, Heartbeat, LogIndex, Member, Message, NodeId,
    ReadRound, Role, Term,
};

use super::checks::violation;
use super::world::{MACHINES, World};
use crate::simulator::invariants::Verdict;

impl World {
    /// Sends a node a message with a term that no election could have reached, or a heartbeat that
    /// would commit an entry of another history; or sends a leader an acknowledgement of a removed
    /// incarnation.
    pub(super) fn forge(&mut self) -> Verdict {
        let machine = self.dice.position(MACHINES);
        let Some(leader) = self.leader() else { return Ok(()) };
        let Some((from, incarnation)) = self.machines[leader].holds else { return Ok(()) };
        let Some(running) = self.machines[machine].running().filter(|it| it.inbox.is_empty()) else {
            return Ok(());
        };
        let node = running.host.replica().node();
        let (to, term, last) = (node.id(), node.current_term(), node.log().last());
        let follows = node.role() == Role::Follower && node.leader() == Some(from);
        let is_open = last.index > node.commit_index();
        let message =
            |term: Term, body: Body| Message { from, incarnation: Some(incarnation), to, term, body };
        if self.dice.happens(300) {
            return self.acknowledge_as_another(leader);
        }
        if self.dice.happens(500) {
            self.sight("a message with an absurd term was forged");
            self.hand(machine, HostInput::Core(Input::Message(message(Term::MAX, Body::NewerTerm))));
        } else if follows && is_open {
            self.sight("a heartbeat of another history was forged");
            // Beyond the end of this log there is no checksum to compare.
            let is_beyond = self.dice.happens(500);
            let leader_commit = if is_beyond { LogIndex(last.index.0 + 1) } else { last.index };
            let commit_checksum = Some(Checksum(last.checksum.0 ^ 1));
            let beat = Heartbeat { leader_commit, commit_checksum, round: ReadRound(0), elapsed: None };
            let forged = HostInput::Core(Input::Message(message(term, Body::Heartbeat(beat))));
            return self.hand_alone(machine, forged, to, last.index);
        }
        Ok(())
    }

    /// Sends the leader a late acknowledgement of its whole log, from an incarnation that was a
    /// member before. The member that has the id now may hold none of it.
    fn acknowledge_as_another(&mut self, leader: usize) -> Verdict {
        let Some(running) = self.machines[leader].running() else { return Ok(()) };
        let node = running.host.replica().node();
        let (to, term, match_index) = (node.id(), node.current_term(), node.log().last().index);
        let former = |(from, member): (NodeId, &Member)| {
            let incarnation = self.checks.first.other_incarnation(from, member.incarnation?)?;
            (from != to).then_some((from, incarnation))
        };
        let former: Vec<_> = node.configuration().roster().iter().filter_map(former).collect();
        if former.is_empty() {
            return Ok(());
        }
        let (from, incarnation) = former[self.dice.position(former.len())];
        self.sight("an acknowledgement of another incarnation was forged");
        let outcome = AppendOutcome::Accepted { match_index };
        let body = Body::AppendEntriesResponse(AppendEntriesResponse { sequence: 0, outcome });
        let message = Message { from, incarnation: Some(incarnation), to, term, body };
        self.hand(leader, HostInput::Core(Input::Message(message)));
        Ok(())
    }

    /// Delivers the message in a separate turn: if the node commits anything in that turn, it has
    /// acted on the forgery.
    fn hand_alone(&mut self, machine: usize, forged: HostInput, node: NodeId, last: LogIndex) -> Verdict {
        let now = self.now;
        let process = self.machines[machine].process.as_ref().filter(|process| process.busy_until <= now);
        let Some(boot) = process.map(|process| process.boot) else { return Ok(()) };
        self.hand(machine, forged);
        self.turn_now(machine, boot)?;
        let commit = self.machines[machine].running().map(|it| it.host.replica().node().commit_index());
        if commit.is_some_and(|commit| commit >= last) {
            return violation(
                "forgeries",
                format!("node {node} has committed entry {last} on a forged word"),
            );
        }
        Ok(())
    }
}
