//! Terms and elections, as §5.1, §5.2 and §5.4.1 of the paper state them.

use std::time::Duration;

use coracle_core::raft::{Body, Message, Node, NodeId, Restored, Role};
use coracle_tests::scenario::forge::{
    accepted, append, disk_in_term, disk_of, granted, heartbeat, heartbeat_response, rejected, request_vote,
    vote_answer,
};
use coracle_tests::scenario::{Cluster, Lone, cluster};

/// A node of three in this role, in term 0 or 1, which started with an empty disk.
fn lone_in(role: Role) -> Lone {
    let mut lone = Lone::new(3, Restored::default());
    match role {
        Role::Follower => drop(lone.hand(heartbeat(2, 1, 1, 0))),
        Role::PreCandidate => drop(lone.time_out()),
        Role::Candidate => drop(lone.stand()),
        Role::Leader => drop(lone.lead()),
    }
    assert_eq!(lone.role(1), role);
    lone
}

fn any_message_of_term(term: u64) -> Vec<Message> {
    let call = request_vote(1, 3, term, (0, 0));
    vec![
        append(3, 1, term, &[], 0, 0),
        heartbeat(3, 1, term, 0),
        accepted(3, 1, term, 0),
        rejected(3, 1, term, 1, (0, 0)),
        heartbeat_response(3, 1, term),
        vote_answer(&call, true),
        vote_answer(&call, false),
    ]
}

/// A node adopts any higher term. Otherwise it could lead in a term that is over, or follow its
/// leader.
///
/// Covers: etcd TestFollowerUpdateTermFromMessage, TestCandidateUpdateTermFromMessage,
/// TestLeaderUpdateTermFromMessage, TestAllServerStepdown [5.1]
#[test]
fn a_higher_term_in_any_message_makes_a_follower_of_that_term() {
    for role in [Role::Follower, Role::PreCandidate, Role::Candidate, Role::Leader] {
        for message in any_message_of_term(7) {
            let mut lone = lone_in(role);
            lone.hand(message.clone());
            assert_eq!((lone.role(1), lone.term(1)), (Role::Follower, 7), "{role}: {message:?}");
            assert_eq!(lone.voted_for(1), None, "a new term begins without a vote");
        }
    }
}

/// Late messages of a deposed leader must change nothing, or two terms would mix.
///
/// Covers: etcd TestRejectStaleTermMessage, TestStepIgnoreOldTermMsg, TestOldMessages [5.1]
#[test]
fn a_message_of_an_older_term_changes_nothing() {
    for message in any_message_of_term(2).into_iter().chain([append(3, 1, 2, &[1, 2], 1, 2)]) {
        let mut lone = Lone::new(3, disk_in_term(3, &[1]));
        let deadline = lone.node(1).deadline();
        let answers = lone.hand(message.clone());
        assert_eq!(lone.log_terms(1), [1], "{message:?}");
        assert_eq!((lone.term(1), lone.commit(1), lone.node(1).leader()), (3, 0, None), "{message:?}");
        assert_eq!(lone.node(1).deadline(), deadline, "its timer goes on after {message:?}");
        assert!(answers.iter().all(|answer| answer.term.0 == 3), "whoever calls is told the newer term");
    }
}

/// A node that started in another role could act on a term that ended while the node was down.
///
/// Covers: etcd TestStartAsFollower [5.2]
#[test]
fn a_node_starts_as_a_follower() {
    for disk in [Restored::default(), disk_in_term(4, &[1, 4])] {
        assert_eq!(Lone::new(3, disk).role(1), Role::Follower);
    }
    let mut cluster = cluster(1);
    cluster.elect(1);
    cluster.crash(1);
    cluster.restart(1);
    assert_eq!(cluster.role(1), Role::Follower);
}

