//! Tests of the directory: members are added, move and are removed, and nodes dial that are not
//! members.

use super::*;
use crate::identity::Incarnation;
use crate::kv::Level;
use crate::raft::{Addition, LogIndex, Member, Roster, Voters};

fn at(secs: u64) -> Instant {
    Instant::default() + Duration::from_secs(secs)
}

fn roster(members: &[(u64, &str)]) -> Roster {
    let member = |(id, address): &(u64, &str)| {
        (NodeId(*id), Member::founder((*address).into(), Some(Incarnation(10 * id))))
    };
    Roster::new(members.iter().map(member))
}

fn configuration(members: &[(u64, &str)]) -> Configuration {
    let voters = Voters::new(members.iter().map(|(id, _)| NodeId(*id))).unwrap();
    Configuration::of_voters(voters).with_roster(&roster(members))
}

fn known(index: u64, members: &[(u64, &str)]) -> KnownMembers {
    let configuration = configuration(members);
    KnownMembers {
        configuration,
        index: LogIndex(index),
        named_index: LogIndex(index),
        is_settled: true,
        was_named: true,
        has_leader: true,
        level: Level::FIRST,
    }
}

fn directory(members: &[(u64, &str)]) -> Directory {
    let founders = crate::peer::Founders::new(roster(&[(1, "h:1"), (2, "h:2"), (3, "h:3")]));
    let local = LocalNode {
        id: NodeId(1),
        incarnation: Incarnation(10),
        client_address: None,
        boot: 5,
        standing: Standing::Member(founders, configuration(members)),
        configuration_index: LogIndex(0),
        named_index: LogIndex(0),
        is_settled: false,
        was_named: true,
        addition: Addition::default(),
        supports: Level::MAX,
        level: Level::FIRST,
    };
    Directory::new(local, Some("h:1".into()), BTreeMap::from([(NodeId(3), "proxy:3".into())]))
        .with_places(PLACES, MemoryBudget::unlimited())
}

/// The directory of another member of [`THREE`].
fn directory_of(node: u64) -> Directory {
    let mut directory = directory(&THREE);
    directory.local.id = NodeId(node);
    directory.local.incarnation = Incarnation(10 * node);
    directory
}

fn handshake(node: u64, address: &str) -> HandshakeResult {
    HandshakeResult {
        node: NodeId(node),
        incarnation: Incarnation(10 * node),
        address: Some(address.into()),
        client_address: None,
        configuration_index: LogIndex(0),
        boot: 7,
        addition: Addition::default(),
        supports: Level::MAX,
        is_of_cluster: true,
    }
}

fn start(node: u64, address: &str) -> LinkChange {
    LinkChange::Start(NodeId(node), address.into())
}

fn end(node: u64) -> LinkChange {
    LinkChange::End(NodeId(node))
}

/// Returns the link changes of a call.
fn changes(call: impl FnOnce(&mut PeerActions)) -> Vec<LinkChange> {
    let mut actions = PeerActions::default();
    call(&mut actions);
    actions.links
}

/// Returns the answer to a dialling node, and the resulting actions.
fn greet(directory: &mut Directory, line: &[u8], secs: u64) -> (Greeting, PeerActions) {
    let mut actions = PeerActions::default();
    (directory.greet(line, at(secs), &mut actions), actions)
}

/// A node of the cluster with another node's certificate, or one that answers under another id.
#[test]
fn a_node_must_state_the_id_that_it_has_proven() {
    let mut one = directory(&THREE);
    let hello = directory_of(2).hello(Some(NodeId(1)));
    for (proven, is_admitted) in [(None, true), (Some(2), true), (Some(3), false)] {
        let mut actions = PeerActions::default();
        let greeting = one.greet_proven(proven.map(NodeId), &hello, at(1), &mut actions);
        assert_eq!(greeting.handshake.is_some(), is_admitted, "{proven:?}");
        let told = actions.news.iter().any(|news| matches!(news, PeerNews::Report(PeerEvent::Stranger(..))));
        assert_eq!(told, !is_admitted);
    }
    let mut two = directory_of(2);
    let wrong = two.hello_to(Some(NodeId(1)), Some(NodeId(3))).unwrap_err();
    assert!(matches!(wrong, DialError::Refused(HandshakeRefusal::WrongNode { wanted: 1, found: 3 })));
    assert_eq!(two.hello_to(None, Some(NodeId(3))).unwrap(), two.hello(None));
    let welcome = one.greet(&hello, at(2), &mut PeerActions::default()).reply;
    assert!(two.accept_proven(None, Some(NodeId(3)), &welcome, at(2)).is_err());
    assert!(two.accept_proven(None, Some(NodeId(1)), &welcome, at(2)).is_ok());
    let tls = two.accept_proven(None, None, b"\x16", at(2)).unwrap_err();
    assert!(tls.to_string().contains("--peer-cert"), "{tls}");
}

