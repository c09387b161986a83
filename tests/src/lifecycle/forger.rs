//! A forger: sends what no honest member sends, in the name of one. Nothing of it may be believed.

use coracle_core::Input;
use coracle_core::host::HostInput;
use coracle_core::raft::{Body, Checksum, Heartbeat, LogIndex, Message, NodeId, ReadRound, Role, Term};

use super::checks::violation;
use super::world::{MACHINES, World};
use crate::simulator::invariants::Verdict;

impl World {
    /// Some node gets a message with a term that no election could have reached, or a heartbeat that would commit an entry of
    /// another history.
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
        if self.dice.happens(500) {
            self.sight("a message with an absurd term was forged");
            self.hand(machine, HostInput::Core(Input::Message(message(Term::MAX, Body::NewerTerm))));
        } else if follows && is_open {
            self.sight("a heartbeat of another history was forged");
            let commit_checksum = Some(Checksum(last.checksum.0 ^ 1));
            let round = ReadRound(0);
            let beat = Heartbeat { leader_commit: last.index, commit_checksum, round };
            let forged = HostInput::Core(Input::Message(message(term, Body::Heartbeat(beat))));
            return self.hand_alone(machine, forged, to, last.index);
        }
        Ok(())
    }

    /// The node takes the message in a turn of its own: whatever it commits then, it has believed.
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
