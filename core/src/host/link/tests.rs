//! Tests of a link: going up and down, its reports, and its limits on bytes in flight.

use super::*;
use crate::identity::Incarnation;
use crate::kv::Level;
use crate::peer::{BACKOFF_MAX, push_receipt};
use crate::raft::{Addition, Body, Heartbeat, LogIndex, ReadRound, Term};
use crate::replica::{Request, RequestId};

fn handshake() -> HandshakeResult {
    HandshakeResult {
        node: NodeId(2),
        incarnation: Incarnation(20),
        address: None,
        client_address: Some("c:2".into()),
        configuration_index: LogIndex(0),
        boot: 0,
        addition: Addition::default(),
        supports: Level::MAX,
        is_of_cluster: true,
    }
}

fn link() -> Link {
    Link::new(NodeId(1), NodeId(2), 1, Duration::from_millis(300))
}

/// A removed member learns of its removal from any member that it dials. A member that dials a
/// removed one learns nothing about itself.
#[test]
fn a_removal_concerns_only_the_node_that_it_names() {
    for (removed, told) in [(1, true), (2, false)] {
        let (mut link, mut news) = (link(), Vec::new());
        link.failed(HandshakeRefusal::Removed { node: removed, index: 9 }.into(), &mut news);
        let is_told = |item: &PeerNews| matches!(item, PeerNews::Removed(_));
        assert_eq!(news.iter().any(is_told), told, "of node {removed}");
    }
}

#[test]
fn a_node_that_runs_twice_ends_only_after_repeated_reports() {
    let (mut link, mut news) = (link(), Vec::new());
    let refusal = || HandshakeRefusal::RunsTwice { node: 1, first: "a:1".into(), second: "b:1".into() };
    let ends = |news: &[PeerNews]| news.iter().any(|item| matches!(item, PeerNews::Removed(_)));
    for _ in 1..RUNS_TWICE_MAX {
        link.failed(refusal().into(), &mut news);
    }
    assert!(!ends(&news));
    assert!(link.go_up(&handshake(), Instant::default(), &mut news), "the run before has ended");
    for _ in 1..RUNS_TWICE_MAX {
        link.failed(refusal().into(), &mut news);
    }
    assert!(!ends(&news));
    link.failed(refusal().into(), &mut news);
    assert!(ends(&news));
}

fn broken() -> DialError {
    DialError::Failed("connection refused".into())
}

fn reports(news: &mut Vec<PeerNews>) -> Vec<PeerEvent> {
    let report = |news| if let PeerNews::Report(event) = news { Some(event) } else { None };
    news.drain(..).filter_map(report).collect()
}

fn call() -> CallId {
    CallId { boot: 1, request: RequestId(7) }
}

#[test]
fn a_failure_is_reported_once_per_reason_and_again_after_the_link_was_up() {
    let (mut link, mut news) = (link(), Vec::new());
    for _ in 0..5 {
        assert!(link.failed(broken(), &mut news) <= BACKOFF_MAX);
    }
    link.failed(DialError::NotReady, &mut news);
    link.failed(DialError::NotReady, &mut news);
    assert_eq!(reports(&mut news).len(), 2);
    assert!(link.go_up(&handshake(), Instant::default(), &mut news));
    link.failed(DialError::NotReady, &mut news);
    let expected =
        [PeerEvent::Connected(NodeId(2)), PeerEvent::Lost(NodeId(2), DialError::NotReady.to_string())];
    assert_eq!(reports(&mut news), expected);
    let refusal = HandshakeRefusal::OtherFounders;
    link.failed(refusal.clone().into(), &mut news);
    assert_eq!(reports(&mut news), [PeerEvent::Refused(NodeId(2), refusal)]);
}

#[test]
fn the_node_and_the_router_are_notified_once_of_each_change() {
    let (mut link, mut news) = (link(), Vec::new());
    link.go_down(&mut news);
    assert!(news.is_empty(), "it was never up");
    assert!(link.go_up(&handshake(), Instant::default(), &mut news));
    let [PeerNews::Report(_), PeerNews::Node(HostInput::Core(met)), PeerNews::Router(reachable)] = &news[..]
    else {
        panic!("{news:?}")
    };
    assert!(matches!(met, Input::HandshakeCompleted { .. }));
    assert!(matches!(reachable[..], [ProxyInput::Reachable(NodeId(2), Some(_))]));
    news.clear();
    link.failed(broken(), &mut news);
    link.end(&mut news);
    let down = news.iter().filter(|news| !matches!(news, PeerNews::Report(_))).collect::<Vec<_>>();
    let [PeerNews::Router(unreachable), PeerNews::Node(HostInput::Core(lost))] = down[..] else {
        panic!("{down:?}")
    };
    assert!(matches!(unreachable[..], [ProxyInput::Unreachable(NodeId(2))]));
    assert!(matches!(lost, Input::PeerUnreachable(NodeId(2))));
}

