//! Snapshots on disk: logs stay short, and compaction loses no acknowledged write.

use std::fs;
use std::path::Path;

use coracle_tests::both_runtimes;
use coracle_tests::live::{Campaign, LogFile, Runtime, Server, Setup, Talk, Writers, until};
use serde_json::Value;

use crate::tracing::Tracer;

/// The number of entries between snapshots: few, so that every test sees some snapshots.
const ENTRIES: u64 = 100;

/// The number of keys, which are overwritten in turn.
const KEYS: u64 = 50;

fn setup(runtime: Runtime, folder: &Path) -> Setup {
    Setup::in_folder(runtime, folder).with(&format!("--nodes 3 --snapshot-entries {ENTRIES}"))
}

/// Puts `count` numbers starting with `from`, one key after another, in windows that a connection
/// accepts.
fn put(talk: &mut Talk, from: u64, count: u64) {
    for first in (from..from + count).step_by(500) {
        let numbers = first..(from + count).min(first + 500);
        let lines: String = numbers
            .clone()
            .map(|number| format!("{{\"key\":\"k{:02}\",\"value\":{number}}}\n", number % KEYS))
            .collect();
        talk.send(lines);
        for _ in numbers {
            assert_eq!(talk.hear_json()["status"], "ok");
        }
    }
}

