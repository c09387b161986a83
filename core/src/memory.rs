//! The memory that a server may hold, in one budget.
//!
//! A server does not know what its clients are going to do. Each may send half a line and stop, or
//! ask for pages and read none of them, and what that costs is little for one and too much for
//! thousands. So each connection says what it holds and for what, and the nodes say how large the
//! data is. Where it is too much together, the connections that have kept the server waiting for
//! the longest are given up: they get one line, if they read at all, and the others are served on.
//! What is asked for meanwhile is refused, before anything was done.
//!
//! Other nodes are another matter: a node cannot do without them, and what they make it hold is
//! bounded beforehand, by shares of the budget ([`MemoryShares`]). It is counted all the same, and
//! clients have what the others leave.
//!
//! | held for | beyond its share |
//! | --- | --- |
//! | connections | the oldest one that has never sent a line is given up, and if there is none, a new one is told `busy` |
//! | lines without an end | the oldest one's connection is given up |
//! | replies that were not read | the connection that has taken nothing for the longest is given up |
//! | requests under way | new ones are refused |
//! | the data: keys, values and log | writes that add to it are refused; reading and deleting go on |
//! | sessions | the table forgets who wrote least recently, alike on all nodes, whatever their budgets are |
//! | snapshots, and the log behind the latest | writes are refused until the snapshot is written; a follower that lags begins again |
//! | frames to and from other nodes | Raft's oldest messages are dropped, forwarded requests refused, sockets not read |
//!
//! What is counted is bytes of text with the structures that hold them, not what an allocator makes
//! of that. Small amounts are rounded away, so that a client with short requests costs nothing
//! here.

mod holders;
mod meters;
mod shares;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::kv::Command;
use crate::raft::NodeId;
use crate::replica::Request;

pub use holders::{Holder, MemoryReport, MemoryUse, NodeMemory};
pub use meters::InboxMemory;
pub(crate) use meters::PeerMemory;
pub use shares::{
    BUDGET_BYTES_MIN, FRAME_BYTES_MIN, INBOX_BYTES_MIN, LINKED_MEMBERS, MemoryShares, OUTBOX_BYTES_MIN,
};

/// The most bytes of lines without an end, of all connections: enough for more than a hundred of
/// the longest ones at once.
pub const HALF_LINES_BYTES_MAX: usize = 128 << 20;

/// A connection that holds less than this for one purpose is not counted, nor is a change by less.
const NOTED_BYTES: usize = 16 << 10;

/// A connection is to be given up, because too much memory is held for this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Eviction {
    /// The connection's number.
    pub connection: u64,
    /// For what.
    pub holder: Holder,
}

/// What one connection holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ConnectionMemory {
    pub(crate) half_line: usize,
    pub(crate) requests: usize,
    pub(crate) replies: usize,
}

/// Whether a client has got on since its connection said last what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// A line was whole.
    pub(crate) has_read: bool,
    /// Some of the replies were taken.
    pub(crate) has_written: bool,
}

/// The budget of a server. Cloning gives another handle to the same one.
#[derive(Clone, Debug)]
pub struct MemoryBudget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    max: usize,
    connection_bytes: usize,
    connections_max: usize,
    shares: MemoryShares,
    /// What is refused, as bits: read for every request.
    refused: AtomicU8,
    /// What links, inboxes and frames that have not ended hold.
    peers: AtomicUsize,
    held: Mutex<Held>,
}

const WRITES_REFUSED: u8 = 1;
const PAGES_REFUSED: u8 = 2;
const ALL_REFUSED: u8 = 4;

#[derive(Debug, Default)]
struct Held {
    nodes: BTreeMap<NodeId, NodeMemory>,
    clients: BTreeMap<u64, Client>,
    /// Those of them that wait for the end of a line, and those that have replies to read, in the
    /// order in which they last got on.
    oldest_half_lines: BTreeMap<u64, u64>,
    oldest_replies: BTreeMap<u64, u64>,
    /// The next place in that order.
    next_place: u64,
    /// All connections, and those of them that have not sent a line yet; the older one has the
    /// smaller number.
    connections: BTreeSet<u64>,
    unused: BTreeSet<u64>,
    /// Without what other nodes make this one hold.
    sum: MemoryUse,
    /// What snapshots hold now, or will when the text of one is beside the state.
    with_copy: usize,
}

