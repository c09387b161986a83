//! `watch`: prints changes as they commit, and goes on at another server when one fails.
//!
//! The command remembers the last revision that it has printed everything of. Revisions are the
//! same on all servers of a cluster, so it resumes anywhere from the next one, without a gap or a
//! repeat. The cluster id keeps it from resuming at a server of another cluster.
//!
//! A server that no longer has the changes after that revision says so. Another one may have them,
//! so all servers of the list are asked before the command gives up.

use std::thread;
use std::time::Duration;

use clap::Args;

use super::{CommandError, Context, Execute};
use crate::address::Address;
use crate::caller::{Attempts, CallError};
use crate::connection::ConnectionError;
use crate::reply::{ErrorCode, Refusal};

mod lines;
mod session;

use session::{End, Follower, Position};

/// The pause after all servers have failed in turn; doubled up to the longest one.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// How often all servers are asked in turn if some of them no longer have the changes, and the
/// others do not answer.
const ROUNDS_MAX: u32 = 6;

/// Print changes of keys as they commit
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  coracle watch                      every change
  coracle watch user:                changes of keys that begin with user:
  coracle watch --key leader
  coracle watch user: --initial      the present content first
  coracle watch --from 1842          from this revision on, if a server still has it
  coracle watch -o json | jq -r 'select(.deleted) | .key'

Every change is one line: revision, tab, what happened (put, delete or expire), tab, key, and after a put another \
tab and the value, escaped as by `coracle scan`. With -o json it is an object, {\"key\":...,\"value\":...,\"rev\":...} \
or {\"key\":...,\"deleted\":true,\"because\":...,\"rev\":...}.

When its server fails, the command goes on at the next one of --connect, without a gap or a repeat. Servers keep \
a limited history: if none has the next change any more, the command ends with exit code 6, and --initial begins \
again.")]
pub(crate) struct Watch {
    /// Only keys that begin with this
    #[arg(default_value = "", hide_default_value = true, allow_negative_numbers = true)]
    prefix: String,

    /// Only this key
    #[arg(long, value_name = "KEY", conflicts_with = "prefix", allow_negative_numbers = true)]
    key: Option<String>,

    /// Print the present content first
    #[arg(long, conflicts_with = "from")]
    initial: bool,

    /// Begin with the changes of this revision
    #[arg(long, value_name = "REV")]
    from: Option<u64>,
}

impl Execute for Watch {
    fn execute(&self, context: &mut Context<'_>) -> Result<(), CommandError> {
        let addresses = context.caller.addresses().to_vec();
        let position = match self.from {
            Some(from) => Position::After(from.saturating_sub(1)),
            None if self.initial => Position::content(),
            None => Position::Present,
        };
        let mut follower = Follower::new(self, position, context);
        let (mut rounds, mut pause) = (0, PAUSE_FIRST);
        let mut round = Round::default();
        for address in addresses.iter().cycle() {
            let end = follower.follow(address)?;
            if end.has_begun {
                (rounds, pause, round) = (0, PAUSE_FIRST, Round::default());
                thread::sleep(PAUSE_FIRST);
                continue;
            }
            let has_begun = follower.has_begun;
            round.add(address, end)?;
            if round.ends.len() == addresses.len() {
                rounds += 1;
                let is_last = !has_begun || rounds >= ROUNDS_MAX;
                round.judge(has_begun, is_last)?;
                round = Round::default();
                thread::sleep(pause);
                pause = (2 * pause).min(PAUSE_MAX);
            }
        }
        Ok(())
    }
}

/// The ends of the sessions with each server in turn.
#[derive(Debug, Default)]
struct Round {
    ends: Vec<(Address, End)>,
}

impl Round {
    /// Adds the end of a session. Fails if another server would answer alike.
    fn add(&mut self, address: &Address, end: End) -> Result<(), CommandError> {
        if let Some(refusal) = &end.refusal
            && matches!(refusal.code, ErrorCode::BadRequest | ErrorCode::TooLarge)
        {
            return Err(CommandError::Refused(refusal.clone()));
        }
        self.ends.push((address.clone(), end));
        Ok(())
    }

    /// Decides after a round in which no server served the watch.
    fn judge(&mut self, has_begun: bool, is_last: bool) -> Result<(), CommandError> {
        let is_gone = |end: &End| end.refusal.as_ref().is_some_and(Refusal::ends_watch);
        let gone = self.ends.iter().filter(|(_, end)| is_gone(end)).count();
        if gone == self.ends.len() || (gone > 0 && is_last) {
            let refusal =
                self.ends.iter().find_map(|(_, end)| end.refusal.clone().filter(Refusal::ends_watch));
            return refusal.map_or(Ok(()), |refusal| Err(CommandError::WatchEnded(refusal)));
        }
        if has_begun {
            return Ok(());
        }
        let mut attempts = Attempts::default();
        for (address, end) in std::mem::take(&mut self.ends) {
            if let Some(refusal) = end.refusal {
                return Err(CommandError::Refused(refusal));
            }
            if let Some(cause) = end.not_a_reply {
                return Err(CallError::NotAReply { address, cause }.into());
            }
            attempts.note(address, end.cause.unwrap_or(ConnectionError::Closed));
        }
        Err(CallError::Unanswered(attempts).into())
    }
}
