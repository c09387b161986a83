//! Scaling benchmark: measures how throughput and memory of the real program grow with keys, log,
//! nodes, values and connections.
//!
//! ```text
//! cargo run --release -p coracle-tests --bin growth -- [--only PART[,PART...]] [--rounds N] [--quick] \
//!     [--folder DIR] [--draw-only FILE]
//! ```
//!
//! Writes `results.jsonl` and one plot per subject into `docs/plots`, or into DIR. `--draw-only`
//! draws the results of an earlier run. The exit code is 1 when a file cannot be read or written,
//! and 2 for wrong usage.

use std::io::{self, Write};
use std::process::ExitCode;

use coracle_tests::growth::{Options, USAGE, run};

fn main() -> ExitCode {
    // Ignore the error: when stderr is closed, the line cannot be delivered.
    let mut tell = |line: &str| _ = writeln!(io::stderr(), "{line}");
    let Some(options) = Options::parse(std::env::args().skip(1)) else {
        tell(USAGE);
        return ExitCode::from(2);
    };
    match run(&options, &mut tell) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(&error.to_string());
            ExitCode::FAILURE
        }
    }
}
