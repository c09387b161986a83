//! TCP keepalive: the operating system detects that the other end of a connection has vanished
//! without closing it.

use std::fs;
use std::net::SocketAddr;

use coracle_tests::both_runtimes;
use coracle_tests::live::{Nodes, Runtime, Setup, until};

/// Returns the number of established connections at this local address, and how many of them have a
/// keepalive timer, as the kernel lists them.
fn established(at: SocketAddr) -> (usize, usize) {
    let table = fs::read_to_string("/proc/net/tcp").expect("the kernel lists its connections");
    let SocketAddr::V4(at) = at else { panic!("{at} is of another table") };
    let local = format!("{:08X}:{:04X}", u32::from_ne_bytes(at.ip().octets()), at.port());
    let fields = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    // The fields are `sl local remote state queues timer`. State 1 is "established", and a timer of
    // kind 2 is that of keepalive.
    let here = fields.filter(|field| field.len() > 5 && field[1] == local && field[3] == "01");
    let watched: Vec<bool> = here.map(|field| field[5].starts_with("02:")).collect();
    (watched.len(), watched.iter().filter(|is_watched| **is_watched).count())
}

fn a_silent_client_is_looked_for(runtime: Runtime) {
    let server = Setup::in_memory(runtime).with("--idle-timeout 0").start();
    let mut talk = server.connect();
    talk.exchange(r#"{"op":"ping"}"#, r#"{"status":"ok"}"#);
    until("its connection has a keepalive timer", || established(server.address()) == (1, 1));
    server.stop();
}

fn nodes_look_for_those_that_dialled(runtime: Runtime) {
    let nodes = Nodes::start(&[runtime; 2]);
    for id in nodes.running() {
        let address: SocketAddr = nodes.peer_address(id).parse().expect("it is an address");
        // A connection has another timer while a segment waits for its acknowledgement.
        until("the connection of the other node has a keepalive timer", || {
            let (connections, watched) = established(address);
            connections >= 1 && watched == connections
        });
    }
}

both_runtimes!(a_silent_client_is_looked_for, nodes_look_for_those_that_dialled);
