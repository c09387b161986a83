//! Durability in the core: late, merged and torn writes. Nothing may be promised or counted before
//! it is on disk.

use coracle_core::raft::{AppendOutcome, Entries, LogIndex, PersistId, Restored, Role};
use coracle_core::{Answer, kv::Outcome};
use coracle_tests::scenario::forge::{
    accepted, append, as_append, disk_of, entries_of, granted, heartbeat, outcome, request_vote, vote_answer,
};
use coracle_tests::scenario::{Lone, cluster, replicas};

/// A single node is a majority, but only an entry on its disk is durable: an earlier answer could
/// acknowledge a write that is then lost.
///
/// Covers: etcd#14370; etcd TestProgressLeader, TestSingleNodeCommit
#[test]
fn a_single_node_answers_only_once_its_disk_is_done() {
    let mut cluster = replicas(1);
    cluster.elect(1);
    cluster.hold_disk(1);
    let request = cluster.propose(1, "chips");
    cluster.elapse_ms(100);
    assert_eq!((cluster.answer(request), cluster.commit(1)), (None, 1));
    cluster.release_disk(1);
    assert!(is_applied(cluster.answer(request)));
}

/// A leader, too, counts only entries on its own disk, because a crash loses those in memory.
///
/// Covers: etcd TestProgressLeader, async_storage_writes; d-engine#329, #446
#[test]
fn a_leader_counts_itself_only_when_its_own_write_is_durable() {
    let mut lone = Lone::new(3, Restored::default());
    lone.lead();
    lone.hand(accepted(2, 1, 1, 1));
    lone.hold_disk(1);
    lone.propose(1, "chips");
    lone.propose(1, "nuts");
    lone.hand(accepted(2, 1, 1, 3));
    assert_eq!((lone.commit(1), lone.node(1).durable_index().0), (1, 1));
    lone.release_writes(1, 1);
    assert_eq!((lone.commit(1), lone.node(1).durable_index().0), (2, 2));
    lone.release_disk(1);
    assert_eq!(lone.commit(1), 3);
}

/// A slow leader does not slow down a majority of fast followers.
///
/// Covers: Ongaro's thesis, 10.2.1
#[test]
fn two_fast_followers_commit_past_a_slow_leader() {
    let mut cluster = cluster(3);
    cluster.elect(1);
    cluster.hold_disk(1);
    cluster.propose(1, "chips");
    cluster.settle();
    assert_eq!((cluster.commit(1), cluster.node(1).durable_index().0), (2, 1));
}

/// A vote is sent only when it is durable: a vote that a crash forgets could be given twice.
///
/// Covers: etcd TestFollowerVote with storage; etcd raft.go send()
#[test]
fn a_vote_leaves_only_when_it_is_durable_and_survives_a_crash() {
    let mut lone = Lone::new(3, Restored::default());
    lone.hold_disk(1);
    assert_eq!(lone.hand(request_vote(2, 1, 1, (0, 0))), []);
    lone.crash(1);
    lone.restart(1);
    assert_eq!(lone.term(1), 0, "the vote was lost, and nobody was told of it");
    lone.hand(request_vote(3, 1, 1, (0, 0)));
    lone.release_disk(1);
    let answers = lone.sent();
    assert_eq!(answers.iter().map(granted).collect::<Vec<_>>(), [Some(true)]);
    lone.crash(1);
    lone.restart(1);
    assert_eq!(lone.voted_for(1), Some(3));
    let answers = lone.hand(request_vote(2, 1, 1, (0, 0)));
    assert_eq!(granted(&answers[0]), Some(false));
}

/// A candidate asks for votes, and counts its own, only when its own vote is durable. Otherwise it
/// could crash, forget its vote, and vote for another candidate.
///
/// Covers: etcd TestCandidateSelfVoteAfterLostElection; openraft io_ordering
#[test]
fn a_candidate_asks_and_counts_itself_only_when_its_vote_is_durable() {
    let mut lone = Lone::new(3, Restored::default());
    let questions = lone.time_out();
    lone.hold_disk(1);
    assert_eq!(lone.hand(vote_answer(&questions[0], true)), [], "no call leaves yet");
    assert_eq!(lone.role(1), Role::Candidate);
    lone.release_disk(1);
    let calls = lone.sent();
    assert_eq!((calls.len(), lone.role(1)), (2, Role::Candidate));
}

/// An acknowledgement is a promise about the disk. The answer to a heartbeat is none, and must not
/// wait.
///
/// Covers: async_storage_writes; etcd raft.go send()
#[test]
fn an_acknowledgement_waits_for_the_disk_and_a_heartbeats_answer_does_not() {
    let mut lone = Lone::new(3, Restored::default());
    lone.hand(heartbeat(2, 1, 1, 0));
    lone.hold_disk(1);
    assert_eq!(lone.hand(append(2, 1, 1, &[1, 1], 0, 0)), []);
    assert_eq!(lone.hand(heartbeat(2, 1, 1, 0)).len(), 1);
    assert_eq!(lone.hand(append(2, 1, 1, &[1], 0, 0)), [], "also for entries that came a second time");
    lone.release_disk(1);
    let answers = lone.sent();
    assert_eq!(answers.iter().filter_map(outcome).count(), 2);
}

