//! Membership changes (§6): joint consensus, learners and promotion. No two majorities can decide
//! without each other, whichever node leads and whatever is lost meanwhile.

use coracle_core::raft::{
    ChangeError, Config, Configuration, EntryKind, LogIndex, NodeId, Restored, Role, Voters,
};
use coracle_core::{Answer, MemberChange, Replica, Request, RequestId, RequestRefusal};
use coracle_tests::scenario::Cluster;
use coracle_tests::scenario::forge::{granted, request_vote};

/// `size` nodes, of which the first `voters` form the cluster; the others run and are not members.
fn cluster_of(voters: u64, size: usize) -> Cluster<Replica> {
    let set = Voters::new((1..=voters).map(NodeId)).expect("one to nine");
    let mut cluster =
        Cluster::start(vec![Restored::default(); size], 0, |config| Config { voters: set.clone(), ..config });
    cluster.elect(1);
    cluster.elapse_ms(60);
    cluster
}

fn ids(nodes: &[u64]) -> Vec<NodeId> {
    nodes.iter().copied().map(NodeId).collect()
}

fn members(voters: &[u64], learners: &[u64]) -> Configuration {
    Configuration::new(Voters::new(ids(voters)).expect("one to nine"), ids(learners)).expect("disjoint")
}

fn order(cluster: &mut Cluster<Replica>, leader: u64, change: MemberChange) -> RequestId {
    cluster.ask(leader, Request::ChangeMembers(change.into()))
}

fn set(cluster: &mut Cluster<Replica>, leader: u64, voters: &[u64], learners: &[u64]) -> RequestId {
    order(cluster, leader, MemberChange::Set { voters: ids(voters), learners: ids(learners) })
}

fn is_done(cluster: &Cluster<Replica>, request: RequestId, voters: &[u64], learners: &[u64]) -> bool {
    let expected = members(voters, learners);
    matches!(cluster.answer(request), Some(Answer::MembershipChanged(_, found)) if *found == expected)
}

fn refusal(cluster: &Cluster<Replica>, request: RequestId) -> Option<ChangeError> {
    match cluster.answer(request) {
        Some(Answer::Refused(RequestRefusal::Change(error))) => Some(*error),
        _ => None,
    }
}

/// Returns the number of configurations in a node's log.
fn configurations(cluster: &Cluster<Replica>, node: u64) -> usize {
    let log = cluster.node(node).log();
    let runs = log.entries_from(log.first_index(), usize::MAX);
    runs.iter().map(|run| run.iter().filter(|entry| entry.kind() == EntryKind::Config).count()).sum()
}

/// A cluster with nodes 4 and 5 as learners that hold the whole log.
fn with_learners() -> Cluster<Replica> {
    let mut cluster = cluster_of(3, 5);
    cluster.propose_all(1, &["a", "b", "c"]);
    cluster.settle();
    set(&mut cluster, 1, &[1, 2, 3], &[4, 5]);
    cluster.elapse_ms(300);
    assert_eq!(cluster.texts(4), ["a", "b", "c"]);
    cluster
}

/// A learner receives the log and does not vote, so it cannot delay a commit.
///
/// Covers: etcd TestAddLearner, TestLearnerLogReplication, TestRaftNodes, confchange_v1_add_single
#[test]
fn a_learner_gets_the_log_and_does_not_count() {
    let mut cluster = cluster_of(3, 4);
    cluster.propose(1, "before");
    cluster.settle();
    let request = order(&mut cluster, 1, MemberChange::AddLearner(NodeId(4)));
    cluster.elapse_ms(300);
    assert!(is_done(&cluster, request, &[1, 2, 3], &[4]), "{:?}", cluster.answer(request));
    assert_eq!(cluster.texts(4), ["before"]);
    assert_eq!(cluster.node(4).configuration(), &members(&[1, 2, 3], &[4]));
    // The leader and the learner alone commit nothing.
    cluster.part(1, 2);
    cluster.part(1, 3);
    cluster.propose(1, "alone");
    cluster.settle();
    assert_eq!(cluster.commit(1), cluster.commit(4));
    assert_eq!(cluster.texts(1), ["before"]);
}

