//! Thread limits: a server in a control group with few threads either says so at the start or
//! serves. Where this process may not create such a group, the tests say so on stderr and prove
//! nothing.

use coracle_tests::both_runtimes;
use coracle_tests::live::{Group, Nodes, Runtime, Setup, until};

/// Whatever the limit is, the server neither hangs nor panics.
fn few_threads_are_named_or_enough(runtime: Runtime) {
    let Some(group) = Group::of_threads(1) else {
        return eprintln!("skipped: this process may make no control group that limits threads");
    };
    for max in [1, 2, 3, 5, 8, 10, 12, 16, 20, 26] {
        group.set_max(max);
        let folder = tempfile::tempdir().expect("there is room for a folder");
        let mut server = Setup::in_folder(runtime, folder.path()).under(group.tracer()).launch();
        if server.becomes_ready() {
            let asked = server.connect().ask(r#"{"key":"a","value":1}"#);
            assert_eq!(asked["status"], "ok", "with {max}: {asked}");
            server.stop();
            continue;
        }
        let ended = server.wait();
        assert_eq!(ended.code, Some(6), "with {max}: {}", ended.stderr);
        assert!(ended.stderr.contains("Is there a limit of processes"), "with {max}: {}", ended.stderr);
        assert!(max < 26, "{}", ended.stderr);
    }
}

/// A leader that can start no thread for the link to a new node reports that and starts the link
/// later. No process ends.
#[test]
fn a_link_without_a_thread_is_reported_and_starts_later() {
    let Some(group) = Group::of_threads(200) else {
        return eprintln!("skipped: this process may make no control group that limits threads");
    };
    let mut nodes = Nodes::new(&[Runtime::Threads]).under(group.tracer());
    nodes.launch(1, "");
    nodes.wait_until_ready(1);
    let mut talk = nodes.connect(1);
    assert_eq!(talk.ask(r#"{"key":"a","value":1}"#)["status"], "ok");
    group.close_to_threads();
    let address = nodes.peer_address(2);
    let added = talk.ask(&format!(r#"{{"op":"member_add","node":2,"address":"{address}"}}"#));
    assert_eq!(added["status"], "ok", "{added}");
    until("the link that does not start is told", || {
        nodes.server(1).stderr().contains("has no connection to node 2: Resource temporarily unavailable")
    });
    assert_eq!(talk.ask(r#"{"key":"a","value":2}"#)["status"], "ok");
    group.set_max(200);
    let join = format!("--join {}", nodes.peer_address(1));
    let server = Setup::node(Runtime::Threads, 2, &nodes.folder(2)).with(&join).start();
    assert_eq!(server.connect().ask(r#"{"key":"a"}"#)["value"], 2);
    server.stop();
    nodes.stop(1);
}

both_runtimes!(few_threads_are_named_or_enough);
