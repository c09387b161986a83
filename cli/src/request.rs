//! Requests of the client commands, encoded as lines of the client protocol, and the property that
//! decides whether a request may be retried: whether it writes.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The effect that a request may have on the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// A read: it may be retried at any server.
    Reads,
    /// A write: once sent, it may have taken effect, so it is never retried automatically.
    Writes,
}

/// The message for a write that was sent and whose reply is missing.
pub(crate) const OUTCOME_UNKNOWN: &str = "the outcome is unknown: the write may or may not take effect";

/// A request in its extended form, with the member `op`.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(crate) enum Request<'a> {
    Put {
        key: &'a str,
        value: &'a RawValue,
        /// The time to live, in milliseconds.
        #[serde(skip_serializing_if = "Option::is_none")]
        ttl_ms: Option<u64>,
        #[serde(skip_serializing_if = "is_false")]
        meta: bool,
    },
    Get {
        key: &'a str,
        consistency: Consistency,
        #[serde(skip_serializing_if = "is_false")]
        meta: bool,
    },
    Delete {
        key: &'a str,
        /// The revision that the key must have; 0: it must be absent.
        #[serde(skip_serializing_if = "Option::is_none")]
        rev: Option<u64>,
    },
    DeletePrefix {
        prefix: &'a str,
    },
    Cas {
        key: &'a str,
        /// `None`: the key must be absent.
        expect: Option<&'a RawValue>,
        value: &'a RawValue,
        #[serde(skip_serializing_if = "Option::is_none")]
        ttl_ms: Option<u64>,
        #[serde(skip_serializing_if = "is_false")]
        meta: bool,
    },
    #[serde(rename = "cas")]
    CasRevision {
        key: &'a str,
        /// The revision that the key must have; 0: it must be absent.
        rev: u64,
        value: &'a RawValue,
        #[serde(skip_serializing_if = "Option::is_none")]
        ttl_ms: Option<u64>,
    },
    Touch {
        key: &'a str,
        ttl_ms: u64,
    },
    Persist {
        key: &'a str,
    },
    Incr {
        key: &'a str,
        by: i64,
    },
    Txn {
        #[serde(rename = "if")]
        conditions: &'a RawValue,
        then: &'a RawValue,
        #[serde(rename = "else")]
        otherwise: &'a RawValue,
    },
    Scan(Range<'a>),
    Watch {
        #[serde(skip_serializing_if = "Option::is_none")]
        prefix: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        key: Option<&'a str>,
        #[serde(skip_serializing_if = "is_false")]
        initial: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        from: Option<u64>,
        /// The cluster of an earlier server.
        #[serde(skip_serializing_if = "Option::is_none")]
        cluster: Option<&'a str>,
    },
    Transfer {
        node: u64,
    },
    Members,
    MemberAdd {
        node: u64,
        /// Where the other nodes reach it.
        address: &'a str,
        /// The membership to which the change applies: the `index` of a reply to `members`.
        #[serde(skip_serializing_if = "Option::is_none")]
        index: Option<u64>,
    },
    MemberPromote {
        node: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        index: Option<u64>,
    },
    MemberRemove {
        node: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        index: Option<u64>,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        force: bool,
    },
    /// A part of a backup: the first one, or a later one at an offset.
    Backup {
        /// The name of the backup, from the previous reply.
        #[serde(skip_serializing_if = "Option::is_none")]
        backup: Option<&'a RawValue>,
        #[serde(skip_serializing_if = "Option::is_none")]
        offset: Option<u64>,
        /// The log index that the backup must cover, from the previous reply.
        #[serde(skip_serializing_if = "Option::is_none")]
        covering: Option<u64>,
    },
    Status,
    Ping,
}

/// The range of a scan, and the part of its keys that the reply has.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Range<'a> {
    pub(crate) prefix: &'a str,
    pub(crate) limit: u64,
    /// Exclusive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) after: Option<&'a str>,
    /// Exclusive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) end: Option<&'a str>,
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) reverse: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) keys_only: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) count: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

/// The consistency of a read.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Consistency {
    Eventual,
    Linearizable,
}

impl Request<'_> {
    /// Encodes the request as a line, without its line break.
    pub(crate) fn to_line(self) -> String {
        serde_json::to_string(&self).expect("strings, numbers and JSON text always encode")
    }

    pub(crate) fn effect(&self) -> Effect {
        match self {
            Self::Put { .. }
            | Self::Delete { .. }
            | Self::DeletePrefix { .. }
            | Self::Cas { .. }
            | Self::CasRevision { .. }
            | Self::Touch { .. }
            | Self::Persist { .. }
            | Self::Incr { .. }
            | Self::Txn { .. }
            | Self::Transfer { .. }
            | Self::MemberAdd { .. }
            | Self::MemberPromote { .. }
            | Self::MemberRemove { .. } => Effect::Writes,
            Self::Get { .. }
            | Self::Scan(_)
            | Self::Watch { .. }
            | Self::Backup { .. }
            | Self::Members
            | Self::Status
            | Self::Ping => Effect::Reads,
        }
    }
}

