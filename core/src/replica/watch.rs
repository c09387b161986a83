//! The interface of watches on the replica: the requests by which a connection asks for the next
//! lines of a watch, and their answers.
//!
//! A watch is a sequence of requests, each of which names everything that its answer needs. The
//! replica keeps nothing for a watch between an answer and the next request, except the view that
//! initial content is read from. So a reader that is slow, or gone, costs nothing, and the next
//! request may go to another node.

use std::time::Duration;

use crate::kv::{ChangedEntry, EVENT_BYTES, HistoryLimits, Revision, Selection, ViewId, ViewPart};
use crate::raft::{LogIndex, NodeId};

/// How long a request for changes waits for one before it is answered with the current revision
/// alone. Chosen so that a client sees a line at least every 5 seconds.
pub const PROGRESS_INTERVAL: Duration = Duration::from_secs(3);

/// The most views of a node; further watches with initial content wait until one is read.
pub const VIEWS_MAX: usize = 8;

/// How long a view stays open that is not read.
pub const VIEW_TIMEOUT: Duration = Duration::from_secs(10);

/// The most bytes of old content that a view holds. Arbitrary: the changes of some seconds under
/// load, and all views together hold a few tens of megabytes.
pub const VIEW_BYTES_MAX: usize = 4 << 20;

/// A request of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchRequest {
    /// The keys that the watch is about.
    pub selection: Selection,
    /// The part of the watch that is requested.
    pub part: WatchPart,
}

impl WatchRequest {
    /// Returns whether initial content is requested, if this is the beginning of a watch. Only that
    /// is rejected for lack of memory: the reader of a watch that has begun frees memory, or is
    /// evicted.
    #[must_use]
    pub fn begins(&self) -> Option<bool> {
        match self.part {
            WatchPart::Start { wants_content, .. } => Some(wants_content),
            WatchPart::Content { .. } | WatchPart::Changes { .. } => None,
        }
    }
}

/// A part of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchPart {
    /// The beginning.
    Start {
        /// The first entry whose changes are of interest; `None`: those after the present.
        from: Option<Revision>,
        /// Whether the present content is sent first.
        wants_content: bool,
        /// The log index that must be applied before, because the client has already seen it.
        at_least: LogIndex,
        /// The number of bytes of keys and values after which the first part of the content ends.
        bytes_max: usize,
    },
    /// The next part of the initial content.
    Content {
        /// The view to read.
        view: NodeView,
        /// The number of bytes of keys and values after which the answer ends.
        bytes_max: usize,
    },
    /// The next changes.
    Changes {
        /// The last entry whose changes were sent.
        after: Revision,
        /// The number of bytes of keys and values after which the answer ends; one entry may exceed
        /// it.
        bytes_max: usize,
    },
}

/// A view on a node, and the revision whose content it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// The node.
    pub node: NodeId,
    /// The view.
    pub id: ViewId,
    /// The revision.
    pub as_of: Revision,
}

/// The answer to a [`WatchRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchAnswer {
    /// The watch begins after this revision.
    Started {
        /// The revision.
        after: Revision,
        /// The first part of the initial content, if it was requested, and the view that has the
        /// rest, if there is one.
        content: Option<(NodeView, ViewPart)>,
    },
    /// The history does not reach back to the requested revision.
    Compacted {
        /// The first revision that it reaches back to.
        oldest: Revision,
    },
    /// A part of the initial content.
    Content {
        /// The keys.
        part: ViewPart,
        /// The revision of the content.
        as_of: Revision,
    },
    /// The changes of these entries, ascending; none after [`PROGRESS_INTERVAL`].
    Changes {
        /// The selected changes of each entry.
        entries: Vec<ChangedEntry>,
        /// The watch has all changes up to this revision now.
        up_to: Revision,
    },
    /// The node no longer has what the watch needs.
    Lagged {
        /// The revision from which on the watch can be resumed, perhaps at another node. For
        /// initial content: its revision; it must be requested again.
        resume: Revision,
    },
}

impl WatchAnswer {
    /// Returns whether this can be the answer to a request for `part`.
    #[must_use]
    pub fn fits(&self, part: &WatchPart) -> bool {
        match self {
            Self::Started { .. } | Self::Compacted { .. } => matches!(part, WatchPart::Start { .. }),
            Self::Content { .. } => matches!(part, WatchPart::Content { .. }),
            Self::Changes { .. } => matches!(part, WatchPart::Changes { .. }),
            Self::Lagged { .. } => !matches!(part, WatchPart::Start { .. }),
        }
    }

    /// The number of bytes of keys and values, and of the structures around them.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Content { part, .. } | Self::Started { content: Some((_, part)), .. } => {
                part.text_bytes() + EVENT_BYTES * part.items.len()
            }
            Self::Changes { entries, .. } => {
                let events = entries.iter().flat_map(|entry| entry.changes.as_slice());
                events.map(|event| event.text_bytes() + EVENT_BYTES).sum()
            }
            _ => 0,
        }
    }
}

/// The limits of what a replica keeps for watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchLimits {
    /// The limits of the history ring.
    pub history: HistoryLimits,
    /// See [`VIEW_BYTES_MAX`].
    pub view_bytes: usize,
    /// See [`VIEWS_MAX`].
    pub views: usize,
}

impl Default for WatchLimits {
    fn default() -> Self {
        Self { history: HistoryLimits::default(), view_bytes: VIEW_BYTES_MAX, views: VIEWS_MAX }
    }
}