const THREE: [(u64, &str); 3] = [(1, "h:1"), (2, "h:2"), (3, "h:3")];

const PLACES: PeerPlaces = PeerPlaces { handshakes: 4, inbound: 6, strangers: 8 };
const STRANGERS: usize = PLACES.strangers;

#[test]
fn every_member_but_itself_is_linked_once() {
    let mut directory = directory(&THREE);
    let mut first = PeerActions::default();
    directory.reach(at(0), &mut first);
    assert_eq!(first.links, [start(2, "h:2"), start(3, "h:3")]);
    let [PeerNews::Router(news)] = &first.news[..] else { panic!("{first:?}") };
    assert!(matches!(&news[..], [ProxyInput::Nodes(nodes)] if *nodes == [1, 2, 3].map(NodeId)));
    assert_eq!(changes(|changes| directory.reach(at(1), changes)), []);
    assert_eq!(&*directory.address_to_dial(Some(NodeId(2)), "h:2"), "h:2");
    assert_eq!(&*directory.address_to_dial(Some(NodeId(3)), "h:3"), "proxy:3");
}

#[test]
fn a_member_that_moves_gets_another_link() {
    let mut directory = directory(&THREE);
    changes(|changes| directory.reach(at(0), changes));
    let moved = known(5, &[(1, "h:1"), (2, "new:2"), (3, "h:3")]);
    assert_eq!(changes(|changes| directory.follow(&moved, at(1), changes)), [end(2), start(2, "new:2")]);
}

/// The removed member is answered until it has learned of its removal, and no longer.
#[test]
fn the_link_to_a_removed_member_ends_when_it_was_silent_for_the_grace_period() {
    let mut directory = directory(&THREE);
    changes(|changes| directory.reach(at(0), changes));
    let without = known(5, &THREE[..2]);
    assert_eq!(changes(|changes| directory.follow(&without, at(1), changes)), []);
    assert_eq!(changes(|changes| directory.tidy(at(6), |node| node == NodeId(3), changes)), []);
    let mut was_asked = false;
    let was_used = |_| std::mem::replace(&mut was_asked, true);
    changes(|changes| directory.tidy(at(6), was_used, changes));
    assert!(!was_asked, "it was looked a moment ago");
    assert_eq!(changes(|changes| directory.tidy(at(15), |_| false, changes)), []);
    assert_eq!(changes(|changes| directory.tidy(at(16), |_| false, changes)), [end(3)]);
    assert_eq!(changes(|changes| directory.tidy(at(100), |_| false, changes)), [], "members stay");
    let back = known(9, &THREE);
    assert_eq!(changes(|changes| directory.follow(&back, at(101), changes)), [start(3, "h:3")]);
    assert_eq!(changes(|changes| directory.tidy(at(200), |_| false, changes)), []);
}

/// A node whose log is behind may have a leader that it does not know yet, for as long as it takes
/// to catch up.
#[test]
fn a_node_that_is_not_a_member_is_linked_at_its_stated_address_while_it_is_answered() {
    let mut directory = directory(&THREE);
    changes(|changes| directory.reach(at(0), changes));
    let heard = changes(|changes| directory.heard(&handshake(9, "h:9"), at(1), changes));
    assert_eq!(heard, [start(9, "h:9")]);
    for now in (10..100).step_by(9) {
        assert_eq!(changes(|changes| directory.tidy(at(now), |_| true, changes)), []);
    }
    assert_eq!(changes(|changes| directory.tidy(at(200), |_| false, changes)), [end(9)]);
    let unchanged = known(5, &THREE);
    assert_eq!(changes(|changes| directory.follow(&unchanged, at(201), changes)), []);
    let wanted = changes(|changes| directory.wanted(NodeId(9), at(202), changes));
    assert_eq!(wanted, [start(9, "h:9")], "it is answered again");
    assert_eq!(changes(|changes| directory.wanted(NodeId(8), at(202), changes)), [], "nobody knows where");
    let heard = changes(|changes| directory.heard(&handshake(2, "elsewhere:2"), at(203), changes));
    assert_eq!(heard, [], "a member is where the configuration says");
}

