//! The command that runs while a lock is held, and the signals for it.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGTERM};
use thiserror::Error;

use super::holder::{Renewal, Renewals};

/// How often the command is looked at. Chosen too short to be noticeable.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The signals that this process gets.
#[derive(Debug)]
pub(super) struct Signals(mpsc::Receiver<i32>);

impl Signals {
    pub(super) fn listen(signals: &[i32]) -> io::Result<Self> {
        let mut signals = signal_hook::iterator::Signals::new(signals)?;
        let (sender, receiver) = mpsc::channel();
        let listener = move || signals.forever().for_each(|number| _ = sender.send(number));
        thread::Builder::new().name("signals".into()).spawn(listener)?;
        Ok(Self(receiver))
    }

    /// Returns whether a signal has come since the last call.
    pub(super) fn has_come(&self) -> bool {
        self.0.try_recv().is_ok()
    }
}

/// Something that happened while the command runs.
#[derive(Debug)]
pub(super) enum Event {
    /// The command has ended with this exit code.
    Ended(u8),
    Signal(i32),
    /// The renewal asked for at this time took effect.
    Renewed {
        asked_at: Instant,
    },
    /// The lock is not this holder's any more.
    Replaced,
    Nothing,
}

/// Why the command cannot be run.
#[derive(Debug, Error)]
#[error("cannot run {program:?}: {cause}")]
pub(super) struct StartError {
    program: OsString,
    cause: io::Error,
}

impl StartError {
    /// The exit code that shells give for this.
    pub(super) fn code(&self) -> u8 {
        if self.cause.kind() == io::ErrorKind::NotFound { 127 } else { 126 }
    }
}

/// The command while it runs.
#[derive(Debug)]
pub(super) struct Running(Child);

impl Running {
    /// Starts the command with the fencing token in its environment.
    pub(super) fn start(command: &[OsString], fence: u64) -> Result<Self, StartError> {
        let (program, arguments) = command.split_first().expect("clap requires a command");
        let child = Command::new(program).args(arguments).env("CORACLE_FENCE", fence.to_string()).spawn();
        child.map(Self).map_err(|cause| StartError { program: program.clone(), cause })
    }

    /// Waits a moment for the next event.
    pub(super) fn next_event(&mut self, signals: &Signals, renewals: &Renewals) -> Event {
        match self.0.try_wait() {
            Ok(Some(status)) => {
                let signal = status.signal().map(|number| 128 + number);
                let code = status.code().or(signal).unwrap_or(1);
                return Event::Ended(u8::try_from(code).unwrap_or(1));
            }
            Ok(None) => {}
            Err(_) => return Event::Ended(1),
        }
        match renewals.next() {
            Some(Renewal::Done { asked_at }) => return Event::Renewed { asked_at },
            Some(Renewal::Replaced) => return Event::Replaced,
            None => {}
        }
        signals.0.recv_timeout(LOOK_EVERY).map_or(Event::Nothing, Event::Signal)
    }

    /// Forwards a signal to the command, except SIGINT, which a terminal sends to both.
    pub(super) fn signal(&self, number: i32) {
        let signal = match number {
            SIGTERM => Signal::TERM,
            SIGHUP => Signal::HUP,
            _ => return,
        };
        if let Some(id) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw) {
            // It may have ended just now.
            _ = kill_process(id, signal);
        }
    }
}