#[derive(Debug, Default)]
struct Client {
    memory: ConnectionMemory,
    half_line_place: Option<u64>,
    replies_place: Option<u64>,
}

impl MemoryBudget {
    /// A budget of `max` bytes, for `connections_max` connections at the most. Each takes
    /// `connection_bytes` of it, whatever goes over it.
    #[must_use]
    pub fn new(max: usize, connections_max: usize, connection_bytes: usize) -> Self {
        let (refused, peers, held) = (AtomicU8::new(0), AtomicUsize::new(0), Mutex::default());
        let shares = MemoryShares::of_cluster(max, 1);
        Self(Arc::new(Shared { max, connection_bytes, connections_max, shares, refused, peers, held }))
    }

    /// The same with these shares, before anything is held.
    #[must_use]
    pub fn with_shares(self, shares: MemoryShares) -> Self {
        let Shared { max, connection_bytes, connections_max, .. } = *self.0;
        let (refused, peers, held) = (AtomicU8::new(0), AtomicUsize::new(0), Mutex::default());
        Self(Arc::new(Shared { max, connection_bytes, connections_max, shares, refused, peers, held }))
    }

    /// A budget without a limit.
    #[must_use]
    pub fn unlimited() -> Self {
        Self::new(usize::MAX, usize::MAX, 0)
    }

    /// The most bytes that may be held.
    #[must_use]
    pub fn max(&self) -> usize {
        self.0.max
    }

    /// What the parts of a node may hold of it.
    #[must_use]
    pub fn shares(&self) -> &MemoryShares {
        &self.0.shares
    }

    /// How much of it is in use.
    #[must_use]
    pub fn report(&self) -> MemoryReport {
        let max = (self.0.max < usize::MAX).then_some(self.0.max);
        MemoryReport { max, in_use: self.in_use() }
    }

    /// What is held now.
    #[must_use]
    pub fn in_use(&self) -> MemoryUse {
        self.sum(&self.held())
    }

    fn sum(&self, held: &Held) -> MemoryUse {
        MemoryUse { peers: self.0.peers.load(Ordering::Relaxed), ..held.sum }
    }

    /// What is held for other nodes grows or shrinks from `before` to `now` bytes.
    fn count_peers(&self, before: usize, now: usize) {
        // Wraps around to less where it shrinks.
        self.0.peers.fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
    }

    /// Counts one more connection, whose number is larger than those of all before it, and says
    /// which one is given up for it, if one is; `None`: there is no room for it. A client that
    /// means to ask does so at once, so those that have never asked anything give way.
    #[must_use]
    pub fn connect(&self, connection: u64) -> Option<(ClientMemory, Option<Eviction>)> {
        let mut held = self.held();
        let bytes = held.sum.of_clients().saturating_add(self.0.connection_bytes);
        if held.connections.len() >= self.0.connections_max {
            return None;
        }
        let mut eviction = None;
        if bytes > self.clients_max(&held) {
            let connection = held.unused.pop_first()?;
            held.connections.remove(&connection);
            held.forget(connection);
            eviction = Some(Eviction { connection, holder: Holder::Connections });
        }
        held.connections.insert(connection);
        held.unused.insert(connection);
        self.count_connections(&mut held);
        drop(held);
        let (budget, noted) = (self.clone(), ConnectionMemory::default());
        Some((ClientMemory { budget, connection, noted, is_used: false }, eviction))
    }

    fn count_connections(&self, held: &mut Held) {
        held.sum.connections = held.connections.len().saturating_mul(self.0.connection_bytes);
    }

    /// A node says what it holds.
    pub fn note_node(&self, node: NodeId, memory: NodeMemory) {
        let mut held = self.held();
        held.nodes.insert(node, memory);
        held.add_up_nodes();
        self.judge(&held);
    }

    /// Why nothing is done for this request, if nothing is.
    #[must_use]
    pub fn refuses(&self, request: &Request) -> Option<Holder> {
        let refused = self.0.refused.load(Ordering::Relaxed);
        if refused == 0 {
            return None;
        }
        let by = refused & refusing(request);
        if by == 0 {
            return None;
        }
        let held = self.held();
        let is_full = by & WRITES_REFUSED != 0;
        Some(if is_full { held.sum.largest_of_state() } else { self.sum(&held).largest() })
    }

