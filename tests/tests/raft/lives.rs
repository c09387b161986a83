//! Which life of a node is a member: a node that lost its disk must not pass for the one that it was.

use coracle_core::raft::{ChangeError, Config, Member, NodeId, Restored, Roster, Voters};
use coracle_core::{Answer, Incarnation, MemberChange, Refused, Replica, Request, RequestId};
use coracle_tests::scenario::Cluster;

fn member(id: u64, life: Option<u64>) -> (NodeId, Member) {
    (NodeId(id), Member { address: format!("host:{id}").into(), incarnation: life.map(Incarnation) })
}

/// Nodes 1 to 3 founded the cluster and have met; node 4 runs and is no member.
fn founded() -> Cluster<Replica> {
    let voters = Voters::new((1..=3).map(NodeId)).expect("one to nine");
    let roster = Roster::new((1..=3).map(|id| member(id, Some(10 + id))));
    let mut cluster = Cluster::start(vec![Restored::default(); 4], 0, |config| Config {
        voters: voters.clone(),
        roster: roster.clone(),
        ..config
    });
    cluster.elect(1);
    cluster.elapse_ms(60);
    cluster
}

fn order(cluster: &mut Cluster<Replica>, leader: u64, change: MemberChange) -> RequestId {
    let request = cluster.ask(leader, Request::ChangeMembers(change));
    cluster.elapse_ms(300);
    request
}

fn add(cluster: &mut Cluster<Replica>, leader: u64) {
    let request = order(cluster, leader, MemberChange::AddLearnerAt(NodeId(4), "host:4".into()));
    assert!(matches!(cluster.answer(request), Some(Answer::MembershipChanged(_))));
}

/// The life in which `node` knows member 4.
fn life(cluster: &Cluster<Replica>, node: u64) -> Option<u64> {
    let member = cluster.node(node).configuration().roster().member(NodeId(4))?;
    member.incarnation.map(|incarnation| incarnation.0)
}

fn is_promoted(cluster: &Cluster<Replica>) -> bool {
    cluster.node(1).configuration().voters().contains(NodeId(4))
}

/// Whoever comes first under a new member's id is the member, on every node, and nobody after.
#[test]
fn the_first_life_that_is_met_is_the_members() {
    let mut cluster = founded();
    add(&mut cluster, 1);
    assert_eq!(life(&cluster, 1), None);
    cluster.meet(1, 4, 77);
    cluster.elapse_ms(100);
    for node in 1..=4 {
        assert_eq!(life(&cluster, node), Some(77), "on node {node}");
    }
    cluster.meet(1, 4, 78);
    cluster.elapse_ms(100);
    assert_eq!(life(&cluster, 1), Some(77), "that one has lost its disk");
}

/// A vote must be that of one life, so a member votes only once it is known which.
#[test]
fn nobody_votes_before_it_was_met() {
    let mut cluster = founded();
    add(&mut cluster, 1);
    let request = order(&mut cluster, 1, MemberChange::Promote(NodeId(4)));
    assert!(!is_promoted(&cluster), "it has everything, and nobody knows which node it is");
    assert_eq!(cluster.answer(request), None, "the order waits");
    cluster.meet(1, 4, 77);
    cluster.elapse_ms(300);
    assert!(is_promoted(&cluster));
    assert!(matches!(cluster.answer(request), Some(Answer::MembershipChanged(_))));
}

/// A follower may meet the new member before it leads, and before it knows that there is one.
#[test]
fn whoever_leads_next_writes_down_whom_it_has_met() {
    let mut cluster = founded();
    cluster.isolate(2);
    cluster.meet(2, 4, 77);
    add(&mut cluster, 1);
    cluster.heal();
    cluster.elapse_ms(300);
    assert_eq!(life(&cluster, 2), None);
    cluster.elect(2);
    cluster.elapse_ms(100);
    assert_eq!(life(&cluster, 3), Some(77));
}

/// The way back for a node that lost its disk: out, and in again as somebody new.
#[test]
fn a_removed_member_comes_back_in_another_life() {
    let mut cluster = founded();
    add(&mut cluster, 1);
    cluster.meet(1, 4, 77);
    cluster.elapse_ms(100);
    order(&mut cluster, 1, MemberChange::Remove(NodeId(4)));
    add(&mut cluster, 1);
    assert_eq!(life(&cluster, 1), None, "its earlier life is not taken for the new one");
    cluster.meet(1, 4, 78);
    cluster.elapse_ms(100);
    assert_eq!(life(&cluster, 3), Some(78));
}

/// An order to add a member twice changes nothing of what is known of it.
#[test]
fn a_member_that_is_added_again_stays_in_its_life() {
    let mut cluster = founded();
    add(&mut cluster, 1);
    cluster.meet(1, 4, 77);
    cluster.elapse_ms(100);
    let again = order(&mut cluster, 1, MemberChange::AddLearnerAt(NodeId(4), "elsewhere:4".into()));
    assert!(matches!(cluster.answer(again), Some(Answer::MembershipChanged(_))));
    assert_eq!(life(&cluster, 1), Some(77));
    let voter = order(&mut cluster, 1, MemberChange::AddLearnerAt(NodeId(2), "elsewhere:2".into()));
    let refused = Answer::Refused(Refused::Change(ChangeError::Invalid));
    assert_eq!(cluster.answer(voter), Some(&refused), "a voter is no learner");
}

/// A leader that is stopped hands over to whoever is closest; with nobody to hand over to it says so at once.
#[test]
fn who_resigns_hands_over_to_the_closest() {
    let mut cluster = founded();
    cluster.isolate(2);
    cluster.ask(1, Request::write(put()));
    cluster.settle();
    let request = cluster.ask(1, Request::Resign);
    cluster.elapse_ms(200);
    assert_eq!(cluster.answer(request), Some(&Answer::Transferred { to: NodeId(3) }));
    let at_follower = cluster.ask(1, Request::Resign);
    assert!(matches!(cluster.answer(at_follower), Some(Answer::Refused(Refused::NotLeader { .. }))));
}

/// What a removed leader had proposed last may be committed without it: it does not know, and says so.
#[test]
fn a_removed_leader_does_not_know_what_became_of_its_last_proposals() {
    let mut cluster = founded();
    let removal = cluster.ask(1, Request::ChangeMembers(MemberChange::Remove(NodeId(1))));
    cluster.elapse_ms(20);
    let last = cluster.ask(1, Request::write(put()));
    cluster.elapse_ms(3000);
    assert!(matches!(cluster.answer(removal), Some(Answer::MembershipChanged(_))));
    assert!(cluster.answer(last).is_some(), "nobody waits for ever");
}

fn put() -> coracle_core::kv::Command {
    let key = coracle_core::kv::Key::new("k").expect("a short text");
    let value = coracle_core::kv::Value::from_text("v").expect("a short text");
    coracle_core::kv::Command::Put { key, value }
}
