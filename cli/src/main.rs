//! The program `coracle`: serves a cluster, and is its client.
//!
//! ```text
//! main ─► arguments ─┬─► serve                       a cluster in this process
//!                    ├─► commands ─► caller ─► connection ─► a server
//!                    ├─► client   ─► commands        many commands, typed or piped
//!                    ├─► restore                     a data folder from a backup, without a server
//!                    ├─► bench                       load, and a cluster of its own
//!                    └─► log                         a log file, without a server
//! ```
//!
//! This file only turns errors into messages and exit codes. It knows nothing of what commands do.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use crate::arguments::CommandLine;
use crate::exit::Exit;

mod address;
mod arguments;
mod bench;
mod caller;
mod client;
mod commands;
mod connection;
mod durations;
mod exit;
mod interrupt;
mod log;
mod output;
mod reply;
mod request;
mod restore;
mod serve;
mod target;
mod value;

fn main() -> ExitCode {
    // Only the user who runs the program may read its data, backups and command history.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let exit = match CommandLine::try_parse() {
        Ok(command_line) => command_line.run().unwrap_or_else(|error| {
            if error.is_broken_pipe() {
                return Exit::Done;
            }
            // Nobody is left to be told when stderr is closed.
            _ = writeln!(io::stderr(), "error: {error}");
            error.exit()
        }),
        Err(help_or_error) => {
            _ = help_or_error.print();
            if help_or_error.use_stderr() { Exit::Usage } else { Exit::Done }
        }
    };
    exit.into()
}
