//! Outcomes: what a command did, and how the session table stores that in a snapshot.
//!
//! | outcome | as JSON |
//! | --- | --- |
//! | done | `"done"`; with revisions `{"done":[REV,CREATED]}` |
//! | not found | `"not_found"` |
//! | another value or revision | `{"actual":VALUE}`; with revisions `{"actual":VALUE,"meta":[REV,CREATED]}` |
//! | a new sum | `{"sum":5,"meta":[REV,CREATED]}` |
//! | keys deleted by prefix | `{"deleted":3,"more":false}` |
//! | a transaction | `{"succeeded":true,"results":["done",{"sum":5},{"found":VALUE}],"meta":[REV,0]}` |
//! | no effect | `"not_a_number"`, `"out_of_range"`, `"too_large"` |

use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::revision::{KeyMeta, Revision};
use super::text::{Value, given, push};

/// The outcome of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The command took effect.
    Done,
    /// No effect: the key to delete was absent.
    NotFound,
    /// No effect: the key does not have the value or the revision that the command expected.
    Mismatch {
        /// The current value of the key, if any.
        actual: Option<Value>,
    },
    /// The key has this number as its new value.
    Sum(i64),
    /// No effect: the key to increment has a value that is not a whole number.
    NotANumber,
    /// No effect: the sum, or the key's number, does not fit a signed 64-bit number.
    OutOfRange,
    /// Keys with a prefix were removed.
    Deleted {
        /// The number of keys.
        keys: u32,
        /// Whether the limit left other keys with the prefix.
        more: bool,
    },
    /// A transaction was executed.
    Txn(Arc<TxnOutcome>),
    /// No effect: the values that the transaction reads are too large for an answer.
    TooLarge,
    /// No effect: the session table has forgotten too much to tell whether the write was applied
    /// before.
    SessionExpired,
    /// No effect: the client of the session is new, and the session table has no room for the
    /// fingerprint that it must keep of each client.
    TooManySessions,
}

/// The outcome of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxnOutcome {
    /// Whether all conditions held, so that `then` was executed and not `else`.
    pub succeeded: bool,
    /// The result of each operation that was executed, in order.
    pub results: Vec<TxnResult>,
}

/// The result of one operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TxnResult {
    /// The write took effect.
    Done,
    /// The key to delete was absent.
    NotFound,
    /// The key has this number as its new value.
    Sum(i64),
    /// The value that was read, if the key has one.
    Found(Option<Value>),
}

/// An outcome with the revisions of the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The outcome.
    pub outcome: Outcome,
    /// The revisions of the key as the command left or found it, if they are known. After a delete:
    /// those of the delete and of the creation. For a transaction: only its own revision.
    pub meta: KeyMeta,
}

impl Outcome {
    /// The outcome without revisions.
    #[must_use]
    pub fn without_meta(self) -> Applied {
        Applied { outcome: self, meta: KeyMeta::default() }
    }

    /// The outcome of a command that left the key with these revisions.
    #[must_use]
    pub fn with_meta(self, meta: KeyMeta) -> Applied {
        Applied { outcome: self, meta }
    }

    /// The number of keys that the command has changed or read beyond the first one.
    pub(crate) fn work(&self) -> usize {
        match self {
            Self::Deleted { keys, .. } => usize::try_from(*keys).unwrap_or(usize::MAX),
            Self::Txn(txn) => txn.results.len(),
            _ => 0,
        }
    }

    /// The number of bytes of values in the outcome.
    #[must_use]
    pub fn value_bytes(&self) -> usize {
        /// The size of a result without its value.
        const RESULT_BYTES: usize = 32;
        match self {
            Self::Mismatch { actual: Some(value) } => value.as_json().len(),
            Self::Txn(txn) => txn.results.iter().map(|result| RESULT_BYTES + result.value_bytes()).sum(),
            _ => 0,
        }
    }
}

impl TxnResult {
    fn value_bytes(&self) -> usize {
        if let Self::Found(Some(value)) = self { value.as_json().len() } else { 0 }
    }
}

