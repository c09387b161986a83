//! Commands from a pipe or a file: no banner, no prompt, every line tried.

use std::io::{self, BufRead, Write};

use super::{ClientError, Conversation, Next};
use crate::exit::Exit;
use crate::output::harmless_lines;

/// Runs every line of stdin. The result is the exit code of the first line that failed.
pub(super) fn run(conversation: &mut Conversation) -> Result<Exit, ClientError> {
    let mut exit = Exit::Done;
    for (number, line) in (1_u64..).zip(io::stdin().lock().lines()) {
        let line = line.map_err(ClientError::Input)?;
        match conversation.say(&line)? {
            Ok(Next::Line) => {}
            Ok(Next::Leave) => break,
            Err(failure) => {
                // Nobody is left to be told when stderr is closed.
                _ = writeln!(io::stderr(), "error: line {number}: {}", harmless_lines(&failure.to_string()));
                if exit == Exit::Done {
                    exit = failure.exit();
                }
            }
        }
    }
    Ok(exit)
}
