//! `persist`: takes a key's time to live away.

use clap::Args;

use super::{CommandError, Context, Execute};
use crate::request::Request;

/// Keep a key that would expire
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  coracle persist session:ada

The value and its revisions stay. Prints `ok`, also if the key does not expire; when it is missing, the exit code \
is 1.")]
pub(crate) struct Persist {
    /// The key
    #[arg(allow_negative_numbers = true)]
    key: String,
}

impl Execute for Persist {
    fn execute(&self, context: &mut Context<'_>) -> Result<(), CommandError> {
        context.write(&self.key, Request::Persist { key: &self.key })
    }
}
