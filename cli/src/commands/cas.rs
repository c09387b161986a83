//! `cas`: compare-and-swap, a write that takes effect only if the key has the expected value.

use clap::{ArgGroup, Args};

use super::{CommandError, Context, Execute};
use crate::request::Request;
use crate::value::{literal, value};

/// Store a value only if the key holds the expected one
#[derive(Args, Clone, Debug)]
#[command(
    group = ArgGroup::new("condition").required(true),
    after_help = "\
Examples:
  coracle cas lock --absent alice             acquires the lock if it is free
  coracle cas lock --expect alice bob         hands it over
  coracle cas counter --json --expect 41 42
  coracle cas lock --rev 17 bob               only if it has not changed since

Prints `ok`. If the key has another value, prints that value; if it is absent, prints nothing. The exit code \
is 5 in both cases."
)]
pub(crate) struct Cas {
    /// 1 to 1,024 bytes
    #[arg(allow_negative_numbers = true)]
    key: String,

    /// The value that the key must have
    #[arg(long, value_name = "OLD", group = "condition", allow_negative_numbers = true)]
    expect: Option<String>,

    /// The key must be absent
    #[arg(long, group = "condition")]
    absent: bool,

    /// The revision that the key must have, as `get --meta` prints it; 0: the key must be absent
    #[arg(long, value_name = "N", group = "condition")]
    rev: Option<u64>,

    /// A string; `-` reads it from stdin
    #[arg(allow_negative_numbers = true)]
    value: String,

    /// Take both OLD and VALUE as JSON
    #[arg(long)]
    json: bool,
}

impl Execute for Cas {
    fn execute(&self, context: &mut Context<'_>) -> Result<(), CommandError> {
        let expect = self.expect.as_deref().map(|old| literal(old, self.json)).transpose()?;
        let value = value(&self.value, self.json, context.stdin)?;
        if let Some(rev) = self.rev {
            let request = Request::CasRevision { key: &self.key, rev, value: &value };
            return context.write(&self.key, request);
        }
        context.write(&self.key, Request::Cas { key: &self.key, expect: expect.as_deref(), value: &value })
    }
}
