//! The lines of a watch: parsing, and printing of their events.

use std::collections::BTreeMap;
use std::io;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::commands::{CommandError, Context};
use crate::output::{escaped, harmless, one_line, unmistakable_line};

/// A line of the server.
#[derive(Deserialize)]
pub(super) struct Line<'a> {
    pub(super) rev: Option<u64>,
    /// Present in the reply with which the watch begins.
    pub(super) cluster: Option<Box<str>>,
    #[serde(borrow)]
    pub(super) events: Option<Vec<&'a RawValue>>,
    /// Whether the initial content is complete.
    pub(super) current: Option<bool>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow)]
    close: Option<&'a RawValue>,
}

impl Line<'_> {
    pub(super) fn is_error(&self) -> bool {
        self.error.is_some()
    }

    pub(super) fn is_farewell(&self) -> bool {
        self.close.is_some()
    }
}

#[derive(Deserialize)]
struct Event<'a> {
    key: String,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
    because: Option<Box<str>>,
    rev: u64,
}

/// Prints events, one per line.
pub(super) fn print(context: &mut Context<'_>, events: &[&RawValue]) -> Result<(), CommandError> {
    events.iter().try_for_each(|event| print_event(context, event, &parse(event)?))
}

fn parse(event: &RawValue) -> Result<Event<'_>, CommandError> {
    serde_json::from_str(event.get()).map_err(|_| CommandError::ReplyIncomplete)
}

fn print_event(context: &mut Context<'_>, json: &RawValue, event: &Event<'_>) -> Result<(), CommandError> {
    if !context.format.is_text() {
        return context.print_line(json.get());
    }
    let Event { key, value, because, rev } = event;
    let key = escaped(key);
    match value {
        Some(value) => {
            let line = if context.is_terminal { unmistakable_line } else { one_line };
            writeln!(context.out, "{rev}\tput\t{key}\t{}", line(value))?;
        }
        None => {
            let because = escaped(because.as_deref().unwrap_or("delete"));
            writeln!(context.out, "{rev}\t{}\t{key}", harmless(&because))?;
        }
    }
    Ok(())
}

/// The part of the initial content that is printed. If the server fails before the content is
/// complete, the next one begins with it again, as of a later revision. Then only differences are
/// printed.
#[derive(Debug, Default)]
pub(super) struct Content {
    /// The revision of each key as it was printed, and whether the present server has sent the key.
    printed: BTreeMap<String, (u64, bool)>,
}

impl Content {
    /// Prints the events of initial content as of `as_of`.
    pub(super) fn print(
        &mut self,
        context: &mut Context<'_>,
        events: &[&RawValue],
        as_of: u64,
    ) -> Result<(), CommandError> {
        for json in events {
            let event = parse(json)?;
            debug_assert!(event.rev <= as_of, "content is no newer than its revision");
            let before = self.printed.insert(event.key.clone(), (event.rev, true));
            if before.is_none_or(|(rev, _)| rev != event.rev) {
                print_event(context, json, &event)?;
            }
        }
        Ok(())
    }

    /// Prints the removal of the keys that an earlier server has sent and the last one has not:
    /// they were removed by `as_of`.
    pub(super) fn finish(&mut self, context: &mut Context<'_>, as_of: u64) -> Result<(), CommandError> {
        for (key, (_, is_present)) in std::mem::take(&mut self.printed) {
            if !is_present {
                let key = crate::value::quoted(&key);
                let json =
                    format!("{{\"key\":{key},\"deleted\":true,\"because\":\"delete\",\"rev\":{as_of}}}");
                let json = RawValue::from_string(json).map_err(|_| CommandError::ReplyIncomplete)?;
                print(context, &[&json])?;
            }
        }
        Ok(())
    }

    /// Notes that another server begins with the content again.
    pub(super) fn begin_again(&mut self) {
        self.printed.values_mut().for_each(|(_, is_present)| *is_present = false);
    }
}

/// Returns whether the reader of stdout is gone. Without this check, a watch of keys that never
/// change would not notice it.
pub(super) fn output_is_closed() -> bool {
    let stdout = io::stdout();
    let mut fds = [PollFd::new(&stdout, PollFlags::empty())];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&at_once)).is_ok() && fds[0].revents().contains(PollFlags::ERR)
}
