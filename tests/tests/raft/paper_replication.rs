//! Replication and commit, as §5.3 and §5.4.2 of the paper state them.

use coracle_core::raft::{AppendEntries, AppendOutcome, Body, Config, Entries, Message, Node, Restored};
use coracle_tests::scenario::forge::{
    accepted, append, as_append, disk_in_term, disk_of, entries_of, heartbeat, outcome,
};
use coracle_tests::scenario::{Cluster, Lone, cluster_with};

/// The answer to an AppendEntries: the matched index, or the hint's index and term.
type Outcome = Result<u64, (u64, u64)>;

/// Hands over a call and returns the answer.
fn answer(lone: &mut Lone, call: Message) -> Outcome {
    let answers = lone.hand(call);
    match outcome(&answers[0]).expect("an answer") {
        AppendOutcome::Accepted { match_index } => Ok(match_index.0),
        AppendOutcome::Rejected { hint_index, hint_term } => Err((hint_index.0, hint_term.0)),
    }
}

/// A proposal goes to all followers at once, with the entry before it on which the logs have to
/// agree, and to the leader's own disk.
///
/// Covers: etcd TestLeaderStartReplication [5.3]
#[test]
fn a_proposal_goes_to_every_follower_and_to_the_disk() {
    let mut lone = Lone::new(3, Restored::default());
    lone.lead();
    lone.hand(accepted(2, 1, 1, 1));
    lone.hand(accepted(3, 1, 1, 1));
    lone.propose(1, "chips");
    let calls = lone.sent();
    let told: Vec<_> = calls.iter().map(|call| call.to.0).collect();
    assert_eq!(told, [2, 3]);
    for call in &calls {
        let call = as_append(call).unwrap();
        let (prev, commit) = ((call.prev_log_index.0, call.prev_log_term.0), call.leader_commit.0);
        assert_eq!((prev, commit, call.entries.len()), ((1, 1), 1, 1));
        assert_eq!((call.entries[0].first_index().0, call.entries[0].len()), (2, 1));
    }
    assert!(lone.disk(1).holds(lone.node(1).log().last()));
}

/// A commit on less than a majority can be lost; one that waited for more would stop at the first
/// failure.
///
/// Covers: etcd TestLeaderCommitEntry, TestLeaderAcknowledgeCommit, TestCommit [5.3]
#[test]
fn an_entry_is_committed_once_a_majority_holds_it() {
    let table: [(u64, &[u64], bool); 11] = [
        (1, &[], true),
        (2, &[], false),
        (2, &[2], true),
        (3, &[], false),
        (3, &[2], true),
        (3, &[2, 3], true),
        (4, &[2], false),
        (4, &[2, 4], true),
        (5, &[5], false),
        (5, &[2, 3], true),
        (5, &[2, 3, 4, 5], true),
    ];
    for (size, ackers, is_committed) in table {
        let mut lone = Lone::new(size, Restored::default());
        lone.lead();
        lone.propose(1, "chips");
        lone.sent();
        let mut told = Vec::new();
        for &follower in ackers {
            told.extend(lone.hand(accepted(follower, 1, 1, 2)));
        }
        assert_eq!(lone.commit(1), if is_committed { 2 } else { 0 }, "{size}: {ackers:?}");
        let commits = told.iter().filter_map(|message| match &message.body {
            Body::Heartbeat(beat) => Some(beat.leader_commit.0),
            Body::AppendEntries(call) => Some(call.leader_commit.0),
            _ => None,
        });
        assert_eq!(
            commits.max(),
            (is_committed && size > 1).then_some(2),
            "who acknowledged is told at once"
        );
    }
}

/// Entries of earlier terms are committed along with the first entry of the new term, in order.
///
/// Covers: etcd TestLeaderCommitPrecedingEntries, TestCommitWithoutNewTermEntry [5.3]
#[test]
fn a_commit_takes_older_entries_along() {
    for log in [&[][..], &[2], &[1, 2], &[1]] {
        let mut lone = Lone::new(3, disk_in_term(2, log));
        lone.lead();
        let last = lone.node(1).log().last().index.0;
        lone.hand(accepted(2, 1, 3, last));
        assert_eq!((lone.commit(1), last), (last, log.len() as u64 + 1), "{log:?}");
        let expected: Vec<_> =
            log.iter().enumerate().map(|(position, term)| format!("{}@{term}", position + 1)).collect();
        assert_eq!(lone.texts(1), expected);
    }
}

