//! Opening a data folder: one type per stage, so that no step can be left out or taken too early.
//!
//! ```text
//! ClusterOpening, MemberOpening      which files to read            the folder is locked, and read
//!        │ judge
//!        ▼
//! FoundCluster, FoundMember          which operations to carry out  the ports are bound; nothing was written so far
//!        │ operations, then opened
//!        ▼
//! what the nodes start from
//! ```
//!
//! The folder is judged before anything is written to it, and as a whole: files of any node that does not belong are
//! refused by name. A wrong `--id` must not make a new node beside another one's log.
//!
//! Deliberately not here: reading and writing. A runtime locks the folder, reads the files of [`ClusterOpening::nodes`] with the
//! names of all that is there, binds its ports, and carries the operations out.

use std::collections::BTreeMap;
use std::path::PathBuf;

use coracle_core::Incarnation;
use coracle_core::SettingsError;
use coracle_core::mutant::{self, Mutant};
use coracle_core::peer::{Founders, LocalNode, Origin, Standing};
use coracle_core::raft::{Configuration, LogIndex, Member, NodeId};

use super::{MemberOptions, StartError, draw_boot, draw_cluster, draw_incarnation};
use crate::files::{FileKind, FileName, FileOp, NodeFiles};
use crate::identity::Identity;
use crate::medium::Medium;
use crate::member::{MemberError, MemberStart, found_member, open_member};
use crate::recover::Recovery;
use crate::survey::{Survey, SurveyError, survey};

/// A data folder as it was found, unchanged.
#[derive(Debug, Default)]
pub struct FolderContents {
    /// All files of any node that are in it.
    pub names: Vec<FileName>,
    /// The files of the nodes that were asked for, in their order.
    pub nodes: Vec<NodeFiles>,
}

impl FolderContents {
    /// A file of a node that is none of these. What has no final name yet does not count: nobody relies on it.
    fn foreign_file(&self, is_own: impl Fn(NodeId) -> bool) -> Option<FileName> {
        let is_blind = mutant::is_active(Mutant::ForeignFilesAccepted);
        self.names.iter().copied().find(|name| !is_own(name.node) && !is_temporary(name.kind) && !is_blind)
    }

    /// Removes what an earlier run of these nodes left unfinished. It comes before everything else that a start writes: on a
    /// full disk that may need just this room.
    fn removal_of_left_overs(&self, is_own: impl Fn(NodeId) -> bool) -> Vec<FileOp> {
        let left_over = |name: &&FileName| is_own(name.node) && is_temporary(name.kind);
        self.names.iter().filter(left_over).map(|file| FileOp::Remove { file: *file }).collect()
    }
}

fn is_temporary(kind: FileKind) -> bool {
    matches!(kind, FileKind::LogTemporary | FileKind::MetaTemporary | FileKind::SnapshotTemporary)
}

/// The last stage for a node with files: its folder, and what it goes on from.
#[derive(Debug)]
pub struct FileStart {
    /// The data folder.
    pub path: PathBuf,
    /// What was found in it, or is true of a new node.
    pub recovery: Recovery,
}

/// Stage 1 for a cluster in one process: its folder, if it has one, is to be locked and read.
#[derive(Debug)]
pub struct ClusterOpening {
    identities: Vec<Identity>,
    medium: Medium,
}

/// Stage 2 for a cluster in one process: its folder is judged, and not changed yet.
#[derive(Debug)]
pub struct FoundCluster {
    operations: Option<Vec<FileOp>>,
    starts: Vec<Option<FileStart>>,
}

impl ClusterOpening {
    /// Opens `medium` for the nodes 0 to `nodes - 1`, with the identities for a new cluster should there be none yet.
    ///
    /// # Errors
    ///
    /// [`StartError::Randomness`].
    pub fn new(nodes: usize, medium: &Medium) -> Result<Self, StartError> {
        let incarnations = (0..nodes).map(|_| draw_incarnation()).collect::<Result<Vec<_>, _>>()?;
        let identities = Identity::for_new_cluster(draw_cluster()?, &incarnations);
        Ok(Self { identities, medium: medium.clone() })
    }

