//! `delete`: removes a key, or all keys with a prefix.

use clap::{ArgGroup, Args};

use super::{CommandError, Context, Execute};
use crate::request::Request;

/// Remove a key, or all keys with a prefix
#[derive(Args, Clone, Debug)]
#[command(
    group = ArgGroup::new("what").required(true),
    after_help = "\
Examples:
  coracle delete snack
  coracle delete snack --rev 17           only if it has not changed since
  coracle delete --prefix session:

Prints `ok`. When the key is missing, the exit code is 1; when it has another revision, the exit code is 5. With \
--prefix, prints how many keys were removed: they go in batches of 1,000, so other clients may see some of them \
gone before the others."
)]
pub(crate) struct Delete {
    /// The key
    #[arg(group = "what", allow_negative_numbers = true)]
    key: Option<String>,

    /// The revision that the key must have, as `get --meta` prints it
    #[arg(long, value_name = "N", requires = "key")]
    rev: Option<u64>,

    /// Remove all keys that begin with this
    #[arg(long, value_name = "PREFIX", group = "what", allow_negative_numbers = true)]
    prefix: Option<String>,
}

impl Execute for Delete {
    fn execute(&self, context: &mut Context<'_>) -> Result<(), CommandError> {
        if let Some(key) = &self.key {
            return context.write(key, Request::Delete { key, rev: self.rev });
        }
        let prefix = self.prefix.as_deref().unwrap_or_default();
        let mut deleted = 0;
        loop {
            let reply = context.ask(Request::DeletePrefix { prefix }).map_err(|error| match deleted {
                0 => error,
                _ => CommandError::PartlyDeleted { deleted, error: Box::new(error) },
            })?;
            deleted += reply.deleted.ok_or(CommandError::ReplyIncomplete)?;
            if reply.more {
                continue;
            }
            let line = match context.format.is_text() {
                true => deleted.to_string(),
                false => format!("{{\"deleted\":{deleted},\"more\":false,\"status\":\"ok\"}}"),
            };
            return Ok(writeln!(context.out, "{line}")?);
        }
    }
}
