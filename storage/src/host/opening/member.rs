//! Opens the folder of one node of a cluster of processes. See the module above.

use std::collections::BTreeMap;

use coracle_core::host::{Directory, PeerPlaces};
use coracle_core::kv::Level;
use coracle_core::memory::MemoryBudget;
use coracle_core::mutant::{self, Mutant};
use coracle_core::peer::{Founders, LocalNode, Origin, PeerEvent, Standing};
use coracle_core::raft::{Configuration, LogIndex, Member, NodeId};
use coracle_core::{Incarnation, Settings, SettingsError};

use super::{FileStart, FolderNames};
use crate::files::{FileOp, NodeFiles};
use crate::host::{MemberOptions, NodeStart, StartError, draw_boot, draw_incarnation};
use crate::medium::Medium;
use crate::member::{MemberError, MemberStart, found_member, open_member};
use crate::recover::Recovery;

/// Stage 1 for one node of a cluster of processes: its folder, if it has one, has to be locked and
/// read.
#[derive(Debug)]
pub struct MemberOpening {
    id: NodeId,
    origin: Origin,
    medium: Medium,
    fresh: Incarnation,
    boot: u64,
    start: Option<Result<MemberStart, MemberError>>,
}

/// Stage 2 for one node of a cluster of processes: its folder is checked and not changed yet.
#[derive(Debug)]
pub struct FoundMember {
    id: NodeId,
    medium: Medium,
    incarnation: Incarnation,
    boot: u64,
    standing: Standing,
    /// The addresses of founders in the flags of this start, where they differ from those at the
    /// founding.
    moved: BTreeMap<NodeId, Box<str>>,
    configuration_index: LogIndex,
    /// The index of the last configuration that contains this node.
    named_by: Option<LogIndex>,
    operations: Option<Vec<FileOp>>,
    recovery: Option<Box<Recovery>>,
}

/// Stage 3 for one node of a cluster of processes: the state that it starts from.
#[derive(Debug)]
pub struct OpenedMember {
    /// The node as it introduces itself to others. It has no cluster yet unless it was founded
    /// before.
    pub local: LocalNode,
    /// The address at which its peers reach it, as far as it knows before the first handshake.
    address: Option<Box<str>>,
    /// The addresses of founders in the flags of this start, where they differ from those at the
    /// founding.
    moved: BTreeMap<NodeId, Box<str>>,
    recovery: Option<Box<Recovery>>,
    medium: Medium,
}

impl MemberOpening {
    /// Opens the folder that these options name, and draws the incarnation for a first start.
    ///
    /// # Errors
    ///
    /// [`StartError::Settings`], [`StartError::Randomness`].
    pub fn new(options: &MemberOptions) -> Result<Self, StartError> {
        options.settings.check()?;
        Ok(Self::with_numbers(options, draw_incarnation()?, draw_boot()?))
    }

    /// Does the same with given numbers, for a simulation: the incarnation for a first start, and
    /// the boot number of this run.
    #[must_use]
    pub fn with_numbers(options: &MemberOptions, fresh: Incarnation, boot: u64) -> Self {
        let (origin, medium) = (options.origin.clone(), options.medium.clone());
        Self { id: options.id, origin, medium, fresh, boot, start: None }
    }

