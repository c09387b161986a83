//! `put`: stores a value under a key, and replaces an earlier value.

use clap::Args;

use super::{CommandError, Context, Execute};
use crate::request::Request;
use crate::value::value;

/// Store a value
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  coracle put snack chips
  coracle put answer 42 --json            stores the number 42, not the text
  coracle put user:7 '{\"name\":\"Ada\"}' --json
  coracle put motd - < motd.txt           stores the file, line breaks included
  coracle get motd --raw                  gives it back
  printf %s \"$TOKEN\" | coracle put token -

Prints `ok` once the value is committed on a majority of the nodes.")]
pub(crate) struct Put {
    /// 1 to 1,024 bytes
    #[arg(allow_negative_numbers = true)]
    key: String,

    /// A string; `-` reads it from stdin
    ///
    /// From stdin every byte counts, a line break at the end included: `printf %s TEXT` makes none.
    /// The string `-` itself is stored by `--json '"-"'`. A value that begins with a dash follows
    /// `--`.
    #[arg(allow_negative_numbers = true)]
    value: String,

    /// Take VALUE as JSON: a number, true, false, an object, an array or a "string"
    #[arg(long)]
    json: bool,

    /// Also print the revision of the change and that of the creation
    #[arg(long)]
    meta: bool,
}

impl Execute for Put {
    fn execute(&self, context: &mut Context<'_>) -> Result<(), CommandError> {
        let value = value(&self.value, self.json, context.stdin)?;
        let reply =
            context.ask_about(&self.key, Request::Put { key: &self.key, value: &value, meta: self.meta })?;
        context.print_done()?;
        if self.meta { context.print_meta(&reply) } else { Ok(()) }
    }
}
