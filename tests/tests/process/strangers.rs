//! Attempts of strangers at both ports of servers with certificates: the table in docs/security.md,
//! row by row. Each must fail before anything beyond the handshake is read, and change nothing.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use coracle_tests::both_runtimes;
use coracle_tests::live::{Certificates, Nodes, Runtime, Server, Setup, shake_hands, until};
use coracle_tls::{Received, Session};

both_runtimes!(
    no_stranger_at_the_port_for_clients_is_read,
    a_recorded_connection_of_a_client_is_of_no_use,
    no_stranger_at_the_port_for_nodes_is_read,
    a_recorded_connection_of_a_node_is_of_no_use,
    a_stranger_that_a_node_dials_learns_nothing,
);

/// A write that a stranger tries.
const WRITE: &[u8] = b"{\"key\":\"a\",\"value\":\"stranger\"}\n";

fn noise() -> Vec<u8> {
    (0..5000_u32).map(|at| (at * at + 7).to_le_bytes()[0]).collect()
}

/// Sends bytes, ends the sending side, and returns what was answered.
fn answer(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    _ = stream.write_all(bytes);
    _ = stream.shutdown(Shutdown::Write);
    let mut heard = Vec::new();
    _ = stream.read_to_end(&mut heard);
    heard
}

/// Shakes hands, sends plaintext as soon as the session allows it, and returns the plaintext that
/// was answered. A TLS client believes that its handshake is complete before the server has seen
/// its certificate.
fn intrude(address: SocketAddr, mut session: Session, plaintext: &[u8]) -> Vec<u8> {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let (mut sealed, mut heard, mut bytes) = (Vec::new(), Vec::new(), [0; 4096]);
    if shake_hands(&stream, &mut session).is_some() {
        _ = session.seal(plaintext, &mut sealed);
        _ = (&stream).write_all(&sealed);
    }
    while let Ok(len @ 1..) = (&stream).read(&mut bytes) {
        if session.receive(&bytes[..len], |piece| heard.extend_from_slice(piece)) != Received::Open {
            break;
        }
    }
    heard
}

/// A relay that records the bytes of the dialling side. Returns its address and the recording.
fn recorder(to: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, recording) = (listener.local_addr().unwrap(), Arc::default());
    let record: Arc<Mutex<Vec<u8>>> = Arc::clone(&recording);
    thread::spawn(move || {
        for from in listener.incoming().flatten() {
            let Ok(to) = TcpStream::connect(to) else { continue };
            let (mut back_from, mut back_to) = (to.try_clone().unwrap(), from.try_clone().unwrap());
            thread::spawn(move || {
                _ = std::io::copy(&mut back_from, &mut back_to);
                _ = back_to.shutdown(Shutdown::Write);
            });
            let record = Arc::clone(&record);
            thread::spawn(move || {
                let (mut from, mut to, mut bytes) = (from, to, [0; 4096]);
                while let Ok(len @ 1..) = from.read(&mut bytes) {
                    record.lock().unwrap().extend_from_slice(&bytes[..len]);
                    if to.write_all(&bytes[..len]).is_err() {
                        break;
                    }
                }
                _ = to.shutdown(Shutdown::Write);
            });
        }
    });
    (address, recording)
}

fn value(certificates: &Certificates, address: SocketAddr) -> String {
    let found = certificates.run(address, &["get", "a", "--linearizable"]);
    String::from_utf8_lossy(&found.stdout).trim().to_owned()
}

