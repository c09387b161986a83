//! The names and fields of events in JSON log lines, from two closed lists. docs/logs.md describes
//! them, and a test compares it with the lists in both directions.
//!
//! The message of a line is for people and may change. Programs read these fields, which do not.

use clap::ValueEnum;
use coracle_core::peer::PeerEvent;
use coracle_core::raft::{Event, NodeId};
use coracle_storage::{HostEvent, NodeEvent};
use serde_json::{Value, json};

/// The names of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(super) enum EventName {
    PreVoteStarted,
    ElectionStarted,
    BecameLeader,
    BecameFollower,
    LeaderFound,
    TransferStarted,
    TransferFailed,
    MembershipChanged,
    Removed,
    SnapshotInstalled,
    SnapshotPostponed,
    LogCut,
    NodeReady,
    DiskHangs,
    DiskRecovered,
    DiskFailed,
    MessageDropped,
    FileRepaired,
    PeerConnected,
    PeerLost,
    PeerRefused,
    StrangerRefused,
    PeerUnproven,
    BootstrapWaits,
    JoinWaits,
    ClusterFound,
    PeersMoved,
    ServerStarts,
    ServerStopped,
    /// Any other line about the server itself.
    Server,
    LinesDropped,
}

/// The names of fields. Each event has some of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(super) enum Field {
    Node,
    Term,
    Votes,
    Leader,
    Peer,
    Peers,
    Members,
    Index,
    LastIndex,
    WaitedMs,
    Address,
    Reason,
    Count,
}

/// The fields of one event.
pub(super) type Fields = Vec<(Field, Value)>;

