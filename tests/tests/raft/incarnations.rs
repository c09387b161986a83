//! Incarnations: a member is an id and an incarnation. A node that lost its disk must not be
//! mistaken for its predecessor, and a removed node must not act as a member.

use coracle_core::kv::{Command, Found, Key, Query, Value};
use coracle_core::raft::{
    Body, ChangeError, Config, LogIndex, Member, NodeId, Restored, Role, Roster, Voters,
};
use coracle_core::{
    Answer, Incarnation, MemberChange, MemberOrder, ORDER_TIMEOUT, Replica, Request, RequestId,
    RequestRefusal,
};
use coracle_tests::scenario::Cluster;
use coracle_tests::scenario::forge::{message, request_vote};

fn member(id: u64, incarnation: Option<u64>) -> (NodeId, Member) {
    (NodeId(id), Member::founder(format!("host:{id}").into(), incarnation.map(Incarnation)))
}

/// A cluster of `size` nodes, of which the first `founders` have bootstrapped it and completed
/// their handshakes; the others run and are no members. Node N has the incarnation 10 + N.
fn founded_by(founders: u64, size: usize, tune: impl Fn(Config) -> Config) -> Cluster<Replica> {
    let voters = Voters::new((1..=founders).map(NodeId)).expect("one to nine");
    let roster = Roster::new((1..=founders).map(|id| member(id, Some(10 + id))));
    let mut cluster = Cluster::start(vec![Restored::default(); size], 0, |config| {
        let incarnation = Some(Incarnation(10 + config.id.0));
        tune(Config { voters: voters.clone(), roster: roster.clone(), incarnation, ..config })
    });
    cluster.elect(1);
    cluster.elapse_ms(60);
    cluster
}

/// Three founders, and node 4, which is no member.
pub(crate) fn founded() -> Cluster<Replica> {
    founded_by(3, 4, |config| config)
}

fn order(cluster: &mut Cluster<Replica>, leader: u64, change: MemberChange) -> RequestId {
    let request = cluster.ask(leader, Request::ChangeMembers(change.into()));
    cluster.elapse_ms(300);
    request
}

pub(crate) fn obeyed(cluster: &mut Cluster<Replica>, leader: u64, change: MemberChange) {
    let request = order(cluster, leader, change);
    let answer = cluster.answer(request);
    assert!(matches!(answer, Some(Answer::MembershipChanged(..))), "{answer:?}");
}

fn refusal(cluster: &mut Cluster<Replica>, leader: u64, change: MemberChange) -> ChangeError {
    let request = order(cluster, leader, change);
    cluster.elapse_ms(u64::try_from(ORDER_TIMEOUT.as_millis()).expect("some seconds"));
    match cluster.answer(request) {
        Some(Answer::Refused(RequestRefusal::Change(error))) => *error,
        other => panic!("{other:?}"),
    }
}

fn address(id: u64) -> MemberChange {
    MemberChange::AddLearnerAt(NodeId(id), format!("host:{id}").into())
}

/// Adds node `id`, reports its handshake to the leader, and promotes it.
fn grow(cluster: &mut Cluster<Replica>, leader: u64, id: u64) {
    obeyed(cluster, leader, address(id));
    let addition = cluster.node(leader).configuration().last_addition();
    cluster.complete_handshake(leader, id, 10 + id, addition.0);
    cluster.elapse_ms(100);
    obeyed(cluster, leader, MemberChange::Promote(NodeId(id)));
}

/// Returns the incarnation of the member `id`, as `node` knows it.
fn known(cluster: &Cluster<Replica>, node: u64, id: u64) -> Option<u64> {
    let member = cluster.node(node).configuration().roster().member(NodeId(id))?;
    member.incarnation.map(|incarnation| incarnation.0)
}

pub(crate) fn put(cluster: &mut Cluster<Replica>, node: u64, value: &str) -> RequestId {
    let (key, value) = (Key::new("k").expect("a short text"), Value::from_text(value).expect("a short text"));
    cluster.ask(node, Request::write(Command::Put { key, value }))
}

pub(crate) fn get(cluster: &mut Cluster<Replica>, node: u64) -> RequestId {
    let query = Query::Value(Key::new("k").expect("a short text"));
    cluster.ask(node, Request::Read { query, at_least: LogIndex::ORIGIN })
}

