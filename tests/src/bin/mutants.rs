//! Mutation test of the simulators: activates one deliberate bug after another and shows that a
//! simulator notices each.
//!
//! `cargo run --release -p coracle-tests --bin mutants [-- --only NAME] [--seeds MAX] [--seed
//! FIRST] [--trace]`
//!
//! Prints one line per mutant: its name, the seed that killed it with the violated property, or
//! SURVIVED, and the wall time. The exit code is 1 when a mutant survives. Each mutant runs in a
//! separate process, because a panic ends a release build. `--trace` prints the trace of one seed
//! with one mutant.

use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use coracle_core::mutant::Mutant;
use coracle_tests::simulator::hunt::{Kill, is_clean, try_seed};
use coracle_tests::simulator::{Telling, panics};

/// The longest time to hunt one mutant.
const LIFETIME: Duration = Duration::from_secs(120);

/// The longest part of a violation's text that fits a line.
const SHOWN_CHARS: usize = 100;

struct Hunt {
    only: Option<Mutant>,
    first: u64,
    seeds: u64,
    traces: bool,
}

#[expect(clippy::print_stderr, reason = "a mistake on the command line goes to stderr")]
fn main() -> ExitCode {
    let hunt = match Hunt::from_arguments() {
        Ok(hunt) => hunt,
        Err(message) => {
            eprintln!("{message}\nusage: mutants [--only NAME] [--seeds MAX] [--seed FIRST] [--trace]");
            return ExitCode::from(2);
        }
    };
    match hunt.only {
        Some(mutant) if hunt.traces => hunt.tell(mutant),
        Some(mutant) => hunt.run(mutant),
        None => hunt.run_all(),
    }
}

impl Hunt {
    fn from_arguments() -> Result<Self, String> {
        let mut hunt = Self { only: None, first: 0, seeds: u64::MAX, traces: false };
        let mut arguments = std::env::args().skip(1);
        while let Some(flag) = arguments.next() {
            if flag == "--trace" {
                hunt.traces = true;
                continue;
            }
            let value = arguments.next().ok_or(format!("{flag} needs a value"))?;
            let number = || value.parse().map_err(|error| format!("{flag} {value}: {error}"));
            match flag.as_str() {
                "--only" => hunt.only = Some(Mutant::from_name(&value).ok_or(format!("no mutant {value}"))?),
                "--seeds" => hunt.seeds = number()?,
                "--seed" => hunt.first = number()?,
                _ => return Err(format!("unknown flag {flag}")),
            }
        }
        Ok(hunt)
    }

    /// Hunts every mutant, each in a separate process.
    fn run_all(&self) -> ExitCode {
        let program = std::env::current_exe().expect("a running program has a path");
        let mut survivors = 0;
        for mutant in Mutant::all() {
            let mut child = Command::new(&program);
            child.args(["--only", mutant.name(), "--seed", &self.first.to_string()]);
            child.args(["--seeds", &self.seeds.to_string()]);
            let status = child.status().expect("this program starts again");
            survivors += u32::from(!status.success());
        }
        if survivors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    /// Hunts one mutant on all cores, until the first seed that notices it.
    fn run(&self, mutant: Mutant) -> ExitCode {
        let start = Instant::now();
        let (found, kills) = mpsc::channel();
        let from_panic = found.clone();
        panics::tell_before_end(move |seed, message| {
            let kill = Kill { seed, property: panics::PROPERTY, what: message.into() };
            // The panic hook never returns here: returning would end the process before the line is
            // printed.
            if from_panic.send(Some(kill)).is_ok() {
                loop {
                    thread::park();
                }
            }
        });
        let next = Arc::new(AtomicU64::new(self.first));
        let end = self.first.saturating_add(self.seeds);
        let threads = thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..threads {
            let (next, found) = (Arc::clone(&next), found.clone());
            thread::spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return drop(found.send(None));
                    }
                    if let Some(kill) = try_seed(mutant, seed, Telling::Silent) {
                        // The thread continues, because this seed may fail without the mutant as
                        // well.
                        drop(found.send(Some(kill)));
                    }
                }
            });
        }
        let kill = first_proof(mutant, &kills, threads, start + LIFETIME);
        print_line(mutant, kill.as_ref(), next.load(Ordering::Relaxed) - self.first, start.elapsed());
        // Exit without joining: the other threads are in the middle of a seed, or parked in a panic
        // hook.
        std::process::exit(i32::from(kill.is_none()))
    }

    #[expect(clippy::print_stdout, reason = "a trace is for reading")]
    fn tell(&self, mutant: Mutant) -> ExitCode {
        match try_seed(mutant, self.first, Telling::Everything) {
            Some(kill) => {
                println!("{}: {}", kill.property, kill.what);
                ExitCode::SUCCESS
            }
            None => ExitCode::FAILURE,
        }
    }
}

/// Returns the first kill in a seed that is clean without the mutant. Returns `None` when all
/// threads have run out of seeds, or the time is over.
fn first_proof(
    mutant: Mutant,
    kills: &mpsc::Receiver<Option<Kill>>,
    threads: usize,
    end: Instant,
) -> Option<Kill> {
    let mut out_of_seeds = 0;
    while out_of_seeds < threads {
        match kills.recv_timeout(end.saturating_duration_since(Instant::now())).ok()? {
            Some(kill) if is_clean(mutant, kill.seed) => return Some(kill),
            Some(_) => {}
            None => out_of_seeds += 1,
        }
    }
    None
}

#[expect(clippy::print_stdout, reason = "the table goes to stdout")]
fn print_line(mutant: Mutant, kill: Option<&Kill>, seeds: u64, wall: Duration) {
    let (name, seconds) = (mutant.name(), wall.as_secs_f64());
    match kill {
        Some(Kill { seed, property, what }) => {
            let what: String = what.replace('\n', " ").chars().take(SHOWN_CHARS).collect();
            println!("{name:<30} seed {seed:>5}  {seconds:>5.1} s  {property}: {what}");
        }
        None => println!("{name:<30} SURVIVED {seeds} seeds, {seconds:.1} s"),
    }
}