#[test]
fn without_a_connection_only_answers_are_kept() {
    let (mut link, mut news) = (link(), Vec::new());
    assert!(link.requests().is_none());
    link.push_answer(call(), &Answer::OutcomeUnknown);
    assert!(link.has_work() && link.is_idle(), "it waits for a connection, and nobody for it");
    link.go_up(&handshake(), Instant::default(), &mut news);
    assert!(link.requests().unwrap().push_ask(call(), 1, &Request::Status));
    link.go_down(&mut news);
    link.go_up(&handshake(), Instant::default(), &mut news);
    let mut bytes = Vec::new();
    link.drain(Instant::default(), &mut bytes);
    assert!(!link.has_work() && !link.is_idle(), "it is on its way");
    link.sent();
    assert!(link.is_idle());
}

fn receipt(read: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    push_receipt(&mut bytes, read as u64);
    bytes
}

#[test]
fn bulk_waits_for_receipts_and_heartbeats_do_not() {
    let (mut link, mut news, now) = (link(), Vec::new(), Instant::default());
    link.go_up(&handshake(), now, &mut news);
    let value = crate::kv::Value::from_text(&"x".repeat(500_000)).unwrap();
    let put = crate::kv::Command::Put { key: crate::kv::Key::new("k").unwrap(), value };
    assert!(link.requests().unwrap().push_ask(call(), 1, &Request::write(put)));
    let (mut sent, mut bytes) = (0, Vec::new());
    link.drain(now, &mut bytes);
    sent += bytes.len();
    assert!(!link.has_work() && !link.is_idle(), "{sent} bytes are on their way, and no more may be");
    let body = Body::Heartbeat(Heartbeat {
        leader_commit: LogIndex(1),
        commit_checksum: None,
        round: ReadRound(1),
        elapsed: None,
    });
    let (from, to, term) = (NodeId(1), NodeId(2), Term(1));
    link.push_message(&Message { from, incarnation: None, to, term, body });
    assert!(link.has_work());
    bytes.clear();
    link.drain(now, &mut bytes);
    sent += bytes.len();
    assert!(bytes.len() < 100 && !link.has_work());
    link.hear(&receipt(sent), now).unwrap();
    assert!(link.has_work());
    assert!(link.hear(&receipt(sent + 1), now).is_err(), "so much was never sent");
}

#[test]
fn a_link_pings_the_other_node_and_notices_silence() {
    let (mut link, mut news, mut now) = (link(), Vec::new(), Instant::default());
    link.go_up(&handshake(), now, &mut news);
    let (mut sent, mut asked) = (0, 0);
    let mut ask = |link: &mut Link, now| {
        let is_there = link.ask(now).is_ok();
        let mut bytes = Vec::new();
        link.drain(now, &mut bytes);
        sent += bytes.len();
        asked += usize::from(!bytes.is_empty());
        (is_there, sent, asked)
    };
    while now < Instant::default() + PEER_SILENCE_MAX * 2 {
        let (is_there, sent, _) = ask(&mut link, now);
        assert!(is_there && ask(&mut link, now).1 == sent, "it is asked once each second");
        link.hear(&receipt(sent), now).unwrap();
        now = link.ping_at();
    }
    let (is_there, _, asked) = ask(&mut link, now);
    assert!(is_there && asked == 21, "{asked}");
    assert!(!ask(&mut link, now + PEER_SILENCE_MAX).0);
    link.go_down(&mut news);
    assert!(link.ask(now + PEER_SILENCE_MAX).is_ok(), "nothing is expected then");
    assert!(!link.has_work());
}

#[test]
fn any_dialled_node_reports_a_removal() {
    let removed = |node| DialError::Refused(HandshakeRefusal::Removed { node, index: 7 });
    for (node, hears) in [(1, true), (3, false)] {
        let (mut link, mut news) = (link(), Vec::new());
        link.failed(removed(node), &mut news);
        assert_eq!(news.iter().any(|news| matches!(news, PeerNews::Removed(_))), hears);
    }
}

#[test]
fn a_link_that_has_ended_accepts_no_connection() {
    let (mut link, mut news) = (link(), Vec::new());
    link.end(&mut news);
    assert!(!link.go_up(&handshake(), Instant::default(), &mut news) && news.is_empty() && link.is_over());
}
