//! Three members in one process, each with its own connections: they communicate over TCP, and
//! their threads can be counted.

#![expect(clippy::unwrap_used, reason = "what a test calls is a test")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use coracle_core::kv::{ClientName, Command, Key, Level, Outcome, Session, Value};
use coracle_core::peer::{HandshakeRefusal, Hello, LocalNode, Origin, PeerEvent, Standing, Welcome};
use coracle_core::raft::{Addition, LogIndex, Member as Place, NodeId, Role, Roster};
use coracle_core::{Incarnation, Settings};
use coracle_runtime_threads::{Client, Member, MemberFailure, MemberOptions};
use coracle_storage::{Medium, NodeEvent, SyncPolicy};

/// Long enough for everything here on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Threads are counted per process, so the tests run one at a time.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Addresses with ports that were free a moment ago.
fn roster(nodes: u64) -> Roster {
    let sockets: Vec<_> =
        (0..nodes).map(|_| TcpListener::bind("127.0.0.1:0").expect("there is a free port")).collect();
    let place = |(socket, node): (&TcpListener, u64)| {
        let address = socket.local_addr().expect("it is bound").to_string().into();
        (NodeId(node), Place::founder(address, None))
    };
    Roster::new(sockets.iter().zip(1..).map(place))
}

fn options(id: NodeId, origin: Origin, medium: Medium) -> MemberOptions {
    // These requests never time out: a busy machine makes them slow, not wrong.
    let settings = Settings { request_timeout: TIMEOUT, ..Settings::default() };
    let listen = Some("127.0.0.1:0".parse().expect("an address"));
    MemberOptions {
        settings,
        id,
        origin,
        medium,
        listen,
        admin_listen: None,
        peer_listen: None,
        peers_on_loopback_only: false,
        dial_overrides: BTreeMap::new(),
    }
}

fn start(id: NodeId, origin: Origin, medium: Medium) -> Member {
    Member::start(options(id, origin, medium)).expect("it starts")
}

fn found(roster: &Roster) -> BTreeMap<NodeId, Member> {
    let start = |(id, _)| (id, start(id, Origin::Found(roster.clone()), Medium::Memory));
    let members: BTreeMap<_, _> = roster.iter().map(start).collect();
    members.values().for_each(|member| wait_for_company(&member.client()));
    members
}

/// Waits until a node reaches all three and they reach it. Before that, a forwarded request may get
/// no answer.
fn wait_for_company(client: &Client) {
    wait_until("all nodes answer", || {
        let reports = client.status().unwrap();
        reports.len() == 3 && reports.iter().all(|row| row.status.is_some())
    });
}

fn key(name: impl ToString) -> Key {
    Key::new(&name.to_string()).expect("it works")
}

fn value(text: impl ToString) -> Value {
    Value::from_text(&text.to_string()).expect("it works")
}

/// Writes within a session: a write that was in flight to a node that stopped is retried with the
/// next leader.
fn put_again(member: &Member, name: &str, text: &str) {
    let command = Command::Put { key: key(name), value: value(text) };
    let session = Session::new(ClientName::new(name).unwrap(), 1).unwrap();
    assert_eq!(member.client().write(command, Some(session)).unwrap(), Outcome::Done);
}

fn leader(client: &Client) -> Option<NodeId> {
    let reports = client.status().expect("it works");
    let leads = |status: &_| matches!(status, Some(Role::Leader));
    reports.iter().find(|row| leads(&row.status.as_ref().map(|status| status.role))).map(|row| row.node)
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < TIMEOUT, "{what}: not within {TIMEOUT:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The names of the threads of all members, if the operating system provides them.
fn member_threads() -> Vec<String> {
    let kinds =
        ["node", "disk", "snapshots", "router", "startup", "listener", "client", "link", "receipts", "peer"];
    let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).ok();
    let Ok(tasks) = fs::read_dir("/proc/self/task") else { return Vec::new() };
    let names = tasks.flatten().filter_map(name).map(|name| name.trim().to_owned());
    names.filter(|name| kinds.iter().any(|kind| name.split(' ').next() == Some(kind))).collect()
}

fn expect_no_threads() {
    wait_until("every thread of a member ends", || member_threads().is_empty());
}

#[test]
fn three_members_serve_and_go_on_without_their_leader() {
    let _turn = turn();
    let mut members = found(&roster(3));
    for (id, member) in &members {
        member.client().put(key(id), value(id)).unwrap();
    }
    for member in members.values() {
        for id in members.keys() {
            assert_eq!(member.client().get_linearizable(key(id)).unwrap(), Some(value(id)));
        }
    }
    let mut first = None;
    wait_until("there is a leader", || {
        first = leader(&members[&NodeId(1)].client());
        first.is_some()
    });
    members.remove(&first.unwrap()).unwrap().stop();
    for (id, member) in &members {
        put_again(member, &id.to_string(), "after");
        assert_eq!(member.client().get_linearizable(key(id)).unwrap(), Some(value("after")));
        assert!(member.failure().is_none());
    }
    members.into_values().for_each(Member::stop);
    expect_no_threads();
}