/// A member that lacks the entry of the move learns the new address from the node itself.
#[test]
fn a_node_that_was_moved_dials_all_others_again() {
    let mut directory = directory(&THREE);
    changes(|changes| directory.reach(at(0), changes));
    let unmoved = known(4, &THREE);
    assert_eq!(changes(|changes| directory.follow(&unmoved, at(1), changes)), []);
    let moved = known(5, &[(1, "new:1"), (2, "h:2"), (3, "h:3")]);
    let again = [end(2), start(2, "h:2"), end(3), start(3, "h:3")];
    assert_eq!(changes(|changes| directory.follow(&moved, at(2), changes)), again);
    assert_eq!(changes(|changes| directory.follow(&moved, at(3), changes)), []);
}

/// Over its connections it acknowledges the entry that removes it. Without them the leader would
/// not tell it that the entry is committed.
#[test]
fn a_node_that_is_removed_keeps_its_connections() {
    let mut directory = directory(&THREE);
    changes(|changes| directory.reach(at(0), changes));
    changes(|changes| directory.follow(&known(4, &THREE), at(1), changes));
    let without = known(5, &[(2, "h:2"), (3, "h:3")]);
    assert_eq!(changes(|changes| directory.follow(&without, at(2), changes)), []);
}

/// For lack of threads. The failure is reported once, however often the link is tried.
#[test]
fn a_link_that_could_not_start_is_ordered_again() {
    let mut directory = directory(&THREE);
    changes(|changes| directory.reach(at(0), changes));
    let failed = |directory: &mut Directory| {
        let mut actions = PeerActions::default();
        directory.not_started(NodeId(2), &std::io::ErrorKind::WouldBlock.into(), &mut actions);
        assert_eq!(actions.links, [], "not at once: that would spin");
        actions.news.len()
    };
    assert_eq!(failed(&mut directory), 1);
    assert_eq!(changes(|changes| directory.tidy(at(1), |_| true, changes)), [start(2, "h:2")]);
    assert_eq!(failed(&mut directory), 0);
    assert_eq!(changes(|changes| directory.tidy(at(2), |_| true, changes)), [start(2, "h:2")]);
    assert_eq!(changes(|changes| directory.tidy(at(3), |_| true, changes)), [], "it has started");
}

#[test]
fn strangers_are_remembered_up_to_a_limit() {
    let mut directory = directory(&THREE);
    for node in 0..2 * STRANGERS as u64 {
        let address = format!("h:{node}");
        changes(|changes| directory.heard(&handshake(100 + node, &address), at(1), changes));
    }
    assert_eq!(directory.heard.len(), STRANGERS);
    // All of them are linked. Once nothing is sent to them, they make room for nodes that dial
    // later.
    assert_eq!(changes(|changes| directory.heard(&handshake(1000, "h:1000"), at(2), changes)), []);
    changes(|changes| directory.tidy(at(60), |_| false, changes));
    for node in 1000..1000 + 2 * STRANGERS as u64 {
        let heard = changes(|changes| directory.heard(&handshake(node, "late"), at(61), changes));
        assert_eq!(heard.len(), usize::from(node < 1000 + STRANGERS as u64), "node {node}");
    }
    assert_eq!(directory.heard.len(), STRANGERS);
}

#[test]
fn a_refusal_is_reported_once_per_reason() {
    let mut directory = directory(&THREE);
    let mut other = LocalNode { id: NodeId(2), incarnation: Incarnation(99), ..directory.local().clone() };
    let hello = other.hello(Some(NodeId(1)), None).encode();
    let (first, actions) = greet(&mut directory, &hello, 1);
    assert!(matches!(actions.news[..], [PeerNews::Report(PeerEvent::Stranger(NodeId(2), _))]));
    assert!(first.handshake.is_none());
    assert!(greet(&mut directory, &hello, 1).1.news.is_empty());
    assert!(greet(&mut directory, b"GET / HTTP/1.1", 1).1.news.is_empty(), "nobody knows who that is");
    other.incarnation = Incarnation(20);
    let (greeting, _) = greet(&mut directory, &other.hello(Some(NodeId(1)), None).encode(), 1);
    assert_eq!(greeting.handshake.map(|handshake| handshake.node), Some(NodeId(2)));
}

#[test]
fn a_newer_connection_takes_the_place_of_an_older_one_and_not_the_other_way_round() {
    let mut directory = directory(&THREE);
    assert!(directory.is_newest(NodeId(2), 5));
    assert!(!directory.is_newest(NodeId(2), 4), "its handshake took longer");
    assert!(directory.is_newest(NodeId(2), 7));
    assert!(!directory.leave(NodeId(2), 5));
    assert!(directory.leave(NodeId(2), 7));
    assert!(directory.is_newest(NodeId(2), 6));
}

