//! The encoding of watches: the reply that begins one, event lines, progress, and ends.
//!
//! ```text
//! {"watch":1,"rev":7,"cluster":"…","status":"ok"}                         the reply: what follows 7 is sent
//! {"watch":1,"rev":9,"events":[{"key":"k","value":1,"rev":9}]}            everything that entry 9 did
//! {"watch":1,"rev":9,"current":true}                                      the end of the initial content
//! {"watch":1,"rev":12}                                                    progress: nothing up to 12
//! {"watch":1,"error":"lagged","rev":13,"status":"error","message":"…","definite":true}
//! ```

use super::permission::Denied;
use super::reply::{close, code_of};
use crate::identity::ClusterId;
use crate::kv::{Change, ChangeEvent, ChangedEntry, Key, Revision, ViewPart, push, push_json_string};
use crate::mutant::{self, Mutant};
use crate::proxy::RequestError;

const COMPACTED: &str = "the history does not reach back to that revision: begin with \"initial\", or from \
    \"oldest\" on";
const LAGGED: &str = "the history no longer has what this watch needs next: resume from \"rev\", perhaps at \
    another node, or begin with \"initial\"";
const VIEW_LOST: &str = "the rest of the initial content was not read in time: begin again with \"initial\"";
const WRONG_CLUSTER: &str = "this server belongs to another cluster, whose revisions have another meaning";

/// Appends the reply to a watch that begins after `after`.
pub(super) fn push_started(
    line: &mut String,
    watch: u64,
    after: Revision,
    cluster: Option<ClusterId>,
    id: Option<&str>,
) {
    push(line, format_args!("{{\"watch\":{watch},\"rev\":{after},\"cluster\":"));
    match cluster {
        Some(cluster) => push(line, format_args!("\"{cluster}\"")),
        None => line.push_str("null"),
    }
    line.push_str(",\"status\":\"ok\"");
    close(line, id);
}

/// Appends the reply to an unwatch.
pub(super) fn push_unwatched(line: &mut String, watch: u64, id: Option<&str>) {
    push(line, format_args!("{{\"watch\":{watch},\"status\":\"ok\""));
    close(line, id);
}

/// Appends the event line of an entry.
pub(super) fn push_entry(line: &mut String, watch: u64, ChangedEntry { rev, changes }: &ChangedEntry) {
    let events = changes.as_slice();
    let (first, rest) = events.split_at(split_by_mutant(events).unwrap_or(events.len()));
    for events in [first, rest].into_iter().filter(|events| !events.is_empty()) {
        push(line, format_args!("{{\"watch\":{watch},\"rev\":{rev},\"events\":["));
        for (position, ChangeEvent { key, change }) in events.iter().enumerate() {
            match change {
                Change::Set(value) => push_event(line, position, key, Ok(value.as_json()), *rev),
                Change::Removed(because) => push_event(line, position, key, Err(because.name()), *rev),
            }
        }
        line.push_str("]}\n");
    }
}

/// Appends a line with initial content as of `as_of`.
pub(super) fn push_content(line: &mut String, watch: u64, as_of: Revision, part: &ViewPart) {
    if !part.items.is_empty() {
        push(line, format_args!("{{\"watch\":{watch},\"rev\":{as_of},\"events\":["));
        for (position, item) in part.items.iter().enumerate() {
            push_event(line, position, &item.key, Ok(item.value.as_json()), item.rev);
        }
        line.push_str("]}\n");
    }
    if part.is_last {
        push(line, format_args!("{{\"watch\":{watch},\"rev\":{as_of},\"current\":true}}\n"));
    }
}

/// Appends an event: a value, or the reason for the removal.
fn push_event(line: &mut String, position: usize, key: &Key, to: Result<&str, &str>, rev: Revision) {
    line.push_str(if position > 0 { ",{\"key\":" } else { "{\"key\":" });
    push_json_string(line, key.as_str());
    match to {
        Ok(json) => {
            line.push_str(",\"value\":");
            line.push_str(json);
        }
        Err(because) => push(line, format_args!(",\"deleted\":true,\"because\":\"{because}\"")),
    }
    push(line, format_args!(",\"rev\":{rev}}}"));
}

/// Appends a progress line.
pub(super) fn push_progress(line: &mut String, watch: u64, rev: Revision) {
    push(line, format_args!("{{\"watch\":{watch},\"rev\":{rev}}}\n"));
}

/// The end of a watch, or the reason why it does not begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum WatchEnd {
    /// The history does not reach back; its oldest revision.
    Compacted(Revision),
    /// The watch was too slow; the revision to resume from.
    Lagged(Revision),
    /// The initial content as of this revision cannot be read to its end.
    ViewLost(Revision),
    /// The client expects another cluster.
    WrongCluster,
    /// The client may not watch these keys any more.
    Denied(Denied),
    /// The request failed.
    Failed(RequestError),
}

/// Appends the end of a watch.
pub(super) fn push_end(line: &mut String, watch: u64, end: WatchEnd, id: Option<&str>) {
    push(line, format_args!("{{\"watch\":{watch},\"error\":"));
    let (message, is_definite) = match end {
        WatchEnd::Compacted(oldest) => {
            push(line, format_args!("\"compacted\",\"oldest\":{oldest}"));
            (COMPACTED.to_owned(), true)
        }
        WatchEnd::Lagged(rev) => {
            push(line, format_args!("\"lagged\",\"rev\":{rev}"));
            (LAGGED.to_owned(), true)
        }
        WatchEnd::ViewLost(rev) => {
            push(line, format_args!("\"lagged\",\"rev\":{rev}"));
            (VIEW_LOST.to_owned(), true)
        }
        WatchEnd::WrongCluster => {
            line.push_str("\"wrong_cluster\"");
            (WRONG_CLUSTER.to_owned(), true)
        }
        WatchEnd::Denied(denied) => {
            push(line, format_args!("\"{}\"", denied.code()));
            (denied.message(), true)
        }
        WatchEnd::Failed(failure) => {
            push(line, format_args!("\"{}\"", code_of(failure)));
            (failure.message_of_read(), failure.is_definite())
        }
    };
    line.push_str(",\"status\":\"error\",\"message\":");
    push_json_string(line, &message);
    push(line, format_args!(",\"definite\":{is_definite}"));
    close(line, id);
}

/// Deliberate bug: where the events of an entry are split.
fn split_by_mutant(events: &[ChangeEvent]) -> Option<usize> {
    mutant::is_active(Mutant::EntrySplit).then_some(events.len() / 2)
}
