//! Tests of the proxy's rules, through its inputs and outputs.

use super::*;
use crate::kv::{ClientName, Command, Found, Key, KeyMeta, Outcome, Query, Session, Value};
use crate::raft::LogIndex;
use crate::replica::{BackupPiece, Status};

mod levels;
mod scans;
mod watches;

const TIMEOUT: Duration = Duration::from_secs(5);

struct Story {
    proxy: Proxy,
    now: Instant,
    next_slot: u64,
}

impl Story {
    fn with_nodes(count: u64) -> Self {
        let nodes = (0..count).map(NodeId).collect();
        let config = ProxyConfig {
            nodes,
            local: None,
            request_timeout: TIMEOUT,
            pending_max: 4,
            pending_bytes_max: 100,
            scans_max: 1,
        };
        Self { proxy: Proxy::new(config, 3), now: Instant::from_micros(1), next_slot: 0 }
    }

    fn led_by(mut self, leader: u64) -> Self {
        self.hear_leader(leader, 1, Some(leader));
        self
    }

    fn step(&mut self, input: Option<ProxyInput>) -> Vec<ProxyOutput> {
        let mut outputs = Vec::new();
        self.proxy.step(self.now, &mut input.into_iter().collect(), &mut outputs);
        outputs
    }

    fn ask(&mut self, request: Request) -> Vec<ProxyOutput> {
        self.next_slot += 1;
        let ticket = Ticket { connection: 1, slot: self.next_slot };
        self.step(Some(ProxyInput::Ask(ticket, request)))
    }

    fn answer(&mut self, node: u64, id: RequestId, answer: Answer) -> Vec<ProxyOutput> {
        self.step(Some(ProxyInput::Answer(NodeId(node), id, answer)))
    }

    fn refuse_as_follower(
        &mut self,
        node: u64,
        id: RequestId,
        term: u64,
        hint: Option<u64>,
    ) -> Vec<ProxyOutput> {
        let refused = RequestRefusal::NotLeader { term: Term(term), leader: hint.map(NodeId) };
        self.answer(node, id, Answer::Refused(refused))
    }

    fn hear_leader(&mut self, node: u64, term: u64, leader: Option<u64>) -> Vec<ProxyOutput> {
        let (node, term, leader) = (NodeId(node), Term(term), leader.map(NodeId));
        self.step(Some(ProxyInput::LeaderChanged { node, term, leader }))
    }

    fn elapse(&mut self, span: Duration) -> Vec<ProxyOutput> {
        self.now = self.now + span;
        self.step(None)
    }
}

fn put() -> Request {
    let (key, value) = (Key::new("k").unwrap(), Value::from_json("1").unwrap());
    Request::write(Command::Put { key, value })
}

fn found_nothing() -> Answer {
    Answer::Read { index: LogIndex(1), found: Found::Value(None) }
}

fn applied() -> Answer {
    Answer::Applied { index: LogIndex(1), outcome: Outcome::Done, meta: KeyMeta::default() }
}

fn read() -> Request {
    Request::Read { query: Query::Value(Key::new("k").unwrap()), at_least: LogIndex::ORIGIN }
}

fn asked(outputs: &[ProxyOutput]) -> (u64, RequestId) {
    match outputs {
        [ProxyOutput::Ask(node, id, _)] => (node.0, *id),
        other => panic!("expected one request to a node, found {other:?}"),
    }
}

fn replied(outputs: &[ProxyOutput]) -> &Reply {
    match outputs {
        [ProxyOutput::Reply(_, reply)] => reply,
        other => panic!("expected one reply, found {other:?}"),
    }
}

#[test]
fn a_write_goes_to_the_leader_and_its_outcome_to_the_client() {
    let mut story = Story::with_nodes(5).led_by(3);
    let (node, id) = asked(&story.ask(put()));
    assert_eq!(node, 3);
    let outputs = story.answer(3, id, applied());
    assert_eq!(replied(&outputs), &Ok(Answered::ByNode(applied())));
    assert!(story.proxy.is_idle());
}

#[test]
fn a_read_goes_to_every_follower_in_time_and_never_to_the_leader() {
    let mut story = Story::with_nodes(5).led_by(3);
    let mut nodes = BTreeSet::new();
    for _ in 0..100 {
        let (node, id) = asked(&story.ask(read()));
        story.answer(node, id, found_nothing());
        nodes.insert(node);
    }
    assert_eq!(nodes, BTreeSet::from([0, 1, 2, 4]));
}

