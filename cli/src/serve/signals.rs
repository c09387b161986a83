//! The signals of a server, as flags.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use crate::exit::Exit;

/// The flags that signals set.
pub(super) struct Signals {
    pub(super) should_end: Arc<AtomicBool>,
    /// The files of certificates and keys are to be read again.
    pub(super) should_read: Arc<AtomicBool>,
}

/// Registers the signals of a server. The first one that ends it sets a flag, and a second one ends
/// the process at once. Both happen in the signal handler, so neither depends on a thread or on
/// I/O.
///
/// Two threads may handle two signals at the same time. So a handler first notes its own signal and
/// then looks for others: at least one of the two finds the other.
///
/// `has_files`: SIGHUP asks for the files of certificates to be read, and does not end the process.
pub(super) fn register(has_files: bool) -> io::Result<Signals> {
    let (should_end, should_read) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let mut ending = vec![SIGINT, SIGTERM];
    if has_files {
        flag::register(SIGHUP, Arc::clone(&should_read))?;
    } else {
        ending.push(SIGHUP);
    }
    let seen: Vec<_> = ending.into_iter().map(|signal| (signal, Arc::new(AtomicBool::new(false)))).collect();
    for (signal, is_seen) in &seen {
        let end_if = |condition: &Arc<AtomicBool>| {
            flag::register_conditional_shutdown(*signal, Exit::Interrupted as i32, Arc::clone(condition))
        };
        // In this order, so that the first signal does not find itself.
        end_if(is_seen)?;
        flag::register(*signal, Arc::clone(is_seen))?;
        flag::register(*signal, Arc::clone(&should_end))?;
        for (other, is_other_seen) in &seen {
            if other != signal {
                end_if(is_other_seen)?;
            }
        }
    }
    Ok(Signals { should_end, should_read })
}
