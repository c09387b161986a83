//! Runs seeds of the life-cycle simulator (bootstrap, joins, removals, restarts) and prints one
//! JSON summary.
//!
//! `cargo run --release -p coracle-tests --bin lifecycle -- --seeds N [--seed FIRST] [--seconds S] [--trace] [--mutant NAME]`
//!
//! With `--mutant` the run ends with exit code 0 at the first seed that notices the deliberate bug,
//! and with exit code 1 when the mutant survived all seeds.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use coracle_core::mutant::Mutant;
use coracle_tests::lifecycle::run_seed;
use coracle_tests::simulator::panics;

/// The options of the command line.
struct Campaign {
    first: u64,
    seeds: u64,
    fault_time: Duration,
    traces: bool,
    mutant: Option<Mutant>,
}

/// The totals over all seeds.
#[derive(Default)]
struct Summary {
    simulated: Duration,
    events: u64,
    acknowledged: u64,
    reads: u64,
    sightings: BTreeMap<&'static str, u64>,
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
                "{message}\nusage: lifecycle [--seeds N] [--seed FIRST] [--seconds S] [--trace] [--mutant NAME]"
            );
            return ExitCode::from(2);
        }
    };
    let hunts = campaign.mutant.is_some();
    panics::tell_before_end(move |seed, failure| {
        eprintln!("seed {seed}: {failure}");
        if hunts {
            // A panic also counts as noticing the mutant.
            std::process::exit(0);
        }
    });
    let start = Instant::now();
    let summary = campaign.run();
    for (seed, failure) in &summary.failures {
        eprintln!("seed {seed}: {failure}");
    }
    println!("{}", summary.to_json(campaign.seeds, start.elapsed()));
    if summary.failures.is_empty() == campaign.mutant.is_none() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

impl Campaign {
    fn from_arguments() -> Result<Self, String> {
        let mut campaign =
            Self { first: 0, seeds: 1, fault_time: Duration::from_secs(30), traces: false, mutant: None };
        let mut arguments = std::env::args().skip(1);
        while let Some(flag) = arguments.next() {
            if flag == "--trace" {
                campaign.traces = true;
                continue;
            }
            let value = arguments.next().ok_or(format!("{flag} needs a value"))?;
            let number = || value.parse::<u64>().map_err(|error| format!("{flag} {value}: {error}"));
            match flag.as_str() {
                "--seeds" => campaign.seeds = number()?,
                "--seed" => campaign.first = number()?,
                "--seconds" => campaign.fault_time = Duration::from_secs(number()?),
                "--mutant" => {
                    campaign.mutant = Some(Mutant::from_name(&value).ok_or(format!("no mutant {value}"))?);
                }
                _ => return Err(format!("unknown flag {flag}")),
            }
        }
        Ok(campaign)
    }

    fn run(&self) -> Summary {
        let next = AtomicU64::new(self.first);
        let is_over = AtomicBool::new(false);
        let summary = Mutex::new(Summary::default());
        let threads = if self.traces { 1 } else { thread::available_parallelism().map_or(1, usize::from) };
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while !is_over.load(Ordering::Relaxed) {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= self.first + self.seeds {
                            return;
                        }
                        Mutant::activate(self.mutant);
                        let report = run_seed(seed, self.fault_time, self.traces);
                        Mutant::activate(None);
                        let mut summary = summary.lock().expect("no thread panics with it");
                        summary.simulated += report.simulated;
                        summary.events += report.events;
                        summary.acknowledged += report.acknowledged;
                        summary.reads += report.reads;
                        for (what, times) in report.sightings {
                            *summary.sightings.entry(what).or_default() += times;
                        }
                        if let Some(violation) = report.violation {
                            summary.failures.push((seed, violation.to_string()));
                            is_over.fetch_or(self.mutant.is_some(), Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        summary.into_inner().expect("no thread panics with it")
    }
}

impl Summary {
    fn to_json(&self, seeds: u64, wall: Duration) -> String {
        let per_wall = self.simulated.as_secs_f64() / wall.as_secs_f64();
        serde_json::json!({
            "seeds": seeds,
            "failures": self.failures.len(),
            "simulated_seconds": self.simulated.as_secs(),
            "wall_seconds": wall.as_secs_f64(),
            "simulated_per_wall": per_wall.round(),
            "events": self.events,
            "acknowledged": self.acknowledged,
            "reads": self.reads,
            "sometimes": self.sightings,
        })
        .to_string()
    }
}
