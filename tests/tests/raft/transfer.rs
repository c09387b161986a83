//! Leadership transfer (thesis, §3.10): fast when the target is up to date, and harmless when it
//! fails.

use coracle_core::raft::{Body, NodeId, Role};
use coracle_core::{Answer, Replica, Request, RequestRefusal};
use coracle_tests::scenario::forge::{granted, message};
use coracle_tests::scenario::{Cluster, Lone, replicas};

fn led_by_one(size: u64) -> Cluster<Replica> {
    let mut cluster = replicas(size);
    cluster.elect(1);
    cluster.elapse_ms(60);
    cluster
}

fn to(node: u64) -> Request {
    Request::Transfer(NodeId(node))
}

/// Voters reject candidates while they hear a leader; a transfer by that leader overrides this, so
/// no time passes.
///
/// Covers: etcd TestLeaderTransferToUpToDateNode, …WithCheckQuorum, …Back,
/// confchange_v2_replace_leader (transfer)
#[test]
fn leadership_goes_to_a_node_that_has_everything_and_back() {
    let mut cluster = led_by_one(3);
    for target in [2, 1, 3] {
        let from = cluster.leader().expect("somebody leads");
        let request = cluster.ask(from, to(target));
        cluster.settle();
        assert_eq!(cluster.leader(), Some(target));
        assert_eq!(cluster.answer(request), Some(&Answer::Transferred { to: NodeId(target) }));
    }
    cluster.propose(3, "chips");
    cluster.settle();
    assert!(matches!(cluster.texts(3).as_slice(), [text] if text == "chips"));
}

/// Covers: etcd TestLeaderTransferToUpToDateNodeFromFollower (here the proxy brings the order to
/// the leader)
#[test]
fn a_follower_names_the_leader() {
    let mut cluster = led_by_one(3);
    let request = cluster.ask(2, to(3));
    let answer = RequestRefusal::NotLeader { term: cluster.node(1).current_term(), leader: Some(NodeId(1)) };
    assert_eq!(cluster.answer(request), Some(&Answer::Refused(answer)));
}

/// The target must hold everything that the leader holds before it campaigns, or it could not win.
///
/// Covers: etcd TestLeaderTransferToSlowFollower, openraft#1805
#[test]
fn a_slow_target_is_brought_up_to_date_first() {
    let mut cluster = led_by_one(3);
    cluster.part(1, 3);
    cluster.propose_all(1, &["a", "b", "c"]);
    cluster.settle();
    let request = cluster.ask(1, to(3));
    cluster.settle();
    assert_eq!((cluster.leader(), cluster.answer(request)), (Some(1), None));
    cluster.heal();
    cluster.elapse_ms(200);
    assert_eq!(cluster.leader(), Some(3));
    assert_eq!(cluster.texts(3), ["a", "b", "c"]);
}

/// Covers: etcd TestLeaderTransferToSelf, TestLeaderTransferToNonExistingNode,
/// TestTransferNonMember
#[test]
fn the_leader_itself_and_strangers_are_no_targets() {
    let mut cluster = led_by_one(3);
    let own = cluster.ask(1, to(1));
    assert_eq!(cluster.answer(own), Some(&Answer::Transferred { to: NodeId(1) }));
    let stranger = cluster.ask(1, to(9));
    assert_eq!(cluster.answer(stranger), Some(&Answer::Refused(RequestRefusal::NotVoter)));
    cluster.elapse_ms(2000);
    assert_eq!((cluster.leader(), cluster.term(1)), (Some(1), 1));
}

/// A target that is down costs one election timeout, in which writes and reads wait, and no longer.
///
/// Covers: etcd TestLeaderTransferTimeout, …IgnoreProposal; openraft#1747 (transfer blocks reads),
/// dead target
#[test]
fn a_target_that_does_not_answer_costs_one_election_timeout() {
    let mut cluster = led_by_one(3);
    cluster.crash(3);
    let request = cluster.ask(1, to(3));
    cluster.elapse_ms(550);
    let refused = cluster.propose(1, "meanwhile");
    assert!(
        matches!(
            cluster.answer(refused),
            Some(Answer::Refused(RequestRefusal::NotLeader { leader: None, .. }))
        ),
        "a write waits for the next leader"
    );
    cluster.elapse_ms(100);
    assert_eq!(cluster.answer(request), Some(&Answer::Refused(RequestRefusal::TransferFailed)));
    assert_eq!((cluster.leader(), cluster.term(1)), (Some(1), 1));
    let write = cluster.propose(1, "chips");
    cluster.settle();
    assert!(matches!(cluster.answer(write), Some(Answer::Applied { .. })));
}

