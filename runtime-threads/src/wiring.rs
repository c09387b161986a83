//! Wiring: the channels, the clock, the memory budget and the cluster id that the parts of a
//! process share.

use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use coracle_core::host::RouterInput;
use coracle_core::memory::{MemoryBudget, MemoryShares};
use coracle_core::raft::NodeId;
use coracle_core::{KnownCluster, Settings};
use coracle_storage::{HostEvent, NodeEvent};
use coracle_tls::{Protection, SESSION_BYTES};

use crate::clock::Clock;
use crate::inputs::ProxyEvent;

/// The most events that wait for a reader; when it is full, new events are dropped.
const EVENTS_MAX: usize = 1024;

/// The memory cost of a connection without its data: two threads with the used pages of their
/// stacks, and a buffer.
const CONNECTION_BYTES: usize = 64 << 10;

#[derive(Clone, Debug)]
pub(crate) struct Wiring {
    pub(crate) proxy: Sender<ProxyEvent>,
    events: SyncSender<HostEvent>,
    pub(crate) clock: Clock,
    pub(crate) memory: MemoryBudget,
    /// The cluster id, once it is known.
    pub(crate) cluster: KnownCluster,
    pub(crate) protection: Protection,
}

/// The router's inbox.
pub(crate) type RouterInbox = Receiver<ProxyEvent>;
/// The receiver of the nodes' events, for the operator.
pub(crate) type Events = Receiver<HostEvent>;

impl Wiring {
    /// Creates the wiring of a server with these settings, within these shares of the memory
    /// budget.
    pub(crate) fn new(
        settings: &Settings,
        shares: MemoryShares,
        protection: Protection,
    ) -> (Self, RouterInbox, Events) {
        let session_bytes = if protection.clients.is_some() { SESSION_BYTES } else { 0 };
        let connection_bytes = CONNECTION_BYTES + session_bytes;
        let (proxy, inbox) = channel();
        let (events, receiver) = sync_channel(EVENTS_MAX);
        let memory = settings.memory_budget(shares, connection_bytes);
        (
            Self {
                proxy,
                events,
                clock: Clock::start(),
                memory,
                cluster: KnownCluster::default(),
                protection,
            },
            inbox,
            receiver,
        )
    }

    /// Reports an event of a node. There may be no reader.
    pub(crate) fn report(&self, node: NodeId, event: NodeEvent) {
        let _ = self.events.try_send(HostEvent { node, event });
    }
}

/// Sends inputs to the router; `false`: it is gone, and no request will be answered.
pub(crate) fn route(proxy: &Sender<ProxyEvent>, inputs: impl IntoIterator<Item = RouterInput>) -> bool {
    inputs.into_iter().all(|input| proxy.send(ProxyEvent::Router(input)).is_ok())
}
