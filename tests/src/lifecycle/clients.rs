//! Clients of the life-cycle simulator, which send requests directly to nodes. Each writes ever
//! higher numbers to one key and reads any key.

use std::collections::BTreeMap;

use coracle_core::host::HostInput;
use coracle_core::kv::{Command, Key, Query, Value};
use coracle_core::raft::{LogIndex, NodeId};
use coracle_core::{Answer, Incarnation, Input, Request, RequestId};

use super::orders::Order;
use super::world::{MACHINES, SimEvent, World};
use crate::simulator::invariants::Verdict;

/// The number of clients.
pub(super) const CLIENTS: usize = 3;

/// A request, with the facts that are needed to check its answer.
#[derive(Clone, Debug)]
pub(super) enum Asked {
    Write {
        key: String,
        number: u64,
    },
    Read {
        key: String,
    },
    /// `floor` is the highest index that any client had seen when this read was sent.
    LinearizableRead {
        key: String,
        floor: LogIndex,
    },
    Order(Order),
    Backup,
}

/// The requests in flight, and the results so far.
#[derive(Debug, Default)]
pub(super) struct Clients {
    last_request: u64,
    asked: BTreeMap<RequestId, Asked>,
    numbers: BTreeMap<usize, u64>,
    /// The highest index that was acknowledged or read linearizably.
    pub(super) acknowledged: LogIndex,
    pub(super) acknowledgements: u64,
    pub(super) reads: u64,
    pub(super) are_quiet: bool,
}

impl Clients {
    /// Assigns the next request id, and waits for its answer.
    pub(super) fn expect(&mut self, asked: Asked) -> RequestId {
        let id = self.next_id();
        self.asked.insert(id, asked);
        id
    }

    /// Returns an unused request id.
    pub(super) fn next_id(&mut self) -> RequestId {
        self.last_request += 1;
        RequestId(self.last_request)
    }

    /// Forgets a request that was not sent.
    pub(super) fn forget(&mut self, id: RequestId) {
        self.asked.remove(&id);
    }

    /// Returns whether a request has no answer yet.
    pub(super) fn waits_for(&self, id: RequestId) -> bool {
        self.asked.contains_key(&id)
    }
}

pub(super) fn key_of(client: usize) -> String {
    format!("k{client}")
}

impl World {
    /// Sends a request of a client to some node, and schedules its next one.
    pub(super) fn client_acts(&mut self, client: usize) -> Verdict {
        let pause = 1000 + self.dice.exponential(self.think);
        self.schedule(pause, SimEvent::Client(client));
        if self.clients.are_quiet {
            return Ok(());
        }
        let of_any = self.dice.position(self.client_count);
        match self.dice.below(4) {
            0 => {
                let machine = self.place_to_read();
                let key = key_of(of_any);
                let query = query(&key);
                self.ask(machine, Request::Read { query, at_least: LogIndex::ORIGIN }, Asked::Read { key })
            }
            1 => {
                let machine = self.dice.position(MACHINES);
                let (key, floor) = (key_of(of_any), self.clients.acknowledged);
                let request = Request::LinearizableRead(query(&key));
                self.ask(machine, request, Asked::LinearizableRead { key, floor })
            }
            _ => self.write(client),
        }
    }

    /// Returns any machine, preferring the one that is kept off.
    fn place_to_read(&mut self) -> usize {
        match self.operator.kept_off.filter(|_| self.dice.happens(300)) {
            Some(machine) => machine,
            None => self.dice.position(MACHINES),
        }
    }

    fn write(&mut self, client: usize) -> Verdict {
        let any = self.dice.position(MACHINES);
        let machine = if self.dice.happens(700) { self.leader().unwrap_or(any) } else { any };
        let (request, asked) = self.next_write(client);
        self.ask_through(machine, request, asked)
    }

    /// The next write for the key of a client.
    pub(super) fn next_write(&mut self, client: usize) -> (Request, Asked) {
        let number = self.clients.numbers.entry(client).or_default();
        *number += 1;
        let (key, number) = (key_of(client), *number);
        let value = Value::from_json(&number.to_string()).expect("a number is JSON");
        let command = Command::Put { key: Key::new(&key).expect("a short key"), value };
        (Request::write(command), Asked::Write { key, number })
    }

    /// Puts a request into a node's inbox. Does nothing if no node runs on the machine.
    pub(super) fn ask(&mut self, machine: usize, request: Request, asked: Asked) -> Verdict {
        if self.machines[machine].running().is_some() {
            let id = self.clients.expect(asked);
            self.hand(machine, HostInput::Core(Input::Request(id, request)));
        }
        Ok(())
    }

    /// Checks an answer of a node.
    pub(super) fn answered(
        &mut self,
        machine: usize,
        node: (NodeId, Incarnation),
        id: RequestId,
        answer: &Answer,
    ) -> Verdict {
        if machine >= MACHINES {
            return self.restored_answered(node, id, answer);
        }
        let Some(asked) = self.clients.asked.remove(&id) else { return Ok(()) };
        match (asked, answer) {
            (Asked::Write { key, number }, Answer::Applied { index, .. }) => {
                self.checks.first.acknowledged(&key, number, *index)?;
                self.clients.acknowledged = self.clients.acknowledged.max(*index);
                self.clients.acknowledgements += 1;
            }
            (Asked::Read { key }, Answer::Read { index, found }) => {
                self.checks.first.was_read(&key, *index, found, node)?;
                self.clients.reads += 1;
                if self.checks.first.was_removed(node.0, node.1) {
                    self.sight("a removed node that does not know it answered a read");
                }
            }
            (Asked::LinearizableRead { key, floor }, Answer::Read { index, found }) => {
                self.checks.first.was_read_linearizably(&key, *index, floor)?;
                self.checks.first.was_read(&key, *index, found, node)?;
                self.clients.acknowledged = self.clients.acknowledged.max(*index);
                self.sight("a linearizable read was answered");
            }
            (Asked::Order(order), answer) => self.order_answered(&order, answer)?,
            (Asked::Backup, answer) => self.backup_answered(answer)?,
            _ => {}
        }
        Ok(())
    }
}

fn query(key: &str) -> Query {
    Query::Value(Key::new(key).expect("a short key"))
}