#[test]
fn a_single_node_serves_its_own_reads() {
    let mut story = Story::with_nodes(1).led_by(0);
    assert_eq!(asked(&story.ask(read())).0, 0);
}

#[test]
fn a_write_without_a_leader_waits_for_one() {
    let mut story = Story::with_nodes(3);
    assert!(story.ask(put()).is_empty());
    assert_eq!(asked(&story.hear_leader(2, 1, Some(1))).0, 1);
}

#[test]
fn a_write_at_the_wrong_node_follows_the_hint_or_waits() {
    let mut story = Story::with_nodes(3).led_by(0);
    let (_, id) = asked(&story.ask(put()));
    let (node, id) = asked(&story.refuse_as_follower(0, id, 2, Some(1)));
    assert_eq!(node, 1);
    assert!(story.refuse_as_follower(1, id, 2, None).is_empty());
    assert_eq!(asked(&story.hear_leader(2, 3, Some(2))).0, 2);
}

#[test]
fn a_request_does_not_loop_between_nodes_that_name_each_other_as_leader() {
    let mut story = Story::with_nodes(3).led_by(0);
    let (_, id) = asked(&story.ask(put()));
    let (node, id) = asked(&story.refuse_as_follower(0, id, 1, Some(1)));
    assert_eq!(node, 1);
    let back = story.refuse_as_follower(1, id, 1, Some(0));
    let (node, id) = asked(&back);
    assert_eq!(node, 0);
    assert!(story.refuse_as_follower(0, id, 1, None).is_empty(), "nobody leads: it waits");
}

#[test]
fn a_superseded_write_is_tried_again() {
    let mut story = Story::with_nodes(3).led_by(0);
    let (_, id) = asked(&story.ask(put()));
    story.hear_leader(1, 2, Some(1));
    assert_eq!(asked(&story.answer(0, id, Answer::Refused(RequestRefusal::Superseded))).0, 1);
}

#[test]
fn outdated_news_of_a_leader_is_ignored() {
    let mut story = Story::with_nodes(3);
    story.hear_leader(2, 5, Some(2));
    story.hear_leader(1, 4, Some(1));
    assert_eq!(story.proxy.leader(), Some(NodeId(2)));
    story.hear_leader(2, 5, None);
    assert_eq!(story.proxy.leader(), None, "its own resignation counts");
}

#[test]
fn a_timeout_is_definite_only_for_a_write_that_no_node_had() {
    let mut story = Story::with_nodes(3);
    story.ask(put());
    let outputs = story.elapse(TIMEOUT);
    assert_eq!(replied(&outputs), &Err(RequestError::NoLeader));
    assert!(RequestError::NoLeader.is_definite());

    let mut story = Story::with_nodes(3).led_by(0);
    let (_, id) = asked(&story.ask(put()));
    let outputs = story.elapse(TIMEOUT);
    assert_eq!(replied(&outputs), &Err(RequestError::Timeout));
    assert!(!RequestError::Timeout.is_definite());
    assert!(story.answer(0, id, applied()).is_empty(), "one reply for one request");
}

#[test]
fn a_read_leaves_a_node_that_is_catching_up() {
    let mut story = Story::with_nodes(3).led_by(0);
    let (node, id) = asked(&story.ask(read()));
    assert!(story.answer(node, id, Answer::Refused(RequestRefusal::CatchingUp)).is_empty());
    assert_eq!(story.proxy.deadline(), Some(story.now + READ_RETRY_AFTER));
    let (_, same) = asked(&story.elapse(READ_RETRY_AFTER));
    assert_eq!(same, id);
}

#[test]
fn a_node_without_a_leader_does_not_make_the_proxy_forget_the_leader() {
    let mut story = Story::with_nodes(3).led_by(0);
    story.hear_leader(1, 2, None);
    assert_eq!(asked(&story.ask(put())).0, 0);
    story.hear_leader(2, 3, Some(2));
    assert_eq!(asked(&story.ask(put())).0, 2);
}

#[test]
fn requests_above_the_limit_of_bytes_are_rejected() {
    let mut story = Story::with_nodes(3).led_by(0);
    let (key, value) = (Key::new("k").unwrap(), Value::from_text(&"v".repeat(200)).unwrap());
    asked(&story.ask(Request::write(Command::Put { key, value })));
    assert_eq!(replied(&story.ask(put())), &Err(RequestError::Busy));
}

