//! Watches at the level of the core: what a node answers to the requests of a watch, and when.

use coracle_core::kv::{Change, Command, HistoryLimits, Key, Revision, Selection, Value};
use coracle_core::raft::{Config, Restored};
use coracle_core::{
    Answer, NodeView, PROGRESS_INTERVAL, ReplicaLimits, Request, RequestId, RequestRefusal, SnapshotPolicy,
    VIEW_TIMEOUT, WatchAnswer, WatchLimits, WatchPart, WatchRequest,
};
use coracle_tests::scenario::{Cluster, Limited, Limits};

/// A replica that keeps little for watches, and takes snapshots often.
struct Small;

impl Limits for Small {
    fn limits() -> ReplicaLimits {
        let snapshots = SnapshotPolicy { log_entries: 40, takes_turns: false, ..SnapshotPolicy::default() };
        let history = HistoryLimits { events: 8, bytes: 10_000 };
        let watches = WatchLimits { history, view_bytes: 300, views: 2 };
        ReplicaLimits { snapshots, watches, ..ReplicaLimits::default() }
    }
}

type Watched = Cluster<Limited<Small>>;

const BYTES_MAX: usize = 1000;

/// Three nodes that support watches, the first of which leads.
fn nodes() -> Watched {
    let tune = |config| Config { retained_bytes: 0, held_bytes_max: 0, ..config };
    let mut cluster = Watched::start(vec![Restored::default(); 3], 0, tune);
    cluster.elect(1);
    cluster.elapse_ms(60);
    cluster
}

fn put(cluster: &mut Watched, key: &str, value: &str) -> Revision {
    let (key, value) = (Key::new(key).expect("a key"), Value::from_text(value).expect("a value"));
    let id = cluster.ask(1, Request::write(Command::Put { key, value }));
    cluster.settle();
    match cluster.answer(id) {
        Some(Answer::Applied { index, .. }) => Revision(index.0),
        other => panic!("{other:?}"),
    }
}

fn prefix(text: &str) -> Selection {
    Selection::Prefix(text.into())
}

fn request(selection: Selection, part: WatchPart) -> Request {
    Request::Watch(WatchRequest { selection, part })
}

fn start(from: Option<Revision>, wants_content: bool) -> WatchPart {
    WatchPart::Start { from, wants_content, at_least: Default::default(), bytes_max: 10 }
}

fn after(after: Revision) -> WatchPart {
    WatchPart::Changes { after, bytes_max: BYTES_MAX }
}

fn given(cluster: &mut Watched, id: RequestId) -> Option<WatchAnswer> {
    cluster.settle();
    match cluster.answer(id)? {
        Answer::Watch(answer) => Some((**answer).clone()),
        other => panic!("{other:?}"),
    }
}

fn ask(cluster: &mut Watched, node: u64, selection: Selection, part: WatchPart) -> Option<WatchAnswer> {
    let id = cluster.ask(node, request(selection, part));
    given(cluster, id)
}

/// The changes of an answer: revision, key, and value unless it was removed.
fn changes(answer: Option<WatchAnswer>) -> Vec<(Revision, String, Option<String>)> {
    let Some(WatchAnswer::Changes { entries, .. }) = answer else { panic!("{answer:?}") };
    let mut found = Vec::new();
    for entry in entries {
        for event in entry.changes.as_slice() {
            let value = match &event.change {
                Change::Set(value) => Some(value.as_json().to_owned()),
                Change::Removed(_) => None,
            };
            found.push((entry.rev, event.key.as_str().to_owned(), value));
        }
    }
    found
}

fn change(rev: Revision, key: &str, json: &str) -> (Revision, String, Option<String>) {
    (rev, key.to_owned(), Some(json.to_owned()))
}

#[test]
fn a_request_waits_for_a_change_that_it_selects() {
    let mut cluster = nodes();
    let begun = put(&mut cluster, "a/1", "x");
    let id = cluster.ask(1, request(prefix("a/"), after(begun)));
    put(&mut cluster, "b", "x");
    assert_eq!(given(&mut cluster, id), None);
    let rev = put(&mut cluster, "a/2", "y");
    assert_eq!(changes(given(&mut cluster, id)), [change(rev, "a/2", "\"y\"")]);
    // One that lags is answered at once, with all that it has missed.
    let all = changes(ask(&mut cluster, 1, prefix("a/"), after(Revision(begun.0 - 1))));
    assert_eq!(all, [change(begun, "a/1", "\"x\""), change(rev, "a/2", "\"y\"")]);
}

/// A client must learn that nothing happens, and a follower's client as well.
#[test]
fn a_request_that_no_change_concerns_is_answered_after_the_progress_interval() {
    let mut cluster = nodes();
    let begun = put(&mut cluster, "a", "x");
    cluster.elapse_ms(60);
    for node in [1, 2] {
        let id = cluster.ask(node, request(prefix("none"), after(begun)));
        let rev = put(&mut cluster, "b", "x");
        let interval = u64::try_from(PROGRESS_INTERVAL.as_millis()).expect("a short time");
        cluster.elapse_ms(interval - 100);
        assert_eq!(given(&mut cluster, id), None);
        cluster.elapse_ms(101);
        assert_eq!(
            given(&mut cluster, id),
            Some(WatchAnswer::Changes { entries: Vec::new(), up_to: rev }),
            "{node}"
        );
    }
}

