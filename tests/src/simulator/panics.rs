//! Panics as violations: the core asserts its invariants, and a failed assertion must be reported
//! with its seed.
//!
//! In builds that unwind, panics are caught and reported as a violation. A release build ends at
//! the first panic; there a hook can report the seed right before the end.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook};

use super::invariants::{Verdict, Violation};

/// The name of the property that no panic happens.
pub const PROPERTY: &str = "panic";

thread_local! {
    static SEED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Sets the seed that this thread runs from now on.
pub(crate) fn under_way(seed: u64) {
    SEED.set(Some(seed));
}

/// Converts a panic into a violation.
pub(crate) fn caught(body: impl FnOnce() -> Verdict) -> Verdict {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| {
        Err(Violation { property: PROPERTY, what: message(&*payload).unwrap_or("without a word").into() })
    })
}

/// Installs a panic hook that calls `tell` with the seed and the message, in builds in which a
/// panic ends the process.
pub fn tell_before_end(tell: impl Fn(u64, &str) + Send + Sync + 'static) {
    set_hook(Box::new(move |panic| {
        if let Some(seed) = SEED.get().filter(|_| cfg!(panic = "abort")) {
            tell(seed, &panic.to_string());
        }
    }));
}

fn message(payload: &(dyn Any + Send)) -> Option<&str> {
    payload.downcast_ref::<String>().map(String::as_str).or_else(|| payload.downcast_ref::<&str>().copied())
}
