//! TLS on faulty streams, by seeds: see `coracle_tests::secured`.
//!
//! `tls_streams [--first SEED] [--seeds N]`. Prints one line. A seed that fails panics, and its
//! number is printed before.

use std::io::{self, Write};
use std::panic::catch_unwind;
use std::process::ExitCode;
use std::time::Instant;

use coracle_tests::secured::{Counts, run_seed};

fn main() -> ExitCode {
    let (mut first, mut seeds) = (0, 100_000);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let number = words.next().and_then(|value| value.parse::<u64>().ok());
        match (word.as_str(), number) {
            ("--first", Some(number)) => first = number,
            ("--seeds", Some(number)) => seeds = number,
            _ => {
                // Ignore the error: when stderr is closed, the line cannot be delivered.
                _ = writeln!(io::stderr(), "usage: tls_streams [--first SEED] [--seeds N]");
                return ExitCode::from(2);
            }
        }
    }
    let (start, mut counts) = (Instant::now(), Counts::default());
    for seed in first..first.saturating_add(seeds) {
        let Ok(run) = catch_unwind(|| run_seed(seed)) else {
            _ = writeln!(io::stdout(), "seed {seed} FAILED");
            return ExitCode::FAILURE;
        };
        counts.add(run);
    }
    let seconds = start.elapsed().as_secs_f64();
    _ = writeln!(io::stdout(), "{counts:?} in {seconds:.1} s");
    ExitCode::SUCCESS
}
