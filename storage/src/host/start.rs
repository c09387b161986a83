//! What a cluster or a node is started with, and why it does not start: the same for every runtime.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use coracle_core::peer::{Origin, PeerRefusal};
use coracle_core::raft::NodeId;
use coracle_core::{ReplicaError, Settings, SettingsError};

use crate::execution::FileError;
use crate::lock::LockError;
use crate::medium::Medium;
use crate::member::MemberError;
use crate::survey::SurveyError;

/// What a cluster in one process is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many nodes, how long things may take, how much is allowed.
    pub settings: Settings,
    /// Where the state is kept.
    pub medium: Medium,
    /// Where clients connect; port 0 takes a free one. `None`: only this process asks.
    pub listen: Option<SocketAddr>,
}

/// What one node of a cluster of processes is started with.
#[derive(Clone, Debug)]
pub struct MemberOptions {
    /// How long things may take, how much is allowed. How many nodes there are is not for one of
    /// them to say.
    pub settings: Settings,
    /// Which node it is.
    pub id: NodeId,
    /// How it finds its cluster at its first start.
    pub origin: Origin,
    /// Where the state is kept: a folder for this node alone.
    pub medium: Medium,
    /// Where clients connect; port 0 takes a free one. `None`: only this process asks.
    pub listen: Option<SocketAddr>,
    /// Where to listen for the other nodes, if not where they find this one: behind a translation
    /// of addresses.
    pub peer_listen: Option<Box<str>>,
    /// Addresses to dial instead of those that members say.
    pub dial_overrides: BTreeMap<NodeId, Box<str>>,
}

impl MemberOptions {
    /// Where to listen for the other nodes, when they find this one at `own`.
    ///
    /// # Errors
    ///
    /// [`StartError::NoPeerAddress`] when nothing says where.
    pub fn peer_address(&self, own: Option<&str>) -> Result<Box<str>, StartError> {
        let address = self.peer_listen.as_deref().or(own);
        address.map(Box::from).ok_or(StartError::NoPeerAddress { node: self.id })
    }
}

/// Why a cluster or a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The settings do not fit one another.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The data folder cannot be locked.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The data folder cannot be read or written.
    #[error(transparent)]
    Files(#[from] FileError),
    /// What is in the data folder is not the files of such a cluster.
    #[error(transparent)]
    Survey(#[from] SurveyError),
    /// A node cannot start from what is in its log.
    #[error("node {node}: {cause}")]
    Node {
        /// The node.
        node: NodeId,
        /// What it cannot start from.
        cause: ReplicaError,
    },
    /// What is in the data folder is not the files of such a node.
    #[error(transparent)]
    Member(#[from] MemberError),
    /// The folder is empty, and nobody was named to found a cluster with or to join.
    #[error(
        "the data folder is empty: a first start needs --peers, to found a cluster, or --join, to join one"
    )]
    NoOrigin,
    /// By the latest configuration in its log the node has no address: it was removed, or was
    /// stopped while it joined, before its log had reached its own addition.
    #[error(
        "by its own log node {node} is no member. If it was removed from the cluster, its files are of no use any more: let a node \
         in under this id with `coracle member add {node}=HOST:PORT` and an empty data folder. If it was stopped while it joined, \
         start it with --peer-listen HOST:PORT"
    )]
    NoPeerAddress {
        /// The node.
        node: NodeId,
    },
    /// The address for other nodes cannot be listened on.
    #[error("cannot listen for other nodes on {address}: {cause}")]
    ListenForPeers {
        /// The address.
        address: Box<str>,
        /// What the operating system said.
        cause: std::io::Error,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {cause}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the operating system said.
        cause: std::io::Error,
    },
    /// No identity can be drawn.
    #[error("the operating system gives no random numbers: {0}")]
    Randomness(#[from] getrandom::Error),
}

impl StartError {
    /// Whether it is an address to listen on that is not there, and may be in a moment: one of no
    /// interface yet, or a name that cannot be looked up. An address that another program uses is
    /// another matter.
    #[must_use]
    pub fn is_address_missing(&self) -> bool {
        let (Self::Listen { cause, .. } | Self::ListenForPeers { cause, .. }) = self else { return false };
        // A failed look-up has no number of the operating system's.
        cause.kind() == std::io::ErrorKind::AddrNotAvailable || cause.raw_os_error().is_none()
    }
}

/// Why a running node ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum MemberFailure {
    /// Its cluster does not take it.
    #[error(transparent)]
    Refused(#[from] PeerRefusal),
    /// Its files cannot be made.
    #[error(transparent)]
    Files(#[from] FileError),
    /// It cannot start from what it has.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Its disk failed; the events say how.
    #[error("the node has lost its disk")]
    DiskLost,
}