    /// Whether the state is as large as it may be: whatever of the log can go should go.
    #[must_use]
    pub fn state_is_short(&self) -> bool {
        self.0.refused.load(Ordering::Relaxed) & WRITES_REFUSED != 0
    }

    /// Whether there is no room for what this request would add to the state. A node asks so of
    /// what others forward to it: what they hold, and may hold, is not the same.
    #[must_use]
    pub fn has_no_room_for(&self, request: &Request) -> bool {
        let refused = self.0.refused.load(Ordering::Relaxed);
        refused & refusing(request) & WRITES_REFUSED != 0
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What clients may hold: three quarters of what the nodes leave, and a little if they leave
    /// nothing.
    fn clients_max(&self, held: &Held) -> usize {
        let left = self.0.max.saturating_sub(self.sum(held).of_nodes());
        (left / 4 * 3).max(self.0.shares.clients_min())
    }

    /// Whether the state is as large as it may be, by itself or with the text of a snapshot beside
    /// it.
    fn state_is_full(&self, held: &Held) -> bool {
        let shares = &self.0.shares;
        let state = held.sum.data.saturating_add(held.sum.sessions.min(shares.sessions_bytes));
        let (now, later) = (held.sum.snapshots, held.with_copy);
        let later = state.saturating_add(later).saturating_add(self.0.peers.load(Ordering::Relaxed));
        state.saturating_add(now) > shares.state_max() || later > self.0.max - shares.clients_min()
    }

    /// Decides anew what is refused.
    fn judge(&self, held: &Held) {
        let (clients, clients_max) = (held.sum.of_clients(), self.clients_max(held));
        let bit = |is_set: bool, bit: u8| if is_set { bit } else { 0 };
        let refused = bit(self.state_is_full(held), WRITES_REFUSED)
            | bit(clients > clients_max / 8 * 7, PAGES_REFUSED)
            | bit(clients > clients_max, ALL_REFUSED);
        self.0.refused.store(refused, Ordering::Relaxed);
    }

    /// Gives up what may be given up, before anything is refused for want of memory. The data may
    /// have grown since a connection said last what it holds.
    pub(crate) fn relieve(&self) -> Vec<Eviction> {
        let (mut held, mut evictions) = (self.held(), Vec::new());
        self.evict(&mut held, &mut evictions);
        self.judge(&held);
        evictions
    }

    /// Gives up the connections that have kept the server waiting for the longest, until the rest
    /// may stay, with some room to spare: at the limit itself the next entry of the log would be
    /// too much again.
    fn evict(&self, held: &mut Held, evictions: &mut Vec<Eviction>) {
        let clients_max = self.clients_max(held);
        let half_lines_max = HALF_LINES_BYTES_MAX.min(clients_max / 4);
        let is_over = held.sum.of_clients() > clients_max;
        let clients_max = if is_over { clients_max / 8 * 7 } else { clients_max };
        loop {
            let oldest_half_line = held.oldest_half_lines.first_key_value().map(|(_, number)| *number);
            let oldest_reply = held.oldest_replies.first_key_value().map(|(_, number)| *number);
            let is_over = held.sum.of_clients() > clients_max;
            let given_up = if held.sum.half_lines > half_lines_max {
                oldest_half_line.map(|number| (number, Holder::HalfLines))
            } else if is_over {
                let reply = oldest_reply.map(|number| (number, Holder::Replies));
                reply.or(oldest_half_line.map(|number| (number, Holder::HalfLines)))
            } else {
                None
            };
            let Some((connection, holder)) = given_up else { return };
            held.forget(connection);
            evictions.push(Eviction { connection, holder });
        }
    }
}

/// What has to be refused for this request to be refused. An operator needs some of them most when
/// memory is short.
fn refusing(request: &Request) -> u8 {
    let of_page = |is_scan: bool| if is_scan { ALL_REFUSED | PAGES_REFUSED } else { ALL_REFUSED };
    match request {
        Request::Write { command: Command::Delete { .. }, .. } => ALL_REFUSED,
        Request::Write { .. } => ALL_REFUSED | WRITES_REFUSED,
        Request::Read { .. } => of_page(request.is_scan()),
        Request::LinearizableRead(query) => of_page(query.is_scan()),
        Request::Backup(_) => ALL_REFUSED | PAGES_REFUSED,
        Request::Status
        | Request::Members
        | Request::ChangeMembers(_)
        | Request::Transfer(_)
        | Request::Resign => 0,
    }
}

impl Held {
    fn add_up_nodes(&mut self) {
        let most = |of: fn(&NodeMemory) -> usize| self.nodes.values().map(of).max().unwrap_or_default();
        let all = |of: fn(&NodeMemory) -> usize| self.nodes.values().map(of).sum::<usize>();
        let (copies, kept_log) = (all(|node| node.copies), most(|node| node.kept_log));
        let data = most(|node| node.text) + all(|node| node.structures);
        let sessions = all(|node| node.sessions);
        self.with_copy = kept_log + copies.max(most(|node| node.state_text));
        self.sum = MemoryUse { data, sessions, snapshots: kept_log + copies, ..self.sum };
    }