#[test]
fn an_answer_has_a_limit_and_one_entry_may_exceed_it() {
    let mut cluster = nodes();
    let begun = put(&mut cluster, "a", "x");
    let long = "x".repeat(BYTES_MAX / 2);
    let revs: Vec<_> = (0..3).map(|_| put(&mut cluster, "a", &long)).collect();
    let huge = put(&mut cluster, "a", &long.repeat(4));
    let mut position = begun;
    for expected in [&revs[..1], &revs[1..2], &revs[2..], &[huge]] {
        let answer = ask(&mut cluster, 1, prefix("a"), after(position));
        let found: Vec<_> = changes(answer).into_iter().map(|(rev, ..)| rev).collect();
        assert_eq!(found, expected);
        position = found[0];
    }
}

#[test]
fn a_history_that_no_longer_reaches_back_ends_a_watch() {
    let mut cluster = nodes();
    let begun = put(&mut cluster, "a", "x");
    let id = cluster.ask(1, request(prefix("rare"), after(begun)));
    let revs: Vec<_> = (0..20).map(|_| put(&mut cluster, "a", "x")).collect();
    let lagged = WatchAnswer::Lagged { resume: Revision(begun.0 + 1) };
    assert_eq!(ask(&mut cluster, 1, prefix("a"), after(begun)), Some(lagged));
    let oldest = revs[revs.len() - 8];
    for from in [Revision(1), Revision(oldest.0 - 1)] {
        let compacted = WatchAnswer::Compacted { oldest };
        assert_eq!(ask(&mut cluster, 1, prefix("a"), start(Some(from), false)), Some(compacted));
    }
    let started = WatchAnswer::Started { after: Revision(oldest.0 - 1), content: None };
    assert_eq!(ask(&mut cluster, 1, prefix("a"), start(Some(oldest), false)), Some(started));
    // One that waits has missed nothing, however much has changed that it does not select.
    let rev = put(&mut cluster, "rare", "x");
    assert_eq!(changes(given(&mut cluster, id)), [change(rev, "rare", "\"x\"")]);
}

/// A snapshot says what the keys are, and not what happened to them.
#[test]
fn an_installed_snapshot_ends_the_watches_that_wait() {
    let mut cluster = nodes();
    let begun = put(&mut cluster, "a", "x");
    cluster.elapse_ms(60);
    let id = cluster.ask(3, request(prefix("rare"), after(begun)));
    cluster.settle();
    cluster.isolate(3);
    (0..100).for_each(|_| _ = put(&mut cluster, "a", "x"));
    cluster.heal();
    cluster.elapse_ms(3000);
    assert!(cluster.node(3).snapshot().is_some());
    let lagged = WatchAnswer::Lagged { resume: Revision(begun.0 + 1) };
    assert_eq!(given(&mut cluster, id), Some(lagged));
    let oldest = cluster.subject(3).0.history().oldest();
    assert!(oldest > Revision(begun.0 + 1));
}

/// The watch has been served by a node that is ahead of this one.
#[test]
fn a_watch_that_is_ahead_of_its_node_waits() {
    let mut cluster = nodes();
    let first = put(&mut cluster, "a", "x");
    cluster.elapse_ms(60);
    cluster.isolate(3);
    let (second, third) = (put(&mut cluster, "a", "y"), put(&mut cluster, "a", "z"));
    assert!(first < second);
    let id = cluster.ask(3, request(prefix("a"), after(second)));
    cluster.settle();
    cluster.heal();
    cluster.elapse_ms(1000);
    assert_eq!(changes(given(&mut cluster, id)), [change(third, "a", "\"z\"")]);
}

/// Begins a watch with content, and returns the view that has the rest.
fn begin(cluster: &mut Watched) -> Option<NodeView> {
    match ask(cluster, 1, prefix("k"), start(None, true)) {
        Some(WatchAnswer::Started { content: Some((view, part)), .. }) => {
            assert_eq!(part.items.len(), 2);
            (!part.is_last).then_some(view)
        }
        other => panic!("{other:?}"),
    }
}

fn read(cluster: &mut Watched, view: NodeView) -> WatchAnswer {
    ask(cluster, 1, prefix("k"), WatchPart::Content { view, bytes_max: 10 }).expect("it is answered")
}

#[test]
fn a_view_is_dropped_when_it_is_not_read_or_holds_too_much() {
    let mut cluster = nodes();
    for number in 0..6 {
        put(&mut cluster, &format!("k{number}"), &"x".repeat(100 * (number / 4) + 3));
    }
    let lost = |view: NodeView| WatchAnswer::Lagged { resume: view.as_of };
    let views = [begin(&mut cluster).expect("a view"), begin(&mut cluster).expect("a view")];
    let id = cluster.ask(1, request(prefix("k"), start(None, true)));
    cluster.settle();
    assert_eq!(cluster.answer(id), Some(&Answer::Refused(RequestRefusal::Overloaded)), "there are two");
    assert!(matches!(read(&mut cluster, views[0]), WatchAnswer::Content { .. }));
    cluster.elapse_ms(u64::try_from(VIEW_TIMEOUT.as_millis()).expect("a short time") + 100);
    assert_eq!(views.map(|view| read(&mut cluster, view)), views.map(lost));
    let view = begin(&mut cluster).expect("there is a place again");
    // The old values of both long ones exceed the limit.
    (2..6).for_each(|number| _ = put(&mut cluster, &format!("k{number}"), "y"));
    assert!(cluster.subject(1).0.views().1 <= 300);
    let after_one = read(&mut cluster, view);
    assert_eq!(matches!(after_one, WatchAnswer::Content { .. }), cluster.subject(1).0.views().0 > 0);
    let few = ask(&mut cluster, 1, prefix("k5"), start(None, true));
    assert!(matches!(few, Some(WatchAnswer::Started { content: Some((_, part)), .. }) if part.is_last));
}
