//! Full disks and hanging disks, on real file systems.

use coracle_tests::both_runtimes;
use coracle_tests::live::{Nodes, Runtime, Server, Setup, Talk, signal, until};

use crate::disks::Disk;
use crate::skipped;

/// The log bytes after which a snapshot is due. The state of [`KEYS`] keys is larger, so there may
/// be no room for a second snapshot beside the first one and the log.
const SNAPSHOT_BYTES: usize = 1_000_000;
const KEYS: u64 = 5000;
const VALUE_BYTES: usize = 512;
/// The number of times that all keys are overwritten: more log than any of the disks has room for
/// without snapshots.
const ROUNDS: u64 = 6;

/// Overwrites all keys with the number of the round, until the server ends or all rounds are done.
/// Returns the last round of which all writes were acknowledged.
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

/// A snapshot, the log after one, or the log itself may find no room first. Only a log without room
/// stops a node, all acknowledged writes are there, and the next start works on the same disk.
fn a_full_disk_is_survived(runtime: Runtime) {
    // A single node, and five nodes that share a disk.
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
            for line in ended.stderr.lines().filter(|line| line.contains("stopped after a disk failure: ")) {
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

/// A follower's disk is full: the other nodes continue, and the follower rejoins when there is
/// room.
fn a_full_follower_stops_nobody_else(runtime: Runtime) {
    let Some(disk) = Disk::in_memory(6 << 20) else {
        return skipped("a_full_follower_stops_nobody_else", "this process may mount no file system");
    };
    let mut nodes = Nodes::new(&[runtime; 3]);
    disk.take_the_place_of(&nodes.folder(3));
    _ = nodes.found("");
    let (mut number, value) = (0, "x".repeat(100_000));
    until("the disk is full", || {
        // Node 3 may be the leader when it ends. Node 1 forwards to the next leader.
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

/// A follower's disk hangs: the log and `status` report it, the other nodes continue, and a stop
/// does everything that needs no disk. When the disk continues, the process ends, and nothing is
/// lost.
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
    // Dropped before the nodes, so that the disk continues before they end.
    let mut disk = disk;
    if !disk.freeze() {
        return skipped(name, "this file system cannot be frozen");
    }
    for number in 0..20 {
        let put = nodes.connect(1).ask(&format!(r#"{{"key":"k{number}","value":{number}}}"#));
        assert_eq!(put["status"], "ok", "{put}");
    }
    until("it is told", || nodes.server(3).stderr().contains("its disk hangs"));
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
