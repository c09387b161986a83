use std::collections::BTreeMap;

use coracle_core::Settings;
use coracle_core::peer::{Origin, Standing};
use coracle_core::raft::{Member, Roster};

use super::*;
use crate::files::{NodeFiles, SyncPolicy};
use crate::host::{MemberOptions, NodeStart, StartError};
use crate::medium::Medium;
use crate::member::MemberError;
use crate::survey::SurveyError;

fn medium() -> Medium {
    Medium::Folder { path: "/data".into(), sync: SyncPolicy::Always }
}

fn name(node: u64, kind: FileKind) -> FileName {
    FileName::new(NodeId(node), kind)
}

fn member_opening(id: u64, origin: Origin) -> MemberOpening {
    let options = MemberOptions {
        settings: Settings::default(),
        id: NodeId(id),
        origin,
        medium: medium(),
        listen: None,
        admin_listen: None,
        peer_listen: None,
        peers_on_loopback_only: false,
        dial_overrides: BTreeMap::new(),
    };
    MemberOpening::new(&options).unwrap()
}

fn founders(ids: std::ops::Range<u64>) -> Origin {
    let member = |id: u64| (NodeId(id), Member::founder(format!("h:{id}").into(), None));
    Origin::Found(Roster::new(ids.map(member)))
}

/// Opens, for a cluster in one process, a folder that has files with these names and no other files
/// of its nodes.
fn judge(nodes: usize, names: &[FileName]) -> Result<FoundCluster, StartError> {
    let mut opening = ClusterOpening::new(&Settings { nodes, ..Settings::default() }, &medium()).unwrap();
    (0..nodes).for_each(|_| opening.look(&NodeFiles::default()));
    opening.judge(&FolderNames(names.to_vec()))
}

/// Does the same for a node of a cluster of processes.
fn judge_member(id: u64, origin: Origin, names: &[FileName]) -> Result<FoundMember, StartError> {
    let mut opening = member_opening(id, origin);
    opening.look(&NodeFiles::default());
    opening.judge(&FolderNames(names.to_vec()))
}

#[test]
fn an_empty_folder_is_founded_with_new_identities() {
    let found = |nodes| {
        let mut found = judge(nodes, &[]).unwrap();
        assert!(found.operations().iter().any(|op| matches!(op, FileOp::Create { .. })));
        assert!(found.operations().is_empty(), "they are handed out once");
        found.opened()
    };
    let (one, other) = (found(3), found(3));
    let identity =
        |starts: &[NodeStart], at: usize| starts[at].files.as_ref().unwrap().recovery.identity.clone();
    assert_eq!(one.len(), 3);
    assert_ne!(identity(&one, 0).cluster, identity(&other, 0).cluster);
    assert_ne!(identity(&one, 0).incarnation, identity(&one, 1).incarnation);
}

#[test]
fn a_cluster_refuses_the_files_of_any_other_node() {
    for kind in [FileKind::Log, FileKind::Meta, FileKind::Snapshot, FileKind::LogCut] {
        let refused = judge(3, &[name(7, kind)]).unwrap_err();
        let by = SurveyError::OtherNode { file: name(7, kind) };
        assert!(matches!(refused, StartError::Survey(found) if found == by));
    }
    let refused = judge(3, &[name(0, FileKind::Founding)]).unwrap_err();
    let by = SurveyError::OfMember { file: name(0, FileKind::Founding) };
    assert!(matches!(refused, StartError::Survey(found) if found == by));
    let left_over = judge(3, &[name(7, FileKind::SnapshotTemporary)]);
    assert!(left_over.is_ok(), "what never had a final name is nobody's");
}

/// On a full disk a start may need just the room that an unfinished snapshot takes.
#[test]
fn leftovers_are_removed_before_anything_is_written() {
    let left = [name(2, FileKind::SnapshotTemporary), name(2, FileKind::LogTemporary)];
    let mut found = judge_member(2, founders(0..3), &left).unwrap();
    let operations = found.operations();
    assert_eq!(operations[..2], left.map(|file| FileOp::Remove { file }));
    assert!(matches!(operations[2], FileOp::Create { .. }));
    let left = [name(1, FileKind::SnapshotTemporary), name(7, FileKind::LogTemporary)];
    let mut found = judge(3, &left).unwrap();
    let removed: Vec<_> =
        found.operations().into_iter().filter(|op| matches!(op, FileOp::Remove { .. })).collect();
    assert_eq!(removed, [FileOp::Remove { file: name(1, FileKind::SnapshotTemporary) }]);
}

#[test]
fn a_node_refuses_the_files_of_any_other_node_whatever_it_was_started_with() {
    for origin in [founders(0..3), Origin::Join("h:1".into()), Origin::Known] {
        let there = [name(1, FileKind::Log), name(1, FileKind::Meta)];
        let refused = judge_member(2, origin, &there).unwrap_err();
        let StartError::Member(MemberError::OtherNode { file, id }) = refused else { panic!("{refused}") };
        assert_eq!((file, id), (name(1, FileKind::Log), NodeId(2)));
    }
}

#[test]
fn an_empty_folder_needs_an_origin() {
    assert!(matches!(judge_member(2, Origin::Known, &[]), Err(StartError::NoOrigin)));
    let mut found = judge_member(2, founders(0..3), &[]).unwrap();
    assert_eq!(found.address().as_deref(), Some("h:2"));
    assert!(!found.operations().is_empty(), "the incarnation is written down before anybody is told");
    let opened = found.opened(None);
    assert!(matches!(opened.local.standing, Standing::Founding(_)));
    assert!(opened.files().is_none());
}

#[test]
#[should_panic(expected = "repaired before it is used")]
fn nothing_starts_before_the_operations_were_handed_out() {
    let found = judge_member(2, founders(0..3), &[]).unwrap();
    let _ = found.opened(None);
}
