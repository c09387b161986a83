//! Crash test: kills a server under load repeatedly and checks that it loses no acknowledged write.
//!
//! ```text
//! cargo run --release -p coracle-tests --bin kill -- --cycles 50 --runtime smol [--seed 7] \
//!     [--flags '--snapshot-entries 100']
//! ```
//!
//! Prints one JSON object. The exit code is 1 when an acknowledged write was lost, and 2 for wrong
//! usage. The seed decides after how many acknowledgements the server is killed. It does not decide
//! how far the server's threads have come by then.

use std::io::{self, Write};
use std::process::ExitCode;

use coracle_tests::live::{Campaign, Runtime};

const USAGE: &str =
    "usage: kill [--cycles N] [--runtime smol|threads] [--seed S] [--flags 'FLAGS OF THE SERVER']";

fn main() -> ExitCode {
    let Some(campaign) = campaign(std::env::args().skip(1)) else {
        // Ignore the error: when stderr is closed, the line cannot be delivered.
        _ = writeln!(io::stderr(), "{USAGE}");
        return ExitCode::from(2);
    };
    let folder = tempfile::tempdir().expect("there is room for a temporary folder");
    _ = writeln!(io::stderr(), "{campaign:?} in {}", folder.path().display());
    let summary = campaign.run(folder.path());
    _ = writeln!(io::stdout(), "{}", summary.to_json());
    if summary.lost == 0 {
        return ExitCode::SUCCESS;
    }
    _ = writeln!(io::stderr(), "something was lost; the files are kept in {}", folder.keep().display());
    ExitCode::FAILURE
}

fn campaign(mut arguments: impl Iterator<Item = String>) -> Option<Campaign> {
    let (seed, flags) = (fastrand::u64(..), String::new());
    let mut campaign = Campaign { runtime: Runtime::Smol, cycles: 50, seed, flags };
    while let Some(flag) = arguments.next() {
        let value = arguments.next()?;
        match (flag.as_str(), value.as_str()) {
            ("--cycles", _) => campaign.cycles = value.parse().ok()?,
            ("--seed", _) => campaign.seed = value.parse().ok()?,
            ("--flags", _) => campaign.flags = value,
            ("--runtime", "smol") => campaign.runtime = Runtime::Smol,
            ("--runtime", "threads") => campaign.runtime = Runtime::Threads,
            _ => return None,
        }
    }
    Some(campaign)
}
