//! `touch`: sets a key's time to live.

use std::time::Duration;

use clap::Args;

use super::{CommandError, Context, Execute};
use crate::durations::{positive, whole_ms};
use crate::request::Request;

/// Set a key's time to live
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  coracle touch session:ada 30min

Counts from now on, whatever the key had before. The value and its revisions stay. Prints `ok`; when the key is \
missing, the exit code is 1.")]
pub(crate) struct Touch {
    /// The key
    #[arg(allow_negative_numbers = true)]
    key: String,

    /// How long it lives, such as 250ms, 30s or 2h
    #[arg(value_name = "DUR", value_parser = positive)]
    ttl: Duration,
}

impl Execute for Touch {
    fn execute(&self, context: &mut Context<'_>) -> Result<(), CommandError> {
        context.write(&self.key, Request::Touch { key: &self.key, ttl_ms: whole_ms(self.ttl) })
    }
}
