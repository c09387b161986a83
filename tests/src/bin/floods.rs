//! Overload test: floods a server in each of several ways and measures the effect on a well-behaved
//! client.
//!
//! ```text
//! cargo run --release -p coracle-tests --bin floods -- --seconds 60 [--kind KIND] [--runtime smol|threads]
//! ```
//!
//! Prints one JSON object per kind and runtime. The exit code is 1 when a server was killed, lost
//! an acknowledged write, returned data that no client wrote, or answered no request; it is 2 for
//! wrong usage. Kinds: `connections`, `half-lines`, `unread-scans`, `sessions`, `strangers`,
//! `http`.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use coracle_tests::floods::{Flood, Kind};
use coracle_tests::live::{Runtime, program};

const USAGE: &str = "usage: floods [--seconds S] [--kind KIND[,KIND...]] [--runtime smol|threads]\n\
     kinds: connections, half-lines, unread-scans, sessions, strangers, http";

fn main() -> ExitCode {
    let Some(floods) = floods(std::env::args().skip(1)) else {
        // Ignore the error: when stderr is closed, the line cannot be delivered.
        _ = writeln!(io::stderr(), "{USAGE}");
        return ExitCode::from(2);
    };
    // Build the program now, not during a measurement.
    let _ = program();
    let mut are_good = true;
    for flood in floods {
        let outcome = flood.run();
        are_good &= outcome.is_good();
        _ = writeln!(io::stdout(), "{}", outcome.to_json());
    }
    if are_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn floods(mut arguments: impl Iterator<Item = String>) -> Option<Vec<Flood>> {
    let (mut time, mut kinds) = (Duration::from_secs(60), Kind::ALL.to_vec());
    let mut runtimes = vec![Runtime::Smol, Runtime::Threads];
    while let Some(flag) = arguments.next() {
        let value = arguments.next()?;
        match (flag.as_str(), value.as_str()) {
            ("--seconds", _) => {
                time = Duration::from_secs(value.parse().ok().filter(|seconds| *seconds > 0)?);
            }
            ("--kind", _) => kinds = value.split(',').map(Kind::named).collect::<Option<_>>()?,
            ("--runtime", "smol") => runtimes = vec![Runtime::Smol],
            ("--runtime", "threads") => runtimes = vec![Runtime::Threads],
            _ => return None,
        }
    }
    let mut floods = Vec::new();
    for kind in kinds {
        floods.extend(runtimes.iter().map(|runtime| Flood { kind, runtime: *runtime, time }));
    }
    Some(floods)
}
