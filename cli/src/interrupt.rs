//! Ctrl-C in a client command: the program ends at once, with 130. A command that has to tidy up before takes note of it,
//! and ends at once when it comes again.
//!
//! Not for serving, which ends in good order.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::exit::Exit;

/// From now on, an interrupt ends the program with its exit code.
pub(crate) fn exits_at_once() {
    let is_armed = Arc::new(AtomicBool::new(true));
    // Without the handler the signal ends the program too, only with another exit status.
    _ = flag::register_conditional_shutdown(SIGINT, Exit::Interrupted as i32, is_armed);
}

/// The flag that the first interrupt, or order to end, sets. A second one ends the program at once.
pub(crate) fn is_noted() -> io::Result<Arc<AtomicBool>> {
    let is_noted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the first signal finds the flag unset, and sets it.
        flag::register_conditional_shutdown(signal, Exit::Interrupted as i32, Arc::clone(&is_noted))?;
        flag::register(signal, Arc::clone(&is_noted))?;
    }
    Ok(is_noted)
}
