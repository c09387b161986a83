//! Tests of the memory budget: which connections are evicted, and which requests are rejected.

use std::time::Duration;

use super::*;
use crate::host::{HostInput, NodeAction, NodeHost, Settings, SnapshotOrder, snapshot_written};
use crate::kv::{
    ClientName, Command, KEY_BYTES_MAX, Key, Query, Revision, Scan, Session, SessionLimits, State,
    VALUE_BYTES_MAX, Value, Write,
};
use crate::peer::push_message;
use crate::raft::{AppendEntries, BatchBuilder, Body, LogIndex, LogPoint, Message, Restored, Term};
use crate::replica::{Input, RequestId, SNAPSHOT_PART_BYTES};
use crate::time::Instant;

const MIB: usize = 1 << 20;

fn half_line(bytes: usize) -> ConnectionMemory {
    ConnectionMemory { half_line: bytes, ..ConnectionMemory::default() }
}

fn replies(bytes: usize) -> ConnectionMemory {
    ConnectionMemory { replies: bytes, ..ConnectionMemory::default() }
}

fn note(client: &mut ClientMemory, memory: ConnectionMemory, gets_on: bool) -> Vec<(u64, Holder)> {
    let mut evictions = Vec::new();
    let progress = Progress { has_read: gets_on, has_written: gets_on };
    client.note(memory, progress, &mut evictions);
    evictions.into_iter().map(|eviction| (eviction.connection, eviction.holder)).collect()
}

fn clients(budget: &MemoryBudget, count: u64) -> Vec<ClientMemory> {
    (1..=count).map(|number| budget.connect(number).unwrap().0).collect()
}

fn put() -> Request {
    let (key, value) = (Key::new("k").unwrap(), Value::from_json("1").unwrap());
    Request::Write { command: Command::Put { key, value }, session: None, wants_meta: false }
}

fn delete() -> Request {
    Request::Write {
        command: Command::Delete { key: Key::new("k").unwrap() },
        session: None,
        wants_meta: false,
    }
}

fn get() -> Request {
    Request::Read { query: Query::Value(Key::new("k").unwrap()), at_least: LogIndex::ORIGIN }
}

fn scan() -> Request {
    let scan = Scan { prefix: String::new(), after: None, items_max: 1, bytes_max: 1, ..Scan::default() };
    Request::Read { query: Query::Scan(scan), at_least: LogIndex::ORIGIN }
}

#[test]
fn the_oldest_incomplete_line_is_evicted() {
    let budget = MemoryBudget::new(16 * MIB, 100, 0);
    let mut clients = clients(&budget, 5);
    // A quarter of the limit for clients: 3 MiB.
    for (at, client) in clients.iter_mut().enumerate().take(3) {
        assert_eq!(note(client, half_line(MIB), false), [], "{at}");
    }
    assert_eq!(note(&mut clients[0], half_line(MIB + 1), false), [], "it waits for as long as before");
    assert_eq!(note(&mut clients[3], half_line(MIB), false), [(1, Holder::HalfLines)]);
    note(&mut clients[1], half_line(0), false);
    assert_eq!(note(&mut clients[4], half_line(MIB), false), [], "a line that ended makes room");
    assert_eq!(note(&mut clients[2], half_line(MIB), true), [], "another line of a client that gets on");
    assert_eq!(note(&mut clients[1], half_line(MIB), false), [(4, Holder::HalfLines)]);
    assert_eq!(budget.in_use().half_lines, 3 * MIB);
    drop(clients);
    assert_eq!(budget.in_use(), MemoryUse::default());
}