/// Covers: etcd TestLeaderTransferSecondTransferToSameNode (the time is not extended)
#[test]
fn asking_twice_gives_no_more_time() {
    let mut cluster = led_by_one(3);
    cluster.crash(3);
    let first = cluster.ask(1, to(3));
    cluster.elapse_ms(400);
    let second = cluster.ask(1, to(3));
    assert_eq!(
        cluster.answer(first),
        Some(&Answer::Refused(RequestRefusal::TransferFailed)),
        "the second order counts"
    );
    cluster.elapse_ms(250);
    assert_eq!(cluster.answer(second), Some(&Answer::Refused(RequestRefusal::TransferFailed)));
}

/// Covers: etcd TestLeaderTransferSecondTransferToAnotherNode, TestLeaderTransferBack (asking for
/// self cancels)
#[test]
fn another_target_takes_the_place_of_the_first_and_the_leader_itself_ends_it() {
    let mut cluster = led_by_one(3);
    cluster.crash(3);
    cluster.ask(1, to(3));
    let second = cluster.ask(1, to(2));
    cluster.settle();
    assert_eq!(cluster.answer(second), Some(&Answer::Transferred { to: NodeId(2) }));
    cluster.ask(2, to(3));
    let own = cluster.ask(2, to(2));
    assert_eq!(cluster.answer(own), Some(&Answer::Transferred { to: NodeId(2) }));
    let write = cluster.propose(2, "chips");
    cluster.settle();
    assert!(matches!(cluster.answer(write), Some(Answer::Applied { .. })), "nothing waits any more");
}

/// Covers: etcd TestLeaderTransferReceiveHigherTermVote
#[test]
fn another_election_ends_a_transfer() {
    let mut cluster = led_by_one(3);
    cluster.part(1, 3);
    cluster.propose(1, "chips");
    cluster.settle();
    let request = cluster.ask(1, to(3));
    cluster.isolate(1);
    cluster.elect(2);
    cluster.heal();
    cluster.elapse_ms(200);
    assert_eq!((cluster.leader(), cluster.node(1).transfer_target()), (Some(2), None));
    assert_eq!(cluster.answer(request), Some(&Answer::Refused(RequestRefusal::TransferFailed)));
}

/// The target crashes right after it was called, and another node becomes leader.
///
/// Covers: the target crashes (openraft#1747, #1805)
#[test]
fn a_target_that_dies_as_a_candidate_leaves_the_others_free() {
    let mut cluster = led_by_one(5);
    cluster.hold_disk(3);
    cluster.ask(1, to(3));
    cluster.settle();
    cluster.crash(3);
    cluster.elapse_ms(3000);
    assert!(cluster.leader().is_some_and(|leader| leader != 3));
    let leader = cluster.leader().expect("somebody leads");
    let write = cluster.propose(leader, "chips");
    cluster.settle();
    assert!(matches!(cluster.answer(write), Some(Answer::Applied { .. })));
}

/// TimeoutNow counts only from the current leader, and in its term.
#[test]
fn timeout_now_from_a_node_that_is_not_the_leader_does_nothing() {
    let mut lone = Lone::new(3, coracle_core::raft::Restored::default());
    assert!(lone.hand(message(2, 1, 0, Body::TimeoutNow)).is_empty(), "nobody leads");
    lone.hand(coracle_tests::scenario::forge::heartbeat(2, 1, 3, 0));
    assert!(lone.hand(message(3, 1, 3, Body::TimeoutNow)).is_empty(), "another one leads");
    assert!(lone.hand(message(2, 1, 2, Body::TimeoutNow)).is_empty(), "in an older term");
    assert_eq!((lone.role(1), lone.term(1)), (Role::Follower, 3));
    let calls = lone.hand(message(2, 1, 3, Body::TimeoutNow));
    assert_eq!((lone.role(1), lone.term(1)), (Role::Candidate, 4));
    assert!(calls.iter().all(|call| matches!(&call.body, Body::RequestVote(vote) if vote.is_transfer)));
    assert!(calls.iter().all(|call| granted(call).is_none()) && calls.len() == 2);
}
