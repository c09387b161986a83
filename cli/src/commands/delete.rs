//! `delete`: removes a key.

use clap::Args;

use super::{CommandError, Context, Execute};
use crate::request::Request;

/// Remove a key
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  coracle delete snack

Prints `ok`. When the key is missing, the exit code is 1.")]
pub(crate) struct Delete {
    /// The key
    #[arg(allow_negative_numbers = true)]
    key: String,
}

impl Execute for Delete {
    fn execute(&self, context: &mut Context<'_>) -> Result<(), CommandError> {
        context.write(&self.key, Request::Delete { key: &self.key })
    }
}
