//! Watch test: a watcher that reconnects to random nodes of a cluster whose nodes are killed sees
//! each change once and in order.
//!
//! ```text
//! cargo run --release -p coracle-tests --bin watch_kill -- --changes 1000000 --kills 200 \
//!     [--runtime smol] [--seed 7]
//! ```
//!
//! Prints one JSON object. The exit code is 1 when a change was missed, repeated or out of order,
//! and 2 for wrong usage.

use std::io::{self, Write};
use std::process::ExitCode;

use coracle_tests::live::{Runtime, WatchCampaign};

const USAGE: &str = "usage: watch_kill [--changes N] [--kills N] [--runtime smol|threads] [--seed S]";

fn main() -> ExitCode {
    let Some(campaign) = campaign(std::env::args().skip(1)) else {
        // Ignore the error: when stderr is closed, the line cannot be delivered.
        _ = writeln!(io::stderr(), "{USAGE}");
        return ExitCode::from(2);
    };
    _ = writeln!(io::stderr(), "{campaign:?}");
    let summary = campaign.run();
    _ = writeln!(io::stdout(), "{}", summary.to_json());
    if summary.is_right() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn campaign(mut arguments: impl Iterator<Item = String>) -> Option<WatchCampaign> {
    let seed = fastrand::u64(..);
    let mut campaign = WatchCampaign { runtime: Runtime::Smol, changes: 1_000_000, kills: 200, seed };
    while let Some(flag) = arguments.next() {
        let value = arguments.next()?;
        match (flag.as_str(), value.as_str()) {
            ("--changes", _) => campaign.changes = value.parse().ok()?,
            ("--kills", _) => campaign.kills = value.parse().ok()?,
            ("--seed", _) => campaign.seed = value.parse().ok()?,
            ("--runtime", "smol") => campaign.runtime = Runtime::Smol,
            ("--runtime", "threads") => campaign.runtime = Runtime::Threads,
            _ => return None,
        }
    }
    Some(campaign)
}
