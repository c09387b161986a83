//! Slow disks that work: a slow write must not be mistaken for a fault, and waiting writes must
//! have a limit.

use coracle_core::raft::{Config, Node, Restored, Role};
use coracle_core::{Answer, RequestRefusal};
use coracle_tests::scenario::forge::{accepted, vote_answer};
use coracle_tests::scenario::{Cluster, Lone, Weather, cluster};

/// If a vote takes more than half an election timeout to be durable, the candidate's and the
/// voter's together take longer than one. A candidate whose timer ran while its own disk worked
/// would give up before any answer could arrive.
#[test]
fn an_election_succeeds_when_every_vote_takes_most_of_a_timeout() {
    for disk_ms in [160, 200, 250, 290] {
        for seed in 0..5 {
            let mut cluster: Cluster<Node> =
                Cluster::start(vec![Restored::default(); 3], seed, |config| config);
            let disk_us = disk_ms * 1000..disk_ms * 1000 + 1;
            cluster.weather(Weather { disk_us, ..Weather::default() });
            cluster.elapse_ms(10_000);
            let leader = cluster.leader();
            assert!(leader.is_some(), "seed {seed}: writes of {disk_ms} ms, and no leader");
        }
    }
}

/// Ten writes wait, and each takes 200 ms: the last one completes after two seconds, more than
/// three election timeouts. But the disk reports steadily, and a new leader would be no better.
#[test]
fn a_leader_whose_disk_has_a_long_queue_stays_as_long_as_it_reports() {
    let mut cluster = cluster(3);
    cluster.elect(1);
    cluster.hold_disk(1);
    for number in 0..10 {
        cluster.propose(1, &format!("k{number}"));
    }
    assert_eq!(cluster.disk(1).waiting(), 10);
    for done in 1..=10 {
        cluster.elapse_ms(200);
        cluster.release_writes(1, 1);
        assert_eq!((cluster.role(1), cluster.term(1)), (Role::Leader, 1), "after {done} writes");
    }
    assert_eq!((cluster.node(1).durable_index().0, cluster.texts(3).len()), (11, 10));
}

/// The same queue on a disk that reports once and then no more: the leader steps down an election
/// timeout after the last report.
#[test]
fn a_leader_whose_disk_falls_silent_gives_up_after_its_last_report() {
    let mut cluster = cluster(3);
    cluster.elect(1);
    cluster.hold_disk(1);
    for number in 0..10 {
        cluster.propose(1, &format!("k{number}"));
    }
    cluster.elapse_ms(500);
    cluster.release_writes(1, 1);
    cluster.elapse_ms(550);
    assert_eq!(cluster.role(1), Role::Leader, "550 ms after a report");
    // The longest election timeout is 600 ms, and the leader checks once per heartbeat of 50 ms.
    cluster.elapse_ms(150);
    assert_ne!(cluster.role(1), Role::Leader);
    let reason = "1 became follower in term 1: its disk did not finish a write";
    assert!(cluster.trace().iter().any(|line| line.starts_with(reason)));
}

/// Two fast followers commit whatever the leader's own disk does. Its unfinished writes still use
/// memory, so a limit on uncommitted entries alone would let it accept proposals until memory is
/// exhausted.
#[test]
fn proposals_are_refused_while_too_much_waits_for_the_leaders_own_disk() {
    let mut lone =
        Lone::tuned(3, Restored::default(), |config| Config { uncommitted_bytes_max: 150, ..config });
    lone.lead();
    for peer in [2, 3] {
        lone.hand(accepted(peer, 1, 1, 1));
    }
    lone.hold_disk(1);
    for round in 0..3 {
        let mut taken = 0;
        for number in 0..4 {
            let request = lone.propose(1, &format!("r{round}{number}"));
            taken += u32::from(lone.answer(request) != Some(&Answer::Refused(RequestRefusal::Overloaded)));
            let last = lone.node(1).log().last().index.0;
            for peer in [2, 3] {
                lone.hand(accepted(peer, 1, 1, last));
            }
            assert_eq!(lone.commit(1), last, "the followers commit at once");
        }
        assert_eq!(taken, 2, "round {round}: the second entry passes the limit");
        lone.release_disk(1);
        lone.hold_disk(1);
    }
}

/// A candidate whose own vote took longer than an election timeout has not lost: as soon as the
/// vote is durable, it asks for the votes of the others, and wins with them.
#[test]
fn a_candidate_whose_own_vote_is_late_wins_once_it_is_durable() {
    let mut lone = Lone::new(3, Restored::default());
    let questions = lone.time_out();
    lone.hold_disk(1);
    lone.hand(vote_answer(&questions[0], true));
    lone.elapse_ms(700);
    lone.release_disk(1);
    let calls = lone.sent();
    assert_eq!((lone.role(1), lone.term(1)), (Role::Candidate, 1), "{:#?}", lone.trace());
    let call = calls.iter().find(|call| call.term.0 == 1).expect("it asks for votes");
    lone.hand(vote_answer(call, true));
    assert_eq!((lone.role(1), lone.term(1)), (Role::Leader, 1));
}
