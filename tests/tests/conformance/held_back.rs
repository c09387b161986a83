//! Backpressure: a client that sends without reading is held back by its own socket, at no cost to
//! other clients.

use std::time::Duration;

use coracle_tests::both_runtimes_and_tls;
use coracle_tests::live::{Runtime, Setup};

/// More bytes than the operating system may buffer for a connection in both directions and the
/// server holds for its open requests, all together.
const TAKEN_BYTES_MAX: usize = 64 << 20;
/// How long a write must block to count as held back. A server that is only slow passes as well;
/// one that keeps on reading fails.
pub(crate) const NO_TAKER: Duration = Duration::from_secs(1);

/// The server stops reading from a client that never reads: its memory does not grow with the
/// requests of that client, and other clients do not wait.
fn a_client_that_never_reads_is_held_back(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let mut bystander = server.connect();
    let value = "v".repeat(64 << 10);
    let stored = format!(r#"{{"key":"big","value":"{value}","status":"ok"}}"#);
    bystander.exchange(&format!(r#"{{"key":"big","value":"{value}"}}"#), &stored);
    let before = server.memory_bytes();

    // The replies to this many requests would be about 300 GB.
    let mut deaf = server.connect();
    // Read-your-writes holds within one connection only: the node that answers might lack a write
    // of another connection.
    deaf.exchange(&format!(r#"{{"key":"big","value":"{value}"}}"#), &stored);
    let taken = deaf.flood(b"{\"key\":\"big\"}\n", TAKEN_BYTES_MAX, NO_TAKER);
    assert!(taken < TAKEN_BYTES_MAX, "the server takes without end");
    let grown = server.memory_bytes().saturating_sub(before);
    assert!(grown < 128 << 20, "one client that does not read costs {grown} bytes");
    for round in 0..100 {
        bystander.exchange(
            &format!(r#"{{"op":"ping","id":{round}}}"#),
            &format!(r#"{{"status":"ok","id":{round}}}"#),
        );
        bystander.exchange(r#"{"key":"a","value":1}"#, r#"{"key":"a","value":1,"status":"ok"}"#);
        bystander.exchange(r#"{"key":"big"}"#, &stored);
    }
    // Once the client reads, it gets the replies to its requests.
    for _ in 0..2000 {
        deaf.expect(&stored);
    }
}

/// Requests that need no node, such as pings and malformed lines, are held back as well: their
/// replies must not fill a growing buffer.
fn requests_that_need_no_node_are_held_back_too(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let mut deaf = server.connect();
    let before = server.memory_bytes();
    let id = "i".repeat(1000);
    let line = format!("{{\"op\":\"ping\",\"id\":\"{id}\"}}\n");
    let taken = deaf.flood(line.as_bytes(), TAKEN_BYTES_MAX, NO_TAKER);
    assert!(taken < TAKEN_BYTES_MAX, "the server takes without end");
    let grown = server.memory_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "one client that does not read costs {grown} bytes");
    for _ in 0..taken / line.len() {
        deaf.expect(&format!(r#"{{"status":"ok","id":"{id}"}}"#));
    }
}

/// A client that never finishes a line uses at most the memory of one line.
fn endless_lines_cost_a_line_each(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let before = server.memory_bytes();
    let mut talks: Vec<_> = (0..20).map(|_| server.connect()).collect();
    for talk in &mut talks {
        // Just below the limit, so that the server has to buffer all of it.
        talk.send(vec![b'x'; 1 << 20]);
    }
    server.connect().exchange(r#"{"key":"a","value":1}"#, r#"{"key":"a","value":1,"status":"ok"}"#);
    let grown = server.memory_bytes().saturating_sub(before);
    assert!(grown < 128 << 20, "twenty unfinished lines cost {grown} bytes");
    for talk in &mut talks {
        talk.send("\n");
        assert_eq!(talk.hear_json()["error"], "bad_request");
    }
}

both_runtimes_and_tls!(
    a_client_that_never_reads_is_held_back,
    requests_that_need_no_node_are_held_back_too,
    endless_lines_cost_a_line_each,
);
