//! Contention for a lock, while its holders are killed and paused.
//!
//! ```text
//! cargo run --release -p coracle-tests --bin locks -- --disturbances 200 [--runtime smol] [--seed 7]
//! ```
//!
//! Prints one line. The exit code is 1 when a fencing token did not rise, or no contender got the
//! lock, and 2 for wrong usage.

use std::io::{self, Write};
use std::process::ExitCode;

use coracle_tests::live::{Runtime, Setup};
use coracle_tests::locks::contend;

const USAGE: &str = "usage: locks [--disturbances N] [--runtime smol|threads] [--seed S]";

fn main() -> ExitCode {
    let Some((disturbances, runtime, seed)) = options(std::env::args().skip(1)) else {
        // Ignore the error: when stderr is closed, the line cannot be delivered.
        _ = writeln!(io::stderr(), "{USAGE}");
        return ExitCode::from(2);
    };
    let folder = tempfile::tempdir().expect("there is room for a temporary folder");
    let server = Setup::in_folder(runtime, &folder.path().join("data")).start();
    match contend(&server.address().to_string(), folder.path(), disturbances, seed) {
        Ok(result) => {
            _ = writeln!(io::stdout(), "seed {seed}: {result:?}");
            ExitCode::SUCCESS
        }
        Err(what) => {
            _ = writeln!(io::stderr(), "seed {seed}: {what}");
            ExitCode::FAILURE
        }
    }
}

fn options(mut arguments: impl Iterator<Item = String>) -> Option<(u64, Runtime, u64)> {
    let (mut disturbances, mut runtime, mut seed) = (200, Runtime::Smol, fastrand::u64(..));
    while let Some(flag) = arguments.next() {
        let value = arguments.next()?;
        match (flag.as_str(), value.as_str()) {
            ("--disturbances", _) => disturbances = value.parse().ok()?,
            ("--seed", _) => seed = value.parse().ok()?,
            ("--runtime", "smol") => runtime = Runtime::Smol,
            ("--runtime", "threads") => runtime = Runtime::Threads,
            _ => return None,
        }
    }
    Some((disturbances, runtime, seed))
}
