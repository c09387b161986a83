//! `get`: prints one value, alone.

use clap::Args;

use super::{CommandError, Context, Execute};
use crate::request::{Consistency, Request};

/// Print a key's value
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  coracle get snack
  coracle get snack --linearizable
  coracle get user:7 | jq .name
  coracle get snack -o json

A string is printed as its characters, as `jq -r` does; any other value as its JSON. When the key is missing, \
stdout stays empty and the exit code is 1.")]
pub(crate) struct Get {
    /// The key
    key: String,

    /// See every write that was acknowledged before
    ///
    /// Without this, a random follower answers at once with what it has, which may be a little old.
    #[arg(long)]
    linearizable: bool,
}

impl Execute for Get {
    fn execute(&self, context: &mut Context<'_>) -> Result<(), CommandError> {
        let consistency = if self.linearizable { Consistency::Linearizable } else { Consistency::Eventual };
        let reply = context.ask_about(&self.key, Request::Get { key: &self.key, consistency })?;
        context.print_text(reply.value.as_deref().ok_or(CommandError::ReplyIncomplete)?)
    }
}