/// The first incarnation that connects under a new member's id becomes the member, on every node.
/// Later incarnations do not.
#[test]
fn the_first_incarnation_to_connect_becomes_the_member() {
    let mut cluster = founded();
    obeyed(&mut cluster, 1, address(4));
    assert_eq!(known(&cluster, 1, 4), None);
    cluster.complete_handshake(1, 4, 14, 1);
    cluster.elapse_ms(100);
    for node in 1..=4 {
        assert_eq!(known(&cluster, node, 4), Some(14), "on node {node}");
    }
    cluster.complete_handshake(1, 4, 78, 1);
    cluster.elapse_ms(100);
    assert_eq!(known(&cluster, 1, 4), Some(14), "that one has lost its disk");
}

/// A vote must belong to one incarnation, of a node that answers: an order to promote a silent
/// learner is rejected, and not executed minutes later.
#[test]
fn a_learner_that_does_not_answer_is_not_promoted() {
    let mut cluster = founded();
    obeyed(&mut cluster, 1, address(4));
    assert_eq!(refusal(&mut cluster, 1, MemberChange::Promote(NodeId(4))), ChangeError::Silent(NodeId(4)));
    cluster.complete_handshake(1, 4, 14, 1);
    cluster.elapse_ms(100);
    cluster.isolate(4);
    cluster.elapse_ms(700);
    assert_eq!(refusal(&mut cluster, 1, MemberChange::Promote(NodeId(4))), ChangeError::Silent(NodeId(4)));
    cluster.heal();
    cluster.elapse_ms(3000);
    assert!(!cluster.node(1).configuration().voters().contains(NodeId(4)), "a refused order does nothing");
    obeyed(&mut cluster, 1, MemberChange::Promote(NodeId(4)));
}

/// A follower may see the handshake of a new member before it leads, and before it knows that there
/// is one. It records the incarnation once it leads.
#[test]
fn a_new_leader_records_a_handshake_that_it_saw_as_a_follower() {
    let mut cluster = founded();
    cluster.isolate(2);
    cluster.complete_handshake(2, 4, 14, 1);
    obeyed(&mut cluster, 1, address(4));
    cluster.heal();
    cluster.elapse_ms(300);
    assert_eq!(known(&cluster, 2, 4), None);
    cluster.elect(2);
    cluster.elapse_ms(100);
    assert_eq!(known(&cluster, 3, 4), Some(14));
}

/// A node that lost its disk returns after a removal, as another incarnation. The removed
/// incarnation is not bound to the id again, whenever it connects.
#[test]
fn a_removed_incarnation_is_never_bound_again() {
    let mut cluster = founded();
    obeyed(&mut cluster, 1, address(4));
    cluster.complete_handshake(1, 4, 14, 1);
    cluster.elapse_ms(100);
    obeyed(&mut cluster, 1, MemberChange::Remove(NodeId(4)));
    cluster.complete_handshake(1, 4, 14, 1);
    cluster.complete_handshake(2, 4, 14, 1);
    obeyed(&mut cluster, 1, address(4));
    cluster.complete_handshake(1, 4, 14, 1);
    cluster.elapse_ms(100);
    assert_eq!(known(&cluster, 1, 4), None, "its earlier incarnation is not taken for the new one");
    cluster.replace(4, 78);
    cluster.complete_handshake(1, 4, 78, 2);
    cluster.elapse_ms(100);
    assert_eq!(known(&cluster, 3, 4), Some(78));
    assert!(!cluster.node(4).was_named() || cluster.node(4).removed_at().is_none());
}

/// A joining node may be removed before its log reaches the entry that names it. Then it reports
/// that it was never a member, but nodes that hold the removal know better. Otherwise it would be
/// bound to the id instead of its successor, and end a moment later.
#[test]
fn an_incarnation_that_was_removed_before_it_knew_is_never_bound_again() {
    let mut cluster = founded();
    cluster.isolate(4);
    obeyed(&mut cluster, 1, address(4));
    cluster.complete_handshake(1, 4, 14, 1);
    cluster.elapse_ms(100);
    obeyed(&mut cluster, 1, MemberChange::Remove(NodeId(4)));
    cluster.complete_handshake(1, 4, 14, 1);
    cluster.complete_handshake(2, 4, 14, 1);
    obeyed(&mut cluster, 1, address(4));
    cluster.elapse_ms(100);
    assert_eq!(known(&cluster, 1, 4), None);
    cluster.elect(2);
    cluster.elapse_ms(100);
    assert_eq!(known(&cluster, 2, 4), None);
    cluster.complete_handshake(2, 4, 78, 2);
    cluster.elapse_ms(100);
    assert_eq!(known(&cluster, 1, 4), Some(78));
}

