//! `ping`: asks whether a server is there. A word of the interactive client only: a script asks
//! `status`.

use clap::Args;

use super::{CommandError, Context, Execute};
use crate::request::Request;

/// Ask whether the server is there
#[derive(Args, Clone, Debug)]
pub(crate) struct Ping {}

impl Execute for Ping {
    fn execute(&self, context: &mut Context<'_>) -> Result<(), CommandError> {
        let reply = context.ask(Request::Ping)?;
        context.print_reply(&reply)?;
        context.print_done()
    }
}
