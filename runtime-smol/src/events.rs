//! The events of the nodes, for an operator who may listen.

use async_channel::{Receiver, Sender};
use coracle_core::raft::NodeId;
use coracle_storage::{HostEvent, NodeEvent};

/// The most events that wait for a listener; the oldest give way to new ones.
const EVENTS_MAX: usize = 1024;

/// The nodes' end.
#[derive(Clone, Debug)]
pub(crate) struct Events {
    sender: Sender<HostEvent>,
}

/// A channel for events; with nobody reading it, it keeps the latest.
pub(crate) fn channel() -> (Events, Receiver<HostEvent>) {
    let (sender, receiver) = async_channel::bounded(EVENTS_MAX);
    (Events { sender }, receiver)
}

impl Events {
    pub(crate) fn report(&self, node: NodeId, event: NodeEvent) {
        // Nobody has to listen.
        let _ = self.sender.force_send(HostEvent { node, event });
    }
}