#[test]
fn a_client_of_any_member_is_served() {
    let _turn = turn();
    let members = found(&roster(3));
    for (id, member) in &members {
        let mut stream = TcpStream::connect(member.address().unwrap()).unwrap();
        writeln!(stream, r#"{{"op":"put","key":"k","value":{}}}"#, id.0).unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        assert!(line.contains(r#""status":"ok""#), "{line}");
    }
    members.into_values().for_each(Member::stop);
    expect_no_threads();
}

#[test]
fn members_come_back_with_their_files() {
    let _turn = turn();
    let roster = roster(3);
    let folder = tempfile::tempdir().unwrap();
    let medium =
        |id: NodeId| Medium::Folder { path: folder.path().join(id.to_string()), sync: SyncPolicy::Never };
    roster.iter().for_each(|(id, _)| fs::create_dir(folder.path().join(id.to_string())).unwrap());
    let begin = |origin: Origin| -> Vec<_> {
        roster.iter().map(|(id, _)| start(id, origin.clone(), medium(id))).collect()
    };
    let members = begin(Origin::Found(roster.clone()));
    members.iter().for_each(|member| wait_for_company(&member.client()));
    members[0].client().put(key("snack"), value("chips")).unwrap();
    members.into_iter().for_each(Member::stop);
    let mut members = begin(Origin::Known);
    members.iter().for_each(|member| wait_for_company(&member.client()));
    assert_eq!(members[2].client().get_linearizable(key("snack")).unwrap(), Some(value("chips")));
    // A node that lost its files is refused, and the others continue.
    members.pop().unwrap().stop();
    fs::remove_dir_all(folder.path().join("3")).unwrap();
    fs::create_dir(folder.path().join("3")).unwrap();
    let forgetful = start(NodeId(3), Origin::Found(roster.clone()), medium(NodeId(3)));
    let mut failure = None;
    wait_until("it is refused", || {
        failure = forgetful.failure();
        failure.is_some()
    });
    let refusal = HandshakeRefusal::OtherIncarnation { node: 3, known: String::new(), found: String::new() };
    let Some(MemberFailure::Refused(found)) = failure else { panic!("it ended otherwise: {failure:?}") };
    assert_eq!(std::mem::discriminant(&found), std::mem::discriminant(&refusal));
    put_again(&members[0], "snack", "nuts");
    forgetful.stop();
    members.into_iter().for_each(Member::stop);
    expect_no_threads();
}

#[test]
fn a_member_can_be_stopped_or_dropped_before_it_has_its_cluster() {
    let _turn = turn();
    let roster = roster(3);
    for (id, end) in [(NodeId(1), Member::stop as fn(Member)), (NodeId(2), drop)] {
        let member = start(id, Origin::Found(roster.clone()), Medium::Memory);
        let events = member.events().unwrap();
        let waits = |event: &NodeEvent| matches!(event, NodeEvent::Peer(PeerEvent::WaitsFor(_)));
        assert!(events.iter().any(|event| waits(&event.event)));
        end(member);
        expect_no_threads();
    }
}

#[test]
fn dropped_members_end_at_once() {
    let _turn = turn();
    let mut members = found(&roster(3));
    members[&NodeId(1)].client().put(key("k"), value("v")).unwrap();
    drop(members.remove(&NodeId(2)));
    put_again(&members[&NodeId(3)], "k", "w");
    drop(members);
    expect_no_threads();
}

#[test]
fn a_newer_connection_of_a_node_takes_the_place_of_its_older_one() {
    let _turn = turn();
    let roster = roster(2);
    let address = |node| roster.member(NodeId(node)).unwrap().address.to_string();
    let read_line = |stream: &TcpStream| {
        let mut line = Vec::new();
        BufReader::new(stream).read_until(b'\n', &mut line).unwrap();
        line
    };
    // The test itself plays node 2.
    let mut local = LocalNode {
        id: NodeId(2),
        incarnation: Incarnation(7),
        client_address: None,
        boot: 3,
        standing: Standing::Founding(roster.clone()),
        configuration_index: LogIndex::ORIGIN,
        named_index: LogIndex::ORIGIN,
        is_settled: false,
        was_named: false,
        addition: Addition::default(),
        supports: Level::MAX,
        level: Level::FIRST,
    };
    let socket = TcpListener::bind(address(2)).unwrap();
    let member = start(NodeId(1), Origin::Found(roster.clone()), Medium::Memory);
    let (mut stream, _) = socket.accept().unwrap();
    let (welcome, handshake) = local.answer(&Hello::decode(&read_line(&stream)).unwrap()).unwrap();
    stream.write_all(&welcome.encode()).unwrap();
    let founders = local.found(&BTreeMap::from([(NodeId(1), handshake.incarnation)])).unwrap();
    let configuration = LocalNode::first_configuration(&founders).unwrap();
    local.standing = Standing::Member(founders, configuration);
    let dial = || {
        let mut stream = TcpStream::connect(address(1)).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.write_all(&local.hello(Some(NodeId(1)), None).encode()).unwrap();
        let welcome = Welcome::decode(&read_line(&stream)).unwrap();
        (stream, local.accept(Some(NodeId(1)), &welcome).unwrap().is_of_cluster)
    };
    wait_until("node 1 has its cluster", || dial().1);
    let (mut older, (newer, _)) = (dial().0, dial());
    assert_eq!(older.read(&mut [0]).unwrap(), 0, "it is ended");
    newer.set_nonblocking(true).unwrap();
    assert!((&newer).read(&mut [0]).is_err(), "nothing is said, and it is open");
    member.stop();
    drop(socket);
    expect_no_threads();
}
