//! Soak test: hours of mixed load on real processes, whose memory, threads, descriptors and files
//! must not grow.
//!
//! Three nodes run from beginning to end. Clients write, read back, scan, reconnect and disconnect
//! in the middle of a line. Every few seconds a fourth node joins, is promoted, leads, and is
//! removed again. Meanwhile the memory, the descriptors, the threads and the folder of each of the
//! three are sampled. The set of keys is fixed, so after a while all of these must be flat.
//!
//! | file | topic |
//! | --- | --- |
//! | `clients` | clients that check their reads against their writes |
//! | `samples` | resource usage of the processes, and detection of growth |

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

/// The number of clients.
const CLIENTS: usize = 6;
/// The time between two membership changes.
const CHANGE_EVERY: Duration = Duration::from_secs(15);
/// Flags that trigger a snapshot every few seconds, by the bytes of log.
const FLAGS: &str = "--snapshot-bytes 4MiB";
/// The number of a node's last lines that are reported with a failed order.
const LINES_TOLD: usize = 8;

/// The settings of a soak test.
#[derive(Clone, Copy, Debug)]
pub struct Soak {
    /// The duration.
    pub time: Duration,
    /// The runtimes of the three nodes.
    pub runtimes: [Runtime; 3],
}

/// The result of a soak test.
#[derive(Debug, Default)]
pub struct Outcome {
    samples: Vec<Sample>,
    count: Count,
    changes: u64,
    /// The violations: a wrong answer, or a resource that grew.
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
    /// Starts the nodes, loads them, and samples their resources. Calls `told` with JSON lines.
    ///
    /// # Panics
    ///
    /// When a node does not start, or the members cannot be changed.
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

    /// Adds a fourth node, lets it lead, and removes it. An order that is rejected, or has no
    /// outcome in time, is reported and retried.
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

/// Repeats an order until it succeeds.
fn order(nodes: &Nodes, op: &str, told: &mut impl FnMut(Value), give: impl Fn(&Nodes) -> Value) {
    until(op, || {
        let reply = give(nodes);
        // An order without a known outcome may have been executed.
        let is_gone = op == "member_remove"
            && reply["message"].as_str().is_some_and(|it| it.contains("is not a member"));
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
