//! A cluster of processes: one server per node, each with a separate folder.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

use super::{Ended, Runtime, Server, Setup, Talk, until};

/// Returns a loopback address that no other cluster of this process, or of another test process,
/// uses.
pub(super) fn own_host() -> String {
    static CLUSTERS: AtomicU32 = AtomicU32::new(1);
    let cluster = CLUSTERS.fetch_add(1, Ordering::Relaxed);
    let (process, cluster) = (std::process::id() % (1 << 14), cluster % 250 + 1);
    // 127.64.0.0/10 belongs to the loopback network as well.
    format!("127.{}.{}.{cluster}", 64 + (process >> 8), process & 255)
}

/// Nodes as processes, with the ids 1, 2, … Dropping this kills all of them.
#[derive(Debug)]
pub struct Nodes {
    folder: tempfile::TempDir,
    /// The host of this cluster: a loopback address that no other story uses.
    host: String,
    founders: usize,
    runtimes: Vec<Runtime>,
    servers: Vec<Option<Server>>,
    tracer: Vec<OsString>,
    /// The address and the command prefix of each node, if the nodes run on different machines.
    machines: Vec<(String, Vec<OsString>)>,
}

impl Nodes {
    /// Bootstraps a cluster with a node on each of these runtimes. It has a leader when this
    /// returns.
    ///
    /// # Panics
    ///
    /// When the cluster does not start.
    #[must_use]
    pub fn start(runtimes: &[Runtime]) -> Self {
        let mut nodes = Self::new(runtimes);
        _ = nodes.found("");
        nodes
    }

    /// Creates the cluster without starting any node.
    ///
    /// # Panics
    ///
    /// When no folder can be created.
    #[must_use]
    pub fn new(runtimes: &[Runtime]) -> Self {
        Self {
            folder: tempfile::tempdir().expect("there is room for a folder"),
            host: own_host(),
            founders: runtimes.len(),
            runtimes: runtimes.to_vec(),
            servers: runtimes.iter().map(|_| None).collect(),
            tracer: Vec::new(),
            machines: Vec::new(),
        }
    }

    /// Places each node on a different machine: its address, and the command prefix that runs a
    /// program there.
    #[must_use]
    pub fn on_machines(mut self, machines: Vec<(String, Vec<OsString>)>) -> Self {
        self.machines = machines;
        self
    }

    /// Starts all founders with additional flags, waits until they have a leader, and returns that.
    ///
    /// # Panics
    ///
    /// When they do not start.
    pub fn found(&mut self, flags: &str) -> usize {
        (1..=self.founders).for_each(|id| self.launch(id, flags));
        (1..=self.founders).for_each(|id| self.wait_until_ready(id));
        self.leader()
    }

    /// Runs each node under this tracer: see [`Setup::under`].
    #[must_use]
    pub fn under(mut self, tracer: Vec<OsString>) -> Self {
        self.tracer = tracer;
        self
    }

    /// The address at which the peers reach a node.
    #[must_use]
    pub fn peer_address(&self, id: usize) -> String {
        let host = self.machines.get(id - 1).map_or(&self.host, |(address, _)| address);
        format!("{host}:{}", 4000 + id)
    }

    /// The founders, in the syntax of `--peers`.
    #[must_use]
    pub fn peers(&self) -> String {
        let peer = |id: usize| format!("{id}={}", self.peer_address(id));
        (1..=self.founders).map(peer).collect::<Vec<_>>().join(",")
    }

    /// The data folder of a node.
    #[must_use]
    pub fn folder(&self, id: usize) -> std::path::PathBuf {
        self.folder.path().join(id.to_string())
    }

    /// The setup of a founder.
    #[must_use]
    pub fn setup(&self, id: usize) -> Setup {
        self.setup_in(id, &self.folder(id)).with(&format!("--peers {}", self.peers()))
    }

    fn setup_in(&self, id: usize, folder: &Path) -> Setup {
        let setup = Setup::node(self.runtimes[id - 1], id as u64, folder);
        match self.machines.get(id - 1) {
            Some((address, enter)) => {
                setup.with(&format!("--listen {address}:0 --insecure")).under(enter.clone())
            }
            None => setup.under(self.tracer.clone()),
        }
    }

    /// Launches a founder with additional flags, and does not wait.
    ///
    /// # Panics
    ///
    /// When it is running already.
    pub fn launch(&mut self, id: usize, flags: &str) {
        assert!(self.servers[id - 1].is_none(), "node {id} runs");
        self.servers[id - 1] = Some(self.setup(id).with(flags).launch());
    }

    /// Launches a founder with additional flags that dials node `to` at another address.
    ///
    /// # Panics
    ///
    /// When it is running already.
    pub fn launch_dialling(&mut self, id: usize, flags: &str, (to, address): (usize, SocketAddr)) {
        assert!(self.servers[id - 1].is_none(), "node {id} runs");
        // A tracer may be any program that starts the command.
        let overrides = format!("CORACLE_PEER_DIAL={to}={address}");
        let tracer = ["env", &overrides].map(OsString::from).to_vec();
        self.servers[id - 1] = Some(self.setup(id).with(flags).under(tracer).launch());
    }

