//! The task of a node: feeds the [`NodeHost`] from the inbox and carries out its actions.

use std::rc::Rc;

use coracle_core::host::{NodeAction, NodeHost, PeerNews, RouterInput, SnapshotOrder};
use coracle_core::raft::Persist;
use coracle_storage::NodeEvent;
use coracle_storage::asynchronous::{Folder, try_pool};
use coracle_storage::host::{FileWork, NodeEnd, NodeInput, NodeStart, StartError, StartedNode};
use futures_lite::future;
use smol::{Task, Timer};

use crate::alarm::Alarm;
use crate::files;
use crate::mailbox::{Receiver, Sender, mailbox};
use crate::network::Network;
use crate::peers::Peers;
use crate::wiring::{Wiring, route};

/// Both ends of a node's inbox, and a channel that closes when the node has transferred its
/// leadership or cannot.
pub(crate) type NodeEnds = (Sender<NodeInput>, Receiver<NodeInput>, Option<async_channel::Sender<()>>);

#[derive(Debug)]
struct NodeDriver {
    host: NodeHost,
    inbox: Receiver<NodeInput>,
    persists: Sender<Persist>,
    snapshots: Sender<SnapshotOrder>,
    peers: Peers,
    wiring: Wiring,
    resigning: Option<async_channel::Sender<()>>,
}

/// Starts a node's task and, if it has files, the tasks for its log and its snapshots.
pub(crate) fn start(
    wiring: &Wiring,
    peers: Peers,
    mut start: NodeStart,
    (node, inbox, resigning): NodeEnds,
) -> Result<Vec<Task<()>>, StartError> {
    let (id, wiring) = (start.id(), wiring.clone());
    start.notices().into_iter().for_each(|notice| wiring.report(id, notice));
    let StartedNode { host, files } =
        start.start(fastrand::u64(..), wiring.clock.now(), wiring.memory.clone())?;
    let (persists, to_persist) = mailbox();
    let (snapshots, orders) = mailbox();
    let (executor, mut tasks) = (Rc::clone(&wiring.executor), Vec::new());
    if let Some(FileWork { path, log, snapshots }) = files {
        let log = files::run_log(Folder::new(&path), log, to_persist, node.clone());
        tasks.push(executor.spawn(files::report_failure(log, node.clone())));
        let snapshots =
            files::run_snapshots(Folder::new(path), snapshots, orders, node.clone(), wiring.clock);
        let snapshots = future::or(snapshots, try_pool(Timer::after));
        tasks.push(executor.spawn(files::report_failure(snapshots, node)));
    }
    let driver = NodeDriver { host, inbox, persists, snapshots, peers, wiring, resigning };
    tasks.push(executor.spawn(driver.run()));
    Ok(tasks)
}

impl NodeDriver {
    /// Drives the node until it is asked to stop or its disk fails.
    async fn run(mut self) {
        if let NodeEnd::DiskFailed(error) = self.drive().await {
            self.wiring.report(self.host.id(), NodeEvent::Failed(error));
            route(&self.wiring.proxy, [RouterInput::NodeStopped(self.host.id())]);
        }
    }

    async fn drive(&mut self) -> NodeEnd {
        let mut alarm = Alarm::new(self.wiring.clock);
        let mut actions = Vec::new();
        loop {
            let mut next = None;
            if !self.host.has_work() {
                match alarm.receive(&self.inbox, Some(self.host.deadline())).await {
                    Ok(first) => next = first,
                    Err(_) => return NodeEnd::Stopped,
                }
            }
            while !self.host.is_full()
                && let Some(input) = next.take().or_else(|| self.inbox.take())
            {
                match input {
                    NodeInput::Host(input) => {
                        self.peers.with_network(|network| network.taken(input.peer_bytes()));
                        self.host.accept(input);
                    }
                    NodeInput::End(end) => return end,
                }
            }
            self.host.step(self.wiring.clock.now(), &mut actions);
            actions.drain(..).for_each(|action| self.carry_out(action));
            self.peers.with_network(Network::tidy);
            // Other tasks get their turn even when this node has more to do at once, such as a long
            // log to apply.
            future::yield_now().await;
        }
    }

    fn carry_out(&mut self, action: NodeAction) {
        match action {
            // A disk task that is gone has reported its failure, which is the next item in the
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