impl Applied {
    /// Appends the outcome as JSON. See the module.
    ///
    /// # Panics
    ///
    /// When the session rejected the write, which is not remembered.
    pub(crate) fn push_json(&self, line: &mut String) {
        match &self.outcome {
            Outcome::Done if self.meta.is_known() => {
                push(line, format_args!("{{\"done\":[{},{}]}}", self.meta.rev, self.meta.created));
            }
            Outcome::Done => line.push_str("\"done\""),
            Outcome::NotFound => line.push_str("\"not_found\""),
            Outcome::NotANumber => line.push_str("\"not_a_number\""),
            Outcome::OutOfRange => line.push_str("\"out_of_range\""),
            Outcome::TooLarge => line.push_str("\"too_large\""),
            Outcome::Mismatch { actual } => {
                line.push_str("{\"actual\":");
                line.push_str(actual.as_ref().map_or("null", Value::as_json));
                self.close_with_meta(line);
            }
            Outcome::Sum(sum) => {
                push(line, format_args!("{{\"sum\":{sum}"));
                self.close_with_meta(line);
            }
            Outcome::Deleted { keys, more } => {
                push(line, format_args!("{{\"deleted\":{keys},\"more\":{more}}}"));
            }
            Outcome::Txn(txn) => {
                push(line, format_args!("{{\"succeeded\":{},\"results\":[", txn.succeeded));
                for (position, result) in txn.results.iter().enumerate() {
                    line.push_str(if position > 0 { "," } else { "" });
                    result.push_json(line);
                }
                line.push(']');
                self.close_with_meta(line);
            }
            Outcome::SessionExpired | Outcome::TooManySessions => {
                panic!("a write that its session rejects has no outcome to remember")
            }
        }
    }

    fn close_with_meta(&self, line: &mut String) {
        if self.meta.is_known() {
            push(line, format_args!(",\"meta\":[{},{}]", self.meta.rev, self.meta.created));
        }
        line.push('}');
    }

    /// Parses the JSON of [`Applied::push_json`]; `None`: it has another form.
    pub(crate) fn from_json(json: &str) -> Option<Self> {
        let applied = match json {
            "\"done\"" => Outcome::Done.without_meta(),
            "\"not_found\"" => Outcome::NotFound.without_meta(),
            "\"not_a_number\"" => Outcome::NotANumber.without_meta(),
            "\"out_of_range\"" => Outcome::OutOfRange.without_meta(),
            "\"too_large\"" => Outcome::TooLarge.without_meta(),
            _ => serde_json::from_str::<OutcomeText<'_>>(json).ok()?.read()?,
        };
        let mut written = String::with_capacity(json.len());
        applied.push_json(&mut written);
        (written == json).then_some(applied)
    }
}

impl TxnResult {
    fn push_json(&self, line: &mut String) {
        match self {
            Self::Done => line.push_str("\"done\""),
            Self::NotFound => line.push_str("\"not_found\""),
            Self::Sum(sum) => push(line, format_args!("{{\"sum\":{sum}}}")),
            Self::Found(value) => {
                line.push_str("{\"found\":");
                line.push_str(value.as_ref().map_or("null", Value::as_json));
                line.push('}');
            }
        }
    }

    fn from_json(json: &str) -> Option<Self> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct ResultText<'a> {
            sum: Option<i64>,
            #[serde(borrow, default, deserialize_with = "given")]
            found: Option<&'a RawValue>,
        }
        match json {
            "\"done\"" => return Some(Self::Done),
            "\"not_found\"" => return Some(Self::NotFound),
            _ => {}
        }
        match serde_json::from_str(json).ok()? {
            ResultText { sum: Some(sum), found: None } => Some(Self::Sum(sum)),
            ResultText { sum: None, found: Some(found) } => Some(Self::Found(value_or_null(found)?)),
            ResultText { .. } => None,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OutcomeText<'a> {
    done: Option<(u64, u64)>,
    #[serde(borrow, default, deserialize_with = "given")]
    actual: Option<&'a RawValue>,
    sum: Option<i64>,
    deleted: Option<u32>,
    more: Option<bool>,
    succeeded: Option<bool>,
    #[serde(borrow, default)]
    results: Option<Vec<&'a RawValue>>,
    meta: Option<(u64, u64)>,
}