    /// The nodes whose files are to be read, if there is a folder.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeId> {
        self.identities.iter().map(|identity| identity.node).collect()
    }

    /// Judges what was found.
    ///
    /// # Errors
    ///
    /// [`SurveyError`]: nothing was changed.
    pub fn judge(self, mut contents: FolderContents) -> Result<FoundCluster, SurveyError> {
        let Medium::Folder { path, sync } = self.medium else {
            let starts = self.identities.iter().map(|_| None).collect();
            return Ok(FoundCluster { operations: Some(Vec::new()), starts });
        };
        let founding = |name: &&FileName| name.kind == FileKind::Founding;
        if let Some(file) = contents.names.iter().copied().find(|name| founding(&name)) {
            return Err(SurveyError::OfMember { file });
        }
        let files = std::mem::take(&mut contents.nodes);
        let Survey { creation, mut nodes } = survey(files, &self.identities, sync)?;
        let is_own = |node| self.identities.iter().any(|identity| identity.node == node);
        if let Some(file) = contents.foreign_file(is_own) {
            return Err(SurveyError::OtherNode { file });
        }
        let mut operations = contents.removal_of_left_overs(is_own);
        operations.extend(creation);
        for node in &mut nodes {
            operations.append(&mut node.repairs);
        }
        let start = |recovery| Some(FileStart { path: path.clone(), recovery });
        Ok(FoundCluster { operations: Some(operations), starts: nodes.into_iter().map(start).collect() })
    }
}

impl FoundCluster {
    /// What is to be carried out before the nodes start: it makes the files of a new cluster, or repairs those that are
    /// there. Empty when they were handed out before.
    #[must_use]
    pub fn operations(&mut self) -> Vec<FileOp> {
        self.operations.take().unwrap_or_default()
    }

    /// What each node starts from, in the order of their ids; `None`: it keeps its state in memory.
    ///
    /// # Panics
    ///
    /// When the operations were not handed out.
    #[must_use]
    pub fn opened(self) -> Vec<Option<FileStart>> {
        assert!(self.operations.is_none(), "a folder is repaired before it is used");
        self.starts
    }
}

/// Stage 1 for one node of a cluster of processes: its folder, if it has one, is to be locked and read.
#[derive(Debug)]
pub struct MemberOpening {
    id: NodeId,
    origin: Origin,
    medium: Medium,
    fresh: Incarnation,
    boot: u64,
}

/// Stage 2 for one node of a cluster of processes: its folder is judged, and not changed yet.
#[derive(Debug)]
pub struct FoundMember {
    id: NodeId,
    medium: Medium,
    incarnation: Incarnation,
    boot: u64,
    standing: Standing,
    /// Where founders are by the flags of this start, if that is not where they were when the cluster was founded.
    moved: BTreeMap<NodeId, Box<str>>,
    configuration_index: LogIndex,
    /// The last configuration that names it.
    named_by: Option<LogIndex>,
    operations: Option<Vec<FileOp>>,
    recovery: Option<Box<Recovery>>,
}

/// Stage 3 for one node of a cluster of processes: what it starts from.
#[derive(Debug)]
pub struct OpenedMember {
    /// What it says of itself to others. It has no cluster yet unless it was founded.
    pub local: LocalNode,
    /// Where founders are by the flags of this start, if that is not where they were when the cluster was founded.
    pub moved: BTreeMap<NodeId, Box<str>>,
    recovery: Option<Box<Recovery>>,
    medium: Medium,
}

impl MemberOpening {
    /// Opens what these options name. The incarnation for a first start is drawn here.
    ///
    /// # Errors
    ///
    /// [`StartError::Randomness`].
    pub fn new(options: &MemberOptions) -> Result<Self, StartError> {
        Ok(Self::with_numbers(options, draw_incarnation()?, draw_boot()?))
    }

    /// The same with numbers that were drawn elsewhere, as in a simulation: the incarnation for a first start, and which run
    /// this is.
    #[must_use]
    pub fn with_numbers(options: &MemberOptions, fresh: Incarnation, boot: u64) -> Self {
        let (origin, medium) = (options.origin.clone(), options.medium.clone());
        Self { id: options.id, origin, medium, fresh, boot }
    }

