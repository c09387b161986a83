//! `ping`: checks whether the server answers. Only the interactive client has this command; scripts
//! use `status`.

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
