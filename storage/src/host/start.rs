//! Start options of a cluster or a node, and the reasons why it does not start: the same for every
//! runtime.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use coracle_core::peer::{HandshakeRefusal, Origin};
use coracle_core::raft::NodeId;
use coracle_core::{ReplicaError, Settings, SettingsError};

use crate::execution::FileError;
use crate::lock::LockError;
use crate::medium::Medium;
use crate::member::MemberError;
use crate::survey::SurveyError;

/// The options of a cluster in one process.
#[derive(Clone, Debug)]
pub struct Options {
    /// The number of nodes, timeouts and limits.
    pub settings: Settings,
    /// Where the state is stored.
    pub medium: Medium,
    /// Where clients connect; port 0 takes a free port. `None`: only this process sends requests.
    pub listen: Option<SocketAddr>,
    /// Where alone clients change the members, transfer leadership and make backups, if not at
    /// `listen` as well.
    pub admin_listen: Option<SocketAddr>,
}

/// The options of one node of a cluster of processes.
#[derive(Clone, Debug)]
pub struct MemberOptions {
    /// Timeouts and limits. The number of nodes is not used: it depends on the cluster.
    pub settings: Settings,
    /// The id of this node.
    pub id: NodeId,
    /// How it finds its cluster at its first start.
    pub origin: Origin,
    /// Where the state is stored: a folder for this node alone.
    pub medium: Medium,
    /// Where clients connect; port 0 takes a free port. `None`: only this process sends requests.
    pub listen: Option<SocketAddr>,
    /// Where alone clients change the members, transfer leadership and make backups, if not at
    /// `listen` as well.
    pub admin_listen: Option<SocketAddr>,
    /// Where to listen for the other nodes, if that differs from the address at which they reach
    /// this one, as behind address translation.
    pub peer_listen: Option<Box<str>>,
    /// Whether to listen for the other nodes only where no other machine can connect, because
    /// nothing protects that port.
    pub peers_on_loopback_only: bool,
    /// Addresses to dial instead of those that members announce.
    pub dial_overrides: BTreeMap<NodeId, Box<str>>,
}

impl MemberOptions {
    /// Returns where to listen for the other nodes, which reach this one at `own`.
    ///
    /// # Errors
    ///
    /// [`StartError::NoPeerAddress`] when neither the options nor `own` have an address.
    pub fn peer_address(&self, own: Option<&str>) -> Result<Box<str>, StartError> {
        let address = self.peer_listen.as_deref().or(own);
        address.map(Box::from).ok_or(StartError::NoPeerAddress { node: self.id })
    }

    /// Checks the addresses that the name `address` resolves to, before the node listens for the
    /// other nodes there. The name may come from the data folder or from the cluster, so no check
    /// of the options can take the place of this one.
    ///
    /// # Errors
    ///
    /// [`PeersExposed`] when another machine could connect, and nothing protects the port.
    pub fn permit_peers(&self, address: &str, found: &[SocketAddr]) -> Result<(), PeersExposed> {
        if self.peers_on_loopback_only && found.iter().any(is_reachable_elsewhere) {
            return Err(PeersExposed { address: address.into() });
        }
        Ok(())
    }
}

/// Returns whether other machines may reach a port at this address. An unspecified address, such as
/// `0.0.0.0`, stands for all addresses of the machine.
#[must_use]
pub fn is_reachable_elsewhere(address: &SocketAddr) -> bool {
    !address.ip().to_canonical().is_loopback()
}

/// The port for other nodes is not protected, and other machines can reach it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{address}: other machines can reach the address of this node, and any program there could take over the \
     cluster. Let the nodes use loopback addresses; or let them prove who they are, with --peer-cert, \
     --peer-key and --peer-ca (`coracle cert init` begins to make certificates); or accept it with --insecure"
)]
pub struct PeersExposed {
    /// The address as given, or as it is in the data folder.
    pub address: Box<str>,
}

/// Why a cluster or a node did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The settings contradict each other.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The data folder cannot be locked.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The data folder cannot be read or written.
    #[error(transparent)]
    Files(#[from] FileError),
    /// The files in the data folder are not those of such a cluster.
    #[error(transparent)]
    Survey(#[from] SurveyError),
    /// A node cannot start from what is in its log.
    #[error("node {node}: {cause}")]
    Node {
        /// The node.
        node: NodeId,
        /// The cause.
        cause: ReplicaError,
    },
    /// The files in the data folder are not those of such a node.
    #[error(transparent)]
    Member(#[from] MemberError),
    /// The folder is empty, and the options name no cluster to found or to join.
    #[error(
        "the data folder is empty: a first start needs --peers, to bootstrap a cluster, or --join, to join \
         one"
    )]
    NoOrigin,
    /// By the latest configuration in its log the node has no address: it was removed, or it was
    /// stopped while it joined, before its log contained its own addition.
    #[error(
        "according to its own log, node {node} is not a member. If it was removed from the cluster, its \
         files are of no more use: add a node under this id with `coracle member add {node}=HOST:PORT` and \
         an empty data folder. If it was stopped while it joined, start it with --peer-listen HOST:PORT"
    )]
    NoPeerAddress {
        /// The node.
        node: NodeId,
    },
    /// The node cannot listen on the address for other nodes.
    #[error("cannot listen for other nodes on {address}: {cause}")]
    ListenForPeers {
        /// The address.
        address: Box<str>,
        /// The error of the operating system.
        cause: std::io::Error,
    },
    /// The port for other nodes is not protected.
    #[error(transparent)]
    PeersExposed(#[from] PeersExposed),
    /// The server cannot listen on the address for clients.
    #[error("cannot listen on {address}: {cause}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The error of the operating system.
        cause: std::io::Error,
    },
    /// The operating system provides no random numbers for an identity.
    #[error("cannot get random numbers from the operating system: {0}")]
    Randomness(#[from] getrandom::Error),
}

impl StartError {
    /// Whether the address to listen on is missing and may exist soon: no interface has it yet, or
    /// its name cannot be looked up. An address that another program uses does not count.
    #[must_use]
    pub fn is_address_missing(&self) -> bool {
        let (Self::Listen { cause, .. } | Self::ListenForPeers { cause, .. }) = self else { return false };
        // A failed name look-up has no error number of the operating system.
        cause.kind() == std::io::ErrorKind::AddrNotAvailable || cause.raw_os_error().is_none()
    }
}

/// Why a running node ended by itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemberFailure {
    /// Its cluster has rejected it.
    #[error(transparent)]
    Refused(#[from] HandshakeRefusal),
    /// Its files cannot be created.
    #[error(transparent)]
    Files(#[from] FileError),
    /// It cannot start from its files or settings.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Its disk failed; the events hold the reason.
    #[error("the node stopped after a disk failure")]
    DiskLost,
}
