//! Client connections: requests go in as lines of the protocol and replies come out as lines,
//! through the real [`ClientHost`].
//!
//! The content of a reply is checked where the router emits it, because its line does not contain
//! the index at which it was decided. Here is checked that each request gets one line, and that the
//! lines come in the order of the requests.

use std::collections::BTreeSet;

use coracle_core::host::{ClientHost, RouterInput, ToWriter};
use coracle_core::kv::{Command, Expected, Key, Query, Scan, ScanContent, Session, Value};
use coracle_core::memory::{ClientMemory, MemoryBudget};
use coracle_core::proxy::{Reply, Ticket};
use coracle_core::{KnownCluster, Request};
use serde::Deserialize;

use super::invariants::{Verdict, Violation};

/// The connections of all clients.
#[derive(Debug)]
pub(super) struct Connections(Vec<Place>);

#[derive(Debug)]
struct Place {
    host: ClientHost,
    /// The slot whose line is due next.
    next: u64,
    /// The slots whose replies are known but not written.
    known: BTreeSet<u64>,
    /// The beginning of a line whose rest is not written yet: a long page is written in pieces.
    unfinished: String,
}

/// The member of a reply's line that says which request it answers.
#[derive(Deserialize)]
struct Answered {
    id: u64,
}

impl Connections {
    /// A connection for each of `clients` clients.
    pub(super) fn new(clients: usize) -> Self {
        let place = |number| Place {
            host: ClientHost::new(
                number,
                "simulated:1".into(),
                KnownCluster::default(),
                unlimited_memory(number),
            ),
            next: 0,
            known: BTreeSet::new(),
            unfinished: String::new(),
        };
        Self((1..=clients as u64).map(place).collect())
    }

    /// Sends a request of a client. Returns the input for the router, if any: this request may have
    /// to wait for others.
    pub(super) fn send(&mut self, ticket: Ticket, request: &Request) -> Option<RouterInput> {
        let place = self.place(ticket.connection);
        place.host.received(line_of(ticket.slot, request).as_bytes());
        let ([_, asked], ..) = place.host.next_read();
        asked
    }

    /// Hands a reply of the router to its connection. Returns the requests that may go to the
    /// router now.
    ///
    /// # Errors
    ///
    /// When a line comes out that is not due.
    pub(super) fn reply(&mut self, ticket: Ticket, reply: Reply) -> Result<Vec<RouterInput>, Violation> {
        let place = self.place(ticket.connection);
        place.known.insert(ticket.slot);
        place.host.told(ToWriter::Reply(ticket.slot, reply));
        let (mut requests, mut lines) = (Vec::new(), String::new());
        loop {
            let [_, asked] = place.host.next_write(&mut lines);
            if asked.is_none() && lines.is_empty() {
                return Ok(requests);
            }
            requests.extend(asked);
            place.unfinished.push_str(&lines);
            let complete = place.unfinished.rfind('\n').map_or(0, |end| end + 1);
            let lines: String = place.unfinished.drain(..complete).collect();
            lines.lines().try_for_each(|line| place.written(line))?;
        }
    }

    fn place(&mut self, connection: u64) -> &mut Place {
        let position = usize::try_from(connection).expect("few clients") - 1;
        &mut self.0[position]
    }
}

impl Place {
    fn written(&mut self, line: &str) -> Verdict {
        let answered: Result<Answered, _> = serde_json::from_str(line);
        let is_next =
            answered.is_ok_and(|answered| answered.id == self.next) && self.known.remove(&self.next);
        if is_next {
            self.next += 1;
            return Ok(());
        }
        let what = format!("{line} is written where the reply to request {} is due", self.next);
        Err(Violation { property: "replies_in_order", what })
    }
}

/// Encodes a request as its client writes it.
fn line_of(id: u64, request: &Request) -> String {
    let members = match request {
        Request::Write { command, session, wants_meta } => {
            let meta = if *wants_meta { ",\"meta\":true" } else { "" };
            format!("{}{meta}{}", command_of(command), session.as_ref().map(session_of).unwrap_or_default())
        }
        Request::Read { query, .. } => query_of(query),
        Request::LinearizableRead(query) => {
            format!("{},\"consistency\":\"linearizable\"", query_of(query))
        }
        other => panic!("no simulated client asks {other:?}"),
    };
    format!("{{{members},\"id\":{id}}}\n")
}

