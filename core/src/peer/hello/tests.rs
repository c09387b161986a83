//! Tests of handshakes between nodes in every standing.

use std::collections::BTreeMap;

use super::*;
use crate::raft::Voters;

fn member(port: u64, incarnation: Option<u64>) -> Member {
    Member::founder(format!("host:{port}").into(), incarnation.map(Incarnation))
}

fn peers(ids: &[u64]) -> Roster {
    Roster::new(ids.iter().map(|id| (NodeId(*id), member(*id, None))))
}

fn founders() -> Founders {
    Founders::new(Roster::new((1..=3).map(|id| (NodeId(id), member(id, Some(10 + id))))))
}

fn local(id: u64, incarnation: u64, standing: Standing) -> LocalNode {
    let client_address = Some("client:1".into());
    let (id, incarnation, configuration_index) = (NodeId(id), Incarnation(incarnation), LogIndex(0));
    LocalNode {
        id,
        incarnation,
        client_address,
        boot: 3,
        standing,
        configuration_index,
        named_index: configuration_index,
        is_settled: true,
        was_named: true,
        addition: Addition::default(),
        supports: Level::MAX,
        level: Level::FIRST,
    }
}

/// Returns the same node, whose log knows the members, and names it, up to this index.
fn knowing(index: u64, node: LocalNode) -> LocalNode {
    LocalNode { configuration_index: LogIndex(index), named_index: LogIndex(index), ..node }
}

fn founded(id: u64) -> LocalNode {
    let configuration = LocalNode::first_configuration(&founders()).unwrap();
    local(id, 10 + id, Standing::Member(founders(), configuration))
}

/// Runs both sides of a handshake, through encoded lines.
fn shake(
    dialler: &LocalNode,
    to: Option<u64>,
    other: &LocalNode,
) -> Result<(HandshakeResult, HandshakeResult, Welcome), HandshakeRefusal> {
    // A joiner does not know its address yet.
    let address = if dialler.standing == Standing::Joining { None } else { Some("host:9") };
    shake_from(dialler, address, to, other)
}

fn shake_from(
    dialler: &LocalNode,
    address: Option<&str>,
    to: Option<u64>,
    other: &LocalNode,
) -> Result<(HandshakeResult, HandshakeResult, Welcome), HandshakeRefusal> {
    let to = to.map(NodeId);
    let hello = Hello::decode(&dialler.hello(to, address).encode())?;
    let line = match other.answer(&hello) {
        Ok((welcome, seen)) => (welcome.encode(), Some(seen)),
        Err(refusal) => (refusal.encode(), None),
    };
    let welcome = Welcome::decode(&line.0)?;
    let met = dialler.accept(to, &welcome)?;
    Ok((met, line.1.unwrap(), welcome))
}

#[test]
fn members_of_one_cluster_connect() {
    let (met, seen, _) = shake(&founded(1), Some(2), &founded(2)).unwrap();
    assert!(met.is_of_cluster && seen.is_of_cluster);
    assert_eq!((met.node, met.incarnation), (NodeId(2), Incarnation(12)));
    assert_eq!((seen.node, seen.incarnation), (NodeId(1), Incarnation(11)));
    assert_eq!(seen.address.as_deref(), Some("host:9"));
    assert_eq!(met.client_address.as_deref(), Some("client:1"));
}

#[test]
fn founders_that_completed_all_handshakes_derive_the_same_cluster() {
    let nodes: Vec<_> = (1..=3).map(|id| local(id, 10 + id, Standing::Founding(peers(&[1, 2, 3])))).collect();
    let mut found = Vec::new();
    for dialler in &nodes {
        let mut met = BTreeMap::new();
        for other in nodes.iter().filter(|other| other.id != dialler.id) {
            assert_eq!(dialler.found(&met), None, "not before all have met");
            let (handshake, _, welcome) = shake(dialler, Some(other.id.0), other).unwrap();
            assert!(!handshake.is_of_cluster);
            assert_eq!(welcome.cluster(), Ok(None));
            met.insert(handshake.node, handshake.incarnation);
        }
        found.push(dialler.found(&met).unwrap());
    }
    assert!(found.iter().all(|one| *one == founders()), "{found:?}");
    let other = Founders::new(founders().roster.with(NodeId(2), member(2, Some(99))));
    assert_ne!(other.cluster, founders().cluster, "another life is another cluster");
}

