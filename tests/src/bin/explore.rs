//! Model checking of small scopes: explores every order of a few events and prints one JSON object
//! per scope with the number of states.
//!
//! `cargo run --release -p coracle-tests --bin explore [-- --situations MAX]`

use std::process::ExitCode;
use std::time::Instant;

use coracle_tests::explore::{Scope, explore};

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "this is what it is for")]
fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let situations_max = match arguments.as_slice() {
        [] => 2_000_000,
        [flag, number] if flag == "--situations" && number.parse::<usize>().is_ok() => {
            number.parse().unwrap_or(usize::MAX)
        }
        _ => {
            eprintln!("usage: explore [--situations MAX]");
            return ExitCode::from(2);
        }
    };
    let scopes = [
        Scope { timeouts: 1, commands: 2, crashes: 0, losses: 0, doubles: 0 },
        Scope { timeouts: 1, commands: 1, crashes: 1, losses: 0, doubles: 0 },
        Scope { timeouts: 1, commands: 1, crashes: 0, losses: 1, doubles: 1 },
        Scope { timeouts: 2, commands: 1, crashes: 0, losses: 0, doubles: 0 },
        Scope { timeouts: 3, commands: 2, crashes: 1, losses: 1, doubles: 1 },
    ];
    for scope in scopes {
        let start = Instant::now();
        let found = explore(scope, situations_max);
        println!(
            "{}",
            serde_json::json!({
                "scope": format!("{scope:?}"),
                "situations": found.situations,
                "steps": found.steps,
                "complete": found.is_complete,
                "elections": found.elections,
                "highest_commit": found.highest_commit,
                "seconds": start.elapsed().as_secs_f64(),
                "violation": found.violation,
            })
        );
        if found.violation.is_some() {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
