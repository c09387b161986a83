//! What a server tells its operator on stderr: a line per fact, as text or as JSON. A stderr that
//! stalls stops nothing (see [`Outlet`]).

use std::fmt::Display;
use std::io;
use std::time::{Duration, SystemTime};

use coracle_core::peer::PeerEvent;
use coracle_core::raft::Event;
use coracle_storage::{HostEvent, NodeEvent};

use super::options::{LogFormat, LogLevel};
use super::outlet::Outlet;
use crate::output::harmless;
use crate::value::quoted;

/// How long the end of a server waits for its last lines to be written.
const LAST_LINES_PATIENCE: Duration = Duration::from_secs(1);

/// Tells what is important enough, in the shape that was asked for. Clones share one outlet.
#[derive(Clone, Debug)]
pub(crate) struct Diagnostics {
    level: LogLevel,
    format: LogFormat,
    outlet: Outlet,
}

impl Diagnostics {
    /// Diagnostics on stderr.
    ///
    /// # Errors
    ///
    /// When the operating system gives no thread.
    pub(crate) fn start(level: LogLevel, format: LogFormat) -> io::Result<Self> {
        let dropped = move |count| {
            let lines = if count == 1 { "line was" } else { "lines were" };
            line(
                format,
                LogLevel::Warn,
                &format_args!("{count} {lines} dropped here: nobody read them in time"),
            )
        };
        Ok(Self { level, format, outlet: Outlet::start(io::stderr(), dropped)? })
    }

    /// Tells what a node told.
    pub(crate) fn tell_event(&self, event: &HostEvent) {
        self.tell(level_of(&event.event), event);
    }

    /// Tells `what`, if it is important enough.
    pub(crate) fn tell(&self, level: LogLevel, what: &impl Display) {
        if level <= self.level {
            self.outlet.push(line(self.format, level, what));
        }
    }

    /// Waits a moment for the last lines to be written.
    pub(crate) fn flush(&self) {
        self.outlet.flush(LAST_LINES_PATIENCE);
    }
}

/// A line with its line break. What comes from outside (names, addresses, messages of others)
/// cannot break it, nor reach a terminal as a command.
fn line(format: LogFormat, level: LogLevel, what: &impl Display) -> String {
    let time = humantime::format_rfc3339_millis(SystemTime::now());
    let (level, what) = (name_of(level), what.to_string());
    match format {
        LogFormat::Text => format!("{time} {level} {}\n", harmless(&what)),
        LogFormat::Json => {
            let message = quoted(&what);
            format!("{{\"time\":\"{time}\",\"level\":\"{level}\",\"message\":{message}}}\n")
        }
    }
}

fn level_of(event: &NodeEvent) -> LogLevel {
    match event {
        NodeEvent::Failed(_) => LogLevel::Error,
        NodeEvent::Notice(_)
        | NodeEvent::Raft(
            Event::MessageRefused { .. } | Event::DiskHangs { .. } | Event::SnapshotPutOff { .. },
        ) => LogLevel::Warn,
        NodeEvent::Peer(PeerEvent::Refused(..) | PeerEvent::Stranger(..) | PeerEvent::Moved(_)) => {
            LogLevel::Warn
        }
        NodeEvent::Raft(_) | NodeEvent::Peer(_) => LogLevel::Info,
    }
}

fn name_of(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_outside_breaks_a_line_or_reaches_a_terminal_raw() {
        let hostile = "a\nerror forged\r\x1b[2J\u{85}\u{2028}\u{2029}\u{9b}z \\ \"";
        for format in [LogFormat::Text, LogFormat::Json] {
            let line = line(format, LogLevel::Info, &hostile);
            let body = line.strip_suffix('\n').unwrap();
            let breaks =
                |character: char| character.is_control() || matches!(character, '\u{2028}' | '\u{2029}');
            assert!(!body.contains(breaks), "{line:?}");
            assert!(body.contains("error forged") && body.contains("[2J"), "{line:?}");
        }
    }
}
