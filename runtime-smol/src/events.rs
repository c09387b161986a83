//! What the nodes tell, for whoever listens.

use async_channel::{Receiver, Sender};
use coracle_core::raft::NodeId;
use coracle_storage::{Happening, NodeEvent};

/// The most events that wait for a listener; the oldest give way to new ones.
const EVENTS_MAX: usize = 1024;

/// The nodes' end.
#[derive(Clone, Debug)]
pub(crate) struct Events {
    sender: Sender<NodeEvent>,
}

/// A channel for events; with nobody reading it, it keeps the latest.
pub(crate) fn channel() -> (Events, Receiver<NodeEvent>) {
    let (sender, receiver) = async_channel::bounded(EVENTS_MAX);
    (Events { sender }, receiver)
}

impl Events {
    pub(crate) fn tell(&self, node: NodeId, happening: Happening) {
        // Nobody has to listen.
        let _ = self.sender.force_send(NodeEvent { node, happening });
    }
}