/// A follower applies the entries that its leader has committed, in log order, and no others.
///
/// Covers: etcd TestFollowerCommitEntry [5.3]
#[test]
fn a_follower_commits_what_its_leader_has() {
    for commit in 1..=3 {
        let mut lone = Lone::new(3, Restored::default());
        lone.hand(append(2, 1, 1, &[1, 1, 1], 0, commit));
        assert_eq!(lone.commit(1), commit);
        let expected = ["1@1", "2@1", "3@1"];
        assert_eq!(lone.texts(1), expected[..usize::try_from(commit).unwrap()]);
    }
}

/// Entries after a gap or a conflict would make two histories. The hint lets the leader find the
/// last common entry.
///
/// Covers: etcd TestFollowerCheckMsgApp, TestHandleMsgApp [5.3]
#[test]
fn entries_are_refused_unless_the_one_before_agrees() {
    // The follower's log is [1, 2], of which it knows entry 1 to be committed. The calls are those
    // of leaders of term 3.
    let table: [(&[u64], u64, Outcome); 6] = [
        (&[], 0, Ok(0)),
        (&[1], 1, Ok(1)),
        (&[1, 2], 2, Ok(2)),
        (&[1, 1], 2, Err((1, 1))),
        (&[1, 2, 3], 3, Err((2, 2))),
        (&[1, 3, 3], 3, Err((2, 2))),
    ];
    for (leader_log, prev, expected) in table {
        let mut lone = Lone::new(3, disk_of(&[1, 2]));
        lone.hand(heartbeat(2, 1, 3, 1));
        assert_eq!(
            answer(&mut lone, append(2, 1, 3, leader_log, prev, 1)),
            expected,
            "{leader_log:?} {prev}"
        );
        assert_eq!(lone.log_terms(1), [1, 2]);
    }
}

/// Cutting too much loses acknowledged entries; cutting too little keeps two histories.
///
/// Covers: etcd TestFollowerAppendEntries, TestHandleMsgApp [5.3]
#[test]
fn a_follower_cuts_from_the_first_difference_and_only_there() {
    let table: [(&[u64], u64, &[u64]); 8] = [
        (&[1, 2, 3], 2, &[1, 2, 3]),
        (&[1, 3, 4], 1, &[1, 3, 4]),
        (&[1, 2], 0, &[1, 2]),
        (&[1], 0, &[1, 2]),
        (&[3], 0, &[3]),
        (&[1, 2], 1, &[1, 2]),
        (&[1], 1, &[1, 2]),
        (&[1, 2, 2, 3], 0, &[1, 2, 2, 3]),
    ];
    for (leader_log, prev, expected) in table {
        let mut lone = Lone::new(3, disk_of(&[1, 2]));
        let matched = answer(&mut lone, append(2, 1, 4, leader_log, prev, 0));
        assert_eq!(matched, Ok(leader_log.len() as u64), "{leader_log:?} after {prev}");
        assert_eq!(lone.log_terms(1), expected, "{leader_log:?} after {prev}");
        let durable = lone.disk(1).restored().log;
        let on_disk = entries_of(expected, 1);
        let text = |runs: &[Entries]| runs.iter().map(Entries::text).collect::<String>();
        assert_eq!(text(&durable), text(&on_disk), "memory and disk agree");
    }
}

/// The commit index of a call counts only up to the last entry that the call covers, because
/// entries after it may belong to another history.
///
/// Covers: etcd TestHandleMsgApp [5.3]
#[test]
fn a_follower_commits_no_further_than_the_call_vouches_for() {
    let mut lone = Lone::new(3, disk_of(&[1, 1, 1]));
    lone.hand(append(2, 1, 2, &[1], 1, 3));
    assert_eq!((lone.commit(1), lone.log_terms(1)), (1, vec![1, 1, 1]));
    lone.hand(append(2, 1, 2, &[1, 2], 1, 9));
    assert_eq!((lone.commit(1), lone.log_terms(1)), (2, vec![1, 2]));
}

