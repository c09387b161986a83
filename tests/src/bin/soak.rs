//! Soak test: hours of mixed load on three processes, whose memory, threads and files must not
//! grow.
//!
//! ```text
//! cargo run --release -p coracle-tests --bin soak -- --seconds 7200 [--runtime smol|threads|mixed]
//! ```
//!
//! Prints one JSON object per sample and node, and at the end one with the mean of each quarter of
//! the time. The exit code is 1 when a resource grew or an answer was wrong, and 2 for wrong usage.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use coracle_tests::live::{Runtime, program};
use coracle_tests::soak::Soak;

use Runtime::{Smol, Threads};

const USAGE: &str = "usage: soak [--seconds S] [--runtime smol|threads|mixed]";

fn main() -> ExitCode {
    let Some(soak) = soak(std::env::args().skip(1)) else {
        // Ignore the error: when stderr is closed, the line cannot be delivered.
        _ = writeln!(io::stderr(), "{USAGE}");
        return ExitCode::from(2);
    };
    // Build the program now, not during a measurement.
    let _ = program();
    let outcome = soak.run(|sample| _ = writeln!(io::stdout(), "{sample}"));
    _ = writeln!(io::stdout(), "{}", outcome.to_json());
    if outcome.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn soak(mut arguments: impl Iterator<Item = String>) -> Option<Soak> {
    let mut soak = Soak { time: Duration::from_secs(7200), runtimes: [Smol, Threads, Smol] };
    while let Some(flag) = arguments.next() {
        let value = arguments.next()?;
        match (flag.as_str(), value.as_str()) {
            ("--seconds", _) => {
                soak.time = Duration::from_secs(value.parse().ok().filter(|seconds| *seconds > 0)?);
            }
            ("--runtime", "smol") => soak.runtimes = [Smol; 3],
            ("--runtime", "threads") => soak.runtimes = [Threads; 3],
            ("--runtime", "mixed") => {}
            _ => return None,
        }
    }
    Some(soak)
}
