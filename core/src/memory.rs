//! The memory budget of a server: counts memory use, evicts connections, and rejects requests at
//! the limit.
//!
//! A server cannot foresee what its clients do. Each may send half a line and stop, or request
//! pages and read none of them. That costs little for one client and too much for thousands. So
//! each connection reports its memory use by purpose, and each node the size of its data. Above the
//! limit, the connections that have kept the server waiting for the longest are evicted: they get
//! one last line, if they still read, and all others are served. New requests are rejected
//! meanwhile, without any effect.
//!
//! Other nodes are different: a node cannot do without them. So their memory is limited beforehand,
//! by shares of the budget ([`MemoryShares`]). It is counted all the same, and clients get the
//! rest.
//!
//! | memory for | beyond its share |
//! | --- | --- |
//! | connections | the oldest one that has never sent a line is evicted; if there is none, a new one gets the error `busy` |
//! | incomplete lines | the connection with the oldest one is evicted |
//! | unread replies | the connection that has read nothing for the longest time is evicted |
//! | requests in flight | new ones are rejected |
//! | the data: keys, values and log | writes that add to it are rejected; reads and deletes are still served |
//! | sessions | the table forgets the least recently used clients, equally on all nodes, whatever their budgets are |
//! | snapshots, and the log that is kept for followers | writes are rejected until the snapshot is written; a follower that lags begins again |
//! | frames to and from other nodes | Raft's oldest messages are dropped, forwarded requests rejected, sockets not read |
//!
//! The count is bytes of text and of the structures that hold them, not what an allocator makes of
//! that. Small amounts are ignored, so that a client with short requests costs nothing here.

mod holders;
mod long_lines;
mod meters;
mod refusals;
mod shares;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::raft::NodeId;
use crate::replica::Request;

pub use holders::{Holder, MemoryReport, MemoryUse, NodeMemory};
use long_lines::LONG_LINE_BYTES;
pub(crate) use long_lines::{LongLine, LongLines};
pub use meters::InboxMemory;
pub(crate) use meters::PeerMemory;
use refusals::{ALL_REFUSED, PAGES_REFUSED, WRITES_REFUSED, refusing};
use shares::half_lines_max;
pub use shares::{
    BUDGET_BYTES_MIN, FRAME_BYTES_MIN, HALF_LINES_BYTES_MAX, INBOX_BYTES_MIN, LINKED_MEMBERS, MemoryShares,
    OUTBOX_BYTES_MIN,
};

/// The size of a memory budget without a limit.
pub const MEMORY_UNLIMITED: usize = usize::MAX;

/// The number of buffers for long lines beyond those that the budget allows at a time, as a
/// fraction of them: connections that are evicted give theirs back a little later.
const SPARE_LONG_LINES: usize = 4;

/// The smallest amount that is counted for a connection and a purpose, and its smallest change.
const NOTED_BYTES: usize = 16 << 10;

/// The order to close a connection because too much memory is used for `holder`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Eviction {
    /// The connection's number.
    pub connection: u64,
    /// The purpose that uses too much memory.
    pub holder: Holder,
}

/// The memory use of one connection by purpose, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ConnectionMemory {
    pub(crate) half_line: usize,
    pub(crate) requests: usize,
    pub(crate) replies: usize,
    /// Whether the half line is not read on before replies are written.
    pub(crate) is_blocked: bool,
}

/// The progress of a client since its connection last reported its memory use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Whether a line was completed.
    pub(crate) has_read: bool,
    /// Whether the client has read some of its replies.
    pub(crate) has_written: bool,
}

/// The memory budget of a server. Cloning returns another handle to the same budget.
#[derive(Clone, Debug)]
pub struct MemoryBudget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    max: usize,
    connection_bytes: usize,
    connections_max: usize,
    shares: MemoryShares,
    /// The kinds of requests that are rejected, as bits: read for every request.
    refused: AtomicU8,
    /// Whether memory for clients is short: read for every new client.
    is_short: AtomicBool,
    /// The memory of links, inboxes and incomplete frames.
    peers: AtomicUsize,
    held: Mutex<Held>,
    long_lines: LongLines,
}