/// The line of an evicted connection is freed at once, so it counts no more. Its replies stay until
/// the client reads them: they count, and may evict the connection again.
#[test]
fn the_replies_of_an_evicted_connection_still_count() {
    let budget = MemoryBudget::new(16 * MIB, 10, 0);
    let mut clients = clients(&budget, 2);
    let both = |half_line, replies| ConnectionMemory { half_line, replies, ..ConnectionMemory::default() };
    assert_eq!(note(&mut clients[0], both(3 * MIB, 9 * MIB), false), []);
    assert_eq!(note(&mut clients[1], half_line(2 * MIB), false), [(1, Holder::HalfLines)]);
    note(&mut clients[0], both(4 * MIB, 10 * MIB), false);
    assert_eq!(clients[0].evicted(), Some(Holder::HalfLines));
    assert_eq!((budget.in_use().half_lines, budget.in_use().replies), (2 * MIB, 10 * MIB));
    assert_eq!(note(&mut clients[0], both(0, 15 * MIB), false), [(1, Holder::Replies)]);
}

#[test]
fn a_client_that_does_not_read_is_evicted_first() {
    let budget = MemoryBudget::new(16 * MIB, 100, 0);
    let mut clients = clients(&budget, 4);
    for client in &mut clients[..3] {
        assert_eq!(note(client, replies(4 * MIB), false), []);
    }
    assert!(budget.refuses(&scan()).is_some() && budget.refuses(&get()).is_none(), "no more pages");
    assert_eq!(note(&mut clients[0], replies(4 * MIB), true), [], "it reads");
    assert_eq!(note(&mut clients[3], replies(MIB), false), [(2, Holder::Replies)]);
    assert_eq!(budget.in_use().replies, 9 * MIB);
    assert!(budget.refuses(&scan()).is_none());
}

/// The data grows while no connection reports. Connections are evicted before any request is
/// rejected, and enough of them at once for some time.
#[test]
fn growing_data_evicts_a_client_that_does_not_read() {
    let budget = MemoryBudget::new(16 * MIB, 100, 0);
    let mut clients = clients(&budget, 3);
    for client in &mut clients {
        assert_eq!(note(client, replies(4 * MIB), false), []);
    }
    let data = |text| NodeMemory { text, ..NodeMemory::default() };
    budget.note_node(NodeId(0), data(1000));
    assert_eq!(budget.refuses(&get()), Some(Holder::Replies));
    assert_eq!(budget.relieve(), [Eviction { connection: 1, holder: Holder::Replies }]);
    assert_eq!(budget.refuses(&get()), None);
    budget.note_node(NodeId(0), data(MIB));
    assert_eq!(budget.refuses(&get()), None, "there is room to spare");
    assert_eq!(budget.relieve(), []);
}

#[test]
fn requests_are_rejected_if_no_connection_can_be_evicted() {
    let budget = MemoryBudget::new(16 * MIB, 100, 0);
    let mut clients = clients(&budget, 1);
    let requests = ConnectionMemory { requests: 13 * MIB, ..ConnectionMemory::default() };
    assert_eq!(note(&mut clients[0], requests, false), []);
    for request in [put(), delete(), get(), scan()] {
        assert_eq!(budget.refuses(&request), Some(Holder::Requests));
    }
    assert_eq!(budget.refuses(&Request::Status), None);
    note(&mut clients[0], ConnectionMemory::default(), false);
    assert_eq!(budget.refuses(&put()), None);
}

#[test]
fn too_much_data_rejects_only_writes_that_add_to_it() {
    let budget = MemoryBudget::new(16 * MIB, 100, 0);
    let node = |text, structures| NodeMemory { text, structures, ..NodeMemory::default() };
    budget.note_node(NodeId(0), node(8 * MIB, MIB));
    budget.note_node(NodeId(1), node(9 * MIB, MIB));
    assert_eq!(budget.in_use().data, 11 * MIB, "they share their text");
    assert_eq!(budget.refuses(&put()), None);
    budget.note_node(NodeId(1), node(11 * MIB, MIB));
    assert_eq!(budget.refuses(&put()), Some(Holder::Data));
    for request in [delete(), get(), scan()] {
        assert_eq!(budget.refuses(&request), None);
    }
}

