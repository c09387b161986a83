//! The requests under way: a window over their numbers, which are given out in order.
//!
//! All requests are given the same time, so the first of the window is also the first to expire.

use std::collections::{BTreeSet, VecDeque};

use super::{ProxyConfig, Ticket};
use crate::raft::NodeId;
use crate::replica::{Request, RequestId, Status};
use crate::time::Instant;

/// How many times as long the window may be as there may be requests under way.
const WINDOW_PER_PENDING: usize = 4;

/// A request under way.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) ticket: Ticket,
    pub(super) request: Request,
    pub(super) deadline: Instant,
    pub(super) place: Place,
    /// Whether it was at a node that did not say that it had no effect there.
    pub(super) may_have_effect: bool,
}

/// Where a request is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// At no node.
    Waiting,
    /// At this node, and at no other.
    At(NodeId),
    /// A question for all nodes.
    AtAll { missing: BTreeSet<NodeId>, found: Vec<Status> },
}

impl Pending {
    pub(super) fn new(ticket: Ticket, request: Request, deadline: Instant) -> Self {
        Self { ticket, request, deadline, place: Place::Waiting, may_have_effect: false }
    }

    /// It goes elsewhere although nobody has said what became of it.
    pub(super) fn leave_in_doubt(&mut self) {
        self.may_have_effect |= matches!(self.place, Place::At(_)) && self.is_repeatable_write();
    }

    /// Whether it changes something, and must not be sent again.
    pub(super) fn is_unrepeatable_write(&self) -> bool {
        let is_write = matches!(self.request, Request::Write { .. } | Request::ChangeMembers(_));
        is_write && !self.is_repeatable_write()
    }

    /// Whether it may be sent again without harm, although it changes something: a write of a session, or an order that says
    /// for which members it was given.
    pub(super) fn is_repeatable_write(&self) -> bool {
        match &self.request {
            Request::Write { session, .. } => session.is_some(),
            Request::ChangeMembers(order) => order.given_for.is_some(),
            _ => false,
        }
    }
}

/// The window. Its first element, if any, is occupied.
#[derive(Debug, Default)]
pub(super) struct PendingRequests {
    first_id: u64,
    window: VecDeque<Option<Pending>>,
    occupied: usize,
    /// Bytes of keys and values in the occupied slots.
    bytes: usize,
}

impl PendingRequests {
    pub(super) fn push(&mut self, pending: Pending) -> RequestId {
        self.bytes += pending.request.bytes();
        self.window.push_back(Some(pending));
        self.occupied += 1;
        RequestId(self.first_id + self.window.len() as u64 - 1)
    }

    pub(super) fn request(&self, id: RequestId) -> Option<&Pending> {
        self.window.get(self.position(id)?)?.as_ref()
    }

    pub(super) fn request_mut(&mut self, id: RequestId) -> Option<&mut Pending> {
        let position = self.position(id)?;
        self.window.get_mut(position)?.as_mut()
    }

    pub(super) fn remove(&mut self, id: RequestId) -> Option<Pending> {
        let position = self.position(id)?;
        let pending = self.window.get_mut(position)?.take()?;
        self.occupied -= 1;
        self.bytes -= pending.request.bytes();
        while self.window.pop_front_if(|first| first.is_none()).is_some() {
            self.first_id += 1;
        }
        Some(pending)
    }

    pub(super) fn first(&self) -> Option<&Pending> {
        self.window.front()?.as_ref()
    }

    pub(super) fn first_with_id(&self) -> Option<(RequestId, &Pending)> {
        self.first().map(|pending| (RequestId(self.first_id), pending))
    }

    pub(super) fn ids(&self) -> Vec<RequestId> {
        let numbered = (self.first_id..).zip(&self.window);
        numbered.filter(|(_, slot)| slot.is_some()).map(|(id, _)| RequestId(id)).collect()
    }

    /// Whether one more request may be taken. A request that takes its time keeps the slots after it in the window,
    /// answered or not: so the window has a limit, too.
    pub(super) fn has_room(&self, config: &ProxyConfig) -> bool {
        self.occupied < config.pending_max
            && self.bytes < config.pending_bytes_max
            && self.window.len() < config.pending_max.saturating_mul(WINDOW_PER_PENDING)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.occupied == 0
    }

    fn position(&self, id: RequestId) -> Option<usize> {
        usize::try_from(id.0.checked_sub(self.first_id)?).ok()
    }
}
