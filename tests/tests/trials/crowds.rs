//! Crowds of connections: scanners at the ports for nodes, and thousands of clients at once.

use std::collections::VecDeque;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use coracle_tests::both_runtimes;
use coracle_tests::live::{Nodes, Runtime, Setup, Talk, signal, until};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::skipped;

/// The number of clients that connect at once.
const BURST: usize = 2000;
/// The number of connections that a scanner holds.
const SCANNED: usize = 200;

/// Lets this process have this many files open. Returns whether that is possible.
fn may_have_open(files: u64) -> bool {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    current.is_none_or(|current| current >= files)
        || setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok()
            && maximum.is_none_or(|maximum| maximum >= files)
}

/// Connects to this port again and again, sends nothing, and closes each connection after a while.
fn scan_port(address: SocketAddr, is_over: &AtomicBool) {
    let mut held = VecDeque::new();
    while !is_over.load(Ordering::Relaxed) {
        held.extend(TcpStream::connect(address));
        if held.len() > SCANNED {
            held.pop_front();
        }
        std::thread::sleep(Duration::from_micros(500));
    }
}

/// A restarted node rejoins while the ports for nodes are scanned, and not only afterwards.
fn a_scan_keeps_no_node_out(runtime: Runtime) {
    if !may_have_open(2000) {
        return skipped("a_scan_keeps_no_node_out", "this process may not have enough files open");
    }
    let mut nodes = Nodes::start(&[runtime; 3]);
    nodes.kill(3);
    let ports: Vec<SocketAddr> =
        (1..=3).map(|id| nodes.peer_address(id).parse().expect("it is an address")).collect();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Ends the scan also when a check fails.
        let _end = OnDrop(|| is_over.store(true, Ordering::Relaxed));
        for port in &ports {
            scope.spawn(|| scan_port(*port, &is_over));
        }
        nodes.restart(3);
        nodes.settle();
        let mut talk = nodes.connect(3);
        assert_eq!(talk.ask(r#"{"key":"a","value":1}"#)["status"], "ok");
    });
}

pub(crate) struct OnDrop<F: Fn()>(pub(crate) F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Two thousand clients connect while the server process is stopped, as if it were busy: all are
/// connected at once, and all are served.
fn a_burst_of_clients_waits_its_turn(runtime: Runtime) {
    let name = "a_burst_of_clients_waits_its_turn";
    if !may_have_open(BURST as u64 + 500) {
        return skipped(name, "this process may not have enough files open");
    }
    let most = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap_or_default();
    if !most.trim().parse::<usize>().is_ok_and(|most| most > BURST) {
        return skipped(name, "net.core.somaxconn lets fewer connections wait");
    }
    let server = Setup::in_memory(runtime).with("--election-timeout 2s..3s").start();
    let mut first = server.connect();
    assert_eq!(first.ask(r#"{"key":"a","value":1}"#)["status"], "ok");
    signal(server.pid(), "STOP");
    let address = server.address();
    // A connection that finds no place in the queue is answered a second later at the earliest.
    let crowd: Result<Vec<_>, _> =
        (0..BURST).map(|_| TcpStream::connect_timeout(&address, Duration::from_millis(900))).collect();
    signal(server.pid(), "CONT");
    let crowd = crowd.expect("there is a place to wait for everybody");
    drop(first);
    for stream in crowd {
        let mut talk = Talk::over(stream).expect("it is a connection");
        talk.exchange(r#"{"op":"ping"}"#, r#"{"status":"ok"}"#);
    }
    until("the server has a leader again", || {
        server.connect().ask(r#"{"key":"a","value":2}"#)["status"] == "ok"
    });
    server.stop();
}

both_runtimes!(a_scan_keeps_no_node_out, a_burst_of_clients_waits_its_turn);
