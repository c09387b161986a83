//! Requests that simulated clients draw by the weights of a run.

use coracle_core::Request;
use coracle_core::kv::{Command, Expected, Key, Query, Revision, Scan, ScanContent, Ttl, Txn, Value};
use coracle_core::protocol::{SCAN_BYTES_MAX, SCAN_ITEMS_DEFAULT};
use coracle_core::proxy::Ticket;

use super::clients::Client;
use super::dice::Dice;
use super::settings::{SimSettings, Weights};

impl Client {
    /// Draws a request, which is about the key `text` unless it is about other keys.
    pub(super) fn draw(
        &mut self,
        text: &str,
        ticket: Ticket,
        dice: &mut Dice,
        settings: &SimSettings,
        only_read: bool,
    ) -> Request {
        let key = || Key::new(text).expect("a short key");
        let value = |dice: &mut Dice| fresh_value(ticket, dice, settings);
        let kind = if only_read { Kind::Get } else { kind(dice, &settings.weights) };
        let command = match kind {
            Kind::Get => {
                let query = if dice.happens(300) { Query::Entry(key()) } else { Query::Value(key()) };
                return Request::Read { query, at_least: self.seen };
            }
            Kind::Scan => {
                let query = Query::Scan(next_page(self.scan.take(), text.to_owned(), dice));
                return Request::Read { query, at_least: self.seen };
            }
            Kind::Put => Command::Put { key: key(), value: value(dice) },
            Kind::Delete => Command::Delete { key: key() },
            Kind::Swap => {
                let expect = if dice.happens(300) { None } else { self.last_value.clone() };
                Command::Cas { key: key(), expect, value: value(dice) }
            }
            Kind::ByRevision => {
                let rev = if dice.happens(200) { Revision::NONE } else { self.last_rev };
                match dice.happens(300) {
                    true => Command::DeleteRevision { key: key(), rev },
                    false => Command::CasRevision { key: key(), rev, value: value(dice) },
                }
            }
            Kind::Incr => {
                // Some keys hold text, and a large number soon exceeds the range.
                let counter = if dice.happens(900) { format!("n{}", dice.below(2)) } else { text.to_owned() };
                let by = dice.one_of(&[1, 1, 1, -7, i64::MAX / 3]);
                Command::Incr { key: Key::new(&counter).expect("a short key"), by }
            }
            Kind::DeletePrefix => {
                // Histories that are searched hold no keys that expire, so nothing that is in them
                // removes such keys.
                let last = if settings.weights.expiry > 0 { "e" } else { "" };
                let prefix = dice.one_of(&["k1", "k", "n", "t", last]);
                Command::DeletePrefix { prefix: prefix.into(), keys_max: dice.one_of(&[1, 2, 1000]) }
            }
            Kind::Txn => Command::Txn(self.transaction(text, ticket, dice).into()),
            Kind::Expiry => match self.of_expiring(value(dice), dice) {
                Ok(command) => command,
                Err(query) => return Request::Read { query, at_least: self.seen },
            },
        };
        let wants_meta = command.key().is_some() && dice.happens(300);
        Request::Write { command, session: None, wants_meta }
    }

