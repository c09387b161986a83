//! Tests of commands and queries on the map.

use super::*;
use crate::kv::outcome::{TxnOutcome, TxnResult};
use crate::kv::txn::{TXN_FOUND_BYTES_MAX, Txn};

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

fn value(json: &str) -> Value {
    Value::from_json(json).unwrap()
}

fn put(text: &str, json: &str) -> Command {
    Command::Put { key: key(text), value: value(json) }
}

/// Executes commands as the entries 1, 2, …, and returns the outcome of the last one.
fn apply(store: &mut Store, commands: &[Command]) -> Applied {
    let outcome = |(at, command): (u64, &Command)| store.apply(command, Revision(at));
    (1..).zip(commands).map(outcome).last().unwrap()
}

fn store_of(keys: &[&str]) -> Store {
    let mut store = Store::default();
    keys.iter().for_each(|key| drop(store.apply(&put(key, "1"), Revision(1))));
    store
}

fn meta(rev: u64, created: u64) -> KeyMeta {
    KeyMeta::of(Revision(rev), Revision(created))
}

fn scan(prefix: &str, after: Option<&str>, items_max: usize) -> Scan {
    let after = after.map(Into::into);
    Scan { prefix: prefix.into(), after, items_max, bytes_max: 1 << 20, ..Scan::default() }
}

fn keys(page: &Page) -> Vec<&str> {
    page.items.iter().map(|item| item.key.as_str()).collect()
}

#[test]
fn a_put_sets_and_replaces_and_a_delete_removes_once() {
    let mut store = Store::default();
    let mut outcome = |command: Command| store.apply(&command, Revision(1)).outcome;
    assert_eq!(outcome(put("a", "1")), Outcome::Done);
    assert_eq!(outcome(put("a", "[2]")), Outcome::Done);
    assert_eq!(outcome(Command::Delete { key: key("a") }), Outcome::Done);
    assert_eq!(outcome(Command::Delete { key: key("a") }), Outcome::NotFound);
    assert!(store.is_empty());
}

#[test]
fn a_swap_happens_only_on_the_expected_value() {
    let mut store = store_of(&["a"]);
    let swap = |expect: Option<&str>, json| Command::Cas {
        key: key("a"),
        expect: expect.map(value),
        value: value(json),
    };
    let actual = Some(value("1"));
    let mut outcome = |command: Command| store.apply(&command, Revision(1)).outcome;
    assert_eq!(outcome(swap(None, "9")), Outcome::Mismatch { actual: actual.clone() });
    assert_eq!(outcome(swap(Some("2"), "9")), Outcome::Mismatch { actual });
    assert_eq!(outcome(swap(Some("1"), "2")), Outcome::Done);
    let absent = Command::Cas { key: key("b"), expect: Some(value("1")), value: value("2") };
    assert_eq!(outcome(absent), Outcome::Mismatch { actual: None });
    let create = Command::Cas { key: key("b"), expect: None, value: value("2") };
    assert_eq!(outcome(create), Outcome::Done);
    assert_eq!(store.value("a").map(Value::as_json), Some("2"));
}

#[test]
fn a_scan_returns_the_keys_of_a_prefix_in_byte_order() {
    let store = store_of(&["b", "a/2", "a/10", "a", "ä", "a/1", "a0"]);
    assert_eq!(keys(&store.scan(&scan("", None, 99))), ["a", "a/1", "a/10", "a/2", "a0", "b", "ä"]);
    assert_eq!(keys(&store.scan(&scan("a/", None, 99))), ["a/1", "a/10", "a/2"]);
    assert_eq!(keys(&store.scan(&scan("a/", Some("a/1"), 99))), ["a/10", "a/2"]);
    assert_eq!(keys(&store.scan(&scan("a/", Some("a"), 99))), ["a/1", "a/10", "a/2"]);
    assert!(keys(&store.scan(&scan("a/", Some("b"), 99))).is_empty());
}

#[test]
fn a_scan_reports_whether_its_limits_cut_off_items() {
    let store = store_of(&["a", "b", "c"]);
    let two = store.scan(&scan("", None, 2));
    assert_eq!((keys(&two), two.more), (vec!["a", "b"], true));
    assert!(!store.scan(&scan("", None, 3)).more);
    let by_bytes = |bytes_max| store.scan(&Scan { bytes_max, ..scan("", None, 9) });
    assert_eq!(by_bytes(4).items.len(), 2);
    assert!(by_bytes(4).more);
    assert_eq!(by_bytes(0).items.len(), 1);
    assert!(!by_bytes(6).more);
}