/// A process that knows the cluster's name may dial under any number of ids; a member still has
/// room.
#[test]
fn nodes_that_are_not_members_have_few_places_and_take_none_of_a_member() {
    let mut directory = directory(&THREE);
    let admitted = (10..40).filter(|node| directory.is_newest(NodeId(*node), 8)).count();
    assert_eq!(admitted, PLACES.inbound);
    assert!(directory.is_newest(NodeId(2), 9) && directory.is_newest(NodeId(3), 10));
    assert!(directory.leave(NodeId(10), 8));
    assert!(directory.is_newest(NodeId(40), 11) && !directory.is_newest(NodeId(41), 12));
}

#[test]
fn a_joiner_learns_all_addresses_from_the_configuration() {
    let mut directory = directory(&THREE);
    let standing = directory.local().standing.clone();
    directory.local.standing = Standing::Joining;
    directory.address = None;
    directory.found(standing, Some(&configuration(&[(1, "mine:1"), (7, "h:7")])));
    assert_eq!(directory.address(), Some("mine:1"));
    let reached = changes(|changes| directory.reach(at(0), changes));
    assert_eq!(reached, [start(2, "h:2"), start(3, "h:3"), start(7, "h:7")]);
}

/// A node that is behind may have another address for a member, or another node under its id. Its
/// vote requests must be answered all the same.
#[test]
fn a_member_with_a_later_configuration_is_linked_at_its_stated_address() {
    let mut directory = directory(&THREE);
    changes(|changes| directory.reach(at(0), changes));
    let early = handshake(2, "new:2");
    assert_eq!(
        changes(|changes| directory.heard(&early, at(1), changes)),
        [],
        "the configuration knows better"
    );
    let later = HandshakeResult { configuration_index: LogIndex(5), ..early };
    let moved = changes(|changes| directory.heard(&later, at(2), changes));
    assert_eq!(moved, [end(2), start(2, "new:2")]);
    let still_behind = changes(|changes| directory.follow(&known(4, &THREE), at(3), changes));
    assert_eq!(still_behind, []);
    let there = [(1, "h:1"), (2, "newest:2"), (3, "h:3")];
    let caught_up = changes(|changes| directory.follow(&known(5, &there), at(4), changes));
    assert_eq!(caught_up, [end(2), start(2, "newest:2")]);
}

/// A copied data folder runs as a second process, which is refused whatever it states. After a
/// restart of the node the new process is accepted.
#[test]
fn a_second_process_of_a_node_is_refused_while_the_first_one_answers() {
    let mut directory = directory(&THREE);
    changes(|changes| directory.reach(at(0), changes));
    let process = |boot: u64, client: &str| {
        let founders = crate::peer::Founders::new(roster(&THREE));
        LocalNode {
            id: NodeId(2),
            incarnation: Incarnation(20),
            client_address: Some(client.into()),
            boot,
            standing: Standing::Member(founders, configuration(&THREE)),
            configuration_index: LogIndex(0),
            named_index: LogIndex(0),
            is_settled: false,
            was_named: true,
            addition: Addition::default(),
            supports: Level::MAX,
            level: Level::FIRST,
        }
    };
    let (first, copy) = (process(8, "first:2"), process(9, "copy:2"));
    let dial = |directory: &mut Directory, answering: &LocalNode, secs: u64| {
        let hello = Hello::decode(&directory.hello(Some(NodeId(2)))).unwrap();
        let (welcome, _) = answering.answer(&hello).unwrap();
        directory.accept(Some(NodeId(2)), &welcome.encode(), at(secs)).unwrap();
    };
    let answer = greet;
    let greet = |directory: &mut Directory, dialling: &LocalNode, secs: u64| {
        answer(directory, &dialling.hello(Some(NodeId(1)), None).encode(), secs)
    };
    dial(&mut directory, &first, 1);
    assert!(greet(&mut directory, &first, 2).0.handshake.is_some());
    let (refused, actions) = greet(&mut directory, &copy, 3);
    assert!(refused.handshake.is_none() && actions.links.is_empty());
    let said = String::from_utf8(refused.reply).unwrap();
    assert!(said.contains("first:2") && said.contains("copy:2"), "{said}");
    let (doubted, actions) = greet(&mut directory, &copy, 20);
    assert_eq!(actions.links, [end(2), start(2, "h:2")], "it is long ago that the first one answered");
    assert!(doubted.handshake.is_none());
    dial(&mut directory, &first, 20);
    assert!(greet(&mut directory, &copy, 21).0.handshake.is_none(), "it still does");
    greet(&mut directory, &copy, 40);
    assert!(greet(&mut directory, &copy, 41).0.handshake.is_some(), "nobody answers there any more");
    dial(&mut directory, &copy, 42);
    assert!(greet(&mut directory, &copy, 43).0.handshake.is_some());
}