#[test]
fn an_interrupted_founder_learns_of_the_cluster() {
    let late = local(3, 13, Standing::Founding(peers(&[1, 2, 3])));
    let (_, seen, welcome) = shake(&late, Some(1), &founded(1)).unwrap();
    assert!(!seen.is_of_cluster, "it has to write that down first");
    assert_eq!(welcome.cluster().unwrap().unwrap().0, founders());
}

#[test]
fn a_node_without_its_files_is_refused_by_both_ends() {
    for standing in [Standing::Founding(peers(&[1, 2, 3])), Standing::Joining] {
        let wiped = local(3, 77, standing);
        let refusal = shake(&wiped, None, &founded(1)).unwrap_err();
        assert!(matches!(&refusal, HandshakeRefusal::OtherIncarnation { node: 3, .. }), "{refusal}");
        assert!(refusal.is_final_for(NodeId(3)) && !refusal.is_final_for(NodeId(1)));
        assert!(refusal.to_string().contains("coracle member remove 3"), "{refusal}");
        let (met, ..) = shake(&founded(1), Some(3), &wiped).unwrap();
        assert!(!met.is_of_cluster, "nothing is sent to it");
    }
    let cloned = LocalNode { incarnation: Incarnation(77), ..founded(3) };
    assert!(matches!(shake(&cloned, Some(1), &founded(1)), Err(HandshakeRefusal::OtherIncarnation { .. })));
    assert!(matches!(shake(&founded(1), Some(3), &cloned), Err(HandshakeRefusal::OtherIncarnation { .. })));
}

#[test]
fn a_node_of_another_cluster_is_refused_by_name() {
    let theirs = Founders { cluster: ClusterId(5), ..founders() };
    let configuration = LocalNode::first_configuration(&theirs).unwrap();
    let stranger = local(2, 12, Standing::Member(theirs, configuration));
    for (dialler, other) in [(&stranger, &founded(1)), (&founded(1), &stranger)] {
        let refusal = shake(dialler, Some(other.id.0), other).unwrap_err();
        assert!(matches!(&refusal, HandshakeRefusal::OtherCluster { .. }), "{refusal}");
        assert!(refusal.to_string().contains(&ClusterId(5).to_string()), "{refusal}");
    }
}

#[test]
fn a_refusal_names_the_node_that_answered() {
    let refusal = shake(&founded(1), Some(3), &founded(2)).unwrap_err();
    assert_eq!(refusal, HandshakeRefusal::WrongNode { wanted: 3, found: 2 });
}

#[test]
fn founders_must_have_the_same_list_of_founders() {
    let one = local(1, 11, Standing::Founding(peers(&[1, 2, 3])));
    let other = local(2, 12, Standing::Founding(peers(&[1, 2])));
    assert_eq!(shake(&one, Some(2), &other).unwrap_err(), HandshakeRefusal::OtherFounders);
}

#[test]
fn a_joiner_must_have_been_added() {
    let joiner = local(4, 14, Standing::Joining);
    let Standing::Member(founders, configuration) = founded(1).standing else { unreachable!() };
    assert_eq!(shake(&joiner, None, &founded(1)).unwrap_err(), HandshakeRefusal::NotMember { node: 4 });
    let roster = configuration.roster().with(NodeId(4), member(4, None));
    let voters = configuration.voters().clone();
    let wider = Configuration::new(voters, [NodeId(4)]).unwrap().with_roster(&roster);
    let leader = local(1, 11, Standing::Member(founders.clone(), wider.clone()));
    let (_, _, welcome) = shake(&joiner, None, &leader).unwrap();
    assert_eq!(welcome.cluster(), Ok(Some((founders.clone(), wider))));
    // The joiner has its files now; the leader's configuration still lacks its incarnation.
    let base = LocalNode::first_configuration(&founders).unwrap();
    let joined = local(4, 14, Standing::Member(founders, base));
    let (met, seen, _) = shake(&joined, Some(1), &leader).unwrap();
    assert!(met.is_of_cluster && seen.is_of_cluster);
}

