//! A soak: hours of mixed load on real processes, during which nothing they hold may grow.
//!
//! Three nodes run from the beginning to the end. Clients write, read back, scan, reconnect and
//! leave in the middle of a line; every few seconds a fourth node joins, is promoted, leads, and is
//! removed again. Meanwhile the memory, the descriptors, the threads and the folder of each of the
//! three are sampled. The keys are a fixed set, so after a while all of it must be flat.
//!
//! | file | topic |
//! | --- | --- |
//! | `clients` | clients that know what they have written |
//! | `samples` | what a process holds, and whether that grows |

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::live::{Nodes, Runtime, until};

mod clients;
mod samples;

use clients::{Client, Count};
use samples::{Sample, growth};

/// Clients that write.
const CLIENTS: usize = 6;
/// The time between two changes of the members.
const CHANGE_EVERY: Duration = Duration::from_secs(15);
/// A snapshot is taken this often, in bytes of log: every few seconds.
const FLAGS: &str = "--snapshot-bytes 4MiB";
/// How many of a node's last lines are told with an order that was not obeyed.
const LINES_TOLD: usize = 8;

/// How long to load which nodes.
#[derive(Clone, Copy, Debug)]
pub struct Soak {
    /// For how long.
    pub time: Duration,
    /// What the three nodes run on.
    pub runtimes: [Runtime; 3],
}

/// What was seen.
#[derive(Debug, Default)]
pub struct Outcome {
    samples: Vec<Sample>,
    count: Count,
    changes: u64,
    /// What must not have happened: an answer that is wrong, or something that grew.
    pub violations: Vec<String>,
}

impl Outcome {
    /// The figures, as one JSON object.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "writes": self.count.writes,
            "reads": self.count.reads,
            "refused": self.count.refused,
            "unknown": self.count.unknown,
            "connections": self.count.connections,
            "member_changes": self.changes,
            "held": samples::quarters(&self.samples),
            "violations": self.violations,
        })
    }
}

impl Soak {
    /// Starts the nodes, loads them, and looks at what they hold, which `told` is given as JSON
    /// lines.
    ///
    /// # Panics
    ///
    /// When a node does not come up, or the members cannot be changed.
    #[must_use]
    pub fn run(&self, mut told: impl FnMut(Value)) -> Outcome {
        let mut nodes = Nodes::new(&self.runtimes);
        _ = nodes.found(FLAGS);
        let (is_over, addresses) = (Arc::new(AtomicBool::new(false)), nodes.addresses());
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let (is_over, client) = (Arc::clone(&is_over), Client::new(number, addresses.clone()));
                thread::spawn(move || client.run(&is_over))
            })
            .collect();
        let mut outcome = Outcome::default();
        let (began, interval) = (Instant::now(), (self.time / 200).max(Duration::from_secs(1)));
        let (mut sampled, mut changed) = (Duration::ZERO, Duration::ZERO);
        while began.elapsed() < self.time {
            let now = began.elapsed();
            if now >= sampled + interval {
                sampled = now;
                for node in 1..=self.runtimes.len() {
                    let sample = Sample::of(node, now, nodes.server(node).pid(), &nodes.folder(node));
                    told(sample.to_json());
                    outcome.samples.push(sample);
                }
            }
            if now >= changed + CHANGE_EVERY {
                changed = now;
                self.change_members(&mut nodes, &mut told);
                outcome.changes += 1;
            }
            thread::sleep(Duration::from_millis(200));
        }
        is_over.store(true, Ordering::Relaxed);
        for client in clients {
            let (count, violations) = client.join().expect("a client does not panic");
            outcome.count.add(&count);
            outcome.violations.extend(violations);
        }
        outcome.violations.extend(growth(&outcome.samples));
        outcome
    }

    /// A fourth node comes, leads, and goes. An order that is refused, or has no outcome in time,
    /// is told, and given again.
    fn change_members(&self, nodes: &mut Nodes, told: &mut impl FnMut(Value)) {
        let runtime = self.runtimes[nodes.running().len() % self.runtimes.len()];
        order(nodes, "member_add", told, Nodes::add_next);
        let id = nodes.start_added(runtime);
        for (op, node) in [
            ("member_promote", id),
            ("transfer", id),
            ("transfer", id % self.runtimes.len() + 1),
            ("member_remove", id),
        ] {
            let line = format!(r#"{{"op":"{op}","node":{node}}}"#);
            order(nodes, op, told, |nodes| nodes.connect(1).ask(&line));
        }
        let folder = nodes.folder(id);
        nodes.wait(id);
        std::fs::remove_dir_all(folder).expect("its files are there");
    }
}

/// Gives an order until it is obeyed.
fn order(nodes: &Nodes, op: &str, told: &mut impl FnMut(Value), give: impl Fn(&Nodes) -> Value) {
    until(op, || {
        let reply = give(nodes);
        // One without an outcome may have been obeyed.
        let is_gone =
            op == "member_remove" && reply["message"].as_str().is_some_and(|it| it.contains("is no member"));
        let is_done = reply["status"] == "ok" || is_gone;
        if !is_done {
            let last_lines = |id: usize| {
                let said = nodes.server(id).stderr();
                said.lines().rev().take(LINES_TOLD).map(str::to_owned).collect::<Vec<_>>()
            };
            let said: Vec<_> = nodes.running().into_iter().map(last_lines).collect();
            told(json!({ "order": op, "reply": reply, "nodes_said": said }));
        }
        is_done
    });
}