    /// Draws a request about the keys `e0` to `e2`, most of which expire.
    fn of_expiring(&self, value: Value, dice: &mut Dice) -> Result<Command, Query> {
        let text = format!("e{}", dice.below(3));
        let key = Key::new(&text).expect("a short key");
        let ms = dice.one_of(&[1, 40, 300, 1500, 4000]);
        let ttl = Ttl::from_ms(ms).expect("it is in range");
        Ok(match dice.below(12) {
            0..=3 => Command::PutExpiring { key, value, ttl },
            4 => Command::CasExpiring { key, expected: Expected::Absent, value, ttl },
            5 => Command::CasExpiring { key, expected: Expected::Revision(self.last_rev), value, ttl },
            6 => Command::Touch { key, ttl },
            7 => Command::Persist { key },
            8 => Command::Put { key, value },
            9 => {
                let put = format!(r#"{{"op":"put","key":"{text}","ttl_ms":{ms},"value":7}}"#);
                let then = format!(r#"[{put},{{"op":"incr","key":"e9","by":1}}]"#);
                Command::Txn(Txn::from_json(None, Some(&then), None).expect("it is a transaction").into())
            }
            10 => Command::Incr { key, by: 1 },
            _ => return Err(Query::Entry(key)),
        })
    }

    /// Draws a transaction, nearly always of the keys `t0` and `t1`, which few other requests
    /// touch.
    fn transaction(&self, text: &str, ticket: Ticket, dice: &mut Dice) -> Txn {
        let key = |dice: &mut Dice| {
            if dice.happens(900) { format!("t{}", dice.below(2)) } else { text.to_owned() }
        };
        let condition = match dice.below(4) {
            0 => format!(r#"[{{"key":"{}","absent":true}}]"#, key(dice)),
            1 => format!(r#"[{{"key":"{}","rev":{}}}]"#, key(dice), self.last_rev),
            2 => {
                let value = self.last_value.as_ref().map_or("1", Value::as_json);
                format!(r#"[{{"key":"{}","value":{value}}}]"#, key(dice))
            }
            _ => "[]".to_owned(),
        };
        let put = format!(r#"{{"op":"put","key":"t0","value":"{}-{}"}}"#, ticket.connection, ticket.slot);
        let get = format!(r#"{{"op":"get","key":"{}"}}"#, key(dice));
        let then = match dice.below(4) {
            0 => format!(r#"[{put},{{"op":"incr","key":"t1","by":1}},{get}]"#),
            1 => format!(r#"[{get},{{"op":"delete","key":"t0"}},{{"op":"delete","key":"t1"}}]"#),
            2 => r#"[{"op":"delete","key":"t1"},{"op":"incr","key":"t0","by":5}]"#.to_owned(),
            _ => format!(r#"[{{"op":"put","key":"{}","value":"both"}},{get}]"#, key(dice)),
        };
        let otherwise =
            dice.one_of(&["[]", r#"[{"op":"put","key":"t0","value":7}]"#, r#"[{"op":"get","key":"t1"}]"#]);
        Txn::from_json(Some(&condition), Some(&then), Some(otherwise)).expect("it is a transaction")
    }
}

/// A kind of request.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Put,
    Get,
    Delete,
    Swap,
    Scan,
    ByRevision,
    Incr,
    DeletePrefix,
    Txn,
    Expiry,
}

/// Draws the kind of a request by the weights.
fn kind(dice: &mut Dice, weights: &Weights) -> Kind {
    let Weights { put, get, delete, swap, scan, by_revision, incr, delete_prefix, txn, expiry } = *weights;
    let kinds = [
        (Kind::Put, put),
        (Kind::Get, get),
        (Kind::Delete, delete),
        (Kind::Swap, swap),
        (Kind::Scan, scan),
        (Kind::ByRevision, by_revision),
        (Kind::Incr, incr),
        (Kind::DeletePrefix, delete_prefix),
        (Kind::Txn, txn),
        (Kind::Expiry, expiry),
    ];
    let mut drawn = dice.below(kinds.iter().map(|(_, weight)| weight).sum());
    for (kind, weight) in kinds {
        if drawn < weight {
            return kind;
        }
        drawn -= weight;
    }
    Kind::Put
}

/// The keys that a request touches, each with whether it may write it; `None` for all keys.
pub(super) fn touched(request: &Request) -> Option<Vec<(String, bool)>> {
    let one = |key: &Key, writes| Some(vec![(key.as_str().to_owned(), writes)]);
    match request {
        Request::Write { command: Command::Txn(txn), .. } => {
            Some(txn.keys().map(|(key, writes)| (key.as_str().to_owned(), writes)).collect())
        }
        Request::Write { command, .. } => one(command.key()?, true),
        Request::Read { query, .. } | Request::LinearizableRead(query) => match query {
            Query::Value(key) | Query::Entry(key) => one(key, false),
            Query::Scan(_) => None,
        },
        _ => None,
    }
}

/// Returns the next page of the scan that a client is reading, or the first page of another scan,
/// which may begin after any key.
fn next_page(reading: Option<Scan>, key: String, dice: &mut Dice) -> Scan {
    let items_max = dice.one_of(&[SCAN_ITEMS_DEFAULT, 1, 2, 7]);
    if let Some(next) = reading {
        return Scan { items_max, ..next };
    }
    let content = match dice.below(10) {
        0 => ScanContent::Count,
        1 => ScanContent::Keys,
        _ => ScanContent::Values,
    };
    Scan {
        prefix: dice.one_of(&["", "", "k", "k1"]).to_owned(),
        end: dice.happens(200).then(|| key.clone()),
        after: dice.happens(300).then_some(key),
        is_reverse: dice.happens(300),
        content,
        wants_meta: content != ScanContent::Count && dice.happens(300),
        items_max,
        bytes_max: SCAN_BYTES_MAX,
    }
}

/// Returns a value that is unique in the run.
fn fresh_value(ticket: Ticket, dice: &mut Dice, settings: &SimSettings) -> Value {
    let padding = "x".repeat(dice.below(settings.value_bytes_max + 1) as usize);
    Value::from_text(&format!("{}-{}{padding}", ticket.connection, ticket.slot)).expect("a short value")
}
