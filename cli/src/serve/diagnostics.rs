//! What a server tells its operator on stderr: a line per fact, as text or as JSON.

use std::fmt::Display;
use std::io::{self, Write};
use std::time::SystemTime;

use coracle_core::peer::PeerEvent;
use coracle_core::raft::Event;
use coracle_storage::{HostEvent, NodeEvent};

use super::options::{LogFormat, LogLevel};
use crate::value::quoted;

/// Tells what is important enough, in the shape that was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Diagnostics {
    pub(crate) level: LogLevel,
    pub(crate) format: LogFormat,
}

impl Diagnostics {
    /// Tells what a node told.
    pub(crate) fn tell_event(self, event: &HostEvent) {
        self.tell(level_of(&event.event), event);
    }

    /// Tells `what`, if it is important enough.
    pub(crate) fn tell(self, level: LogLevel, what: &impl Display) {
        if level > self.level {
            return;
        }
        let time = humantime::format_rfc3339_millis(SystemTime::now());
        let level = name_of(level);
        let mut stderr = io::stderr().lock();
        // Whoever closed stderr does not want to be told.
        _ = match self.format {
            LogFormat::Text => writeln!(stderr, "{time} {level} {what}"),
            LogFormat::Json => {
                let message = quoted(&what.to_string());
                writeln!(stderr, "{{\"time\":\"{time}\",\"level\":\"{level}\",\"message\":{message}}}")
            }
        };
    }
}

fn level_of(event: &NodeEvent) -> LogLevel {
    match event {
        NodeEvent::Failed(_) => LogLevel::Error,
        NodeEvent::Notice(_) | NodeEvent::Raft(Event::MessageRefused { .. }) => LogLevel::Warn,
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