#[test]
fn a_slow_request_does_not_block_later_ones() {
    let mut story = Story::with_nodes(3).led_by(0);
    asked(&story.ask(put()));
    let answered = (0..100).take_while(|_| {
        let outputs = story.ask(read());
        let [ProxyOutput::Ask(node, id, _)] = outputs[..] else { return false };
        story.answer(node.0, id, found_nothing());
        true
    });
    assert_eq!(answered.count(), 100);
}

#[test]
fn requests_above_the_limit_are_rejected() {
    let mut story = Story::with_nodes(3).led_by(0);
    for _ in 0..4 {
        asked(&story.ask(put()));
    }
    assert_eq!(replied(&story.ask(put())), &Err(RequestError::Busy));
}

#[test]
fn when_a_node_stops_its_writes_fail_and_its_reads_go_elsewhere() {
    let mut story = Story::with_nodes(2).led_by(0);
    asked(&story.ask(put()));
    let (reader, _) = asked(&story.ask(read()));
    assert_eq!(reader, 1);
    let outputs = story.step(Some(ProxyInput::NodeStopped(NodeId(0))));
    assert_eq!(replied(&outputs), &Err(RequestError::Storage));
    let outputs = story.step(Some(ProxyInput::NodeStopped(NodeId(1))));
    assert!(outputs.is_empty(), "nobody can read, so it waits");
}

#[test]
fn a_status_is_complete_when_all_running_nodes_have_answered() {
    let mut story = Story::with_nodes(3).led_by(0);
    story.step(Some(ProxyInput::NodeStopped(NodeId(1))));
    let outputs = story.ask(Request::Status);
    assert_eq!(outputs.len(), 2);
    let ProxyOutput::Ask(_, id, _) = outputs[0] else { panic!("{outputs:?}") };
    let status = |node| Status {
        id: NodeId(node),
        role: crate::raft::Role::Follower,
        is_learner: false,
        term: Term(1),
        commit_index: Default::default(),
        last_applied: Default::default(),
        last_log_index: Default::default(),
        snapshot_index: LogIndex(0),
        leader: None,
        durable_index: LogIndex(0),
        disk_waiting_ms: 0,
    };
    assert!(story.answer(2, id, Answer::Status(Box::new(status(2)))).is_empty());
    let outputs = story.answer(0, id, Answer::Status(Box::new(status(0))));
    let report =
        |node, status| NodeReport { node: NodeId(node), status, is_here: true, client_address: None };
    let rows = vec![report(0, Some(status(0))), report(1, None), report(2, Some(status(2)))];
    assert_eq!(replied(&outputs), &Ok(Answered::Status(ClusterReport { nodes: rows, memory: None })));
}

#[test]
fn stopping_rejects_new_and_waiting_requests_and_finishes_the_others() {
    let mut story = Story::with_nodes(3);
    story.ask(put());
    let outputs = story.step(Some(ProxyInput::Stop));
    assert_eq!(replied(&outputs), &Err(RequestError::ShuttingDown));
    assert_eq!(replied(&story.ask(put())), &Err(RequestError::ShuttingDown));

    let mut story = Story::with_nodes(3).led_by(0);
    let (_, id) = asked(&story.ask(put()));
    assert!(story.step(Some(ProxyInput::Stop)).is_empty());
    let outputs = story.answer(0, id, applied());
    assert_eq!(replied(&outputs), &Ok(Answered::ByNode(applied())));
    assert!(story.proxy.is_idle());
}

/// Returns a proxy in front of node 1 of a cluster of three processes.
fn before_a_process() -> Story {
    let mut story = Story::with_nodes(4);
    let config =
        ProxyConfig { nodes: (1..4).map(NodeId).collect(), local: Some(NodeId(1)), ..story.proxy.config };
    story.proxy = Proxy::new(config, 3);
    story.step(Some(ProxyInput::Reachable(NodeId(1), None)));
    story
}

fn session_put() -> Request {
    let Request::Write { command, .. } = put() else { unreachable!() };
    let session = Session::new(ClientName::new("c").unwrap(), 1).unwrap();
    Request::Write { command, session: Some(session), wants_meta: false }
}

