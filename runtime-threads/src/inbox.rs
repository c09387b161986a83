//! A node's inbox: a channel that knows how much is in it.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvError, Sender, channel};

use coracle_core::Instant;

use crate::alarm;
use crate::clock::Clock;
use crate::node::NodeInput;

/// With this much in a node's inbox, messages of its peers are dropped.
const INBOX_MAX: usize = 4096;

/// The end that others send to.
#[derive(Clone, Debug)]
pub(crate) struct Inbox {
    sender: Sender<NodeInput>,
    waiting: Arc<AtomicUsize>,
}

/// The node's own end.
#[derive(Debug)]
pub(crate) struct InboxReceiver {
    channel: Receiver<NodeInput>,
    waiting: Arc<AtomicUsize>,
    /// How many items were taken out and are still counted.
    taken: Cell<usize>,
}

/// An empty inbox.
pub(crate) fn inbox() -> (Inbox, InboxReceiver) {
    let (sender, channel) = channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    (Inbox { sender, waiting: Arc::clone(&waiting) }, InboxReceiver { channel, waiting, taken: Cell::new(0) })
}

impl Inbox {
    /// Puts `input` in. A node that has stopped hears nothing.
    pub(crate) fn send(&self, input: NodeInput) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _ = self.sender.send(input);
    }

    /// Whether more should be kept out, if it can be.
    pub(crate) fn is_full(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) >= INBOX_MAX
    }
}

impl InboxReceiver {
    /// The next thing that is in it now.
    pub(crate) fn next(&self) -> Option<NodeInput> {
        self.channel.try_recv().ok().inspect(|_| self.count())
    }

    /// The next thing that is in it before `deadline`.
    ///
    /// # Errors
    ///
    /// When it is empty and nobody can send to it any more.
    pub(crate) fn receive(&self, deadline: Instant, clock: Clock) -> Result<Option<NodeInput>, RecvError> {
        let received = alarm::receive(&self.channel, Some(deadline), clock)?;
        Ok(received.inspect(|_| self.count()))
    }

    fn count(&self) {
        self.taken.set(self.taken.get() + 1);
    }

    /// What was taken out does not fill it any more. Once a turn: the number is shared.
    pub(crate) fn settle(&self) {
        self.waiting.fetch_sub(self.taken.take(), Ordering::Relaxed);
    }
}