    /// Restarts a node, whose files contain everything else, and waits until it serves.
    pub fn restart(&mut self, id: usize) {
        self.servers[id - 1] = Some(self.setup_in(id, &self.folder(id)).start());
    }

    /// Adds a learner to the cluster through another node, and starts it. Returns its id.
    ///
    /// # Panics
    ///
    /// When the order is rejected.
    pub fn join(&mut self, runtime: Runtime) -> usize {
        let added = self.add_next();
        assert_eq!(added["status"], "ok", "{added}");
        self.start_added(runtime)
    }

    /// Orders the cluster to add the node with the next id. Returns the reply.
    #[must_use]
    pub fn add_next(&self) -> Value {
        let id = self.servers.len() + 1;
        let address = self.peer_address(id);
        let add = format!(r#"{{"op":"member_add","node":{id},"address":"{address}"}}"#);
        self.connect(self.running()[0]).ask(&add)
    }

    /// Starts the node that was added. Returns its id.
    pub fn start_added(&mut self, runtime: Runtime) -> usize {
        let id = self.servers.len() + 1;
        let through = self.running()[0];
        self.runtimes.push(runtime);
        let setup = self.setup_in(id, &self.folder(id));
        let join = format!("--join {}", self.peer_address(through));
        self.servers.push(Some(setup.with(&join).start()));
        id
    }

    /// Waits for a node's ready line.
    pub fn wait_until_ready(&mut self, id: usize) {
        self.server_mut(id).wait_until_ready();
    }

    /// The nodes that were started and not ended since.
    #[must_use]
    pub fn running(&self) -> Vec<usize> {
        (1..=self.servers.len()).filter(|id| self.servers[id - 1].is_some()).collect()
    }

    /// The process of a node.
    ///
    /// # Panics
    ///
    /// When it does not run.
    #[must_use]
    pub fn server(&self, id: usize) -> &Server {
        self.servers[id - 1].as_ref().unwrap_or_else(|| panic!("node {id} does not run"))
    }

    fn server_mut(&mut self, id: usize) -> &mut Server {
        self.servers[id - 1].as_mut().unwrap_or_else(|| panic!("node {id} does not run"))
    }

    /// Opens a connection to a node.
    #[must_use]
    pub fn connect(&self, id: usize) -> Talk {
        self.server(id).connect()
    }

    /// The client addresses of the running nodes.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.running().into_iter().map(|id| self.server(id).address()).collect()
    }

    /// Kills a node with SIGKILL.
    pub fn kill(&mut self, id: usize) -> Ended {
        self.take(id).kill()
    }

    /// Returns whether a started node has ended by itself.
    #[must_use]
    pub fn has_ended(&mut self, id: usize) -> bool {
        self.server_mut(id).has_ended()
    }

    /// Waits until a node ends by itself.
    pub fn wait(&mut self, id: usize) -> Ended {
        self.take(id).wait()
    }

    /// Stops a node by SIGTERM.
    pub fn stop(&mut self, id: usize) -> Ended {
        self.take(id).stop()
    }

    fn take(&mut self, id: usize) -> Server {
        self.servers[id - 1].take().unwrap_or_else(|| panic!("node {id} does not run"))
    }

    /// The status rows that a node reports to a client.
    ///
    /// # Panics
    ///
    /// When it reports no status.
    #[must_use]
    pub fn rows(&self, id: usize) -> Vec<Value> {
        let status = self.connect(id).ask(r#"{"op":"status"}"#);
        status["nodes"].as_array().unwrap_or_else(|| panic!("{status}")).clone()
    }

    /// Waits until all running nodes follow the same running leader. Returns it.
    #[must_use]
    pub fn leader(&self) -> usize {
        let mut leader = 0;
        until("all follow one leader", || {
            let seen = |id: &usize| {
                let rows = self.rows(*id);
                let own = rows.iter().find(|row| row["id"] == *id as u64);
                own.and_then(|row| row["leader"].as_u64())
            };
            let running = self.running();
            let seen: Vec<_> = running.iter().map(seen).collect();
            leader = usize::try_from(seen[0].unwrap_or_default()).expect("ids are small");
            seen.iter().all(|one| *one == seen[0]) && running.contains(&leader)
        });
        leader
    }

    /// Waits until all running nodes have applied the whole log.
    ///
    /// # Panics
    ///
    /// When they do not converge.
    pub fn settle(&self) {
        let leader = self.leader();
        until("all nodes agree", || {
            let rows = self.rows(leader);
            let of = |id: usize| rows.iter().find(|row| row["id"] == id as u64).cloned().unwrap_or_default();
            let last = of(leader)["last_log_index"].clone();
            self.running().into_iter().all(|id| of(id)["last_applied"] == last && !last.is_null())
        });
    }
}
