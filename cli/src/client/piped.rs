//! The client's non-interactive mode: commands from a pipe or a file, without a banner or a prompt.
//! Every line is run, even after a failure.

use std::io::{self, BufRead, Write};

use super::{ClientError, Conversation, Next};
use crate::exit::Exit;
use crate::output::harmless_lines;

/// Runs every line of stdin. Returns the exit code of the first line that failed.
pub(super) fn run(conversation: &mut Conversation) -> Result<Exit, ClientError> {
    let mut exit = Exit::Done;
    for (number, line) in (1_u64..).zip(io::stdin().lock().lines()) {
        let line = line.map_err(ClientError::Input)?;
        match conversation.say(&line)? {
            Ok(Next::Line) => {}
            Ok(Next::Leave) => break,
            Err(failure) => {
                // When stderr is closed, the message is lost.
                _ = writeln!(io::stderr(), "error: line {number}: {}", harmless_lines(&failure.to_string()));
                if exit == Exit::Done {
                    exit = failure.exit();
                }
            }
        }
    }
    Ok(exit)
}
