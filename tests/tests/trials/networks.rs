//! Slow networks (flow control), and networks that silently drop idle connections.

use coracle_tests::both_runtimes;
use coracle_tests::live::{Nodes, Runtime, Talk, until};

use crate::machines::Network;
use crate::skipped;

/// The length of the slow network's queue in milliseconds: longer than an election timeout.
const QUEUE_MS: u64 = 3000;
/// The number of puts of each client of the slow network.
const PUTS: usize = 5;

/// Returns how often a node was elected so far.
fn elections(nodes: &Nodes) -> usize {
    let of = |id| nodes.server(id).stderr().matches("became leader").count();
    nodes.running().into_iter().map(of).sum()
}

/// Puts of 256 KiB fill a link of 20 Mbit/s and all queues before it, and the leader's heartbeats
/// still arrive in time.
fn a_slow_line_costs_no_leader(runtime: Runtime) {
    let Some(network) = Network::new(3) else {
        return skipped("a_slow_line_costs_no_leader", "this process may make no network namespaces");
    };
    if !(1..=3).all(|machine| network.slow_down(machine, "20mbit", QUEUE_MS)) {
        return skipped("a_slow_line_costs_no_leader", "the kernel has no token bucket filter");
    }
    let mut nodes = Nodes::new(&[runtime; 3]).on_machines(network.all());
    // Timeouts that are longer than by default, because this machine may be busy, and shorter than
    // the queue.
    let leader = nodes.found("--heartbeat 50ms --election-timeout 1200ms..2000ms --request-timeout 60s");
    let before = elections(&nodes);
    let value = "x".repeat(256 << 10);
    std::thread::scope(|scope| {
        for client in 0..16 {
            let (nodes, value) = (&nodes, &value);
            scope.spawn(move || {
                let mut talk = nodes.connect(leader);
                for _ in 0..PUTS {
                    let reply = talk.ask(&format!(r#"{{"key":"k{client}","value":"{value}"}}"#));
                    assert_eq!(reply["status"], "ok", "{}", reply["error"]);
                }
            });
        }
    });
    assert_eq!(elections(&nodes), before, "the leader was lost: {}", nodes.server(leader).stderr());
}

/// Followers exchange no data while there is a leader, and a firewall between them forgets their
/// connections. They detect that, and reconnect before they need the connections.
fn forgotten_connections_are_replaced_before_they_are_needed(runtime: Runtime) {
    let name = "forgotten_connections_are_replaced_before_they_are_needed";
    let Some(network) = Network::new(3) else {
        return skipped(name, "this process may make no network namespaces");
    };
    let mut nodes = Nodes::new(&[runtime; 3]).on_machines(network.all());
    let leader = nodes.found("");
    let followers: Vec<usize> = (1..=3).filter(|id| *id != leader).collect();
    let (one, other) = (followers[0], followers[1]);
    until("the followers are connected both ways", || network.connections(one, other).len() >= 2);
    let forgotten = network.connections(one, other);
    if !forgotten.iter().all(|ports| network.forget(one, other, *ports)) {
        return skipped(name, "the kernel has no routing rules by port");
    }
    until("the followers have other connections, both ways", || {
        let now = network.connections(one, other);
        now.iter().filter(|ports| !forgotten.contains(ports)).count() >= 2
    });
    let mut talks: Vec<Talk> = followers.iter().map(|id| nodes.connect(*id)).collect();
    nodes.kill(leader);
    for talk in &mut talks {
        assert_eq!(talk.ask(r#"{"key":"a","value":1}"#)["status"], "ok");
    }
}

both_runtimes!(a_slow_line_costs_no_leader, forgotten_connections_are_replaced_before_they_are_needed,);