/// Covers: etcd TestLearnerElectionTimeout, TestLearnerCampaign, TestLearnerCanVote,
/// TestPromotable, NonPromotableVoterWithCheckQuorum
#[test]
fn a_learner_never_stands_and_votes_when_it_is_asked() {
    let mut cluster = with_learners();
    cluster.isolate(4);
    cluster.elapse_ms(5000);
    assert_eq!((cluster.role(4), cluster.term(4)), (Role::Follower, 1));
    // The learner may have become a voter without knowing it.
    let last = cluster.node(4).log().last();
    cluster.mend(4, 2);
    cluster.intercept(4, 2);
    cluster.deliver(request_vote(2, 4, 7, (last.index.0, last.term.0)));
    cluster.settle();
    assert!(cluster.intercepted().iter().any(|answer| granted(answer) == Some(true)));
}

/// Covers: etcd TestLearnerPromotion, promotion race (openraft#1805), adding an empty voter
/// (EastGuard#150)
#[test]
fn a_learner_is_promoted_when_it_has_caught_up() {
    let mut cluster = cluster_of(3, 4);
    let texts: Vec<String> = (0..1200).map(|number| format!("k{number}")).collect();
    cluster.propose_all(1, &texts.iter().map(String::as_str).collect::<Vec<_>>());
    cluster.settle();
    let too_early = set(&mut cluster, 1, &[1, 2, 3, 4], &[]);
    assert_eq!(refusal(&cluster, too_early), Some(ChangeError::CatchingUp(NodeId(4))));
    order(&mut cluster, 1, MemberChange::AddLearner(NodeId(4)));
    cluster.elapse_ms(100);
    // From now on it answers heartbeats, and acknowledges no entries.
    cluster.hold_disk(4);
    cluster.propose_all(1, &texts.iter().map(String::as_str).collect::<Vec<_>>());
    cluster.settle();
    let given_up = order(&mut cluster, 1, MemberChange::Promote(NodeId(4)));
    cluster.elapse_ms(1900);
    assert_eq!(cluster.answer(given_up), None, "it waits");
    cluster.elapse_ms(200);
    assert_eq!(refusal(&cluster, given_up), Some(ChangeError::CatchingUp(NodeId(4))));
    let promotion = order(&mut cluster, 1, MemberChange::Promote(NodeId(4)));
    cluster.elapse_ms(100);
    cluster.release_disk(4);
    cluster.elapse_ms(500);
    assert!(is_done(&cluster, promotion, &[1, 2, 3, 4], &[]), "{:?}", cluster.answer(promotion));
    cluster.elect(4);
}

/// During a change, a decision needs majorities of both sets of voters.
///
/// Covers: confchange_v2_add_double_auto, openraft commit of the joint entry needs both quorums,
/// raft#372
#[test]
fn in_a_change_both_sets_of_voters_must_agree() {
    let mut cluster = with_learners();
    // From {1,2,3} to {1,4,5}: neither set may decide alone.
    for (cut_off, is_decided) in [([4, 5], false), ([2, 3], false), ([2, 4], true)] {
        let mut cluster =
            if is_decided { with_learners() } else { std::mem::replace(&mut cluster, with_learners()) };
        for node in cut_off {
            cluster.isolate(node);
        }
        let request = set(&mut cluster, 1, &[1, 4, 5], &[]);
        cluster.elapse_ms(400);
        assert_eq!(is_done(&cluster, request, &[1, 4, 5], &[]), is_decided, "without {cut_off:?}");
        if !is_decided {
            assert!(cluster.node(1).configuration().is_joint());
        }
    }
}

/// Covers: etcd TestRemoveNode, TestCommitAfterRemoveNode, confchange_v2_add_double_auto (then
/// remove two)
#[test]
fn removing_voters_commits_with_those_that_are_left() {
    let mut cluster = cluster_of(5, 5);
    let request = set(&mut cluster, 1, &[1, 2, 3], &[]);
    cluster.elapse_ms(100);
    assert!(is_done(&cluster, request, &[1, 2, 3], &[]));
    assert_eq!(configurations(&cluster, 1), 2, "the joint one and the new one, each once");
    cluster.crash(4);
    cluster.crash(5);
    cluster.crash(3);
    let write = cluster.propose(1, "two of three");
    cluster.settle();
    assert!(matches!(cluster.answer(write), Some(Answer::Applied { .. })));
}

