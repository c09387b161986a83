//! Disks that are full, and disks that hang.

use coracle_tests::both_runtimes;
use coracle_tests::live::{Nodes, Runtime, Server, Setup, Talk, signal, until};

use crate::disks::Disk;
use crate::skipped;

/// A snapshot after so much log. A state of [`KEYS`] is larger, so that a second snapshot beside
/// the first one and the log may be more than there is room for.
const SNAPSHOT_BYTES: usize = 1_000_000;
const KEYS: u64 = 5000;
const VALUE_BYTES: usize = 512;
/// Rounds over all keys: more log than any of the disks has room for without snapshots.
const ROUNDS: u64 = 6;

/// Overwrites all keys with the number of the round. Ends with the server. Returns the last round
/// all of whose writes were acknowledged.
fn overwrite(server: &Server) -> u64 {
    let Ok(mut talk) = Talk::try_open(server.address()) else { return 0 };
    for round in 1..=ROUNDS {
        let value = format!("{round:0>VALUE_BYTES$}");
        for first in (0..KEYS).step_by(100) {
            let put = |key| format!("{{\"key\":\"k{key}\",\"value\":\"{value}\"}}\n");
            let lines: String = (first..first + 100).map(put).collect();
            if talk.try_send(lines.as_bytes()).is_err() {
                return round - 1;
            }
            for _ in 0..100 {
                let reply = talk.try_hear();
                if !reply.is_ok_and(|reply| reply.ends_with(r#""status":"ok"}"#)) {
                    return round - 1;
                }
            }
        }
    }
    ROUNDS
}

/// Whatever finds no room first, a snapshot, a log behind one, or the log itself: nothing but a log
/// without room ends a node, what was acknowledged is there, and the next start works, on the same
/// disk.
fn a_full_disk_is_survived(runtime: Runtime) {
    // For a node alone, and for five nodes that share a disk.
    for (nodes, sizes) in [(1, vec![6, 7, 8, 9, 10, 12]), (5, vec![36, 48])] {
        for mib in sizes {
            let Some(disk) = Disk::in_memory(mib << 20) else {
                return skipped("a_full_disk_is_survived", "this process may mount no file system");
            };
            let folder = disk.path().join("data");
            let setup = Setup::in_folder(runtime, &folder)
                .with(&format!("--nodes {nodes} --snapshot-bytes {SNAPSHOT_BYTES}"));
            let what = format!("{nodes} nodes on {mib} MiB");
            let mut server = setup.start();
            let acknowledged = overwrite(&server);
            assert!(acknowledged > 0, "{what}: {}", server.stderr());
            let has_ended = server.has_ended();
            let ended = server.kill();
            for line in ended.stderr.lines().filter(|line| line.contains("has stopped: ")) {
                assert!(!line.contains(".txt.tmp"), "{what}: {line}");
            }
            assert!(!has_ended || ended.code == Some(6), "{what}: {ended:?}");
            let server = setup.start();
            let mut talk = server.connect();
            let put = talk.ask(r#"{"key":"k0","value":"after"}"#);
            assert_eq!(put["status"], "ok", "{what}: {put}, {}", server.stderr());
            let found = talk.ask(r#"{"op":"get","key":"k1","consistency":"linearizable"}"#);
            let round: u64 = found["value"].as_str().and_then(|value| value.parse().ok()).unwrap_or_default();
            assert!(round >= acknowledged, "{what}: {acknowledged} was acknowledged, and {found} is left");
        }
    }
}

/// A follower's disk is full: the others go on, and it comes back when there is room.
fn a_full_follower_stops_nobody_else(runtime: Runtime) {
    let Some(disk) = Disk::in_memory(6 << 20) else {
        return skipped("a_full_follower_stops_nobody_else", "this process may mount no file system");
    };
    let mut nodes = Nodes::new(&[runtime; 3]);
    disk.take_the_place_of(&nodes.folder(3));
    _ = nodes.found("");
    let (mut number, value) = (0, "x".repeat(100_000));
    until("the disk is full", || {
        // Its node may lead when it ends: the others say who does then.
        if let Ok(mut talk) = Talk::try_open(nodes.server(1).address()) {
            let lines = format!("{{\"key\":\"k{number}\",\"value\":\"{value}\"}}\n").repeat(10);
            _ = talk.try_send(lines.as_bytes());
            (0..10).for_each(|_| drop(talk.try_hear()));
            number += 1;
        }
        nodes.has_ended(3)
    });
    let ended = nodes.wait(3);
    assert_eq!(ended.code, Some(6), "{}", ended.stderr);
    assert!(ended.stderr.contains("No space left"), "{}", ended.stderr);
    until("the others go on", || nodes.connect(1).ask(r#"{"key":"a","value":1}"#)["status"] == "ok");
    disk.resize(256 << 20);
    nodes.restart(3);
    nodes.settle();
}

/// A follower's disk hangs: that is reported and shown, the others go on, and a stop is over as far
/// as this program can bring it. When the disk goes on, the process ends, and nothing is lost.
fn a_hanging_disk_is_told_and_holds_nobody(runtime: Runtime) {
    let name = "a_hanging_disk_is_told_and_holds_nobody";
    let Some(disk) = Disk::in_file(64 << 20) else {
        return skipped(name, "this process may mount no file system");
    };
    let mut nodes = Nodes::new(&[runtime; 3]);
    disk.take_the_place_of(&nodes.folder(3));
    if nodes.found("--request-timeout 2s") == 3 {
        nodes.connect(3).ask(r#"{"op":"transfer","node":1}"#);
        until("another one leads", || nodes.leader() != 3);
    }
    // It is dropped, and the disk goes on, before the nodes are.
    let mut disk = disk;
    if !disk.freeze() {
        return skipped(name, "this file system cannot be frozen");
    }
    for number in 0..20 {
        let put = nodes.connect(1).ask(&format!(r#"{{"key":"k{number}","value":{number}}}"#));
        assert_eq!(put["status"], "ok", "{put}");
    }
    until("it is told", || nodes.server(3).stderr().contains("waits for its disk"));
    until("it is shown", || {
        nodes.rows(1).iter().any(|row| row["id"] == 3 && row["disk_waiting_ms"].as_u64() > Some(1000))
    });
    signal(nodes.server(3).pid(), "TERM");
    let address = nodes.server(3).address();
    until("its port is free", || std::net::TcpListener::bind(address).is_ok());
    disk.thaw();
    let ended = nodes.wait(3);
    assert!(ended.code.is_some(), "{}", ended.stderr);
    nodes.restart(3);
    nodes.settle();
}

both_runtimes!(
    a_full_disk_is_survived,
    a_full_follower_stops_nobody_else,
    a_hanging_disk_is_told_and_holds_nobody,
);
