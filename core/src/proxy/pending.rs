//! Pending requests: a window over the requests under way, by their consecutive numbers.
//!
//! All requests have the same timeout, so the first is also the first to expire. A slow request
//! would stretch the window behind it without limit, including answered slots; so the window moves
//! on, and keeps the slow request in a map.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{ProxyConfig, Ticket};
use crate::raft::NodeId;
use crate::replica::{Request, RequestId, Status};
use crate::time::Instant;

/// The length limit of the window, as a multiple of the requests under way. Arbitrary: moving a
/// request out of the window should be rare.
const WINDOW_PER_PENDING: usize = 4;
/// The limit of the window is computed for at least this many requests under way.
const WINDOW_PENDING_MIN: usize = 256;

/// A request under way.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) ticket: Ticket,
    pub(super) request: Request,
    pub(super) deadline: Instant,
    pub(super) place: Place,
    /// Whether a node had the request and did not report that it had no effect there.
    pub(super) may_have_effect: bool,
}

/// Where a request is: at no node, at one node, or at all nodes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Waiting: no node has it.
    Waiting,
    /// At this node, and at no other.
    At(NodeId),
    /// At all nodes: a status request.
    AtAll { missing: BTreeSet<NodeId>, found: Vec<Status> },
}

impl Pending {
    pub(super) fn new(ticket: Ticket, request: Request, deadline: Instant) -> Self {
        Self { ticket, request, deadline, place: Place::Waiting, may_have_effect: false }
    }

    /// Notes that the request is sent elsewhere although its outcome is unknown.
    pub(super) fn leave_in_doubt(&mut self) {
        self.may_have_effect |= matches!(self.place, Place::At(_)) && self.is_repeatable_write();
    }

    /// Returns whether it changes something, and must not be sent again.
    pub(super) fn is_unrepeatable_write(&self) -> bool {
        let is_write = matches!(self.request, Request::Write { .. } | Request::ChangeMembers(_));
        is_write && !self.is_repeatable_write()
    }

    /// Returns whether it changes something and is safe to repeat: a write with a session, or a
    /// membership change that names the members for which it was given.
    pub(super) fn is_repeatable_write(&self) -> bool {
        match &self.request {
            Request::Write { session, .. } => session.is_some(),
            Request::ChangeMembers(order) => order.given_for.is_some(),
            _ => false,
        }
    }
}

/// The requests under way. See the module.
#[derive(Debug, Default)]
pub(super) struct PendingRequests {
    /// Slow requests that the window has passed, by number.
    overtaken: BTreeMap<u64, Pending>,
    first_id: u64,
    /// The other requests. The first slot, if any, is occupied.
    window: VecDeque<Option<Pending>>,
    occupied: usize,
    /// The bytes of keys and values in all requests.
    bytes: usize,
}

impl PendingRequests {
    pub(super) fn push(&mut self, pending: Pending) -> RequestId {
        self.bytes += pending.request.bytes();
        self.window.push_back(Some(pending));
        self.occupied += 1;
        let id = self.first_id + self.window.len() as u64 - 1;
        while self.window.len() > WINDOW_PER_PENDING * self.occupied.max(WINDOW_PENDING_MIN) {
            self.overtake_first();
        }
        RequestId(id)
    }

    /// Moves the window past its first request, which is still under way.
    fn overtake_first(&mut self) {
        if let Some(Some(first)) = self.window.pop_front() {
            self.overtaken.insert(self.first_id, first);
        }
        self.first_id += 1;
        self.drop_empty_slots();
    }

    fn drop_empty_slots(&mut self) {
        while self.window.pop_front_if(|first| first.is_none()).is_some() {
            self.first_id += 1;
        }
    }

    pub(super) fn request(&self, id: RequestId) -> Option<&Pending> {
        match self.position(id) {
            Some(position) => self.window.get(position)?.as_ref(),
            None => self.overtaken.get(&id.0),
        }
    }

    pub(super) fn request_mut(&mut self, id: RequestId) -> Option<&mut Pending> {
        match self.position(id) {
            Some(position) => self.window.get_mut(position)?.as_mut(),
            None => self.overtaken.get_mut(&id.0),
        }
    }

    pub(super) fn remove(&mut self, id: RequestId) -> Option<Pending> {
        let pending = match self.position(id) {
            Some(position) => self.window.get_mut(position)?.take()?,
            None => self.overtaken.remove(&id.0)?,
        };
        self.occupied -= 1;
        self.bytes -= pending.request.bytes();
        self.drop_empty_slots();
        Some(pending)
    }

    pub(super) fn first(&self) -> Option<&Pending> {
        self.first_with_id().map(|(_, pending)| pending)
    }

    pub(super) fn first_with_id(&self) -> Option<(RequestId, &Pending)> {
        if let Some((id, pending)) = self.overtaken.first_key_value() {
            return Some((RequestId(*id), pending));
        }
        self.window.front()?.as_ref().map(|pending| (RequestId(self.first_id), pending))
    }

    pub(super) fn ids(&self) -> Vec<RequestId> {
        let numbered = (self.first_id..).zip(&self.window);
        let in_window = numbered.filter(|(_, slot)| slot.is_some()).map(|(id, _)| id);
        self.overtaken.keys().copied().chain(in_window).map(RequestId).collect()
    }

    /// Returns whether one more request may be accepted. Only the number and the size of the
    /// requests count, not the age of the oldest.
    pub(super) fn has_room(&self, config: &ProxyConfig) -> bool {
        self.occupied < config.pending_max && self.bytes < config.pending_bytes_max
    }

    pub(super) fn is_empty(&self) -> bool {
        self.occupied == 0
    }

    /// Returns its position in the window; `None`: it is before the window.
    fn position(&self, id: RequestId) -> Option<usize> {
        usize::try_from(id.0.checked_sub(self.first_id)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::{Key, Query};
    use crate::raft::LogIndex;

    fn read() -> Pending {
        let query = Query::Value(Key::new("k").expect("a short text"));
        let request = Request::Read { query, at_least: LogIndex::ORIGIN };
        Pending::new(Ticket { connection: 1, slot: 1 }, request, Instant::default())
    }

    /// A slow request neither causes later ones to be rejected nor makes the window grow behind it.
    #[test]
    fn a_slow_request_does_not_stretch_the_window() {
        let config = ProxyConfig {
            nodes: vec![NodeId(1)],
            local: None,
            request_timeout: std::time::Duration::from_secs(5),
            pending_max: 4,
            pending_bytes_max: usize::MAX,
            scans_max: 1,
        };
        let mut pending = PendingRequests::default();
        let oldest = pending.push(read());
        for _ in 0..100_000 {
            assert!(pending.has_room(&config));
            let id = pending.push(read());
            assert!(pending.request(id).is_some() && pending.request_mut(oldest).is_some());
            assert!(pending.remove(id).is_some() && pending.remove(id).is_none());
            assert!(pending.window.len() <= WINDOW_PER_PENDING * WINDOW_PENDING_MIN);
        }
        assert_eq!(pending.first_with_id().map(|(id, _)| id), Some(oldest));
        let newest = pending.push(read());
        assert_eq!(pending.ids(), [oldest, newest]);
        assert!(pending.remove(oldest).is_some() && pending.remove(newest).is_some());
        assert!(pending.is_empty() && pending.first().is_none() && pending.bytes == 0);
    }
}