/// Covers: confchange_v1_remove_leader_stepdown, confchange_v2_replace_leader_stepdown; leader may
/// remove itself (§6)
#[test]
fn a_leader_that_removes_itself_leads_to_the_end_and_steps_down() {
    let mut cluster = cluster_of(3, 3);
    let request = order(&mut cluster, 1, MemberChange::Remove(NodeId(1)));
    cluster.elapse_ms(100);
    assert!(is_done(&cluster, request, &[2, 3], &[]), "{:?}", cluster.answer(request));
    assert_eq!(cluster.role(1), Role::Follower);
    cluster.elapse_ms(3000);
    let leader = cluster.leader().expect("the others elect one of them");
    assert!(leader != 1);
    assert_ne!(cluster.role(1), Role::Leader);
    let write = cluster.propose(leader, "without it");
    cluster.settle();
    assert!(matches!(cluster.answer(write), Some(Answer::Applied { .. })));
}

/// Covers: removed nodes cannot disturb (§6), redpanda#8495; removed node restarted
#[test]
fn a_removed_node_does_not_disturb_the_cluster() {
    let mut cluster = cluster_of(4, 4);
    // Node 4 never learns that it was removed.
    cluster.isolate(4);
    order(&mut cluster, 1, MemberChange::Remove(NodeId(4)));
    cluster.elapse_ms(100);
    cluster.heal();
    cluster.crash(4);
    cluster.restart(4);
    cluster.elapse_ms(10_000);
    assert_eq!((cluster.leader(), cluster.term(1)), (Some(1), 1));
}

/// Covers: etcd TestStepIgnoreConfig, confchange_disable_validation, admin double-submit
#[test]
fn one_change_at_a_time() {
    let mut cluster = cluster_of(3, 5);
    cluster.isolate(2);
    cluster.isolate(3);
    let first = order(&mut cluster, 1, MemberChange::AddLearner(NodeId(4)));
    let second = order(&mut cluster, 1, MemberChange::AddLearner(NodeId(5)));
    assert_eq!(refusal(&cluster, second), Some(ChangeError::InProgress));
    cluster.heal();
    cluster.elapse_ms(200);
    assert!(is_done(&cluster, first, &[1, 2, 3], &[4]));
    let again = order(&mut cluster, 1, MemberChange::AddLearner(NodeId(4)));
    assert!(is_done(&cluster, again, &[1, 2, 3], &[4]), "nothing to do is done");
    for (voters, learners) in [(&[][..], &[][..]), (&[1, 1], &[]), (&[1, 2, 3], &[3])] {
        let invalid = set(&mut cluster, 1, voters, learners);
        assert_eq!(refusal(&cluster, invalid), Some(ChangeError::Invalid), "{voters:?} {learners:?}");
    }
    let at_follower = order(&mut cluster, 2, MemberChange::AddLearner(NodeId(5)));
    assert!(matches!(cluster.answer(at_follower), Some(Answer::Refused(RequestRefusal::NotLeader { .. }))));
}

/// A new leader rejects changes until it has committed an entry of the current term, because until
/// then it may not know of a change that its predecessor began.
///
/// Covers: Ongaro, raft-dev 2015; etcd TestNewLeaderPendingConfig; openraft initial-log
#[test]
fn a_new_leader_changes_nothing_before_it_has_committed_in_its_own_term() {
    let mut cluster = cluster_of(4, 5);
    (2..=4).for_each(|node| cluster.hold_disk(node));
    let refused = {
        cluster.campaign(2);
        cluster.release_writes(2, 1);
        cluster.elapse_ms(1);
        order(&mut cluster, 1, MemberChange::AddLearner(NodeId(5)))
    };
    // A leader that has committed nothing in its own term rejects the change.
    let answer = cluster.answer(refused).cloned();
    if let Some(Answer::Refused(RequestRefusal::Change(error))) = answer {
        assert_eq!(error, ChangeError::NotEstablished);
    }
    (2..=4).for_each(|node| cluster.release_disk(node));
    let mut fresh = Cluster::<Replica>::start(vec![Restored::default(); 3], 0, |config| config);
    fresh.intercept(1, 2);
    fresh.intercept(1, 3);
    fresh.campaign(1);
    let mut request = None;
    for _ in 0..10 {
        fresh.settle();
        if fresh.role(1) == Role::Leader && request.is_none() {
            request = Some(set(&mut fresh, 1, &[1, 2], &[]));
        }
        for call in fresh.intercepted() {
            if !matches!(call.body, coracle_core::raft::Body::AppendEntries(_)) {
                fresh.deliver(call);
            }
        }
    }
    let request = request.expect("it has won");
    assert_eq!(refusal(&fresh, request), Some(ChangeError::NotEstablished));
}

