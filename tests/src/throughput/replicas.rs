//! Throughput of Raft with the key-value store on top: puts that all three nodes apply and the
//! leader answers.

use std::time::Duration;

use coracle_core::kv::{Command, Key, Outcome, Value};
use coracle_core::raft::{Config, NodeId, Restored, Role, Voters};
use coracle_core::{Answer, Input, Instant, Output, Replica, Request, RequestId};

use super::{PAYLOAD_BYTES, Trio};

/// The number of keys. Arbitrary, but enough for a realistic map.
const KEYS: u64 = 10_000;

/// A trio of [`Replica`]s.
#[derive(Debug)]
pub struct Replicas {
    seats: [Seat; 3],
    leader: usize,
    now: Instant,
    value: Value,
    asked: u64,
    answered: u64,
    outputs: Vec<Output>,
}

/// A replica with its next inputs.
#[derive(Debug)]
struct Seat {
    replica: Replica,
    inputs: Vec<Input>,
    /// The entries of Raft itself: the leader's first one.
    own_entries: u64,
}

impl Replicas {
    fn turn(&mut self, place: usize) {
        self.now = self.now + Duration::from_micros(1);
        let seat = &mut self.seats[place];
        seat.replica.step(self.now, &mut seat.inputs, &mut self.outputs);
        for output in self.outputs.drain(..) {
            match output {
                Output::Persist(persist) => self.seats[place].inputs.push(Input::Persisted(persist.id)),
                Output::Send(message) => {
                    let to = usize::try_from(message.to.0).expect("there are three nodes");
                    self.seats[to].inputs.push(Input::Message(message));
                }
                Output::WriteSnapshot(part) => {
                    let bytes = part.offset + part.text.len() as u64;
                    let written = Input::SnapshotWritten { last: part.meta.last, bytes };
                    self.seats[place].inputs.push(written);
                }
                Output::Answer(_, answer) => {
                    assert!(
                        matches!(answer, Answer::Applied { outcome: Outcome::Done, .. }),
                        "a put fails: {answer:?}"
                    );
                    self.answered += 1;
                }
                Output::LeaderChanged { .. } | Output::Event(_) | Output::Removed(_) => {}
                Output::ReadSnapshot { .. } => panic!("a follower is too far behind"),
            }
        }
    }

    fn go_on(&mut self) {
        loop {
            let mut is_quiet = true;
            for place in 0..3 {
                let seat = &self.seats[place];
                // A replica that has more to apply reports a deadline in the past.
                if !seat.inputs.is_empty() || seat.replica.deadline() == Instant::default() {
                    is_quiet = false;
                    self.turn(place);
                }
            }
            if is_quiet {
                return;
            }
        }
    }
}

impl Trio for Replicas {
    const NAME: &'static str = "replica";

    fn elected() -> Self {
        let now = Instant::from_micros(0);
        let ids = [NodeId(0), NodeId(1), NodeId(2)];
        let seats = ids.map(|id| {
            let config = Config::new(id, Voters::new(ids).expect("three voters"));
            let replica = Replica::new(config, Restored::default(), id.0 + 1, now);
            let replica = replica.expect("the default settings fit");
            Seat { replica, inputs: Vec::new(), own_entries: 0 }
        });
        let value = Value::from_text(&"v".repeat(PAYLOAD_BYTES)).expect("within the limits");
        let mut replicas = Self { seats, leader: 0, now, value, asked: 0, answered: 0, outputs: Vec::new() };
        loop {
            replicas.settle();
            let is_leader = |seat: &Seat| seat.replica.status().role == Role::Leader;
            if let Some(leader) = replicas.seats.iter().position(is_leader) {
                replicas.leader = leader;
                replicas.settle();
                for seat in &mut replicas.seats {
                    seat.own_entries = seat.replica.status().last_applied.0;
                }
                return replicas;
            }
        }
    }

    fn commit(&mut self, entries: u64) {
        for _ in 0..entries {
            self.asked += 1;
            let key = Key::new(&format!("key:{:012}", self.asked % KEYS)).expect("a short key");
            let command = Command::Put { key, value: self.value.clone() };
            let request = Input::Request(RequestId(self.asked), Request::write(command));
            self.seats[self.leader].inputs.push(request);
        }
        self.go_on();
    }

    fn settle(&mut self) {
        for _ in 0..10 {
            self.now = self.now + Duration::from_millis(20);
            (0..3).for_each(|place| self.turn(place));
            self.go_on();
        }
        assert_eq!(self.answered, self.asked, "a put was not answered");
    }

    fn committed(&self) -> [u64; 3] {
        [0, 1, 2].map(|place: usize| {
            let seat = &self.seats[place];
            seat.replica.status().last_applied.0 - seat.own_entries
        })
    }
}