#[test]
fn connections_that_were_never_used_are_evicted() {
    let budget = MemoryBudget::new(MIB, 100, 64 << 10);
    let mut clients = clients(&budget, 12);
    clients.iter_mut().for_each(|client| drop(note(client, half_line(0), true)));
    assert!(budget.connect(13).is_none(), "all have asked something");
    clients.pop();
    let (thirteenth, eviction) = budget.connect(13).unwrap();
    assert_eq!(eviction, None);
    let (fourteenth, eviction) = budget.connect(14).unwrap();
    assert_eq!(eviction, Some(Eviction { connection: 13, holder: Holder::Connections }));
    drop(thirteenth);
    assert!(budget.connect(15).unwrap().1.is_some(), "it was counted out before");
    drop((clients, fourteenth));
    assert_eq!(budget.in_use(), MemoryUse::default());
}

#[test]
fn a_connection_above_the_limit_is_rejected() {
    let budget = MemoryBudget::new(MIB, 3, 0);
    let mut clients = clients(&budget, 3);
    assert!(budget.connect(4).is_none());
    clients.pop();
    assert!(budget.connect(4).is_some());
}

#[test]
fn short_requests_are_not_counted() {
    let budget = MemoryBudget::new(MIB, 100, 0);
    let mut clients = clients(&budget, 1);
    note(&mut clients[0], half_line(NOTED_BYTES - 1), false);
    assert_eq!(budget.in_use().half_lines, 0);
    note(&mut clients[0], half_line(NOTED_BYTES), false);
    note(&mut clients[0], half_line(NOTED_BYTES + 9), false);
    assert_eq!(budget.in_use().half_lines, NOTED_BYTES);
    note(&mut clients[0], half_line(1), false);
    assert_eq!(budget.in_use().half_lines, 0);
}

/// After a flood of sessions the table stays at its limit, because only writes make it forget.
#[test]
fn sessions_do_not_reject_writes_forever_and_leave_clients_less() {
    let budget = MemoryBudget::new(64 * MIB, 100, 0).with_shares(MemoryShares::of_member(64 * MIB));
    let mut clients = clients(&budget, 2);
    assert_eq!(note(&mut clients[0], replies(10 * MIB), false), []);
    budget.note_node(NodeId(0), NodeMemory { sessions: 64 * MIB, text: 4 * MIB, ..NodeMemory::default() });
    assert_eq!(budget.in_use().sessions, 64 * MIB);
    assert_eq!(
        budget.refuses(&put()),
        Some(Holder::Sessions),
        "until the client is given up that does not read"
    );
    assert_eq!(budget.relieve(), [Eviction { connection: 1, holder: Holder::Replies }]);
    assert_eq!(budget.refuses(&put()), None);
    budget.note_node(NodeId(0), NodeMemory { sessions: 64 * MIB, text: 13 * MIB, ..NodeMemory::default() });
    assert_eq!(budget.refuses(&put()), Some(Holder::Sessions), "an eighth of the budget counts");
}

#[test]
fn log_kept_for_followers_rejects_writes_and_forwarded_writes() {
    let budget = MemoryBudget::new(64 * MIB, 100, 0).with_shares(MemoryShares::of_member(64 * MIB));
    let state = budget.shares().state_max();
    let kept = |kept_log| NodeMemory { text: 2 * MIB, kept_log, ..NodeMemory::default() };
    budget.note_node(NodeId(0), kept(state - 2 * MIB));
    assert!(budget.refuses(&put()).is_none() && !budget.has_no_room_for(&put()));
    budget.note_node(NodeId(0), kept(state));
    assert_eq!(budget.refuses(&put()), Some(Holder::Snapshots));
    assert!(budget.has_no_room_for(&put()) && !budget.has_no_room_for(&delete()));
    assert_eq!(budget.refuses(&get()), None);
}