/// A leader sends heartbeats even with nothing to replicate, because followers campaign when it is
/// silent.
///
/// Covers: etcd TestLeaderBcastBeat, TestRecvMsgBeat [5.2]
#[test]
fn a_leader_sends_heartbeats_to_every_peer_and_nobody_else_does() {
    let mut lone = lone_in(Role::Leader);
    lone.sent();
    lone.elapse_ms(50);
    let beats = lone.sent();
    let peers: Vec<_> = beats.iter().map(|beat| beat.to).collect();
    assert_eq!(peers, [NodeId(2), NodeId(3)]);
    assert!(beats.iter().all(|beat| matches!(beat.body, Body::Heartbeat(_))));
    for role in [Role::Follower, Role::PreCandidate, Role::Candidate] {
        let mut lone = lone_in(role);
        lone.sent();
        lone.elapse_ms(50);
        assert_eq!(lone.sent(), [], "{role}");
    }
}

/// A candidate begins a new term, votes for itself, and asks all other voters.
///
/// Covers: etcd TestFollowerStartElection, TestCandidateStartNewElection, TestVoteRequest [5.2,
/// 5.4.1]
#[test]
fn an_election_raises_the_term_votes_for_itself_and_asks_everyone() {
    for first_election_fails in [false, true] {
        for log in [&[1][..], &[1, 2, 2], &[2, 3]] {
            let mut lone = Lone::new(3, disk_of(log));
            let before = lone.term(1);
            if first_election_fails {
                lone.stand();
            }
            let calls = lone.stand();
            let term = before + 1 + u64::from(first_election_fails);
            assert_eq!((lone.role(1), lone.term(1), lone.voted_for(1)), (Role::Candidate, term, Some(1)));
            assert!(lone.node(1).deadline() >= lone.clock(1) + Duration::from_millis(300), "a new timer");
            let asked: Vec<_> = calls.iter().map(|call| call.to.0).collect();
            assert_eq!(asked, [2, 3]);
            for call in calls {
                let Body::RequestVote(request) = call.body else { panic!("{call:?}") };
                assert_eq!((call.term.0, request.election_term.0), (term, term));
                let last = (request.last_log_index.0, request.last_log_term.0);
                assert_eq!(last, (log.len() as u64, log[log.len() - 1]));
            }
        }
    }
}

/// An election is won by a majority of all voters, not of those that answer. It is lost as soon as
/// that is certain.
///
/// Covers: etcd TestLeaderElectionInOneRoundRPC [5.2]
#[test]
fn an_election_is_won_lost_or_open_by_the_count_of_votes() {
    let (yes, no) = (true, false);
    let table: [(u64, &[bool], Role); 14] = [
        (1, &[], Role::Leader),
        (3, &[yes, yes], Role::Leader),
        (3, &[yes], Role::Leader),
        (3, &[no, yes], Role::Leader),
        (3, &[], Role::Candidate),
        (3, &[no], Role::Candidate),
        (3, &[no, no], Role::Follower),
        (4, &[yes], Role::Candidate),
        (4, &[yes, yes], Role::Leader),
        (5, &[yes], Role::Candidate),
        (5, &[yes, yes], Role::Leader),
        (5, &[yes, no, no], Role::Candidate),
        (5, &[no, no, yes, no], Role::Follower),
        (5, &[no, no, no], Role::Follower),
    ];
    for (size, votes, role) in table {
        let mut lone = Lone::new(size, Restored::default());
        let calls = lone.stand();
        for (call, &vote) in calls.iter().zip(votes) {
            lone.hand(vote_answer(call, vote));
        }
        assert_eq!((lone.role(1), lone.term(1)), (role, 1), "{size} nodes, {votes:?}");
    }
}

/// Two votes in a term would allow two leaders. A second answer to the same candidate must be the
/// same, or one lost message could lose an election.
///
/// Covers: etcd TestFollowerVote [5.2]
#[test]
fn a_vote_goes_to_the_first_candidate_and_again_only_to_the_same() {
    for first in [2, 3] {
        for second in [2, 3] {
            let mut lone = Lone::new(3, Restored::default());
            let answer = lone.hand(request_vote(first, 1, 1, (0, 0)));
            assert_eq!(granted(&answer[0]), Some(true));
            let answer = lone.hand(request_vote(second, 1, 1, (0, 0)));
            assert_eq!(granted(&answer[0]), Some(first == second));
            assert_eq!(lone.voted_for(1), Some(first));
        }
    }
}

