//! Heavy load from single clients: long pipelines, large scans and large replies. Requests are
//! answered, the cluster keeps its leader, and other clients are served meanwhile.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use coracle_tests::both_runtimes_and_tls;
use coracle_tests::live::{Runtime, Server, Setup, Talk};
use serde_json::Value;

const PONG: &str = r#"{"status":"ok"}"#;
const KEYS: usize = 10_000;

/// Stores `KEYS` keys, in windows that the cluster accepts at once.
fn fill(talk: &mut Talk) {
    for first in (0..KEYS).step_by(500) {
        let line = |number| format!("{{\"key\":\"key-{number:05}\",\"value\":{number}}}\n");
        talk.send((first..first + 500).map(line).collect::<String>());
        for _ in 0..500 {
            assert_eq!(talk.hear_json()["status"], "ok");
        }
    }
}

/// Lines behind a held-back request are always processed, even if they are more than two pipelines
/// hold. Once the held request is answered and the requests behind it fill every slot, only the
/// writer of the connection can find the remaining lines; otherwise the client would wait forever.
fn lines_behind_a_held_request_are_never_stranded(runtime: Runtime) {
    const READS: usize = 2600;
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let server = Setup::in_folder(runtime, folder.path()).start();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for writer in 0..12 {
            let (mut talk, is_over) = (server.connect(), &is_over);
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    let reply = talk.ask(&format!(r#"{{"key":"w{writer}","value":1}}"#));
                    assert_eq!(reply["status"], "ok", "{reply}");
                }
            });
        }
        let readers: Vec<_> = (0..4)
            .map(|_| {
                let mut talk = server.connect();
                scope.spawn(move || {
                    // The reader writes the keys itself, because read-your-writes holds within one
                    // connection only.
                    for key in ["a", "b", "c"] {
                        let stored = format!(r#"{{"key":"{key}","value":0,"status":"ok"}}"#);
                        talk.exchange(&format!(r#"{{"key":"{key}","value":0}}"#), &stored);
                    }
                    for round in 0..6 {
                        pipeline_behind_a_held_put(&mut talk, round % 2 == 0, READS);
                    }
                })
            })
            .collect();
        let ends: Vec<_> = readers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        is_over.store(true, Ordering::Relaxed);
        assert!(ends.iter().all(Result::is_ok), "a pipeline was not answered");
    });
}

