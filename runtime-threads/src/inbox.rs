//! A node's inbox: a channel that knows how much is in it.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvError, Sender, channel};

use coracle_core::Instant;
use coracle_core::memory::{InboxMemory, MemoryBudget};
use coracle_storage::host::NodeInput;

use crate::alarm;
use crate::clock::Clock;

/// The end that others send to.
#[derive(Clone, Debug)]
pub(crate) struct Inbox {
    sender: Sender<NodeInput>,
    waiting: Arc<Waiting>,
}

/// What waits in an inbox.
#[derive(Debug)]
struct Waiting {
    items: AtomicUsize,
    peer_bytes: InboxMemory,
}

/// The node's own end.
#[derive(Debug)]
pub(crate) struct InboxReceiver {
    channel: Receiver<NodeInput>,
    waiting: Arc<Waiting>,
    /// How many items, and bytes of peers' frames, were taken out and are still counted.
    taken: Cell<(usize, usize)>,
}

/// An empty inbox. What peers put in it counts in this budget.
pub(crate) fn inbox(memory: &MemoryBudget) -> (Inbox, InboxReceiver) {
    let (sender, channel) = channel();
    let waiting = Arc::new(Waiting { items: AtomicUsize::new(0), peer_bytes: InboxMemory::new(memory) });
    (
        Inbox { sender, waiting: Arc::clone(&waiting) },
        InboxReceiver { channel, waiting, taken: Cell::default() },
    )
}

impl Inbox {
    /// Puts `input` in. A node that has stopped hears nothing.
    pub(crate) fn send(&self, input: NodeInput) {
        self.waiting.items.fetch_add(1, Ordering::Relaxed);
        self.waiting.peer_bytes.add(input.peer_bytes());
        let _ = self.sender.send(input);
    }

    /// Whether more should be kept out, if it can be.
    pub(crate) fn is_full(&self) -> bool {
        self.waiting.peer_bytes.is_full(self.waiting.items.load(Ordering::Relaxed))
    }
}

impl InboxReceiver {
    /// The next thing that is in it now.
    pub(crate) fn next(&self) -> Option<NodeInput> {
        self.channel.try_recv().ok().inspect(|input| self.count(input))
    }

    /// The next thing that is in it before `deadline`.
    ///
    /// # Errors
    ///
    /// When it is empty and nobody can send to it any more.
    pub(crate) fn receive(&self, deadline: Instant, clock: Clock) -> Result<Option<NodeInput>, RecvError> {
        let received = alarm::receive(&self.channel, Some(deadline), clock)?;
        Ok(received.inspect(|input| self.count(input)))
    }

    fn count(&self, input: &NodeInput) {
        let (items, bytes) = self.taken.get();
        self.taken.set((items + 1, bytes + input.peer_bytes()));
    }

    /// What was taken out does not fill it any more. Once a turn: the number is shared.
    pub(crate) fn settle(&self) {
        let (items, bytes) = self.taken.take();
        self.waiting.items.fetch_sub(items, Ordering::Relaxed);
        self.waiting.peer_bytes.remove(bytes);
    }
}
