//! The client's interactive mode: a prompt with line editing, history and completion.

use std::io::{self, Write};

use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{CompletionType, Config, Editor};

use super::completion::Completion;
use super::{ClientError, Conversation, Next, history};
use crate::exit::Exit;
use crate::interrupt;
use crate::output::harmless_lines;
use crate::request::Request;
use crate::target::Target;

const PROMPT: &str = "coracle> ";

/// The number of lines in the history. Arbitrary.
const HISTORY_LINES_MAX: usize = 1000;

/// Reads and runs lines until the user leaves. The exit code is always a success, because the user
/// has seen the errors of failed commands.
pub(super) fn run(conversation: &mut Conversation, target: &Target) -> Result<Exit, ClientError> {
    let mut editor = editor(target)?;
    let history = history::path();
    if let Some(path) = &history {
        // At the first use there is no history file.
        _ = editor.load_history(path);
    }
    interrupt::gives_up_commands();
    greet(conversation)?;
    loop {
        let line = match editor.readline(PROMPT) {
            Ok(line) => line,
            // No command is running, so Ctrl-C discards the line.
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => return Ok(Exit::Done),
            Err(error) => return Err(error.into()),
        };
        let next = interrupt::during_command(|| {
            editor.add_history_entry(line.as_str())?;
            if let Some(path) = &history {
                // Saved before the command runs, so that the history includes a command that is
                // interrupted. The client goes on when the history cannot be saved.
                _ = editor.append_history(path);
            }
            run_all(conversation, &line)
        })?;
        if next == Next::Leave {
            return Ok(Exit::Done);
        }
    }
}

/// Runs all lines that were entered at once: one command, or several pasted ones. An interrupt
/// discards the remaining lines.
fn run_all(conversation: &mut Conversation, lines: &str) -> Result<Next, ClientError> {
    for line in lines.lines() {
        match conversation.say(line)? {
            Ok(Next::Line) => {}
            Ok(Next::Leave) => return Ok(Next::Leave),
            Err(failure) => {
                _ = writeln!(io::stderr(), "error: {}", harmless_lines(&failure.to_string()));
                if interrupt::has_come() {
                    break;
                }
            }
        }
    }
    Ok(Next::Line)
}

fn editor(target: &Target) -> Result<Editor<Completion, FileHistory>, ReadlineError> {
    let config = Config::builder()
        .completion_type(CompletionType::List)
        .history_ignore_space(true)
        .max_history_size(HISTORY_LINES_MAX)?
        .build();
    let mut editor = Editor::with_config(config)?;
    editor.set_helper(Some(Completion::new(target)));
    Ok(editor)
}

/// Prints a banner with the server's address. A server that is not reachable yet is no error,
/// because each command connects again if necessary.
fn greet(conversation: &mut Conversation) -> Result<(), ClientError> {
    let version = env!("CARGO_PKG_VERSION");
    let answer = interrupt::during_command(|| conversation.caller.call(Request::Ping));
    let state = match answer {
        Ok(_) => format!(", connected to {}. `help`", conversation.caller.address()),
        Err(reason) => {
            let reason = harmless_lines(&reason.to_string()).replace('\n', "\n  ");
            format!(" has no server yet: {reason}\nEach command tries again. `help`")
        }
    };
    writeln!(conversation.out, "coracle {version}{state} helps, Ctrl-D leaves.")
        .and_then(|()| conversation.out.flush())
        .map_err(ClientError::Output)
}
