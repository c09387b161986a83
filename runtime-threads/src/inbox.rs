//! A node's inbox: a channel that knows how much is in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

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
    pub(crate) channel: Receiver<NodeInput>,
    waiting: Arc<AtomicUsize>,
}

/// An empty inbox.
pub(crate) fn inbox() -> (Inbox, InboxReceiver) {
    let (sender, channel) = channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    (Inbox { sender, waiting: Arc::clone(&waiting) }, InboxReceiver { channel, waiting })
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
        self.channel.try_recv().ok()
    }

    /// So many items were taken out.
    pub(crate) fn took(&self, count: usize) {
        self.waiting.fetch_sub(count, Ordering::Relaxed);
    }
}
