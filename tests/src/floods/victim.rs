//! The server under flood: five nodes in one process, or three processes if the flood is at the
//! port for nodes. Each process has a small memory budget, and a control group that kills it when
//! it takes twice as much.

use std::fs;
use std::net::SocketAddr;

use super::Flood;
use super::kinds::{Kind, Target};
use crate::live::{Group, Nodes, Server, Setup, Talk};

/// The memory budget of a process.
const MEMORY_MAX: &str = "--memory-max 256MiB";
/// The memory limit of its control group.
const GROUP_BYTES: u64 = 512 << 20;
/// The number of keys that scans find: enough for several pages.
const SCANNED_KEYS: usize = 5000;

#[derive(Debug)]
pub(super) struct Victim {
    served: Served,
    /// Empty where this process may create no control group. Then only the server's own memory is
    /// measured.
    groups: Vec<Group>,
    _folder: tempfile::TempDir,
}

#[derive(Debug)]
enum Served {
    Cluster(Box<Server>),
    Nodes(Box<Nodes>),
}

impl Victim {
    /// Starts the server.
    ///
    /// # Panics
    ///
    /// When it does not start.
    pub(super) fn start(flood: Flood) -> Self {
        let folder = tempfile::tempdir().expect("there is room for a folder");
        let mut groups = Vec::new();
        let mut tracer = || {
            let group = Group::of_memory(GROUP_BYTES);
            let tracer = group.as_ref().map(Group::tracer).unwrap_or_default();
            groups.extend(group);
            tracer
        };
        // The election times are the program's defaults.
        let times = "--heartbeat 50ms --election-timeout 300ms..600ms";
        let served = if flood.kind == Kind::Strangers {
            let mut nodes = Nodes::new(&[flood.runtime; 3]);
            for id in 1..=3 {
                nodes = nodes.under(tracer());
                nodes.launch(id, &format!("{MEMORY_MAX} {times}"));
            }
            (1..=3).for_each(|id| nodes.wait_until_ready(id));
            _ = nodes.leader();
            Served::Nodes(Box::new(nodes))
        } else {
            let setup = Setup::in_folder(flood.runtime, &folder.path().join("data")).under(tracer());
            Served::Cluster(Box::new(setup.with(&format!("{MEMORY_MAX} {times}")).start()))
        };
        Self { served, groups, _folder: folder }
    }

    pub(super) fn address(&self) -> SocketAddr {
        match &self.served {
            Served::Cluster(server) => server.address(),
            Served::Nodes(nodes) => nodes.server(1).address(),
        }
    }

    /// The addresses to flood.
    pub(super) fn target(&self) -> Target {
        let peers = match &self.served {
            Served::Cluster(_) => Vec::new(),
            Served::Nodes(nodes) => {
                let address = |id| nodes.peer_address(id).parse().expect("it is an address");
                nodes.running().into_iter().map(address).collect()
            }
        };
        Target { clients: self.address(), peers }
    }

    /// Stores the keys that scans find.
    pub(super) fn fill(&self) {
        let value = "x".repeat(1000);
        let mut talk = Talk::open(self.address());
        for first in (0..SCANNED_KEYS).step_by(100) {
            let put = |key| format!("{{\"key\":\"k{key:06}\",\"value\":\"{value}\"}}\n");
            talk.send((first..first + 100).map(put).collect::<String>());
            (0..100).for_each(|_| assert_eq!(talk.hear_json()["status"], "ok"));
        }
    }

    fn servers(&self) -> Vec<&Server> {
        match &self.served {
            Served::Cluster(server) => vec![server],
            Served::Nodes(nodes) => nodes.running().into_iter().map(|id| nodes.server(id)).collect(),
        }
    }

    /// The number of elections so far.
    pub(super) fn elections(&self) -> usize {
        self.servers().iter().map(|server| server.stderr().matches("became leader").count()).sum()
    }

    /// Returns whether all its processes run, and none was killed for lack of memory.
    pub(super) fn is_alive(&self) -> bool {
        let is_running = |server: &&Server| {
            let stat = fs::read_to_string(format!("/proc/{}/stat", server.pid())).unwrap_or_default();
            // `pid (name) state …`: a process that has ended and was not waited for is a zombie.
            stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
        };
        self.groups.iter().all(|group| group.kills() == 0) && self.servers().iter().all(is_running)
    }

    /// The highest memory use of one of its processes.
    pub(super) fn rss_peak_bytes(&self) -> u64 {
        self.servers().iter().map(|server| server.memory_peak_bytes()).max().unwrap_or_default()
    }

    /// The highest memory use of one of its groups, including kernel memory.
    pub(super) fn group_peak_bytes(&self) -> Option<u64> {
        self.groups.iter().filter_map(Group::peak).max()
    }
}