/// A founder that lost its files and was started as before would take the place of its replacement
/// on another machine.
#[test]
fn a_node_at_another_address_is_not_the_one_that_was_added() {
    let Standing::Member(founders, configuration) = founded(1).standing else { unreachable!() };
    let roster = configuration.roster().with(NodeId(4), member(4, None));
    let wider = Configuration::new(configuration.voters().clone(), [NodeId(4)]).unwrap().with_roster(&roster);
    let leader = local(1, 11, Standing::Member(founders, wider));
    let expected = roster.member(NodeId(4)).unwrap().address.clone();
    let joiner = local(4, 14, Standing::Joining);
    let refusal = shake_from(&joiner, Some("elsewhere:4"), Some(1), &leader).unwrap_err();
    let found = "elsewhere:4".into();
    assert_eq!(refusal, HandshakeRefusal::OtherAddress { node: 4, expected: expected.clone(), found });
    assert!(shake_from(&joiner, Some(&*expected), Some(1), &leader).is_ok());
}

/// A node that was removed long ago may know only an address at which another member runs by now.
#[test]
fn any_member_that_answers_reports_a_removal() {
    let removed = founded(3);
    let Standing::Member(founders, configuration) = founded(1).standing else { unreachable!() };
    let roster = Roster::new(
        configuration.roster().iter().filter(|(id, _)| id.0 != 3).map(|(id, member)| (id, member.clone())),
    );
    let smaller = Configuration::of_voters(Voters::new([NodeId(1), NodeId(2)]).unwrap()).with_roster(&roster);
    let member = knowing(7, local(1, 11, Standing::Member(founders, smaller)));
    let refusal = shake(&removed, Some(2), &member).unwrap_err();
    assert_eq!(refusal, HandshakeRefusal::Removed { node: 3, index: 7 });
}

/// A founder that lost its files finds joiners at the addresses of the other founders, and must not
/// bootstrap a cluster with them.
#[test]
fn no_cluster_is_bootstrapped_with_a_joiner() {
    let founder = local(1, 11, Standing::Founding(peers(&[1, 2])));
    let joiner = local(2, 12, Standing::Joining);
    assert_eq!(shake(&founder, Some(2), &joiner).unwrap_err(), HandshakeRefusal::OtherFounders);
    let companion = local(2, 12, Standing::Founding(peers(&[1, 2])));
    assert!(shake(&founder, Some(2), &companion).is_ok());
}

#[test]
fn other_lines_are_not_understood() {
    let hello = founded(1).hello(None, None).encode();
    let text = String::from_utf8(hello).unwrap();
    for line in ["", "{}", r#"{"key":"snack"}"#, &text.replace("\"version\":3", "\"version\":2")] {
        assert_eq!(Hello::decode(line.as_bytes()), Err(HandshakeRefusal::NotUnderstood), "{line}");
        assert_eq!(Welcome::decode(line.as_bytes()), Err(HandshakeRefusal::NotUnderstood), "{line}");
    }
}

#[test]
fn the_longest_greeting_fits() {
    let address: Box<str> = "a".repeat(crate::raft::ADDRESS_BYTES_MAX).into();
    let longest = |id: u64| (NodeId(u64::MAX - id), Member::founder(address.clone(), Some(Incarnation(1))));
    let founders = Founders::new(Roster::new((0..9).map(longest)));
    let configuration = Configuration::restored(
        Voters::new(founders.ids()).unwrap(),
        Voters::new((10..19).map(|id| NodeId(u64::MAX - id))),
        (20..36).map(|id| NodeId(u64::MAX - id)),
    );
    let configuration = configuration.unwrap().with_roster(&Roster::new((0..40).map(longest)));
    assert_eq!(configuration.roster().iter().count(), 34);
    let node = local(u64::MAX, 1, Standing::Member(founders, configuration));
    let (welcome, _) = node.answer(&node.hello(None, Some(&address))).unwrap();
    assert!(welcome.encode().len() < HELLO_BYTES_MAX, "{}", welcome.encode().len());
}