/// The tail of an old log is handed to the disk, cut, and replaced before any write completes. The
/// report of the old tail must not count for the new one.
///
/// Covers: async_storage_writes_append_aba_race; openraft#1960
#[test]
fn a_late_report_of_a_tail_that_was_cut_does_not_vouch_for_the_new_one() {
    let mut lone = Lone::new(3, disk_of(&[1]));
    lone.hold_disk(1);
    lone.hand(append(2, 1, 2, &[1, 2, 2, 2], 1, 0));
    lone.hand(append(3, 1, 3, &[1, 3, 3], 1, 0));
    assert_eq!(lone.log_terms(1), [1, 3, 3]);
    lone.release_writes(1, 1);
    assert_eq!(lone.node(1).durable_index().0, 1, "the old tail is on disk, not the new one");
    let early: Vec<_> = lone.sent().into_iter().filter(|message| message.term.0 == 3).collect();
    assert_eq!(early, []);
    lone.release_writes(1, 1);
    assert_eq!(lone.node(1).durable_index().0, 3);
    assert_eq!(lone.sent().iter().filter_map(outcome).count(), 1);
}

/// Persist reports may come merged, or twice, while one leader cuts the tail and the next one
/// extends it.
#[test]
fn reports_may_be_merged_and_repeated_across_terms() {
    let mut lone = Lone::new(3, disk_of(&[1]));
    lone.hold_disk(1);
    lone.hand(append(2, 1, 2, &[1, 2, 2], 1, 0));
    lone.hand(append(3, 1, 3, &[1, 3], 1, 0));
    lone.hand(append(2, 1, 4, &[1, 3, 4, 4], 2, 0));
    lone.release_writes(1, 2);
    assert_eq!(lone.node(1).durable_index().0, 2);
    lone.report(1, PersistId(1));
    assert_eq!(lone.node(1).durable_index().0, 2, "an old report moves nothing");
    lone.release_disk(1);
    lone.report(1, PersistId(2));
    assert_eq!(lone.node(1).durable_index().0, 4);
    let texts = |runs: Vec<Entries>| runs.iter().map(|run| run.text().to_owned()).collect::<String>();
    assert_eq!(texts(lone.disk(1).restored().log), texts(entries_of(&[1, 3, 4, 4], 1)));
}

/// A report of the disk that comes after the leader's term commits nothing.
///
/// Covers: etcd TestLeaderMsgAppSelfAckAfterTermChange
#[test]
fn a_report_after_losing_leadership_commits_nothing() {
    let mut lone = Lone::new(2, Restored::default());
    lone.lead();
    lone.hold_disk(1);
    lone.propose(1, "chips");
    lone.hand(accepted(2, 1, 1, 2));
    lone.hand(heartbeat(2, 1, 2, 0));
    lone.release_disk(1);
    assert_eq!((lone.role(1), lone.commit(1)), (Role::Follower, 1), "place 1 was durable before");
}

/// A leader's write stays incomplete through the whole term of another leader, and is reported in a
/// third one. It counts only for the entries that were not cut.
#[test]
fn a_write_that_finishes_two_terms_later_counts_for_what_is_left_of_it() {
    let mut cluster = cluster(3);
    cluster.elect(1);
    cluster.hold_disk(1);
    cluster.isolate(1);
    cluster.propose_all(1, &["lost", "gone"]);
    cluster.elect(2);
    cluster.propose(2, "chips");
    cluster.settle();
    cluster.heal();
    cluster.elapse_ms(100);
    assert_eq!(
        (cluster.term(1), cluster.log_terms(1)),
        (2, vec![1, 1, 1]),
        "its answers wait for the new term"
    );
    cluster.release_writes(1, 2);
    assert_eq!(cluster.node(1).durable_index().0, 3, "the entries of the lost reign, and the new term");
    cluster.elapse_ms(100);
    assert_eq!((cluster.texts(1), cluster.node(1).durable_index().0), (vec!["chips".to_owned()], 1));
    cluster.release_disk(1);
    assert_eq!(cluster.node(1).durable_index().0, 3);
    cluster.elect(1);
    cluster.propose(1, "nuts");
    cluster.settle();
    assert!((1..=3).all(|node| cluster.texts(node) == ["chips", "nuts"]));
}

