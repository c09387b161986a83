//! Invariants of the exploration, with the history that they need.

use std::collections::BTreeMap;

use coracle_core::raft::{
    AppendOutcome, Body, Entries, Event, HardState, LogIndex, LogPoint, Message, Node, NodeId, Output, Role,
    Term,
};

/// The history that the invariants need. It is part of a situation: situations with different
/// histories can lead to different violations.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    leaders: BTreeMap<Term, NodeId>,
    committed: Vec<LogPoint>,
    commits: BTreeMap<NodeId, LogIndex>,
    votes: BTreeMap<(NodeId, Term), NodeId>,
}

impl Rules {
    pub(super) fn restarted(&mut self, id: NodeId) {
        self.commits.remove(&id);
    }

    /// Checks that votes and acknowledgements are durable when they are sent (Figure 2).
    pub(super) fn check_message(
        &mut self,
        message: &Message,
        disk: HardState,
        log: &[Entries],
    ) -> Result<(), String> {
        let candidate = match &message.body {
            Body::RequestVote(_) => message.from,
            Body::RequestVoteResponse(response) if response.granted => message.to,
            Body::AppendEntriesResponse(response) => {
                let AppendOutcome::Accepted { match_index } = response.outcome else { return Ok(()) };
                let durable = log.last().map_or(LogIndex::ORIGIN, |run| run.last().index);
                return if match_index <= durable {
                    Ok(())
                } else {
                    Err(format!("{message:?} acknowledges more than {durable}, which is durable"))
                };
            }
            _ => return Ok(()),
        };
        let is_durable = disk.current_term > message.term
            || (disk.current_term == message.term && disk.voted_for == Some(candidate));
        let first = *self.votes.entry((message.from, message.term)).or_insert(candidate);
        if is_durable && first == candidate {
            return Ok(());
        }
        Err(format!("{message:?} leaves with {disk:?} on disk, after a vote for {first}"))
    }

    /// Checks the properties of Figure 3. Returns whether the node was just elected.
    pub(super) fn check_node(
        &mut self,
        node: &Node,
        outputs: &[Output],
        disks: &[Vec<Entries>],
    ) -> Result<bool, String> {
        if node.role() == Role::Leader {
            let first = *self.leaders.entry(node.current_term()).or_insert(node.id());
            if first != node.id() {
                return Err(format!("{first} and {} lead in term {}", node.id(), node.current_term()));
            }
        }
        let is_elected =
            outputs.iter().any(|output| matches!(output, Output::Event(Event::BecameLeader { .. })));
        if is_elected {
            self.check_completeness(node)?;
        }
        self.check_commits(node, disks)?;
        Ok(is_elected)
    }

    fn check_completeness(&self, node: &Node) -> Result<(), String> {
        let Some(last) = self.committed.last() else { return Ok(()) };
        let has_it = node.log().point_at(last.index) == Some(*last);
        if has_it || node.current_term() <= last.term {
            return Ok(());
        }
        Err(format!("leader {} lacks the committed {last:?}", node.id()))
    }

    fn check_commits(&mut self, node: &Node, disks: &[Vec<Entries>]) -> Result<(), String> {
        let commit_index = node.commit_index();
        let before = self.commits.insert(node.id(), commit_index);
        if before.is_some_and(|before| before > commit_index) {
            return Err(format!("node {}'s commit index fell to {commit_index}", node.id()));
        }
        for index in 1..=commit_index.0 {
            let Some(point) = node.log().point_at(LogIndex(index)) else {
                return Err(format!("node {} committed {index}, which it lacks", node.id()));
            };
            let position = usize::try_from(index).expect("a short log") - 1;
            match self.committed.get(position) {
                Some(known) if *known == point => {}
                Some(known) => {
                    return Err(format!("node {} committed {point:?}, another {known:?}", node.id()));
                }
                None => {
                    let holders = disks.iter().filter(|log| holds(log, point)).count();
                    if index == commit_index.0 && holders < node.voters().majority() {
                        return Err(format!("{point:?} is committed with {holders} copies on disk"));
                    }
                    self.committed.push(point);
                }
            }
        }
        Ok(())
    }
}

fn holds(log: &[Entries], point: LogPoint) -> bool {
    log.iter().any(|run| run.point_at(point.index) == Some(point))
}
