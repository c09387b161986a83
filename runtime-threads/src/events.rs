//! The events of the nodes, for an operator who may listen.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use coracle_core::raft::NodeId;
use coracle_storage::{HostEvent, NodeEvent};

/// The most events that wait for a listener; with so many waiting, new ones are lost.
const EVENTS_MAX: usize = 1024;

/// The nodes' end.
#[derive(Clone, Debug)]
pub(crate) struct Events {
    sender: SyncSender<HostEvent>,
}

/// A channel for events.
pub(crate) fn channel() -> (Events, Receiver<HostEvent>) {
    let (sender, receiver) = sync_channel(EVENTS_MAX);
    (Events { sender }, receiver)
}

impl Events {
    pub(crate) fn report(&self, node: NodeId, event: NodeEvent) {
        // Nobody has to listen.
        let _ = self.sender.try_send(HostEvent { node, event });
    }
}