#[derive(Debug, Default)]
struct Held {
    nodes: BTreeMap<NodeId, NodeMemory>,
    clients: BTreeMap<u64, Client>,
    /// The connections with an incomplete line, and those with unread replies, ordered by their
    /// last progress.
    oldest_half_lines: BTreeMap<u64, u64>,
    oldest_replies: BTreeMap<u64, u64>,
    /// The next number in that order.
    next_place: u64,
    /// All connections, and those that have not sent a line yet. An older connection has a smaller
    /// number.
    connections: BTreeSet<u64>,
    unused: BTreeSet<u64>,
    /// Those that are to be closed, for this purpose, and are not closed yet. They count no more.
    evicted: BTreeMap<u64, Holder>,
    /// The memory use without that for other nodes.
    sum: MemoryUse,
    /// The memory of snapshots at its peak: when the text of one exists beside the state.
    with_copy: usize,
}

#[derive(Debug, Default)]
struct Client {
    memory: ConnectionMemory,
    half_line_place: Option<u64>,
    replies_place: Option<u64>,
}

impl MemoryBudget {
    /// A budget of `max` bytes, for at most `connections_max` connections. Each uses
    /// `connection_bytes` of it, whatever is sent over it.
    #[must_use]
    pub fn new(max: usize, connections_max: usize, connection_bytes: usize) -> Self {
        let shares = MemoryShares::of_cluster(max, 1);
        Self::of(max, connections_max, connection_bytes, shares)
    }

    /// Replaces the shares, before any memory is counted.
    #[must_use]
    pub fn with_shares(self, shares: MemoryShares) -> Self {
        Self::of(self.0.max, self.0.connections_max, self.0.connection_bytes, shares)
    }

    fn of(max: usize, connections_max: usize, connection_bytes: usize, shares: MemoryShares) -> Self {
        let (refused, peers, held) = (AtomicU8::new(0), AtomicUsize::new(0), Mutex::default());
        let long_lines = HALF_LINES_BYTES_MAX.min(max / 16 * 3).div_ceil(LONG_LINE_BYTES);
        let long_lines = LongLines::new(long_lines + long_lines.div_ceil(SPARE_LONG_LINES));
        let is_short = AtomicBool::new(false);
        Self(Arc::new(Shared {
            max,
            connection_bytes,
            connections_max,
            shares,
            refused,
            is_short,
            peers,
            held,
            long_lines,
        }))
    }

    /// A budget without a limit.
    #[must_use]
    pub fn unlimited() -> Self {
        Self::new(MEMORY_UNLIMITED, usize::MAX, 0)
    }

    /// The size of the budget, in bytes.
    #[must_use]
    pub fn max(&self) -> usize {
        self.0.max
    }

    /// The buffers for long lines.
    pub(crate) fn long_lines(&self) -> LongLines {
        self.0.long_lines.clone()
    }

    /// The shares of the budget for the parts of a node.
    #[must_use]
    pub fn shares(&self) -> &MemoryShares {
        &self.0.shares
    }

    /// The size of the budget and the current use.
    #[must_use]
    pub fn report(&self) -> MemoryReport {
        let max = (self.0.max < MEMORY_UNLIMITED).then_some(self.0.max);
        MemoryReport { max, in_use: self.in_use() }
    }

    /// The current memory use.
    #[must_use]
    pub fn in_use(&self) -> MemoryUse {
        self.sum(&self.held())
    }

    fn sum(&self, held: &Held) -> MemoryUse {
        MemoryUse { peers: self.0.peers.load(Ordering::Relaxed), ..held.sum }
    }

    /// Counts a change of the memory for other nodes from `before` to `now` bytes.
    fn count_peers(&self, before: usize, now: usize) {
        // Wrapping arithmetic: a decrease wraps around to the right sum.
        self.0.peers.fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
    }

