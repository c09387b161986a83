//! File descriptor limits: with more clients than descriptors, clients wait or are rejected, and
//! the cluster keeps working.

use std::ffi::OsString;
use std::net::TcpStream;

use coracle_tests::both_runtimes;
use coracle_tests::live::{Nodes, Runtime, Setup, Talk, until};

/// More than the limit below, so that no descriptor is left for the last clients.
const CLIENTS: usize = 100;

/// Limits the process to 64 descriptors for files, sockets and the runtime.
fn few_descriptors() -> Vec<OsString> {
    ["sh", "-c", "ulimit -n 64; exec \"$@\"", "sh"].map(OsString::from).into()
}

/// When the clients that used up the descriptors leave, new clients are served again.
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

/// Clients must not use up the descriptors that the nodes need: an election with many clients
/// connected gives a leader and does not end the process.
fn an_election_succeeds_however_many_clients_there_are(runtime: Runtime) {
    let folder = tempfile::tempdir().expect("there is room for a folder");
    // The clients connect long before the first election.
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

/// Strangers at the ports for nodes and for clients use up the free descriptors, and the nodes
/// still elect a leader, for which they open files and dial one another.
fn strangers_leave_a_node_its_descriptors(runtime: Runtime) {
    let mut nodes = Nodes::new(&[runtime; 3]).under(few_descriptors());
    (1..=3).for_each(|id| nodes.launch(id, "--request-timeout 60s"));
    (1..=3).for_each(|id| nodes.wait_until_ready(id));
    let leader = nodes.leader();
    let mut clients: Vec<_> = (1..=3).filter(|id| *id != leader).map(|id| nodes.connect(id)).collect();
    let crowd: Vec<_> =
        nodes.addresses().into_iter().flat_map(|of| vec![of; CLIENTS]).map(Talk::open).collect();
    let strangers: Vec<_> = (1..=3)
        .flat_map(|id| vec![nodes.peer_address(id); CLIENTS])
        .map(|address| TcpStream::connect(address).expect("it listens"))
        .collect();
    nodes.kill(leader);
    for (number, talk) in clients.iter_mut().enumerate() {
        // It may be forwarded to the killed leader. With a session it is sent again.
        let session = format!(r#"{{"client":"client {number}","seq":1}}"#);
        let reply = talk.ask(&format!(r#"{{"key":"a","value":1,"session":{session}}}"#));
        assert_eq!(reply["status"], "ok", "{reply}");
    }
    drop((crowd, strangers));
    nodes.restart(leader);
    nodes.settle();
}

/// A node with fewer descriptors than it needs fails at the start with a message that says so.
fn too_few_descriptors_are_named_at_the_start(runtime: Runtime) {
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let tracer = ["sh", "-c", "ulimit -n 30; exec \"$@\"", "sh"].map(OsString::from).into();
    let ended = Setup::in_folder(runtime, folder.path()).under(tracer).fail();
    assert_eq!(ended.code, Some(6), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("this process may have 30 files open, and needs at least 55"),
        "{}",
        ended.stderr
    );
}

both_runtimes!(
    clients_are_served_again_when_others_leave,
    an_election_succeeds_however_many_clients_there_are,
    strangers_leave_a_node_its_descriptors,
    too_few_descriptors_are_named_at_the_start,
);