    /// The nodes whose files are to be read, if there is a folder: this one.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeId> {
        vec![self.id]
    }

    /// Judges what was found; without a folder, nothing.
    ///
    /// # Errors
    ///
    /// [`StartError`]: nothing was changed.
    pub fn judge(self, contents: &FolderContents) -> Result<FoundMember, StartError> {
        let start = match (&self.medium, contents.nodes.first()) {
            (Medium::Folder { sync, .. }, Some(files)) => open_member(self.id, files, self.fresh, *sync)?,
            _ => MemberStart::Unfounded { incarnation: self.fresh, creation: Vec::new() },
        };
        if let Some(file) = contents.foreign_file(|node| node == self.id) {
            return Err(MemberError::OtherNode { file, id: self.id }.into());
        }
        let (incarnation, started, recovery) = match start {
            MemberStart::Unfounded { incarnation, creation } => (incarnation, creation, None),
            MemberStart::Founded(mut recovery) => {
                let repairs = std::mem::take(&mut recovery.repairs);
                (recovery.identity.incarnation, repairs, Some(recovery))
            }
        };
        let moved = moved(recovery.as_deref(), &self.origin);
        let (standing, configuration_index, named_by) = standing(recovery.as_deref(), self.origin)?;
        let Self { id, medium, boot, .. } = self;
        let mut operations = contents.removal_of_left_overs(|node| node == self.id);
        operations.extend(started);
        let operations = Some(operations);
        Ok(FoundMember {
            id,
            medium,
            incarnation,
            boot,
            standing,
            moved,
            configuration_index,
            named_by,
            operations,
            recovery,
        })
    }
}

/// All addresses of a cluster can change while no node runs, and then no leader can be told. So a start that names a founder at
/// another address than at the founding means that it has moved.
fn moved(recovery: Option<&Recovery>, origin: &Origin) -> BTreeMap<NodeId, Box<str>> {
    let (Some(recovery), Origin::Found(peers)) = (recovery, origin) else { return BTreeMap::new() };
    let is_elsewhere = |(node, member): &(NodeId, &Member)| {
        recovery.identity.roster.member(*node).is_some_and(|founder| founder.address != member.address)
    };
    let moved = peers.iter().filter(is_elsewhere);
    moved.map(|(node, member)| (node, member.address.clone())).collect()
}

/// What the node is to a cluster, by which entry, and the last configuration in its log that names it.
fn standing(
    recovery: Option<&Recovery>,
    origin: Origin,
) -> Result<(Standing, LogIndex, Option<LogIndex>), StartError> {
    let Some(recovery) = recovery else {
        return match origin {
            Origin::Found(peers) => Ok((Standing::Founding(peers), LogIndex::ORIGIN, None)),
            Origin::Join(_) => Ok((Standing::Joining, LogIndex::ORIGIN, None)),
            Origin::Known => Err(StartError::NoOrigin),
        };
    };
    let identity = &recovery.identity;
    let founders = Founders { cluster: identity.cluster, roster: identity.roster.clone() };
    let first = first_configuration(&founders)?;
    let named_by = recovery.restored.last_naming(&first, identity.node, identity.incarnation);
    let latest = recovery.restored.latest_configuration();
    let (index, configuration) = latest.unwrap_or((LogIndex::ORIGIN, first));
    Ok((Standing::Member(founders, configuration), index, named_by))
}

fn first_configuration(founders: &Founders) -> Result<Configuration, StartError> {
    LocalNode::first_configuration(founders).ok_or(StartError::Settings(SettingsError::NodeCount))
}

