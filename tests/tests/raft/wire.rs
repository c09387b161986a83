//! Invalid messages, which no correct peer sends: each is dropped and reported, changes no state,
//! and does not stop the node.

use coracle_core::raft::{Body, Checksum, Heartbeat, LogIndex, Node, ReadRound, Role, Term};
use coracle_tests::scenario::forge::{append, disk_of, heartbeat, message, request_vote};
use coracle_tests::scenario::{Cluster, cluster, cluster_with};

fn reports(cluster: &Cluster<Node>, node: u64, what: &str) -> usize {
    let is_it = |line: &&String| line.starts_with(&node.to_string()) && line.contains(what);
    cluster.trace().iter().filter(is_it).count()
}

/// One message with a term at the end of its range would end all elections, because no term can
/// follow it.
#[test]
fn a_term_that_no_election_could_have_reached_is_not_believed() {
    let mut cluster = cluster(3);
    cluster.elect(1);
    let term = cluster.term(2);
    for absurd in [term + Term::JUMP_MAX + 1, Term::MAX.0, u64::MAX - 1, u64::MAX] {
        for body in [Body::NewerTerm, request_vote(3, 2, 1, (1, 1)).body, heartbeat(3, 2, 1, 0).body] {
            cluster.deliver(message(3, 2, absurd, body));
        }
    }
    cluster.settle();
    assert_eq!(cluster.term(2), term);
    assert_eq!(reports(&cluster, 2, "its term is higher than any election could have reached"), 12);
    assert_eq!(cluster.role(1), Role::Leader);
}

/// A second leader of a term, from two nodes under one id or from a faulty node, must not stop a
/// healthy node.
#[test]
fn a_second_leader_of_a_term_is_not_followed() {
    let mut cluster = cluster(3);
    cluster.elect(1);
    let term = cluster.term(2);
    for to in [1, 2] {
        cluster.deliver(heartbeat(3, to, term, 0));
        assert_eq!(reports(&cluster, to, "it claims to lead a term that another node leads"), 1);
    }
    assert_eq!(cluster.node(2).leader().map(|leader| leader.0), Some(1));
}

#[test]
fn committed_entries_are_not_removed_even_by_a_leader() {
    let mut cluster = cluster_with(vec![disk_of(&[1, 1, 1]); 2]);
    cluster.elect(1);
    cluster.settle();
    let (before, term) = (cluster.log_terms(2), cluster.term(2));
    assert_eq!(cluster.commit(2), 4);
    let other = append(1, 2, term, &[1, 1, term], 2, 4);
    cluster.deliver(other);
    assert_eq!(cluster.log_terms(2), before);
    assert_eq!(reports(&cluster, 2, "it would remove committed entries"), 1);
}

/// A heartbeat, or a call without entries, commits only entries that equal the leader's by their
/// checksum as well.
#[test]
fn another_history_is_not_committed_by_a_message_without_entries() {
    let mut cluster = cluster_with(vec![disk_of(&[1, 1, 1]); 2]);
    let beat = |checksum: u32| {
        let commit_checksum = Some(Checksum(checksum));
        let body =
            Heartbeat { leader_commit: LogIndex(3), commit_checksum, round: ReadRound(0), elapsed: None };
        message(1, 2, 2, Body::Heartbeat(body))
    };
    cluster.deliver(beat(0xbad));
    assert_eq!(cluster.commit(2), 0);
    let mut probe = append(1, 2, 2, &[1, 1, 1], 3, 3);
    let Body::AppendEntries(call) = &mut probe.body else { panic!("it is a call") };
    call.prev_log_checksum = Some(Checksum(0xbad));
    cluster.deliver(probe);
    assert_eq!(cluster.commit(2), 0);
    assert_eq!(reports(&cluster, 2, "its entries continue another history"), 2);
    let right = cluster.node(2).log().last().checksum;
    // The leader believes that this node holds index 9, which it lacks, so the leader heard of
    // another node under this id: everything in this log may belong to another history.
    let commit_checksum = Some(Checksum(7));
    let body = Heartbeat { leader_commit: LogIndex(9), commit_checksum, round: ReadRound(0), elapsed: None };
    cluster.deliver(message(1, 2, 2, Body::Heartbeat(body)));
    assert_eq!(cluster.commit(2), 0);
    cluster.deliver(beat(right.0));
    assert_eq!(cluster.commit(2), 3);
}
