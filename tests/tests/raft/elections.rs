//! Elections beyond the paper's text: competing candidates, late votes, and vote requests to every
//! role.

use coracle_core::raft::{ClockDrift, Config, NodeId, Restored, Role};
use coracle_tests::scenario::forge::{
    append, disk_in_term, disk_of, granted, heartbeat, request_pre_vote, request_vote, vote_answer,
};
use coracle_tests::scenario::{Lone, cluster, cluster_with};

/// An election needs a majority of all voters, however many are down.
///
/// Covers: etcd TestLeaderElection, TestLeaderElectionPreVote, TestPreCampaignWhileLeader
#[test]
fn a_majority_that_is_up_elects_and_a_minority_does_not() {
    for (size, down) in [(1, 0), (2, 0), (2, 1), (3, 1), (3, 2), (4, 1), (4, 2), (5, 2), (5, 3)] {
        let mut cluster = cluster(size);
        for node in 0..down {
            cluster.crash(size - node);
        }
        cluster.elapse_ms(3000);
        let has_majority = 2 * (size - down) > size;
        assert_eq!(cluster.leader().is_some(), has_majority, "{down} of {size} are down");
        let highest_term = cluster.term(1);
        assert!(has_majority || highest_term == 0, "without a majority no term begins");
    }
}

/// Every node can lead after every other: no term leaves state behind that prevents the next
/// election.
///
/// Covers: etcd TestLeaderCycle, TestLeaderCyclePreVote
#[test]
fn each_node_can_lead_in_turn() {
    let mut cluster = cluster(3);
    for round in 0..2 {
        for node in 1..=3 {
            cluster.elect(node);
            assert_eq!((cluster.leader(), cluster.term(node)), (Some(node), 3 * round + node));
        }
    }
}

/// A single node waits only for its disk.
///
/// Covers: etcd TestSingleNodeCandidate, TestSingleNodePreCandidate
#[test]
fn a_single_node_leads_as_soon_as_its_own_vote_is_durable() {
    let mut cluster = cluster(1);
    cluster.hold_disk(1);
    cluster.campaign(1);
    assert_eq!(cluster.role(1), Role::Candidate);
    cluster.release_disk(1);
    assert_eq!(cluster.role(1), Role::Leader);
}

/// A single voter campaigns at once: no other node can lead, so waiting for a leader would only
/// delay the start. It waits for a lease all the same, because the lease may have been given to a
/// leader that a membership change has removed since.
#[test]
fn a_single_node_does_not_wait_for_a_leader() {
    let mut alone = cluster(1);
    alone.elapse_ms(1);
    assert_eq!(alone.role(1), Role::Leader);
    alone.crash(1);
    alone.restart(1);
    alone.elapse_ms(1);
    assert_eq!((alone.role(1), alone.term(1)), (Role::Leader, 2));

    let with_lease = |config| Config { read_lease: Some(ClockDrift { per_mille: 10 }), ..config };
    let mut alone = Lone::tuned(1, Restored::default(), with_lease);
    alone.elapse_ms(1);
    assert_eq!(alone.role(1), Role::Follower);
    alone.elapse_ms(1000);
    assert_eq!(alone.role(1), Role::Leader);

    let mut one_of_two = cluster(2);
    one_of_two.elapse_ms(1);
    assert_eq!(one_of_two.role(1), Role::Follower);
}

/// A leader overwrites uncommitted entries of a later term, which its majority never saw.
///
/// Covers: etcd TestLeaderElectionOverwriteNewerLogs, TestLeaderElectionOverwriteNewerLogsPreVote
#[test]
fn a_winner_may_overwrite_uncommitted_entries_of_a_later_term() {
    let disks = vec![
        disk_of(&[1]),
        disk_of(&[1]),
        disk_in_term(2, &[2]),
        // These two voted in term 2, and hold none of its entries.
        disk_in_term(2, &[]),
        disk_in_term(2, &[]),
    ];
    let mut cluster = cluster_with(disks);
    cluster.elect(1);
    cluster.elapse_ms(200);
    for node in 1..=5 {
        assert_eq!((cluster.log_terms(node), cluster.commit(node)), (vec![1, 3], 2));
    }
}

/// A node that hears no leader grants a vote of a higher term, whatever its role.
///
/// Covers: etcd TestVoteFromAnyState
#[test]
fn a_vote_of_a_higher_term_is_granted_by_every_role_without_a_leader() {
    for role in [Role::Follower, Role::PreCandidate, Role::Candidate] {
        let mut lone = lone_in(role);
        let answers = lone.hand(request_vote(2, 1, 9, (0, 0)));
        assert_eq!(answers.iter().find_map(granted), Some(true), "{role}");
        assert_eq!((lone.role(1), lone.term(1), lone.voted_for(1)), (Role::Follower, 9, Some(2)));
    }
}