/// A candidate that continued against an elected leader would disturb a working cluster.
///
/// Covers: etcd TestCandidateFallback, TestCandidateResetTermMsgHeartbeat,
/// TestCandidateResetTermMsgApp [5.2]
#[test]
fn a_candidate_follows_a_leader_of_its_own_or_a_later_term() {
    for role in [Role::PreCandidate, Role::Candidate] {
        for later in [0, 1, 5] {
            for is_beat in [false, true] {
                let mut lone = lone_in(role);
                let term = lone.term(1) + later;
                let sign = if is_beat { heartbeat(2, 1, term, 0) } else { append(2, 1, term, &[], 0, 0) };
                lone.hand(sign);
                assert_eq!((lone.role(1), lone.term(1)), (Role::Follower, term));
                assert_eq!(lone.node(1).leader(), Some(NodeId(2)));
            }
        }
    }
}

/// Without random election timeouts, votes would split again and again.
///
/// Covers: etcd TestFollowerElectionTimeoutRandomized, TestCandidateElectionTimeoutRandomized,
/// TestPastElectionTimeout [5.2]
#[test]
fn election_timeouts_are_spread_over_their_whole_range() {
    for is_candidate in [false, true] {
        let mut lone = Lone::new(3, Restored::default());
        let mut is_hit = [false; 30];
        for _ in 0..1000 {
            if is_candidate {
                lone.time_out()
            } else {
                lone.hand(heartbeat(2, 1, 1, 0))
            };
            let timeout = lone.node(1).deadline().since(lone.clock(1)).as_millis();
            assert!((300..600).contains(&timeout), "{timeout} ms");
            is_hit[usize::try_from(timeout / 10 - 30).unwrap()] = true;
        }
        assert!(is_hit.iter().all(|&hit| hit), "{is_hit:?}");
    }
}

/// Timers must mostly differ by more than a message takes, or votes split.
///
/// Covers: etcd TestFollowersElectionTimeoutNonconflict, TestCandidatesElectionTimeoutNonconflict
/// [5.2]
#[test]
fn two_timers_rarely_run_out_together() {
    for are_candidates in [false, true] {
        let mut ties = 0;
        for seed in 0..500 {
            let disks = vec![Restored::default(); 5];
            let mut cluster = Cluster::<Node>::start(disks, seed * 10, |config| config);
            if are_candidates {
                (1..=5).for_each(|node| cluster.isolate(node));
                cluster.elapse_ms(600);
            }
            let mut deadlines: Vec<_> = (1..=5).map(|node| cluster.node(node).deadline()).collect();
            deadlines.sort_unstable();
            // Ten milliseconds are far more than a vote request takes to arrive.
            ties += u32::from(deadlines[1].since(deadlines[0]) < Duration::from_millis(10));
        }
        assert!(ties < 150, "{ties} of 500 rounds tie");
    }
}

/// A leader that lacks a committed entry would overwrite it.
///
/// Covers: etcd TestVoter, TestRecvMsgVote [5.4.1]
#[test]
fn a_vote_is_refused_to_a_log_that_is_less_up_to_date() {
    let table: [(&[u64], (u64, u64), bool); 12] = [
        (&[1], (1, 1), true),
        (&[1], (2, 1), true),
        (&[1, 1], (1, 1), false),
        (&[1], (1, 2), true),
        (&[1], (2, 2), true),
        (&[1, 1], (1, 2), true),
        (&[2], (1, 1), false),
        (&[2], (2, 1), false),
        (&[1, 2], (1, 1), false),
        (&[1, 2], (9, 1), false),
        (&[], (0, 0), true),
        (&[1], (0, 0), false),
    ];
    for (log, candidate_last, is_granted) in table {
        let mut lone = Lone::new(3, disk_of(log));
        let answer = lone.hand(request_vote(2, 1, 3, candidate_last));
        assert_eq!(granted(&answer[0]), Some(is_granted), "{log:?} asked by {candidate_last:?}");
        assert_eq!(lone.term(1), 3, "a refusal, too, is one of the new term");
        assert_eq!(lone.voted_for(1), is_granted.then_some(2));
    }
}
