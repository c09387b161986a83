//! Ctrl-C in a client command: the program ends at once, with 130.
//!
//! Not for serving, which ends in good order.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::SIGINT;
use signal_hook::flag;

use crate::exit::Exit;

/// From now on, an interrupt ends the program with its exit code.
pub(crate) fn exits_at_once() {
    let is_armed = Arc::new(AtomicBool::new(true));
    // Without the handler the signal ends the program too, only with another exit status.
    _ = flag::register_conditional_shutdown(SIGINT, Exit::Interrupted as i32, is_armed);
}
