//! The encoding of backup requests and replies: a client reads a backup part by part, one line
//! each.
//!
//! ```text
//! {"op":"backup"}                                        begin a backup that holds all that was acknowledged
//! {"op":"backup","covering":N}                           the same again, after a reply with "covering"
//! {"op":"backup","backup":{…},"offset":N}                the next part
//!
//! {"covering":N,"more":true,"status":"ok"}               the snapshot is not taken yet: ask again
//! {"backup":{"index":…,"term":…,"crc":"…"},"offset":0,"configuration":{…},"lines":[…],"next":N,"more":true,"status":"ok"}
//! {"backup":{…},"offset":N,"lines":[…],"end":{"bytes":…,"checksum":"…"},"more":false,"status":"ok"}
//! ```
//!
//! The lines of the content are JSON, so a reply contains them unchanged, and nothing is escaped
//! twice. Each followed by a line break, they are the content from byte `offset` up to byte `next`.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::kv::push;
use crate::raft::{Checksum, LogIndex, LogPoint, SnapshotPart, Term};
use crate::replica::BackupPiece;

/// The identity of a backup: the last entry that it covers.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PointText {
    index: u64,
    term: u64,
    crc: String,
}

/// Parses the members of a backup request; `None`: they do not fit together.
pub(super) fn piece(
    backup: Option<&RawValue>,
    offset: Option<u64>,
    covering: Option<u64>,
) -> Option<BackupPiece> {
    match (backup, offset, covering) {
        (None, None, None) => Some(BackupPiece::New),
        (None, None, Some(index)) => Some(BackupPiece::Covering(LogIndex(index))),
        (Some(backup), Some(offset), None) => {
            let PointText { index, term, crc } = serde_json::from_str(backup.get()).ok()?;
            let checksum = Checksum::from_text(crc.as_bytes())?;
            let last = LogPoint { index: LogIndex(index), term: Term(term), checksum };
            Some(BackupPiece::At { last, offset })
        }
        _ => None,
    }
}

pub(super) fn push_part(line: &mut String, part: &SnapshotPart) {
    let SnapshotPart { meta, offset, text, end } = part;
    let LogPoint { index, term, checksum } = meta.last;
    line.reserve(text.len() + 256);
    push(line, format_args!("{{\"backup\":{{\"index\":{index},\"term\":{term},\"crc\":\"{checksum}\"}}"));
    push(line, format_args!(",\"offset\":{offset}"));
    if *offset == 0 {
        push(line, format_args!(",\"configuration\":{{{}}}", meta.configuration.to_payload()));
    }
    line.push_str(",\"lines\":[");
    for (position, content) in text.lines().enumerate() {
        if position > 0 {
            line.push(',');
        }
        line.push_str(content);
    }
    match end {
        Some(end) => {
            let (bytes, checksum) = (end.bytes, end.checksum);
            push(line, format_args!("],\"end\":{{\"bytes\":{bytes},\"checksum\":\"{checksum}\"}}"));
        }
        None => push(line, format_args!("],\"next\":{}", offset + text.len() as u64)),
    }
    push(line, format_args!(",\"more\":{},\"status\":\"ok\"", end.is_none()));
}

pub(super) fn push_pending(line: &mut String, covering: LogIndex) {
    push(line, format_args!("{{\"covering\":{covering},\"more\":true,\"status\":\"ok\""));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::{Configuration, NodeId, SnapshotEnd, SnapshotMeta, Voters};

    fn last() -> LogPoint {
        LogPoint { index: LogIndex(9), term: Term(2), checksum: Checksum(0xab) }
    }

    #[test]
    fn a_request_has_one_of_three_forms() {
        let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
        let point = raw(r#"{"index":9,"term":2,"crc":"000000ab"}"#);
        assert_eq!(piece(None, None, None), Some(BackupPiece::New));
        assert_eq!(piece(None, None, Some(4)), Some(BackupPiece::Covering(LogIndex(4))));
        let at = BackupPiece::At { last: last(), offset: 7 };
        assert_eq!(piece(Some(&point), Some(7), None), Some(at));
        for (backup, offset, covering) in [
            (Some(&*point), None, None),
            (None, Some(7), None),
            (Some(&*point), Some(7), Some(4)),
            (Some(&*raw("9")), Some(7), None),
            (Some(&*raw(r#"{"index":9,"term":2,"crc":"ab"}"#)), Some(7), None),
        ] {
            assert_eq!(piece(backup, offset, covering), None);
        }
    }

    #[test]
    fn a_part_is_one_json_line_with_unchanged_content() {
        let configuration = Configuration::of_voters(Voters::new([NodeId(0), NodeId(1)]).unwrap());
        let meta = SnapshotMeta { last: last(), configuration };
        let text = "{\"key\":\"a\",\"value\":1e400}\n{\"key\":\"b\",\"value\":\"\\\"\\n\"}\n";
        let mut part = SnapshotPart { meta, offset: 0, text: text.into(), end: None };
        let mut line = String::new();
        push_part(&mut line, &part);
        assert_eq!(
            line,
            concat!(
                r#"{"backup":{"index":9,"term":2,"crc":"000000ab"},"offset":0,"configuration":{"op":"CONFIG","voters":[0,1]},"#,
                r#""lines":[{"key":"a","value":1e400},{"key":"b","value":"\"\n"}],"next":53,"more":true,"status":"ok""#
            )
        );
        (part.offset, part.text) = (53, "".into());
        part.end = Some(SnapshotEnd { bytes: 53, checksum: Checksum(1) });
        line.clear();
        push_part(&mut line, &part);
        assert_eq!(
            line,
            concat!(
                r#"{"backup":{"index":9,"term":2,"crc":"000000ab"},"offset":53,"lines":[],"#,
                r#""end":{"bytes":53,"checksum":"00000001"},"more":false,"status":"ok""#
            )
        );
    }
}