    /// Counts one more connection, whose number must be larger than all before it. Returns the
    /// connection that is evicted for it, if any; `None`: there is no room. A client usually sends
    /// its first request at once, so connections that have never sent one are evicted first.
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
        Some((ClientMemory { budget, connection, noted, is_used: false, evicted: None }, eviction))
    }

    fn count_connections(&self, held: &mut Held) {
        held.sum.connections = held.connections.len().saturating_mul(self.0.connection_bytes);
    }

    /// Notes the memory use that a node reports.
    pub fn note_node(&self, node: NodeId, memory: NodeMemory) {
        let mut held = self.held();
        held.nodes.insert(node, memory);
        held.add_up_nodes();
        self.judge(&held);
    }

    /// Returns the purpose that uses too much memory, if this request is rejected for it.
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

    /// Returns whether the state has reached its limit, so that the log should be trimmed as far as
    /// possible.
    #[must_use]
    pub fn state_is_short(&self) -> bool {
        self.0.refused.load(Ordering::Relaxed) & WRITES_REFUSED != 0
    }

    /// Returns whether clients use a quarter of their memory, without what connections cost in
    /// themselves.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.0.is_short.load(Ordering::Relaxed)
    }

    /// Returns whether there is no room for the data that this request adds. A node checks
    /// forwarded requests with this, because its memory use and budget differ from those of the
    /// sender.
    #[must_use]
    pub fn has_no_room_for(&self, request: &Request) -> bool {
        let refused = self.0.refused.load(Ordering::Relaxed);
        refused & refusing(request) & WRITES_REFUSED != 0
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The limit for clients: three quarters of what the nodes leave, or a small minimum.
    fn clients_max(&self, held: &Held) -> usize {
        let left = self.0.max.saturating_sub(self.sum(held).of_nodes());
        (left / 4 * 3).max(self.0.shares.clients_min())
    }

    /// Returns whether the state has reached its limit, either alone or with the text of a snapshot
    /// beside it.
    fn state_is_full(&self, held: &Held) -> bool {
        let shares = &self.0.shares;
        let state = held.sum.data.saturating_add(held.sum.sessions.min(shares.sessions_bytes));
        let (now, later) = (held.sum.snapshots, held.with_copy);
        let later = state.saturating_add(later).saturating_add(self.0.peers.load(Ordering::Relaxed));
        state.saturating_add(now) > shares.state_max() || later > self.0.max - shares.clients_min()
    }

    /// Recomputes which requests are rejected, and whether memory is short.
    fn judge(&self, held: &Held) {
        let (clients, clients_max) = (held.sum.of_clients(), self.clients_max(held));
        let bit = |is_set: bool, bit: u8| if is_set { bit } else { 0 };
        let refused = bit(self.state_is_full(held), WRITES_REFUSED)
            | bit(clients > clients_max / 8 * 7, PAGES_REFUSED)
            | bit(clients > clients_max, ALL_REFUSED);
        self.0.refused.store(refused, Ordering::Relaxed);
        let is_short = held.sum.half_lines > half_lines_max(clients_max) / 4
            || clients - held.sum.connections > clients_max / 4;
        self.0.is_short.store(is_short, Ordering::Relaxed);
    }

    /// Evicts connections, if that helps, before a request is rejected for lack of memory. The data
    /// may have grown since a connection last reported its use.
    pub(crate) fn relieve(&self) -> Vec<Eviction> {
        let (mut held, mut evictions) = (self.held(), Vec::new());
        self.evict(&mut held, &mut evictions);
        self.judge(&held);
        evictions
    }

    /// Evicts the connections that have kept the server waiting for the longest, until the rest is
    /// below the limit by a margin. At the limit itself, the next log entry would exceed it again.
    fn evict(&self, held: &mut Held, evictions: &mut Vec<Eviction>) {
        let clients_max = self.clients_max(held);
        let half_lines_max = half_lines_max(clients_max);
        let is_over = held.sum.of_clients() > clients_max;
        let clients_max = if is_over { clients_max / 8 * 7 } else { clients_max };
        loop {
            let oldest_half_line = held.oldest_half_lines.first_key_value().map(|(_, number)| *number);
            let oldest_reply = held.oldest_replies.first_key_value().map(|(_, number)| *number);
            let is_over = held.sum.of_clients() > clients_max;
            let half_line = oldest_half_line.map(|number| (number, held.holder_of_half_line(number)));
            let given_up = if held.sum.half_lines > half_lines_max {
                half_line
            } else if is_over {
                oldest_reply.map(|number| (number, Holder::Replies)).or(half_line)
            } else {
                None
            };
            let Some((connection, holder)) = given_up else { return };
            held.forget(connection);
            held.evicted.insert(connection, holder);
            evictions.push(Eviction { connection, holder });
        }
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

    /// The purpose for which the connection with this half line is evicted: one that waits for its
    /// client to read replies would not hear that it is evicted for the line.
    fn holder_of_half_line(&self, connection: u64) -> Holder {
        if self.clients[&connection].memory.is_blocked { Holder::Replies } else { Holder::HalfLines }
    }

    fn forget(&mut self, connection: u64) {
        if self.clients.contains_key(&connection) {
            self.set(connection, ConnectionMemory::default(), Progress::default());
        }
    }
}

/// Removes a connection from the order, or moves one that is new or has made progress to its end.
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

/// The memory account of one connection. Dropping it closes the account.
#[derive(Debug)]
pub struct ClientMemory {
    budget: MemoryBudget,
    connection: u64,
    noted: ConnectionMemory,
    /// Whether the connection has sent a line.
    is_used: bool,
    evicted: Option<Holder>,
}

impl ClientMemory {
    /// The budget that this account belongs to.
    #[must_use]
    pub fn budget(&self) -> &MemoryBudget {
        &self.budget
    }

    /// Notes the connection's current memory use. Appends the connections to evict for it.
    pub(crate) fn note(&mut self, now: ConnectionMemory, progress: Progress, evictions: &mut Vec<Eviction>) {
        let round = |bytes: usize| if bytes < NOTED_BYTES { 0 } else { bytes };
        let (half_line, requests, replies) = (round(now.half_line), round(now.requests), round(now.replies));
        let now = ConnectionMemory { half_line, requests, replies, is_blocked: now.is_blocked };
        let is_near =
            |before: usize, now: usize| (before == 0) == (now == 0) && before.abs_diff(now) < NOTED_BYTES;
        let before = self.noted;
        let is_same = before.is_blocked == now.is_blocked
            && is_near(before.half_line, now.half_line)
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
        // The line of an evicted connection is about to be freed. Its replies are still to be read.
        let half_line = if held.evicted.contains_key(&self.connection) { 0 } else { now.half_line };
        held.set(self.connection, ConnectionMemory { half_line, ..now }, progress);
        self.budget.evict(&mut held, evictions);
        self.budget.judge(&held);
        self.evicted = held.evicted.get(&self.connection).copied();
    }

    /// The purpose for which this connection has to be closed, if it was evicted when it last
    /// reported its memory. Until the router tells it, a fast sender would hold uncounted memory.
    pub(crate) fn evicted(&self) -> Option<Holder> {
        self.evicted
    }

    /// Like [`ClientMemory::evicted`], but up to date.
    pub(crate) fn evicted_by_now(&self) -> Option<Holder> {
        self.budget.held().evicted.get(&self.connection).copied()
    }
}

impl Drop for ClientMemory {
    fn drop(&mut self) {
        let mut held = self.budget.held();
        held.forget(self.connection);
        held.evicted.remove(&self.connection);
        held.connections.remove(&self.connection);
        held.unused.remove(&self.connection);
        self.budget.count_connections(&mut held);
        self.budget.judge(&held);
    }
}

#[cfg(test)]
mod tests;
