//! Replication progress of one follower: probing, the window in flight, and what answers may and
//! may not change.

use coracle_core::raft::{AppendEntries, Config, Entries, Message, Restored, Role};
use coracle_core::{Answer, RequestRefusal};
use coracle_tests::scenario::forge::{
    accepted, append, as_append, disk_of, entries_of, heartbeat_response, outcome, rejected,
};
use coracle_tests::scenario::{Lone, cluster};

/// The terms of a log's entries.
type Terms = &'static [u64];

/// A leader of two, in the term after its log's last one, which does not know its follower's log
/// yet.
fn leader_with(log_terms: &[u64], tune: impl Fn(Config) -> Config) -> Lone {
    let mut lone = Lone::tuned(2, disk_of(log_terms), tune);
    lone.lead();
    lone
}

/// A leader of two, in term 1, whose follower holds its whole log: one entry.
fn replicating(tune: impl Fn(Config) -> Config) -> Lone {
    let mut lone = leader_with(&[], tune);
    lone.hand(accepted(2, 1, 1, 1));
    lone
}

fn appends(messages: &[Message]) -> Vec<&AppendEntries> {
    messages.iter().filter_map(as_append).collect()
}

/// Returns, for each AppendEntries, the index before its entries and the number of entries.
fn shape(messages: &[Message]) -> Vec<(u64, usize)> {
    let count = |call: &AppendEntries| call.entries.iter().map(Entries::len).sum();
    appends(messages).into_iter().map(|call| (call.prev_log_index.0, count(call))).collect()
}

/// While the leader probes for the last common entry, a second call would only be another guess.
///
/// Covers: etcd TestProgressPaused, TestSendAppendForProgressProbe, TestLeaderIncreaseNext
#[test]
fn a_follower_that_is_probed_is_sent_one_call_until_it_answers() {
    let mut lone = Lone::new(2, Restored::default());
    assert_eq!(shape(&lone.lead()), [(0, 1)]);
    for text in ["chips", "nuts", "figs"] {
        lone.propose(1, text);
    }
    assert_eq!(shape(&lone.sent()), []);
    assert_eq!(
        shape(&lone.hand(accepted(2, 1, 1, 1))),
        [(1, 3)],
        "the answer sends all the rest, in one call"
    );
}

/// A follower that keeps up does not cost a round trip per entry.
///
/// Covers: etcd TestSendAppendForProgressReplicate, TestLeaderIncreaseNext
#[test]
fn a_follower_that_is_replicated_to_is_sent_entries_without_waiting() {
    let mut lone = replicating(|config| config);
    for (text, prev) in [("chips", 1), ("nuts", 2), ("figs", 3)] {
        lone.propose(1, text);
        assert_eq!(shape(&lone.sent()), [(prev, 1)]);
    }
}

