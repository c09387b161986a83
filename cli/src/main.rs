//! The program `coracle`: a server for a cluster, and its command-line client.
//!
//! ```text
//! main ─► arguments ─┬─► serve                       a cluster in this process
//!                    ├─► commands ─► caller ─► connection ─► a server
//!                    ├─► client   ─► commands        many commands, typed or piped
//!                    ├─► lock     ─► caller          a command that runs while a lock is held
//!                    ├─► health   ─► caller          a probe for supervisors
//!                    ├─► restore                     a data folder from a backup, without a server
//!                    ├─► bench                       load, against a server or a temporary cluster
//!                    ├─► doctor                      checks of a data folder, or of a cluster
//!                    ├─► token                       a token file, without a server
//!                    ├─► packaging                   completions and manual pages
//!                    └─► log                         a log file, without a server
//! ```
//!
//! `config` adds the settings of a file and of variables to the arguments of a server.
//!
//! This file only turns errors into messages and exit codes. It does not depend on what the
//! commands do.

use std::env;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use clap::Parser;

use crate::arguments::CommandLine;
use crate::exit::Exit;
use crate::output::harmless_lines;

mod address;
mod arguments;
mod bench;
mod caller;
#[cfg(feature = "tls")]
mod cert;
mod client;
mod commands;
mod config;
mod connection;
mod doctor;
mod durations;
mod exit;
mod health;
mod input;
mod interrupt;
mod list;
mod lock;
mod log;
mod numbers;
mod output;
mod packaging;
mod private_file;
mod reply;
mod request;
mod restore;
mod serve;
mod sizes;
mod target;
mod tls;
mod token;
mod usage;
mod value;

/// How long the program waits for its last message to be written.
const TELL_TIMEOUT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    // Only the user who runs the program may read its data, backups and command history.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let completed = match config::complete(usage::in_order(env::args_os())) {
        Ok(completed) => completed,
        Err(error) => {
            tell(format!("error: {}\n", harmless_lines(&error.to_string())));
            return error.exit().into();
        }
    };
    match CommandLine::try_parse_from(&completed.words) {
        Ok(command_line) => command_line.run().unwrap_or_else(|error| {
            if error.is_broken_pipe() {
                return Exit::Done.into();
            }
            tell(format!("error: {}\n", harmless_lines(&error.to_string())));
            error.exit().into()
        }),
        Err(help_or_error) => {
            match usage::complaint(&help_or_error, &completed.words) {
                Some(complaint) => tell(format!("error: {}\n", harmless_lines(&complaint))),
                None => _ = help_or_error.print(),
            }
            for note in completed.notes(&help_or_error.to_string()) {
                tell(format!("{}\n", harmless_lines(&note)));
            }
            if help_or_error.use_stderr() { Exit::Usage.into() } else { Exit::Done.into() }
        }
    }
}

/// Writes the program's last message to stderr, and waits at most [`TELL_TIMEOUT`] when stderr
/// stalls.
fn tell(text: String) {
    let text: Arc<str> = text.into();
    let (done, written) = mpsc::channel::<()>();
    let its_text = Arc::clone(&text);
    let write = move || {
        // When stderr is closed, the message is lost.
        _ = io::stderr().write_all(its_text.as_bytes());
        drop(done);
    };
    match thread::Builder::new().name("last message".into()).spawn(write) {
        Ok(_) => _ = written.recv_timeout(TELL_TIMEOUT),
        // Written here, because the missing thread may be the very error that this message reports.
        Err(_) => _ = io::stderr().write_all(text.as_bytes()),
    }
}
