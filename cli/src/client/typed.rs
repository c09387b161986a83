//! Commands typed at a terminal: a prompt with editing, history and completion.

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

/// Commands remembered. Arbitrary.
const HISTORY_LINES_MAX: usize = 1000;

/// Reads and runs lines until the user leaves. A failed command was seen by whoever typed it, so
/// leaving is always a success.
pub(super) fn run(conversation: &mut Conversation, target: &Target) -> Result<Exit, ClientError> {
    let mut editor = editor(target)?;
    let history = history::path();
    if let Some(path) = &history {
        // The first time, there is none.
        _ = editor.load_history(path);
    }
    interrupt::gives_up_commands();
    greet(conversation)?;
    loop {
        let line = match editor.readline(PROMPT) {
            Ok(line) => line,
            // No command is running: Ctrl-C gives up the line.
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => return Ok(Exit::Done),
            Err(error) => return Err(error.into()),
        };
        let next = interrupt::during_command(|| {
            editor.add_history_entry(line.as_str())?;
            if let Some(path) = &history {
                // Saved before the command runs, so that an interrupted one is remembered too. A
                // history that cannot be saved is no reason to stop.
                _ = editor.append_history(path);
            }
            run_all(conversation, &line)
        })?;
        if next == Next::Leave {
            return Ok(Exit::Done);
        }
    }
}

/// Runs what was entered at once: one command, or each line of what was pasted. An interrupt gives
/// up all that is left.
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

/// Says which server is there. One that is not may come later: each command connects by itself if
/// it has to.
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