impl FoundMember {
    /// Where the node's peers reach it, as far as it knows before it has met them.
    #[must_use]
    pub fn address(&self) -> Option<Box<str>> {
        let roster = match &self.standing {
            Standing::Founding(peers) => peers,
            Standing::Joining => return None,
            Standing::Member(_, configuration) => configuration.roster(),
        };
        let known = roster.member(self.id).map(|member| &member.address);
        let founded_at = match &self.standing {
            Standing::Member(founders, _) => founders.roster.member(self.id).map(|member| &member.address),
            Standing::Founding(_) | Standing::Joining => None,
        };
        // Where it was moved by an order since the founding, that counts.
        let moved = self.moved.get(&self.id).filter(|_| known == founded_at);
        // Stopped before its log had reached its own addition.
        let joined_at = self.recovery.as_ref().and_then(|recovery| recovery.identity.joined_at.as_ref());
        let joined_at =
            joined_at.filter(|_| self.named_by.is_none() && !mutant::is_active(Mutant::JoinedAtIgnored));
        moved.or(known).or(joined_at).cloned()
    }

    /// What is to be carried out before anybody is told of the node: it writes the incarnation down, or repairs the files.
    /// Empty when they were handed out before.
    #[must_use]
    pub fn operations(&mut self) -> Vec<FileOp> {
        self.operations.take().unwrap_or_default()
    }

    /// What the node starts from; its clients connect at `client_address`.
    ///
    /// # Panics
    ///
    /// When the operations were not handed out.
    #[must_use]
    pub fn opened(self, client_address: Option<Box<str>>) -> OpenedMember {
        assert!(self.operations.is_none(), "a folder is repaired before it is used");
        let Self { id, incarnation, boot, standing, moved, configuration_index, named_by, .. } = self;
        let local = LocalNode {
            id,
            incarnation,
            client_address,
            boot,
            standing,
            configuration_index,
            named_index: named_by.unwrap_or(configuration_index),
            is_settled: false,
            was_named: named_by.is_some(),
        };
        OpenedMember { local, moved, recovery: self.recovery, medium: self.medium }
    }
}

impl OpenedMember {
    /// The founders of the node's cluster, if it has one.
    #[must_use]
    pub fn founders(&self) -> Option<Founders> {
        match &self.local.standing {
            Standing::Member(founders, _) => Some(founders.clone()),
            Standing::Founding(_) | Standing::Joining => None,
        }
    }

    /// The node's folder and what it goes on from; `None`: it keeps its state in memory.
    #[must_use]
    pub fn files(self) -> Option<FileStart> {
        let Medium::Folder { path, .. } = self.medium else { return None };
        Some(FileStart { path, recovery: *self.recovery? })
    }

    /// The node has found its cluster; one that has joined knows by the configuration that let it in where it is a member.
    /// Returns the operations that make its files; when they are carried out it can start.
    ///
    /// # Errors
    ///
    /// [`StartError::Settings`] when nobody, or too many, found a cluster.
    pub fn found(
        &mut self,
        founders: &Founders,
        joined: Option<&Configuration>,
    ) -> Result<Vec<FileOp>, StartError> {
        let standing = Standing::Member(founders.clone(), first_configuration(founders)?);
        self.local.standing = standing;
        let Medium::Folder { sync, .. } = &self.medium else { return Ok(Vec::new()) };
        let LocalNode { id, incarnation, .. } = self.local;
        let joined_at = joined.and_then(|joined| joined.roster().member(id)).map(|own| own.address.clone());
        let (creation, recovery) = found_member(id, incarnation, founders, joined_at, *sync);
        self.recovery = Some(Box::new(recovery));
        Ok(creation)
    }
}

#[cfg(test)]
mod tests {
    use coracle_core::Settings;
    use coracle_core::raft::{Member, Roster};

