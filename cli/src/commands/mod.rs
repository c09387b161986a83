//! The commands that ask a server something: one file each, used by `coracle COMMAND` and by each
//! line of `coracle client` alike.
//!
//! A command is its arguments plus [`Execute`]. It prints to the [`Context`] and reports failure as
//! a [`CommandError`]; it neither exits nor writes to stderr. A new command is a new file here and
//! one line in each of the two enums that list commands: [`arguments`](crate::arguments) and
//! [`client::line`](crate::client).

use std::io::{self, Write};

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
mod member;
mod mismatch;
mod ping;
mod put;
mod salvage;
mod scan;
mod status;
mod transfer;

pub(crate) use backup::{Backup, BackupError};
pub(crate) use cas::Cas;
pub(crate) use delete::Delete;
pub(crate) use get::Get;
pub(crate) use member::{Add, List, Member, Promote, Remove};
pub(crate) use ping::Ping;
pub(crate) use put::Put;
pub(crate) use scan::Scan;
pub(crate) use status::Status;
pub(crate) use transfer::Transfer;

use mismatch::Found;

/// What a write prints when it worked.
const DONE: &str = "ok";

/// A command's arguments, ready to be carried out.
pub(crate) trait Execute {
    /// Asks the server and prints the answer.
    fn execute(&self, context: &mut Context<'_>) -> Result<(), CommandError>;
}

/// What a command works with.
pub(crate) struct Context<'a> {
    pub(crate) caller: &'a mut Caller,
    pub(crate) format: Format,
    /// Flushed by whoever runs the command.
    pub(crate) out: &'a mut dyn Write,
    /// Whether `out` is read by a person, to whom no value may look like another, and whose
    /// terminal must get no commands.
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
    #[error("there is no member {node}: the members are {members}")]
    NoSuchMember { node: u64, members: Box<str> },
    #[error(transparent)]
    Backup(#[from] BackupError),
    #[error(transparent)]
    Refused(Refusal),
    #[error("the server's reply lacks what was asked for")]
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
            Self::Mismatch { .. } => Exit::Precondition,
            Self::NoSuchMember { .. } => Exit::Usage,
            Self::Backup(error) => error.exit(),
            Self::Refused(refusal) => refusal.exit(),
            Self::Call(error) => error.exit(),
            Self::ReplyIncomplete | Self::Output(_) => Exit::Failure,
        }
    }

    /// Whether an interrupt has ended the command.
    pub(crate) fn is_interrupt(&self) -> bool {
        matches!(self, Self::Call(CallError::GivenUp { .. }))
    }

    /// Whether the reader of stdout has left, as `head` does: no failure worth a word.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

impl Context<'_> {
    /// Sends a request about one key. As JSON, the reply is printed whatever it says.
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
                let expected = if let Request::Cas { expect, .. } = request { expect } else { None };
                let found = Found::new(expected, reply.actual.as_deref());
                Err(CommandError::Mismatch { key: key.into(), found })
            }
            Some(refusal) => Err(CommandError::Refused(refusal)),
        }
    }

    /// Sends a request about no key in particular.
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

    /// Sends a line as it is and prints the reply as it is, in either format.
    pub(crate) fn ask_raw(&mut self, line: &str) -> Result<(), CommandError> {
        let effect = effect_of_line(line);
        let reply = self.caller.call_line(line, effect)?;
        self.print_line(&reply.line)?;
        reply.refusal(effect).map_or(Ok(()), |refusal| Err(CommandError::Refused(refusal)))
    }

    /// Asks for a write, and says that it is done.
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

    fn print_reply(&mut self, reply: &Reply) -> Result<(), CommandError> {
        if !self.format.is_text() {
            self.print_line(&reply.line)?;
        }
        Ok(())
    }

    /// Prints a line of JSON.
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

    /// Prints a string's characters, or another value's JSON, and nothing else; to a terminal no
    /// commands, and a line break.
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
