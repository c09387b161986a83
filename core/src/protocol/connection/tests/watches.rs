//! Tests of watches on a connection: when it asks for the next part, and where its lines stand.

use super::*;
use crate::identity::ClusterId;
use crate::kv::{Because, Change, ChangeEvent, ChangedEntry, Changes, Revision};
use crate::replica::{WatchAnswer, WatchPart};

fn connection() -> Connection {
    let cluster = KnownCluster::default();
    cluster.set(ClusterId(1));
    Connection::new(None).with_cluster(cluster)
}

fn given(answer: WatchAnswer) -> Reply {
    Ok(Answered::ByNode(Answer::Watch(Box::new(answer))))
}

fn change(rev: u64, key: &str) -> ChangedEntry {
    let change = Change::Removed(Because::Expire);
    let event = ChangeEvent { key: Key::new(key).unwrap(), change };
    ChangedEntry { rev: Revision(rev), changes: Changes::One(event) }
}

fn changes(entries: Vec<ChangedEntry>, up_to: u64) -> Reply {
    given(WatchAnswer::Changes { entries, up_to: Revision(up_to) })
}

/// Begins a watch, and returns the slot of the request for its first part.
fn begin(connection: &mut Connection) -> u64 {
    connection.receive(b"{\"op\":\"watch\",\"prefix\":\"\"}\n");
    let (slot, _) = connection.next_request().unwrap();
    assert!(connection.next_watch_request().is_none(), "nothing is known yet");
    connection.reply(slot, given(WatchAnswer::Started { after: Revision(7), content: None }));
    assert!(connection.next_watch_request().is_none(), "the reply is not written yet");
    let cluster = "00000000000000000000000000000001";
    let reply = written(connection);
    assert!(
        reply.ends_with(&format!(",\"rev\":7,\"cluster\":\"{cluster}\",\"status\":\"ok\"}}\n")),
        "{reply}"
    );
    next(connection, 7)
}

/// Returns the slot of the next request, which asks for the changes after `after`.
fn next(connection: &mut Connection, after: u64) -> u64 {
    let (slot, request) = connection.next_watch_request().unwrap();
    let Request::Watch(watch) = request else { panic!("{request:?}") };
    assert!(matches!(watch.part, WatchPart::Changes { after: Revision(rev), .. } if rev == after));
    assert!(connection.next_watch_request().is_none(), "one request at a time");
    slot
}

/// A watch that waited for a write of its connection begins behind it, whichever node it asks. It
/// began behind the replies that had arrived when its line was read, so a follower that lagged
/// reported the write as a change.
#[test]
fn a_watch_begins_behind_the_write_that_held_it_back() {
    let mut connection = connection();
    connection.receive(b"{\"key\":\"a\",\"value\":1}\n{\"op\":\"watch\",\"key\":\"a\"}\n");
    let (put, _) = connection.next_request().unwrap();
    assert!(connection.next_request().is_none(), "the watch waits");
    connection.reply(put, applied(Outcome::Done));
    let (_, request) = connection.next_request().unwrap();
    let Request::Watch(watch) = request else { panic!("{request:?}") };
    assert!(matches!(watch.part, WatchPart::Start { at_least: LogIndex(5), .. }), "{watch:?}");
}

/// A client that does not read costs one part, however much changes.
#[test]
fn the_next_part_is_requested_when_the_last_one_is_written() {
    let mut connection = connection();
    let slot = begin(&mut connection);
    connection.reply(slot, changes(vec![change(9, "k")], 10));
    assert!(connection.has_reply_due() && connection.reply_bytes() > 0);
    assert!(connection.next_watch_request().is_none());
    let event = r#"{"key":"k","deleted":true,"because":"expire","rev":9}"#;
    assert_eq!(written(&mut connection), format!("{{\"watch\":1,\"rev\":9,\"events\":[{event}]}}\n"));
    assert_eq!(connection.reply_bytes(), 0);
    let slot = next(&mut connection, 10);
    connection.reply(slot, changes(Vec::new(), 12));
    assert_eq!(written(&mut connection), "{\"watch\":1,\"rev\":12}\n");
    next(&mut connection, 12);
    // Later reads of this connection see what the watch has reported.
    connection.receive(b"{\"key\":\"k\"}\n");
    let (_, request) = connection.next_request().unwrap();
    assert!(matches!(request, Request::Read { at_least: LogIndex(12), .. }), "{request:?}");
}

#[test]
fn no_line_of_a_watch_is_within_a_page_or_after_its_end() {
    let mut connection = connection();
    let slot = begin(&mut connection);
    connection.receive(b"{\"op\":\"scan\",\"prefix\":\"\"}\n");
    let (scan, _) = connection.next_request().unwrap();
    let item = |key: &str| Item {
        key: Key::new(key).unwrap(),
        value: Value::from_text("v").ok(),
        meta: KeyMeta::default(),
    };
    let page = Page { items: vec![item("a"), item("b")], more: false };
    connection.reply(scan, read(Found::Page(page)));
    let mut first = String::new();
    connection.write_replies(&mut first, 1);
    assert!(!first.ends_with('\n'), "the page is not written entirely: {first}");
    connection.reply(slot, changes(vec![change(9, "k")], 9));
    let rest = written(&mut connection);
    assert!(rest.ends_with("\"status\":\"ok\"}\n") && !rest.contains("watch"), "{rest}");
    connection.receive(b"{\"op\":\"unwatch\",\"watch\":1}\n");
    assert!(connection.next_request().is_none());
    assert_eq!(written(&mut connection), "{\"watch\":1,\"status\":\"ok\"}\n");
    assert!(connection.is_idle() && connection.reply_bytes() == 0);
    connection.reply(slot, changes(vec![change(10, "k")], 10));
    assert_eq!(written(&mut connection), "");
}

#[test]
fn a_watch_ends_with_the_input_or_with_an_error() {
    let mut connection = connection();
    let slot = begin(&mut connection);
    connection.reply(slot, given(WatchAnswer::Lagged { resume: Revision(8) }));
    let end = written(&mut connection);
    assert!(end.starts_with("{\"watch\":1,\"error\":\"lagged\",\"rev\":8,\"status\":\"error\""), "{end}");
    assert!(connection.is_idle() && connection.next_watch_request().is_none());
    let slot = begin(&mut connection);
    assert!(!connection.is_idle() && !connection.is_finished());
    connection.end_input();
    assert!(connection.is_finished());
    connection.reply(slot, changes(vec![change(9, "k")], 9));
    assert_eq!(written(&mut connection), "");
}

/// A server that has not found its cluster yet knows the id only when the watch begins.
#[test]
fn another_cluster_is_noticed_at_once_or_when_it_is_known() {
    let line = b"{\"op\":\"watch\",\"prefix\":\"\",\"cluster\":\"2\"}\n";
    let mut early = connection();
    early.receive(line);
    assert!(early.next_request().is_none());
    assert!(written(&mut early).contains("\"error\":\"wrong_cluster\""));
    let cluster = KnownCluster::default();
    let mut late = Connection::new(None).with_cluster(cluster.clone());
    late.receive(line);
    let (slot, _) = late.next_request().unwrap();
    cluster.set(ClusterId(1));
    late.reply(slot, given(WatchAnswer::Started { after: Revision(7), content: None }));
    assert!(written(&mut late).contains("\"error\":\"wrong_cluster\""));
    assert!(late.is_idle() && late.next_watch_request().is_none());
}
