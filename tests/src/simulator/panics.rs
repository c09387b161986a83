//! A panic is a finding like any other: the core asserts what must hold, and an assertion that
//! fails names a seed.
//!
//! Where panics unwind they are caught, and the run reports them as a violation. A release build
//! ends at the first panic; there a program can have itself told which seed it was, right before
//! the end.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook};

use super::invariants::{Verdict, Violation};

/// The name of the property that no panic happens.
pub const PROPERTY: &str = "panic";

thread_local! {
    static SEED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// This thread runs `seed` from now on.
pub(crate) fn under_way(seed: u64) {
    SEED.set(Some(seed));
}

/// Turns a panic into a violation.
pub(crate) fn caught(body: impl FnOnce() -> Verdict) -> Verdict {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| {
        Err(Violation { property: PROPERTY, what: message(&*payload).unwrap_or("without a word").into() })
    })
}

/// Has `tell` called with the seed and the message of a panic, where panics end the process.
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
