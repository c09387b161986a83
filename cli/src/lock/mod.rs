//! `lock`: runs a command while holding a lock.
//!
//! The lock is a key with a time to live, `lock/NAME`. Its value names the holder and is unique, so
//! each request is safe to repeat: to acquire sets the key if it is absent, to renew sets it again
//! if it still has that value, and to release deletes it on the same condition.
//!
//! A lock with a time limit excludes others only while its holder keeps time. A holder that is
//! paused may run on after the lock has expired, and no lock service can prevent that. So the
//! command gets a fencing token, the revision at which the key was created, and whatever it changes
//! must reject a token that is lower than one it has seen. See docs/recipes.md.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use thiserror::Error;

use crate::caller::{CallError, Caller};
use crate::durations;
use crate::exit::Exit;
use crate::output::harmless_lines;
use crate::reply::Refusal;
use crate::target::Target;

mod command;
mod holder;
mod lease;

use command::{Event, Running, Signals};
use holder::{Attempt, Holder};
use lease::Lease;

/// How long to wait after a failed attempt. Arbitrary.
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// How long to wait for a change of the key before the next attempt, so that `--wait` and signals
/// are heeded.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The shortest time to live: a shorter one would be lost by any delay.
const TTL_MIN: Duration = Duration::from_millis(500);

/// Run a command while holding a lock
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  coracle lock backup -- ./backup.sh
  coracle lock leader --ttl 5s -- ./serve       an election: the holder leads
  coracle lock backup --wait 0s -- ./backup.sh  gives up at once if it is held

The lock is the key lock/NAME, which is renewed while CMD runs and deleted when it ends. CMD finds a fencing token in \
CORACLE_FENCE: a number that is higher for each holder. Only that token makes the lock safe: a holder may be paused \
and run on after the lock has expired, so whatever CMD changes must reject a token lower than one it has seen.

When the lock is lost, CMD gets SIGTERM. The exit code is CMD's (128 plus the number of the signal that ended it), 5 \
if the lock was held until --wait was over, 126 or 127 if CMD cannot be run.")]
pub(crate) struct Lock {
    #[command(flatten)]
    target: Target,

    /// The name of the lock
    #[arg(allow_negative_numbers = true)]
    name: String,

    /// How long the lock outlives a holder that has vanished, at least 500ms
    #[arg(long, value_name = "DUR", default_value = "10s", value_parser = time_to_live)]
    ttl: Duration,

    /// How long to wait for the lock; by default forever
    #[arg(long, value_name = "DUR", value_parser = durations::zero_for_off)]
    wait: Option<Duration>,

    /// The command, after `--`
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<std::ffi::OsString>,
}

/// Parses the time to live of a lock.
fn time_to_live(text: &str) -> Result<Duration, String> {
    let ttl = durations::positive(text).map_err(|error| error.to_string())?;
    if ttl < TTL_MIN { Err("must be at least 500ms".to_owned()) } else { Ok(ttl) }
}

/// Why the command was not run.
#[derive(Debug, Error)]
pub(crate) enum LockError {
    #[error("the lock {name:?} is held by {holder}")]
    Held { name: Box<str>, holder: Box<str> },
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    Refused(Refusal),
    #[error("the server's reply is incomplete")]
    ReplyIncomplete,
    #[error("interrupted")]
    Interrupted,
    #[error("cannot handle signals: {0}")]
    Signals(#[source] io::Error),
}

impl LockError {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Held { .. } => Exit::Precondition,
            Self::Call(error) => error.exit(),
            Self::Refused(refusal) => refusal.exit(),
            Self::ReplyIncomplete | Self::Signals(_) => Exit::Failure,
            Self::Interrupted => Exit::Interrupted,
        }
    }
}

