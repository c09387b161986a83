//! The address for administrators: requests that change the members, transfer leadership or make
//! backups are answered there alone.

use std::net::SocketAddr;

use coracle_tests::both_runtimes;
use coracle_tests::live::{Certificates, Nodes, Runtime, Server, Setup, Talk, program, until};

both_runtimes!(
    a_cluster_answers_administrators_at_their_address_alone,
    a_node_answers_administrators_at_their_address_alone,
    tokens_count_at_both_ports,
);

/// The requests of administrators.
const OF_ADMINS: [&str; 5] = [
    r#"{"op":"transfer","node":9}"#,
    r#"{"op":"member_add","node":9,"address":"127.0.0.1:4999"}"#,
    r#"{"op":"member_promote","node":9}"#,
    r#"{"op":"member_remove","node":9}"#,
    r#"{"op":"backup"}"#,
];

/// The address for administrators, which the server reports.
fn admin_address(server: &Server) -> SocketAddr {
    let mut address = None;
    until("the address is reported", || {
        let said = server.stderr();
        let line = said.lines().find(|line| line.contains("is the address for administrators"));
        address = line.and_then(|line| line.split(' ').find_map(|word| word.parse().ok()));
        address.is_some()
    });
    address.unwrap()
}

/// The ordinary port executes everything but the requests of administrators, and names the other.
fn expect_separation(server: &Server) -> SocketAddr {
    let admin = admin_address(server);
    let mut client = server.connect();
    client.exchange(r#"{"key":"a","value":1}"#, r#"{"key":"a","value":1,"status":"ok"}"#);
    for line in OF_ADMINS {
        let reply = client.ask(line);
        assert_eq!((reply["error"].as_str(), reply["definite"].as_bool()), (Some("forbidden"), Some(true)));
        let message = reply["message"].as_str().unwrap_or_default();
        assert!(message.contains(&admin.to_string()), "{reply}");
    }
    assert!(client.ask(r#"{"op":"status"}"#)["nodes"].is_array());
    let mut administrator = Talk::open(admin);
    administrator.exchange(r#"{"key":"a"}"#, r#"{"key":"a","value":1,"status":"ok"}"#);
    let row = &administrator.ask(r#"{"op":"status"}"#)["nodes"][0];
    assert_eq!(row["address"], server.address().to_string(), "it is the address for clients");
    admin
}

fn a_cluster_answers_administrators_at_their_address_alone(runtime: Runtime) {
    let flags = "--nodes 3 --ready-when answering --admin-listen 127.0.0.1:0";
    let server = Setup::in_memory(runtime).with(flags).start();
    let admin = expect_separation(&server);
    let mut administrator = Talk::open(admin);
    // The leader is one of them.
    until("leadership is transferred", || {
        (0..3).any(|id| administrator.ask(&format!(r#"{{"op":"transfer","node":{id}}}"#))["status"] == "ok")
    });
    server.stop();
}

fn a_node_answers_administrators_at_their_address_alone(runtime: Runtime) {
    let mut nodes = Nodes::new(&[runtime]);
    nodes.found("--admin-listen 127.0.0.1:0 --ready-when answering");
    let admin = expect_separation(nodes.server(1));
    let add = r#"{"op":"member_add","node":2,"address":"127.0.0.1:4999"}"#;
    let reply = Talk::open(admin).ask(add);
    assert_eq!(reply["status"], "ok", "{reply}");
    assert_eq!(nodes.connect(1).ask(r#"{"op":"members"}"#)["members"].as_array().map(Vec::len), Some(2));
    nodes.stop(1);
}

/// The role is needed at the address for administrators as well, and TLS is spoken there.
fn tokens_count_at_both_ports(runtime: Runtime) {
    let (certificates, folder) = (Certificates::new("tea"), tempfile::tempdir().unwrap());
    let file = folder.path().join("tokens.jsonl");
    let token = |name: &str, role: &str| {
        let mut command = std::process::Command::new(program());
        command.args(["token", "new", name, "--role", role, "--file"]).arg(&file);
        let made = command.output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        String::from_utf8(made.stdout).unwrap().trim().to_owned()
    };
    let (writer, administrator) = (token("till", "write"), token("chief", "admin"));
    let flags = format!(
        "--nodes 1 --ready-when answering --admin-listen 127.0.0.1:0 --token-file {} {}",
        file.display(),
        certificates.client_port()
    );
    let server = Setup::in_memory(runtime).with(&flags).start();
    let admin = admin_address(&server);
    for (token, port, is_forbidden) in [
        (&writer, server.address(), true),
        (&writer, admin, true),
        (&administrator, server.address(), true),
        (&administrator, admin, false),
    ] {
        let mut talk = Talk::open(certificates.relay(port));
        assert_eq!(talk.ask(OF_ADMINS[0])["error"], "unauthenticated");
        assert_eq!(talk.ask(&format!(r#"{{"op":"auth","token":"{token}"}}"#))["status"], "ok");
        talk.exchange(r#"{"key":"a","value":1}"#, r#"{"key":"a","value":1,"status":"ok"}"#);
        let reply = talk.ask(OF_ADMINS[0]);
        assert_eq!(reply["error"] == "forbidden", is_forbidden, "{reply}");
        assert_ne!(reply["error"], "unauthenticated");
    }
    assert_eq!(server.stop().code, Some(0));
}
