//! `coracle node`: runs one node of a cluster of processes, one per machine.

use std::collections::BTreeMap;
use std::env;
use std::str::FromStr;

use clap::Args;
use coracle_core::peer::Origin;
use coracle_core::raft::{Member, NodeId, Roster, VOTERS_MAX};
use coracle_storage::host::PeersExposed;
use thiserror::Error;

use super::options::{ServeFlagsError, ServeOptions, ServingFlags};
use super::security::PeerSecurity;
use crate::address::{Address, AddressError};
use crate::list::{List, all_of};
use crate::numbers;

/// An environment variable with addresses at which to dial peers instead of those in the
/// configuration, as `2=HOST:PORT,3=HOST:PORT`. It is for tests that insert a proxy between nodes.
const DIAL_OVERRIDES: &str = "CORACLE_PEER_DIAL";

/// Run one node of a cluster of processes, one per machine
///
/// stdout carries one line, `ready ADDR`; everything else is on stderr. Any node serves any client.
/// SIGINT or SIGTERM transfers leadership and stops the node gracefully, a second one at once.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  coracle node --id 1 --peers 1=10.0.0.1:4001,2=10.0.0.2:4001,3=10.0.0.3:4001
      the same --peers on every machine, with its own --id
  coracle node --id 1 --require-cluster
      a later start: the data folder has the rest
  coracle member add 4=10.0.0.4:4001
  coracle node --id 4 --join 10.0.0.1:4001
      one more, on the machine 10.0.0.4

At its first start a cluster is bootstrapped as soon as every node of --peers has completed a handshake with \
all others; until then requests are answered with no_leader. A data folder belongs to one node.")]
pub(crate) struct NodeFlags {
    /// The id of this node
    #[arg(long, value_name = "ID", value_parser = numbers::id)]
    id: u64,

    /// The founders of the cluster, this node among them, and the addresses where they reach each
    /// other; for the first start
    #[arg(long, value_name = "ID=HOST:PORT,…", conflicts_with = "join")]
    peers: Vec<List<Peer>>,

    /// A member's peer address: joins the cluster to which `member add` has added this node; for
    /// the first start
    #[arg(long, value_name = "HOST:PORT")]
    join: Option<Address>,

    /// Where to listen for other nodes, if not at this node's own address in --peers
    #[arg(long, value_name = "HOST:PORT")]
    peer_listen: Option<Address>,

    #[command(flatten)]
    serving: ServingFlags,

    #[command(flatten)]
    security: PeerSecurity,
}

/// A node's id, and the address at which its peers reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) id: NodeId,
    pub(crate) address: Address,
}

/// Why a text is not a peer.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(crate) enum PeerError {
    #[error("expected ID=HOST:PORT, such as 1=10.0.0.1:4001")]
    Shape,
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error("the port of a node's address cannot be 0: the other nodes must know it")]
    PortIsZero,
}

impl FromStr for Peer {
    type Err = PeerError;

    fn from_str(text: &str) -> Result<Self, PeerError> {
        let (id, address) = text.split_once('=').ok_or(PeerError::Shape)?;
        let id = id.trim().parse().map_err(|_| PeerError::Shape)?;
        let address: Address = address.trim().parse()?;
        if address.port() == 0 {
            return Err(PeerError::PortIsZero);
        }
        Ok(Self { id: NodeId(id), address })
    }
}

/// Flags of a node that are valid alone but not together.
#[derive(Debug, Error)]
pub(crate) enum NodeFlagsError {
    #[error(transparent)]
    Serving(#[from] ServeFlagsError),
    #[error("--peers names node {0} twice")]
    Twice(u64),
    #[error("--peers names the address {0} twice: two nodes never share one")]
    AddressTwice(Address),
    #[error("--peers does not name node {0}, the id of this node (--id)")]
    NotNamed(u64),
    #[error(
        "--peers names more than {VOTERS_MAX} nodes: bootstrap the cluster with fewer, and add the others as \
         learners"
    )]
    TooMany,
    #[error("{DIAL_OVERRIDES}: {0}")]
    DialOverrides(PeerError),
    #[error(transparent)]
    Exposed(#[from] PeersExposed),
}

/// The options of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeOptions {
    pub(crate) id: NodeId,
    pub(crate) origin: Origin,
    pub(crate) peer_listen: Option<Box<str>>,
    pub(crate) dial_overrides: BTreeMap<NodeId, Box<str>>,
    pub(crate) serving: ServeOptions,
    pub(crate) security: PeerSecurity,
}

impl NodeFlags {
    /// Checks the flags for consistency.
    pub(crate) fn options(self) -> Result<NodeOptions, NodeFlagsError> {
        let peers = all_of(&self.peers);
        let origin = match (&self.join, peers.is_empty()) {
            (Some(address), _) => Origin::Join(address.to_string().into()),
            (None, true) => Origin::Known,
            (None, false) => Origin::Found(self.founders(&peers)?),
        };
        let dial_overrides = match env::var(DIAL_OVERRIDES) {
            Ok(text) => dial_overrides(&text).map_err(NodeFlagsError::DialOverrides)?,
            Err(_) => BTreeMap::new(),
        };
        let peer_listen: Option<Box<str>> = self.peer_listen.map(|address| address.to_string().into());
        let (id, serving, security) = (NodeId(self.id), self.serving.options(1)?, self.security);
        security.check(&serving.security, id, &origin, peer_listen.as_deref())?;
        Ok(NodeOptions { id, origin, peer_listen, dial_overrides, serving, security })
    }

