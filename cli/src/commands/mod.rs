//! The client commands that send requests to a server: one file per command, used by both `coracle
//! COMMAND` and each line of `coracle client`.
//!
//! A command is a struct of arguments that implements [`Execute`]. It prints to the [`Context`] and
//! reports failure as a [`CommandError`]; it neither exits nor writes to stderr. A new command
//! needs a new file here and one line in each of the two enums that list commands:
//! [`arguments`](crate::arguments) and [`client::line`](crate::client).

use std::io::{self, Write};
use std::time::Duration;

use serde_json::value::RawValue;
use thiserror::Error;

use crate::caller::{CallError, Caller};
use crate::exit::Exit;
use crate::output::{Format, calm, harmless, plain, unmistakable};
use crate::reply::{ErrorCode, Refusal, Reply};
use crate::request::{Effect, Request, effect_of_line};
use crate::value::{Stdin, ValueError};

mod backup;
mod cas;
mod delete;
mod get;
mod incr;
mod member;
mod mismatch;
mod persist;
mod ping;
mod put;
mod salvage;
mod scan;
mod status;
mod touch;
mod transfer;
mod txn;
mod watch;

pub(crate) use backup::{Backup, BackupError};
pub(crate) use cas::Cas;
pub(crate) use delete::Delete;
pub(crate) use get::Get;
pub(crate) use incr::Incr;
pub(crate) use member::{Add, List, Member, Promote, Remove};
pub(crate) use persist::Persist;
pub(crate) use ping::Ping;
pub(crate) use put::Put;
pub(crate) use scan::Scan;
pub(crate) use status::Status;
pub(crate) use touch::Touch;
pub(crate) use transfer::Transfer;
pub(crate) use txn::{Txn, TxnError};
pub(crate) use watch::Watch;

use mismatch::Found;

/// The output of a write that succeeded.
const DONE: &str = "ok";

/// A command that can be executed.
pub(crate) trait Execute {
    /// Sends the command's requests and prints the reply.
    fn execute(&self, context: &mut Context<'_>) -> Result<(), CommandError>;
}

/// The environment in which a command is executed.
pub(crate) struct Context<'a> {
    pub(crate) caller: &'a mut Caller,
    pub(crate) format: Format,
    /// The output; flushed by the caller of [`Execute::execute`].
    pub(crate) out: &'a mut dyn Write,
    /// Whether `out` is a terminal. On a terminal no string may look like another JSON value, and
    /// control characters are escaped.
    pub(crate) is_terminal: bool,
    pub(crate) stdin: Stdin,
}

/// Why a command failed.
#[derive(Debug, Error)]
pub(crate) enum CommandError {
    #[error(transparent)]
    Value(#[from] ValueError),
    #[error("key not found: {key:?}")]
    NotFound { key: Box<str> },
    #[error("{key:?} does not hold the expected value{found}")]
    Mismatch { key: Box<str>, found: Found },
    #[error("{key:?} does not have the expected revision{found}")]
    OtherRevision { key: Box<str>, found: Found },
    #[error("{deleted} keys were removed before this failed: {error}")]
    PartlyDeleted { deleted: u64, error: Box<CommandError> },
    #[error(transparent)]
    Txn(#[from] TxnError),
    #[error("there is no member {node}: the members are {members}")]
    NoSuchMember { node: u64, members: Box<str> },
    #[error(transparent)]
    Backup(#[from] BackupError),
    #[error(transparent)]
    Refused(Refusal),
    #[error(
        "{0}\nno server has the changes that come next: `coracle watch --initial` begins again with the present \
         content"
    )]
    WatchEnded(Refusal),
    #[error("the server's reply is incomplete")]
    ReplyIncomplete,
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("cannot write the answer: {0}")]
    Output(#[from] io::Error),
}

impl CommandError {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Value(error) => error.exit(),
            Self::NotFound { .. } => Exit::NotFound,
            Self::Mismatch { .. } | Self::OtherRevision { .. } => Exit::Precondition,
            Self::PartlyDeleted { error, .. } => error.exit(),
            Self::Txn(error) => error.exit(),
            Self::NoSuchMember { .. } => Exit::Usage,
            Self::Backup(error) => error.exit(),
            Self::Refused(refusal) | Self::WatchEnded(refusal) => refusal.exit(),
            Self::Call(error) => error.exit(),
            Self::ReplyIncomplete | Self::Output(_) => Exit::Failure,
        }
    }

    /// Returns whether an interrupt ended the command.
    pub(crate) fn is_interrupt(&self) -> bool {
        match self {
            Self::PartlyDeleted { error, .. } => error.is_interrupt(),
            other => matches!(other, Self::Call(CallError::GivenUp { .. })),
        }
    }

    /// Returns whether stdout was closed by its reader, such as `head`, which is no failure worth
    /// reporting.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