#[test]
fn a_key_keeps_the_revisions_of_its_creation_and_its_last_change() {
    let mut store = Store::default();
    let raise = Command::RaiseLevel(Level::REVISIONS);
    let done = apply(&mut store, &[raise.clone(), put("a", "1"), put("b", "1"), put("a", "2")]);
    assert_eq!(done, Outcome::Done.with_meta(meta(4, 2)));
    let swap = |rev| Command::CasRevision { key: key("a"), rev: Revision(rev), value: value("3") };
    let actual = Some(value("2"));
    assert_eq!(store.apply(&swap(2), Revision(5)), Outcome::Mismatch { actual }.with_meta(meta(4, 2)));
    assert_eq!(store.apply(&swap(4), Revision(6)), Outcome::Done.with_meta(meta(6, 2)));
    let delete = |rev| Command::DeleteRevision { key: key("a"), rev: Revision(rev) };
    assert!(matches!(store.apply(&delete(4), Revision(7)).outcome, Outcome::Mismatch { .. }));
    assert_eq!(store.apply(&delete(6), Revision(8)), Outcome::Done.with_meta(meta(8, 2)));
    assert_eq!(store.apply(&delete(0), Revision(9)), Outcome::NotFound.without_meta());
    assert_eq!(store.apply(&delete(6), Revision(10)), Outcome::Mismatch { actual: None }.without_meta());
    assert_eq!(store.apply(&swap(0), Revision(11)), Outcome::Done.with_meta(meta(11, 11)));
    assert_eq!((store.meta("a"), store.meta("b")), (Some(meta(11, 11)), Some(meta(3, 3))));
    store.apply(&raise, Revision(12));
    assert_eq!(store.meta("b"), Some(meta(3, 3)), "the level is raised once");
}

#[test]
fn keys_that_are_older_than_the_level_count_from_there() {
    let mut store = Store::default();
    assert_eq!(apply(&mut store, &[put("a", "1"), put("a", "2")]), Outcome::Done.without_meta());
    let mut restored = Store::default();
    let held = Held { value: value("2"), stamp: Stamp::created_at(Revision::NONE) };
    restored.restore(&key("a"), held, None, None);
    assert_eq!((store.meta("a"), &restored), (None, &store));
    for store in [&mut store, &mut restored] {
        store.apply(&Command::RaiseLevel(Level::REVISIONS), Revision(7));
        assert_eq!(store.meta("a"), Some(meta(7, 7)));
        assert_eq!(store.apply(&put("a", "3"), Revision(8)), Outcome::Done.with_meta(meta(8, 7)));
    }
    assert_eq!(restored, store);
    restored.apply(&put("a", "3"), Revision(9));
    assert_ne!(restored, store, "the revision differs");
}

#[test]
fn an_increment_counts_from_zero_and_fails_without_effect() {
    let mut store = store_of(&[]);
    let incr = |by| Command::Incr { key: key("n"), by };
    assert_eq!(apply(&mut store, &[incr(3), incr(-5)]).outcome, Outcome::Sum(-2));
    assert_eq!(store.value("n").map(Value::as_json), Some("-2"));
    assert_eq!(store.apply(&incr(i64::MIN), Revision(3)).outcome, Outcome::OutOfRange);
    store.apply(&put("n", "\"two\""), Revision(4));
    assert_eq!(store.apply(&incr(1), Revision(5)).outcome, Outcome::NotANumber);
    assert_eq!(store.value("n").map(Value::as_json), Some("\"two\""));
}

#[test]
fn a_delete_by_prefix_removes_the_first_keys_up_to_its_limit() {
    let mut store = store_of(&["a", "a/1", "a/2", "a/3", "a0", "b"]);
    let delete = |prefix: &str, keys_max| Command::DeletePrefix { prefix: prefix.into(), keys_max };
    let deleted = |keys, more| Outcome::Deleted { keys, more };
    assert_eq!(store.apply(&delete("a/", 2), Revision(2)).outcome, deleted(2, true));
    assert_eq!(keys(&store.scan(&scan("", None, 9))), ["a", "a/3", "a0", "b"]);
    assert_eq!(store.apply(&delete("a/", 1), Revision(3)).outcome, deleted(1, false));
    assert_eq!(store.apply(&delete("a/", 1), Revision(4)).outcome, deleted(0, false));
    assert_eq!(store.apply(&delete("", 1000), Revision(5)).outcome, deleted(3, false));
    assert!(store.is_empty());
}

fn txn(conditions: &str, then: &str, otherwise: &str) -> Command {
    Command::Txn(Txn::from_json(Some(conditions), Some(then), Some(otherwise)).unwrap().into())
}

