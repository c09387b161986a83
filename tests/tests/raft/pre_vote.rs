//! Pre-vote in combination with terms, logs and broken links: the situations in which clusters of
//! other implementations locked up.

use coracle_core::raft::{Node, Role, Term};
use coracle_tests::scenario::forge::{
    disk_in_term, disk_of, granted, heartbeat, request_pre_vote, request_vote, vote_answer,
};
use coracle_tests::scenario::{Cluster, Lone, cluster, cluster_with};

/// The nodes with the better log have the older term, so all reject one another until a rejection
/// reports the newer term.
///
/// Covers: openraft#1796; etcd TestPreVoteMigrationCanCompleteElection
#[test]
fn a_long_log_with_a_low_term_wins_against_a_short_log_with_a_high_term() {
    for seed in 0..20 {
        let disks = vec![
            disk_in_term(3, &[1, 3, 3]),
            disk_in_term(3, &[1, 3, 3]),
            disk_in_term(8, &[1]),
            disk_in_term(8, &[1]),
        ];
        let mut cluster: Cluster<Node> = Cluster::start(disks, seed, |config| config);
        cluster.elapse_ms(6000);
        let leader = cluster.leader().expect("a leader");
        assert!(leader <= 2 && cluster.term(leader) > 8, "seed {seed}");
        assert!((1..=4).all(|node| cluster.commit(node) >= 4));
    }
}

/// A rejection must report the voter's newer term, or the candidate learns nothing from it.
///
/// Covers: openraft#1796, d6a6d562; etcd#8501
#[test]
fn a_refused_pre_vote_hands_the_newer_term_back() {
    let mut voter = Lone::new(3, disk_in_term(8, &[1]));
    let answers = voter.hand(request_pre_vote(2, 1, 3, (5, 3)));
    assert_eq!((granted(&answers[0]), answers[0].term.0), (Some(false), 8));
    // The candidate adopts that term.
    let mut candidate = Lone::new(3, disk_of(&[3]));
    let calls = candidate.time_out();
    let mut refusal = vote_answer(&calls[0], false);
    refusal.term = Term(8);
    candidate.hand(refusal);
    assert_eq!((candidate.role(1), candidate.term(1)), (Role::Follower, 8));
}

/// A node that missed some elections is alive and can vote: its old term must not keep the others
/// from an election.
///
/// Covers: etcd TestNodeWithSmallerTermCanCompleteElection
#[test]
fn nodes_of_a_lower_term_do_not_stop_an_election() {
    for seed in 0..20 {
        let disks = vec![disk_in_term(9, &[1, 1]), disk_of(&[1]), disk_of(&[1])];
        let mut cluster: Cluster<Node> = Cluster::start(disks, seed, |config| config);
        cluster.crash(3);
        cluster.elapse_ms(3000);
        assert_eq!(cluster.leader(), Some(1), "seed {seed}");
    }
}

/// A pre-candidate that still counted its dead leader as alive would reject the other node forever.
///
/// Covers: etcd TestPreVoteWithCheckQuorum; etcd#8334, raft-rs#84, hashicorp/raft#606
#[test]
fn two_nodes_that_lost_their_leader_elect_one_of_them() {
    for seed in 0..20 {
        let mut cluster: Cluster<Node> = Cluster::start(vec![disk_of(&[]); 3], seed, |config| config);
        cluster.elect(1);
        cluster.crash(1);
        cluster.elapse_ms(2500);
        assert!(cluster.leader().is_some(), "seed {seed}");
    }
}

/// Votes and pre-votes that arrive after the election was won must not start another one.
///
/// Covers: openraft 511f33c7, 4490c678; etcd TestPreCampaignWhileLeader
#[test]
fn late_votes_after_winning_do_not_make_a_leader_campaign() {
    let mut lone = Lone::new(5, disk_of(&[]));
    let questions = lone.time_out();
    lone.hand(vote_answer(&questions[0], true));
    let calls = lone.hand(vote_answer(&questions[1], true));
    lone.hand(vote_answer(&calls[0], true));
    lone.hand(vote_answer(&calls[1], true));
    assert_eq!((lone.role(1), lone.term(1)), (Role::Leader, 1));
    for late in [&questions[2], &questions[3], &calls[2], &calls[3]] {
        lone.hand(vote_answer(late, true));
        assert_eq!((lone.role(1), lone.term(1)), (Role::Leader, 1));
    }
}

/// A pre-vote is granted neither by silence nor over a link that works in one direction only.
///
/// Covers: openraft pre-vote "unreachable is no grant"; one-way isolation
#[test]
fn a_node_that_can_only_send_wins_no_election_and_disturbs_no_node() {
    let mut cluster = cluster(3);
    cluster.elect(1);
    cluster.cut(1, 3);
    cluster.cut(2, 3);
    cluster.elapse_ms(5000);
    assert_eq!((cluster.leader(), cluster.term(1), cluster.term(3)), (Some(1), 1, 1));
    assert_eq!(cluster.role(3), Role::PreCandidate);
}

