//! Raft with a custom state machine: a counter that three nodes of
//! [`raft::Node`](coracle_core::raft::Node) replicate.
//!
//! Raft replicates text that it does not interpret. This example proposes `"add":N`, and applies
//! committed entries in log order. Run it with
//! `cargo run -p coracle-core --example own_state_machine`.

use std::error::Error;
use std::time::Duration;

use coracle_core::Instant;
use coracle_core::raft::{
    Config, EntryKind, LogIndex, Message, Node, NodeId, Output, PersistId, Restored, Role, Voters,
};

/// The state machine: a sum, and its applied index.
#[derive(Default)]
struct Counter {
    sum: u64,
    applied: LogIndex,
}

impl Counter {
    /// Applies the entries that `node` has committed since the last call.
    fn catch_up(&mut self, node: &Node) -> Result<(), Box<dyn Error>> {
        for entry in node.log().between(self.applied.next(), node.commit_index()) {
            // A leader's first entry and configurations are Raft's own.
            if entry.kind() == EntryKind::Command {
                let number = entry.payload.strip_prefix("\"add\":").ok_or("an entry of another program")?;
                self.sum += number.parse::<u64>()?;
            }
            self.applied = entry.point.index;
        }
        Ok(())
    }
}

/// An input in flight to a node: a message of a peer, or a report of the local disk.
enum Arrival {
    Message(Message),
    Persisted(NodeId, PersistId),
}

/// Runs one turn of each node: delivers the inputs that have arrived, and returns the next ones.
fn turn(
    nodes: &mut [(Node, Counter)],
    arrivals: Vec<Arrival>,
    now: Instant,
) -> Result<Vec<Arrival>, Box<dyn Error>> {
    for arrival in arrivals {
        let to = match &arrival {
            Arrival::Message(message) => message.to,
            Arrival::Persisted(node, _) => *node,
        };
        let (node, _) = nodes.iter_mut().find(|(node, _)| node.id() == to).ok_or("an unknown node")?;
        match arrival {
            Arrival::Message(message) => node.receive(message, now),
            Arrival::Persisted(_, persist) => node.persisted(persist, now),
        }
    }
    let mut next = Vec::new();
    for (node, counter) in nodes {
        let mut outputs = Vec::new();
        node.end_turn(now, &mut outputs);
        for output in outputs {
            match output {
                Output::Send(message) => next.push(Arrival::Message(message)),
                Output::Persist(persist) => next.push(Arrival::Persisted(node.id(), persist.id)),
                _ => {}
            }
        }
        counter.catch_up(node)?;
    }
    Ok(next)
}

#[expect(clippy::print_stdout, reason = "an example shows what it does")]
fn main() -> Result<(), Box<dyn Error>> {
    let ids = [NodeId(1), NodeId(2), NodeId(3)];
    let voters = Voters::new(ids).ok_or("a cluster has one to nine voters")?;
    let (mut now, mut arrivals, mut nodes) = (Instant::from_micros(0), Vec::new(), Vec::new());
    for id in ids {
        let node = Node::new(Config::new(id, voters.clone()), Restored::default(), id.0, now)?;
        nodes.push((node, Counter::default()));
    }
    let mut numbers = [20, 2, 20].into_iter();
    while nodes.iter().any(|(_, counter)| counter.sum < 42) {
        if let Some((leader, _)) = nodes.iter_mut().find(|(node, _)| node.role() == Role::Leader)
            && let Some(number) = numbers.next()
        {
            let proposed = leader.propose(|line| *line += &format!("\"add\":{number}"));
            println!("proposed {number}: {proposed:?}");
        }
        arrivals = turn(&mut nodes, arrivals, now)?;
        now = now + Duration::from_millis(1);
    }
    for (node, counter) in &nodes {
        println!("node {}: {} after entry {}", node.id(), counter.sum, counter.applied);
    }
    Ok(())
}

#[test]
fn it_runs() {
    main().unwrap();
}
