//! Late wake-ups: nodes that wake long after their deadline, because the process was stopped or the
//! machine was busy. A node must not count its own sleep as silence of the others, but a node that
//! is always late has to act in the end.

use coracle_core::raft::Role;
use coracle_tests::scenario::forge::{accepted, disk_of};
use coracle_tests::scenario::{Lone, cluster};

/// A machine that stops for five seconds stops all nodes of an embedded cluster. Whichever node
/// wakes first, they keep their leader, and no client waits for an election.
#[test]
fn nodes_that_oversleep_together_keep_their_leader() {
    for leader in 1..=3 {
        let mut cluster = cluster(3);
        cluster.elect(leader);
        for nap in 1..=5 {
            cluster.oversleep_ms(5000);
            cluster.settle();
            let request = format!("nap{nap}");
            cluster.propose(leader, &request);
            cluster.elapse_ms(1000);
            assert_eq!((cluster.leader(), cluster.term(leader)), (Some(leader), 1), "nap {nap}");
            assert!((1..=3).all(|node| cluster.texts(node).last() == Some(&request)));
        }
        let is_campaign = |line: &&String| line.contains("started a pre-vote");
        assert_eq!(cluster.trace().iter().filter(is_campaign).count(), 1, "the first election's");
    }
}

/// Only the sleep is forgiven: a leader that crashed before is replaced once the others have been
/// awake for an election timeout.
#[test]
fn a_leader_that_is_gone_is_replaced_although_the_others_overslept() {
    let mut cluster = cluster(3);
    cluster.elect(1);
    cluster.crash(1);
    cluster.oversleep_ms(5000);
    cluster.settle();
    assert_eq!(cluster.leader(), None, "awake for no time at all");
    cluster.elapse_ms(2000);
    assert!(cluster.leader().is_some_and(|leader| leader != 1));
}

/// On a machine that is always late, every silence comes with a sleep, so a node that forgave each
/// would never campaign.
#[test]
fn a_node_that_is_always_late_campaigns_in_the_end() {
    let mut lone = Lone::new(3, disk_of(&[]));
    lone.oversleep_ms(5000);
    lone.settle();
    assert_eq!(lone.role(1), Role::Follower, "the first time is forgiven");
    lone.oversleep_ms(5000);
    lone.settle();
    assert_eq!(lone.role(1), Role::PreCandidate);
}

/// The same for a leader that receives no answers: it steps down, late or not.
#[test]
fn a_leader_that_is_always_late_gives_up_in_the_end() {
    let mut lone = Lone::new(3, disk_of(&[]));
    lone.lead();
    lone.hand(accepted(2, 1, 1, 1));
    lone.oversleep_ms(5000);
    lone.settle();
    assert_eq!(lone.role(1), Role::Leader, "the first time is forgiven");
    lone.oversleep_ms(5000);
    lone.settle();
    assert_ne!(lone.role(1), Role::Leader);
}
