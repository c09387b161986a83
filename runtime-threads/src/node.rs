//! The thread of a node: feeds the [`NodeHost`] from the inbox and carries out its actions.

use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use coracle_core::host::{NodeAction, NodeHost, PeerNews, RouterInput, SnapshotOrder};
use coracle_core::raft::Persist;
use coracle_storage::NodeEvent;
use coracle_storage::blocking::Folder;
use coracle_storage::host::{FileWork, NodeEnd, NodeInput, NodeStart, StartError, StartedNode};

use crate::files;
use crate::inbox::{Inbox, InboxReceiver};
use crate::network::Network;
use crate::peers::Peers;
use crate::threads::spawn;
use crate::wiring::{Wiring, route};

/// Both ends of a node's inbox, and a channel that closes when the node has transferred its
/// leadership or cannot.
pub(crate) type NodeEnds = (Inbox, InboxReceiver, Option<Sender<()>>);

#[derive(Debug)]
struct NodeDriver {
    host: NodeHost,
    inbox: InboxReceiver,
    persists: Sender<Persist>,
    snapshots: Sender<SnapshotOrder>,
    peers: Peers,
    wiring: Wiring,
    resigning: Option<Sender<()>>,
}

/// Starts a node's thread and, if it has files, the threads for its log and its snapshots.
pub(crate) fn start(
    wiring: &Wiring,
    peers: Peers,
    mut start: NodeStart,
    (node, inbox, resigning): NodeEnds,
) -> Result<Vec<JoinHandle<()>>, StartError> {
    let (id, clock, wiring) = (start.id(), wiring.clock, wiring.clone());
    start.notices().into_iter().for_each(|notice| wiring.report(id, notice));
    let StartedNode { host, files } = start.start(fastrand::u64(..), clock.now(), wiring.memory.clone())?;
    let (persists, to_persist) = channel();
    let (snapshots, orders) = channel();
    let mut threads = Vec::new();
    if let Some(FileWork { path, log, snapshots }) = files {
        let (folder, log_node) = (Folder::new(&path), node.clone());
        threads.push(spawn(format!("disk {id}"), move || {
            let log = files::run_log(folder, log, &to_persist, &log_node);
            files::report_failure(log, &log_node);
        }));
        threads.push(spawn(format!("snapshots {id}"), move || {
            let snapshots = files::run_snapshots(Folder::new(path), snapshots, &orders, &node, clock);
            files::report_failure(snapshots, &node);
        }));
    }
    let driver = NodeDriver { host, inbox, persists, snapshots, peers, wiring, resigning };
    threads.push(spawn(format!("node {id}"), move || driver.run()));
    Ok(threads)
}

impl NodeDriver {
    /// Drives the node until it is asked to stop or its disk fails.
    fn run(mut self) {
        if let NodeEnd::DiskFailed(error) = self.drive() {
            self.wiring.report(self.host.id(), NodeEvent::Failed(error));
            route(&self.wiring.proxy, [RouterInput::NodeStopped(self.host.id())]);
        }
    }

    fn drive(&mut self) -> NodeEnd {
        let mut actions = Vec::new();
        loop {
            let mut next = None;
            if !self.host.has_work() {
                match self.inbox.receive(self.host.deadline(), self.wiring.clock) {
                    Ok(first) => next = first,
                    Err(_) => return NodeEnd::Stopped,
                }
            }
            while !self.host.is_full()
                && let Some(input) = next.take().or_else(|| self.inbox.next())
            {
                match input {
                    NodeInput::Host(input) => self.host.accept(input),
                    NodeInput::End(end) => return end,
                }
            }
            self.inbox.settle();
            self.host.step(self.wiring.clock.now(), &mut actions);
            actions.drain(..).for_each(|action| self.carry_out(action));
            self.peers.with_network(Network::tidy);
        }
    }

    fn carry_out(&mut self, action: NodeAction) {
        match action {
            // A disk thread that is gone has reported its failure, which is the next item in the
            // inbox.
            NodeAction::Persist(persist) => drop(self.persists.send(persist)),
            NodeAction::Snapshot(order) => drop(self.snapshots.send(order)),
            NodeAction::Send(message) => self.peers.send(message),
            NodeAction::AnswerPeer(peer, call, answer) => {
                self.peers.with_network(|network| network.answer(peer, call, &answer));
            }
            NodeAction::Route(news) => _ = route(&self.wiring.proxy, [RouterInput::FromNode(news)]),
            NodeAction::Follow(known) => {
                self.peers.with_network(|network| {
                    network.change(|directory, now, actions| directory.follow(&known, now, actions));
                });
            }
            NodeAction::Report(event) => self.wiring.report(self.host.id(), NodeEvent::Raft(event)),
            NodeAction::Removed(refusal) => {
                self.peers.with_network(|network| network.deliver(PeerNews::Removed(refusal)));
            }
            NodeAction::Resigned => self.resigning = None,
        }
    }
}