    fn set(&mut self, connection: u64, memory: ConnectionMemory, progress: Progress) {
        let client = self.clients.entry(connection).or_default();
        let before = std::mem::replace(&mut client.memory, memory);
        let place = self.next_place;
        self.next_place += 1;
        let to_place = (memory.half_line > 0).then_some((place, progress.has_read));
        put_in_order(&mut self.oldest_half_lines, connection, &mut client.half_line_place, to_place);
        let to_place = (memory.replies > 0).then_some((place, progress.has_written));
        put_in_order(&mut self.oldest_replies, connection, &mut client.replies_place, to_place);
        if memory == ConnectionMemory::default() {
            self.clients.remove(&connection);
        }
        let sum = &mut self.sum;
        sum.half_lines = sum.half_lines - before.half_line + memory.half_line;
        sum.requests = sum.requests - before.requests + memory.requests;
        sum.replies = sum.replies - before.replies + memory.replies;
    }

    fn forget(&mut self, connection: u64) {
        if self.clients.contains_key(&connection) {
            self.set(connection, ConnectionMemory::default(), Progress::default());
        }
    }
}

/// Takes a connection out of the order, or puts it at the new place if it has none yet or has got
/// on.
fn put_in_order(
    order: &mut BTreeMap<u64, u64>,
    connection: u64,
    place: &mut Option<u64>,
    to_place: Option<(u64, bool)>,
) {
    if place.is_some() && to_place.is_some_and(|(_, gets_on)| !gets_on) {
        return;
    }
    if let Some(old) = place.take() {
        order.remove(&old);
    }
    if let Some((new, _)) = to_place {
        *place = Some(new);
        order.insert(new, connection);
    }
}

/// One connection's account. It is closed when this is dropped.
#[derive(Debug)]
pub struct ClientMemory {
    budget: MemoryBudget,
    connection: u64,
    noted: ConnectionMemory,
    /// Whether a line has come.
    is_used: bool,
}

impl ClientMemory {
    /// The budget that this is a part of.
    #[must_use]
    pub fn budget(&self) -> &MemoryBudget {
        &self.budget
    }

    /// The connection holds this now. Appends the connections that have to be given up for it.
    pub(crate) fn note(&mut self, now: ConnectionMemory, progress: Progress, evictions: &mut Vec<Eviction>) {
        let round = |bytes: usize| if bytes < NOTED_BYTES { 0 } else { bytes };
        let (half_line, requests, replies) = (round(now.half_line), round(now.requests), round(now.replies));
        let now = ConnectionMemory { half_line, requests, replies };
        let is_near =
            |before: usize, now: usize| (before == 0) == (now == 0) && before.abs_diff(now) < NOTED_BYTES;
        let before = self.noted;
        let is_same = is_near(before.half_line, now.half_line)
            && is_near(before.requests, now.requests)
            && is_near(before.replies, now.replies);
        if progress.has_read && !std::mem::replace(&mut self.is_used, true) {
            self.budget.held().unused.remove(&self.connection);
        }
        let gets_on =
            (progress.has_read && before.half_line > 0) || (progress.has_written && before.replies > 0);
        if is_same && !gets_on {
            return;
        }
        self.noted = now;
        let mut held = self.budget.held();
        held.set(self.connection, now, progress);
        self.budget.evict(&mut held, evictions);
        self.budget.judge(&held);
    }
}

impl Drop for ClientMemory {
    fn drop(&mut self) {
        let mut held = self.budget.held();
        held.forget(self.connection);
        held.connections.remove(&self.connection);
        held.unused.remove(&self.connection);
        self.budget.count_connections(&mut held);
        self.budget.judge(&held);
    }
}

#[cfg(test)]
mod tests;