/// A pre-vote request changes no state of the voter; otherwise the request would disrupt the
/// cluster.
///
/// Covers: etcd TestPreVoteFromAnyState, TestRecvMsgPreVote; openraft
/// handle_pre_vote_req_granted_without_mutation
#[test]
fn a_pre_vote_is_granted_by_every_role_without_a_leader_and_changes_nothing() {
    for role in [Role::Follower, Role::PreCandidate, Role::Candidate] {
        let mut lone = lone_in(role);
        let seen = |lone: &Lone| (lone.role(1), lone.term(1), lone.voted_for(1), lone.node(1).deadline());
        let before = seen(&lone);
        let answers = lone.hand(request_pre_vote(2, 1, 5, (0, 0)));
        assert_eq!(answers.iter().find_map(granted), Some(true), "{role}");
        assert_eq!(seen(&lone), before, "{role}");
    }
}

/// A node that hears a leader, or leads, ignores vote requests, rejects pre-vote requests, and
/// changes no state.
///
/// Covers: etcd TestVoteFromAnyState, TestPreVoteFromAnyState with check-quorum; openraft
/// "heartbeat vetoes votes"
#[test]
fn no_vote_is_given_away_while_a_leader_is_heard() {
    let mut leader = lone_in(Role::Leader);
    let mut follower = Lone::new(3, Restored::default());
    follower.hand(heartbeat(3, 1, 1, 0));
    for lone in [&mut leader, &mut follower] {
        let before = (lone.role(1), lone.term(1), lone.voted_for(1));
        let answers = lone.hand(request_vote(2, 1, 9, (9, 9)));
        assert_eq!(answers.iter().find_map(granted), None, "a call of a stranger is not even answered");
        let answers = lone.hand(request_pre_vote(2, 1, 9, (9, 9)));
        assert_eq!(answers.iter().find_map(granted), Some(false));
        assert_eq!((lone.role(1), lone.term(1), lone.voted_for(1)), before);
    }
}

/// The whole decision table of a vote: the candidate's log and the voter's earlier vote, for
/// followers and pre-candidates.
///
/// Covers: etcd TestRecvMsgVote, TestRecvMsgPreVote
#[test]
fn a_vote_depends_on_the_log_and_on_the_earlier_vote_and_on_nothing_else() {
    // The voter's log ends with index 2 of term 2; the voter is in term 3.
    let logs =
        [((0, 0), false), ((3, 1), false), ((1, 2), false), ((2, 2), true), ((3, 2), true), ((1, 3), true)];
    for (last, log_is_good) in logs {
        for (voted_for, vote_is_free) in [(None, true), (Some(2), true), (Some(3), false), (Some(1), false)] {
            let mut disk = disk_in_term(3, &[2, 2]);
            disk.hard_state.voted_for = voted_for.map(NodeId);
            for is_pre_candidate in [false, true] {
                let mut lone = Lone::new(3, disk.clone());
                if is_pre_candidate {
                    lone.time_out();
                }
                let answers = lone.hand(request_vote(2, 1, 3, last));
                let is_granted = log_is_good && vote_is_free;
                assert_eq!(granted(&answers[0]), Some(is_granted), "{last:?} {voted_for:?}");
                // A pre-vote is about the next term, in which the voter has not voted yet.
                let answers = lone.hand(request_pre_vote(2, 1, 3, last));
                assert_eq!(granted(&answers[0]), Some(log_is_good), "{last:?} {voted_for:?}");
            }
        }
    }
}

/// A pre-vote that a majority rejected is over; the node waits like any follower.
///
/// Covers: etcd TestLeaderElectionPreVote, prevote
#[test]
fn a_pre_vote_that_a_majority_refused_is_lost() {
    let mut lone = Lone::new(5, Restored::default());
    let calls = lone.time_out();
    for (call, role) in calls.iter().zip([Role::PreCandidate, Role::PreCandidate, Role::Follower]) {
        lone.hand(vote_answer(call, false));
        assert_eq!((lone.role(1), lone.term(1)), (role, 0));
    }
}

/// A vote that arrives twice counts once.
///
/// Covers: etcd-quorum vote tables; openraft "one ack is not two"
#[test]
fn a_vote_that_arrives_twice_counts_once() {
    let mut lone = Lone::new(5, Restored::default());
    let calls = lone.time_out();
    for _ in 0..3 {
        lone.hand(vote_answer(&calls[0], true));
    }
    assert_eq!(lone.role(1), Role::PreCandidate);
    let calls = lone.hand(vote_answer(&calls[1], true));
    assert_eq!(lone.role(1), Role::Candidate);
    for _ in 0..3 {
        lone.hand(vote_answer(&calls[0], true));
    }
    assert_eq!(lone.role(1), Role::Candidate);
    lone.hand(vote_answer(&calls[1], true));
    assert_eq!(lone.role(1), Role::Leader);
}

/// An answer to an earlier campaign must not count for a later one, because the voter may have
/// voted for another candidate since.
///
/// Covers: etcd TestCandidateDeliversPreCandidateSelfVoteAfterBecomingCandidate
#[test]
fn late_answers_to_an_earlier_campaign_count_for_nothing() {
    let mut lone = Lone::new(5, Restored::default());
    let first = lone.time_out();
    let second = lone.time_out();
    lone.hand(vote_answer(&first[0], true));
    lone.hand(vote_answer(&first[1], true));
    assert_eq!(lone.role(1), Role::PreCandidate, "yeses to the first question");
    lone.hand(vote_answer(&second[0], true));
    lone.hand(vote_answer(&second[1], true));
    assert_eq!(lone.role(1), Role::Candidate);
    lone.hand(vote_answer(&second[2], true));
    lone.hand(vote_answer(&second[3], true));
    assert_eq!(lone.role(1), Role::Candidate, "yeses to the question are no votes");
}

