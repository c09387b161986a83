//! The server's log messages on stderr: one line per fact, as text or as JSON. A stalled stderr
//! does not block the server (see [`Outlet`]).

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

/// How long a shutdown waits for the last lines to be written.
const LAST_LINES_TIMEOUT: Duration = Duration::from_secs(1);

/// Writes log messages up to a level, as text or as JSON. Clones share one outlet.
#[derive(Clone, Debug)]
pub(crate) struct Diagnostics {
    level: LogLevel,
    format: LogFormat,
    outlet: Outlet,
}

impl Diagnostics {
    /// Creates diagnostics that write to stderr.
    ///
    /// # Errors
    ///
    /// If the operating system refuses to create a thread.
    pub(crate) fn start(level: LogLevel, format: LogFormat) -> io::Result<Self> {
        let dropped = move |count| {
            let lines = if count == 1 { "line was" } else { "lines were" };
            line(
                format,
                LogLevel::Warn,
                &format_args!("{count} log {lines} dropped here, because stderr was not read in time"),
            )
        };
        Ok(Self { level, format, outlet: Outlet::start(io::stderr(), dropped)? })
    }

    /// Logs an event of a node.
    pub(crate) fn tell_event(&self, event: &HostEvent) {
        self.tell(level_of(&event.event), event);
    }

    /// Logs `what`, if its level is important enough.
    pub(crate) fn tell(&self, level: LogLevel, what: &impl Display) {
        if level <= self.level {
            self.outlet.push(line(self.format, level, what));
        }
    }

    /// Waits a moment for the last lines to be written.
    pub(crate) fn flush(&self) {
        self.outlet.flush(LAST_LINES_TIMEOUT);
    }
}

/// Formats a line with its line break. Text from outside (names, addresses, messages of other
/// nodes) cannot break the line or control a terminal.
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
        NodeEvent::Peer(
            PeerEvent::Refused(..) | PeerEvent::Stranger(..) | PeerEvent::Unproven(..) | PeerEvent::Moved(_),
        ) => LogLevel::Warn,
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
