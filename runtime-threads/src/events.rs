//! What the nodes tell, for whoever listens.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use coracle_core::raft::NodeId;
use coracle_storage::{Happening, NodeEvent};

/// The most events that wait for a listener; with so many waiting, new ones are lost.
const EVENTS_MAX: usize = 1024;

/// The nodes' end.
#[derive(Clone, Debug)]
pub(crate) struct Events {
    sender: SyncSender<NodeEvent>,
}

/// A channel for events.
pub(crate) fn channel() -> (Events, Receiver<NodeEvent>) {
    let (sender, receiver) = sync_channel(EVENTS_MAX);
    (Events { sender }, receiver)
}

impl Events {
    pub(crate) fn tell(&self, node: NodeId, happening: Happening) {
        // Nobody has to listen.
        let _ = self.sender.try_send(NodeEvent { node, happening });
    }
}