fn all_asked(outputs: &[ProxyOutput]) -> Vec<u64> {
    let node = |output: &ProxyOutput| match output {
        ProxyOutput::Ask(node, ..) => Some(node.0),
        ProxyOutput::Reply(..) => None,
    };
    outputs.iter().filter_map(node).collect()
}

#[test]
fn a_write_waits_for_a_connection_to_the_leader() {
    let mut story = before_a_process();
    story.hear_leader(1, 2, Some(3));
    assert!(story.ask(put()).is_empty(), "the leader is known and cannot be asked");
    let outputs = story.step(Some(ProxyInput::Reachable(NodeId(3), None)));
    assert_eq!(all_asked(&outputs), [3]);
}

#[test]
fn reads_stay_at_the_local_node() {
    let mut story = before_a_process();
    story.hear_leader(1, 2, Some(3));
    let key = Key::new("k").unwrap();
    for request in [read(), Request::LinearizableRead(Query::Value(key))] {
        assert_eq!(all_asked(&story.ask(request)), [1]);
    }
}

#[test]
fn a_linearizable_read_without_a_leader_tries_again_later() {
    let mut story = before_a_process();
    let outputs = story.ask(Request::LinearizableRead(Query::Value(Key::new("k").unwrap())));
    let [ProxyOutput::Ask(_, id, _)] = outputs[..] else { panic!("{outputs:?}") };
    assert!(story.refuse_as_follower(1, id, 1, None).is_empty());
    assert_eq!(all_asked(&story.elapse(READ_RETRY_AFTER)), [1]);
}

#[test]
fn only_repeatable_requests_go_elsewhere_when_a_connection_breaks() {
    let mut story = before_a_process();
    story.step(Some(ProxyInput::Reachable(NodeId(2), None)));
    story.step(Some(ProxyInput::Reachable(NodeId(3), None)));
    story.hear_leader(1, 2, Some(3));
    assert_eq!(all_asked(&story.ask(session_put())), [3]);
    assert_eq!(all_asked(&story.ask(put())), [3]);
    assert!(story.step(Some(ProxyInput::Unreachable(NodeId(3)))).is_empty());
    let outputs = story.hear_leader(1, 3, Some(2));
    assert_eq!(all_asked(&outputs), [2], "the write without a session may have been done");
    let outputs = story.elapse(TIMEOUT);
    assert!(outputs.iter().any(|output| matches!(output, ProxyOutput::Reply(_, Err(RequestError::Timeout)))));
}

#[test]
fn a_write_of_a_session_follows_the_leader() {
    let mut story = before_a_process();
    story.step(Some(ProxyInput::Reachable(NodeId(2), None)));
    story.step(Some(ProxyInput::Reachable(NodeId(3), None)));
    story.hear_leader(1, 2, Some(3));
    assert_eq!(all_asked(&story.ask(session_put())), [3]);
    assert_eq!(all_asked(&story.ask(put())), [3]);
    assert_eq!(all_asked(&story.hear_leader(1, 3, Some(2))), [2]);
}

#[test]
fn a_status_does_not_wait_for_unreachable_nodes() {
    let mut story = before_a_process();
    story.step(Some(ProxyInput::Reachable(NodeId(2), Some("h:1".into()))));
    assert_eq!(all_asked(&story.ask(Request::Status)), [1, 2]);
    let outputs = story.elapse(STATUS_TIMEOUT);
    let Ok(Answered::Status(ClusterReport { nodes: rows, .. })) = replied(&outputs) else {
        panic!("{outputs:?}")
    };
    assert!(rows.iter().all(|row| row.status.is_none()));
    assert_eq!(rows[1].client_address.as_deref(), Some("h:1"));
    assert!(rows[0].is_here && !rows[1].is_here);
    story.step(Some(ProxyInput::Nodes(vec![NodeId(1)])));
    assert_eq!(all_asked(&story.ask(Request::Status)), [1]);
}

#[test]
fn members_of_one_process_are_fixed() {
    use crate::replica::MemberChange;
    let mut story = Story::with_nodes(3).led_by(0);
    let outputs = story.ask(Request::ChangeMembers(MemberChange::Remove(NodeId(1)).into()));
    assert_eq!(replied(&outputs), &Err(RequestError::MembersAreFixed));
}

