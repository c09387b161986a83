//! Black-box tests of the built program: arguments in; exit code, stdout and stderr out. They need
//! no server.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Output};

#[cfg(test)]
mod logs;
#[cfg(test)]
mod unreachable;
#[cfg(test)]
mod usage;

/// Returns a command that runs the program independently of the tester's environment.
fn coracle() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coracle"));
    command.env_remove("CORACLE_CONNECT").env("COLUMNS", "110");
    command
}

/// The exit code and the output of a run.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("the program speaks UTF-8");
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

/// Runs the program with this file on stdin.
fn run_on(arguments: &[&str], stdin: &Path) -> Ended {
    let stdin = File::open(stdin).expect("the file is there");
    coracle().args(arguments).stdin(stdin).output().expect("the program starts").into()
}

/// Runs the program with these arguments.
fn run(arguments: &[&str]) -> Ended {
    coracle().args(arguments).output().expect("the program starts").into()
}
