//! Memory limits: clients and strangers that make a server buffer much data do not exhaust its
//! memory, and other clients are served.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use coracle_tests::both_runtimes;
use coracle_tests::floods::with_frames_without_an_end;
use coracle_tests::live::{Nodes, Runtime, Server, Setup, Talk, until};

/// The limit for another client's request meanwhile: far more than it takes, and less than a hang.
const TIMEOUT: Duration = Duration::from_secs(5);
const MIB: u64 = 1 << 20;

fn server(runtime: Runtime) -> Server {
    Setup::in_memory(runtime).with("--nodes 1 --memory-max 64MiB").start()
}

fn is_served(server: &Server, number: u64) {
    let asked = Instant::now();
    let mut talk = server.connect();
    assert_eq!(talk.ask(&format!(r#"{{"key":"other","value":{number}}}"#))["status"], "ok");
    assert_eq!(talk.ask(r#"{"op":"get","key":"other","consistency":"linearizable"}"#)["value"], number);
    assert!(asked.elapsed() < TIMEOUT);
}

/// Incomplete lines of 512 KiB, which are cheap to send and must be buffered: beyond the limit, the
/// server disconnects the clients with the oldest ones.
fn half_lines_give_way(runtime: Runtime) {
    let server = server(runtime);
    let half = [r#"{"key":"a","value":""#.as_bytes(), &[b'x'; 512 << 10]].concat();
    let mut talks: Vec<Talk> = (0..100).map(|_| server.connect()).collect();
    for (number, talk) in (0..).zip(&mut talks) {
        // A connection that the server has closed meanwhile accepts no more data.
        let _ = talk.try_send(&half);
        if number % 20 == 0 {
            is_served(&server, number);
        }
    }
    let told = talks[0].hear_json();
    assert_eq!((&told["error"], &told["definite"]), (&"busy".into(), &true.into()), "{told}");
    assert!(told["message"].as_str().is_some_and(|text| text.contains("incomplete request lines")), "{told}");
    is_served(&server, 100);
    assert!(server.memory_bytes() < 128 * MIB, "{} MiB", server.memory_bytes() / MIB);
}

/// Clients that read none of their replies, and then send half of a long line: their writers are
/// blocked, and still they keep no buffer that another client's long line needs.
fn half_lines_of_clients_that_do_not_read_give_way(runtime: Runtime) {
    let server = server(runtime);
    let put = |key: &str| format!(r#"{{"key":"{key}","value":"{}"}}"#, "x".repeat(300 << 10));
    assert_eq!(server.connect().ask(&put("long"))["status"], "ok");
    let talks: Vec<Talk> = (0..60)
        .map(|_| {
            let mut talk = server.connect();
            let gets = "{\"key\":\"long\"}\n".repeat(20);
            // A connection that the server has closed meanwhile accepts no more data.
            let _ = talk.try_send(gets.as_bytes());
            let _ = talk.try_send(&vec![b'x'; 200 << 10]);
            talk
        })
        .collect();
    let asked = Instant::now();
    for number in 0..5 {
        until("a long line is accepted", || server.connect().ask(&put("other"))["status"] == "ok");
        is_served(&server, number);
    }
    assert!(asked.elapsed() < 2 * TIMEOUT);
    assert!(server.memory_bytes() < 192 * MIB, "{} MiB", server.memory_bytes() / MIB);
    drop(talks);
}

/// Clients that request pages and read none of them do not keep others from being served.
fn readers_that_do_not_read_give_way(runtime: Runtime) {
    let server = server(runtime);
    let mut writer = server.connect();
    let value = "x".repeat(1000);
    for number in 0..3000 {
        assert_eq!(writer.ask(&format!(r#"{{"key":"k{number}","value":"{value}"}}"#))["status"], "ok");
    }
    let mut talks: Vec<Talk> = (0..200).map(|_| server.connect()).collect();
    for (number, talk) in (0..).zip(&mut talks) {
        let _ = talk.try_send(
            &br#"{"op":"scan","prefix":"k","limit":10000}
"#
            .repeat(8),
        );
        if number % 20 == 0 {
            is_served(&server, number);
        }
    }
    is_served(&server, 1000);
    assert!(server.memory_bytes() < 256 * MIB, "{} MiB", server.memory_bytes() / MIB);
}

/// A restarted node rejoins although silent strangers hold connections to the ports for nodes.
fn strangers_keep_no_member_out(runtime: Runtime) {
    let mut nodes = Nodes::start(&[runtime; 3]);
    nodes.kill(3);
    let addresses = [1, 2].map(|id| nodes.peer_address(id));
    let strangers: Vec<TcpStream> = addresses
        .iter()
        .flat_map(|address| (0..150).map(move |_| TcpStream::connect(address).expect("it listens")))
        .collect();
    let begun = Instant::now();
    nodes.restart(3);
    nodes.settle();
    assert!(begun.elapsed() < TIMEOUT, "{:?}", begun.elapsed());
    drop(strangers);
}

/// Strangers that claim to belong to the cluster and each send half of a long frame use no more
/// than their share of the memory.
fn frames_without_an_end_have_places(runtime: Runtime) {
    let mut nodes = Nodes::new(&[runtime; 3]);
    (1..=3).for_each(|id| nodes.launch(id, "--memory-max 64MiB"));
    (1..=3).for_each(|id| nodes.wait_until_ready(id));
    _ = nodes.leader();
    let peer = nodes.peer_address(1).parse().expect("it is an address");
    let strangers = with_frames_without_an_end(peer, 100);
    assert!(!strangers.is_empty(), "the first of them is listened to");
    let held_for_peers = || {
        let status = nodes.connect(1).ask(r#"{"op":"status"}"#);
        status["memory"]["peers"].as_u64().expect("it says what it holds")
    };
    until("half a frame counts", || held_for_peers() >= MIB / 2);
    assert!(held_for_peers() < 16 * MIB, "{} MiB", held_for_peers() / MIB);
    is_served(nodes.server(1), 1);
    assert!(nodes.server(1).memory_bytes() < 128 * MIB, "{} MiB", nodes.server(1).memory_bytes() / MIB);
    drop(strangers);
    until("the strangers are gone", || held_for_peers() < MIB / 2);
}

both_runtimes!(
    half_lines_give_way,
    half_lines_of_clients_that_do_not_read_give_way,
    readers_that_do_not_read_give_way,
    frames_without_an_end_have_places,
    strangers_keep_no_member_out,
);