    /// The nodes whose files have to be read, if there is a folder: this one.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeId> {
        vec![self.id]
    }

    /// Reads the node's files, which are not needed any more after that.
    pub fn look(&mut self, files: &NodeFiles) {
        if let Medium::Folder { sync, .. } = &self.medium {
            self.start = Some(open_member(self.id, files, self.fresh, *sync));
        }
    }

    /// Checks the files; without a folder there is nothing to check.
    ///
    /// # Errors
    ///
    /// [`StartError`]: no file was changed.
    pub fn judge(mut self, names: &FolderNames) -> Result<FoundMember, StartError> {
        let new = || Ok(MemberStart::Unfounded { incarnation: self.fresh, creation: Vec::new() });
        let start = self.start.take().unwrap_or_else(new)?;
        if let Some(file) = names.foreign_file(|node| node == self.id) {
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
        let mut operations = names.removal_of_left_overs(|node| node == self.id);
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

/// Returns the founders that have moved. All addresses of a cluster can change while no node runs,
/// and then no leader can be asked to change them. So an address in the flags that differs from
/// that at the founding means that the founder has moved.
fn moved(recovery: Option<&Recovery>, origin: &Origin) -> BTreeMap<NodeId, Box<str>> {
    let (Some(recovery), Origin::Found(peers)) = (recovery, origin) else { return BTreeMap::new() };
    let is_elsewhere = |(node, member): &(NodeId, &Member)| {
        recovery.identity.roster.member(*node).is_some_and(|founder| founder.address != member.address)
    };
    let moved = peers.iter().filter(is_elsewhere);
    moved.map(|(node, member)| (node, member.address.clone())).collect()
}

/// Returns the node's role in its cluster, the index of the entry that says so, and the index of
/// the last configuration in its log that contains the node.
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
    /// The address at which the node's peers reach it, as far as it knows before the first
    /// handshake.
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
        // A membership change since the founding takes precedence over the flags.
        let moved = self.moved.get(&self.id).filter(|_| known == founded_at);
        // The node was stopped before its log contained its own addition.
        let joined_at = self.recovery.as_ref().and_then(|recovery| recovery.identity.joined_at.as_ref());
        let joined_at =
            joined_at.filter(|_| self.named_by.is_none() && !mutant::is_active(Mutant::JoinedAtIgnored));
        moved.or(known).or(joined_at).cloned()
    }

    /// Returns the operations to carry out before the node contacts any other: they write the
    /// incarnation, or repair the files. Empty on a second call.
    #[must_use]
    pub fn operations(&mut self) -> Vec<FileOp> {
        self.operations.take().unwrap_or_default()
    }

    /// Returns the last stage; the node's clients connect at `client_address`.
    ///
    /// # Panics
    ///
    /// When the operations were not taken before.
    #[must_use]
    pub fn opened(self, client_address: Option<Box<str>>) -> OpenedMember {
        assert!(self.operations.is_none(), "a folder is repaired before it is used");
        let address = self.address();
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
            addition: self.recovery.as_ref().map(|recovery| recovery.identity.addition).unwrap_or_default(),
            supports: Level::MAX,
            level: Level::FIRST,
        };
        OpenedMember { local, address, moved, recovery: self.recovery, medium: self.medium }
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

    /// Returns the node's first directory of peers, and an event for the operator if founders have
    /// moved. `dial_overrides` are dialled instead of the addresses that nodes announce, and the
    /// memory of their connections counts towards `memory`.
    #[must_use]
    pub fn directory(
        &self,
        dial_overrides: BTreeMap<NodeId, Box<str>>,
        places: PeerPlaces,
        memory: MemoryBudget,
    ) -> (Directory, Option<PeerEvent>) {
        Directory::new(self.local.clone(), self.address.clone(), dial_overrides)
            .with_places(places, memory)
            .with_moved(self.moved.clone())
    }

    /// Returns the start of the node, as a member of the cluster with these founders.
    ///
    /// # Errors
    ///
    /// [`StartError::Settings`] when the settings do not fit the cluster.
    pub fn start(self, settings: &Settings, founders: &Founders) -> Result<NodeStart, StartError> {
        let limits = settings.member_shares().limit_replica(settings.replica_limits()?);
        let config = settings.member_config(&self.local, founders)?;
        Ok(NodeStart { config, limits, files: self.files() })
    }

    /// Returns the node's folder and recovered state; `None`: it keeps its state in memory.
    #[must_use]
    pub fn files(self) -> Option<FileStart> {
        let Medium::Folder { path, .. } = self.medium else { return None };
        Some(FileStart { path, recovery: *self.recovery?, state: None })
    }

    /// Enters the cluster that the node has found. A node that joins learns its own address from
    /// `joined`, the configuration that admitted it. Returns the operations that create its files;
    /// it can start when they are carried out.
    ///
    /// # Errors
    ///
    /// [`StartError::Settings`] when there are no founders or too many.
    pub fn found(
        &mut self,
        founders: &Founders,
        joined: Option<&Configuration>,
    ) -> Result<Vec<FileOp>, StartError> {
        let standing = Standing::Member(founders.clone(), first_configuration(founders)?);
        self.local.enter(standing, joined);
        let Medium::Folder { sync, .. } = &self.medium else { return Ok(Vec::new()) };
        let LocalNode { id, incarnation, .. } = self.local;
        let joined = joined.and_then(|joined| joined.roster().member(id));
        let (creation, recovery) = found_member(id, incarnation, founders, joined, *sync);
        self.recovery = Some(Box::new(recovery));
        Ok(creation)
    }
}
