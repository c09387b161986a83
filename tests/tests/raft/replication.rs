//! Replication and commit between whole nodes: lost, duplicated and reordered messages do no harm.

use coracle_core::raft::{Body, Config, Message, Node, Restored};
use coracle_core::{Answer, RequestRefusal};
use coracle_tests::scenario::forge::{accepted, append, disk_in_term, disk_of, heartbeat};
use coracle_tests::scenario::{Cluster, Lone, cluster, cluster_with};
use proptest::prelude::*;

/// Proposals are committed on every node in the same order.
///
/// Covers: etcd TestLogReplication, TestSingleNodeCommit
#[test]
fn proposals_reach_every_node_in_one_order() {
    for size in [1, 2, 3, 5] {
        let mut cluster = cluster(size);
        cluster.elect(1);
        cluster.propose_all(1, &["chips", "nuts"]);
        cluster.settle();
        // With two nodes that hear each other, the leader cannot be replaced.
        if size > 2 {
            cluster.elect(2);
        }
        cluster.propose(cluster.leader().unwrap(), "figs");
        cluster.settle();
        for node in 1..=size {
            assert_eq!(cluster.texts(node), ["chips", "nuts", "figs"], "node {node} of {size}");
        }
    }
}

/// A proposal without a majority waits, and one at a node that is no leader is rejected.
///
/// Covers: etcd TestProposal, TestProposalByProxy (forwarding is the proxy's business here)
#[test]
fn a_proposal_needs_a_leader_and_a_majority() {
    let mut cluster = cluster(3);
    let request = cluster.propose(1, "chips");
    assert!(matches!(
        cluster.answer(request),
        Some(Answer::Refused(RequestRefusal::NotLeader { leader: None, .. }))
    ));
    cluster.elect(1);
    let request = cluster.propose(2, "chips");
    let Some(Answer::Refused(RequestRefusal::NotLeader { leader: Some(leader), .. })) =
        cluster.answer(request)
    else {
        panic!("a follower knows who leads");
    };
    assert_eq!(leader.0, 1);
    cluster.crash(2);
    cluster.crash(3);
    cluster.propose(1, "nuts");
    cluster.elapse_ms(400);
    assert_eq!((cluster.commit(1), cluster.texts(1).len()), (1, 0));
}

/// A heartbeat moves the commit index forward only, and not past the end of the log.
///
/// Covers: etcd TestHandleHeartbeat; etcd#16220
#[test]
fn a_heartbeat_moves_the_commit_index_forward_and_not_past_the_log() {
    let mut lone = Lone::new(3, disk_of(&[1, 1, 1]));
    for (told, commit) in [(2, 2), (1, 2), (3, 3), (9, 3)] {
        lone.hand(heartbeat(2, 1, 2, told));
        assert_eq!(lone.commit(1), commit);
    }
}

/// A heartbeat's commit index is limited to what the follower is known to hold. Otherwise a
/// follower with a longer, different log would take its own entries for committed ones.
///
/// Covers: etcd TestBcastBeat; etcd raft#138, raft#139, cockroach#122690
#[test]
fn a_heartbeat_commits_no_more_than_the_follower_is_known_to_hold() {
    let mut lone = Lone::new(3, disk_of(&[1, 1, 1]));
    lone.lead();
    lone.hand(accepted(2, 1, 2, 4));
    assert_eq!(lone.commit(1), 4);
    lone.elapse_ms(50);
    let beats: Vec<_> = lone.sent().into_iter().filter_map(|beat| told_commit(&beat)).collect();
    assert_eq!(beats, [(2, 4), (3, 0)]);
}

fn told_commit(message: &Message) -> Option<(u64, u64)> {
    match &message.body {
        Body::Heartbeat(beat) => Some((message.to.0, beat.leader_commit.0)),
        _ => None,
    }
}

