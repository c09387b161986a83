//! Latency benchmark of a replica's turns, with and without a snapshot of many keys in progress.
//!
//! There is one replica and no disk: every write counts as done at once, so only the turns are
//! measured. Prints one JSON object.
//!
//! `turns [--keys N] [--value-bytes N] [--batch N]`

use std::time::{Duration, Instant as Clock};

use coracle_core::kv::{Command, Key, Value};
use coracle_core::raft::{Config, NodeId, Restored, Voters};
use coracle_core::{Input, Instant, Output, Replica, ReplicaLimits, Request, RequestId};

struct Flags {
    keys: u64,
    value_bytes: usize,
    batch: u64,
}

/// A replica with its pending inputs and the counts of a measurement.
struct Run {
    replica: Replica,
    now: Instant,
    inputs: Vec<Input>,
    asked: u64,
    parts: u64,
}

fn flags() -> Result<Flags, String> {
    let mut flags = Flags { keys: 1_000_000, value_bytes: 100, batch: 64 };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
        let number = value.parse::<u64>().map_err(|error| format!("{word} {value}: {error}"))?;
        match word.as_str() {
            "--keys" => flags.keys = number,
            "--value-bytes" => {
                flags.value_bytes = usize::try_from(number).map_err(|error| error.to_string())?;
            }
            "--batch" => flags.batch = number,
            _ => return Err("usage: turns [--keys N] [--value-bytes N] [--batch N]".into()),
        }
    }
    Ok(flags)
}

impl Run {
    fn new(log_bytes: u64) -> Self {
        let voters = Voters::new([NodeId(0)]).expect("one voter");
        let config = Config::new(NodeId(0), voters);
        let mut limits = ReplicaLimits::default();
        (limits.snapshots.log_bytes, limits.snapshots.log_entries) = (log_bytes, u64::MAX);
        let now = Instant::from_micros(0);
        let replica = Replica::with_limits(config, Restored::default(), 1, now, limits);
        let replica = replica.expect("the default settings fit");
        let mut run = Self { replica, now, inputs: Vec::new(), asked: 0, parts: 0 };
        while run.replica.status().leader.is_none() {
            run.turn();
        }
        run
    }

    /// Runs one turn. Returns how long it took.
    fn turn(&mut self) -> Duration {
        let mut outputs = Vec::new();
        self.now = self.now.max(self.replica.deadline().min(self.now + Duration::from_secs(1)));
        self.now = self.now + Duration::from_micros(1);
        let start = Clock::now();
        self.replica.step(self.now, &mut self.inputs, &mut outputs);
        let took = start.elapsed();
        for output in outputs {
            match output {
                Output::Persist(persist) => self.inputs.push(Input::Persisted(persist.id)),
                Output::WriteSnapshot(part) => {
                    self.parts += 1;
                    let bytes = part.offset + part.text.len() as u64;
                    self.inputs.push(Input::SnapshotWritten { last: part.meta.last, bytes });
                }
                _ => {}
            }
        }
        took
    }

    fn put(&mut self, number: u64, value: &Value) {
        self.asked += 1;
        let key = Key::new(&format!("key-{number:012}")).expect("a short key");
        let command = Command::Put { key, value: value.clone() };
        self.inputs.push(Input::Request(RequestId(self.asked), Request::write(command)));
    }
}

/// Fills the store, then overwrites random keys, and measures the turns of that second part.
fn measure(flags: &Flags, log_bytes: u64) -> serde_json::Value {
    let value = Value::from_text(&"v".repeat(flags.value_bytes)).expect("within the limits");
    let mut run = Run::new(log_bytes);
    for first in (0..flags.keys).step_by(1000) {
        (first..flags.keys.min(first + 1000)).for_each(|number| run.put(number, &value));
        run.turn();
        run.turn();
    }
    let mut rng = fastrand::Rng::with_seed(1);
    let parts_before = run.parts;
    let mut turns: Vec<Duration> = (0..20_000)
        .map(|_| {
            (0..flags.batch).for_each(|_| run.put(rng.u64(0..flags.keys), &value));
            run.turn()
        })
        .collect();
    turns.sort_unstable();
    let micros = |per_mille: usize| turns[(turns.len() - 1) * per_mille / 1000].as_secs_f64() * 1e6;
    serde_json::json!({
        "turns": turns.len(),
        "snapshot_parts": run.parts - parts_before,
        "p50_us": micros(500),
        "p99_us": micros(990),
        "p999_us": micros(999),
        "max_us": micros(1000),
    })
}

#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command's result goes to stdout, and what is wrong with its flags to stderr"
)]
fn main() {
    match flags() {
        Ok(flags) => {
            let without = measure(&flags, u64::MAX);
            let with = measure(&flags, 1 << 20);
            let result = serde_json::json!({ "keys": flags.keys, "without": without, "with": with });
            println!("{result}");
        }
        Err(message) => {
            eprintln!("{message}");
            std::process::exit(2);
        }
    }
}
