//! Clients that arrive while the server stops: too late to be served, and no reason to stop later.

use coracle_tests::live::{Runtime, Setup, signal, until};

use crate::tracing::Tracer;

/// How much longer a newcomer's first call on its socket takes: long enough for a stop without load
/// to pass the point at which newcomers are served, and shorter than the second that a stop gives
/// clients for their farewell.
const LATE_MS: u64 = 300;

/// A client is accepted, and before it comes to be served the server stops and nobody is left who
/// would serve it. Its connection has to end by itself: one that waits for a word from others holds
/// up the stop until patience ends.
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
    // A traced call stands in the file, with its result, before the thread that made it goes on.
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