/// A configuration is in force as soon as it is appended, and until its entry is cut.
///
/// Covers: scylladb#31074, openraft membership reverts on truncate, raft-rs#101 (restart loses
/// joint marker)
#[test]
fn a_configuration_that_is_cut_is_out_of_force() {
    let mut cluster = with_learners();
    (2..=5).for_each(|node| cluster.part(1, node));
    set(&mut cluster, 1, &[1, 4, 5], &[]);
    assert!(cluster.node(1).configuration().is_joint());
    cluster.settle();
    cluster.crash(1);
    cluster.restart(1);
    assert!(cluster.node(1).configuration().is_joint(), "it is on disk, so it is in force after a restart");
    cluster.elect(2);
    cluster.propose(2, "another history");
    cluster.settle();
    cluster.heal();
    cluster.elapse_ms(500);
    assert_eq!(cluster.node(1).configuration(), &members(&[1, 2, 3], &[4, 5]));
    assert_eq!(cluster.texts(1), ["a", "b", "c", "another history"]);
}

/// The leader that began a change crashes in the middle of it. The next leader finishes it, once.
///
/// Covers: etcd#12582, #14538 (auto-leave twice), JointAutoLeave across leadership loss,
/// camunda#60086
#[test]
fn the_next_leader_finishes_a_change_once() {
    let mut cluster = with_learners();
    // The joint configuration reaches every node; the commit index that covers it reaches none.
    (2..=5).for_each(|node| cluster.hold_disk(node));
    let request = set(&mut cluster, 1, &[1, 2, 3, 4, 5], &[]);
    cluster.settle();
    cluster.crash(1);
    (2..=5).for_each(|node| cluster.release_disk(node));
    cluster.elapse_ms(3000);
    let leader = cluster.leader().expect("four of five are left");
    assert_eq!(cluster.node(leader).configuration(), &members(&[1, 2, 3, 4, 5], &[]));
    assert!(cluster.node(leader).membership_is_settled());
    assert_eq!(configurations(&cluster, leader), 3, "the learners, the joint one and the new one");
    assert_eq!(cluster.answer(request), None);
    cluster.restart(1);
    cluster.elapse_ms(500);
    assert_eq!(cluster.node(1).configuration(), cluster.node(leader).configuration());
}

/// Covers: raft#372 (removing both halves), single-voter clusters
#[test]
fn a_cluster_shrinks_to_one_and_grows_again() {
    let mut cluster = cluster_of(3, 3);
    let request = set(&mut cluster, 1, &[1], &[]);
    cluster.elapse_ms(100);
    assert!(is_done(&cluster, request, &[1], &[]));
    cluster.crash(2);
    cluster.crash(3);
    let write = cluster.propose(1, "alone");
    cluster.settle();
    assert!(matches!(cluster.answer(write), Some(Answer::Applied { .. })));
    cluster.restart(2);
    order(&mut cluster, 1, MemberChange::AddLearner(NodeId(2)));
    cluster.elapse_ms(200);
    let request = order(&mut cluster, 1, MemberChange::Promote(NodeId(2)));
    cluster.elapse_ms(200);
    assert!(is_done(&cluster, request, &[1, 2], &[]));
    let last_one = set(&mut cluster, 1, &[], &[]);
    assert_eq!(refusal(&cluster, last_one), Some(ChangeError::Invalid), "the last voter stays");
}

/// Covers: etcd TestAddNodeCheckQuorum
#[test]
fn a_new_voter_that_was_never_heard_does_not_unseat_the_leader() {
    let mut cluster = with_learners();
    cluster.isolate(5);
    set(&mut cluster, 1, &[1, 2, 3, 4, 5], &[]);
    cluster.elapse_ms(5000);
    assert_eq!((cluster.leader(), cluster.term(1)), (Some(1), 1));
}