/// All nodes were stopped, and start at other addresses. A later membership change that moves one
/// of them takes precedence.
#[test]
fn founders_that_moved_while_stopped_are_dialled_at_the_addresses_of_the_flags() {
    let (mut directory, report) = directory(&THREE).with_moved(BTreeMap::from([(NodeId(2), "far:2".into())]));
    assert!(report.is_some_and(|report| report.to_string().contains("2=far:2")));
    assert_eq!(&*directory.address_to_dial(Some(NodeId(2)), "h:2"), "far:2");
    assert_eq!(&*directory.address_to_dial(Some(NodeId(4)), "h:4"), "h:4");
    let ordered = [(1, "h:1"), (2, "farther:2"), (3, "h:3")];
    changes(|changes| directory.follow(&known(5, &ordered), at(1), changes));
    assert_eq!(&*directory.address_to_dial(Some(NodeId(2)), "farther:2"), "farther:2");
}

/// A node that was removed while its connections were up, and a node that has known no leader since
/// its start, dial the members again, one after the other.
#[test]
fn a_node_without_a_leader_dials_one_member_after_the_other() {
    let mut directory = directory(&THREE);
    changes(|changes| directory.reach(at(0), changes));
    let reach = |directory: &mut Directory, node: u64, secs: u64| {
        let founders = crate::peer::Founders::new(roster(&THREE));
        let standing = Standing::Member(founders, configuration(&THREE));
        let (id, incarnation) = (NodeId(node), Incarnation(10 * node));
        let other = LocalNode { id, incarnation, standing, ..directory.local().clone() };
        let hello = Hello::decode(&directory.hello(Some(id))).unwrap();
        let (welcome, _) = other.answer(&hello).unwrap();
        directory.accept(Some(id), &welcome.encode(), at(secs)).unwrap();
    };
    let refuse = |directory: &mut Directory, node: u64, secs: u64| {
        let refusal = HandshakeRefusal::RunsTwice { node: 1, first: "a:1".into(), second: "b:1".into() };
        directory.accept(Some(NodeId(node)), &refusal.encode(), at(secs)).unwrap_err();
    };
    let dialled =
        |directory: &mut Directory, secs: u64| changes(|changes| directory.tidy(at(secs), |_| true, changes));
    assert_eq!(dialled(&mut directory, 1), []);
    assert_eq!(dialled(&mut directory, 9), [], "none of them was reached: they are being dialled");
    reach(&mut directory, 2, 10);
    reach(&mut directory, 3, 11);
    assert_eq!(dialled(&mut directory, 15), [end(2), start(2, "h:2")]);
    assert_eq!(dialled(&mut directory, 17), []);
    assert_eq!(dialled(&mut directory, 21), [end(3), start(3, "h:3")]);
    assert_eq!(dialled(&mut directory, 30), [], "both are being dialled");
    reach(&mut directory, 2, 31);
    reach(&mut directory, 3, 31);
    refuse(&mut directory, 2, 32);
    assert_eq!(dialled(&mut directory, 36), [end(3), start(3, "h:3")]);
    assert_eq!(dialled(&mut directory, 42), [], "one refuses this node, which goes on dialling it");
    changes(|changes| directory.follow(&known(1, &THREE), at(43), changes));
    assert_eq!(dialled(&mut directory, 60), [], "there is a leader");
}

/// Nodes with an earlier configuration would dial it at the address that it states.
#[test]
fn a_node_that_was_moved_states_its_new_address() {
    let mut directory = directory(&THREE);
    assert_eq!(directory.address(), Some("h:1"));
    let moved = [(1, "new:1"), (2, "h:2"), (3, "h:3")];
    changes(|changes| directory.follow(&known(5, &moved), at(1), changes));
    assert_eq!(directory.address(), Some("new:1"));
    let removed = [(2, "h:2"), (3, "h:3")];
    changes(|changes| directory.follow(&known(6, &removed), at(2), changes));
    assert_eq!(directory.address(), Some("new:1"));
}