/// Returns the name of a value of one of the lists.
pub(super) fn name_of<Listed: ValueEnum>(listed: Listed) -> String {
    listed.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// Returns the name and the fields of an event.
pub(super) fn of(event: &HostEvent) -> (EventName, Fields) {
    let (name, fields) = match &event.event {
        NodeEvent::Raft(event) => of_raft(event),
        NodeEvent::Peer(event) => of_peer(event),
        NodeEvent::Notice(notice) => (EventName::FileRepaired, vec![reason(notice)]),
        NodeEvent::Failed(error) => (EventName::DiskFailed, vec![reason(error)]),
    };
    let node = (Field::Node, json!(event.node.0));
    (name, [node].into_iter().chain(fields).collect())
}

fn of_raft(event: &Event) -> (EventName, Fields) {
    match event {
        Event::BecamePreCandidate { term } => (EventName::PreVoteStarted, vec![(Field::Term, json!(term.0))]),
        Event::BecameCandidate { term } => (EventName::ElectionStarted, vec![(Field::Term, json!(term.0))]),
        Event::BecameLeader { term, votes } => {
            (EventName::BecameLeader, vec![(Field::Term, json!(term.0)), (Field::Votes, json!(votes))])
        }
        Event::BecameFollower { term, because } => {
            (EventName::BecameFollower, vec![(Field::Term, json!(term.0)), reason(because)])
        }
        Event::LeaderFound { term, leader } => {
            (EventName::LeaderFound, vec![(Field::Term, json!(term.0)), (Field::Leader, json!(leader.0))])
        }
        Event::TransferStarted { to } => (EventName::TransferStarted, vec![peer(*to)]),
        Event::TransferFailed { to } => (EventName::TransferFailed, vec![peer(*to)]),
        Event::MembershipChanged { index, configuration } => (
            EventName::MembershipChanged,
            vec![(Field::Index, json!(index.0)), (Field::Members, nodes(&configuration.members()))],
        ),
        Event::Removed { index } => (EventName::Removed, vec![(Field::Index, json!(index.0))]),
        Event::SnapshotInstalled { last } => {
            (EventName::SnapshotInstalled, vec![(Field::LastIndex, json!(last.0))])
        }
        Event::LogCut { from, to } => {
            (EventName::LogCut, vec![(Field::Index, json!(from.0)), (Field::LastIndex, json!(to.0))])
        }
        Event::Ready => (EventName::NodeReady, Vec::new()),
        Event::SnapshotPutOff { why } => (EventName::SnapshotPostponed, vec![reason(why)]),
        Event::DiskHangs { waited } => {
            let ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
            (EventName::DiskHangs, vec![(Field::WaitedMs, json!(ms))])
        }
        Event::DiskRecovered => (EventName::DiskRecovered, Vec::new()),
        Event::MessageRefused { from, because } => {
            (EventName::MessageDropped, vec![peer(*from), reason(because)])
        }
    }
}

fn of_peer(event: &PeerEvent) -> (EventName, Fields) {
    match event {
        PeerEvent::Connected(node) => (EventName::PeerConnected, vec![peer(*node)]),
        PeerEvent::Lost(node, why) => (EventName::PeerLost, vec![peer(*node), reason(why)]),
        PeerEvent::Refused(node, why) => (EventName::PeerRefused, vec![peer(*node), reason(why)]),
        PeerEvent::Stranger(node, why) => (EventName::StrangerRefused, vec![peer(*node), reason(why)]),
        PeerEvent::Unproven(node, why) => {
            (EventName::PeerUnproven, node.iter().map(|node| peer(*node)).chain([reason(why)]).collect())
        }
        PeerEvent::WaitsFor(missing) => (EventName::BootstrapWaits, vec![(Field::Peers, nodes(missing))]),
        PeerEvent::Joining(address, why) => {
            (EventName::JoinWaits, vec![(Field::Address, json!(address)), reason(why)])
        }
        PeerEvent::Founded => (EventName::ClusterFound, Vec::new()),
        PeerEvent::Moved(moved) => {
            let moved: Vec<_> = moved.iter().map(|(node, _)| *node).collect();
            (EventName::PeersMoved, vec![(Field::Peers, nodes(&moved))])
        }
    }
}

fn reason(why: &impl ToString) -> (Field, Value) {
    (Field::Reason, json!(why.to_string()))
}

fn peer(node: NodeId) -> (Field, Value) {
    (Field::Peer, json!(node.0))
}

fn nodes(nodes: &[NodeId]) -> Value {
    nodes.iter().map(|node| node.0).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use coracle_core::peer::HandshakeRefusal;
    use coracle_core::raft::{LogIndex, MessageRefusal, StepDown, Term};

    use super::*;

    const DOCUMENT: &str = include_str!("../../../docs/logs.md");

    /// The first cells of the rows of a table, with the second ones.
    fn rows(heading: &str) -> Vec<(String, String)> {
        let (_, section) = DOCUMENT.split_once(&format!("## {heading}\n")).unwrap();
        let section = section.split("\n## ").next().unwrap();
        let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
        let cells = |row: &str| {
            let (name, rest) = row.split_once('`').unwrap();
            (name.to_owned(), rest.split('|').nth(1).unwrap().to_owned())
        };
        rows.map(cells).collect()
    }

    fn names<Listed: ValueEnum>() -> Vec<String> {
        Listed::value_variants().iter().map(|listed| name_of(listed.clone())).collect()
    }

    #[test]
    fn every_event_and_field_is_documented_and_every_documented_one_exists() {
        let documented = |heading| rows(heading).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(documented("Events"), names::<EventName>());
        let mut fields =
            vec!["time", "level", "message", "event"].into_iter().map(str::to_owned).collect::<Vec<_>>();
        fields.extend(names::<Field>());
        assert_eq!(documented("Fields"), fields);
        for (event, cell) in rows("Events") {
            let of_row = cell.split(['`', ',', ' ']).filter(|word| !word.is_empty());
            assert!(of_row.into_iter().all(|word| fields.contains(&word.to_owned())), "{event}: {cell}");
        }
    }

    #[test]
    fn an_event_has_the_fields_of_its_row() {
        let (term, node) = (Term(3), NodeId(2));
        let moved: Vec<(NodeId, Box<str>)> = vec![(node, "b:1".into())];
        let raft = [
            Event::BecamePreCandidate { term },
            Event::BecameCandidate { term },
            Event::BecameLeader { term, votes: 2 },
            Event::BecameFollower { term, because: StepDown::QuorumLost },
            Event::LeaderFound { term, leader: node },
            Event::TransferStarted { to: node },
            Event::TransferFailed { to: node },
            Event::Removed { index: LogIndex(7) },
            Event::SnapshotInstalled { last: LogIndex(7) },
            Event::LogCut { from: LogIndex(7), to: LogIndex(9) },
            Event::Ready,
            Event::SnapshotPutOff { why: "full".into() },
            Event::DiskHangs { waited: Duration::from_secs(3) },
            Event::DiskRecovered,
            Event::MessageRefused { from: node, because: MessageRefusal::UnknownSender },
        ];
        let peer = [
            PeerEvent::Connected(node),
            PeerEvent::Lost(node, "reset".into()),
            PeerEvent::Refused(node, HandshakeRefusal::NotUnderstood),
            PeerEvent::Stranger(node, HandshakeRefusal::NotUnderstood),
            PeerEvent::Unproven(Some(node), "no".into()),
            PeerEvent::WaitsFor(vec![node]),
            PeerEvent::Joining("a:1".into(), "no".into()),
            PeerEvent::Founded,
            PeerEvent::Moved(moved),
        ];
        let all = raft.into_iter().map(NodeEvent::Raft).chain(peer.into_iter().map(NodeEvent::Peer));
        let rows = rows("Events");
        for event in all {
            let (name, fields) = of(&HostEvent { node: NodeId(1), event });
            let name = name_of(name);
            let (_, cell) = rows.iter().find(|(event, _)| *event == name).unwrap();
            let documented = cell.split(['`', ',', ' ']).filter(|word| !word.is_empty());
            let has: Vec<_> = fields.iter().map(|(field, _)| name_of(*field)).collect();
            assert_eq!(documented.collect::<Vec<_>>(), has, "{name}");
        }
        let (_, fields) = of(&HostEvent {
            node: NodeId(1),
            event: NodeEvent::Raft(Event::LogCut { from: LogIndex(7), to: LogIndex(9) }),
        });
        assert_eq!(fields, [(Field::Node, json!(1)), (Field::Index, json!(7)), (Field::LastIndex, json!(9))]);
    }
}
