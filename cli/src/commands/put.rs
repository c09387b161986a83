//! `put`: stores a value under a key, and replaces an earlier value.

use std::time::Duration;

use clap::Args;

use super::{CommandError, Context, Execute};
use crate::durations::{positive, whole_ms};
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
  coracle put session:ada 7 --ttl 30min   expires half an hour later

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

    /// Let the key expire this long after it is stored, such as 250ms, 30s or 2h
    ///
    /// A put without it stores a key that does not expire, whatever the key had before.
    #[arg(long, value_name = "DUR", value_parser = positive)]
    ttl: Option<Duration>,

    /// Also print the revision of the change, that of the creation, and the time left
    #[arg(long)]
    meta: bool,
}

impl Execute for Put {
    fn execute(&self, context: &mut Context<'_>) -> Result<(), CommandError> {
        let value = value(&self.value, self.json, context.stdin)?;
        let ttl_ms = self.ttl.map(whole_ms);
        let request = Request::Put { key: &self.key, value: &value, ttl_ms, meta: self.meta };
        let reply = context.ask_about(&self.key, request)?;
        context.print_done()?;
        if self.meta { context.print_meta(&reply) } else { Ok(()) }
    }
}