impl Lock {
    /// Acquires the lock, runs the command, and releases the lock. Returns the command's exit code.
    pub(crate) fn run(&self) -> Result<ExitCode, LockError> {
        let signals = Signals::listen(&[SIGINT, SIGTERM, SIGHUP]).map_err(LockError::Signals)?;
        let mut holder = Holder::new(&self.name, self.ttl);
        // An attempt that waits for longer would come too late.
        let mut caller = self.target.impatient_caller(self.ttl / 3);
        let acquired = self.acquire(&mut holder, &mut caller, &signals);
        let (fence, lease) = match acquired {
            Ok(acquired) => acquired,
            Err(error) => {
                // An attempt whose reply is missing may have taken effect.
                holder.release_in_doubt(&mut caller);
                return Err(error);
            }
        };
        let code = match Running::start(&self.command, fence) {
            Ok(running) => self.hold(running, holder.clone(), lease, &signals),
            Err(failure) => {
                say(&format!("error: {failure}"));
                failure.code()
            }
        };
        holder.release(&mut self.target.impatient_caller(self.ttl / 3));
        Ok(ExitCode::from(code))
    }

    /// Waits for the lock. Returns the fencing token, and the lease as of the request that has
    /// acquired it.
    fn acquire(
        &self,
        holder: &mut Holder,
        caller: &mut Caller,
        signals: &Signals,
    ) -> Result<(u64, Lease), LockError> {
        let deadline = self.wait.map(|wait| Instant::now() + wait);
        let (mut has_answered, mut is_told) = (false, false);
        loop {
            if signals.has_come() {
                return Err(LockError::Interrupted);
            }
            let asked_at = Instant::now();
            let pause = match holder.acquire(caller) {
                Ok(Attempt::Acquired { fence }) => return Ok((fence, Lease::new(self.ttl, asked_at))),
                Ok(Attempt::Held { by, rev }) => {
                    has_answered = true;
                    if is_over(deadline) {
                        return Err(LockError::Held { name: self.name.as_str().into(), holder: by });
                    }
                    if !std::mem::replace(&mut is_told, true) {
                        say(&format!("waiting: the lock {:?} is held by {by}", self.name));
                    }
                    holder.await_change(caller, rev, LOOK_EVERY)
                }
                Ok(Attempt::Refused(refusal)) if !refusal.may_pass() => {
                    return Err(LockError::Refused(refusal));
                }
                Ok(Attempt::Refused(refusal)) if is_over(deadline) => {
                    return Err(LockError::Refused(refusal));
                }
                // A server that has never answered is probably not there.
                Err(error) if !has_answered || is_over(deadline) => return Err(error),
                Ok(Attempt::Refused(_)) | Err(_) => RETRY_AFTER,
            };
            std::thread::sleep(pause);
        }
    }

    /// Renews the lock until the command has ended. Returns the exit code of the command.
    fn hold(&self, mut running: Running, holder: Holder, mut lease: Lease, signals: &Signals) -> u8 {
        let target = self.target.clone();
        let renewals = holder.renew_in_thread(move |timeout| target.impatient_caller(timeout), self.ttl);
        let mut is_lost = false;
        loop {
            match running.next_event(signals, &renewals) {
                Event::Ended(code) => return code,
                Event::Signal(number) => running.signal(number),
                Event::Renewed { asked_at } => lease.renewed(asked_at),
                Event::Replaced => lease.replaced(),
                Event::Nothing => {}
            }
            if !is_lost && lease.is_lost(Instant::now()) {
                is_lost = true;
                say(&format!("error: the lock {:?} is lost", self.name));
                running.signal(SIGTERM);
            }
            if !is_lost && lease.wants_renewal(Instant::now()) {
                lease.asked(Instant::now());
                renewals.ask();
            }
        }
    }
}

fn is_over(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|deadline| Instant::now() >= deadline)
}

/// Prints a line on stderr.
fn say(text: &str) {
    // When stderr is closed, the message is lost.
    _ = writeln!(io::stderr(), "{}", harmless_lines(text));
}