/// A removed member receives further entries for a while, perhaps a change that reaches no
/// majority. Its reports about itself must not rest on that change: the members do not know of it,
/// and would take the node for one that was added again.
#[test]
fn a_removed_member_does_not_vouch_for_a_change_after_its_removal() {
    let mut cluster = founded();
    obeyed(&mut cluster, 1, address(4));
    cluster.complete_handshake(1, 4, 14, 1);
    cluster.elapse_ms(100);
    cluster.ask(1, Request::ChangeMembers(MemberChange::Remove(NodeId(4)).into()));
    cluster.elapse_ms(30);
    let removed_at = cluster.node(1).configuration_index();
    assert_eq!(cluster.node(4).configuration_index(), removed_at);
    [2, 3].iter().for_each(|other| cluster.cut(1, *other));
    cluster.ask(1, Request::ChangeMembers(address(5).into()));
    cluster.elapse_ms(30);
    cluster.crash(1);
    cluster.elect(2);
    cluster.crash(4);
    cluster.restart(4);
    assert_eq!(cluster.node(2).configuration_index(), removed_at);
    assert!(cluster.node(4).configuration_index() > removed_at);
    assert!(cluster.node(4).named_index() < removed_at);
}

/// An order to add a member with another address changes its address and nothing else, for voters
/// and learners.
#[test]
fn a_member_that_is_added_again_moves_and_stays_what_it_is() {
    let mut cluster = founded();
    obeyed(&mut cluster, 1, address(4));
    cluster.complete_handshake(1, 4, 14, 1);
    cluster.elapse_ms(100);
    for id in [4, 2, 1] {
        let moved = MemberChange::AddLearnerAt(NodeId(id), format!("elsewhere:{id}").into());
        obeyed(&mut cluster, 1, moved);
        assert_eq!(known(&cluster, 3, id), Some(10 + id));
        let member = cluster.node(3).configuration().roster().member(NodeId(id)).cloned();
        assert_eq!(member.map(|member| member.address), Some(format!("elsewhere:{id}").into()));
    }
    assert_eq!(cluster.node(3).configuration().voters().nodes().len(), 3);
    assert_eq!(cluster.node(3).configuration().learners(), [NodeId(4)]);
    let taken = MemberChange::AddLearnerAt(NodeId(5), "elsewhere:2".into());
    assert_eq!(refusal(&mut cluster, 1, taken), ChangeError::AddressTaken(NodeId(2)));
}

/// Orders about unknown members, or to remove the last voter, are rejected with the reason and
/// change nothing.
#[test]
fn orders_about_nodes_that_are_no_members_are_refused() {
    let mut cluster = founded_by(1, 2, |config| config);
    let before = cluster.node(1).configuration_index();
    let unknown = ChangeError::NotMember(NodeId(99));
    assert_eq!(refusal(&mut cluster, 1, MemberChange::Remove(NodeId(99))), unknown);
    assert_eq!(refusal(&mut cluster, 1, MemberChange::Promote(NodeId(99))), unknown);
    assert_eq!(refusal(&mut cluster, 1, MemberChange::Remove(NodeId(1))), ChangeError::LastVoter);
    assert_eq!(cluster.node(1).configuration_index(), before);
}

/// A removal that would leave a majority of silent nodes is rejected, because nothing could be
/// committed after it. An operator may insist, because those nodes may be about to start.
#[test]
fn a_removal_that_would_leave_a_silent_majority_is_refused() {
    let mut cluster = founded();
    cluster.isolate(3);
    cluster.elapse_ms(700);
    assert_eq!(refusal(&mut cluster, 1, MemberChange::Remove(NodeId(2))), ChangeError::MajoritySilent);
    obeyed(&mut cluster, 1, MemberChange::Remove(NodeId(3)));
    let mut cluster = founded();
    cluster.isolate(3);
    cluster.elapse_ms(700);
    let insisting = MemberOrder { insists: true, ..MemberChange::Remove(NodeId(2)).into() };
    cluster.ask(1, Request::ChangeMembers(insisting));
    cluster.elapse_ms(300);
    assert!(cluster.node(1).configuration().is_joint(), "it waits for node 3");
    cluster.heal();
    cluster.elapse_ms(1500);
    assert!(!cluster.node(1).configuration().contains(NodeId(2)));
}