impl Context<'_> {
    /// Sends a request about one key. In the JSON formats the reply is printed even if it is an
    /// error.
    fn ask_about(&mut self, key: &str, request: Request<'_>) -> Result<Reply, CommandError> {
        let reply = self.caller.call(request)?;
        self.print_reply(&reply)?;
        match reply.refusal(request.effect()) {
            None => Ok(reply),
            Some(Refusal { code: ErrorCode::NotFound, .. }) => {
                Err(CommandError::NotFound { key: key.into() })
            }
            Some(Refusal { code: ErrorCode::CasMismatch, .. }) => {
                if let Some(actual) = &reply.actual {
                    self.print_text(actual)?;
                }
                let (key, actual) = (key.into(), reply.actual.as_deref());
                Err(match request {
                    Request::Cas { expect, .. } => {
                        CommandError::Mismatch { key, found: Found::new(expect, actual) }
                    }
                    _ => {
                        let rev = reply.rev.filter(|rev| *rev > 0);
                        let found = rev.map_or(Found::Nothing, Found::OtherRevision);
                        CommandError::OtherRevision { key, found }
                    }
                })
            }
            Some(refusal) => Err(CommandError::Refused(refusal)),
        }
    }

    /// Sends a request that is not about a single key.
    fn ask(&mut self, request: Request<'_>) -> Result<Reply, CommandError> {
        let reply = self.caller.call(request)?;
        match reply.refusal(request.effect()) {
            None => Ok(reply),
            Some(refusal) => {
                self.print_reply(&reply)?;
                Err(CommandError::Refused(refusal))
            }
        }
    }

    /// Sends a line unchanged, and prints the reply as JSON in every format.
    pub(crate) fn ask_raw(&mut self, line: &str) -> Result<(), CommandError> {
        let effect = effect_of_line(line);
        let reply = self.caller.call_line(line, effect)?;
        self.print_line(&reply.line)?;
        reply.refusal(effect).map_or(Ok(()), |refusal| Err(CommandError::Refused(refusal)))
    }

    /// Sends a write and prints that it succeeded.
    fn write(&mut self, key: &str, request: Request<'_>) -> Result<(), CommandError> {
        debug_assert_eq!(request.effect(), Effect::Writes);
        self.ask_about(key, request)?;
        self.print_done()
    }

    fn print_done(&mut self) -> Result<(), CommandError> {
        if self.format.is_text() {
            writeln!(self.out, "{DONE}")?;
        }
        Ok(())
    }

    /// Prints the revisions of a key, one per line, and the time left if it expires.
    fn print_meta(&mut self, reply: &Reply) -> Result<(), CommandError> {
        if self.format.is_text() {
            for (name, revision) in [("rev", reply.rev), ("created", reply.created)] {
                let revision = revision.ok_or(CommandError::ReplyIncomplete)?;
                writeln!(self.out, "{name} {revision}")?;
            }
            if let Some(ms) = reply.ttl_ms {
                writeln!(self.out, "ttl {}", humantime::format_duration(Duration::from_millis(ms)))?;
            }
        }
        Ok(())
    }

    fn print_reply(&mut self, reply: &Reply) -> Result<(), CommandError> {
        if !self.format.is_text() {
            self.print_line(&reply.line)?;
        }
        Ok(())
    }

    /// Prints a line of JSON; on a terminal with control characters escaped.
    fn print_line(&mut self, line: &str) -> Result<(), CommandError> {
        let line = if self.is_terminal { harmless(line) } else { line.into() };
        Ok(writeln!(self.out, "{line}")?)
    }

    fn print_text(&mut self, value: &RawValue) -> Result<(), CommandError> {
        if self.format.is_text() {
            let text = if self.is_terminal { unmistakable(value) } else { plain(value) };
            writeln!(self.out, "{text}")?;
        }
        Ok(())
    }

    /// Prints a string's characters, or another value's JSON, and nothing else. On a terminal,
    /// escapes control characters and ends the output with a line break.
    fn print_raw(&mut self, value: &RawValue) -> Result<(), CommandError> {
        let text = plain(value);
        if self.is_terminal {
            let end = if text.ends_with('\n') { "" } else { "\n" };
            write!(self.out, "{}{end}", calm(&text))?;
        } else {
            self.out.write_all(text.as_bytes())?;
        }
        Ok(())
    }
}