#[test]
fn a_member_that_is_behind_accepts_a_node_that_was_added_again() {
    let Standing::Member(founders, configuration) = founded(1).standing else { unreachable!() };
    let roster = configuration.roster().with(NodeId(2), member(2, Some(99)));
    let standing = Standing::Member(founders, configuration.clone().with_roster(&roster));
    let again = knowing(9, local(2, 99, standing));
    let behind = knowing(8, founded(1));
    for (dialler, other) in [(&behind, &again), (&again, &behind)] {
        let (met, seen, _) = shake(dialler, Some(other.id.0), other).unwrap();
        assert!(met.is_of_cluster && seen.is_of_cluster);
    }
    let as_much = knowing(9, founded(3));
    assert!(matches!(shake(&as_much, Some(2), &again), Err(HandshakeRefusal::OtherIncarnation { .. })));
}

/// A member that was removed while it was down learns of it when it returns, and only from a
/// committed configuration.
#[test]
fn a_later_committed_configuration_refuses_a_removed_member() {
    let founders = founders();
    let voters = Voters::new([NodeId(1), NodeId(2)]).unwrap();
    let without = Configuration::of_voters(voters).with_roster(&founders.roster);
    let standing = Standing::Member(founders, without);
    let remaining = knowing(9, local(1, 11, standing));
    let removed = knowing(4, founded(3));
    let told = HandshakeRefusal::Removed { node: 3, index: 9 };
    assert_eq!(shake(&removed, Some(1), &remaining).unwrap_err(), told);
    assert!(told.is_final_for(NodeId(3)) && !told.is_final_for(NodeId(1)));
    let knows_as_much = knowing(9, removed.clone());
    assert_eq!(
        shake(&knows_as_much, Some(1), &remaining).unwrap_err(),
        told,
        "its log ends with its removal"
    );
    let open = LocalNode { is_settled: false, ..remaining.clone() };
    assert!(shake(&removed, Some(1), &open).is_ok(), "that configuration may be rolled back");
    let knows_later = knowing(10, removed.clone());
    assert!(shake(&knows_later, Some(1), &remaining).is_ok(), "it may have been added again");
    let new = LocalNode { was_named: false, ..removed };
    assert!(shake(&new, Some(1), &remaining).is_ok(), "it waits to become a member");
}

/// Additions are counted, so a node that was added and has received nothing since learns that its
/// addition was undone: also when its id was added again, and when no log contains the removal any
/// more.
#[test]
fn a_node_learns_that_its_addition_was_undone() {
    let founders = founders();
    let first = LocalNode::first_configuration(&founders).unwrap();
    let after = |additions: u64, addition: Option<(u64, Option<u64>)>| {
        let learner = addition.map(|_| NodeId(4));
        let members = addition.map(|(addition, incarnation)| {
            (NodeId(4), Member { addition: Addition(addition), ..member(4, incarnation) })
        });
        let roster = members.into_iter().fold(first.roster().clone(), |roster, (id, it)| roster.with(id, it));
        let configuration = Configuration::new(first.voters().clone(), learner).unwrap();
        let configuration = configuration.with_roster(&roster).with_last_addition(Addition(additions));
        knowing(9, local(1, 11, Standing::Member(founders.clone(), configuration)))
    };
    let let_in_as = |addition: u64| {
        let own = local(4, 44, Standing::Member(founders.clone(), first.clone()));
        LocalNode { was_named: false, addition: Addition(addition), ..own }
    };
    let told = Err(HandshakeRefusal::Removed { node: 4, index: 9 });
    let ends = |own: &LocalNode, other: &LocalNode| {
        let asked = shake(own, Some(1), other).map(|_| ());
        assert_eq!(shake(other, Some(4), own).map(|_| ()), asked, "whoever dials");
        asked
    };
    assert_eq!(ends(&let_in_as(2), &after(3, None)), told, "removed");
    assert_eq!(ends(&let_in_as(2), &after(3, Some((3, None)))), told, "and added again");
    assert_eq!(ends(&let_in_as(2), &after(3, Some((3, Some(45))))), told, "for another incarnation");
    assert_eq!(ends(&let_in_as(3), &after(3, Some((3, None)))), Ok(()), "this is the node");
    assert_eq!(ends(&let_in_as(4), &after(3, Some((3, None)))), Ok(()), "it knows better");
    assert_eq!(ends(&let_in_as(4), &after(3, None)), Ok(()), "it was added since");
    let open = LocalNode { is_settled: false, ..after(3, None) };
    assert_eq!(ends(&let_in_as(2), &open), Ok(()), "the removal may be rolled back");
}