/// An order that is delivered again after a later one was executed must not undo the later one.
#[test]
fn an_order_that_comes_late_does_not_undo_a_later_one() {
    let mut cluster = founded();
    let given_for = Some(cluster.node(1).configuration_index());
    let add = MemberOrder { given_for, ..address(4).into() };
    let ask = |cluster: &mut Cluster<Replica>, order: &MemberOrder| {
        let request = cluster.ask(1, Request::ChangeMembers(order.clone()));
        cluster.elapse_ms(300);
        cluster.answer(request).cloned().expect("an answer")
    };
    assert!(matches!(ask(&mut cluster, &add), Answer::MembershipChanged(..)));
    assert!(matches!(ask(&mut cluster, &add), Answer::MembershipChanged(..)), "it is as was ordered");
    cluster.complete_handshake(1, 4, 14, 1);
    cluster.elapse_ms(100);
    let given_for = Some(LogIndex(cluster.node(1).configuration_index().0 - 1));
    let promote = MemberOrder { given_for, ..MemberChange::Promote(NodeId(4)).into() };
    assert!(matches!(ask(&mut cluster, &promote), Answer::MembershipChanged(..)), "to be met is no change");
    obeyed(&mut cluster, 1, MemberChange::Remove(NodeId(4)));
    for late in [&add, &promote] {
        assert_eq!(ask(&mut cluster, late), Answer::Refused(RequestRefusal::Change(ChangeError::Outdated)));
    }
    assert!(!cluster.node(1).configuration().contains(NodeId(4)));
}

/// Split brain by operation: the only founder of a cluster loses its disk and returns under its id.
/// A prefix of the log that it receives may name its predecessor as the only voter, or as one of
/// few; it must not act on that.
#[test]
fn a_node_that_lost_its_disk_does_not_act_by_the_history_of_its_predecessor() {
    let one_by_one = |config| Config { append_bytes_max: 1, in_flight_messages_max: 1, ..config };
    for held in 1..16 {
        let mut cluster = founded_by(1, 3, one_by_one);
        grow(&mut cluster, 1, 2);
        grow(&mut cluster, 1, 3);
        let request = cluster.ask(1, Request::Transfer(NodeId(2)));
        cluster.elapse_ms(300);
        assert!(matches!(cluster.answer(request), Some(Answer::Transferred { .. })));
        cluster.replace(1, 91);
        cluster.isolate(1);
        obeyed(&mut cluster, 2, MemberChange::Remove(NodeId(1)));
        obeyed(&mut cluster, 2, address(1));
        cluster.complete_handshake(2, 1, 91, 3);
        cluster.heal();
        let mut steps = 0;
        while cluster.node(1).log().last().index < LogIndex(held) && steps < 1000 {
            cluster.elapse_ms(1);
            steps += 1;
        }
        cluster.isolate(1);
        cluster.elapse_ms(3000);
        assert_eq!(cluster.role(1), Role::Follower, "with {held} entries");
        put(&mut cluster, 2, "new");
        cluster.heal();
        cluster.elapse_ms(1000);
        assert_eq!(cluster.role(2), Role::Leader, "with {held} entries");
        assert_eq!(known(&cluster, 1, 1), Some(91));
    }
}

/// Nor does it vote by that history, for any candidate: its predecessor may have voted in the same
/// term.
#[test]
fn a_node_that_is_not_named_gives_no_vote() {
    let mut cluster = founded();
    cluster.isolate(3);
    cluster.replace(3, 93);
    cluster.intercept(3, 1);
    let term = cluster.node(1).current_term().0 + 1;
    cluster.deliver(request_vote(1, 3, term, (100, term)));
    cluster.elapse_ms(10);
    assert_eq!(cluster.node(3).voted_for(), None);
}

