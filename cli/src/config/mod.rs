//! The settings of a server from four sources: default < file < variable < flag.
//!
//! ```text
//! flags of clap ──► settings ─┐
//! --config FILE ──► file ─────┼─► layers ─┬─► words for clap     coracle serve, coracle node
//! CORACLE_… ──────────────────┘           └─► show               coracle config show
//! ```
//!
//! The flags that clap knows are the only list of settings. A setting of a file or a variable
//! becomes the flag that it stands for, and clap parses and checks it like one that was typed. So a
//! new flag can be set in the file and by a variable without further work, and every source has the
//! same rules and messages.

use std::env;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

use clap::CommandFactory;
use thiserror::Error;

use crate::arguments::CommandLine;
use crate::exit::Exit;
use crate::serve::{NodeFlagsError, ServeFlagsError};

mod file;
mod layers;
mod settings;
mod show;
#[cfg(test)]
mod tests;

pub(crate) use show::Config;

use layers::{Layers, Origin};
use settings::Setting;

/// The longest settings file, in bytes. Arbitrary, far above one that sets every flag.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// Why settings cannot be used.
#[derive(Debug, Error)]
pub(crate) enum ConfigError {
    #[error("{}: {cause}", .path.display())]
    Read { path: PathBuf, cause: io::Error },
    #[error("{}: the file is longer than {CONFIG_BYTES_MAX} bytes: is it a settings file?", .path.display())]
    TooLong { path: PathBuf },
    #[error("{}: line {line}: this is not TOML: {message}", .path.display())]
    Syntax { path: PathBuf, line: usize, message: String },
    #[error("{}: line {line}: `{key}` is not a flag of `coracle {command}`{hint}", .path.display())]
    Unknown { path: PathBuf, line: usize, key: String, command: &'static str, hint: String },
    #[error("{}: line {line}: {key}: expected {expected}, and found {found}", .path.display())]
    Type { path: PathBuf, line: usize, key: String, expected: &'static str, found: &'static str },
    #[error("{}: line {line}: {key}: {why}", .path.display())]
    Value { path: PathBuf, line: usize, key: String, why: String },
    #[error("the variable {variable} is set to {value:?}: {why}")]
    Variable { variable: String, value: String, why: String },
    #[error("--config needs the name of a file")]
    NoName,
    #[error("{}", .0.to_string().trim_start_matches("error: ").trim_end())]
    Flags(clap::Error),
    #[error(transparent)]
    Serve(#[from] ServeFlagsError),
    #[error(transparent)]
    Node(#[from] NodeFlagsError),
    #[error("cannot write the answer: {0}")]
    Output(#[from] io::Error),
}

impl ConfigError {
    pub(crate) fn exit(&self) -> Exit {
        if matches!(self, Self::Output(_)) { Exit::Failure } else { Exit::Usage }
    }

    /// Returns whether stdout was closed by its reader, which is no failure worth reporting.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// The two commands that have settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Server {
    Serve,
    Node,
}

impl Server {
    fn name(self) -> &'static str {
        match self {
            Self::Serve => "serve",
            Self::Node => "node",
        }
    }

    /// The command as clap knows it.
    fn command(self) -> clap::Command {
        let all = CommandLine::command();
        all.find_subcommand(self.name()).expect("the command exists").clone()
    }

    /// The server that a command line starts, and the index of its first flag.
    fn of(words: &[OsString]) -> Option<(Self, usize)> {
        match words.get(1).map(|word| word.to_str()) {
            None => Some((Self::Serve, 1)),
            Some(Some("serve")) => Some((Self::Serve, 2)),
            Some(Some("node")) => Some((Self::Node, 2)),
            Some(Some(word)) if word.starts_with("--") => Some((Self::Serve, 1)),
            Some(_) => None,
        }
    }
}

/// A command line with the settings of the file and the variables added.
#[derive(Debug)]
pub(crate) struct Completed {
    pub(crate) words: Vec<OsString>,
    /// Where each added flag comes from.
    added: Vec<(String, Origin)>,
}

impl Completed {
    /// Returns whether the file or a variable sets this flag.
    pub(crate) fn sets(&self, name: &str) -> bool {
        self.added.iter().any(|(added, _)| added == name)
    }

    /// Returns a line for each added flag that a message of clap names, since its reader did not
    /// type them.
    pub(crate) fn notes(&self, message: &str) -> Vec<String> {
        let is_named = |name: &str| {
            let mut words = message.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
            words.any(|word| word.strip_prefix("--") == Some(name))
        };
        let named = self.added.iter().filter(|(name, _)| is_named(name));
        named.map(|(name, origin)| format!("note: --{name} is set by {origin}")).collect()
    }
}

/// Adds the settings of the file and the variables to a command line that starts a server. Other
/// command lines, and those that ask for help, stay as they are.
pub(crate) fn complete(mut words: Vec<OsString>) -> Result<Completed, ConfigError> {
    let asks_for_help = |word: &OsString| ["--help", "-h", "--version", "-V"].iter().any(|flag| word == flag);
    let Some((server, first)) = Server::of(&words).filter(|_| !words.iter().any(asks_for_help)) else {
        return Ok(Completed { words, added: Vec::new() });
    };
    let layers = Layers::read(server, &words[first..], &|name| env::var_os(name))?;
    let added = layers.added();
    words.splice(first..first, layers.words());
    Ok(Completed { words, added })
}

/// The variables that set a flag of a server.
pub(crate) fn variables() -> Vec<String> {
    let of = |server: Server| Setting::all(&server.command()).into_iter().map(|setting| setting.variable());
    of(Server::Serve).chain(of(Server::Node)).chain([settings::CONFIG_VARIABLE.to_owned()]).collect()
}
