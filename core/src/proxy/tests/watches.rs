//! Tests of watch requests: which node gets them, and what becomes of them when it stops.

use super::*;
use crate::kv::{Revision, Selection, ViewId};
use crate::replica::{NodeView, WatchAnswer, WatchPart, WatchRequest};

const SELECTION: fn() -> Selection = || Selection::Prefix("".into());

fn start() -> Request {
    let part =
        WatchPart::Start { from: None, wants_content: true, at_least: LogIndex::ORIGIN, bytes_max: 100 };
    Request::Watch(WatchRequest { selection: SELECTION(), part })
}

fn changes() -> Request {
    let part = WatchPart::Changes { after: Revision(7), bytes_max: 100 };
    Request::Watch(WatchRequest { selection: SELECTION(), part })
}

fn content(node: u64) -> Request {
    let view = NodeView { node: NodeId(node), id: ViewId(0), as_of: Revision(5) };
    Request::Watch(WatchRequest { selection: SELECTION(), part: WatchPart::Content { view, bytes_max: 100 } })
}

fn given(answer: WatchAnswer) -> Answer {
    Answer::Watch(Box::new(answer))
}

fn progress() -> Answer {
    given(WatchAnswer::Changes { entries: Vec::new(), up_to: Revision(9) })
}

#[test]
fn a_connection_stays_at_its_node_while_that_runs() {
    let mut story = Story::with_nodes(3).led_by(0);
    let (node, id) = asked(&story.ask(changes()));
    assert_eq!(node, 1, "connection 1 of three");
    assert_eq!(replied(&story.answer(1, id, progress())), &Ok(Answered::ByNode(progress())));
    assert!(story.answer(1, id, progress()).is_empty(), "one reply for one request");
    let (node, id) = asked(&story.ask(changes()));
    assert_eq!(node, 1);
    let outputs = story.step(Some(ProxyInput::NodeStopped(NodeId(1))));
    assert_eq!(asked(&outputs), (2, id), "revisions are the same there");
    assert!(story.answer(1, id, progress()).is_empty(), "it is at another node");
    assert_eq!(replied(&story.answer(2, id, progress())), &Ok(Answered::ByNode(progress())));
}

#[test]
fn watch_requests_take_no_places_of_others_and_have_no_timeout() {
    let mut story = Story::with_nodes(3).led_by(0);
    for _ in 0..100 {
        asked(&story.ask(changes()));
    }
    asked(&story.ask(put()));
    let outputs = story.elapse(TIMEOUT * 10);
    assert_eq!(replied(&outputs), &Err(RequestError::Timeout), "that of the write alone");
    assert!(!story.proxy.is_idle());
}

#[test]
fn a_view_goes_with_its_node() {
    let mut story = Story::with_nodes(3).led_by(0);
    let (node, _) = asked(&story.ask(content(2)));
    assert_eq!(node, 2);
    let lagged = Ok(Answered::ByNode(given(WatchAnswer::Lagged { resume: Revision(5) })));
    assert_eq!(replied(&story.step(Some(ProxyInput::NodeStopped(NodeId(2))))), &lagged);
    assert_eq!(replied(&story.ask(content(2))), &lagged);
}

#[test]
fn the_beginning_of_a_watch_is_sent_again_until_the_timeout() {
    for (refused, failure) in [
        (RequestRefusal::CatchingUp, RequestError::NoLeader),
        (RequestRefusal::Overloaded, RequestError::Busy),
    ] {
        let mut story = Story::with_nodes(3).led_by(0);
        let (mut node, id) = asked(&story.ask(start()));
        let mut nodes = BTreeSet::from([node]);
        let begun = story.now;
        loop {
            assert!(story.answer(node, id, Answer::Refused(refused)).is_empty());
            let outputs = story.elapse(READ_RETRY_AFTER * 10);
            if let [ProxyOutput::Reply(_, reply)] = &outputs[..] {
                assert_eq!(reply, &Err(failure));
                break;
            }
            node = asked(&outputs).0;
            nodes.insert(node);
        }
        assert!(story.now.since(begun) >= TIMEOUT);
        assert!(story.proxy.is_idle() && story.proxy.deadline().is_none());
        // A node that catches up is left for another one; too many views are elsewhere as well.
        assert_eq!(nodes.len(), if refused == RequestRefusal::CatchingUp { 3 } else { 1 });
    }
}

#[test]
fn a_watch_waits_until_the_members_support_it_only_for_a_while() {
    let mut story = Story::with_nodes(1).led_by(0);
    let (_, id) = asked(&story.ask(start()));
    let mut waited = Duration::ZERO;
    let reply = loop {
        let outputs = story.answer(0, id, Answer::Refused(RequestRefusal::NotYet));
        if let [ProxyOutput::Reply(_, reply)] = &outputs[..] {
            break reply.clone();
        }
        waited += READ_RETRY_AFTER;
        asked(&story.elapse(READ_RETRY_AFTER));
    };
    assert_eq!((reply, waited), (Err(RequestError::NotYet), LEVEL_PATIENCE));
}

#[test]
fn watches_of_a_process_stay_at_its_node() {
    let mut story = before_a_process();
    story.step(Some(ProxyInput::Reachable(NodeId(2), None)));
    assert_eq!(asked(&story.ask(changes())).0, 1);
    let outputs = story.step(Some(ProxyInput::NodeStopped(NodeId(1))));
    assert_eq!(replied(&outputs), &Err(RequestError::Storage));
    let mut story = before_a_process();
    story.proxy = Proxy::new(story.proxy.config, 3);
    assert!(story.ask(start()).is_empty(), "the node is about to start");
    assert_eq!(asked(&story.step(Some(ProxyInput::Reachable(NodeId(1), None)))).0, 1);
}

#[test]
fn a_stop_answers_all_watches() {
    let mut story = Story::with_nodes(3).led_by(0);
    asked(&story.ask(changes()));
    let outputs = story.step(Some(ProxyInput::Stop));
    assert_eq!(replied(&outputs), &Err(RequestError::ShuttingDown));
    assert!(story.proxy.is_idle());
    assert_eq!(replied(&story.ask(changes())), &Err(RequestError::ShuttingDown));
}
