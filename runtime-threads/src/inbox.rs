//! A node's inbox: a channel that counts its items and the bytes of peers' frames in them.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvError, Sender, channel};

use coracle_core::Instant;
use coracle_core::memory::{InboxMemory, MemoryBudget};
use coracle_storage::host::NodeInput;

use crate::alarm;
use crate::clock::Clock;

/// The sending end of an inbox.
#[derive(Clone, Debug)]
pub(crate) struct Inbox {
    sender: Sender<NodeInput>,
    waiting: Arc<Waiting>,
}

/// The counters of an inbox.
#[derive(Debug)]
struct Waiting {
    items: AtomicUsize,
    peer_bytes: InboxMemory,
}

/// The receiving end of an inbox.
#[derive(Debug)]
pub(crate) struct InboxReceiver {
    channel: Receiver<NodeInput>,
    waiting: Arc<Waiting>,
    /// Items and bytes of peers' frames that were received and are still counted in `waiting`.
    taken: Cell<(usize, usize)>,
}

/// Creates an inbox. Frames of peers in it count towards the memory budget.
pub(crate) fn inbox(memory: &MemoryBudget) -> (Inbox, InboxReceiver) {
    let (sender, channel) = channel();
    let waiting = Arc::new(Waiting { items: AtomicUsize::new(0), peer_bytes: InboxMemory::new(memory) });
    (
        Inbox { sender, waiting: Arc::clone(&waiting) },
        InboxReceiver { channel, waiting, taken: Cell::default() },
    )
}

impl Inbox {
    /// Sends `input` to the node, which receives nothing if it has stopped.
    pub(crate) fn send(&self, input: NodeInput) {
        self.waiting.items.fetch_add(1, Ordering::Relaxed);
        self.waiting.peer_bytes.add(input.peer_bytes());
        let _ = self.sender.send(input);
    }

    /// Whether senders should hold messages back, if they can.
    pub(crate) fn is_full(&self) -> bool {
        self.waiting.peer_bytes.is_full(self.waiting.items.load(Ordering::Relaxed))
    }
}

impl InboxReceiver {
    /// Returns the next item, if there is one.
    pub(crate) fn next(&self) -> Option<NodeInput> {
        self.channel.try_recv().ok().inspect(|input| self.count(input))
    }

    /// Waits for the next item until `deadline`; an error when the inbox is empty and all senders
    /// are gone.
    pub(crate) fn receive(&self, deadline: Instant, clock: Clock) -> Result<Option<NodeInput>, RecvError> {
        let received = alarm::receive(&self.channel, Some(deadline), clock)?;
        Ok(received.inspect(|input| self.count(input)))
    }

    fn count(&self, input: &NodeInput) {
        let (items, bytes) = self.taken.get();
        self.taken.set((items + 1, bytes + input.peer_bytes()));
    }

    /// Subtracts the received items from the shared counters. Called once per turn, because the
    /// counters are contended.
    pub(crate) fn settle(&self) {
        let (items, bytes) = self.taken.take();
        self.waiting.items.fetch_sub(items, Ordering::Relaxed);
        self.waiting.peer_bytes.remove(bytes);
    }
}
