//! Expiry: a key lives its time over restarts and changes of the leader, and not much longer.

use coracle_core::kv::{Command, Key, Ttl, Value};
use coracle_core::raft::{LogIndex, NodeId, Restored, Role};
use coracle_core::{ReplicaLimits, Request};
use coracle_tests::scenario::{Cluster, Limited, Limits};

struct Current;

impl Limits for Current {
    fn limits() -> ReplicaLimits {
        ReplicaLimits::default()
    }
}

type Upgraded = Cluster<Limited<Current>>;

fn put(ttl_ms: u64) -> Request {
    let (key, value) = (Key::new("k").expect("short"), Value::from_json("1").expect("JSON"));
    let ttl = Ttl::from_ms(ttl_ms).expect("in range");
    Request::write(Command::PutExpiring { key, value, ttl })
}

/// Three replicas, of which node 1 leads and knows the level.
fn led() -> Upgraded {
    let mut cluster = Upgraded::start(vec![Restored::default(); 3], 0, |config| config);
    cluster.elect(1);
    cluster.elapse_ms(100);
    cluster
}

fn holds(cluster: &Upgraded, node: u64) -> bool {
    cluster.subject(node).0.store().value("k").is_some()
}

fn transfer(cluster: &mut Upgraded, from: u64, to: u64) {
    cluster.ask(from, Request::Transfer(NodeId(to)));
    cluster.elapse_ms(100);
    assert_eq!(cluster.role(to), Role::Leader);
}

#[test]
fn a_key_expires_on_all_nodes_by_one_entry() {
    let mut cluster = led();
    cluster.ask(1, put(500));
    cluster.elapse_ms(480);
    assert!((1..=3).all(|node| holds(&cluster, node)));
    cluster.elapse_ms(150);
    assert!((1..=3).all(|node| !holds(&cluster, node)));
    assert_eq!(cluster.subject(1).0.store(), cluster.subject(3).0.store());
}

/// An idle cluster writes nothing: one tick dates the key, and nothing follows until it expires.
#[test]
fn a_key_that_waits_costs_one_entry() {
    let mut cluster = led();
    cluster.ask(1, put(60_000));
    cluster.elapse_ms(1500);
    let end = cluster.node(1).log().last().index;
    cluster.elapse_ms(50_000);
    assert_eq!(cluster.node(1).log().last().index, end);
    assert!(holds(&cluster, 2));
    cluster.elapse_ms(10_000);
    assert!(!holds(&cluster, 2));
    assert_eq!(cluster.node(1).log().last().index, LogIndex(end.0 + 1));
}

/// A node that restarts counts neither from the beginning again nor from too late: the heartbeats
/// tell it the time since the last tick.
#[test]
fn restarts_do_not_prolong_a_life() {
    let mut cluster = led();
    cluster.ask(1, put(20_000));
    cluster.elapse_ms(15_000);
    cluster.crash(2);
    cluster.restart(2);
    cluster.elapse_ms(500);
    transfer(&mut cluster, 1, 2);
    cluster.crash(1);
    cluster.restart(1);
    cluster.elapse_ms(500);
    transfer(&mut cluster, 2, 1);
    cluster.elapse_ms(2500);
    assert!(holds(&cluster, 2), "20 seconds have not passed");
    cluster.elapse_ms(2500);
    assert!((1..=3).all(|node| !holds(&cluster, node)));
}

/// After all nodes have been down, no node knows for how long: the life is longer, never shorter.
#[test]
fn an_outage_prolongs_a_life() {
    let mut cluster = led();
    cluster.ask(1, put(5000));
    cluster.elapse_ms(2000);
    (1..=3).for_each(|node| cluster.crash(node));
    cluster.elapse_ms(60_000);
    (1..=3).for_each(|node| cluster.restart(node));
    cluster.elapse_ms(3000);
    assert!((1..=3).all(|node| holds(&cluster, node)));
    cluster.elapse_ms(8000);
    assert!((1..=3).all(|node| !holds(&cluster, node)));
}

/// A tick that a deposed leader has proposed removes nothing that was set since.
#[test]
fn a_put_beats_the_tick_of_a_deposed_leader() {
    let mut cluster = led();
    cluster.ask(1, put(1000));
    cluster.elapse_ms(300);
    cluster.isolate(1);
    cluster.elapse_ms(3000);
    let leader = cluster.leader().expect("the others have elected one");
    assert_ne!(leader, 1);
    assert!(!holds(&cluster, leader));
    cluster.ask(leader, put(60_000));
    cluster.elapse_ms(100);
    cluster.heal();
    cluster.elapse_ms(3000);
    assert!((1..=3).all(|node| holds(&cluster, node)));
}