    use super::*;
    use crate::files::SyncPolicy;

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
            peer_listen: None,
            dial_overrides: BTreeMap::new(),
        };
        MemberOpening::new(&options).unwrap()
    }

    fn founders(ids: std::ops::Range<u64>) -> Origin {
        let member = |id: u64| (NodeId(id), Member { address: format!("h:{id}").into(), incarnation: None });
        Origin::Found(Roster::new(ids.map(member)))
    }

    fn contents(names: Vec<FileName>, nodes: usize) -> FolderContents {
        FolderContents { names, nodes: vec![NodeFiles::default(); nodes] }
    }

    #[test]
    fn an_empty_folder_is_founded_with_identities_of_its_own() {
        let found = |nodes| {
            let opening = ClusterOpening::new(nodes, &medium()).unwrap();
            let mut found = opening.judge(contents(Vec::new(), nodes)).unwrap();
            assert!(found.operations().iter().any(|op| matches!(op, FileOp::Create { .. })));
            assert!(found.operations().is_empty(), "they are handed out once");
            found.opened()
        };
        let (one, other) = (found(3), found(3));
        let identity =
            |starts: &[Option<FileStart>], at: usize| starts[at].as_ref().unwrap().recovery.identity.clone();
        assert_eq!(one.len(), 3);
        assert_ne!(identity(&one, 0).cluster, identity(&other, 0).cluster);
        assert_ne!(identity(&one, 0).incarnation, identity(&one, 1).incarnation);
    }

    #[test]
    fn a_cluster_refuses_the_files_of_any_other_node() {
        for kind in [FileKind::Log, FileKind::Meta, FileKind::Snapshot, FileKind::LogCut] {
            let opening = ClusterOpening::new(3, &medium()).unwrap();
            let refused = opening.judge(contents(vec![name(7, kind)], 3)).unwrap_err();
            assert_eq!(refused, SurveyError::OtherNode { file: name(7, kind) });
        }
        let opening = ClusterOpening::new(3, &medium()).unwrap();
        let refused = opening.judge(contents(vec![name(0, FileKind::Founding)], 3)).unwrap_err();
        assert_eq!(refused, SurveyError::OfMember { file: name(0, FileKind::Founding) });
        let opening = ClusterOpening::new(3, &medium()).unwrap();
        let left_over = contents(vec![name(7, FileKind::SnapshotTemporary)], 3);
        assert!(opening.judge(left_over).is_ok(), "what never had a final name is nobody's");
    }

    /// On a full disk a start may need just the room that an unfinished snapshot takes.
    #[test]
    fn what_was_left_unfinished_goes_before_anything_is_written() {
        let left = [name(2, FileKind::SnapshotTemporary), name(2, FileKind::LogTemporary)];
        let mut found = member_opening(2, founders(0..3)).judge(&contents(left.to_vec(), 1)).unwrap();
        let operations = found.operations();
        assert_eq!(operations[..2], left.map(|file| FileOp::Remove { file }));
        assert!(matches!(operations[2], FileOp::Create { .. }));
        let left = contents(vec![name(1, FileKind::SnapshotTemporary), name(7, FileKind::LogTemporary)], 3);
        let mut found = ClusterOpening::new(3, &medium()).unwrap().judge(left).unwrap();
        let removed: Vec<_> =
            found.operations().into_iter().filter(|op| matches!(op, FileOp::Remove { .. })).collect();
        assert_eq!(removed, [FileOp::Remove { file: name(1, FileKind::SnapshotTemporary) }]);
    }

    #[test]
    fn a_node_refuses_the_files_of_any_other_node_whatever_it_was_started_with() {
        for origin in [founders(0..3), Origin::Join("h:1".into()), Origin::Known] {
            let there = contents(vec![name(1, FileKind::Log), name(1, FileKind::Meta)], 1);
            let refused = member_opening(2, origin).judge(&there).unwrap_err();
            let StartError::Member(MemberError::OtherNode { file, id }) = refused else {
                panic!("{refused}")
            };
            assert_eq!((file, id), (name(1, FileKind::Log), NodeId(2)));
        }
    }

    #[test]
    fn an_empty_folder_needs_an_origin() {
        let empty = contents(Vec::new(), 1);
        assert!(matches!(member_opening(2, Origin::Known).judge(&empty), Err(StartError::NoOrigin)));
        let mut found = member_opening(2, founders(0..3)).judge(&empty).unwrap();
        assert_eq!(found.address().as_deref(), Some("h:2"));
        assert!(!found.operations().is_empty(), "the incarnation is written down before anybody is told");
        let opened = found.opened(None);
        assert!(matches!(opened.local.standing, Standing::Founding(_)) && opened.recovery.is_none());
    }

    #[test]
    #[should_panic(expected = "repaired before it is used")]
    fn nothing_starts_before_the_operations_were_handed_out() {
        let found = member_opening(2, founders(0..3)).judge(&contents(Vec::new(), 1)).unwrap();
        let _ = found.opened(None);
    }
}
