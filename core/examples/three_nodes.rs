//! Three replicas in one loop: they elect a leader, and a key that is put is applied on all three.
//! The example uses no socket, no file and no clock.
//!
//! Run it with `cargo run -p coracle-core --example three_nodes`.

use std::collections::VecDeque;
use std::error::Error;
use std::time::Duration;

use coracle_core::kv::{Command, Key, Value};
use coracle_core::raft::{Config, NodeId, Restored, Role, Voters};
use coracle_core::{Input, Instant, Output, Replica, Request, RequestId};

/// Three replicas, the inputs that wait for each, and the time, which is a number here.
struct Cluster {
    replicas: Vec<Replica>,
    inboxes: Vec<VecDeque<Input>>,
    now: Instant,
}

impl Cluster {
    fn new() -> Result<Self, Box<dyn Error>> {
        let ids = [NodeId(0), NodeId(1), NodeId(2)];
        let voters = Voters::new(ids).ok_or("a cluster has one to nine voters")?;
        let now = Instant::from_micros(0);
        // Each node has a different seed, so that their election timeouts differ.
        let start =
            |id: NodeId| Replica::new(Config::new(id, voters.clone()), Restored::default(), id.0, now);
        let replicas = ids.into_iter().map(start).collect::<Result<_, _>>()?;
        Ok(Self { replicas, inboxes: vec![VecDeque::new(); ids.len()], now })
    }

    /// Runs one turn of each replica, then advances the time by a millisecond.
    #[expect(clippy::print_stdout, reason = "an example shows what it does")]
    fn turn(&mut self) -> Result<(), Box<dyn Error>> {
        for (node, replica) in self.replicas.iter_mut().enumerate() {
            let (mut inputs, mut outputs) = (Vec::from(std::mem::take(&mut self.inboxes[node])), Vec::new());
            replica.step(self.now, &mut inputs, &mut outputs);
            for output in outputs {
                match output {
                    // The network delivers at once. A real one may also lose, delay, repeat and
                    // reorder messages.
                    Output::Send(message) => {
                        let to = usize::try_from(message.to.0)?;
                        self.inboxes[to].push_back(Input::Message(message));
                    }
                    // The disk is done at once. A real program writes, syncs, and reports later.
                    Output::Persist(persist) => self.inboxes[node].push_back(Input::Persisted(persist.id)),
                    Output::Answer(request, answer) => println!("answer to {request:?}: {answer:?}"),
                    Output::Event(event) => println!("node {node}: {event}"),
                    _ => {}
                }
            }
        }
        self.now = self.now + Duration::from_millis(1);
        Ok(())
    }

    fn leader(&self) -> Option<usize> {
        self.replicas.iter().position(|replica| replica.node().role() == Role::Leader)
    }

    fn everyone_has(&self, key: &str, value: &Value) -> bool {
        self.replicas.iter().all(|replica| replica.store().value(key) == Some(value))
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut cluster = Cluster::new()?;
    let leader = loop {
        cluster.turn()?;
        if let Some(leader) = cluster.leader() {
            break leader;
        }
    };
    let value = Value::from_text("chips")?;
    let put = Command::Put { key: Key::new("snack")?, value: value.clone() };
    cluster.inboxes[leader].push_back(Input::Request(RequestId(1), Request::write(put)));
    while !cluster.everyone_has("snack", &value) {
        cluster.turn()?;
    }
    Ok(())
}

#[test]
fn it_runs() {
    main().unwrap();
}
