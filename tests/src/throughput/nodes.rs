//! Throughput of Raft alone, with opaque payloads.

use std::time::Duration;

use coracle_core::Instant;
use coracle_core::raft::{
    Config, EntryKind, LogIndex, Message, Node, NodeId, Output, PersistId, Restored, Role, Voters,
};

use super::{PAYLOAD_BYTES, Trio};

/// The number of entries after which the log is compacted, as in a program with snapshots.
const COMPACT_EVERY: u64 = 100_000;

/// A trio of bare [`Node`]s.
#[derive(Debug)]
pub struct Nodes {
    seats: [Seat; 3],
    leader: usize,
    now: Instant,
    payload: String,
    outputs: Vec<Output>,
}

/// A node, its next inputs, and its progress.
#[derive(Debug)]
struct Seat {
    node: Node,
    messages: Vec<Message>,
    persisted: Option<PersistId>,
    handed_out: LogIndex,
    compacted: LogIndex,
    committed: u64,
}

impl Seat {
    fn has_something(&self) -> bool {
        !self.messages.is_empty() || self.persisted.is_some()
    }

    /// Visits every entry that was committed since the last call, as a state machine would.
    fn hand_out(&mut self) {
        let commit_index = self.node.commit_index();
        if self.handed_out >= commit_index {
            return;
        }
        let committed = self.node.log().between(self.handed_out.next(), commit_index);
        let commands = committed.filter(|entry| entry.kind() == EntryKind::Command);
        self.committed += commands.filter(|entry| entry.payload.len() >= PAYLOAD_BYTES).count() as u64;
        self.handed_out = commit_index;
        if commit_index.0 - self.compacted.0 >= COMPACT_EVERY {
            let last = self.node.log().point_at(commit_index).expect("what is committed is in the log");
            let meta = self.node.snapshot_meta(last);
            self.node.compact(meta);
            self.compacted = commit_index;
        }
    }
}

impl Nodes {
    /// The bytes of log lines in the longest log.
    #[must_use]
    pub fn log_bytes(&self) -> usize {
        let bytes = |seat: &Seat| {
            let log = seat.node.log();
            log.between(log.first_index(), log.last().index).map(|entry| entry.bytes).sum()
        };
        self.seats.iter().map(bytes).max().unwrap_or(0)
    }

    fn turn(&mut self, place: usize) {
        self.now = self.now + Duration::from_micros(1);
        let seat = &mut self.seats[place];
        for message in seat.messages.drain(..) {
            seat.node.receive(message, self.now);
        }
        if let Some(id) = seat.persisted.take() {
            seat.node.persisted(id, self.now);
        }
        seat.node.end_turn(self.now, &mut self.outputs);
        seat.hand_out();
        for output in self.outputs.drain(..) {
            match output {
                Output::Persist(persist) => self.seats[place].persisted = Some(persist.id),
                Output::Send(message) => {
                    let to = usize::try_from(message.to.0).expect("there are three nodes");
                    self.seats[to].messages.push(message);
                }
                Output::Event(_) => {}
                other => panic!("nobody asked for {other:?}"),
            }
        }
    }

    fn go_on(&mut self) {
        while let Some(place) = (0..3).find(|place| self.seats[*place].has_something()) {
            (place..3).chain(0..place).for_each(|place| {
                if self.seats[place].has_something() {
                    self.turn(place);
                }
            });
        }
    }
}

impl Trio for Nodes {
    const NAME: &'static str = "node";

    fn elected() -> Self {
        let now = Instant::from_micros(0);
        let ids = [NodeId(0), NodeId(1), NodeId(2)];
        let seats = ids.map(|id| {
            let config = Config::new(id, Voters::new(ids).expect("three voters"));
            let node = Node::new(config, Restored::default(), id.0 + 1, now);
            Seat {
                node: node.expect("the default settings fit"),
                messages: Vec::new(),
                persisted: None,
                handed_out: LogIndex::ORIGIN,
                compacted: LogIndex::ORIGIN,
                committed: 0,
            }
        });
        let payload = format!("\"data\":\"{}\"", "v".repeat(PAYLOAD_BYTES));
        let mut nodes = Self { seats, leader: 0, now, payload, outputs: Vec::new() };
        loop {
            nodes.settle();
            if let Some(leader) = nodes.seats.iter().position(|seat| seat.node.role() == Role::Leader) {
                nodes.leader = leader;
                return nodes;
            }
        }
    }

    fn commit(&mut self, entries: u64) {
        let leader = &mut self.seats[self.leader].node;
        for _ in 0..entries {
            let proposed = leader.propose(|line| line.push_str(&self.payload));
            proposed.expect("the leader leads, and little is uncommitted");
        }
        self.turn(self.leader);
        self.go_on();
    }

    fn settle(&mut self) {
        for _ in 0..10 {
            self.now = self.now + Duration::from_millis(20);
            (0..3).for_each(|place| self.turn(place));
            self.go_on();
        }
    }

    fn committed(&self) -> [u64; 3] {
        [0, 1, 2].map(|place: usize| self.seats[place].committed)
    }
}