/// Proposals of one turn are sent in one call, and no call is larger than the limit.
///
/// Covers: etcd TestProgressFlowControl
#[test]
fn calls_are_batched_and_limited_in_size_and_number() {
    let two_entries = 2 * entries_of(&[1, 1], 2)[0].text().len() + 30;
    let tune = |config| Config { append_bytes_max: two_entries, in_flight_messages_max: 3, ..config };
    let mut lone = replicating(tune);
    let texts: Vec<String> = (0..10).map(|number| format!("k{number}")).collect();
    lone.propose_all(1, &texts.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(shape(&lone.sent()), [(1, 2), (3, 2), (5, 2)], "three calls fill the window");
    assert_eq!(shape(&lone.hand(accepted(2, 1, 1, 1))), [], "an old acknowledgement frees nothing");
    assert_eq!(shape(&lone.hand(accepted(2, 1, 1, 5))), [(7, 2), (9, 2)], "newer ones free what they cover");
    assert_eq!(shape(&lone.hand(accepted(2, 1, 1, 11))), []);
    assert_eq!(lone.commit(1), 11);
}

/// A limit of the bytes in flight keeps a slow follower from filling the leader's memory with large
/// entries.
///
/// Covers: etcd inflights by bytes; raft_flow_control_test.go
#[test]
fn the_bytes_on_their_way_to_a_follower_are_limited() {
    let mut lone = replicating(|config| Config { in_flight_bytes_max: 100, append_bytes_max: 1, ..config });
    lone.propose_all(1, &["chips", "nuts", "figs", "plums"]);
    assert_eq!(shape(&lone.sent()), [(1, 1), (2, 1)], "the second entry passes a hundred bytes");
    assert_eq!(shape(&lone.hand(accepted(2, 1, 1, 3))), [(3, 1), (4, 1)]);
}

/// Everything in flight may be lost while the window is full, so nothing else would ever be sent.
/// The answer to a heartbeat makes the leader probe.
///
/// Covers: etcd TestProgressResumeByHeartbeatResp, TestHandleHeartbeatResp,
/// TestMsgAppRespWaitReset, replicate_pause; etcd#14633, hashicorp/raft#612
#[test]
fn a_heartbeats_answer_finds_out_what_was_lost() {
    for is_probing in [true, false] {
        let tune = |config| Config { in_flight_messages_max: 2, append_bytes_max: 1, ..config };
        let mut lone = if is_probing { leader_with(&[], tune) } else { replicating(tune) };
        lone.propose_all(1, &["chips", "nuts", "figs"]);
        let lost = lone.sent();
        assert_eq!(shape(&lost).len(), if is_probing { 0 } else { 2 });
        assert_eq!(shape(&lone.hand(heartbeat_response(2, 1, 1))), [], "an answer may still be on its way");
        lone.elapse_ms(60);
        let question = lone.hand(heartbeat_response(2, 1, 1));
        let next = if is_probing { 0 } else { 3 };
        assert_eq!(shape(&question), [(next, 0)], "one call without entries, whatever the window says");
        let call = appends(&question)[0];
        let had = if is_probing { 0 } else { 1 };
        let again = if is_probing {
            lone.hand(accepted(2, 1, 1, had))
        } else {
            lone.hand(rejected(2, 1, 1, call.sequence, (1, 1)))
        };
        assert_eq!(shape(&again)[0], (had, 1), "sent again from where the logs agree");
        lone.hand(accepted(2, 1, 1, 4));
        assert_eq!(lone.commit(1), 4);
        assert_eq!(shape(&lone.hand(heartbeat_response(2, 1, 1))), [], "silence once all is there");
    }
}

/// A report of a broken connection means that nothing in flight will arrive: the leader probes from
/// the last acknowledged entry.
///
/// Covers: etcd TestRecvMsgUnreachable
#[test]
fn an_unreachable_follower_is_probed_from_what_it_acknowledged() {
    let mut lone = replicating(|config| config);
    lone.propose(1, "chips");
    lone.propose(1, "nuts");
    assert_eq!(shape(&lone.sent()), [(1, 1), (2, 1)]);
    lone.tell_unreachable(1, 2);
    assert_eq!(shape(&lone.sent()), [(1, 2)]);
    lone.propose(1, "figs");
    assert_eq!(shape(&lone.sent()), [], "one probe at a time");
}

/// A rejection that was overtaken is out of date: acting on it would resend entries in vain, and
/// would be wrong below the acknowledged index.
///
/// Covers: etcd TestLeaderAppResp, TestLogReplicationWithReorderedMessage; etcd raft#149,
/// raft-rs#557, openraft#1500
#[test]
fn a_late_rejection_changes_nothing() {
    let mut lone = leader_with(&[1, 1, 1], |config| config);
    // The first probe is rejected; the second one, from the hint on, is accepted.
    let probe = lone.hand(rejected(2, 1, 2, 1, (1, 1)));
    assert_eq!(shape(&probe), [(1, 3)]);
    lone.hand(accepted(2, 1, 2, 4));
    assert_eq!(lone.commit(1), 4);
    // The first rejection arrives again, and one of a call that was never made.
    assert_eq!(shape(&lone.hand(rejected(2, 1, 2, 1, (1, 1)))), []);
    assert_eq!(shape(&lone.hand(rejected(2, 1, 2, 99, (1, 1)))), []);
    lone.propose(1, "chips");
    assert_eq!(shape(&lone.sent()), [(4, 1)], "the next call goes on from where it was");
    assert_eq!(shape(&lone.hand(rejected(2, 1, 2, 1, (1, 1)))), [], "and is not sent again");
    lone.propose(1, "nuts");
    assert_eq!(shape(&lone.sent()), [(5, 1)], "nor does the one after it wait");
}

/// Even after a current rejection, acknowledged entries are not sent again.
///
/// Covers: etcd "Next > Match"; raft#149
#[test]
fn a_rejection_never_goes_below_what_was_acknowledged() {
    let mut lone = replicating(|config| config);
    lone.propose_all(1, &["chips", "nuts"]);
    let calls = lone.sent();
    lone.hand(accepted(2, 1, 1, 3));
    let sequence = appends(&calls)[0].sequence;
    assert_eq!(shape(&lone.hand(rejected(2, 1, 1, sequence, (0, 0)))), []);
    lone.propose(1, "figs");
    assert_eq!(
        shape(&lone.sent()),
        [],
        "who lost entries is not asked again and again at the network's speed"
    );
    lone.elapse_ms(60);
    assert_eq!(shape(&lone.hand(heartbeat_response(2, 1, 1))), [(3, 0)]);
}

/// An acknowledgement of entries that were never sent is invalid, and must not commit anything.
///
/// Covers: etcd TestLeaderAppResp (index above the log)
#[test]
fn an_acknowledgement_beyond_the_log_is_refused() {
    let mut lone = replicating(|config| config);
    lone.propose(1, "chips");
    lone.hand(accepted(2, 1, 1, 50));
    assert_eq!(lone.commit(1), 1);
    assert!(lone.trace().last().unwrap().contains("never sent"));
}

/// With one round per entry, a long divergent tail would take hours; one round per term is enough.
///
/// Covers: etcd TestFastLogRejection
#[test]
fn the_last_common_entry_is_found_in_about_one_round_per_term() {
    // The leader's log, the follower's log, its hint, and the start of the next probe.
    let table: [(Terms, Terms, (u64, u64), u64); 6] = [
        (&[1, 3, 3, 3, 5, 5], &[1, 1, 1, 1, 2], (5, 2), 1),
        (&[1, 1, 1, 3, 3, 3, 4], &[1, 1, 1, 2, 2, 2], (6, 2), 3),
        (&[1, 1, 1, 1, 1, 1], &[1, 1], (2, 1), 2),
        (&[1, 1, 1, 1, 1, 4], &[1, 1, 4], (3, 4), 3),
        (&[1, 1, 1, 1, 3], &[1, 1, 2, 2, 2, 2], (5, 2), 4),
        (&[4, 4], &[], (0, 0), 0),
    ];
    for (leader_log, follower_log, hint, next) in table {
        let mut leader = leader_with(leader_log, |config| config);
        let mut follower = Lone::new(2, disk_of(follower_log));
        let term = leader.term(1);
        let said = follower.hand(append(2, 1, term, leader_log, leader_log.len() as u64, 0));
        let rejection = rejected(2, 1, term, 1, hint);
        assert_eq!(outcome(&said[0]), outcome(&rejection), "{leader_log:?} {follower_log:?}");
        assert_eq!(shape(&leader.hand(rejection))[0].0, next, "{leader_log:?} {follower_log:?}");
    }
}

/// Without a limit, a leader that cannot commit would accept proposals until its memory is full.
///
/// Covers: etcd TestUncommittedEntryLimit; etcd#10167
#[test]
fn proposals_are_refused_above_the_limit_and_taken_again_after_a_commit() {
    let mut lone = replicating(|config| Config { uncommitted_bytes_max: 150, ..config });
    for round in 0..3 {
        let prefix = format!("r{round}");
        let requests: Vec<_> = (0..4).map(|number| lone.propose(1, &format!("{prefix}{number}"))).collect();
        let refused =
            |lone: &Lone, request| lone.answer(request) == Some(&Answer::Refused(RequestRefusal::Overloaded));
        let taken = requests.iter().filter(|&&request| !refused(&lone, request)).count();
        assert_eq!(taken, 2, "round {round}: the second entry passes the limit");
        let last = lone.node(1).log().last().index.0;
        lone.hand(accepted(2, 1, 1, last));
        assert_eq!(lone.commit(1), last);
    }
}

/// Returns how many of these messages are probes without entries.
fn empty_calls(messages: &[Message]) -> usize {
    appends(messages).iter().filter(|call| call.entries.is_empty()).count()
}

/// Under load, entries are in flight at every heartbeat. While acknowledgements come promptly, none
/// of them can be lost, and a probe would waste a call and time of the follower's disk.
#[test]
fn a_follower_that_answers_promptly_is_not_probed() {
    let mut cluster = cluster(3);
    cluster.elect(1);
    cluster.intercept(1, 2);
    cluster.intercept(2, 1);
    let mut asked = 0;
    for number in 0..400 {
        // One way takes a tick of 5 ms, so an acknowledgement comes 10 ms after its entry; there is
        // a new entry every 5 ms.
        let arriving = cluster.intercepted();
        asked += empty_calls(&arriving);
        for message in arriving {
            cluster.deliver(message);
        }
        cluster.propose(1, &format!("k{number}"));
        cluster.elapse_ms(5);
    }
    assert_eq!((cluster.role(1), cluster.term(1)), (Role::Leader, 1));
    assert!(cluster.commit(2) > 390, "the load went through: {}", cluster.commit(2));
    assert_eq!(asked, 0, "calls without entries in two seconds");
}

/// When acknowledgements are overdue, the leader probes once per heartbeat interval, however many
/// answers to heartbeats arrive.
#[test]
fn a_follower_with_an_overdue_answer_is_probed_once_per_heartbeat() {
    let mut lone = replicating(|config| config);
    lone.propose(1, "chips");
    assert_eq!(shape(&lone.sent()), [(1, 1)]);
    for beat in 0..8 {
        let early = [lone.hand(heartbeat_response(2, 1, 1)), lone.hand(heartbeat_response(2, 1, 1))];
        assert!(early.iter().all(|sent| empty_calls(sent) == 0), "beat {beat}: it is not overdue yet");
        lone.elapse_ms(50);
        assert_eq!(empty_calls(&lone.hand(heartbeat_response(2, 1, 1))), 1, "beat {beat}");
    }
    lone.hand(accepted(2, 1, 1, 2));
    lone.elapse_ms(50);
    assert_eq!(empty_calls(&lone.hand(heartbeat_response(2, 1, 1))), 0, "nothing is owed any more");
}

/// A follower whose disk lost acknowledged entries can only be repaired by hand. Until then it is
/// probed at the pace of heartbeats, not of the network, and the leader's events report it.
#[test]
fn a_follower_that_lost_acknowledged_entries_is_probed_once_per_heartbeat_and_reported() {
    let mut lone = replicating(|config| config);
    lone.propose_all(1, &["chips", "nuts"]);
    lone.sent();
    lone.hand(accepted(2, 1, 1, 3));
    lone.propose(1, "figs");
    let mut sequence = appends(&lone.sent())[0].sequence;
    let complaints = |lone: &Lone| lone.trace().iter().filter(|line| line.contains("lost them")).count();
    for beat in 1..=8 {
        assert_eq!(shape(&lone.hand(rejected(2, 1, 1, sequence, (0, 0)))), [], "beat {beat}: not at once");
        assert_eq!(complaints(&lone), beat, "{:#?}", lone.trace());
        assert_eq!(shape(&lone.hand(heartbeat_response(2, 1, 1))), [], "beat {beat}: not yet");
        lone.elapse_ms(50);
        let question = lone.hand(heartbeat_response(2, 1, 1));
        assert_eq!(shape(&question), [(3, 0)], "beat {beat}");
        sequence = appends(&question)[0].sequence;
    }
    assert_eq!(lone.commit(1), 3, "what it had acknowledged is committed");
}
