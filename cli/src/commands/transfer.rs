//! `transfer`: leadership transfer to a chosen node.

use clap::Args;

use super::{CommandError, Context, Execute};
use crate::numbers;
use crate::request::Request;

/// Transfer leadership to a node
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  coracle transfer 2
  coracle status

Writes and linearizable reads wait meanwhile, usually a few milliseconds. If the node is not elected within an \
election timeout, the current leader keeps leading and the exit code is 4.")]
pub(crate) struct Transfer {
    /// The node's id
    #[arg(value_name = "ID", value_parser = numbers::id)]
    node: u64,
}

impl Execute for Transfer {
    fn execute(&self, context: &mut Context<'_>) -> Result<(), CommandError> {
        let reply = context.ask(Request::Transfer { node: self.node })?;
        context.print_reply(&reply)?;
        context.print_done()
    }
}