#[test]
fn a_process_without_a_leader_probes_other_nodes() {
    let mut story = before_a_process();
    story.step(Some(ProxyInput::Reachable(NodeId(3), None)));
    assert!(story.ask(put()).is_empty());
    let outputs = story.elapse(PROBE_EVERY);
    let [ProxyOutput::Ask(NodeId(3), id, _)] = outputs[..] else { panic!("{outputs:?}") };
    let outputs = story.refuse_as_follower(3, id, 4, Some(2));
    assert!(outputs.is_empty(), "there is no way to the leader yet");
    assert_eq!(all_asked(&story.step(Some(ProxyInput::Reachable(NodeId(2), None)))), [2]);
}

#[test]
fn a_removed_node_sends_even_its_reads_to_the_leader() {
    let mut story = before_a_process();
    story.step(Some(ProxyInput::Reachable(NodeId(2), None)));
    story.hear_leader(1, 2, Some(2));
    story.step(Some(ProxyInput::Nodes(vec![NodeId(2), NodeId(3)])));
    let read = Request::LinearizableRead(Query::Value(Key::new("k").unwrap()));
    assert_eq!(all_asked(&story.ask(read)), [2]);
}

/// The write was sent to a leader that may still carry it out, so no later rejection is definite.
#[test]
fn a_write_that_was_sent_again_never_fails_definitely() {
    for ending in [None, Some(ProxyInput::Stop)] {
        let mut story = before_a_process();
        story.step(Some(ProxyInput::Reachable(NodeId(3), None)));
        story.hear_leader(1, 2, Some(3));
        assert_eq!(all_asked(&story.ask(session_put())), [3]);
        let outputs = story.step(Some(ProxyInput::Unreachable(NodeId(3))));
        assert!(outputs.is_empty());
        let outputs = match ending {
            Some(stop) => story.step(Some(stop)),
            None => story.elapse(TIMEOUT),
        };
        assert_eq!(replied(&outputs), &Err(RequestError::Timeout));
    }
}

#[test]
fn a_leader_that_answers_is_known_again() {
    let mut story = before_a_process();
    story.step(Some(ProxyInput::Reachable(NodeId(3), None)));
    story.hear_leader(1, 2, Some(3));
    let outputs = story.ask(put());
    let [ProxyOutput::Ask(_, id, _)] = outputs[..] else { panic!("{outputs:?}") };
    assert!(story.refuse_as_follower(3, id, 2, None).is_empty(), "it is handing leadership over");
    let outputs = story.elapse(PROBE_EVERY);
    assert_eq!(all_asked(&outputs), [3]);
    story.answer(3, id, applied());
    assert_eq!(all_asked(&story.ask(put())), [3], "it leads on");
}

/// A backup that changes nodes between two parts would mix two states.
#[test]
fn all_pieces_of_a_backup_come_from_one_node() {
    let mut story = Story::with_nodes(5).led_by(3);
    let piece = || Request::Backup(BackupPiece::New);
    for leader in [3, 4] {
        story.hear_leader(leader, leader, Some(leader));
        let (node, id) = asked(&story.ask(piece()));
        assert_eq!(node, 0);
        let pending = Answer::BackupPending(LogIndex(1));
        assert_eq!(replied(&story.answer(0, id, pending.clone())), &Ok(Answered::ByNode(pending)));
    }
    // The node knows no leader now, and will soon: no other node is asked.
    let (_, id) = asked(&story.ask(piece()));
    assert_eq!(story.refuse_as_follower(0, id, 4, None), []);
    assert_eq!(asked(&story.elapse(READ_RETRY_AFTER)), (0, id));
    let gone = story.answer(0, id, Answer::Refused(RequestRefusal::BackupGone));
    assert_eq!(replied(&gone), &Err(RequestError::BackupGone));
    // Another node takes its place only after it has stopped.
    story.step(Some(ProxyInput::NodeStopped(NodeId(0))));
    assert_eq!(asked(&story.ask(piece())).0, 1);
    // In front of one process, only the local node is asked.
    let config =
        ProxyConfig { nodes: (1..4).map(NodeId).collect(), local: Some(NodeId(2)), ..story.proxy.config };
    story.proxy = Proxy::new(config, 3);
    story.step(Some(ProxyInput::Reachable(NodeId(1), None)));
    story.step(Some(ProxyInput::Reachable(NodeId(2), None)));
    assert_eq!(asked(&story.ask(piece())).0, 2);
}
