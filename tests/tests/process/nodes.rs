//! A cluster of one process per node: any node serves any client while leaders change and nodes
//! fail, return, join or leave.

use std::fs;
use std::time::{Duration, Instant};

use coracle_tests::both_runtimes;
use coracle_tests::live::{Load, Nodes, Runtime, Talk, until};
use serde_json::Value;

use Runtime::{Smol, Threads};

fn three(runtime: Runtime) -> Nodes {
    Nodes::start(&[runtime; 3])
}

fn put(nodes: &Nodes, through: usize, key: &str, number: u64) {
    let line = format!(r#"{{"key":"{key}","value":{number}}}"#);
    nodes.connect(through).exchange(&line, &format!(r#"{{"key":"{key}","value":{number},"status":"ok"}}"#));
}

fn value(nodes: &Nodes, through: usize, key: &str) -> Value {
    let line = format!(r#"{{"op":"get","key":"{key}","consistency":"linearizable"}}"#);
    nodes.connect(through).ask(&line)["value"].clone()
}

/// Every node serves reads and writes of clients.
fn any_node_serves_any_client(runtime: Runtime) {
    let nodes = three(runtime);
    serves_through_all(&nodes);
}

fn nodes_on_different_runtimes_are_one_cluster() {
    let nodes = Nodes::start(&[Threads, Smol, Smol]);
    serves_through_all(&nodes);
}

fn serves_through_all(nodes: &Nodes) {
    for id in nodes.running() {
        put(nodes, id, &format!("k{id}"), id as u64);
    }
    for through in nodes.running() {
        for id in nodes.running() {
            assert_eq!(value(nodes, through, &format!("k{id}")), id as u64);
        }
    }
    nodes.settle();
    for id in nodes.running() {
        // Its local answer, which is up to date by now.
        nodes.connect(id).exchange(r#"{"key":"k1"}"#, r#"{"key":"k1","value":1,"status":"ok"}"#);
        let rows = nodes.rows(id);
        assert_eq!(rows.len(), nodes.running().len());
        assert!(rows.iter().all(|row| row["reachable"] == true && row["lag"] == 0), "{rows:?}");
    }
}

/// A killed leader is replaced by the remaining majority, and catches up after a restart.
fn a_killed_leader_is_replaced_and_comes_back(runtime: Runtime) {
    let mut nodes = three(runtime);
    put(&nodes, 1, "a", 1);
    let leader = nodes.leader();
    nodes.kill(leader);
    let through = nodes.running()[0];
    // A write that is forwarded before the end of the connection is noticed has an unknown outcome.
    until("the leader is gone for the others", || {
        let rows = nodes.rows(through);
        let row = rows.iter().find(|row| row["id"] == leader as u64).expect("it is still a member");
        (&row["role"], &row["reachable"]) == (&Value::from("unreachable"), &Value::from(false))
    });
    put(&nodes, through, "a", 2);
    nodes.restart(leader);
    nodes.settle();
    assert_eq!(value(&nodes, leader, "a"), 2);
}

/// The bootstrap waits for all founders. Until then, requests of clients are rejected with a
/// definite error.
fn founders_wait_for_one_another(runtime: Runtime) {
    let mut nodes = Nodes::new(&[runtime; 3]);
    for id in [1, 2] {
        nodes.launch(id, "--request-timeout 300ms");
        nodes.wait_until_ready(id);
    }
    for line in [r#"{"key":"a","value":1}"#, r#"{"key":"a"}"#, r#"{"op":"members"}"#] {
        let reply = nodes.connect(1).ask(line);
        assert_eq!(reply["error"], "no_leader", "{reply}");
        assert_eq!(reply["definite"], true, "{reply}");
    }
    nodes.kill(2);
    nodes.launch(3, "");
    nodes.launch(2, "");
    nodes.wait_until_ready(2);
    nodes.wait_until_ready(3);
    _ = nodes.leader();
    put(&nodes, 1, "a", 1);
}

/// With `--ready-when answering`, a script that waits for `ready` may rely on it: a node that
/// listens, and whose cluster has no majority yet, is not ready.
fn ready_means_that_requests_are_answered(runtime: Runtime) {
    let mut nodes = Nodes::new(&[runtime; 3]);
    nodes.launch(1, "--ready-when answering");
    until("node 1 listens and waits", || nodes.server(1).stderr().contains("waits for nodes 2, 3"));
    assert!(!nodes.server(1).has_said_anything(), "it has no leader");
    for id in [2, 3] {
        nodes.launch(id, "--ready-when answering");
    }
    for id in 1..=3 {
        nodes.wait_until_ready(id);
        put(&nodes, id, "a", id as u64);
    }
}

/// A client of another protocol at the port for nodes gets an error that names the port for
/// clients.
fn another_protocol_at_the_port_for_nodes_is_told_so(runtime: Runtime) {
    let nodes = three(runtime);
    let peers: std::net::SocketAddr = nodes.peer_address(1).parse().expect("it is an address");
    let clients = nodes.server(1).address().to_string();
    for start in [
        "GET / HTTP/1.1\r\n\r\n",
        "{\"key\":\"a\",\"value\":1}\n",
        "\x16\x03\x01\x02\x00",
        "*1\r\n$4\r\nPING\r\n",
    ] {
        let mut talk = Talk::open(peers);
        talk.send(start);
        let refusal = talk.hear();
        assert!(refusal.contains("for the other nodes") && refusal.contains(&clients), "{refusal}");
        talk.expect_end();
    }
    put(&nodes, 1, "a", 2);
}

/// A node that lost its files is rejected, because it may have made promises that it no longer
/// knows of. It can join again after its removal.
fn a_node_that_lost_its_files_is_refused(runtime: Runtime) {
    let mut nodes = three(runtime);
    put(&nodes, 1, "a", 1);
    nodes.kill(3);
    fs::remove_dir_all(nodes.folder(3)).expect("it is there");
    let ended = nodes.setup(3).launch().wait();
    assert_eq!(ended.code, Some(6), "{}", ended.stderr);
    assert!(ended.stderr.contains("coracle member remove 3"), "{}", ended.stderr);
    until("the others say so, too", || nodes.server(1).stderr().contains("refused a connection from node 3"));
    put(&nodes, 1, "a", 2);
    let removed = nodes.connect(1).ask(r#"{"op":"member_remove","node":3}"#);
    assert_eq!(removed["status"], "ok", "{removed}");
    let add = format!(r#"{{"op":"member_add","node":3,"address":"{}"}}"#, nodes.peer_address(3));
    assert_eq!(nodes.connect(1).ask(&add)["status"], "ok");
    fs::remove_dir_all(nodes.folder(3)).expect("it is there");
    let join = format!("--join {}", nodes.peer_address(1));
    let again = coracle_tests::live::Setup::node(runtime, 3, &nodes.folder(3)).with(&join).start();
    let promoted = nodes.connect(2).ask(r#"{"op":"member_promote","node":3}"#);
    assert_eq!(promoted["status"], "ok", "{promoted}");
    until("it has the value", || again.connect().ask(r#"{"key":"a"}"#)["value"] == 2);
}

/// A node of another cluster is rejected, so that two clusters with mixed-up addresses do not
/// become one.
fn a_node_of_another_cluster_is_refused(runtime: Runtime) {
    let mut nodes = three(runtime);
    let mut others = three(runtime);
    put(&nodes, 1, "a", 1);
    put(&others, 1, "a", 2);
    others.kill(3);
    nodes.kill(3);
    let stray = coracle_tests::live::Setup::node(runtime, 3, &others.folder(3))
        .with(&format!("--peer-listen {}", nodes.peer_address(3)))
        .start();
    until("it is refused", || nodes.server(1).stderr().contains("it belongs to cluster"));
    assert_eq!(value(&nodes, 1, "a"), 1);
    stray.stop();
}

/// A rolling restart, as in an upgrade: no request of a client with a session fails.
fn a_rolling_restart_fails_no_request(runtime: Runtime) {
    let mut nodes = three(runtime);
    let load = Load::start("w", nodes.addresses());
    load.goes_on();
    for id in 1..=3 {
        let others: Vec<_> = nodes
            .running()
            .into_iter()
            .filter(|one| *one != id)
            .map(|id| nodes.server(id).address())
            .collect();
        load.send_to(others);
        nodes.stop(id);
        load.goes_on();
        nodes.restart(id);
        until("it follows", || nodes.leader() > 0);
        load.send_to(nodes.addresses());
        load.goes_on();
    }
    let done = load.end(&[]);
    assert_eq!(value(&nodes, 1, "w"), done);
}

/// Nodes are replaced one by one under load, including the leader.
fn members_change_under_load(runtime: Runtime) {
    let mut nodes = three(runtime);
    let load = Load::start("w", nodes.addresses());
    for _ in 0..2 {
        let id = nodes.join(runtime);
        let promoted = nodes.connect(1).ask(&format!(r#"{{"op":"member_promote","node":{id}}}"#));
        assert_eq!(promoted["status"], "ok", "{promoted}");
        load.send_to(nodes.addresses());
        load.goes_on();
    }
    for _ in 0..2 {
        let leader = nodes.leader();
        let through = nodes.running().into_iter().find(|id| *id != leader).expect("there are others");
        let remove = format!(r#"{{"op":"member_remove","node":{leader}}}"#);
        let removed = nodes.connect(through).ask(&remove);
        assert_eq!(removed["status"], "ok", "{removed}");
        load.goes_on();
        let others = nodes.running().into_iter().filter(|id| *id != leader);
        load.send_to(others.map(|id| nodes.server(id).address()).collect());
        let ended = nodes.wait(leader);
        assert_eq!(ended.code, Some(6), "{}", ended.stderr);
        assert!(ended.stderr.contains("was removed from the cluster"), "{}", ended.stderr);
        load.goes_on();
    }
    let through = nodes.running()[0];
    let members = nodes.connect(through).ask(r#"{"op":"members"}"#);
    let ids: Vec<_> =
        members["members"].as_array().expect("members").iter().map(|row| row["id"].clone()).collect();
    let running: Vec<_> = nodes.running().into_iter().map(Value::from).collect();
    assert_eq!(ids, running);
    let done = load.end(&[]);
    assert_eq!(value(&nodes, through, "w"), done);
}

/// Longer than a leader keeps its log for a follower that does not answer.
const LOG_HELD: Duration = Duration::from_secs(3);

/// A follower that was away for longer than the leader keeps its log gets a snapshot.
fn a_node_far_behind_gets_a_snapshot(runtime: Runtime) {
    let mut nodes = Nodes::new(&[runtime; 3]);
    for id in 1..=3 {
        nodes.launch(id, "--snapshot-entries 100");
    }
    (1..=3).for_each(|id| nodes.wait_until_ready(id));
    let leader = nodes.leader();
    let away = leader % 3 + 1;
    nodes.kill(away);
    let away_since = Instant::now();
    let value = "x".repeat(10_000);
    let mut talk = nodes.connect(leader);
    let mut write = |numbers: std::ops::Range<u64>| {
        for number in numbers {
            let reply = talk.ask(&format!(r#"{{"key":"k{}","value":"{number}{value}"}}"#, number % 10));
            assert_eq!(reply["status"], "ok", "{reply}");
        }
    };
    write(0..1000);
    // The leader keeps its log for a follower that has answered recently: here for ten of the
    // longest election timeouts.
    while away_since.elapsed() < LOG_HELD {
        write(0..100);
    }
    write(1000..2000);
    nodes.restart(away);
    nodes.settle();
    let rows = nodes.rows(away);
    let row = rows.iter().find(|row| row["id"] == away as u64).expect("it is a member");
    assert!(row["snapshot_index"].as_u64() > Some(0), "{row}");
    assert_eq!(nodes.connect(away).ask(r#"{"key":"k9"}"#)["value"], format!("1999{value}"));
}

both_runtimes!(
    any_node_serves_any_client,
    a_killed_leader_is_replaced_and_comes_back,
    founders_wait_for_one_another,
    ready_means_that_requests_are_answered,
    another_protocol_at_the_port_for_nodes_is_told_so,
    a_node_that_lost_its_files_is_refused,
    a_node_of_another_cluster_is_refused,
    a_rolling_restart_fails_no_request,
    members_change_under_load,
    a_node_far_behind_gets_a_snapshot,
);

#[test]
fn mixed_runtimes() {
    nodes_on_different_runtimes_are_one_cluster();
}
