//! Disk failures: the affected node stops with a clear message, the majority continues, and no
//! acknowledged write is lost.

use std::path::{Path, PathBuf};

use coracle_tests::both_runtimes;
use coracle_tests::live::{LogFile, Runtime, Setup, Writers, until};

use crate::tracing::Tracer;

/// The calls that fail, with their errors: a sync that reports an I/O error, and a write to a full
/// disk.
const FAULTS: [(&str, &str); 2] = [("fdatasync", "EIO"), ("write", "ENOSPC")];
/// The number of the first call that fails, counted per thread that does disk work. Arbitrary: late
/// enough that the cluster has worked before.
const WORKS_BEFORE: usize = 12;

/// A server in which the fault strikes the nodes `nodes` after a while.
fn setup_with_fault(runtime: Runtime, folder: &Path, (call, error): (&str, &str), nodes: &[usize]) -> Setup {
    let data = folder.join("data");
    let logs: Vec<PathBuf> = nodes.iter().map(|node| data.join(format!("log{node:02}.txt"))).collect();
    let tracer = Tracer::new(folder.join("trace")).failing(call, error, WORKS_BEFORE, &logs);
    Setup::in_folder(runtime, &data).with("--election-timeout 300ms..600ms").under(tracer.words())
}

/// The disk of one node fails, perhaps the leader's: the other nodes continue, and the message
/// names the node and the file.
fn one_failed_disk_stops_one_node(runtime: Runtime) {
    if !Tracer::can_inject() {
        return;
    }
    for fault in FAULTS {
        let folder = tempfile::tempdir().expect("there is room for a folder");
        let server = setup_with_fault(runtime, folder.path(), fault, &[2]).start();
        let mut writers = Writers::new();
        until("the disk has failed", || {
            writers.load(&server, 20);
            assert_eq!(writers.look_for_losses(&server), 0, "{fault:?}");
            server.stderr().contains("stopped after a disk failure")
        });
        let stderr = server.stderr();
        let told =
            stderr.lines().find(|line| line.contains("stopped after a disk failure")).expect("it was told");
        for word in ["error", "node 2", "log02.txt"] {
            assert!(told.contains(word), "{word} is missing in {told}");
        }
        let before = writers.acknowledged();
        writers.load(&server, 20);
        assert!(writers.acknowledged() >= before + 8 * 20, "the majority does not go on");
        let status = server.connect().ask(r#"{"op":"status"}"#);
        let roles = status["nodes"].as_array().expect("a status has nodes").iter().map(|node| &node["role"]);
        assert_eq!(roles.clone().filter(|role| *role == "leader").count(), 1, "{status}");
        assert_eq!(roles.clone().position(|role| role == "stopped"), Some(2), "{status}");
        server.stop();
        check_after_repair(runtime, folder.path(), &mut writers);
    }
}

/// Without a majority, nothing more can be acknowledged: the process ends with exit code 6 and the
/// reason. Once the disks work again, every acknowledged write is there.
fn a_lost_majority_ends_the_process(runtime: Runtime) {
    if !Tracer::can_inject() {
        return;
    }
    for fault in FAULTS {
        let folder = tempfile::tempdir().expect("there is room for a folder");
        let mut server = setup_with_fault(runtime, folder.path(), fault, &[0, 1, 3]).start();
        let mut writers = Writers::new();
        until("the process has ended", || {
            writers.load(&server, 1000);
            server.has_ended()
        });
        let ended = server.wait();
        assert_eq!(ended.code, Some(6), "{}", ended.stderr);
        for word in ["majority", "disk", "log00.txt", "log01.txt", "log03.txt"] {
            assert!(ended.stderr.contains(word), "{word} is missing in {}", ended.stderr);
        }
        assert!(writers.acknowledged() > 0);
        check_after_repair(runtime, folder.path(), &mut writers);
    }
}

fn check_after_repair(runtime: Runtime, folder: &Path, writers: &mut Writers) {
    let data = folder.join("data");
    let server = Setup::in_folder(runtime, &data).start();
    assert_eq!(writers.look_for_losses(&server), 0);
    let _ = server.settle();
    server.stop();
    let logs = LogFile::read_all(&data, 5);
    assert!(logs.iter().all(|log| log.lines == logs[0].lines));
}

both_runtimes!(one_failed_disk_stops_one_node, a_lost_majority_ends_the_process);