/// Pipelines a read, a put of the same key that waits for it, and further reads that wait behind
/// the put. Reads are quicker than puts: when the put is answered, every slot behind it already has
/// its reply and can be freed only then. A first put of another key adds one more moment at which
/// slots become free.
fn pipeline_behind_a_held_put(talk: &mut Talk, has_first_put: bool, reads: usize) {
    let mut keys = Vec::new();
    let mut lines = String::new();
    if has_first_put {
        keys.push("a");
        lines.push_str("{\"key\":\"a\",\"value\":0}\n");
    }
    keys.extend(["b", "b"]);
    lines.push_str("{\"key\":\"b\"}\n{\"key\":\"b\",\"value\":0}\n");
    keys.extend(std::iter::repeat_n("c", reads));
    lines.push_str(&"{\"key\":\"c\"}\n".repeat(reads));
    talk.send(lines);
    for key in keys {
        talk.expect(&format!(r#"{{"key":"{key}","value":0,"status":"ok"}}"#));
    }
}

/// Returns the term, on which all nodes must agree, and the leader that the first node reports.
fn reign(status: &Value) -> (Value, Value) {
    let nodes = status["nodes"].as_array().expect("a status has nodes");
    assert!(nodes.iter().all(|node| node["term"] == nodes[0]["term"]), "{status}");
    (nodes[0]["term"].clone(), nodes[0]["leader"].clone())
}

/// A flood of scans does not depose the leader. Thousands of scans arrive at once, each over
/// thousands of keys; executed in one go, they would block the nodes for many heartbeats.
fn a_flood_of_scans_costs_no_leader_its_office(runtime: Runtime) {
    const CLIENTS: usize = 4;
    let server = Setup::in_memory(runtime).start();
    let mut observer = server.connect();
    fill(&mut observer);
    let before = reign(&observer.ask(r#"{"op":"status"}"#));
    let running = AtomicUsize::new(CLIENTS);
    let mut asked_meanwhile = 0;
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            let (mut talk, running) = (server.connect(), &running);
            scope.spawn(move || {
                // By read-your-writes, its scans include this write and all keys stored before it.
                assert_eq!(talk.ask(r#"{"key":"key-00000","value":0}"#)["status"], "ok");
                talk.send("{\"op\":\"scan\",\"limit\":10000}\n".repeat(1020));
                // The replies to all scans would be hundreds of megabytes; the flood does its harm
                // at the beginning.
                for _ in 0..12 {
                    let reply = talk.hear();
                    assert!(reply.ends_with(r#""more":false,"status":"ok"}"#) && reply.len() > 20 * KEYS);
                }
                running.fetch_sub(1, Ordering::Release);
            });
        }
        while running.load(Ordering::Acquire) > 0 {
            let status = observer.ask(r#"{"op":"status"}"#);
            assert_eq!(reign(&status), before, "{status}");
            asked_meanwhile += usize::from(running.load(Ordering::Acquire) == CLIENTS);
        }
    });
    assert!(asked_meanwhile > 0, "a status is answered while all scan");
    let status = observer.ask(r#"{"op":"status"}"#);
    assert_eq!(reign(&status), before, "{status}");
}

/// The most memory, in bytes, that the server may use with a client that asks for much and reads
/// little.
const GROWN_BYTES_MAX: u64 = 150 << 20;

fn check_that_others_are_served(server: &Server) {
    let mut bystander = server.connect();
    for round in 0..50 {
        bystander.exchange(r#"{"op":"ping"}"#, PONG);
        let stored = format!(r#"{{"key":"z","value":{round},"status":"ok"}}"#);
        bystander.exchange(&format!(r#"{{"key":"z","value":{round}}}"#), &stored);
        bystander.exchange(r#"{"key":"z"}"#, &stored);
        assert_eq!(bystander.ask(r#"{"op":"scan","limit":1}"#)["status"], "ok");
    }
}

/// Large pings that fill a pipeline use limited memory. A pipeline holds a thousand requests of any
/// size: with half a megabyte in each id, that would be half a gigabyte of unread replies.
fn a_thousand_large_pings_cost_no_more_than_a_few(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    check_that_others_are_served(&server);
    let line = format!("{{\"op\":\"ping\",\"id\":\"{}\"}}\n", "i".repeat(500_000));
    let mut deaf = server.connect();
    let taken = deaf.flood(line.as_bytes(), 1000 * line.len(), super::held_back::NO_TAKER);
    assert!(taken < 500 * line.len(), "the server takes {taken} bytes of a client that reads nothing");
    check_that_others_are_served(&server);
    let used = server.memory_bytes();
    assert!(used < GROWN_BYTES_MAX, "the server uses {used} bytes");
}

/// The same for scans, which have short lines and long replies.
fn a_thousand_scans_cost_no_more_than_a_few(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    fill(&mut server.connect());
    let mut deaf = server.connect();
    deaf.send("{\"op\":\"scan\",\"limit\":10000}\n".repeat(1000));
    // The scans went to the nodes in order of arrival, so later requests are answered after them.
    check_that_others_are_served(&server);
    let used = server.memory_bytes();
    assert!(used < GROWN_BYTES_MAX, "the server uses {used} bytes");
}

both_runtimes_and_tls!(
    lines_behind_a_held_request_are_never_stranded,
    a_flood_of_scans_costs_no_leader_its_office,
    a_thousand_large_pings_cost_no_more_than_a_few,
    a_thousand_scans_cost_no_more_than_a_few,
);
