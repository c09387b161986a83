//! `get`: prints the value of a key, and nothing else.

use clap::Args;

use super::{CommandError, Context, Execute};
use crate::output::Format;
use crate::request::{Consistency, Request};

/// Print a key's value
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  coracle get snack
  coracle get snack --linearizable
  coracle get user:7 | jq .name
  coracle get snack -o json
  coracle get snack --meta                also its revisions and the time left
  coracle get motd --raw > motd.txt       what `coracle put motd - < motd.txt`
                                          has stored, byte for byte

A string is printed as its characters, as `jq -r` does; any other value as its JSON. On a terminal a string that could \
be taken for another value, as \"42\" could for the number 42, has its quotes, and control characters are escaped. When the \
key is missing, stdout stays empty and the exit code is 1.")]
pub(crate) struct Get {
    /// The key
    #[arg(allow_negative_numbers = true)]
    key: String,

    /// Reflect every write that was acknowledged before
    ///
    /// Without it, a random follower answers from its own state, which may be slightly stale.
    #[arg(long)]
    linearizable: bool,

    /// Print the value without a line break after it: a string as its characters, any other value
    /// as its JSON
    ///
    /// Overrides -o. On a terminal control characters are still escaped.
    #[arg(long, conflicts_with = "meta")]
    raw: bool,

    /// Also print the revision of the last change, that of the creation, and the time left
    #[arg(long)]
    meta: bool,
}

impl Execute for Get {
    fn execute(&self, context: &mut Context<'_>) -> Result<(), CommandError> {
        let consistency = if self.linearizable { Consistency::Linearizable } else { Consistency::Eventual };
        if self.raw {
            context.format = Format::Text;
        }
        let reply =
            context.ask_about(&self.key, Request::Get { key: &self.key, consistency, meta: self.meta })?;
        let value = reply.value.as_deref().ok_or(CommandError::ReplyIncomplete)?;
        if self.raw {
            return context.print_raw(value);
        }
        context.print_text(value)?;
        if self.meta { context.print_meta(&reply) } else { Ok(()) }
    }
}
