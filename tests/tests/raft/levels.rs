//! Levels: a leader proposes a new kind of entry only once every member understands it.

use coracle_core::kv::{Command, Key, Level, Outcome};
use coracle_core::raft::{Config, Entries, LogIndex, Member, NodeId, Restored, Roster, Voters};
use coracle_core::{Answer, Incarnation, MemberChange, ReplicaLimits, Request, RequestRefusal};
use coracle_tests::scenario::{Cluster, Limited, Limits};

struct Current;

impl Limits for Current {
    fn limits() -> ReplicaLimits {
        ReplicaLimits::default()
    }
}

type Upgraded = Cluster<Limited<Current>>;

/// Three members with an address and an incarnation, and node 4, which is no member. Node N has the
/// incarnation 10 + N.
fn members() -> Upgraded {
    let voters = Voters::new((1..=3).map(NodeId)).expect("three");
    let member =
        |id: u64| (NodeId(id), Member::founder(format!("host:{id}").into(), Some(Incarnation(10 + id))));
    let roster = Roster::new((1..=3).map(member));
    let mut cluster = Cluster::start(vec![Restored::default(); 4], 0, |config| {
        let incarnation = Some(Incarnation(10 + config.id.0));
        Config { voters: voters.clone(), roster: roster.clone(), incarnation, ..config }
    });
    cluster.elect(1);
    cluster.elapse_ms(60);
    cluster
}

fn level(cluster: &Upgraded, node: u64) -> Level {
    cluster.subject(node).0.level()
}

fn incr() -> Request {
    Request::write(Command::Incr { key: Key::new("n").expect("a short key"), by: 1 })
}

fn answer(cluster: &mut Upgraded, node: u64, request: Request) -> Answer {
    let id = cluster.ask(node, request);
    cluster.elapse_ms(200);
    cluster.answer(id).cloned().expect("it is answered")
}

#[test]
fn the_nodes_of_one_process_reach_the_highest_level_at_once() {
    let mut cluster = Upgraded::start(vec![Restored::default(); 3], 0, |config| config);
    cluster.elect(1);
    cluster.elapse_ms(60);
    assert!((1..=3).all(|node| level(&cluster, node) == Level::MAX));
    let end = cluster.node(1).log().last().index;
    cluster.isolate(1);
    cluster.elapse_ms(2000);
    cluster.heal();
    cluster.elapse_ms(2000);
    let leader = cluster.leader().expect("there is one");
    let later = cluster.node(leader).log().entries_from(end.next(), usize::MAX);
    let payloads: Vec<_> = later.iter().flat_map(Entries::iter).map(|entry| entry.payload).collect();
    assert!(
        !payloads.is_empty() && payloads.iter().all(|payload| *payload == "\"op\":\"NOOP\""),
        "{payloads:?}"
    );
}

#[test]
fn a_member_that_supports_less_holds_the_level_back() {
    let mut cluster = members();
    cluster.complete_handshake_at(1, 2, 12, 0, Level::MAX);
    cluster.complete_handshake_at(1, 3, 13, 0, Level::FIRST);
    cluster.elapse_ms(200);
    assert_eq!(level(&cluster, 1), Level::FIRST);
    assert_eq!(answer(&mut cluster, 1, incr()), Answer::Refused(RequestRefusal::NotYet));
    // It is upgraded, and comes back under the same incarnation.
    cluster.complete_handshake_at(1, 3, 13, 0, Level::MAX);
    cluster.elapse_ms(200);
    assert!((1..=3).all(|node| level(&cluster, node) == Level::MAX));
    let answer = answer(&mut cluster, 1, incr());
    assert!(matches!(answer, Answer::Applied { outcome: Outcome::Sum(1), .. }), "{answer:?}");
}

#[test]
fn a_learner_that_has_not_come_yet_holds_the_level_back() {
    let mut cluster = members();
    cluster.ask(1, Request::ChangeMembers(MemberChange::AddLearnerAt(NodeId(4), "host:4".into()).into()));
    cluster.elapse_ms(200);
    (2..=3).for_each(|peer| cluster.complete_handshake_at(1, peer, 10 + peer, 0, Level::MAX));
    cluster.elapse_ms(200);
    assert_eq!(level(&cluster, 1), Level::FIRST);
    cluster.complete_handshake_at(1, 4, 14, 1, Level::MAX);
    cluster.elapse_ms(200);
    assert_eq!(level(&cluster, 1), Level::MAX);
}

