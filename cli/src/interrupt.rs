//! Ctrl-C in a client command: gives up what is under way.
//!
//! A command ends the program with 130, and says so when a write was sent whose reply is missing:
//! its outcome is unknown. At the prompt of the interactive client Ctrl-C gives up the request and
//! not the session: the signal closes the connection that the request waits on, so the wait ends.
//! Where that does not help, a second Ctrl-C ends the program. A command that has to tidy up takes
//! note of the signal instead ([`is_noted`]).
//!
//! Deliberately not for serving, which ends in good order.

use std::fs;
use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;

use crate::exit::Exit;
use crate::request::{Effect, OUTCOME_UNKNOWN};

/// How often a wait that no signal can end is looked after. Chosen to be too short to feel.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What an interrupt finds. One per process, as the signal is.
static STATE: Mutex<State> = Mutex::new(State {
    is_session: false,
    is_running: false,
    is_given_up: false,
    exchange: None,
    unfinished: None,
});

#[derive(Debug)]
struct State {
    /// Commands are typed at a prompt.
    is_session: bool,
    /// One of them is being carried out.
    is_running: bool,
    /// It was interrupted.
    is_given_up: bool,
    exchange: Option<Exchange>,
    /// A file that is of no use before it is whole.
    unfinished: Option<PathBuf>,
}

/// A request that was sent, or is being sent.
#[derive(Debug)]
struct Exchange {
    effect: Effect,
    socket: Option<TcpStream>,
}

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on, an interrupt ends the program with its exit code, or gives up a command of a
/// session.
pub(crate) fn heed() {
    let listen = || {
        let mut signals = Signals::new([SIGINT])?;
        let listener = move || signals.forever().for_each(|_| on_interrupt());
        thread::Builder::new().name("interrupts".into()).spawn(listener)
    };
    if listen().is_err() {
        // Without a thread the program still ends, only without a word about a write.
        _ = flag::register_conditional_shutdown(
            SIGINT,
            Exit::Interrupted as i32,
            Arc::new(AtomicBool::new(true)),
        );
    }
}

fn on_interrupt() {
    let mut state = state();
    if state.is_session && !state.is_given_up {
        if state.is_running {
            state.is_given_up = true;
            if let Some(socket) = state.exchange.as_ref().and_then(|exchange| exchange.socket.as_ref()) {
                _ = socket.shutdown(Shutdown::Both);
            }
        }
        return;
    }
    if state.exchange.as_ref().is_some_and(|exchange| exchange.effect == Effect::Writes) {
        _ = writeln!(io::stderr(), "error: interrupted\n{OUTCOME_UNKNOWN}");
    }
    if let Some(path) = &state.unfinished {
        _ = fs::remove_file(path);
    }
    std::process::exit(Exit::Interrupted as i32);
}

/// As long as it lives, an interrupt that ends the program removes this file.
#[derive(Debug)]
pub(crate) struct UnfinishedGuard(());

/// A file at `path` is being written, and gets its name when it is whole.
pub(crate) fn unfinished(path: PathBuf) -> UnfinishedGuard {
    state().unfinished = Some(path);
    UnfinishedGuard(())
}

impl Drop for UnfinishedGuard {
    fn drop(&mut self) {
        state().unfinished = None;
    }
}

/// Commands are typed at a prompt from now on: an interrupt gives up the command and not the
/// program.
pub(crate) fn gives_up_commands() {
    state().is_session = true;
}

/// Carries out one command of a session.
pub(crate) fn during_command<T>(carry_out: impl FnOnce() -> T) -> T {
    let set = |is_running| {
        let mut state = state();
        (state.is_running, state.is_given_up) = (is_running, false);
    };
    set(true);
    let done = carry_out();
    set(false);
    done
}

/// Whether the command that is being carried out was interrupted.
pub(crate) fn has_come() -> bool {
    state().is_given_up
}

/// As long as it lives, an interrupt closes the connection.
#[derive(Debug)]
pub(crate) struct ExchangeGuard(());

/// A request of this effect is going to be sent, and its reply to be waited for.
pub(crate) fn exchange(effect: Effect, socket: &TcpStream) -> ExchangeGuard {
    let socket = socket.try_clone().ok();
    let mut state = state();
    if state.is_given_up
        && let Some(socket) = &socket
    {
        // It came after the last look, and before there was a connection to close.
        _ = socket.shutdown(Shutdown::Both);
    }
    state.exchange = Some(Exchange { effect, socket });
    ExchangeGuard(())
}

impl Drop for ExchangeGuard {
    fn drop(&mut self) {
        state().exchange = None;
    }
}

/// Does what may take long and cannot be ended from outside, such as looking a name up; `None` when
/// an interrupt came first. What it would have led to is dropped.
pub(crate) fn unless_given_up<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    if !state().is_session {
        return Some(work());
    }
    let (done, result) = mpsc::channel();
    let worker = thread::Builder::new().name("connect".into()).spawn(move || _ = done.send(work()));
    worker.ok()?;
    loop {
        match result.recv_timeout(LOOK_EVERY) {
            Ok(result) => return Some(result),
            Err(mpsc::RecvTimeoutError::Timeout) if !has_come() => {}
            Err(_) => return None,
        }
    }
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