/// Checks that every key has the last of its numbers that are less than `end`.
fn expect_all(talk: &mut Talk, end: u64) {
    let page = talk.ask(r#"{"op":"scan","prefix":"k"}"#);
    let items = page["items"].as_array().expect("a page has items");
    assert_eq!(items.len() as u64, KEYS, "{page}");
    for (key, item) in (0..KEYS).zip(items) {
        let last = (0..end).rev().find(|number| number % KEYS == key);
        assert_eq!(item["value"].as_u64(), last, "{item}");
    }
}

fn rows(server: &Server) -> Vec<Value> {
    let status = server.connect().ask(r#"{"op":"status"}"#);
    status["nodes"].as_array().expect("a status has nodes").clone()
}

/// Returns the lines of a node's snapshot as JSON: the header, the content, the end line.
fn snapshot(folder: &Path, node: u64) -> Vec<Value> {
    let text = fs::read_to_string(folder.join(format!("snap{node}.txt"))).expect("there is a snapshot");
    assert!(text.ends_with('\n'), "{text}");
    text.lines().map(|line| serde_json::from_str(line).expect("a snapshot is JSON lines")).collect()
}

/// Checks that the logs agree where they overlap, and that all end at the same index.
fn expect_one_history(folder: &Path, nodes: usize) {
    let logs = LogFile::read_all(folder, nodes);
    let last = logs[0].last();
    assert!(logs.iter().all(|log| log.last() == last), "the logs end at different entries");
    for index in 1..=last {
        let mut lines = logs.iter().filter_map(|log| log.line(index));
        let first = lines.next();
        assert!(lines.all(|line| Some(line) == first), "different entries at {index}");
    }
}

/// However much is overwritten, a log holds little more than the entries since the last snapshot,
/// and the next start finds all data. The snapshot holds the map as readable lines between a header
/// and an end line, which identify it.
fn logs_stay_short_and_the_map_stays_whole(runtime: Runtime) {
    const PUTS: u64 = 5_000;
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let server = setup(runtime, folder.path()).start();
    put(&mut server.connect(), 0, PUTS);
    let last = server.settle();
    until("every node has a snapshot of nearly all", || {
        rows(&server).iter().all(|row| row["snapshot_index"].as_u64() > Some(last / 2))
    });
    server.stop();
    for (node, log) in (0..).zip(LogFile::read_all(folder.path(), 3)) {
        // A snapshot waits for the disk, and entries do not wait for a snapshot, so snapshots are
        // rarer than configured.
        assert!((log.lines.len() as u64) < PUTS / 2, "node {node} holds {} lines", log.lines.len());
        let lines = snapshot(folder.path(), node);
        let (first, last) = (&lines[0], &lines[lines.len() - 1]);
        assert_eq!((&first["format"], &first["node"]), (&"coracle-snapshot".into(), &node.into()));
        assert_eq!(last["format"], "coracle-snapshot-end");
        assert!(
            first["last"]["index"].as_u64() >= Some(log.after),
            "{first} behind a log after {}",
            log.after
        );
        let keys = lines.iter().filter(|line| line["key"].is_string()).count() as u64;
        assert_eq!(keys, KEYS);
    }
    let server = setup(runtime, folder.path()).start();
    expect_all(&mut server.connect(), PUTS);
    let _ = server.settle();
    server.stop();
    expect_one_history(folder.path(), 3);
}

/// Without disks, a snapshot replaces the log as well, and clients notice nothing.
fn in_memory_as_well(runtime: Runtime) {
    let server = Setup::in_memory(runtime).with(&format!("--snapshot-entries {ENTRIES}")).start();
    let mut talk = server.connect();
    put(&mut talk, 0, 2_000);
    until("every node has taken snapshots", || {
        rows(&server).iter().all(|row| row["snapshot_index"].as_u64() > Some(ENTRIES))
    });
    expect_all(&mut talk, 2_000);
    server.stop();
}

/// A server that is killed again and again under load, while snapshots are written, replace the log
/// and are read at starts, keeps every acknowledged write.
fn a_killed_server_keeps_what_it_acknowledged(runtime: Runtime) {
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let flags = format!("--snapshot-entries {ENTRIES}");
    let campaign = Campaign { runtime, cycles: 5, seed: fastrand::u64(..), flags };
    let summary = campaign.run(folder.path());
    assert_eq!(summary.lost, 0, "{campaign:?}: {summary:?}");
    assert!(summary.acknowledged > 100, "{campaign:?}: {summary:?}");
    assert!(folder.path().join("snap0.txt").exists(), "{campaign:?}: no snapshot was taken");
}

/// Copies the files of one node to another folder.
fn copy(from: &Path, to: &Path, node: u64) {
    for name in [format!("log{node:02}.txt"), format!("meta{node}.txt"), format!("snap{node}.txt")] {
        if from.join(&name).exists() {
            fs::copy(from.join(&name), to.join(&name)).expect("a file can be copied");
        }
    }
}

/// A node with old files lacks entries that no log holds any more: it installs the leader's
/// snapshot, and continues with the others.
///
/// Its term and vote are old as well, which no operator should do to a node of a live cluster. Here
/// it is harmless, because the two other nodes have decided everything.
fn a_node_with_old_files_catches_up_by_a_snapshot(runtime: Runtime) {
    let place = tempfile::tempdir().expect("there is room for a folder");
    let (data, kept) = (place.path().join("data"), place.path().join("kept"));
    fs::create_dir(&kept).expect("a folder can be made");
    let server = setup(runtime, &data).start();
    put(&mut server.connect(), 0, 300);
    let _ = server.settle();
    server.stop();
    copy(&data, &kept, 2);

    // A restart drops the entries that the others keep in memory for a follower that lags only a
    // little.
    let server = setup(runtime, &data).start();
    put(&mut server.connect(), 300, 700);
    let _ = server.settle();
    server.stop();
    let old = LogFile::read(&kept, 2).last();
    let afters: Vec<_> = LogFile::read_all(&data, 2).iter().map(|log| log.after).collect();
    assert!(
        afters.iter().all(|after| *after > old),
        "the others still have what node 2 will lack: {afters:?}"
    );
    fs::remove_file(data.join("snap2.txt")).expect("node 2 had a snapshot");
    copy(&kept, &data, 2);

    let server = setup(runtime, &data).start();
    let mut talk = server.connect();
    put(&mut talk, 1_000, 10);
    let _ = server.settle();
    expect_all(&mut talk, 1_010);
    let ended = server.stop();
    let told = "node 2: installed a snapshot up to entry ";
    assert!(ended.stderr.contains(told), "{}", ended.stderr);
    expect_one_history(&data, 3);
    let page = |node| snapshot(&data, node)[1..].iter().map(|line| line["key"].clone()).collect::<Vec<_>>();
    assert_eq!(page(2), page(0));

    let server = setup(runtime, &data).start();
    expect_all(&mut server.connect(), 1_010);
    server.stop();
}

/// A kill while a node catches up by a snapshot, or right afterwards, loses no acknowledged write,
/// and the next start finds usable files.
fn a_kill_while_a_node_catches_up_loses_nothing(runtime: Runtime) {
    let place = tempfile::tempdir().expect("there is room for a folder");
    let (data, kept) = (place.path().join("data"), place.path().join("kept"));
    fs::create_dir(&kept).expect("a folder can be made");
    let mut writers = Writers::new();
    for round in 0..4 {
        let mut server = setup(runtime, &data).start();
        if round > 0 {
            writers.load_until(&server, fastrand::u64(..300));
            drop(server.kill());
            server = setup(runtime, &data).start();
        }
        assert_eq!(writers.look_for_losses(&server), 0);
        writers.load(&server, 100);
        let _ = server.settle();
        server.stop();
        // The two other nodes have every committed entry, so the loss of node 1's newer files is
        // harmless.
        if round == 0 { copy(&data, &kept, 1) } else { copy(&kept, &data, 1) }
    }
    let server = setup(runtime, &data).start();
    assert_eq!(writers.look_for_losses(&server), 0);
    let _ = server.settle();
    let ended = server.stop();
    assert!(ended.stderr.contains("node 1: installed a snapshot up to entry "), "{}", ended.stderr);
    expect_one_history(&data, 3);
}

/// A disk that cannot write a snapshot, or cannot read it back, stops its node with a message that
/// names the file. The other nodes continue, and the next start with a working disk finds all data.
fn a_snapshot_that_fails_stops_one_node(runtime: Runtime) {
    if !Tracer::can_inject() {
        return;
    }
    for (call, error) in [("write", "EIO"), ("fsync", "EIO"), ("read", "EIO")] {
        let place = tempfile::tempdir().expect("there is room for a folder");
        let data = place.path().join("data");
        let tracer =
            Tracer::new(place.path().join("trace")).failing(call, error, 1, &[data.join("snap2.txt.tmp")]);
        let server = setup(runtime, &data).under(tracer.words()).start();
        let mut writers = Writers::new();
        until("the snapshot has failed", || {
            writers.load(&server, 20);
            // The outcome of a write that the failed node had is unknown, and has to be looked up.
            assert_eq!(writers.look_for_losses(&server), 0, "{call}");
            server.stderr().contains("stopped after a disk failure")
        });
        let stderr = server.stderr();
        let told =
            stderr.lines().find(|line| line.contains("stopped after a disk failure")).expect("it was told");
        for word in ["error", "node 2", "snap2.txt.tmp"] {
            assert!(told.contains(word), "{word} is missing in {told}");
        }
        let before = writers.acknowledged();
        writers.load(&server, 20);
        assert!(writers.acknowledged() >= before + 8 * 20, "the majority does not go on after {call}");
        server.stop();
        assert!(!data.join("snap2.txt").exists(), "what failed must not count: {call}");

        let server = setup(runtime, &data).start();
        assert_eq!(writers.look_for_losses(&server), 0);
        put(&mut server.connect(), 0, 200);
        let _ = server.settle();
        until("node 2 has a snapshot", || rows(&server)[2]["snapshot_index"].as_u64() > Some(0));
        server.stop();
        expect_one_history(&data, 3);
    }
}

/// A disk without room for a snapshot, or for the log after one, has room for entries: the node
/// continues, and retries.
fn a_snapshot_or_a_log_without_room_is_put_off(runtime: Runtime) {
    if !Tracer::can_inject() {
        return;
    }
    for (file, is_told) in [("snap2.txt.tmp", true), ("log02.txt.tmp", false)] {
        let place = tempfile::tempdir().expect("there is room for a folder");
        let data = place.path().join("data");
        let tracer =
            Tracer::new(place.path().join("trace")).failing_first("write", "ENOSPC", data.join(file));
        let server = setup(runtime, &data).under(tracer.words()).start();
        let mut writers = Writers::new();
        until("node 2 has had no room, and has a snapshot for all that", || {
            writers.load(&server, 20);
            let was_put_off =
                !is_told || server.stderr().contains("postponed a snapshot because the disk is full");
            was_put_off && rows(&server)[2]["snapshot_index"].as_u64() > Some(0)
        });
        assert!(!server.stderr().contains("stopped after a disk failure"), "{}", server.stderr());
        assert_eq!(writers.look_for_losses(&server), 0, "{file}");
        server.stop();
        assert!(!data.join(file).exists());
        expect_one_history(&data, 3);
    }
}

both_runtimes!(
    logs_stay_short_and_the_map_stays_whole,
    in_memory_as_well,
    a_killed_server_keeps_what_it_acknowledged,
    a_node_with_old_files_catches_up_by_a_snapshot,
    a_kill_while_a_node_catches_up_loses_nothing,
    a_snapshot_that_fails_stops_one_node,
    a_snapshot_or_a_log_without_room_is_put_off,
);