fn last_index(certificates: &Certificates, address: SocketAddr) -> serde_json::Value {
    let status = certificates.run(address, &["status", "-o", "json"]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    status["nodes"][0]["last_log_index"].clone()
}

/// A server whose clients need certificates of the cluster `tea`.
fn server(runtime: Runtime, certificates: &Certificates, folder: &std::path::Path) -> Server {
    let flags = format!("--nodes 1 --ready-when answering {}", certificates.client_port());
    let server = Setup::in_folder(runtime, folder).with(&flags).start();
    assert!(certificates.run(server.address(), &["put", "a", "1"]).status.success());
    server
}

fn no_stranger_at_the_port_for_clients_is_read(runtime: Runtime) {
    let (certificates, foreign) = (Certificates::new("tea"), Certificates::new("tea"));
    // Another cluster whose certificates the same authority has signed.
    let cousin = Certificates::new("tea");
    cousin.make_for_cluster("sea", &certificates);
    let folder = tempfile::tempdir().unwrap();
    let server = server(runtime, &certificates, folder.path());
    let (address, before) = (server.address(), last_index(&certificates, server.address()));
    for bytes in [&noise()[..], &[&[0x16, 3, 1][..], &noise()].concat(), &[0x16; 3000], WRITE] {
        let heard = String::from_utf8_lossy(&answer(address, bytes)).into_owned();
        assert!(!heard.contains("status\":\"ok") && !heard.contains("tea"), "{heard}");
    }
    // No certificate; one of a foreign authority; one of another cluster; one of a node.
    for identity in [
        None,
        Some((&foreign, "teller")),
        Some((&cousin, "teller")),
        Some((&certificates, "node1")),
        Some((&certificates, "node1-peer")),
    ] {
        let session = certificates.caller_as(identity).call("127.0.0.1").unwrap();
        assert_eq!(intrude(address, session, WRITE), b"", "{identity:?}");
    }
    assert_eq!(last_index(&certificates, address), before, "nothing was proposed");
    assert_eq!(value(&certificates, address), "1");
    server.stop();
}

fn a_recorded_connection_of_a_client_is_of_no_use(runtime: Runtime) {
    let (certificates, folder) = (Certificates::new("tea"), tempfile::tempdir().unwrap());
    let server = server(runtime, &certificates, folder.path());
    let (relay, recording) = recorder(server.address());
    assert!(certificates.run(relay, &["incr", "count"]).status.success());
    until("it was recorded", || recording.lock().unwrap().len() > 500);
    let bytes = recording.lock().unwrap().clone();
    let before = last_index(&certificates, server.address());
    answer(server.address(), &bytes);
    assert_eq!(last_index(&certificates, server.address()), before);
    server.stop();
    let flags = format!("--nodes 1 --ready-when answering {}", certificates.client_port());
    let again = Setup::in_folder(runtime, folder.path()).with(&flags).start();
    let before = last_index(&certificates, again.address());
    answer(again.address(), &bytes);
    assert_eq!(last_index(&certificates, again.address()), before, "after a restart");
    let count = certificates.run(again.address(), &["get", "count", "--linearizable"]);
    assert_eq!(String::from_utf8_lossy(&count.stdout).trim(), "1");
    again.stop();
}

/// Two nodes with certificates, and a leader.
fn nodes(runtime: Runtime, certificates: &Certificates) -> Nodes {
    let mut nodes = Nodes::new(&[runtime; 2]);
    (1..=2).for_each(|id| nodes.launch(id, &certificates.node(id as u64)));
    (1..=2).for_each(|id| nodes.wait_until_ready(id));
    let client = nodes.server(1).address();
    until("there is a leader", || certificates.run(client, &["put", "a", "1"]).status.success());
    nodes
}

fn hello(node: u64) -> Vec<u8> {
    let incarnation = format!("{:016x}", 7);
    format!(
        "{{\"format\":\"coracle-peer\",\"version\":3,\"node\":{node},\"incarnation\":\"{incarnation}\",\
         \"to\":1,\"cluster\":null,\"configuration_index\":0,\"boot\":1,\"address\":null,\
         \"client_address\":null}}\n"
    )
    .into_bytes()
}

fn no_stranger_at_the_port_for_nodes_is_read(runtime: Runtime) {
    let (certificates, foreign) = (Certificates::new("tea"), Certificates::new("tea"));
    let cousin = Certificates::new("tea");
    cousin.make_for_cluster("sea", &certificates);
    let nodes = nodes(runtime, &certificates);
    let (client, port) = (nodes.server(1).address(), nodes.peer_address(1).parse().unwrap());
    let hello = hello(2);
    for bytes in [&noise()[..], &[0x16; 3000], &hello, b"GET / HTTP/1.1\r\n\r\n"] {
        let heard = answer(port, bytes);
        // The first message of a TLS client, and perhaps an alert.
        assert!(heard.first() == Some(&0x16) && heard.len() < 700, "{heard:?}");
    }
    // A foreign authority, another cluster of the same one, and the right cluster with a client's
    // certificate.
    for session in [
        foreign.peer_port(2).dial().unwrap(),
        cousin.peer_port(2).dial().unwrap(),
        certificates.caller_as(None).call("127.0.0.1").unwrap(),
    ] {
        assert_eq!(intrude(port, session, &hello), b"");
    }
    // Another node of the cluster states an id that is not its own.
    let heard = intrude(port, certificates.peer_port(3).dial().unwrap(), &hello);
    assert!(String::from_utf8_lossy(&heard).contains("other_certificate"), "{heard:?}");
    let members = certificates.run(client, &["member", "list"]);
    assert_eq!(String::from_utf8_lossy(&members.stdout).lines().count(), 3, "a heading and two nodes");
    assert_eq!(value(&certificates, client), "1");
}

fn a_recorded_connection_of_a_node_is_of_no_use(runtime: Runtime) {
    let certificates = Certificates::new("tea");
    let mut nodes = Nodes::new(&[runtime; 2]);
    let port: SocketAddr = nodes.peer_address(1).parse().unwrap();
    let (relay, recording) = recorder(port);
    nodes.launch(1, &certificates.node(1));
    // Node 2 reaches node 1 through the relay.
    nodes.launch_dialling(2, &certificates.node(2), (1, relay));
    (1..=2).for_each(|id| nodes.wait_until_ready(id));
    let client = nodes.server(1).address();
    until("there is a leader", || certificates.run(client, &["put", "a", "1"]).status.success());
    until("it was recorded", || recording.lock().unwrap().len() > 2000);
    let bytes = recording.lock().unwrap().clone();
    let is_refused = |nodes: &Nodes| {
        let heard = answer(port, &bytes);
        assert!(heard.first() == Some(&0x16) && heard.len() < 700, "{heard:?}");
        assert!(certificates.run(nodes.server(1).address(), &["put", "a", "2"]).status.success());
    };
    is_refused(&nodes);
    nodes.stop(1);
    nodes.launch(1, &certificates.node(1));
    nodes.wait_until_ready(1);
    let client = nodes.server(1).address();
    until("there is a leader again", || certificates.run(client, &["put", "a", "3"]).status.success());
    is_refused(&nodes);
}

/// A program that listens at the address of a member is dialled. It gets the certificate of the
/// node, and nothing of the protocol.
fn a_stranger_that_a_node_dials_learns_nothing(runtime: Runtime) {
    let (certificates, foreign) = (Certificates::new("tea"), Certificates::new("tea"));
    let mut nodes = Nodes::new(&[runtime; 2]);
    let listener = TcpListener::bind(nodes.peer_address(2)).unwrap();
    nodes.launch(1, &certificates.node(1));
    let port = foreign.peer_port(2);
    for _ in 0..2 {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut session = port.accept().unwrap();
        assert_eq!(shake_hands(&stream, &mut session), None, "the certificates do not match");
        let mut rest = Vec::new();
        _ = (&stream).read_to_end(&mut rest);
        assert_eq!(session.receive(&rest, |_| panic!("plaintext for a stranger")), Received::Broken);
    }
    until("it is reported", || nodes.server(1).stderr().contains("does not trust node 2"));
}