/// Others have elected a leader of the same term, so the candidate's own vote must not elect a
/// second one when it becomes durable.
///
/// Covers: etcd TestCandidateSelfVoteAfterLostElection,
/// TestCandidateSelfVoteAfterLostElectionPreVote
#[test]
fn a_candidates_own_vote_that_is_durable_too_late_does_not_elect_it() {
    let mut lone = Lone::new(2, Restored::default());
    lone.hold_disk(1);
    let calls = lone.time_out();
    lone.hand(vote_answer(&calls[0], true));
    assert_eq!(lone.role(1), Role::Candidate);
    lone.hand(append(2, 1, 1, &[], 0, 0));
    lone.release_disk(1);
    assert_eq!((lone.role(1), lone.term(1)), (Role::Follower, 1));
}

/// A candidate with a later term but a shorter log forces an election, and must not win it.
///
/// Covers: etcd TestDuelingCandidates
#[test]
fn a_rival_with_a_shorter_log_cannot_win() {
    let mut cluster = cluster(3);
    // Nodes 1 and 2 hold an entry that node 3 lacks.
    cluster.elect(1);
    cluster.isolate(3);
    cluster.propose(1, "chips");
    cluster.settle();
    cluster.crash(1);
    // Node 3 becomes a candidate by a forged pre-vote, as a voter without the entry would grant it.
    cluster.heal();
    cluster.intercept(3, 1);
    cluster.intercept(3, 2);
    cluster.campaign(3);
    let calls = cluster.intercepted();
    cluster.deliver(vote_answer(&calls[0], true));
    assert_eq!(cluster.role(3), Role::Candidate);
    cluster.heal();
    cluster.restart(1);
    cluster.elapse_ms(2000);
    let leader = cluster.leader().expect("a leader");
    assert_ne!(leader, 3);
    assert!(
        (1..=3).all(|node| cluster.term(node) == cluster.term(leader) && cluster.texts(node) == ["chips"])
    );
}

/// A node that cannot hear the leader stays a pre-candidate for as long as that lasts, and raises
/// no term.
///
/// Covers: etcd TestDuelingPreCandidates
#[test]
fn a_pre_candidate_that_loses_follows_in_the_same_term() {
    let mut cluster = cluster(3);
    cluster.part(1, 3);
    cluster.elect(1);
    cluster.elapse_ms(700);
    assert_eq!((cluster.role(1), cluster.role(3)), (Role::Leader, Role::PreCandidate));
    cluster.heal();
    cluster.elapse_ms(400);
    assert_eq!((cluster.leader(), cluster.term(1)), (Some(1), 1));
    assert_eq!((cluster.role(3), cluster.term(3)), (Role::Follower, 1));
}

/// A campaign ends with the first message of the elected leader, and the candidate's log becomes
/// the leader's.
///
/// Covers: etcd TestCandidateConcede, TestStateTransition
#[test]
fn a_campaign_ends_at_the_first_sign_of_the_leader() {
    let mut cluster = cluster(3);
    cluster.isolate(1);
    cluster.campaign(1);
    cluster.elect(3);
    cluster.propose(3, "chips");
    cluster.settle();
    cluster.heal();
    cluster.elapse_ms(100);
    assert_eq!((cluster.role(1), cluster.term(1)), (Role::Follower, 1));
    assert_eq!(cluster.texts(1), ["chips"]);
}

/// A split vote costs one more round of voting.
///
/// Covers: etcd TestPreVoteWithSplitVote
#[test]
fn after_a_split_vote_the_next_round_elects() {
    let mut cluster = cluster(3);
    cluster.crash(1);
    // Each grants the other's pre-vote before either is a candidate, so both become candidates in
    // term 1 and vote for themselves.
    cluster.intercept(2, 3);
    cluster.intercept(3, 2);
    cluster.campaign(2);
    cluster.campaign(3);
    let calls = cluster.intercepted();
    for call in calls.iter().filter(|call| call.to != NodeId(1)) {
        cluster.deliver(vote_answer(call, true));
    }
    cluster.settle();
    assert_eq!((cluster.role(2), cluster.role(3)), (Role::Candidate, Role::Candidate));
    assert_eq!((cluster.term(2), cluster.term(3)), (1, 1));
    cluster.heal();
    cluster.elapse_ms(2000);
    assert!(cluster.leader().is_some_and(|leader| cluster.term(leader) >= 2));
}

fn lone_in(role: Role) -> Lone {
    let mut lone = Lone::new(3, Restored::default());
    match role {
        Role::Follower => {}
        Role::PreCandidate => drop(lone.time_out()),
        Role::Candidate => drop(lone.stand()),
        Role::Leader => drop(lone.lead()),
    }
    lone
}
