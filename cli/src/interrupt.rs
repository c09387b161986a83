//! Handling of Ctrl-C (SIGINT) in client commands.
//!
//! A single command ends the program with exit code 130. If a write was sent and its reply is
//! missing, the message says that its outcome is unknown. At the prompt of the interactive client,
//! Ctrl-C aborts the running command but not the client: the listener thread closes the connection
//! on which the request waits, so the wait ends. If that does not help, a second Ctrl-C ends the
//! program. A command that must clean up polls a flag instead ([`is_noted`]).
//!
//! Servers do not use this module, because they shut down cleanly.

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

/// The interval at which a wait that a signal cannot end is polled. Chosen too short to be
/// noticeable.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The state that an interrupt acts on. One per process, because the signal is delivered to the
/// process.
static STATE: Mutex<State> = Mutex::new(State {
    is_session: false,
    is_running: false,
    is_given_up: false,
    exchange: None,
    unfinished: None,
});

#[derive(Debug)]
struct State {
    /// Whether commands are typed at a prompt.
    is_session: bool,
    /// Whether one of them is running.
    is_running: bool,
    /// Whether the running command was interrupted.
    is_given_up: bool,
    exchange: Option<Exchange>,
    /// A file that is useless until it is complete; an interrupt removes it.
    unfinished: Option<PathBuf>,
}

/// A request that was sent or is being sent.
#[derive(Debug)]
struct Exchange {
    effect: Effect,
    socket: Option<TcpStream>,
}

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts handling interrupts: each ends the program with its exit code, or aborts a command of the
/// interactive client.
pub(crate) fn heed() {
    let listen = || {
        let mut signals = Signals::new([SIGINT])?;
        let listener = move || signals.forever().for_each(|_| on_interrupt());
        thread::Builder::new().name("interrupts".into()).spawn(listener)
    };
    if listen().is_err() {
        // Without a thread the program still ends on an interrupt, but without a message about a
        // write.
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

/// While this guard exists, an interrupt that ends the program removes the unfinished file.
#[derive(Debug)]
pub(crate) struct UnfinishedGuard(());

/// Registers a temporary file at `path` that an interrupt removes, until the guard is dropped.
pub(crate) fn unfinished(path: PathBuf) -> UnfinishedGuard {
    state().unfinished = Some(path);
    UnfinishedGuard(())
}

impl Drop for UnfinishedGuard {
    fn drop(&mut self) {
        state().unfinished = None;
    }
}

/// Switches to the interactive mode, in which an interrupt aborts the command and not the program.
pub(crate) fn gives_up_commands() {
    state().is_session = true;
}

/// Runs one command of the interactive client.
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

/// Returns whether the running command was interrupted.
pub(crate) fn has_come() -> bool {
    state().is_given_up
}

/// While this guard exists, an interrupt closes the connection of the request.
#[derive(Debug)]
pub(crate) struct ExchangeGuard(());

/// Registers a request of this effect, before it is sent.
pub(crate) fn exchange(effect: Effect, socket: &TcpStream) -> ExchangeGuard {
    let socket = socket.try_clone().ok();
    let mut state = state();
    if state.is_given_up
        && let Some(socket) = &socket
    {
        // The interrupt came after the last check, when there was no connection to close yet.
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

/// Runs `work`, which may take long and cannot be interrupted, such as a name lookup. In the
/// interactive client it runs on a separate thread, and the result is `None` if an interrupt came
/// first, or if no thread could be created. The result of abandoned work is dropped.
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

/// Returns a flag that the first SIGINT or SIGTERM sets. A second one ends the program at once.
pub(crate) fn is_noted() -> io::Result<Arc<AtomicBool>> {
    let is_noted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order, so that the first signal finds the flag unset and sets it.
        flag::register_conditional_shutdown(signal, Exit::Interrupted as i32, Arc::clone(&is_noted))?;
        flag::register(signal, Arc::clone(&is_noted))?;
    }
    Ok(is_noted)
}
