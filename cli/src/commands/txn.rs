//! `txn`: executes a transaction that it reads from stdin.

use std::io::{self, Read};

use clap::Args;
use serde::Deserialize;
use serde_json::value::RawValue;
use thiserror::Error;

use super::{CommandError, Context, Execute};
use crate::exit::Exit;
use crate::request::Request;

/// Execute a transaction from stdin
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  coracle txn <<'END'
  {\"if\":   [{\"key\":\"lock\",\"absent\":true}],
   \"then\": [{\"op\":\"put\",\"key\":\"lock\",\"value\":\"alice\"},
            {\"op\":\"incr\",\"key\":\"turns\",\"by\":1}],
   \"else\": [{\"op\":\"get\",\"key\":\"lock\"}]}
  END

Conditions: {\"key\":K} with \"rev\":N, \"value\":V or \"absent\":true. Operations: put, delete, incr, get. If all \
conditions hold, the operations in `then` happen, all at once; otherwise those in `else`, and the exit code is 5. \
Prints one line per operation: the value of a get, put or incr, `ok` for a delete, an empty line for a missing key.")]
pub(crate) struct Txn {}

/// Why a transaction was not executed, or executed its `else`.
#[derive(Debug, Error)]
pub(crate) enum TxnError {
    #[error("cannot read the transaction from stdin: {0}")]
    Stdin(#[source] io::Error),
    #[error(
        "stdin is not a transaction: {0}\na transaction is a JSON object with \"if\", \"then\" and \"else\", each \
         a list"
    )]
    NotATransaction(#[source] serde_json::Error),
    #[error("a condition did not hold: `else` was executed")]
    Else,
}

impl TxnError {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Stdin(_) => Exit::Failure,
            Self::NotATransaction(_) => Exit::Usage,
            Self::Else => Exit::Precondition,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Parts<'a> {
    /// The operation, for those who paste a request of the protocol.
    #[serde(borrow)]
    op: Option<&'a str>,
    #[serde(borrow, default, rename = "if")]
    conditions: Option<&'a RawValue>,
    #[serde(borrow, default)]
    then: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "else")]
    otherwise: Option<&'a RawValue>,
}

impl Execute for Txn {
    fn execute(&self, context: &mut Context<'_>) -> Result<(), CommandError> {
        let mut text = String::new();
        io::stdin().lock().read_to_string(&mut text).map_err(TxnError::Stdin)?;
        let parts: Parts<'_> = serde_json::from_str(&text).map_err(TxnError::NotATransaction)?;
        if let Some(op) = parts.op.filter(|op| *op != "txn") {
            let error = serde::de::Error::custom(format_args!("its \"op\" is {op:?}"));
            return Err(TxnError::NotATransaction(error).into());
        }
        let line = |part: Option<&RawValue>| crate::value::literal(part.map_or("[]", RawValue::get), true);
        let (conditions, then) = (line(parts.conditions)?, line(parts.then)?);
        let otherwise = line(parts.otherwise)?;
        let request = Request::Txn { conditions: &conditions, then: &then, otherwise: &otherwise };
        let reply = context.ask(request)?;
        context.print_reply(&reply)?;
        for operation in reply.replies.as_deref().ok_or(CommandError::ReplyIncomplete)? {
            match operation.value.as_deref() {
                Some(value) if operation.is_ok() => context.print_text(value)?,
                None if operation.is_ok() => context.print_done()?,
                _ if context.format.is_text() => writeln!(context.out)?,
                _ => {}
            }
        }
        match reply.succeeded {
            Some(true) => Ok(()),
            Some(false) => Err(TxnError::Else.into()),
            None => Err(CommandError::ReplyIncomplete),
        }
    }
}
