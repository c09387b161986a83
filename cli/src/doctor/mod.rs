//! `doctor`: checks a data folder and the files that the settings name, or a running cluster. One
//! line per check, with what to do.
//!
//! A check is a function from facts to a verdict, and the facts are collected apart from it. So
//! each verdict is tested without the fault that leads to it.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use crate::arguments;
use crate::exit::Exit;
use crate::output::harmless;
use crate::target::Target;

mod cluster;
mod credentials;
mod disk;
mod folder;
mod limits;

/// Check a data folder, or a running cluster
///
/// With --data-dir or --config: the folder, its disk, the limits of the operating system, and the
/// files of certificates and tokens that the settings name. Otherwise: the cluster at --connect.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  coracle doctor --data-dir /var/lib/coracle
  coracle doctor --config /etc/coracle.toml     also its certificates and tokens
  coracle doctor --connect 10.0.0.1:3001

Each line begins with ok, warn or fail. Exit code 6 if a check failed. A folder is only read, except for a small \
file that measures how long a sync takes and is removed again.")]
pub(crate) struct Doctor {
    /// The data folder
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// The settings file of the server
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(flatten)]
    target: Target,
}

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        })
    }
}

/// A check with its result: what was found, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Check {
    check: &'static str,
    verdict: Verdict,
    message: String,
}

impl Check {
    fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Ok, message: message.into() }
    }

    fn warn(check: &'static str, message: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Warn, message: message.into() }
    }

    fn fail(check: &'static str, message: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Fail, message: message.into() }
    }
}

impl Doctor {
    /// Runs the checks and prints them.
    pub(crate) fn run(&self) -> ExitCode {
        let checks = match (&self.data_dir, &self.config) {
            (None, None) => cluster::checks(&mut self.target.caller()),
            (Some(folder), None) => folder::checks(folder),
            (folder, Some(_)) => self.of_settings(folder.clone()),
        };
        let worst = checks.iter().map(|check| check.verdict).max().unwrap_or(Verdict::Ok);
        // The exit code is the answer. A caller that does not read the lines still gets it.
        _ = self.print(&checks, worst);
        if worst == Verdict::Fail { Exit::Failure.into() } else { Exit::Done.into() }
    }

    /// Checks the settings, the files that they name, and the data folder.
    fn of_settings(&self, folder: Option<PathBuf>) -> Vec<Check> {
        let config = self.config.iter().flat_map(|path| [OsString::from("--config"), path.into()]);
        let found = match arguments::server_of(&config.collect::<Vec<_>>()) {
            Ok(found) => found,
            Err(error) => return vec![Check::fail("settings", error.to_string())],
        };
        let mut checks = vec![Check::ok("settings", "a server can start with them")];
        checks.extend(credentials::checks(&found));
        match folder {
            Some(folder) => checks.extend(folder::checks(&folder)),
            None if found.serving().ephemeral => {}
            None => checks.extend(folder::checks(&found.serving().data_dir)),
        }
        checks
    }

    fn print(&self, checks: &[Check], worst: Verdict) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if !self.target.output.is_text() {
            let json = serde_json::json!({"status": worst, "checks": checks});
            return writeln!(out, "{}", harmless(&json.to_string()));
        }
        for Check { check, verdict, message } in checks {
            let message = message.lines().map(str::trim).collect::<Vec<_>>().join("; ");
            writeln!(out, "{verdict:<4}  {check}: {}", harmless(&message))?;
        }
        out.flush()
    }
}