/// A snapshot whose text does not fit beside the state could not be read back, not even at the next
/// start.
#[test]
fn a_snapshot_of_the_state_has_room_beside_it() {
    let budget = MemoryBudget::new(16 * MIB, 100, 0);
    let node = |text| NodeMemory { text, state_text: text, ..NodeMemory::default() };
    budget.note_node(NodeId(0), node(7 * MIB));
    assert_eq!(budget.refuses(&put()), None);
    budget.note_node(NodeId(0), node(7 * MIB + 1));
    assert_eq!(budget.refuses(&put()), Some(Holder::Data));
}

#[test]
fn clients_have_the_memory_that_other_nodes_leave() {
    let budget = MemoryBudget::new(64 * MIB, 100, 0).with_shares(MemoryShares::of_member(64 * MIB));
    let mut clients = clients(&budget, 1);
    assert_eq!(note(&mut clients[0], replies(40 * MIB), false), []);
    let mut frames = PeerMemory::new(&budget);
    frames.note(20 * MIB);
    assert_eq!(budget.in_use().peers, 20 * MIB);
    assert_eq!(budget.relieve(), [Eviction { connection: 1, holder: Holder::Replies }]);
}

/// A one-node cluster whose writes to disk complete at once.
fn lone_leader(budget: &MemoryBudget) -> NodeHost {
    let settings = Settings { nodes: 1, memory_max: budget.max(), ..Settings::default() };
    let config = settings.raft_configs().unwrap().remove(0);
    let limits = budget.shares().limit_replica(settings.replica_limits().unwrap());
    let restored = Some((Restored::default(), None));
    let host = NodeHost::start(config, restored, 7, Instant::default(), limits).unwrap();
    host.with_memory(budget.clone())
}

/// Runs a step at the deadline and reports its writes as done.
fn turn(host: &mut NodeHost) {
    let (now, mut actions) = (host.deadline() + Duration::from_micros(1), Vec::new());
    host.step(now, &mut actions);
    for action in actions {
        match action {
            NodeAction::Persist(persist) => host.accept(HostInput::Core(Input::Persisted(persist.id))),
            NodeAction::Snapshot(SnapshotOrder::Write(part)) => {
                host.accept(HostInput::Core(snapshot_written(&part)));
            }
            _ => {}
        }
    }
}

/// When the state leaves less room than the log of an ordinary snapshot interval, a snapshot is
/// taken earlier. Otherwise the log would never get shorter, because writes are rejected.
#[test]
fn a_large_state_makes_a_snapshot_due_earlier() {
    const VALUE_BYTES: usize = 16 << 10;
    let budget = MemoryBudget::new(MIB, 1, 0);
    let mut host = lone_leader(&budget);
    let value = Value::from_text(&"x".repeat(VALUE_BYTES)).unwrap();
    let mut refused = 0;
    for number in 0..500 {
        // With 25 keys, the text of a snapshot just fits beside the state, and so does a log of
        // less than an eighth of the budget.
        let command =
            Command::Put { key: Key::new(&format!("k{}", number % 25)).unwrap(), value: value.clone() };
        let write = Request::Write { command, session: None, wants_meta: false };
        let mut turns = 0;
        while budget.refuses(&write).is_some() {
            refused += 1;
            turns += 1;
            assert!(turns < 100, "write {number} is refused for ever: {:?}", budget.in_use());
            turn(&mut host);
        }
        host.accept(HostInput::Requests(vec![Input::Request(RequestId(number), write)]));
        (0..3).for_each(|_| turn(&mut host));
    }
    assert!(refused > 0 && host.replica().store().len() == 25);
    assert!(host.replica().status().snapshot_index > LogIndex::ORIGIN);
}

