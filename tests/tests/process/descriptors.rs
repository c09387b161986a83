//! More clients than the process may have files open: the clients wait or are turned away, and the cluster goes on.

use std::ffi::OsString;

use coracle_tests::both_runtimes;
use coracle_tests::live::{Runtime, Setup, Talk, until};

/// More than the limit below, so that the last ones find no descriptor.
const CLIENTS: usize = 100;

/// Sixty-four descriptors for everything: files, sockets and what the runtime needs.
fn few_descriptors() -> Vec<OsString> {
    ["sh", "-c", "ulimit -n 64; exec \"$@\"", "sh"].map(OsString::from).into()
}

/// When those leave who had used up the descriptors, whoever comes next is served.
fn clients_are_served_again_when_others_leave(runtime: Runtime) {
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let server = Setup::in_folder(runtime, folder.path()).under(few_descriptors()).start();
    let mut first = server.connect();
    assert_eq!(first.ask(r#"{"key":"a","value":1}"#)["status"], "ok");
    let crowd: Vec<_> = (0..CLIENTS).map(|_| server.connect()).collect();
    assert_eq!(first.ask(r#"{"key":"a","value":2}"#)["status"], "ok");
    drop(crowd);
    until("a newcomer is served", || {
        let mut newcomer = server.connect();
        newcomer.try_send(b"{\"op\":\"ping\"}\n").is_ok() && newcomer.try_hear().is_ok()
    });
    server.stop();
}

/// A crowd of clients takes descriptors, and must not take those that the nodes need: an election in the crowd's
/// presence leads to a leader, not to the end of the process.
fn an_election_succeeds_however_many_clients_there_are(runtime: Runtime) {
    let folder = tempfile::tempdir().expect("there is room for a folder");
    // The crowd is there long before the first election.
    let times = "--election-timeout 2s..3s --request-timeout 60s";
    let mut server = Setup::in_folder(runtime, folder.path()).with(times).under(few_descriptors()).start();
    let mut first = server.connect();
    first.exchange(r#"{"op":"ping"}"#, r#"{"status":"ok"}"#);
    let _crowd: Vec<_> = (0..CLIENTS).map(|_| Talk::open(server.address())).collect();
    first.say(r#"{"key":"a","value":1}"#);
    let reply = first.try_hear();
    let is_served = reply.as_deref() == Ok(r#"{"key":"a","value":1,"status":"ok"}"#);
    assert!(is_served, "{reply:?}; ended: {}; {}", server.has_ended(), server.stderr());
    server.stop();
}

both_runtimes!(
    clients_are_served_again_when_others_leave,
    an_election_succeeds_however_many_clients_there_are,
);
