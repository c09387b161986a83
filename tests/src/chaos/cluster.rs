//! All nodes, and what an eye on them can see.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::PoisonError;
use std::time::Duration;

use serde_json::{Value, json};

use super::Violation;
use super::caller::ask_once;
use super::clients::Shared;
use super::home::Home;
use super::network::Network;
use super::node::{Node, Start};
use crate::live::Runtime;

/// How long a node is given to say how it is.
const STATUS_PATIENCE: Duration = Duration::from_millis(400);

/// The nodes of a run; the id of each is its place plus one.
#[derive(Debug)]
pub(super) struct Cluster<'a> {
    pub(super) nodes: Vec<Node>,
    pub(super) network: Network,
    pub(super) shared: &'a Shared,
}

/// How a cluster is to be.
#[derive(Clone, Debug)]
pub(super) struct Shape<'a> {
    pub(super) folder: &'a Path,
    pub(super) runtimes: Vec<Runtime>,
    pub(super) flags: Vec<String>,
    pub(super) with_mounts: bool,
    pub(super) seed: u64,
}

impl<'a> Cluster<'a> {
    /// Nodes that do not run yet.
    pub(super) fn new(shape: &Shape<'_>, shared: &'a Shared) -> io::Result<Self> {
        let peers = free_addresses(shape.runtimes.len())?;
        let network = Network::start(&peers, shape.seed)?;
        let roster: Vec<String> = peers.iter().map(|(id, address)| format!("{id}={address}")).collect();
        let mut nodes = Vec::new();
        for (id, runtime) in (1..).zip(&shape.runtimes) {
            let folder = shape.folder.join(format!("node{id}"));
            let home = if shape.with_mounts { Home::mounted(&folder)? } else { Home::plain(&folder)? };
            let start = Start {
                id,
                runtime: *runtime,
                peers: roster.join(","),
                dial_map: network.dial_map(id),
                flags: shape.flags.clone(),
                stderr: shape.folder.join(format!("node{id}.stderr")),
            };
            nodes.push(Node::new(start, home));
        }
        Ok(Self { nodes, network, shared })
    }

    pub(super) fn node(&mut self, id: u64) -> &mut Node {
        let at = usize::try_from(id - 1).expect("there are few nodes");
        &mut self.nodes[at]
    }

    pub(super) fn ids(&self) -> Vec<u64> {
        self.nodes.iter().map(Node::id).collect()
    }

    /// Starts a node and tells the clients where it is.
    pub(super) fn start(&mut self, id: u64, tracer: &[OsString]) -> Result<(), Violation> {
        self.node(id).start(tracer)?;
        self.tell_addresses();
        Ok(())
    }

    /// Tells the clients where nodes are, or last were.
    pub(super) fn tell_addresses(&self) {
        let addresses = self.nodes.iter().filter_map(Node::address).collect();
        *self.shared.addresses.lock().unwrap_or_else(PoisonError::into_inner) = addresses;
    }

    /// Starts every node that does not run, and lets those that were stopped go on.
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

    /// What a node says of itself.
    pub(super) fn status(&self, node: &Node) -> Option<Value> {
        if !node.is_running() || node.is_paused {
            return None;
        }
        let status = ask_once(node.address()?, STATUS_PATIENCE, json!({"op":"status"}))?;
        status["nodes"].as_array()?.iter().find(|row| row["id"] == node.id()).cloned()
    }

    /// The node that leads in the highest term, as far as anybody says so.
    pub(super) fn leader(&self) -> Option<u64> {
        let rows = self.nodes.iter().filter_map(|node| self.status(node));
        let leaders = rows.filter(|row| row["role"] == "leader");
        leaders.max_by_key(|row| row["term"].as_u64())?["id"].as_u64()
    }

    /// A node that was left alone has ended: that must not happen.
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

/// An address for each node that nobody uses. Each has one of this machine's own addresses to itself, so that no port
/// that is handed out to a client's end of a connection is in the way when the node comes back.
fn free_addresses(nodes: usize) -> io::Result<BTreeMap<u64, SocketAddr>> {
    let [high, low, ..] = std::process::id().to_le_bytes();
    let mut addresses = BTreeMap::new();
    for id in (1..=9_u8).take(nodes) {
        let host = Ipv4Addr::new(127, 1 + high % 250, low, id);
        let listener = TcpListener::bind((IpAddr::V4(host), 0))?;
        addresses.insert(u64::from(id), listener.local_addr()?);
    }
    Ok(addresses)
}