/// The same between whole nodes: a follower with a divergent tail learns of a commit before its log
/// is repaired.
#[test]
fn a_divergent_tail_is_never_taken_for_committed() {
    let mut cluster =
        cluster_with(vec![disk_in_term(2, &[1]), disk_in_term(2, &[1]), disk_of(&[1, 2, 2, 2])]);
    cluster.part(1, 3);
    cluster.part(2, 3);
    cluster.elect(1);
    cluster.elect(1);
    cluster.propose_all(1, &["chips", "nuts"]);
    cluster.settle();
    // Only heartbeats reach node 3 at first.
    cluster.heal();
    cluster.intercept(1, 3);
    cluster.elapse_ms(60);
    for message in cluster.intercepted() {
        if told_commit(&message).is_some() {
            cluster.deliver(message);
        }
    }
    assert!(cluster.commit(3) <= 1);
    cluster.heal();
    cluster.elapse_ms(200);
    assert_eq!(cluster.texts(3), ["1@1", "chips", "nuts"]);
}

/// Followers apply a commit at once, so that a client that reads from one does not wait for a
/// heartbeat.
///
/// Covers: lagging_commit; etcd raft#138
#[test]
fn followers_learn_of_a_commit_without_waiting_for_a_heartbeat() {
    let mut cluster = cluster(3);
    cluster.elect(1);
    cluster.propose(1, "chips");
    cluster.settle();
    assert!((1..=3).all(|node| cluster.texts(node) == ["chips"]));
}

/// Duplicated, late and reordered calls do not damage the log: an older call must not cut a tail
/// that agrees with it.
///
/// Covers: etcd TestOldMessages, TestLogReplicationWithReorderedMessage; async-raft 9540c904
#[test]
fn doubled_and_overtaken_calls_do_not_harm_a_log() {
    let full = [1, 1, 2, 2, 2];
    let call = |prev: usize, last: usize| append(2, 1, 2, &full[..last], prev as u64, 0);
    let calls = [call(0, 2), call(2, 4), call(4, 5), call(0, 5), call(3, 3), call(0, 0), call(1, 3)];
    let mut rng = fastrand::Rng::with_seed(5);
    for _ in 0..300 {
        let mut lone = Lone::new(3, disk_in_term(2, &[1, 1]));
        let mut longest = 2;
        for _ in 0..12 {
            lone.hand(calls[rng.usize(..calls.len())].clone());
            let terms = lone.log_terms(1);
            assert!(terms.len() >= longest && terms[..] == full[..terms.len()], "{terms:?}");
            longest = terms.len();
        }
    }
}

/// A follower to which all calls were lost for a while catches up, however small the window is.
///
/// Covers: replicate_pause; etcd#14633; hashicorp/raft#612; openraft#1723
#[test]
fn a_window_full_of_lost_calls_recovers() {
    let disks = vec![Restored::default(); 3];
    let mut cluster: Cluster<Node> = Cluster::start(disks, 0, |config| Config {
        in_flight_messages_max: 2,
        append_bytes_max: 1,
        ..config
    });
    cluster.elect(1);
    cluster.cut(1, 3);
    for number in 0..10 {
        cluster.propose(1, &format!("k{number}"));
        cluster.settle();
    }
    cluster.heal();
    cluster.elapse_ms(100);
    assert_eq!((cluster.texts(3).len(), cluster.leader(), cluster.term(3)), (10, Some(1), 1));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    /// After any sequence of acknowledgements, in any order and with duplicates, the commit index
    /// equals the result of counting holders index by index.
    ///
    /// Covers: etcd quorum quickcheck; openraft#1802
    #[test]
    fn the_commit_index_is_what_counting_gives(
        peers in 0_u64..=8,
        acks in prop::collection::vec((0_u64..8, 1_u64..=6), 0..40),
    ) {
        let mut lone = Lone::new(peers + 1, disk_of(&[1, 1]));
        lone.lead();
        lone.propose_all(1, &["chips", "nuts", "figs"]);
        lone.sent();
        // Own log: two old entries, the first of the new term, and three proposals.
        let mut held = vec![6_u64];
        held.resize(usize::try_from(peers).unwrap() + 1, 0);
        for (peer, index) in acks.into_iter().filter(|(peer, _)| *peer < peers) {
            lone.hand(accepted(peer + 2, 1, 2, index));
            let position = usize::try_from(peer).unwrap() + 1;
            held[position] = held[position].max(index);
            let is_on_majority =
                |index: &u64| 2 * held.iter().filter(|&&holds| holds >= *index).count() > held.len();
            let expected = (3..=6).rev().find(is_on_majority).unwrap_or(0);
            prop_assert_eq!(lone.commit(1), expected, "{:?}", held);
        }
    }
}
