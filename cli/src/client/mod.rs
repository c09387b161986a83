//! The interactive client, `coracle client`: runs many commands over one connection, typed at a
//! prompt or read from a pipe.
//!
//! The commands are those of [`commands`](crate::commands), not a second set. This module only
//! reads the lines, runs them one after another and reports failures.

use std::io::{self, BufWriter, IsTerminal, Write};

use clap::Args;
use rustyline::error::ReadlineError;
use thiserror::Error;

use crate::caller::Caller;
use crate::client::line::{Line, LineError, Word};
use crate::commands::{CommandError, Context, Execute};
use crate::exit::Exit;
use crate::output::Format;
use crate::target::Target;
use crate::value::Stdin;

mod completion;
mod history;
mod line;
mod piped;
mod typed;
mod words;

/// Talk to a server command by command
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  coracle client                     a prompt: Tab completes, `help` helps
  printf 'put a 1\\nget a\\n' | coracle client
                                     one command per line, answers on stdout
  coracle client -o json < commands.txt

Lines are quoted as in a shell; one that begins with { is sent to the server as it is, and one that begins \
with # is a comment. When stdin is not a terminal there is no banner and no prompt, errors go to stderr with their \
line number, every line is tried, and the exit code is that of the first failure, or 0.

Commands are saved in $XDG_STATE_HOME/coracle/history (or ~/.local/state), unless they begin with a space.")]
pub(crate) struct Client {
    #[command(flatten)]
    target: Target,
}

/// Why the client ended early. A failed command does not end it.
#[derive(Debug, Error)]
pub(crate) enum ClientError {
    #[error("cannot read commands: {0}")]
    Input(#[source] io::Error),
    #[error("cannot use the terminal: {0}")]
    Terminal(#[from] ReadlineError),
    #[error("cannot write the answers: {0}")]
    Output(#[source] io::Error),
}

impl ClientError {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Input(_) | Self::Terminal(_) | Self::Output(_) => Exit::Failure,
        }
    }

    /// Returns whether stdout was closed by its reader.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// Why one line failed.
#[derive(Debug, Error)]
enum LineFailure {
    #[error(transparent)]
    Line(#[from] LineError),
    #[error(transparent)]
    Command(#[from] CommandError),
}

impl LineFailure {
    fn exit(&self) -> Exit {
        match self {
            Self::Line(_) => Exit::Usage,
            Self::Command(error) => error.exit(),
        }
    }
}

/// Whether to read another line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Line,
    Leave,
}

/// The state that all lines share: the connection and the output.
struct Conversation {
    caller: Caller,
    format: Format,
    out: BufWriter<io::Stdout>,
    /// Whether stdout is a terminal.
    is_terminal: bool,
}

impl Client {
    /// Runs lines until the input ends. When the lines are piped, returns the exit code of the
    /// first failed line.
    pub(crate) fn run(self) -> Result<Exit, ClientError> {
        let mut conversation = Conversation {
            caller: self.target.caller(),
            format: self.target.output,
            out: BufWriter::new(io::stdout()),
            is_terminal: io::stdout().is_terminal(),
        };
        if io::stdin().is_terminal() {
            typed::run(&mut conversation, &self.target)
        } else {
            piped::run(&mut conversation)
        }
    }
}

impl Conversation {
    /// Runs one line and flushes its output, so that replies are visible before the next line is
    /// read.
    fn say(&mut self, line: &str) -> Result<Result<Next, LineFailure>, ClientError> {
        let said = self.dispatch(line);
        let flushed = self.out.flush();
        match said {
            Err(LineFailure::Command(CommandError::Output(error))) => Err(ClientError::Output(error)),
            said => flushed.map(|()| said).map_err(ClientError::Output),
        }
    }

    fn dispatch(&mut self, line: &str) -> Result<Next, LineFailure> {
        let mut context = Context {
            caller: &mut self.caller,
            format: self.format,
            out: &mut self.out,
            is_terminal: self.is_terminal,
            stdin: Stdin::Taken,
        };
        match Line::parse(line)? {
            Line::Nothing => {}
            Line::Raw(request) => context.ask_raw(request)?,
            Line::Help(text) => write!(context.out, "{text}").map_err(CommandError::Output)?,
            Line::Word(Word::Exit) => return Ok(Next::Leave),
            Line::Word(Word::Put(put)) => put.execute(&mut context)?,
            Line::Word(Word::Get(get)) => get.execute(&mut context)?,
            Line::Word(Word::Delete(delete)) => delete.execute(&mut context)?,
            Line::Word(Word::Cas(cas)) => cas.execute(&mut context)?,
            Line::Word(Word::Incr(incr)) => incr.execute(&mut context)?,
            Line::Word(Word::Touch(touch)) => touch.execute(&mut context)?,
            Line::Word(Word::Persist(persist)) => persist.execute(&mut context)?,
            Line::Word(Word::Scan(scan)) => scan.execute(&mut context)?,
            Line::Word(Word::Status(status)) => status.execute(&mut context)?,
            Line::Word(Word::Transfer(transfer)) => transfer.execute(&mut context)?,
            Line::Word(Word::Member(member)) => member.execute(&mut context)?,
            Line::Word(Word::Ping(ping)) => ping.execute(&mut context)?,
        }
        Ok(Next::Line)
    }
}
