//! What the parts of a process are connected to, whatever they do.

use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use coracle_core::Settings;
use coracle_core::host::RouterInput;
use coracle_core::memory::{MemoryBudget, MemoryShares};
use coracle_core::raft::NodeId;
use coracle_storage::{HostEvent, NodeEvent};

use crate::clock::Clock;
use crate::inputs::ProxyEvent;

/// The most events that wait for a listener; with so many waiting, new ones are lost.
const EVENTS_MAX: usize = 1024;

/// What a connection takes in memory, whatever goes over it: two threads with the pages of their
/// stacks that are in use, and a buffer.
const CONNECTION_BYTES: usize = 64 << 10;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Wiring {
    pub(crate) proxy: Sender<ProxyEvent>,
    events: SyncSender<HostEvent>,
    pub(crate) clock: Clock,
    pub(crate) memory: MemoryBudget,
}

/// The router's inbox.
pub(crate) type RouterInbox = Receiver<ProxyEvent>;
/// The operator's end of the nodes' events.
pub(crate) type Events = Receiver<HostEvent>;

impl Wiring {
    /// The wiring of a server with these settings, within these shares of the memory budget.
    pub(crate) fn new(settings: &Settings, shares: MemoryShares) -> (Self, RouterInbox, Events) {
        let (proxy, inbox) = channel();
        let (events, receiver) = sync_channel(EVENTS_MAX);
        let memory = settings.memory_budget(shares, CONNECTION_BYTES);
        (Self { proxy, events, clock: Clock::start(), memory }, inbox, receiver)
    }

    /// Reports what happened to a node. Nobody has to listen.
    pub(crate) fn report(&self, node: NodeId, event: NodeEvent) {
        let _ = self.events.try_send(HostEvent { node, event });
    }
}

/// Hands something to the router; `false`: it is gone, and nobody waits for an answer.
pub(crate) fn route(proxy: &Sender<ProxyEvent>, inputs: impl IntoIterator<Item = RouterInput>) -> bool {
    inputs.into_iter().all(|input| proxy.send(ProxyEvent::Router(input)).is_ok())
}