    fn founders(&self, peers: &[Peer]) -> Result<Roster, NodeFlagsError> {
        let mut ids: Vec<_> = peers.iter().map(|peer| peer.id.0).collect();
        ids.sort_unstable();
        if let Some(twice) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(NodeFlagsError::Twice(twice[0]));
        }
        let mut addresses: Vec<_> = peers.iter().map(|peer| peer.address.to_string()).collect();
        addresses.sort_unstable();
        if let Some(twice) = addresses.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(NodeFlagsError::AddressTwice(twice[0].parse().expect("it was an address")));
        }
        if !ids.contains(&self.id) {
            return Err(NodeFlagsError::NotNamed(self.id));
        }
        if ids.len() > VOTERS_MAX {
            return Err(NodeFlagsError::TooMany);
        }
        let member = |peer: &Peer| {
            let address = peer.address.to_string().into();
            (peer.id, Member::founder(address, None))
        };
        Ok(Roster::new(peers.iter().map(member)))
    }
}

fn dial_overrides(text: &str) -> Result<BTreeMap<NodeId, Box<str>>, PeerError> {
    let dial_override = |text: &str| {
        let peer: Peer = text.parse()?;
        Ok((peer.id, peer.address.to_string().into()))
    };
    text.split(',').filter(|text| !text.is_empty()).map(dial_override).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: NodeFlags,
    }

    fn options(flags: &str) -> Result<NodeOptions, String> {
        let line = Line::try_parse_from(std::iter::once("x").chain(flags.split_whitespace()));
        line.map_err(|error| error.to_string())?.flags.options().map_err(|error| error.to_string())
    }

    #[test]
    fn a_first_start_founds_or_joins_and_a_later_one_needs_no_flags() {
        let options = |flags: &str| options(flags).unwrap();
        let Origin::Found(roster) = options("--id 2 --peers 1=a:1,2=[::1]:2,3=c:3").origin else { panic!() };
        let members: Vec<_> = roster.iter().map(|(id, member)| (id.0, &*member.address)).collect();
        assert_eq!(members, [(1, "a:1"), (2, "[::1]:2"), (3, "c:3")]);
        assert_eq!(options("--id 4 --join a:1").origin, Origin::Join("a:1".into()));
        assert_eq!(options("--id 4").origin, Origin::Known);
        let elsewhere = options("--id 4 --peer-listen 0.0.0.0:9 --insecure");
        assert_eq!(elsewhere.peer_listen.as_deref(), Some("0.0.0.0:9"));
    }

    #[test]
    fn an_open_port_for_nodes_is_on_loopback_or_said_to_be_insecure() {
        for flags in [
            "--peers 1=10.0.0.1:1,2=127.0.0.1:2",
            "--peers 1=0.0.0.0:1",
            "--join 10.0.0.2:1",
            "--peers 1=127.0.0.1:1 --peer-listen [::]:1",
        ] {
            let complaint = options(&format!("--id 1 {flags}")).unwrap_err();
            let ways = ["--peer-cert", "coracle cert init", "--insecure"];
            assert!(ways.iter().all(|way| complaint.contains(way)), "{complaint}");
            assert!(options(&format!("--id 1 {flags} --insecure")).is_ok());
            let protected = "--peer-cert a --peer-key b --peer-ca c";
            assert!(options(&format!("--id 1 {flags} {protected}")).is_ok());
        }
        for flags in ["--peers 1=127.0.0.1:1,2=10.0.0.2:2", "--join localhost:1", "--peers 1=[::1]:1"] {
            assert!(options(&format!("--id 1 {flags}")).is_ok(), "{flags}");
        }
    }

    #[test]
    fn every_mistake_has_its_own_error() {
        let complaint = |flags: &str| options(flags).unwrap_err();
        assert!(complaint("--id 1 --peers 1=a:1,1=b:2").contains("names node 1 twice"));
        assert!(complaint("--id 1 --peers 1=a:1,2=a:1").contains("names the address a:1 twice"));
        assert!(complaint("--id 4 --peers 1=a:1,2=b:2").contains("does not name node 4"));
        assert!(complaint("--id 1 --peers a:1").contains("ID=HOST:PORT"));
        assert!(complaint("--id 1 --peers 1=a").contains("HOST:PORT"));
        assert!(complaint("--id 1 --peers 1=a:0").contains("cannot be 0"));
        assert!(complaint("--id 1 --peers 1=a:1 --join b:2").contains("cannot be used with"));
        assert!(complaint("--peers 1=a:1").contains("--id"));
        let ten: Vec<_> = (1..=10).map(|id| format!("{id}=a:{id}")).collect();
        assert!(complaint(&format!("--id 1 --peers {}", ten.join(","))).contains("more than 9"));
        assert!(complaint("--id 1 --nodes 3").contains("--nodes"));
    }
}
