//! Clients that connect while the server stops: they are not served, and they do not delay the
//! stop.

use coracle_tests::live::{Runtime, Setup, signal, until};

use crate::tracing::Tracer;

/// How much longer the first call on a new client's socket takes: long enough for a stop without
/// load to pass the point at which new clients are served, and shorter than the second that a stop
/// gives clients for the closing line.
const LATE_MS: u64 = 300;

/// The server accepts a client and stops before it serves the client, so that no thread is left to
/// do so. The connection has to end by itself: if it waited for a message from another thread, it
/// would delay the stop until the stop's time limit.
#[test]
fn a_client_that_arrives_during_a_stop_ends_by_itself() {
    if !Tracer::can_inject() {
        return;
    }
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let trace = folder.path().join("trace");
    let tracer =
        Tracer::new(trace.clone()).slowing_first("accept4,setsockopt,shutdown", "setsockopt", LATE_MS);
    let server = Setup::in_memory(Runtime::Threads).under(tracer.words()).start();
    let mut late = server.connect();
    // A traced call is in the file, with its result, before the thread that made it continues.
    until("the client is accepted", || {
        let calls = tracer.calls();
        calls.iter().any(|call| call.name == "accept4" && call.worked)
    });
    signal(server.pid(), "TERM");
    late.expect_end();
    assert_eq!(server.wait().code, Some(0));
    let calls = tracer.calls();
    let ends_itself = calls.iter().any(|call| call.name == "shutdown" && call.worked);
    assert!(ends_itself, "the process ended with the connection still open: {calls:#?}");
}