impl OutcomeText<'_> {
    /// Reads the members. That there are no others is checked by encoding the result again.
    fn read(&self) -> Option<Applied> {
        let meta = |(rev, created)| KeyMeta::of(Revision(rev), Revision(created));
        if let Some(done) = self.done {
            return Some(Outcome::Done.with_meta(meta(done)));
        }
        let outcome = if let Some(actual) = self.actual {
            Outcome::Mismatch { actual: value_or_null(actual)? }
        } else if let Some(sum) = self.sum {
            Outcome::Sum(sum)
        } else if let (Some(keys), Some(more)) = (self.deleted, self.more) {
            Outcome::Deleted { keys, more }
        } else {
            let results = self.results.as_ref()?.iter().map(|json| TxnResult::from_json(json.get()));
            let results = results.collect::<Option<_>>()?;
            Outcome::Txn(Arc::new(TxnOutcome { succeeded: self.succeeded?, results }))
        };
        Some(outcome.with_meta(self.meta.map(meta).unwrap_or_default()))
    }
}

#[expect(clippy::option_option, reason = "the outer one says whether it could be read")]
fn value_or_null(json: &RawValue) -> Option<Option<Value>> {
    if json.get() == "null" { Some(None) } else { Value::new(json).ok().map(Some) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(rev: u64, created: u64) -> KeyMeta {
        KeyMeta::of(Revision(rev), Revision(created))
    }

    #[test]
    fn outcomes_are_written_as_documented_and_parsed_back() {
        let value = Value::from_json("[1,\"x\"]").ok();
        let txn = TxnOutcome {
            succeeded: true,
            results: vec![
                TxnResult::Done,
                TxnResult::NotFound,
                TxnResult::Sum(-5),
                TxnResult::Found(value.clone()),
                TxnResult::Found(None),
            ],
        };
        for (applied, json) in [
            (Outcome::Done.without_meta(), "\"done\""),
            (Outcome::Done.with_meta(meta(9, 3)), "{\"done\":[9,3]}"),
            (Outcome::NotFound.without_meta(), "\"not_found\""),
            (Outcome::Mismatch { actual: None }.without_meta(), "{\"actual\":null}"),
            (
                Outcome::Mismatch { actual: value }.with_meta(meta(9, 3)),
                "{\"actual\":[1,\"x\"],\"meta\":[9,3]}",
            ),
            (Outcome::Sum(i64::MIN).with_meta(meta(9, 3)), "{\"sum\":-9223372036854775808,\"meta\":[9,3]}"),
            (Outcome::NotANumber.without_meta(), "\"not_a_number\""),
            (Outcome::OutOfRange.without_meta(), "\"out_of_range\""),
            (Outcome::TooLarge.without_meta(), "\"too_large\""),
            (Outcome::Deleted { keys: 3, more: true }.without_meta(), "{\"deleted\":3,\"more\":true}"),
            (
                Outcome::Txn(Arc::new(txn)).with_meta(meta(9, 0)),
                "{\"succeeded\":true,\"results\":[\"done\",\"not_found\",{\"sum\":-5},{\"found\":[1,\"x\"]},\
                 {\"found\":null}],\"meta\":[9,0]}",
            ),
        ] {
            let mut line = String::new();
            applied.push_json(&mut line);
            assert_eq!(line, json);
            assert_eq!(Applied::from_json(json), Some(applied), "{json}");
        }
    }

    #[test]
    fn other_texts_are_rejected() {
        for json in [
            "",
            "null",
            "{}",
            "\"session_expired\"",
            "{\"done\":[0,0]}",
            "{\"done\":[1,1],\"sum\":1}",
            "{\"sum\":1.5}",
            "{\"sum\":9223372036854775808}",
            "{\"actual\": 1}",
            "{\"deleted\":1}",
            "{\"succeeded\":true,\"results\":[\"sum\"]}",
            "{\"succeeded\":true,\"results\":[{\"sum\":1,\"found\":1}]}",
            "{\"results\":[]}",
        ] {
            assert_eq!(Applied::from_json(json), None, "{json}");
        }
    }
}