#[test]
fn a_transaction_executes_one_branch_and_sees_its_own_writes() {
    let mut store = Store::default();
    apply(&mut store, &[Command::RaiseLevel(Level::REVISIONS), put("a", "1")]);
    let command = txn(
        r#"[{"key":"a","rev":2},{"key":"a","value":1},{"key":"b","absent":true}]"#,
        r#"[{"op":"get","key":"a"},{"op":"put","key":"a","value":2},{"op":"get","key":"a"},
            {"op":"incr","key":"b","by":5},{"op":"delete","key":"c"}]"#,
        r#"[{"op":"delete","key":"a"},{"op":"get","key":"a"}]"#,
    );
    let found = |json| TxnResult::Found(Some(value(json)));
    let results = vec![found("1"), TxnResult::Done, found("2"), TxnResult::Sum(5), TxnResult::NotFound];
    let outcome = Outcome::Txn(TxnOutcome { succeeded: true, results }.into());
    assert_eq!(store.apply(&command, Revision(3)), outcome.with_meta(meta(3, 0)));
    assert_eq!((store.meta("a"), store.meta("b")), (Some(meta(3, 2)), Some(meta(3, 3))));
    let results = vec![TxnResult::Done, TxnResult::Found(None)];
    let outcome = Outcome::Txn(TxnOutcome { succeeded: false, results }.into());
    assert_eq!(store.apply(&command, Revision(4)), outcome.with_meta(meta(4, 0)));
    assert!(store.value("a").is_none());
}

#[test]
fn a_transaction_that_cannot_be_executed_changes_nothing() {
    let mut store = store_of(&["n"]);
    store.apply(&put("s", "\"x\""), Revision(2));
    let before = store.clone();
    let failing = [
        (r#"[{"op":"put","key":"a","value":1},{"op":"incr","key":"s","by":1}]"#, Outcome::NotANumber),
        (
            r#"[{"op":"delete","key":"n"},{"op":"incr","key":"m","by":1},
                {"op":"put","key":"x","value":9223372036854775808}]"#,
            Outcome::Done,
        ),
    ];
    assert_eq!(store.apply(&txn("[]", failing[0].0, "[]"), Revision(3)).outcome, failing[0].1);
    assert_eq!(store, before);
    assert!(matches!(store.apply(&txn("[]", failing[1].0, "[]"), Revision(4)).outcome, Outcome::Txn(_)));
    let out_of_range = r#"[{"op":"delete","key":"m"},{"op":"incr","key":"x","by":1}]"#;
    let before = store.clone();
    assert_eq!(store.apply(&txn("[]", out_of_range, "[]"), Revision(5)).outcome, Outcome::OutOfRange);
    assert_eq!(store, before);
}

#[test]
fn the_values_that_a_transaction_reads_have_a_limit() {
    let mut store = Store::default();
    let large = Value::from_text(&"x".repeat((TXN_FOUND_BYTES_MAX / 4) - 2)).unwrap();
    store.apply(&Command::Put { key: key("k"), value: large }, Revision(1));
    let gets = |count| format!("[{}]", vec![r#"{"op":"get","key":"k"}"#; count].join(","));
    assert!(matches!(store.apply(&txn("[]", &gets(4), "[]"), Revision(2)).outcome, Outcome::Txn(_)));
    assert_eq!(store.apply(&txn("[]", &gets(5), "[]"), Revision(3)).outcome, Outcome::TooLarge);
}

#[test]
fn a_scan_may_end_early_run_backwards_leave_out_values_and_count() {
    let store = store_of(&["a", "a/1", "a/2", "a/3", "b"]);
    let ending = |end: &str, scan: Scan| Scan { end: Some(end.into()), ..scan };
    let reverse = |scan: Scan| Scan { is_reverse: true, ..scan };
    assert_eq!(keys(&store.scan(&ending("a/2", scan("", None, 9)))), ["a", "a/1"]);
    assert_eq!(keys(&store.scan(&ending("a/2", scan("a/", Some("a/1"), 9)))), [""; 0]);
    assert_eq!(keys(&store.scan(&ending("", scan("", None, 9)))), [""; 0]);
    assert_eq!(keys(&store.scan(&reverse(scan("a/", None, 9)))), ["a/3", "a/2", "a/1"]);
    assert_eq!(keys(&store.scan(&reverse(scan("a/", Some("a/3"), 1)))), ["a/2"]);
    assert_eq!(keys(&store.scan(&reverse(ending("a/3", scan("", Some("b"), 9))))), ["a/2", "a/1", "a"]);
    assert_eq!(keys(&store.scan(&reverse(scan("a/", Some("a"), 9)))), [""; 0]);
    let page = store.scan(&Scan { content: ScanContent::Keys, ..scan("a/", None, 2) });
    assert!(page.more && page.items.iter().all(|item| item.value.is_none()));
    let count = |scan| store.answer(&Query::Scan(Scan { content: ScanContent::Count, ..scan }));
    assert_eq!(count(scan("a/", None, 1)), Found::Count(3));
    assert_eq!(count(ending("a/3", scan("", Some("a"), 1))), Found::Count(2));
    assert_eq!(count(scan("c", None, 1)), Found::Count(0));
}