/// A message of the node that replaced a lost voter does not count as the voter's.
#[test]
fn an_answer_of_another_incarnation_does_not_count() {
    let mut cluster = founded();
    cluster.isolate(1);
    cluster.isolate(2);
    cluster.isolate(3);
    cluster.elapse_ms(2000);
    let stranger = |cluster: &mut Cluster<Replica>, incarnation| {
        let term = cluster.node(2).current_term().0;
        let mut answer = message(3, 2, term, Body::NewerTerm);
        answer.incarnation = Some(Incarnation(incarnation));
        answer.term.0 += 5;
        cluster.deliver(answer);
        cluster.node(2).current_term().0 - term
    };
    assert_eq!(stranger(&mut cluster, 93), 0, "not the member that it names");
    assert_eq!(stranger(&mut cluster, 13), 5);
}

/// Progress belongs to an incarnation: a learner that replaces an up-to-date member receives the
/// log from its beginning, and is not promoted before it holds all of it.
#[test]
fn progress_belongs_to_an_incarnation() {
    let mut cluster = founded();
    for value in ["a", "b", "c"] {
        put(&mut cluster, 1, value);
    }
    obeyed(&mut cluster, 1, address(4));
    cluster.complete_handshake(1, 4, 14, 1);
    cluster.elapse_ms(100);
    assert!(cluster.node(1).has_caught_up(NodeId(4)));
    obeyed(&mut cluster, 1, MemberChange::Remove(NodeId(4)));
    cluster.replace(4, 94);
    cluster.isolate(4);
    obeyed(&mut cluster, 1, address(4));
    cluster.complete_handshake(1, 4, 94, 1);
    cluster.elapse_ms(100);
    assert!(!cluster.node(1).has_caught_up(NodeId(4)), "its predecessor had");
    cluster.heal();
    cluster.elapse_ms(300);
    assert_eq!(cluster.node(4).log().last(), cluster.node(1).log().last());
    assert!(cluster.node(1).has_caught_up(NodeId(4)));
}

/// A node that joins answers no reads before it has applied everything that was committed when it
/// joined.
#[test]
fn a_joiner_answers_no_read_before_it_is_a_member() {
    let mut cluster = founded();
    put(&mut cluster, 1, "old");
    cluster.isolate(4);
    let early = get(&mut cluster, 4);
    cluster.elapse_ms(500);
    assert_eq!(
        cluster.answer(early),
        Some(&Answer::Refused(RequestRefusal::CatchingUp)),
        "it is no member yet"
    );
    cluster.heal();
    obeyed(&mut cluster, 1, address(4));
    let unmet = get(&mut cluster, 4);
    cluster.elapse_ms(500);
    assert_eq!(
        cluster.answer(unmet),
        Some(&Answer::Refused(RequestRefusal::CatchingUp)),
        "it was not met yet"
    );
    cluster.complete_handshake(1, 4, 14, 1);
    cluster.elapse_ms(200);
    let late = get(&mut cluster, 4);
    cluster.elapse_ms(200);
    let Some(Answer::Read { found: Found::Value(value), .. }) = cluster.answer(late) else {
        panic!("{:?}", cluster.answer(late))
    };
    assert!(value.is_some());
}

/// A leader that is stopped transfers its leadership to the most up-to-date follower. A follower
/// rejects the request.
#[test]
fn a_leader_that_resigns_hands_over_to_the_closest() {
    let mut cluster = founded();
    cluster.isolate(2);
    put(&mut cluster, 1, "v");
    cluster.settle();
    let request = cluster.ask(1, Request::Resign);
    cluster.elapse_ms(200);
    assert_eq!(cluster.answer(request), Some(&Answer::Transferred { to: NodeId(3) }));
    let at_follower = cluster.ask(1, Request::Resign);
    assert!(matches!(cluster.answer(at_follower), Some(Answer::Refused(RequestRefusal::NotLeader { .. }))));
}

/// The last proposals of a removed leader may be committed without it. It answers each of them,
/// although it does not know their outcome.
#[test]
fn a_removed_leader_does_not_know_what_became_of_its_last_proposals() {
    let mut cluster = founded();
    let removal = cluster.ask(1, Request::ChangeMembers(MemberChange::Remove(NodeId(1)).into()));
    cluster.elapse_ms(20);
    let last = put(&mut cluster, 1, "v");
    cluster.elapse_ms(3000);
    assert!(matches!(cluster.answer(removal), Some(Answer::MembershipChanged(..))));
    assert!(cluster.answer(last).is_some(), "every request is answered");
}