/// The old leader reaches only one node, the bridge, which reaches all others. Its heartbeats must
/// not keep the bridge from voting forever.
///
/// Covers: openraft#2080, #2089; Cloudflare's outage of November 2020; cockroach PR 104042
#[test]
fn a_bridge_to_a_cut_off_leader_does_not_keep_the_others_from_electing() {
    for is_busy in [false, true] {
        let mut cluster = cluster(5);
        cluster.elect(1);
        // Node 2 is the bridge between node 1 and the rest. With node 5 down, no node is elected
        // without it.
        (3..=5).for_each(|node| cluster.part(1, node));
        cluster.crash(5);
        for number in 0..30 {
            if is_busy {
                // Replication to the bridge continues as well.
                cluster.propose(1, &format!("k{number}"));
            }
            cluster.elapse_ms(100);
        }
        let leader = cluster.leader().expect("a leader");
        assert_ne!(leader, 1);
        cluster.propose(leader, "chips");
        cluster.elapse_ms(200);
        assert!((2..=4).all(|node| cluster.texts(node).last().is_some_and(|text| text == "chips")));
    }
}

/// In a row of three nodes, both ends can follow the node in the middle.
///
/// Covers: "pre-vote alone is not liveness", decentralizedthoughts 2020-12-12
#[test]
fn a_row_of_three_nodes_keeps_one_leader() {
    let mut cluster = cluster(3);
    cluster.elect(1);
    cluster.part(1, 3);
    cluster.elapse_ms(3000);
    let leader = cluster.leader().expect("a leader");
    let term = cluster.term(leader);
    cluster.elapse_ms(5000);
    assert_eq!((cluster.leader(), cluster.term(leader)), (Some(leader), term), "no ping-pong");
}

/// An election timeout changes only when it is reset; drawing it again at each check would shorten
/// it.
///
/// Covers: etcd#4887
#[test]
fn looking_at_the_time_does_not_move_the_timer() {
    let mut lone = Lone::new(3, disk_of(&[]));
    lone.hand(heartbeat(2, 1, 1, 0));
    let deadline = lone.node(1).deadline();
    for _ in 0..20 {
        lone.elapse_ms(10);
        lone.hand(heartbeat(3, 1, 0, 0));
        assert_eq!(lone.node(1).deadline(), deadline);
    }
}

/// Nodes that are otherwise identical elect a leader, because each has a different seed.
///
/// Covers: etcd#15784, goraft#44
#[test]
fn nodes_that_start_together_elect_a_leader() {
    for seed in 0..50 {
        let mut cluster: Cluster<Node> = Cluster::start(vec![disk_of(&[]); 3], seed, |config| config);
        cluster.elapse_ms(2500);
        assert!(cluster.leader().is_some(), "seed {seed}");
    }
}

/// A voter of a lower term grants a pre-vote under its own term. Dropping that as an old message
/// would make the candidate wait until the voter happens to campaign itself.
///
/// Covers: etcd TestNodeWithSmallerTermCanCompleteElection
#[test]
fn a_yes_to_a_pre_vote_counts_whatever_the_voters_term() {
    let mut cluster = cluster_with(vec![disk_in_term(5, &[1]), disk_of(&[1]), disk_of(&[1])]);
    cluster.crash(3);
    cluster.campaign(1);
    cluster.settle();
    assert_eq!((cluster.role(1), cluster.term(1)), (Role::Leader, 6));
}

/// A pre-candidate that votes for another node is bound by its vote. Otherwise, late grants of its
/// earlier pre-vote would make it a candidate in the next term, against the node that it has just
/// helped to win.
#[test]
fn a_pre_candidate_that_gives_its_vote_does_not_stand_on_late_yeses() {
    let mut lone = Lone::new(3, disk_in_term(1, &[]));
    let questions = lone.time_out();
    assert_eq!(lone.role(1), Role::PreCandidate);
    let answers = lone.hand(request_vote(2, 1, 1, (0, 0)));
    assert_eq!(answers.iter().find_map(granted), Some(true));
    for question in &questions {
        assert_eq!(lone.hand(vote_answer(question, true)), []);
    }
    assert_eq!((lone.role(1), lone.term(1), lone.voted_for(1)), (Role::Follower, 1, Some(2)));
    // It waits for that node, and campaigns again if the election fails.
    lone.elapse_ms(700);
    assert_eq!(lone.role(1), Role::PreCandidate);
}
