//! `incr`: adds to a key's number.

use clap::Args;

use super::{CommandError, Context, Execute};
use crate::request::Request;

/// Add to a key's number
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  coracle incr visits
  coracle incr stock -3

Prints the sum. A missing key counts as 0. When the key holds anything but a whole number, or the sum does not fit \
64 bits, nothing changes and the exit code is 5.")]
pub(crate) struct Incr {
    /// 1 to 1,024 bytes
    #[arg(allow_negative_numbers = true)]
    key: String,

    /// A whole number, which may be negative
    #[arg(default_value_t = 1, allow_negative_numbers = true)]
    by: i64,
}

impl Execute for Incr {
    fn execute(&self, context: &mut Context<'_>) -> Result<(), CommandError> {
        let reply = context.ask_about(&self.key, Request::Incr { key: &self.key, by: self.by })?;
        let sum = reply.value.as_deref().ok_or(CommandError::ReplyIncomplete)?;
        context.print_text(sum)
    }
}