/// Figure 7: whatever entries a follower lacks or has in excess, the leader makes the follower's
/// log equal to its own.
///
/// Covers: etcd TestLeaderSyncFollowerLog, probe_and_replicate [5.3]
#[test]
fn every_follower_of_figure_7_gets_the_leaders_log() {
    let leader = [1, 1, 1, 4, 4, 5, 5, 6, 6, 6];
    let followers: [(char, &[u64]); 6] = [
        ('a', &[1, 1, 1, 4, 4, 5, 5, 6, 6]),
        ('b', &[1, 1, 1, 4]),
        ('c', &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6]),
        ('d', &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7]),
        ('e', &[1, 1, 1, 4, 4, 4, 4]),
        ('f', &[1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3]),
    ];
    for (name, follower) in followers {
        // The third node can vote for any candidate. It is down once the leader is elected.
        let disks = vec![disk_in_term(7, &leader), disk_in_term(7, follower), disk_in_term(7, &[])];
        let mut cluster = cluster_with(disks);
        cluster.part(1, 2);
        cluster.elect(1);
        cluster.crash(3);
        cluster.heal();
        cluster.elapse_ms(200);
        let mut expected = leader.to_vec();
        expected.push(8);
        assert_eq!(cluster.log_terms(2), expected, "follower {name}");
        assert_eq!((cluster.commit(1), cluster.commit(2)), (11, 11), "follower {name}");
    }
}

/// An entry of an older term on a majority may still be overwritten (Figure 8), so it is never
/// committed by counting.
///
/// Covers: etcd TestLeaderOnlyCommitsLogFromCurrentTerm, TestCannotCommitWithoutNewTermEntry
/// [5.4.2]
#[test]
fn only_entries_of_the_leaders_own_term_are_committed_by_counting() {
    for (match_index, commit) in [(1, 0), (2, 0), (3, 3)] {
        let mut lone = Lone::new(3, disk_of(&[1, 2]));
        lone.lead();
        assert_eq!(lone.log_terms(1), [1, 2, 3]);
        lone.hand(accepted(2, 1, 3, match_index));
        assert_eq!(lone.commit(1), commit, "after an acknowledgement of {match_index}");
    }
}

/// Figure 8 in full: an entry of term 2 reaches a majority in term 4, and is still overwritten in
/// term 5.
///
/// Covers: Figure 8; logcabin#44, canonical/raft#220, PySyncObj#169 [5.4.2]
#[test]
fn figure_8() {
    // (b): the first node has an entry of term 2 that one other node holds; the fifth has an entry
    // of term 3 that no other node holds.
    let disks = vec![
        disk_in_term(3, &[1, 2]),
        disk_in_term(3, &[1, 2]),
        disk_in_term(3, &[1]),
        disk_in_term(3, &[1]),
        disk_in_term(3, &[1, 3]),
    ];
    let mut cluster: Cluster<Node> =
        Cluster::start(disks, 0, |config| Config { append_bytes_max: 1, ..config });
    // (c): the first node leads in term 4. Its entry of term 2 reaches the others, its entry of
    // term 4 does not.
    cluster.isolate(5);
    (2..=4).for_each(|follower| cluster.intercept(1, follower));
    cluster.campaign(1);
    for _ in 0..20 {
        cluster.elapse_ms(10);
        for message in cluster.intercepted() {
            let of_term_4 = |call: &AppendEntries| call.entries.iter().any(|run| run.last().term.0 == 4);
            if !as_append(&message).is_some_and(of_term_4) {
                cluster.deliver(message);
            }
        }
    }
    assert_eq!((cluster.leader(), cluster.term(1), cluster.log_terms(1)), (Some(1), 4, vec![1, 2, 4]));
    assert_eq!((2..=4).map(|node| cluster.log_terms(node)).collect::<Vec<_>>(), vec![vec![1, 2]; 3]);
    assert_eq!(cluster.commit(1), 0, "the entry of term 2 is on four of five, and not committed");
    // (d): the first node crashes. The fifth wins, because its last entry is of a later term, and
    // overwrites the entry of term 2.
    cluster.crash(1);
    cluster.heal();
    cluster.elect(5);
    cluster.elapse_ms(200);
    assert_eq!((cluster.log_terms(3), cluster.commit(3)), (vec![1, 3, 5], 3));
}
