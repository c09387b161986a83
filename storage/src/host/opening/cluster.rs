//! Opens the folder of a cluster in one process. See the module above.

use coracle_core::raft::{Config, NodeId};
use coracle_core::{ClusterId, ReplicaLimits, RestoredState, Settings};

use super::{FileStart, FolderNames};
use crate::files::{FileKind, FileName, FileOp, NodeFiles, SyncPolicy};
use crate::host::{NodeStart, StartError, draw_boot, draw_cluster, draw_incarnation};
use crate::identity::Identity;
use crate::medium::Medium;
use crate::survey::{Survey, SurveyError, Surveyor};

/// Stage 1 for a cluster in one process: its folder, if it has one, has to be locked and read.
#[derive(Debug)]
pub struct ClusterOpening {
    identities: Vec<Identity>,
    medium: Medium,
    surveyor: Surveyor,
    configs: Vec<Config>,
    limits: ReplicaLimits,
    seed: u64,
    /// The parsed snapshots of the nodes whose files were read.
    states: Vec<Result<Option<RestoredState>, StartError>>,
}

/// Stage 2 for a cluster in one process: its folder is checked and not changed yet.
#[derive(Debug)]
pub struct FoundCluster {
    cluster: ClusterId,
    operations: Option<Vec<FileOp>>,
    starts: Vec<NodeStart>,
}

impl ClusterOpening {
    /// Opens `medium` for a cluster with these settings. Draws the identities that a new cluster
    /// will have.
    ///
    /// # Errors
    ///
    /// [`StartError::Settings`], [`StartError::Randomness`].
    pub fn new(settings: &Settings, medium: &Medium) -> Result<Self, StartError> {
        let (configs, limits) = (settings.raft_configs()?, settings.replica_limits()?);
        let limits = settings.cluster_shares().limit_replica(limits);
        let incarnations = configs.iter().map(|_| draw_incarnation()).collect::<Result<Vec<_>, _>>()?;
        let identities = Identity::for_new_cluster(draw_cluster()?, &incarnations);
        let sync = match medium {
            Medium::Folder { sync, .. } => *sync,
            Medium::Memory => SyncPolicy::Never,
        };
        let surveyor = Surveyor::new(identities.clone(), sync);
        let (seed, states) = (draw_boot()?, Vec::new());
        let medium = medium.clone();
        Ok(Self { identities, medium, surveyor, configs, limits, seed, states })
    }

    /// The nodes whose files have to be read and passed to `look` in this order, if there is a
    /// folder.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeId> {
        self.identities.iter().map(|identity| identity.node).collect()
    }

    /// Reads the files of the next node, which are not needed any more after that.
    ///
    /// # Panics
    ///
    /// When all nodes were read already.
    pub fn look(&mut self, files: &NodeFiles) {
        self.surveyor.look(files);
        let state = self.read_snapshot();
        self.states.push(state);
    }

    /// Parses the snapshot of the node that was read last. Its text may be as large as everything
    /// that the nodes share.
    fn read_snapshot(&mut self) -> Result<Option<RestoredState>, StartError> {
        let Some(recovery) = self.surveyor.latest() else { return Ok(None) };
        let Some(snapshot) = &mut recovery.restored.snapshot else { return Ok(None) };
        let read = self.states.iter().filter_map(|state| state.as_ref().ok()?.as_ref());
        let newest = read.max_by_key(|state| state.last());
        let node = recovery.identity.node;
        let state = RestoredState::build(snapshot, self.limits.sessions, self.seed, newest);
        state.map(Some).map_err(|cause| StartError::Node { node, cause })
    }

    /// Checks the files of all nodes together.
    ///
    /// # Errors
    ///
    /// [`StartError`]: no file was changed.
    ///
    /// # Panics
    ///
    /// When there is a folder and the files of a node were not read.
    pub fn judge(self, names: &FolderNames) -> Result<FoundCluster, StartError> {
        let Medium::Folder { path, .. } = self.medium else {
            let start = |config| NodeStart { config, limits: self.limits, files: None };
            let starts = self.configs.into_iter().map(start).collect();
            let cluster = self.identities[0].cluster;
            return Ok(FoundCluster { cluster, operations: Some(Vec::new()), starts });
        };
        let founding = |name: &&FileName| name.kind == FileKind::Founding;
        if let Some(file) = names.0.iter().copied().find(|name| founding(&name)) {
            return Err(SurveyError::OfMember { file }.into());
        }
        let Survey { creation, mut nodes } = self.surveyor.finish()?;
        let is_own = |node| self.identities.iter().any(|identity| identity.node == node);
        if let Some(file) = names.foreign_file(is_own) {
            return Err(SurveyError::OtherNode { file }.into());
        }
        let cluster = nodes[0].identity.cluster;
        let mut operations = names.removal_of_left_overs(is_own);
        operations.extend(creation);
        for node in &mut nodes {
            operations.append(&mut node.repairs);
        }
        let states = self.states.into_iter().collect::<Result<Vec<_>, _>>()?;
        let files = nodes.into_iter().zip(states);
        let start = |(config, (recovery, state))| {
            let files = Some(FileStart { path: path.clone(), recovery, state });
            NodeStart { config, limits: self.limits, files }
        };
        let starts = self.configs.into_iter().zip(files).map(start).collect();
        Ok(FoundCluster { cluster, operations: Some(operations), starts })
    }
}

impl FoundCluster {
    /// The cluster id.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Returns the operations to carry out before the nodes start: they create the files of a new
    /// cluster, or repair existing ones. Empty on a second call.
    #[must_use]
    pub fn operations(&mut self) -> Vec<FileOp> {
        self.operations.take().unwrap_or_default()
    }

    /// Returns the start of each node, in the order of the ids.
    ///
    /// # Panics
    ///
    /// When the operations were not taken before.
    #[must_use]
    pub fn opened(self) -> Vec<NodeStart> {
        assert!(self.operations.is_none(), "a folder is repaired before it is used");
        self.starts
    }
}
