//! Tests of pages: how many are requested, and how much of one is written, at a time.

use super::*;
use crate::protocol::members::SCAN_BYTES_MAX;

/// A page of `keys` items, each with the same text as key and value.
fn page(keys: usize) -> Reply {
    let item = |number: usize| {
        let text = format!("key {number}");
        let value = Value::from_text(&text).ok();
        Item { key: Key::new(&text).unwrap(), value, meta: KeyMeta::default() }
    };
    let page = Page { items: (0..keys).map(item).collect(), more: false };
    Ok(Answered::ByNode(Answer::Read { index: LogIndex(1), found: Found::Page(page) }))
}

#[test]
fn a_page_is_the_same_in_parts_of_any_size() {
    for keys in [0, 1, 2, 9] {
        let written = |bytes_max: usize| {
            let mut connection = Connection::new(None);
            connection.receive(b"{\"op\":\"scan\",\"prefix\":\"\",\"id\":7}\n{\"op\":\"ping\"}\n");
            let (slot, _) = connection.next_request().unwrap();
            assert!(connection.next_request().is_none());
            connection.reply(slot, page(keys));
            let (mut all, mut longest) = (String::new(), 0);
            while connection.has_reply_due() {
                let mut output = String::new();
                connection.write_replies(&mut output, bytes_max);
                longest = longest.max(output.len());
                all.push_str(&output);
            }
            assert!(connection.is_idle() && longest < bytes_max.saturating_add(100));
            all
        };
        let whole = written(usize::MAX);
        assert_eq!(whole.lines().count(), 2);
        assert!(serde_json::from_str::<serde_json::Value>(whole.lines().next().unwrap()).is_ok());
        for bytes_max in [1, 30, 60, 200] {
            assert_eq!(written(bytes_max), whole, "{bytes_max} bytes at once");
        }
    }
}

/// The size of a page is unknown until it arrives: without a reservation, a client could request a
/// thousand pages and read none.
#[test]
fn the_pages_in_flight_are_limited() {
    let mut connection = Connection::new(None);
    connection.receive(&b"{\"op\":\"scan\",\"prefix\":\"\"}\n".repeat(100));
    let asked: Vec<u64> = std::iter::from_fn(|| connection.next_request()).map(|(slot, _)| slot).collect();
    assert_eq!(asked.len(), CONNECTION_BYTES_MAX / SCAN_BYTES_MAX);
    assert!(connection.request_bytes() < 1000, "nothing is held for them yet");
    asked.into_iter().for_each(|slot| connection.reply(slot, page(1)));
    assert!(connection.next_request().is_some(), "small pages make room");
}
