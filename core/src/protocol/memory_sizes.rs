//! The memory of replies: how much is reserved for one before it is known, and how much one takes.

use super::connection_watches::WATCH_PART_BYTES;
use super::members::SCAN_BYTES_MAX;
use super::request::Shape;
use crate::kv::{Found, TXN_FOUND_BYTES_MAX};
use crate::proxy::{Answered, Reply};
use crate::replica::{Answer, SNAPSHOT_PART_BYTES};

/// The bytes that are reserved for the reply to a request of this shape until the reply is known.
/// Without a reservation, a client could ask for a thousand pages before the first of them arrives.
pub(super) fn reply_bytes_max(shape: &Shape) -> usize {
    match shape {
        Shape::Scan => SCAN_BYTES_MAX,
        Shape::Backup => SNAPSHOT_PART_BYTES,
        Shape::Watch(_) => WATCH_PART_BYTES,
        Shape::Txn(txn) if txn.reads() => TXN_FOUND_BYTES_MAX,
        _ => 0,
    }
}

/// The approximate memory of a reply, in bytes.
pub(super) fn bytes_of(reply: &Reply) -> usize {
    /// Two pointers to text with their lengths and reference counters, and two revisions.
    const ITEM_BYTES: usize = 80;
    match reply {
        Ok(Answered::ByNode(Answer::Read {
            found: Found::Value(Some(value)) | Found::Entry(Some((value, _))),
            ..
        })) => value.as_json().len(),
        Ok(Answered::ByNode(Answer::Read { found: Found::Page(page), .. })) => {
            page.items.iter().map(|item| item.bytes() + ITEM_BYTES).sum()
        }
        Ok(Answered::ByNode(Answer::Applied { outcome, .. })) => outcome.value_bytes(),
        Ok(Answered::ByNode(Answer::BackupPart(part))) => part.text.len(),
        Ok(Answered::ByNode(Answer::Watch(answer))) => answer.bytes(),
        _ => 0,
    }
}
