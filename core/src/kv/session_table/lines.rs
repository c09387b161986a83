//! The encoding of the session table as JSON lines in a snapshot, and its parser.
//!
//! ```jsonl
//! {"session":"c","used":42,"forgotten":6,"outcomes":[[7,"done"],[8,"not_found"],[9,{"actual":"x"}]]}
//! {"expired":["af63dc4c8601ec8c","af63df4c8601f1a5"]}
//! {"marks":[[1000000,2]],"at_tick":2}
//! ```
//!
//! The forms of an outcome are in [`outcome`](crate::kv::Outcome). Clients are ordered by their
//! last use, least recent first. The fingerprints of forgotten clients follow, in the order in
//! which they were forgotten, and in hex because JSON libraries round large numbers. The last line,
//! if there is one, holds the marks: a log time in microseconds, and how many of the fingerprints
//! were there by then; and how many were there at the last tick. A table that is built from the
//! lines is equal to the original in every field.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::forgotten::{Forgotten, Mark};
use super::{Client, SessionTable, bytes_of_client, bytes_of_outcome};
use crate::kv::outcome::Applied;
use crate::kv::session::{ClientName, LoggedSession};
use crate::kv::text::{push, push_json_string};
use crate::kv::ttl::LogTime;
use crate::mutant::{self, Mutant};

/// The most fingerprints in a line: about 20 KB. Arbitrary.
const FINGERPRINTS_PER_LINE: usize = 1000;

/// The highest use number that is accepted: far above any that a log reaches, and low enough to be
/// incremented. Arbitrary.
const USED_MAX: u64 = 1 << 62;

/// The reason why a line is not a valid next line of the session table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionLineError {
    /// The line has another form.
    Form,
    /// The line does not fit the lines before it: an item is duplicate or out of order.
    Order,
    /// With the line, the table would exceed its limits.
    Limit,
}

impl fmt::Display for SessionLineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Form => "the line is not a valid line of the session table",
            Self::Order => "the line does not follow the session lines before it",
            Self::Limit => "the line exceeds the limits of the session table",
        })
    }
}

impl std::error::Error for SessionLineError {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClientLine<'a> {
    #[serde(borrow)]
    session: Cow<'a, str>,
    used: u64,
    forgotten: Option<u64>,
    #[serde(borrow)]
    outcomes: Vec<(u64, &'a RawValue)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpiredLine<'a> {
    #[serde(borrow)]
    expired: Vec<Cow<'a, str>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MarksLine {
    marks: Vec<(u64, usize)>,
    at_tick: usize,
}

/// The lines of a table as it was at one moment. A table may hold half a million fingerprints, so
/// their lines are built one by one.
#[derive(Clone, Debug, Default)]
pub(crate) struct SessionLines {
    clients: VecDeque<String>,
    expired: VecDeque<u64>,
    /// The number of fingerprints that were read.
    read: usize,
    marks: Option<String>,
}

impl Iterator for SessionLines {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        if let Some(line) = self.clients.pop_front() {
            return Some(line);
        }
        let read = self.read;
        if read < self.expired.len() {
            self.read += FINGERPRINTS_PER_LINE;
            return Some(expired_line(self.expired.iter().skip(read).take(FINGERPRINTS_PER_LINE).copied()));
        }
        self.marks.take()
    }
}

impl SessionTable {
    /// Returns the table as JSON lines without line breaks. Equal tables give the same lines.
    pub(crate) fn lines(&self) -> SessionLines {
        SessionLines {
            // Some thousands.
            clients: self.by_use.values().map(|name| client_line(name, &self.clients[name])).collect(),
            expired: self.expired.fingerprints().clone(),
            read: 0,
            marks: marks_unless_mutant(&self.expired),
        }
    }

    /// Accepts the next line of an encoded table, and rejects any other line. Nothing is
    /// forgotten, because the original table had the same limits.
    ///
    /// # Errors
    ///
    /// [`SessionLineError`]; the table is unusable then.
    pub fn restore(&mut self, line: &str) -> Result<(), SessionLineError> {
        if line.starts_with("{\"expired\":") {
            self.restore_expired(line)
        } else if line.starts_with("{\"marks\":") {
            self.restore_marks(line)
        } else {
            self.restore_client(line)
        }
    }

    fn restore_client(&mut self, line: &str) -> Result<(), SessionLineError> {
        let ClientLine { session, used, forgotten, outcomes } =
            serde_json::from_str(line).map_err(|_| SessionLineError::Form)?;
        let name = ClientName::new(&session).map_err(|_| SessionLineError::Form)?;
        let mut client = Client { used, forgotten, bytes: bytes_of_client(&name), ..Client::default() };
        for (seq, json) in outcomes {
            let is_next = client.outcomes.last_key_value().map(|(last, _)| *last).max(forgotten) < Some(seq);
            LoggedSession::checked(Cow::Borrowed(name.as_str()), seq).ok_or(SessionLineError::Form)?;
            let outcome = Applied::from_json(json.get()).ok_or(SessionLineError::Form)?;
            if !is_next {
                return Err(SessionLineError::Order);
            }
            client.bytes += bytes_of_outcome(&outcome);
            client.outcomes.insert(seq, outcome);
        }
        if client_line(&name, &client) != line || client.outcomes.is_empty() {
            return Err(SessionLineError::Form);
        }
        let is_last = self.by_use.last_key_value().is_none_or(|(last, _)| *last < used);
        if !is_last || self.clients.contains_key(&name) || !self.expired.is_empty() {
            return Err(SessionLineError::Order);
        }
        let has_room = self.clients.is_empty()
            || (self.clients.len() < self.limits.clients_max
                && self.bytes + client.bytes <= self.limits.bytes_max);
        if !has_room || !client.is_within(&self.limits) || used > USED_MAX {
            return Err(SessionLineError::Limit);
        }
        self.bytes += client.bytes;
        self.outcomes += client.outcomes.len();
        self.by_use.insert(used, name.clone());
        self.clients.insert(name, client);
        Ok(())
    }

