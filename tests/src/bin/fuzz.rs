//! Fuzzing without coverage: runs each target on random changes of its corpus.
//!
//! ```text
//! cargo run --release -p coracle-tests --bin fuzz -- [--target NAME] [--runs N] [--seed S]
//! ```
//!
//! Prints one line per target with the number of runs. The exit code is 1 when a target panics; the
//! input is then in a file that the message names. `fuzz/README.md` describes fuzzing with
//! coverage.

use std::io::{self, Write};
use std::panic::catch_unwind;
use std::process::ExitCode;
use std::time::Instant;

use coracle_tests::fuzz::{TARGETS, Target, keep_input, mutate};

const USAGE: &str = "usage: fuzz [--target NAME] [--runs N] [--seed S]";

fn main() -> ExitCode {
    let Some((targets, runs, seed)) = settings(std::env::args().skip(1)) else {
        // Ignore the error: when stderr is closed, the line cannot be delivered.
        _ = writeln!(io::stderr(), "{USAGE}");
        return ExitCode::from(2);
    };
    let mut has_failed = false;
    for target in targets {
        let start = Instant::now();
        let failed = fuzz(target, runs, seed);
        let seconds = start.elapsed().as_secs_f64();
        let what = match failed {
            None => format!("{runs} runs"),
            Some(input) => format!("FAILED: {}", keep_input(target, &input).display()),
        };
        has_failed |= what.starts_with("FAILED");
        _ = writeln!(io::stdout(), "{:<15} {seconds:>7.1} s  {what}", target.name);
    }
    if has_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Returns the input at which the target has panicked.
fn fuzz(target: Target, runs: u64, seed: u64) -> Option<Vec<u8>> {
    let (corpus, mut rng) = (target.corpus(), fastrand::Rng::with_seed(seed));
    let mut inputs = corpus.clone();
    for _ in 0..runs {
        let at = rng.usize(..inputs.len());
        let mut input = inputs[at].clone();
        mutate(&mut input, &inputs[rng.usize(..inputs.len())], &mut rng);
        if catch_unwind(|| (target.run)(&input)).is_err() {
            return Some(input);
        }
        // Changes add up, and begin again from the corpus before nothing of it is left.
        let is_reset = rng.u32(..3) == 0 || input.len() > 64 << 10;
        inputs[at] = if is_reset { corpus[at].clone() } else { input };
    }
    None
}

fn settings(mut arguments: impl Iterator<Item = String>) -> Option<(Vec<Target>, u64, u64)> {
    let (mut targets, mut runs, mut seed) = (TARGETS.to_vec(), 100_000, 1);
    while let Some(flag) = arguments.next() {
        let value = arguments.next()?;
        match flag.as_str() {
            "--target" => targets = vec![Target::from_name(&value)?],
            "--runs" => runs = value.parse().ok()?,
            "--seed" => seed = value.parse().ok()?,
            _ => return None,
        }
    }
    Some((targets, runs, seed))
}
