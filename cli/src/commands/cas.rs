//! `cas`: compare-and-swap, a write that takes effect only if the key has the expected value.

use std::time::Duration;

use clap::{ArgGroup, Args};

use super::{CommandError, Context, Execute};
use crate::durations::{positive, whole_ms};
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

    /// Let the key expire this long after it is stored, such as 250ms, 30s or 2h
    #[arg(long, value_name = "DUR", value_parser = positive)]
    ttl: Option<Duration>,
}

impl Execute for Cas {
    fn execute(&self, context: &mut Context<'_>) -> Result<(), CommandError> {
        let expect = self.expect.as_deref().map(|old| literal(old, self.json)).transpose()?;
        let value = value(&self.value, self.json, context.stdin)?;
        let ttl_ms = self.ttl.map(whole_ms);
        if let Some(rev) = self.rev {
            let request = Request::CasRevision { key: &self.key, rev, value: &value, ttl_ms };
            return context.write(&self.key, request);
        }
        let expect = expect.as_deref();
        let swap = Request::Cas { key: &self.key, expect, value: &value, ttl_ms, meta: false };
        context.write(&self.key, swap)
    }
}
