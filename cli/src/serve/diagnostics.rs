//! The server's log messages on stderr: one line per fact, as text, as JSON or for the journal. A
//! stalled stderr does not block the server (see [`Outlet`]).

use std::fmt::Display;
use std::os::fd::AsFd;
use std::time::{Duration, SystemTime};
use std::{env, io};

use coracle_core::peer::PeerEvent;
use coracle_core::raft::Event;
use coracle_storage::{HostEvent, NodeEvent};
use serde_json::json;

use super::log_fields::{self, EventName, Field, Fields};
use super::options::{LogFormat, LogLevel};
use super::outlet::Outlet;
use crate::output::harmless;
use crate::value::quoted;

/// How long a shutdown waits for the last lines to be written.
const LAST_LINES_TIMEOUT: Duration = Duration::from_secs(1);

/// A variable that names the device and inode of the journal's stream, if stderr or stdout is one.
const JOURNAL_STREAM: &str = "JOURNAL_STREAM";

/// Writes log messages up to a level. Clones share one outlet.
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
        let format =
            if format == LogFormat::Text && is_journal(io::stderr()) { LogFormat::Journal } else { format };
        let dropped = move |count| {
            let fields = vec![(Field::Count, json!(count))];
            let lines = if count == 1 { "line was" } else { "lines were" };
            line(
                format,
                LogLevel::Warn,
                (EventName::LinesDropped, fields),
                &format_args!("{count} log {lines} dropped here, because stderr was not read in time"),
            )
        };
        Ok(Self { level, format, outlet: Outlet::start(io::stderr(), dropped)? })
    }

    /// Logs an event of a node.
    pub(crate) fn tell_event(&self, event: &HostEvent) {
        let level = level_of(&event.event);
        if level <= self.level {
            self.outlet.push(line(self.format, level, log_fields::of(event), event));
        }
    }

    /// Logs `what` about the server, if its level is important enough.
    pub(crate) fn tell(&self, level: LogLevel, what: &impl Display) {
        self.tell_named(EventName::Server, level, what);
    }

    /// Logs `what` about the server under the name of an event.
    pub(super) fn tell_named(&self, name: EventName, level: LogLevel, what: &impl Display) {
        if level <= self.level {
            self.outlet.push(line(self.format, level, (name, Fields::new()), what));
        }
    }

    /// Waits a moment for the last lines to be written.
    pub(crate) fn flush(&self) {
        self.outlet.flush(LAST_LINES_TIMEOUT);
    }
}

/// Formats a line with its line break. Text from outside (names, addresses, messages of other
/// nodes) cannot break the line or control a terminal.
fn line(
    format: LogFormat,
    level: LogLevel,
    (name, fields): (EventName, Fields),
    what: &impl Display,
) -> String {
    let time = humantime::format_rfc3339_millis(SystemTime::now());
    let (priority, level, what) = (priority_of(level), name_of(level), what.to_string());
    match format {
        LogFormat::Text => format!("{time} {level} {}\n", harmless(&what)),
        LogFormat::Journal => format!("<{priority}>{}\n", harmless(&what)),
        LogFormat::Json => {
            let message = quoted(&what);
            let name = log_fields::name_of(name);
            let mut line = format!("{{\"time\":\"{time}\",\"level\":\"{level}\",\"message\":{message}");
            line.push_str(&format!(",\"event\":\"{name}\""));
            for (field, value) in fields {
                let value = harmless(&value.to_string()).into_owned();
                line.push_str(&format!(",\"{}\":{value}", log_fields::name_of(field)));
            }
            line + "}\n"
        }
    }
}

/// Returns whether this descriptor is the stream to the journal that the supervisor has opened.
fn is_journal(descriptor: impl AsFd) -> bool {
    let Ok(status) = rustix::fs::fstat(descriptor) else { return false };
    env::var(JOURNAL_STREAM).is_ok_and(|stream| names(&stream, status.st_dev, status.st_ino))
}

/// Returns whether the variable's value, as `device:inode`, names this file.
fn names(stream: &str, device: u64, inode: u64) -> bool {
    stream
        .split_once(':')
        .is_some_and(|(of_device, of_inode)| of_device.parse() == Ok(device) && of_inode.parse() == Ok(inode))
}

/// The priority of syslog.
fn priority_of(level: LogLevel) -> u8 {
    match level {
        LogLevel::Error => 3,
        LogLevel::Warn => 4,
        LogLevel::Info => 6,
        LogLevel::Debug | LogLevel::Trace => 7,
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
        for format in [LogFormat::Text, LogFormat::Json, LogFormat::Journal] {
            let fields = vec![(Field::Reason, json!(hostile))];
            let line = line(format, LogLevel::Info, (EventName::PeerLost, fields), &hostile);
            let body = line.strip_suffix('\n').unwrap();
            let breaks =
                |character: char| character.is_control() || matches!(character, '\u{2028}' | '\u{2029}');
            assert!(!body.contains(breaks), "{line:?}");
            assert!(body.contains("error forged") && body.contains("[2J"), "{line:?}");
            if format == LogFormat::Json {
                let parsed: serde_json::Value = serde_json::from_str(body).unwrap();
                assert_eq!((&parsed["message"], &parsed["reason"]), (&json!(hostile), &json!(hostile)));
            }
        }
    }

    #[test]
    fn a_line_for_the_journal_begins_with_its_priority() {
        let line = |level| line(LogFormat::Journal, level, (EventName::Server, Vec::new()), &"<0>x");
        assert_eq!(line(LogLevel::Error), "<3><0>x\n");
        assert_eq!(line(LogLevel::Info), "<6><0>x\n");
    }

    #[test]
    fn only_the_named_stream_is_the_journal() {
        assert!(names("8:1234", 8, 1234));
        for stream in ["8:1235", "9:1234", "8", "", "8:1234:1", "a:b", ":"] {
            assert!(!names(stream, 8, 1234), "{stream}");
        }
    }
}