fn command_of(command: &Command) -> String {
    let key = command.key().map_or("", Key::as_str);
    match command {
        Command::Put { value, .. } => {
            format!("\"op\":\"put\",\"key\":\"{key}\",\"value\":{}", value.as_json())
        }
        Command::Delete { .. } => format!("\"op\":\"delete\",\"key\":\"{key}\""),
        Command::Cas { expect, value, .. } => {
            let expect = expect.as_ref().map_or("null", Value::as_json);
            format!("\"op\":\"cas\",\"key\":\"{key}\",\"expect\":{expect},\"value\":{}", value.as_json())
        }
        Command::DeleteRevision { rev, .. } => format!("\"op\":\"delete\",\"key\":\"{key}\",\"rev\":{rev}"),
        Command::CasRevision { rev, value, .. } => {
            format!("\"op\":\"cas\",\"key\":\"{key}\",\"rev\":{rev},\"value\":{}", value.as_json())
        }
        Command::Incr { by, .. } => format!("\"op\":\"incr\",\"key\":\"{key}\",\"by\":{by}"),
        Command::DeletePrefix { prefix, keys_max } => {
            format!("\"op\":\"delete_prefix\",\"prefix\":\"{prefix}\",\"limit\":{keys_max}")
        }
        Command::Txn(_) => {
            let mut payload = String::new();
            command.write_payload(None, &mut payload);
            payload.replacen("TXN", "txn", 1)
        }
        Command::PutExpiring { value, ttl, .. } => {
            let ttl = ttl.ms();
            format!("\"op\":\"put\",\"key\":\"{key}\",\"value\":{},\"ttl_ms\":{ttl}", value.as_json())
        }
        Command::CasExpiring { expected, value, ttl, .. } => {
            let expected = match expected {
                Expected::Absent => "\"expect\":null".to_owned(),
                Expected::Value(value) => format!("\"expect\":{}", value.as_json()),
                Expected::Revision(rev) => format!("\"rev\":{rev}"),
            };
            let (value, ttl) = (value.as_json(), ttl.ms());
            format!("\"op\":\"cas\",\"key\":\"{key}\",{expected},\"value\":{value},\"ttl_ms\":{ttl}")
        }
        Command::Touch { ttl, .. } => format!("\"op\":\"touch\",\"key\":\"{key}\",\"ttl_ms\":{}", ttl.ms()),
        Command::Persist { .. } => format!("\"op\":\"persist\",\"key\":\"{key}\""),
        Command::RaiseLevel(_) | Command::Tick(_) => panic!("only a leader proposes {command:?}"),
    }
}

fn session_of(session: &Session) -> String {
    format!(",\"session\":{{\"client\":\"{}\",\"seq\":{}}}", session.client().as_str(), session.seq())
}

fn query_of(query: &Query) -> String {
    match query {
        Query::Value(key) => format!("\"op\":\"get\",\"key\":\"{}\"", key.as_str()),
        Query::Entry(key) => format!("\"op\":\"get\",\"key\":\"{}\",\"meta\":true", key.as_str()),
        Query::Scan(scan) => {
            let Scan { prefix, after, end, is_reverse, content, wants_meta, items_max, .. } = scan;
            let text = |name: &str, text: &Option<String>| {
                text.as_ref().map(|text| format!(",\"{name}\":\"{text}\"")).unwrap_or_default()
            };
            let content = match content {
                ScanContent::Values => "",
                ScanContent::Keys => ",\"keys_only\":true",
                ScanContent::Count => ",\"count\":true",
            };
            let (after, end) = (text("after", after), text("end", end));
            format!(
                "\"op\":\"scan\",\"prefix\":\"{prefix}\",\"limit\":{items_max}{after}{end},\
                 \"reverse\":{is_reverse},\"meta\":{wants_meta}{content}"
            )
        }
    }
}

fn unlimited_memory(number: u64) -> ClientMemory {
    MemoryBudget::unlimited().connect(number).expect("there is no limit").0
}
