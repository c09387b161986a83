//! Runs seeds of the cluster simulator and prints one JSON summary.
//!
//! `cargo run --release -p coracle-tests --bin simulate -- --seeds N [--seed FIRST] [--seconds S] [--trace] [--shrink]`

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use coracle_tests::simulator::shrink::shrink;
use coracle_tests::simulator::{RunReport, Telling, panics, run_seed, run_tape};

/// The options of the command line.
struct Campaign {
    first: u64,
    seeds: u64,
    fault_time: Duration,
    traces: bool,
    shrinks: bool,
}

/// The totals over all seeds.
#[derive(Default)]
struct Summary {
    simulated: Duration,
    events: u64,
    operations: u64,
    failed: u64,
    sightings: BTreeMap<&'static str, u64>,
    hash: u64,
    failures: Vec<(u64, String)>,
}

#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the summary goes to stdout, all else to stderr"
)]
fn main() -> ExitCode {
    let campaign = match Campaign::from_arguments() {
        Ok(campaign) => campaign,
        Err(message) => {
            eprintln!(
                "{message}\nusage: simulate [--seeds N] [--seed FIRST] [--seconds S] [--trace] [--shrink]"
            );
            return ExitCode::from(2);
        }
    };
    let start = Instant::now();
    let seconds = campaign.fault_time.as_secs();
    let say = move |seed: u64, failure: &str| {
        eprintln!(
            "seed {seed}: {failure}\nagain: cargo run --release -p coracle-tests --bin simulate -- --seed {seed} --seconds {seconds} --trace"
        );
    };
    panics::tell_before_end(say);
    if campaign.shrinks {
        return campaign.shrink();
    }
    let summary = campaign.run();
    for (seed, failure) in &summary.failures {
        say(*seed, failure);
    }
    println!("{}", summary.to_json(campaign.seeds, start.elapsed()));
    if summary.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Campaign {
    fn from_arguments() -> Result<Self, String> {
        let mut campaign =
            Self { first: 0, seeds: 1, fault_time: Duration::from_secs(30), traces: false, shrinks: false };
        let mut arguments = std::env::args().skip(1);
        while let Some(flag) = arguments.next() {
            let mut number = || {
                let value = arguments.next().ok_or(format!("{flag} needs a number"))?;
                value.parse::<u64>().map_err(|error| format!("{flag} {value}: {error}"))
            };
            match flag.as_str() {
                "--seeds" => campaign.seeds = number()?,
                "--seed" => campaign.first = number()?,
                "--seconds" => campaign.fault_time = Duration::from_secs(number()?),
                "--trace" => campaign.traces = true,
                "--shrink" => campaign.shrinks = true,
                _ => return Err(format!("unknown flag {flag}")),
            }
        }
        Ok(campaign)
    }

    /// Shrinks the failing run of the first seed, and prints the trace of the smaller run.
    #[expect(clippy::print_stdout, reason = "a trace is for reading")]
    fn shrink(&self) -> ExitCode {
        let report = run_seed(self.first, self.fault_time, Telling::Silent);
        let Some(violation) = report.violation else {
            println!("seed {} runs clean", self.first);
            return ExitCode::SUCCESS;
        };
        let before = report.tape.len();
        let tape = shrink(report.tape, self.fault_time, violation.property, 1000);
        println!("{} of {before} choices are left", tape.len());
        let report = run_tape(tape, self.fault_time, Telling::Everything);
        println!("{}", report.violation.map_or_else(String::new, |violation| violation.to_string()));
        ExitCode::FAILURE
    }

    fn run(&self) -> Summary {
        let next = AtomicU64::new(self.first);
        let summary = Mutex::new(Summary::default());
        let threads = if self.traces { 1 } else { thread::available_parallelism().map_or(1, usize::from) };
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= self.first + self.seeds {
                            return;
                        }
                        let telling = if self.traces { Telling::Everything } else { Telling::Silent };
                        let report = run_seed(seed, self.fault_time, telling);
                        summary.lock().expect("no seed panics while it holds this").add(
                            seed,
                            self.fault_time,
                            &report,
                        );
                    }
                });
            }
        });
        summary.into_inner().expect("all threads are done")
    }
}

impl Summary {
    fn add(&mut self, seed: u64, fault_time: Duration, report: &RunReport) {
        self.simulated += report.simulated;
        self.events += report.events;
        self.operations += report.operations;
        self.failed += report.failed;
        // Addition commutes: the sum does not depend on the order in which seeds finish.
        self.hash = self.hash.wrapping_add(report.hash);
        for (what, count) in &report.sightings {
            *self.sightings.entry(what).or_default() += count;
        }
        if let Some(violation) = &report.violation {
            let again = run_seed(seed, fault_time, Telling::LastLines);
            self.failures.push((seed, format!("{violation}\n{}", again.last_lines.join("\n"))));
        }
    }

    fn to_json(&self, seeds: u64, wall: Duration) -> String {
        let (faults, sometimes): (BTreeMap<&str, u64>, BTreeMap<&str, u64>) =
            self.sightings.iter().partition(|(what, _)| what.starts_with("fault: "));
        let failed: Vec<_> = self.failures.iter().map(|(seed, _)| seed).collect();
        let per_second = |count: u64| (count as f64 / wall.as_secs_f64()).round();
        serde_json::json!({
            "seeds": seeds,
            "simulated_seconds": self.simulated.as_secs(),
            "wall_seconds": wall.as_secs_f64(),
            "simulated_per_wall": (self.simulated.as_secs_f64() / wall.as_secs_f64()).round(),
            "events": self.events,
            "events_per_second": per_second(self.events),
            "operations_checked": self.operations,
            "operations_per_second": per_second(self.operations),
            "operations_without_outcome": self.failed,
            "faults": faults,
            "sometimes": sometimes,
            "trace_hash": format!("{:016x}", self.hash),
            "failures": failed,
        })
        .to_string()
    }
}