/// A write can tear anywhere. Whatever part of it is left, the node starts, keeps the entries that
/// it acknowledged, and catches up.
///
/// Covers: etcd#6368, etcd#14098
#[test]
fn a_torn_write_leaves_a_log_that_can_go_on() {
    for whole in 0..=2 {
        for entries in [None, Some(0), Some(1), Some(2)] {
            let mut cluster = cluster(3);
            cluster.elect(1);
            cluster.propose(1, "chips");
            cluster.settle();
            cluster.hold_disk(3);
            for (first, second) in [("nuts", "figs"), ("plums", "dates")] {
                cluster.propose_all(1, &[first, second]);
                cluster.settle();
            }
            assert_eq!(cluster.disk(3).waiting(), 2);
            cluster.tear(3, whole, entries);
            cluster.release_disk(3);
            cluster.restart(3);
            let kept = if whole == 2 { 0 } else { entries.unwrap_or(0) };
            assert_eq!(cluster.log_terms(3).len(), 2 + 2 * whole + kept);
            cluster.elapse_ms(200);
            assert_eq!(cluster.texts(3), ["chips", "nuts", "figs", "plums", "dates"]);
        }
    }
}

/// An entry that a majority acknowledged survives a loss of power on all nodes.
///
/// Covers: etcd#14140, #14143
#[test]
fn a_committed_entry_survives_a_crash_of_all_nodes() {
    let mut cluster = replicas(3);
    cluster.elect(1);
    cluster.hold_disk(2);
    let request = cluster.propose(1, "chips");
    cluster.settle();
    assert!(is_applied(cluster.answer(request)), "nodes 1 and 3 hold it");
    (1..=3).for_each(|node| cluster.crash(node));
    cluster.release_disk(2);
    (2..=3).for_each(|node| cluster.restart(node));
    cluster.elapse_ms(2000);
    assert_eq!(cluster.leader(), Some(3), "node 2 lacks the entry and cannot win");
    assert!((2..=3).all(|node| cluster.texts(node) == ["chips"]));
}

/// A leader may send entries that its own disk lacks. If it crashes, they may be lost unless they
/// are committed.
#[test]
fn a_leader_that_crashes_before_its_disk_is_done_may_lose_only_what_was_not_committed() {
    let mut cluster = cluster(3);
    cluster.elect(1);
    cluster.hold_disk(1);
    cluster.isolate(3);
    cluster.propose(1, "chips");
    cluster.settle();
    assert_eq!((cluster.commit(1), cluster.log_terms(2).len()), (1, 2), "on one disk of three");
    cluster.crash(1);
    cluster.release_disk(1);
    cluster.restart(1);
    cluster.isolate(2);
    cluster.heal();
    cluster.isolate(2);
    cluster.elapse_ms(3000);
    assert!(cluster.leader().is_some_and(|leader| leader != 2 && cluster.texts(leader).is_empty()));
    cluster.heal();
    cluster.elapse_ms(1000);
    assert_eq!(cluster.log_terms(2), cluster.log_terms(1));
}

/// Group commit: proposals that arrive in one turn become one write and one AppendEntries call.
#[test]
fn proposals_of_one_turn_are_one_write_and_one_call() {
    let mut lone = Lone::new(3, Restored::default());
    lone.lead();
    lone.hand(accepted(2, 1, 1, 1));
    lone.hold_disk(1);
    lone.propose_all(1, &["chips", "nuts", "figs"]);
    assert_eq!(lone.disk(1).waiting(), 1);
    assert_eq!(lone.sent().iter().filter_map(as_append).count(), 1);
}

fn is_applied(answer: Option<&Answer>) -> bool {
    matches!(answer, Some(Answer::Applied { outcome: Outcome::Done, .. }))
}

/// The queue of answers that wait for a hanging disk has a limit. Each heartbeat's answer makes the
/// leader probe where the logs agree, and each probe adds an answer that waits for the disk;
/// without a limit, the queue would grow for as long as the disk hangs.
#[test]
fn the_answers_that_wait_for_a_hanging_disk_are_limited() {
    let mut cluster = replicas(3);
    cluster.elect(1);
    cluster.hold_disk(3);
    cluster.propose(1, "chips");
    cluster.elapse_ms(60_000);
    cluster.intercept(3, 1);
    cluster.release_disk(3);
    let answers = cluster.intercepted().len();
    assert!(answers < 100, "{answers} answers waited");
}

/// An acknowledgement waits for the write of its entries. If a later leader cuts them before that,
/// nothing is left to acknowledge, and the write that completes is another one.
#[test]
fn an_acknowledgement_of_entries_that_are_cut_meanwhile_never_leaves() {
    let mut lone = Lone::new(3, disk_of(&[1]));
    lone.hold_disk(1);
    lone.hand(append(2, 1, 1, &[1, 1, 1, 1], 1, 0));
    lone.hand(append(3, 1, 2, &[1, 2], 1, 0));
    lone.release_disk(1);
    let answers = lone.sent();
    let acknowledged: Vec<_> = answers.iter().filter_map(outcome).collect();
    assert_eq!(acknowledged, [AppendOutcome::Accepted { match_index: LogIndex(2) }], "{:#?}", lone.trace());
}