    fn restore_expired(&mut self, line: &str) -> Result<(), SessionLineError> {
        let ExpiredLine { expired } = serde_json::from_str(line).map_err(|_| SessionLineError::Form)?;
        // All lines except the last are full.
        let follows_full_lines = self.expired.len().is_multiple_of(FINGERPRINTS_PER_LINE);
        let is_full_at_most = (1..=FINGERPRINTS_PER_LINE).contains(&expired.len());
        let len_max = match self.keeps_by_time {
            false => self.limits.expired_max,
            true => self.limits.expired_max.max(self.limits.fingerprints_max) + self.limits.clients_max,
        };
        if self.expired.len() + expired.len() > len_max {
            return Err(SessionLineError::Limit);
        }
        let before = self.expired.len();
        for digits in &expired {
            let is_hex = digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            let fingerprint = u64::from_str_radix(digits, 16).ok().filter(|_| is_hex);
            let fingerprint = fingerprint.ok_or(SessionLineError::Form)?;
            if !self.expired.add(fingerprint) {
                return Err(SessionLineError::Order);
            }
        }
        let is_own_form = expired_line(self.expired.fingerprints().range(before..).copied()) == line;
        if !is_own_form || !is_full_at_most {
            return Err(SessionLineError::Form);
        }
        let is_next = follows_full_lines && self.expired.at_tick() == 0;
        if is_next { Ok(()) } else { Err(SessionLineError::Order) }
    }

    fn restore_marks(&mut self, line: &str) -> Result<(), SessionLineError> {
        let MarksLine { marks, at_tick } = serde_json::from_str(line).map_err(|_| SessionLineError::Form)?;
        let is_first = self.expired.at_tick() == 0 && at_tick > 0;
        if !self.keeps_by_time || !is_first {
            return Err(SessionLineError::Order);
        }
        let marks: Vec<_> = marks.into_iter().map(|(time, len)| Mark { time: LogTime(time), len }).collect();
        if !self.expired.restore_marks(&marks, at_tick) {
            return Err(SessionLineError::Order);
        }
        if marks_line(&self.expired) == line { Ok(()) } else { Err(SessionLineError::Form) }
    }
}

fn client_line(name: &ClientName, client: &Client) -> String {
    // Large enough to grow rarely: an outcome is nearly always one of the short words.
    let mut line = String::with_capacity(100 + name.as_str().len() + 20 * client.outcomes.len());
    line.push_str("{\"session\":");
    push_json_string(&mut line, name.as_str());
    push(&mut line, format_args!(",\"used\":{},\"forgotten\":", client.used));
    match client.forgotten {
        Some(forgotten) => push(&mut line, format_args!("{forgotten}")),
        None => line.push_str("null"),
    }
    line.push_str(",\"outcomes\":[");
    for (position, (seq, outcome)) in client.outcomes.iter().enumerate() {
        line.push_str(if position > 0 { ",[" } else { "[" });
        push(&mut line, format_args!("{seq}"));
        line.push(',');
        outcome.push_json(&mut line);
        line.push(']');
    }
    line.push_str("]}");
    line
}

fn expired_line(fingerprints: impl Iterator<Item = u64>) -> String {
    let mut line = String::with_capacity(20 * (fingerprints.size_hint().0 + 1));
    line.push_str("{\"expired\":[");
    for (position, fingerprint) in fingerprints.enumerate() {
        line.push_str(if position > 0 { ",\"" } else { "\"" });
        push_hex(&mut line, fingerprint);
        line.push('"');
    }
    line.push_str("]}");
    line
}

fn marks_line(expired: &Forgotten) -> String {
    let mut line = String::from("{\"marks\":[");
    for (position, Mark { time: LogTime(time), len }) in expired.marks().iter().enumerate() {
        line.push_str(if position > 0 { "," } else { "" });
        push(&mut line, format_args!("[{time},{len}]"));
    }
    push(&mut line, format_args!("],\"at_tick\":{}}}", expired.at_tick()));
    line
}

/// The line of the marks, if there are any; deliberate bug: none.
fn marks_unless_mutant(expired: &Forgotten) -> Option<String> {
    let has_line = expired.at_tick() > 0 && !mutant::is_active(Mutant::MarksNotSaved);
    has_line.then(|| marks_line(expired))
}

/// Appends all sixteen hex digits. Does not use the formatter, because a table may hold half a
/// million fingerprints.
fn push_hex(line: &mut String, number: u64) {
    for shift in (0..16).rev().map(|digit| 4 * digit) {
        let digit = char::from_digit((number >> shift & 0xf) as u32, 16);
        line.push(digit.expect("four bits are a digit"));
    }
}