/// Covers: etcd TestLeaderTransferRemoveNode, TestLeaderTransferDemoteNode, transfer to a
/// just-promoted learner
#[test]
fn a_transfer_ends_when_its_target_goes_and_a_promoted_learner_can_lead() {
    let mut cluster = with_learners();
    let promotion = set(&mut cluster, 1, &[1, 2, 3, 4], &[5]);
    cluster.elapse_ms(100);
    assert!(is_done(&cluster, promotion, &[1, 2, 3, 4], &[5]));
    let request = cluster.ask(1, Request::Transfer(NodeId(4)));
    cluster.elapse_ms(100);
    assert_eq!(cluster.answer(request), Some(&Answer::Transferred { to: NodeId(4) }));
    let to_learner = cluster.ask(4, Request::Transfer(NodeId(5)));
    assert_eq!(cluster.answer(to_learner), Some(&Answer::Refused(RequestRefusal::NotVoter)));
    let stopped = set(&mut cluster, 4, &[1, 2, 3], &[5]);
    cluster.elapse_ms(2000);
    assert!(is_done(&cluster, stopped, &[1, 2, 3], &[5]));
    assert_eq!(cluster.node(1).log().last().index, LogIndex(cluster.commit(1)));
}

/// During a change, a linearizable read needs both majorities. Learners serve reads like any
/// follower.
///
/// Covers: etcd TestReadOnlyWithLearner, raft-rs read_when_quorum_becomes_less
#[test]
fn reads_are_right_at_learners_and_in_changes() {
    let mut cluster = with_learners();
    let query = || {
        let key = coracle_core::kv::Key::new("a").expect("a short key");
        Request::LinearizableRead(coracle_core::kv::Query::Value(key))
    };
    let read = cluster.ask(4, query());
    cluster.settle();
    assert!(matches!(cluster.answer(read), Some(Answer::Read { .. })));
    cluster.isolate(4);
    cluster.isolate(5);
    set(&mut cluster, 1, &[1, 4, 5], &[]);
    cluster.elapse_ms(10);
    let unconfirmed = cluster.ask(1, query());
    cluster.elapse_ms(100);
    assert_eq!(cluster.answer(unconfirmed), None, "the new voters were not asked");
    cluster.heal();
    cluster.elapse_ms(200);
    assert!(matches!(cluster.answer(unconfirmed), Some(Answer::Read { .. })));
}

/// A leader removes itself, and crashes before another node has that entry. The one remaining voter
/// still needs its vote and has the shorter log, so the removed node has to lead once more.
///
/// Covers: thesis §4.2.2 (a server that is not in its own latest configuration still starts
/// elections)
#[test]
fn a_removed_leader_stands_again_until_its_removal_is_committed() {
    dies_while_it_removes_itself(cluster_of(2, 2), 1);
}

/// The same with a leader that is no founder: after its restart it does not know what is committed,
/// and no initial configuration names it.
#[test]
fn a_removed_leader_that_was_added_stands_again_as_well() {
    let mut cluster = cluster_of(1, 3);
    set(&mut cluster, 1, &[1], &[2, 3]);
    cluster.elapse_ms(300);
    let all = set(&mut cluster, 1, &[1, 2, 3], &[]);
    cluster.elapse_ms(300);
    assert!(is_done(&cluster, all, &[1, 2, 3], &[]));
    cluster.ask(1, Request::Transfer(NodeId(3)));
    cluster.elapse_ms(300);
    assert_eq!(cluster.leader(), Some(3));
    let fewer = set(&mut cluster, 3, &[2, 3], &[]);
    cluster.elapse_ms(300);
    assert!(is_done(&cluster, fewer, &[2, 3], &[]));
    dies_while_it_removes_itself(cluster, 3);
}

/// Crashes `leader` while it removes itself. It and node 2 are the voters.
fn dies_while_it_removes_itself(mut cluster: Cluster<Replica>, leader: u64) {
    let before = configurations(&cluster, leader);
    cluster.intercept(leader, 2);
    order(&mut cluster, leader, MemberChange::Remove(NodeId(leader)));
    let mut has_second = false;
    for _ in 0..20 {
        cluster.elapse_ms(1);
        for call in cluster.intercepted() {
            // The joint configuration arrives; the one without the leader does not.
            let is_second = configurations(&cluster, leader) == before + 2;
            has_second |= is_second;
            if !is_second {
                cluster.deliver(call);
            }
        }
    }
    assert!(has_second && configurations(&cluster, 2) == before + 1);
    cluster.crash(leader);
    cluster.restart(leader);
    cluster.heal();
    cluster.elapse_ms(5000);
    assert_eq!(cluster.leader(), Some(2));
    assert_eq!(cluster.node(2).configuration(), &members(&[2], &[]));
    assert!(cluster.node(2).membership_is_settled());
}
