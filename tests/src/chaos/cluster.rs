//! The cluster of a chaos campaign: all nodes, their addresses, and queries of their status.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::PoisonError;
use std::time::Duration;

use serde_json::{Value, json};

use super::Violation;
use super::caller::ask_once;
use super::clients::Shared;
use super::home::Home;
use super::network::Network;
use super::node::{Node, Start};
use crate::live::{Runtime, program};

/// The time that a node has to report its status.
const STATUS_TIMEOUT: Duration = Duration::from_millis(400);

/// The number of ids beyond those of the founders, for nodes that are added later.
const SPARE_IDS: usize = 4;

/// The nodes of a run, with the network between them.
#[derive(Debug)]
pub(super) struct Cluster<'a> {
    /// The nodes that are members.
    pub(super) nodes: Vec<Node>,
    /// The nodes that were removed, with their folders.
    pub(super) removed: Vec<Removed>,
    /// A node that the others cannot reach at the moment, so that it gets no answers. The operator
    /// asks other nodes.
    pub(super) unreached: Option<u64>,
    environment: Environment,
    pub(super) network: Network,
    pub(super) shared: &'a Shared,
}

/// A node that was removed.
#[derive(Debug)]
pub(super) struct Removed {
    pub(super) node: Node,
    /// The members that it knew last.
    pub(super) knew: Vec<u64>,
}

/// The settings of new nodes.
#[derive(Debug)]
struct Environment {
    folder: PathBuf,
    runtimes: Vec<Runtime>,
    flags: Vec<String>,
    with_mounts: bool,
    /// The number of folders so far; each gets a different name.
    homes: usize,
}

/// The settings of a cluster.
#[derive(Clone, Debug)]
pub(super) struct Shape<'a> {
    pub(super) folder: &'a Path,
    pub(super) runtimes: Vec<Runtime>,
    pub(super) flags: Vec<String>,
    pub(super) with_mounts: bool,
    pub(super) seed: u64,
}

impl<'a> Cluster<'a> {
    /// Creates the nodes without starting them.
    pub(super) fn new(shape: &Shape<'_>, shared: &'a Shared) -> io::Result<Self> {
        let founders = shape.runtimes.len();
        let peers = free_addresses(founders + SPARE_IDS)?;
        let network = Network::start(&peers, shape.seed)?;
        let roster: Vec<String> =
            peers.iter().take(founders).map(|(id, address)| format!("{id}={address}")).collect();
        let environment = Environment {
            folder: shape.folder.to_owned(),
            runtimes: shape.runtimes.clone(),
            flags: shape.flags.clone(),
            with_mounts: shape.with_mounts,
            homes: 0,
        };
        let mut cluster =
            Self { nodes: Vec::new(), removed: Vec::new(), unreached: None, environment, network, shared };
        for id in peers.keys().take(founders) {
            let node = cluster.new_node(*id, ["--peers".to_owned(), roster.join(",")])?;
            cluster.nodes.push(node);
        }
        Ok(cluster)
    }

    /// Creates a node with an empty folder without starting it.
    pub(super) fn new_node(&mut self, id: u64, origin: [String; 2]) -> io::Result<Node> {
        let environment = &mut self.environment;
        environment.homes += 1;
        let folder = environment.folder.join(format!("home{}-node{id}", environment.homes));
        let home = if environment.with_mounts { Home::mounted(&folder)? } else { Home::plain(&folder)? };
        let place = usize::try_from(id).expect("ids are small");
        let start = Start {
            id,
            runtime: environment.runtimes[(place - 1) % environment.runtimes.len()],
            origin,
            peer_listen: None,
            dial_map: self.network.dial_map(id),
            flags: environment.flags.clone(),
            stderr: environment.folder.join(format!("node{id}.stderr")),
        };
        Ok(Node::new(start, home))
    }

    /// The node of a member.
    pub(super) fn node(&mut self, id: u64) -> &mut Node {
        self.nodes.iter_mut().find(|node| node.id() == id).expect("it is a member")
    }

    /// The ids that no member has.
    pub(super) fn free_ids(&self) -> Vec<u64> {
        let members = self.ids();
        self.network.nodes().iter().copied().filter(|id| !members.contains(id)).collect()
    }

    /// The number of founders.
    pub(super) fn founders(&self) -> usize {
        self.environment.runtimes.len()
    }

    pub(super) fn ids(&self) -> Vec<u64> {
        self.nodes.iter().map(Node::id).collect()
    }

    /// Starts a node and gives its address to the clients.
    pub(super) fn start(&mut self, id: u64, tracer: &[OsString]) -> Result<(), Violation> {
        self.node(id).start(tracer)?;
        self.tell_addresses();
        Ok(())
    }

    /// Gives the current, or latest, addresses of the nodes to the clients.
    pub(super) fn tell_addresses(&self) {
        let addresses = self.nodes.iter().filter_map(Node::address).collect();
        *self.shared.addresses.lock().unwrap_or_else(PoisonError::into_inner) = addresses;
    }

    /// Starts every node that does not run, and resumes those that were paused.
    pub(super) fn start_all(&mut self) -> Result<(), Violation> {
        for id in self.ids() {
            if !self.node(id).is_running() {
                self.start(id, &[])?;
            } else if self.node(id).is_paused {
                self.node(id).signal("CONT");
            }
        }
        Ok(())
    }

    /// The status that a node reports of itself.
    pub(super) fn status(&self, node: &Node) -> Option<Value> {
        if !node.is_running() || node.is_paused {
            return None;
        }
        let status = ask_once(node.address()?, STATUS_TIMEOUT, json!({"op":"status"}))?;
        status["nodes"].as_array()?.iter().find(|row| row["id"] == node.id()).cloned()
    }

    /// The node that leads in the highest term, according to the nodes' own reports.
    pub(super) fn leader(&self) -> Option<u64> {
        let rows = self.nodes.iter().filter_map(|node| self.status(node));
        let leaders = rows.filter(|row| row["role"] == "leader");
        leaders.max_by_key(|row| row["term"].as_u64())?["id"].as_u64()
    }

    /// Runs an operator's command against whichever node answers, and returns its output.
    pub(super) fn order(&self, words: &[&str]) -> io::Result<Output> {
        let asked = self.nodes.iter().filter(|node| Some(node.id()) != self.unreached);
        let addresses: Vec<String> =
            asked.filter_map(Node::address).map(|address| address.to_string()).collect();
        Command::new(program()).args(words).args(["--connect", &addresses.join(",")]).output()
    }

    /// Fails if a node that should be running has ended.
    pub(super) fn check_alive(&mut self) -> Result<(), Violation> {
        for node in &mut self.nodes {
            if let Some(end) = node.ended() {
                let what = format!("node {} ended with {end:?}: {}", node.id(), node.last_words());
                return Err(Violation { rule: "a node that is left alone goes on", what });
            }
        }
        Ok(())
    }
}

/// Returns an unused address for each node. Each node has a separate loopback address, so that its
/// port is not assigned to a client's end of a connection while the node is down.
fn free_addresses(nodes: usize) -> io::Result<BTreeMap<u64, SocketAddr>> {
    let [high, low, ..] = std::process::id().to_le_bytes();
    let mut addresses = BTreeMap::new();
    for id in (1..=u8::MAX).take(nodes) {
        let host = Ipv4Addr::new(127, 1 + high % 250, low, id);
        addresses.insert(u64::from(id), free_address(host.into())?);
    }
    Ok(addresses)
}

/// Returns another unused address of this host.
pub(super) fn free_address(host: IpAddr) -> io::Result<SocketAddr> {
    TcpListener::bind((host, 0))?.local_addr()
}
