//! TLS at both ports of real servers: clients and nodes that prove who they are, strangers that do
//! not, and certificates that are replaced under load.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Output;
use std::time::Duration;

use coracle_tests::both_runtimes;
use coracle_tests::live::{Certificates, Nodes, Runtime, Server, Setup, Talk, shake_hands, signal, until};

both_runtimes!(
    clients_speak_tls_as_they_speak_plain_text,
    a_client_without_a_right_certificate_is_refused_before_it_is_read,
    silent_and_noisy_strangers_take_no_place,
    strangers_at_the_peer_port_learn_and_change_nothing,
    a_node_that_speaks_plain_text_among_those_that_speak_tls_is_reported_with_the_flags,
    a_whole_new_authority_is_rolled_out_without_a_failed_write,
    an_address_that_is_learnt_later_is_refused_as_well,
);

fn secured(runtime: Runtime, certificates: &Certificates) -> Server {
    Setup::in_memory(runtime)
        .with(&format!("--nodes 1 --ready-when answering {}", certificates.client_port()))
        .start()
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The same conversation as without TLS: the lines come from the same code, and only the bytes of
/// the socket differ.
fn clients_speak_tls_as_they_speak_plain_text(runtime: Runtime) {
    let certificates = Certificates::new("tea");
    let server = secured(runtime, &certificates);
    let mut talk = Talk::open(certificates.relay(server.address()));
    talk.exchange(r#"{"key":"a","value":1}"#, r#"{"key":"a","value":1,"status":"ok"}"#);
    talk.exchange(r#"{"key":"a"}"#, r#"{"key":"a","value":1,"status":"ok"}"#);
    assert_eq!(talk.ask("nonsense")["error"], "bad_request");
    let many = 2000;
    (0..many).for_each(|number| talk.say(&format!(r#"{{"id":{number},"op":"ping"}}"#)));
    for number in 0..many {
        assert_eq!(talk.hear_json()["id"], number);
    }
    let long = "x".repeat(400 << 10);
    talk.say(&format!(r#"{{"key":"long","value":"{long}"}}"#));
    assert_eq!(talk.hear_json()["status"], "ok");
    assert_eq!(talk.ask(r#"{"key":"long"}"#)["value"], long);
    let mut watch = Talk::open(certificates.relay(server.address()));
    watch.say(r#"{"op":"watch","key":"a"}"#);
    _ = watch.hear();
    talk.exchange(r#"{"key":"a","value":2}"#, r#"{"key":"a","value":2,"status":"ok"}"#);
    until("the watch sees the change", || watch.hear().contains("\"value\":2"));
    // Half a line at the end is not executed, and the rest is answered.
    talk.send("{\"key\":\"a\"}\n{\"key\":\"a\",\"value\":3");
    talk.hang_up();
    assert_eq!(talk.hear_all(), "{\"key\":\"a\",\"value\":2,\"status\":\"ok\"}\n");
    assert_eq!(server.stop().code, Some(0));
}

fn a_client_without_a_right_certificate_is_refused_before_it_is_read(runtime: Runtime) {
    let (certificates, other) = (Certificates::new("tea"), Certificates::new("sea"));
    let server = secured(runtime, &certificates);
    let address = server.address();
    assert!(certificates.run(address, &["put", "a", "1"]).status.success());
    // Plain text gets one line that says what to do, and the connection is closed.
    let mut plain = Talk::open(address);
    plain.say(r#"{"key":"a","value":2}"#);
    assert!(plain.hear().contains("--tls-ca"));
    plain.expect_end();
    let refused = other.run(address, &["put", "a", "2"]);
    assert_eq!(refused.status.code(), Some(7), "{}", told(&refused));
    assert!(told(&refused).contains("not signed by an authority"), "{}", told(&refused));
    // The right server, and a client that another authority has signed.
    let mine = std::fs::read(certificates.path("clients-ca.pem")).unwrap();
    std::fs::write(other.path("clients-ca.pem"), mine).unwrap();
    let refused = other.run(address, &["put", "a", "2"]);
    assert_eq!(refused.status.code(), Some(7), "{}", told(&refused));
    assert!(told(&refused).contains("does not trust the authority"), "{}", told(&refused));
    assert!(!told(&refused).contains("outcome"), "nothing was executed: {}", told(&refused));
    let found = certificates.run(address, &["get", "a", "--linearizable"]);
    assert_eq!(String::from_utf8_lossy(&found.stdout), "1\n");
}

/// A TCP connection that was cut by the other end, or not yet.
fn is_cut(mut stream: &TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    !matches!(stream.read(&mut [0; 4096]), Ok(1..))
        && stream.write_all(b"x").and(stream.write_all(b"x")).is_err()
}

fn silent_and_noisy_strangers_take_no_place(runtime: Runtime) {
    let certificates = Certificates::new("tea");
    let flags =
        format!("--nodes 1 --max-connections 2 --ready-when answering {}", certificates.client_port());
    let server = Setup::in_memory(runtime).with(&flags).start();
    let silent: Vec<_> = (0..100).map(|_| TcpStream::connect(server.address()).unwrap()).collect();
    // There is room for two clients, whatever the strangers do.
    let mut talk = Talk::open(certificates.relay(server.address()));
    talk.exchange(r#"{"op":"ping"}"#, r#"{"status":"ok"}"#);
    until("the oldest strangers make room", || is_cut(&silent[0]));
    for seed in 0..20_u64 {
        let mut noisy = TcpStream::connect(server.address()).unwrap();
        let bytes: Vec<u8> = (0..2000_u64).map(|at| (seed * 31 + at * at).to_le_bytes()[0]).collect();
        _ = noisy.write_all(&[&[0x16, 3, 1][..], &bytes].concat());
    }
    talk.exchange(r#"{"op":"ping"}"#, r#"{"status":"ok"}"#);
}

fn protected(runtime: Runtime, certificates: &Certificates) -> Nodes {
    let mut nodes = Nodes::new(&[runtime; 3]);
    (1..=3).for_each(|id| nodes.launch(id, &certificates.node(id as u64)));
    (1..=3).for_each(|id| nodes.wait_until_ready(id));
    nodes
}

fn put(certificates: &Certificates, address: SocketAddr, value: &str) {
    let done = certificates.run(address, &["put", "a", value]);
    assert!(done.status.success(), "{}", told(&done));
}

/// The bytes that the node at this address answers when it is sent these.
fn answer(address: &str, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    _ = stream.write_all(bytes);
    _ = stream.shutdown(Shutdown::Write);
    let mut heard = Vec::new();
    _ = stream.read_to_end(&mut heard);
    heard
}

fn strangers_at_the_peer_port_learn_and_change_nothing(runtime: Runtime) {
    let (certificates, foreign, cousin) =
        (Certificates::new("tea"), Certificates::new("tea"), Certificates::new("sea"));
    let nodes = protected(runtime, &certificates);
    let client = nodes.server(1).address();
    until("there is a leader", || certificates.run(client, &["put", "a", "1"]).status.success());
    let port = nodes.peer_address(1);
    let hello = format!(
        "{{\"format\":\"coracle-peer\",\"version\":3,\"node\":2,\"incarnation\":\"{:016x}\",\"to\":1,\
         \"cluster\":null,\"configuration_index\":0,\"boot\":1,\"address\":null,\"client_address\":null}}\n",
        7
    );
    let noise: Vec<u8> = (0..5000_u32).map(|at| (at * at + 7).to_le_bytes()[0]).collect();
    for bytes in [&b""[..], hello.as_bytes(), b"GET / HTTP/1.1\r\n\r\n", &noise, &[0x16; 3000]] {
        let heard = answer(&port, bytes);
        // The first message of a TLS client, and perhaps an alert: no name of cluster or member.
        assert!(heard.first() == Some(&0x16) && heard.len() < 700, "{heard:?}");
        let text = String::from_utf8_lossy(&heard);
        assert!(!["tea", "coracle", "127."].iter().any(|name| text.contains(name)), "{text:?}");
    }
    // A valid certificate of another authority, which names the same cluster and node, and one of
    // another cluster.
    for stranger in [&foreign, &cousin] {
        let stream = TcpStream::connect(&port).unwrap();
        let mut session = stranger.peer_port(2).dial().unwrap();
        assert_eq!(shake_hands(&stream, &mut session), None);
        assert_eq!(session.peer(), None, "the node has not shown its certificate");
    }
    // The right authority, and the certificate of another node: it says so, and is refused.
    let stream = TcpStream::connect(&port).unwrap();
    let mut session = certificates.peer_port(3).dial().unwrap();
    assert_eq!(shake_hands(&stream, &mut session), Some(()));
    let (mut sealed, mut reply) = (Vec::new(), Vec::new());
    session.seal(hello.as_bytes(), &mut sealed).unwrap();
    (&stream).write_all(&sealed).unwrap();
    let mut bytes = [0; 4096];
    while let Ok(len @ 1..) = (&stream).read(&mut bytes) {
        session.receive(&bytes[..len], |plaintext| reply.extend_from_slice(plaintext));
    }
    assert!(String::from_utf8_lossy(&reply).contains("other_certificate"), "{reply:?}");
    // A recorded handshake is of no use to another connection.
    assert!(answer(&port, &sealed).len() < 700);
    until("it was reported", || {
        let said = nodes.server(1).stderr();
        ["not signed by an authority", "certificate is of node 3"].iter().all(|fault| said.contains(fault))
    });
    put(&certificates, client, "2");
    let members = certificates.run(client, &["member", "list"]);
    assert_eq!(String::from_utf8_lossy(&members.stdout).lines().count(), 4);
}

/// Each side reports it, whichever of them dials, and so does a client of either kind.
fn a_node_that_speaks_plain_text_among_those_that_speak_tls_is_reported_with_the_flags(runtime: Runtime) {
    let certificates = Certificates::new("tea");
    let mut nodes = Nodes::new(&[runtime; 2]);
    nodes.launch(1, &certificates.node(1));
    nodes.launch(2, "");
    (1..=2).for_each(|id| nodes.wait_until_ready(id));
    let flags = "--peer-cert, --peer-key and --peer-ca";
    until("all four are reported", || {
        let said = [1, 2].map(|id| nodes.server(id).stderr());
        let secured = ["speaks plain text: start that node with", "was started without"];
        secured.iter().all(|part| said[0].contains(&format!("{part} {flags}")))
            && said[1].contains(&format!("it speaks TLS: start this node with {flags}"))
    });
    let mut plain = nodes.connect(1);
    plain.say(r#"{"op":"ping"}"#);
    assert!(plain.hear().contains("--tls-ca"));
    let secured = certificates.run(nodes.server(2).address(), &["status"]);
    assert!(told(&secured).contains("connect without --tls and --tls-ca"), "{}", told(&secured));
}

/// First every node trusts both authorities, then every node gets its new certificate, then the old
/// authority is forgotten. Each write uses a new connection.
fn a_whole_new_authority_is_rolled_out_without_a_failed_write(runtime: Runtime) {
    let (certificates, new) = (Certificates::new("tea"), Certificates::new("tea"));
    let old = Certificates::new("unused");
    for name in ["peers-ca.pem", "clients-ca.pem", "node1.pem", "node1.key", "teller.pem", "teller.key"] {
        old.replace(name, &[&certificates.path(name)]);
    }
    let nodes = protected(runtime, &certificates);
    let ids = [1, 2, 3];
    let mut written = 0;
    let mut write = |certificates: &Certificates| {
        for id in ids {
            written += 1;
            put(certificates, nodes.server(id).address(), &written.to_string());
        }
    };
    until("there is a leader", || {
        certificates.run(nodes.server(1).address(), &["put", "a", "0"]).status.success()
    });
    let looks = |id| {
        let said = nodes.server(id).stderr();
        said.matches("new connections use them").count() + said.matches("have not changed").count()
    };
    let reload = || {
        // The server may be reading the files already, so only the second look is a new one.
        for id in ids.into_iter().flat_map(|id| [id; 2]) {
            let before = looks(id);
            signal(nodes.server(id).pid(), "HUP");
            until("the files are read", || looks(id) > before);
        }
    };
    write(&certificates);
    for name in ["peers-ca.pem", "clients-ca.pem"] {
        certificates.replace(name, &[&old.path(name), &new.path(name)]);
    }
    reload();
    write(&old);
    // A certificate without its key is not used, and changes nothing.
    certificates.replace("node1.pem", &[&new.path("node1.pem")]);
    signal(nodes.server(1).pid(), "HUP");
    until("the mistake is reported", || nodes.server(1).stderr().contains("stay in use"));
    write(&certificates);
    certificates.replace("node1.key", &[&new.path("node1.key")]);
    for id in ids {
        for ending in ["key", "pem"] {
            let name = format!("node{id}-peer.{ending}");
            certificates.replace(&name, &[&new.path(&name)]);
        }
    }
    reload();
    write(&certificates);
    write(&new);
    for name in ["peers-ca.pem", "clients-ca.pem"] {
        certificates.replace(name, &[&new.path(name)]);
    }
    reload();
    write(&new);
    let refused = old.run(nodes.server(1).address(), &["put", "a", "old"]);
    assert_eq!(refused.status.code(), Some(7), "{}", told(&refused));
}

/// Without TLS and without the flag that accepts it, an address that other machines can reach is
/// refused with the ways out, before anything is created.
#[test]
fn an_open_port_that_other_machines_can_reach_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("data");
    let open = Setup::in_folder(Runtime::Smol, &folder).with("--listen 0.0.0.0:0").fail();
    let ways = ["127.0.0.1", "--token-file", "--tls-ca", "coracle cert", "--insecure"];
    assert!(ways.iter().all(|way| open.stderr.contains(way)), "{}", open.stderr);
    let node = Setup::node(Runtime::Smol, 1, &folder);
    let members = "1=10.1.2.3:4001,2=10.1.2.4:4001,3=10.1.2.5:4001";
    let node = node.with(&format!("--peers {members}")).fail();
    assert!(node.stderr.contains("--peer-cert"), "{}", node.stderr);
    assert_eq!((open.code, node.code, folder.exists()), (Some(2), Some(2), false));
    let accepted = Setup::in_memory(Runtime::Smol).with("--listen 0.0.0.0:0 --insecure").start();
    let accepted = accepted.stop();
    assert!(accepted.code == Some(0) && !accepted.stderr.contains("--tls-ca"), "{}", accepted.stderr);
}

/// A node learns its address from the cluster that it joins, or from its data folder.
fn an_address_that_is_learnt_later_is_refused_as_well(runtime: Runtime) {
    let mut nodes = Nodes::start(&[runtime]);
    let elsewhere = "192.0.2.1:4009";
    let add = |id: u64| format!(r#"{{"op":"member_add","node":{id},"address":"{elsewhere}"}}"#);
    assert_eq!(nodes.connect(1).ask(&add(2))["status"], "ok");
    let place = tempfile::tempdir().unwrap();
    let joiner = Setup::node(runtime, 2, place.path()).with(&format!("--join {}", nodes.peer_address(1)));
    let refused = joiner.fail();
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(
        refused.stderr.contains(elsewhere) && refused.stderr.contains("--insecure"),
        "{}",
        refused.stderr
    );
    assert_eq!(nodes.connect(1).ask(r#"{"op":"member_remove","node":2}"#)["status"], "ok");
    assert_eq!(nodes.connect(1).ask(&add(1))["status"], "ok");
    nodes.stop(1);
    let refused = Setup::node(runtime, 1, &nodes.folder(1)).fail();
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(
        refused.stderr.contains(elsewhere) && refused.stderr.contains("--insecure"),
        "{}",
        refused.stderr
    );
}

#[test]
fn a_key_that_others_can_read_is_refused_with_the_command_that_mends_it() {
    let certificates = Certificates::new("tea");
    let key = certificates.path("node1.key");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(&key, mode).unwrap();
    let refused = Setup::in_memory(Runtime::Smol).with(&certificates.client_port()).fail();
    assert_eq!(refused.code, Some(6));
    assert!(refused.stderr.contains(&format!("chmod 600 {}", key.display())), "{}", refused.stderr);
}