#[test]
fn a_node_that_supports_less_is_bound_to_no_member() {
    let mut cluster = members();
    (2..=3).for_each(|peer| cluster.complete_handshake_at(1, peer, 10 + peer, 0, Level::MAX));
    cluster.elapse_ms(200);
    assert_eq!(level(&cluster, 1), Level::MAX);
    cluster.ask(1, Request::ChangeMembers(MemberChange::AddLearnerAt(NodeId(4), "host:4".into()).into()));
    cluster.elapse_ms(200);
    let bound = |cluster: &Upgraded| {
        let member = cluster.node(1).configuration().roster().member(NodeId(4)).cloned();
        member.expect("it was added").incarnation
    };
    cluster.complete_handshake_at(1, 4, 14, 1, Level::FIRST);
    cluster.elapse_ms(200);
    assert_eq!(bound(&cluster), None);
    cluster.complete_handshake_at(1, 4, 14, 1, Level::MAX);
    cluster.elapse_ms(200);
    assert_eq!(bound(&cluster), Some(Incarnation(14)));
}

#[test]
fn a_request_of_a_higher_level_waits_for_the_entry_that_raises_it() {
    let mut cluster = members();
    (2..=3).for_each(|peer| cluster.complete_handshake_at(1, peer, 10 + peer, 0, Level::MAX));
    let request = cluster.ask(1, incr());
    let early = cluster.answer(request).cloned();
    assert_eq!(early, Some(Answer::Refused(RequestRefusal::CatchingUp)), "the proxy sends it again");
    cluster.elapse_ms(60);
    assert!(matches!(answer(&mut cluster, 1, incr()), Answer::Applied { outcome: Outcome::Sum(1), .. }));
}

/// The entry that raises the level is in the log of a new leader that has not applied it. By then a
/// node of an older version must not be admitted any more.
#[test]
fn a_new_leader_admits_by_the_level_of_its_log() {
    let mut cluster = members();
    // The followers receive the entry, and no acknowledgement reaches the leader.
    (2..=3).for_each(|peer| cluster.cut(peer, 1));
    (2..=3).for_each(|peer| cluster.complete_handshake_at(1, peer, 10 + peer, 0, Level::MAX));
    let has_entry = |cluster: &Upgraded, node: u64| {
        let log = cluster.node(node).log().entries_from(LogIndex(1), usize::MAX);
        log.iter().flat_map(Entries::iter).any(|entry| entry.payload.starts_with("\"op\":\"LEVEL\""))
    };
    cluster.elapse_ms(60);
    assert!((1..=3).all(|node| has_entry(&cluster, node) && level(&cluster, node) == Level::FIRST));
    cluster.isolate(1);
    let is_new = |leader: Option<u64>| leader.filter(|leader| *leader != 1);
    while is_new(cluster.leader()).is_none() {
        cluster.elapse_ms(1);
    }
    let leader = is_new(cluster.leader()).expect("there is one");
    assert_eq!(cluster.subject(leader).0.known_members().level, Level::MAX);
    cluster.elapse_ms(200);
    assert_eq!(level(&cluster, leader), Level::MAX);
}

/// A removed member that does not support the level receives no entry that raises it.
#[test]
fn a_removed_member_is_told_before_the_level_is_raised() {
    let mut cluster = members();
    cluster.complete_handshake_at(1, 2, 12, 0, Level::MAX);
    cluster.complete_handshake_at(1, 3, 13, 0, Level::FIRST);
    cluster.elapse_ms(200);
    cluster.ask(1, Request::ChangeMembers(MemberChange::Remove(NodeId(3)).into()));
    cluster.elapse_ms(5000);
    assert_eq!((level(&cluster, 1), level(&cluster, 2)), (Level::MAX, Level::MAX));
    assert_eq!(level(&cluster, 3), Level::FIRST);
}
