//! `coracle health`: liveness never depends on other nodes or on rights, readiness does, and both
//! end in time.

use std::net::TcpListener;
use std::process::{Command, Output};

use coracle_tests::both_runtimes;
use coracle_tests::live::{Certificates, Nodes, Runtime, Setup, program, until};

both_runtimes!(
    a_node_without_a_leader_is_alive_and_not_ready,
    a_probe_without_rights_learns_that_the_server_is_alive,
    a_server_of_all_nodes_becomes_ready,
);

/// Probes the server at this address.
fn probe(address: &str, words: &[&str]) -> Output {
    let mut command = Command::new(program());
    command.arg("health").args(["--connect", address]).args(words);
    command.env_remove("CORACLE_TOKEN").output().expect("the program starts")
}

/// The exit code, and the only line.
fn told(probed: &Output) -> (Option<i32>, String) {
    let stdout = String::from_utf8(probed.stdout.clone()).expect("it prints text");
    assert!(stdout.lines().count() == 1 && probed.stderr.is_empty(), "{probed:?}");
    (probed.status.code(), stdout)
}

fn expect(address: &str, words: &[&str], code: i32, part: &str) {
    let (ended, line) = told(&probe(address, words));
    assert!(ended == Some(code) && line.contains(part), "{words:?}: {ended:?} {line}");
    assert!(line.starts_with(if code == 0 { "ok: " } else { "fail: " }), "{line}");
}

fn a_node_without_a_leader_is_alive_and_not_ready(runtime: Runtime) {
    let mut nodes = Nodes::start(&[runtime; 3]);
    let address = nodes.server(1).address().to_string();
    until("it is ready", || probe(&address, &["--ready"]).status.code() == Some(0));
    expect(&address, &["--ready"], 0, "leads");
    nodes.kill(2);
    nodes.kill(3);
    until("it knows no leader", || probe(&address, &["--ready"]).status.code() == Some(6));
    expect(&address, &["--ready"], 6, "no leader");
    expect(&address, &[], 0, "answers");
    nodes.kill(1);
    expect(&address, &[], 6, "no server answered");
}

fn a_server_of_all_nodes_becomes_ready(runtime: Runtime) {
    let server = Setup::in_memory(runtime).with("--nodes 3").start();
    let address = server.address().to_string();
    until("it is ready", || probe(&address, &["--ready"]).status.code() == Some(0));
    let json = probe(&address, &["--ready", "-o", "json"]);
    let line: serde_json::Value = serde_json::from_slice(&json.stdout).expect("it is JSON");
    assert_eq!((&line["probe"], &line["status"]), (&"ready".into(), &"ok".into()));
}

fn a_probe_without_rights_learns_that_the_server_is_alive(runtime: Runtime) {
    let certificates = Certificates::new("tea");
    let file = certificates.path("tokens.jsonl");
    let file = file.to_str().unwrap();
    let new = ["token", "new", "probe", "--role", "read", "--file", file];
    let token = made_by(Command::new(program()).args(new));
    let server = Setup::in_memory(runtime).with(&format!("--token-file {file}")).start();
    let address = server.address().to_string();
    expect(&address, &[], 0, "unauthenticated");
    expect(&address, &["--ready"], 6, "unauthenticated");
    expect(&address, &["--token", "coracle_00"], 0, "refusal");
    until("it is ready", || probe(&address, &["--ready", "--token", &token]).status.success());
    // A server that wants a certificate, and a client that does not know its authority.
    let secured = Setup::in_memory(runtime).with(&certificates.client_port()).start();
    let address = secured.address().to_string();
    let [of_clients, of_peers] = ["clients-ca.pem", "peers-ca.pem"].map(|name| certificates.path(name));
    for authority in [&of_clients, &of_peers] {
        let authority = ["--tls-ca", authority.to_str().unwrap()];
        expect(&address, &authority, 0, "refusal");
        expect(&address, &[&authority[..], &["--ready"]].concat(), 6, "certificate");
    }
}

fn made_by(command: &mut Command) -> String {
    String::from_utf8(command.output().expect("the program starts").stdout).unwrap().trim().to_owned()
}

#[test]
fn a_server_that_is_silent_fails_the_probe_in_time() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    expect(&address, &["--timeout", "200ms"], 6, "within 200ms");
    expect(&address, &["--timeout", "200ms", "--ready"], 6, "within 200ms");
    expect(&address, &["--timeout", "0"], 6, "more than 0");
}