/// Returns the effect of a line that was not created by this program. A line that is not certainly
/// a read counts as a write.
pub(crate) fn effect_of_line(line: &str) -> Effect {
    #[derive(Deserialize)]
    struct Shape<'a> {
        #[serde(borrow)]
        op: Option<&'a RawValue>,
        #[serde(borrow)]
        value: Option<&'a RawValue>,
    }
    let Ok(shape) = serde_json::from_str::<Shape<'_>>(line) else { return Effect::Writes };
    match (shape.op.map(RawValue::get), shape.value) {
        (Some("\"get\"" | "\"scan\"" | "\"members\"" | "\"status\"" | "\"ping\""), _) | (None, None) => {
            Effect::Reads
        }
        _ => Effect::Writes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    #[test]
    fn requests_are_the_lines_of_the_protocol() {
        let value = raw("1e400");
        let put = Request::Put { key: "a\"b", value: &value, ttl_ms: None, meta: false };
        assert_eq!(put.to_line(), r#"{"op":"put","key":"a\"b","value":1e400}"#);
        let get = Request::Get { key: "k", consistency: Consistency::Linearizable, meta: false };
        assert_eq!(get.to_line(), r#"{"op":"get","key":"k","consistency":"linearizable"}"#);
        let cas = Request::Cas { key: "k", expect: None, value: &value, ttl_ms: None, meta: false };
        assert_eq!(cas.to_line(), r#"{"op":"cas","key":"k","expect":null,"value":1e400}"#);
        let scan = Request::Scan(Range { limit: 7, ..Range::default() });
        assert_eq!(scan.to_line(), r#"{"op":"scan","prefix":"","limit":7}"#);
        let range = Range { prefix: "a", limit: 7, after: Some("b"), end: Some("c"), ..Range::default() };
        let all = Request::Scan(Range { reverse: true, keys_only: true, count: true, ..range });
        assert_eq!(
            all.to_line(),
            r#"{"op":"scan","prefix":"a","limit":7,"after":"b","end":"c","reverse":true,"keys_only":true,"count":true}"#
        );
        let watch = Request::Watch { prefix: Some(""), key: None, initial: true, from: None, cluster: None };
        assert_eq!(watch.to_line(), r#"{"op":"watch","prefix":"","initial":true}"#);
        let resumed = Request::Watch {
            prefix: None,
            key: Some("k"),
            initial: false,
            from: Some(7),
            cluster: Some("c"),
        };
        assert_eq!(resumed.to_line(), r#"{"op":"watch","key":"k","from":7,"cluster":"c"}"#);
        let delete = Request::Delete { key: "k", rev: Some(7) };
        assert_eq!(delete.to_line(), r#"{"op":"delete","key":"k","rev":7}"#);
        let cas = Request::CasRevision { key: "k", rev: 0, value: &value, ttl_ms: Some(250) };
        assert_eq!(cas.to_line(), r#"{"op":"cas","key":"k","rev":0,"value":1e400,"ttl_ms":250}"#);
        let touch = Request::Touch { key: "k", ttl_ms: 250 };
        assert_eq!(touch.to_line(), r#"{"op":"touch","key":"k","ttl_ms":250}"#);
        assert_eq!(Request::Persist { key: "k" }.to_line(), r#"{"op":"persist","key":"k"}"#);
        assert_eq!(Request::Incr { key: "k", by: -5 }.to_line(), r#"{"op":"incr","key":"k","by":-5}"#);
        assert_eq!(Request::DeletePrefix { prefix: "k" }.to_line(), r#"{"op":"delete_prefix","prefix":"k"}"#);
        let empty = raw("[]");
        let txn = Request::Txn { conditions: &empty, then: &empty, otherwise: &empty };
        assert_eq!(txn.to_line(), r#"{"op":"txn","if":[],"then":[],"else":[]}"#);
        assert_eq!(Request::Transfer { node: 2 }.to_line(), r#"{"op":"transfer","node":2}"#);
        let first = Request::Backup { backup: None, offset: None, covering: None };
        assert_eq!(first.to_line(), r#"{"op":"backup"}"#);
        let (backup, offset) = (raw(r#"{"index":9}"#), Some(7));
        let next = Request::Backup { backup: Some(&backup), offset, covering: None };
        assert_eq!(next.to_line(), r#"{"op":"backup","backup":{"index":9},"offset":7}"#);
        assert_eq!(Request::Members.to_line(), r#"{"op":"members"}"#);
        let add = Request::MemberAdd { node: 4, address: "h:1", index: None };
        assert_eq!(add.to_line(), r#"{"op":"member_add","node":4,"address":"h:1"}"#);
        assert_eq!(
            Request::MemberPromote { node: 4, index: None }.to_line(),
            r#"{"op":"member_promote","node":4}"#
        );
        let remove = Request::MemberRemove { node: 4, index: Some(7), force: true };
        assert_eq!(remove.to_line(), r#"{"op":"member_remove","node":4,"index":7,"force":true}"#);
        assert_eq!(Request::Ping.to_line(), r#"{"op":"ping"}"#);
    }

    #[test]
    fn only_a_certain_read_counts_as_one() {
        for line in [
            r#"{"key":"a"}"#,
            r#"{"op":"get","key":"a"}"#,
            r#"{"op":"scan"}"#,
            r#"{"op":"members"}"#,
            r#"{"op":"ping"}"#,
        ] {
            assert_eq!(effect_of_line(line), Effect::Reads, "{line}");
        }
        for line in [
            r#"{"key":"a","value":1}"#,
            r#"{"op":"delete","key":"a"}"#,
            r#"{"op":"something","key":"a"}"#,
            r#"{"op":"member_remove","node":4}"#,
            r#"{"op":"\u0070ut","key":"a","value":1}"#,
            "{nonsense",
        ] {
            assert_eq!(effect_of_line(line), Effect::Writes, "{line}");
        }
    }
}
