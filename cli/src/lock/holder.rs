//! The requests of a lock's holder, each of which is safe to repeat.

use std::fmt::Write;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::value::{RawValue, to_raw_value};

use super::LockError;
use crate::caller::Caller;
use crate::durations::whole_ms;
use crate::reply::{ErrorCode, Refusal, Reply};
use crate::request::{Consistency, Effect, Request};

/// A holder, or a process that waits to be one.
#[derive(Clone, Debug)]
pub(super) struct Holder {
    key: String,
    /// Unique to this process.
    value: Box<RawValue>,
    ttl_ms: u64,
    /// Whether an attempt may have taken effect whose reply is missing.
    is_in_doubt: bool,
}

/// The result of an attempt to acquire a lock.
pub(super) enum Attempt {
    Acquired {
        fence: u64,
    },
    Held {
        by: Box<str>,
        /// The revision of the key.
        rev: u64,
    },
    Refused(Refusal),
}

impl Holder {
    pub(super) fn new(name: &str, ttl: Duration) -> Self {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let (process, nonce) = (std::process::id(), fastrand::u64(..));
        let value = format!("{host} process {process} {nonce:016x}");
        Self {
            key: format!("lock/{name}"),
            value: to_raw_value(&value).expect("a string is JSON"),
            ttl_ms: whole_ms(ttl),
            is_in_doubt: false,
        }
    }

    /// Tries to acquire the lock.
    pub(super) fn acquire(&mut self, caller: &mut Caller) -> Result<Attempt, LockError> {
        let was_in_doubt = std::mem::replace(&mut self.is_in_doubt, true);
        let ttl_ms = Some(self.ttl_ms);
        let swap = Request::Cas { key: &self.key, expect: None, value: &self.value, ttl_ms, meta: true };
        let reply = caller.call(swap)?;
        match reply.refusal(Effect::Writes) {
            None => Ok(Attempt::Acquired { fence: reply.rev.ok_or(LockError::ReplyIncomplete)? }),
            Some(Refusal { code: ErrorCode::CasMismatch, .. }) => {
                self.is_in_doubt = was_in_doubt;
                self.held_by(&reply, caller)
            }
            Some(refusal) => {
                self.is_in_doubt = was_in_doubt || refusal.is_outcome_unknown();
                Ok(Attempt::Refused(refusal))
            }
        }
    }

    /// Judges a key that is present: an earlier attempt of this process may have created it.
    fn held_by(&self, reply: &Reply, caller: &mut Caller) -> Result<Attempt, LockError> {
        let (Some(actual), Some(rev)) = (&reply.actual, reply.rev) else {
            return Err(LockError::ReplyIncomplete);
        };
        if actual.get() != self.value.get() {
            let by = serde_json::from_str::<String>(actual.get()).unwrap_or_else(|_| actual.get().to_owned());
            return Ok(Attempt::Held { by: by.into(), rev });
        }
        // The life of the key began with that attempt, which was too long ago to count from now.
        if self.renew(caller)? {
            let consistency = Consistency::Linearizable;
            let reply = caller.call(Request::Get { key: &self.key, consistency, meta: true })?;
            if let Some(fence) = reply.created {
                return Ok(Attempt::Acquired { fence });
            }
        }
        Ok(Attempt::Held { by: "this process, whose earlier attempt has expired".into(), rev })
    }

    /// Renews the lock. Returns whether it is still held.
    fn renew(&self, caller: &mut Caller) -> Result<bool, LockError> {
        let put = self.operation(&format!(
            r#"[{{"op":"put","key":{},"value":{},"ttl_ms":{}}}]"#,
            self.key_json(),
            self.value,
            self.ttl_ms
        ));
        self.if_held(caller, &put)
    }

    /// Releases the lock, if it is held. A server that cannot be reached lets it expire.
    pub(super) fn release(&self, caller: &mut Caller) {
        let delete = self.operation(&format!(r#"[{{"op":"delete","key":{}}}]"#, self.key_json()));
        _ = self.if_held(caller, &delete);
    }

    /// Releases the lock if an attempt may have acquired it.
    pub(super) fn release_in_doubt(&self, caller: &mut Caller) {
        if self.is_in_doubt {
            self.release(caller);
        }
    }

    /// Executes operations if the key still has this holder's value. Returns whether it has.
    fn if_held(&self, caller: &mut Caller, then: &RawValue) -> Result<bool, LockError> {
        let condition = self.operation(&format!(r#"[{{"key":{},"value":{}}}]"#, self.key_json(), self.value));
        let none = self.operation("[]");
        let reply = caller.call(Request::Txn { conditions: &condition, then, otherwise: &none })?;
        match reply.refusal(Effect::Writes) {
            None => reply.succeeded.ok_or(LockError::ReplyIncomplete),
            Some(refusal) => Err(LockError::Refused(refusal)),
        }
    }

    fn operation(&self, json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).expect("it is JSON")
    }

    fn key_json(&self) -> String {
        serde_json::to_string(&self.key).expect("a string is JSON")
    }

    /// Waits until the key changes after `rev`, or for some time. Returns how long to wait before
    /// the next attempt.
    pub(super) fn await_change(&self, caller: &Caller, rev: u64, at_most: Duration) -> Duration {
        let since = Instant::now();
        let has_changed = || {
            let mut connection = caller.connect(caller.address(), at_most).ok()?;
            let mut request = String::new();
            write!(request, r#"{{"op":"watch","key":{},"from":{}}}"#, self.key_json(), rev + 1).ok()?;
            let mut line = connection.exchange(&request).ok()?;
            while since.elapsed() < at_most && !line.contains("\"events\"") && !line.contains("\"error\"") {
                line = connection.receive().ok()?;
            }
            Some(line.contains("\"events\""))
        };
        match has_changed() {
            Some(true) => Duration::ZERO,
            // Without a watch, the next attempt comes after the same time.
            _ => at_most.saturating_sub(since.elapsed()),
        }
    }

    /// Starts a thread that renews the lock whenever it is asked to: a request may take long, and
    /// the command is watched meanwhile.
    pub(super) fn renew_in_thread(
        self,
        caller: impl FnOnce(Duration) -> Caller + Send + 'static,
        ttl: Duration,
    ) -> Renewals {
        let ((ask, asked), (done, results)) = (mpsc::channel::<()>(), mpsc::channel());
        let work = move || {
            let mut caller = caller(ttl / 3);
            while asked.recv().is_ok() {
                let asked_at = Instant::now();
                let result = match self.renew(&mut caller) {
                    Ok(true) => Some(Renewal::Done { asked_at }),
                    Ok(false) => Some(Renewal::Replaced),
                    // The next renewal may succeed.
                    Err(_) => None,
                };
                if result.is_some_and(|result| done.send(result).is_err()) {
                    return;
                }
            }
        };
        // Without a thread no renewal succeeds, so the lock is lost in time.
        _ = thread::Builder::new().name("renewals".into()).spawn(work);
        Renewals { ask, results }
    }
}

/// The thread that renews a lock.
#[derive(Debug)]
pub(super) struct Renewals {
    ask: mpsc::Sender<()>,
    results: mpsc::Receiver<Renewal>,
}

/// The result of a renewal.
#[derive(Debug)]
pub(super) enum Renewal {
    Done { asked_at: Instant },
    Replaced,
}

impl Renewals {
    pub(super) fn ask(&self) {
        // The thread ends only with this process.
        _ = self.ask.send(());
    }

    pub(super) fn next(&self) -> Option<Renewal> {
        self.results.try_recv().ok()
    }
}