/// An addition that may be rolled back admits no node: the same number could become another node's.
#[test]
fn only_a_committed_addition_admits_a_node() {
    let founders = founders();
    let first = LocalNode::first_configuration(&founders).unwrap();
    let added = Member { addition: Addition(1), ..member(4, None) };
    let configuration = Configuration::new(first.voters().clone(), [NodeId(4)]).unwrap();
    let configuration = configuration.with_roster(&first.roster().with(NodeId(4), added));
    let there = local(1, 11, Standing::Member(founders, configuration.with_last_addition(Addition(1))));
    let joiner = local(4, 44, Standing::Joining);
    let hello = joiner.hello(None, Some("host:4"));
    let open = LocalNode { is_settled: false, ..there.clone() };
    assert_eq!(open.answer(&hello).unwrap_err(), HandshakeRefusal::NotMember { node: 4 });
    let (welcome, _) = there.answer(&hello).unwrap();
    let (_, configuration) = welcome.cluster().unwrap().unwrap();
    assert_eq!(configuration.roster().member(NodeId(4)).unwrap().addition, Addition(1));
}

/// A removed member may have a later change in its log that was rolled back everywhere else. Seen
/// in the life-cycle simulator: after a restart it passed for a node that knows more than all
/// members, and none of them reported its removal to it.
#[test]
fn a_rolled_back_change_does_not_hide_a_removal() {
    let founders = founders();
    let voters = Voters::new([NodeId(1), NodeId(2)]).unwrap();
    let without = Configuration::of_voters(voters).with_roster(&founders.roster);
    let remaining = knowing(9, local(1, 11, Standing::Member(founders.clone(), without.clone())));
    let removed = knowing(4, local(3, 13, Standing::Member(founders, without)));
    let misled = LocalNode { configuration_index: LogIndex(10), ..removed };
    let told = HandshakeRefusal::Removed { node: 3, index: 9 };
    assert_eq!(shake(&misled, Some(1), &remaining).unwrap_err(), told);
    assert_eq!(shake(&remaining, Some(3), &misled).unwrap_err(), told, "whoever dials");
}

#[test]
fn a_node_that_supports_less_than_the_level_is_refused() {
    let raised = LocalNode { level: Level::MAX, ..founded(1) };
    let old = LocalNode { supports: Level::FIRST, ..founded(2) };
    let refused = HandshakeRefusal::LevelTooLow { node: 2, level: Level::MAX.0 };
    assert_eq!(raised.answer(&old.hello(None, None)).map(|_| ()), Err(refused.clone()));
    let (welcome, handshake) = old.answer(&raised.hello(None, None)).unwrap();
    assert_eq!(handshake.supports, Level::MAX);
    assert_eq!(raised.accept(None, &welcome).map(|_| ()), Err(refused));
    // Programs without levels state none.
    let line = String::from_utf8(founded(2).hello(None, None).encode()).unwrap();
    let line = line.replace(",\"level\":1", "");
    let hello = Hello::decode(line.as_bytes()).unwrap();
    assert_eq!(founded(1).answer(&hello).map(|(_, handshake)| handshake.supports), Ok(Level::FIRST));
    assert!(raised.answer(&hello).is_err());
}