/// The longest frames of a correct node: an entry that swaps one of the longest values for another,
/// and a snapshot part with the longest line of a session table after lines that nearly fill it.
#[test]
fn the_longest_frames_are_shorter_than_the_smallest_share() {
    let key = Key::new(&"\u{1}".repeat(KEY_BYTES_MAX)).unwrap();
    let value = Value::from_text(&"x".repeat(VALUE_BYTES_MAX - 2)).unwrap();
    let session = |seq| Session::new(ClientName::new(&"n".repeat(64)).unwrap(), seq).unwrap();
    let swap = |expect| Command::Cas { key: key.clone(), expect, value: value.clone() };
    let mut batch = BatchBuilder::new(LogPoint::ORIGIN);
    batch.seal(Term(1), |line| swap(Some(value.clone())).write_payload(Some(&session(1)), line));
    let body = Body::AppendEntries(AppendEntries {
        sequence: 1,
        prev_log_index: LogIndex::ORIGIN,
        prev_log_term: Term(0),
        prev_log_checksum: None,
        entries: batch.finish().into_iter().collect(),
        leader_commit: LogIndex::ORIGIN,
    });
    let mut frame = Vec::new();
    push_message(
        &mut frame,
        &Message { from: NodeId(1), incarnation: None, to: NodeId(2), term: Term(1), body },
    );
    assert!(frame.len() > MIB && frame.len() < FRAME_BYTES_MIN, "{}", frame.len());

    let mut state = State::new(SessionLimits::default());
    // Many of these values fill the memory of a client's session better than a few of the longest
    // ones.
    let held = Value::from_text(&"x".repeat(16 << 10)).unwrap();
    state.apply(
        &Write { session: None, command: Command::Put { key: key.clone(), value: held } },
        Revision(1),
    );
    for seq in 1..200 {
        // The swap fails, so the current value is remembered.
        state.apply(&Write { session: Some(session(seq)), command: swap(None) }, Revision(2));
    }
    state.freeze();
    let mut line = String::new();
    state.read_frozen(&mut line, 1);
    assert!(line.len() > MIB / 16 * 15, "{}", line.len());
    // Room for the members and the envelope.
    let rest = 64 << 10;
    assert!(SNAPSHOT_PART_BYTES + line.len() + rest < FRAME_BYTES_MIN, "{}", line.len());
}

/// A server that starts threads for connections counts those that it is rid of by this number.
#[test]
fn an_evicted_connection_is_not_counted_any_more() {
    let budget = MemoryBudget::new(1 << 20, 10, 200 << 10);
    let mut held = Vec::new();
    let evicted = (1..10).find_map(|number| {
        let (memory, eviction) = budget.connect(number)?;
        held.push(memory);
        eviction
    });
    assert_eq!(evicted.map(|evicted| evicted.connection), Some(1));
    assert_eq!(budget.connections(), held.len() - 1);
    held.truncate(1);
    assert_eq!(budget.connections(), 0, "the first one was not counted, the others are gone");
}

#[test]
fn memory_is_short_from_a_quarter_of_the_limit_for_half_lines_on() {
    let budget = MemoryBudget::new(64 * MIB, 100, MIB / 4);
    let mut clients = clients(&budget, 100);
    assert!(!budget.is_short(), "connections alone use {:?}", budget.in_use());
    let lines_max = half_lines_max(budget.clients_max(&budget.held()));
    note(&mut clients[0], half_line(lines_max / 4), false);
    assert!(!budget.is_short());
    note(&mut clients[1], half_line(MIB), false);
    assert!(budget.is_short());
    note(&mut clients[0], half_line(0), true);
    assert!(!budget.is_short());
}

#[test]
fn memory_is_short_from_a_quarter_of_the_limit_for_clients_on() {
    let budget = MemoryBudget::new(64 * MIB, 4, 0);
    let mut clients = clients(&budget, 2);
    let clients_max = budget.clients_max(&budget.held());
    note(&mut clients[0], replies(clients_max / 4), false);
    assert!(!budget.is_short());
    note(&mut clients[1], replies(MIB), false);
    assert!(budget.is_short());
    drop(clients);
    assert!(!budget.is_short());
}
