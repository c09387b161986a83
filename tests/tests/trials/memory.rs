//! Memory limits: the peak of a restart, and a follower that lags and catches up with little
//! memory.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use coracle_tests::both_runtimes;
use coracle_tests::live::{Group, Nodes, Runtime, Server, Setup, Talk, signal, until};

use crate::crowds::OnDrop;

/// The number of keys: enough that the program's own memory does not count.
const KEYS: usize = 40_000;
const VALUE_BYTES: usize = 1024;

fn setup(runtime: Runtime, folder: &Path, nodes: usize) -> Setup {
    Setup::in_folder(runtime, folder).with(&format!("--nodes {nodes} --sync never"))
}

fn fill(server: &Server) {
    let value = "x".repeat(VALUE_BYTES);
    let mut talk: Talk = server.connect();
    for first in (0..KEYS).step_by(200) {
        let put = |key| format!("{{\"key\":\"k{key:08}\",\"value\":\"{value}\"}}\n");
        talk.send((first..first + 200).map(put).collect::<String>());
        (0..200).for_each(|_| assert_eq!(talk.hear_json()["status"], "ok"));
    }
}

/// The most memory that a restart may use at its peak, by number of nodes, in tenths of the peak
/// before it. How much five nodes share after a start depends on how far apart they apply their
/// logs, which varies on a busy machine; without sharing, it would be three to five times as much.
const TENTHS: [(usize, u64); 2] = [(1, 13), (5, 20)];

/// The peak memory of a restart is limited by the peak of the same state before it.
fn a_restart_takes_what_running_takes(runtime: Runtime) {
    for (nodes, tenths) in TENTHS {
        let folder = tempfile::tempdir().expect("there is room for a folder");
        let server = setup(runtime, folder.path(), nodes).start();
        fill(&server);
        _ = server.settle();
        let running = server.memory_peak_bytes();
        server.stop();
        let server = setup(runtime, folder.path(), nodes).start();
        _ = server.settle();
        let last = server.connect().ask(&format!(r#"{{"key":"k{:08}"}}"#, KEYS - 1));
        assert_eq!(last["status"], "ok", "{last}");
        let restarted = server.memory_peak_bytes();
        let (running, restarted) = (running >> 20, restarted >> 20);
        assert!(
            10 * restarted <= tenths * running,
            "{nodes} nodes: {running} MiB, and {restarted} after a restart"
        );
        server.stop();
    }
}

/// The memory budget of a node, and the limit of its control group, where there is one.
const LITTLE_MEMORY: &str = "--memory-max 64MiB --sync never";
const GROUP_BYTES: u64 = 192 << 20;
/// The size of the values, and the number of clients, each of which overwrites one key: the state
/// stays small, and the log does not.
const LONG_VALUE_BYTES: usize = 16 << 10;
const WRITERS: usize = 16;
/// The number of values that are written while the follower is stopped: more than twice the budget.
const WRITTEN_MEANWHILE: u64 = 10_000;

/// Writes ascending numbers to one key until `is_over`. Returns the last acknowledged number.
fn write(address: SocketAddr, writer: usize, written: &AtomicU64, is_over: &AtomicBool) -> u64 {
    let (mut talk, padding) = (Talk::open(address), "x".repeat(LONG_VALUE_BYTES));
    let mut acknowledged = 0;
    for number in 1.. {
        let reply = talk.ask(&format!(r#"{{"key":"w{writer}","value":"{number:08}{padding}"}}"#));
        if reply["status"] == "ok" {
            acknowledged = number;
            written.fetch_add(1, Ordering::Relaxed);
        }
        if is_over.load(Ordering::Relaxed) {
            break;
        }
    }
    acknowledged
}

/// A follower that is stopped while more than the budget is written catches up afterwards, under
/// the same load: the log that is kept for it has a limit, and its transfer does not restart
/// forever. No process is killed, and no acknowledged write is lost.
fn a_stopped_follower_catches_up_with_little_memory(runtime: Runtime) {
    let mut groups = Vec::new();
    let mut nodes = Nodes::new(&[runtime; 3]);
    for id in 1..=3 {
        let group = Group::of_memory(GROUP_BYTES);
        nodes = nodes.under(group.as_ref().map(Group::tracer).unwrap_or_default());
        groups.extend(group);
        nodes.launch(id, LITTLE_MEMORY);
    }
    (1..=3).for_each(|id| nodes.wait_until_ready(id));
    let leader = nodes.leader();
    let stopped = leader % 3 + 1;
    let (address, pid) = (nodes.server(leader).address(), nodes.server(stopped).pid());
    let (written, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    let acknowledged: Vec<u64> = std::thread::scope(|scope| {
        let _end = OnDrop(|| is_over.store(true, Ordering::Relaxed));
        let (written, is_over) = (&written, &is_over);
        let start = |writer| scope.spawn(move || write(address, writer, written, is_over));
        let writers: Vec<_> = (0..WRITERS).map(start).collect();
        signal(pid, "STOP");
        until("much is written", || written.load(Ordering::Relaxed) >= WRITTEN_MEANWHILE);
        signal(pid, "CONT");
        let lag = || {
            let rows = nodes.rows(leader);
            let row = rows.iter().find(|row| row["id"] == stopped).expect("it is a member");
            row["lag"].as_u64().unwrap_or(u64::MAX)
        };
        until("the follower has caught up under load", || lag() < 200);
        is_over.store(true, Ordering::Relaxed);
        writers.into_iter().map(|writer| writer.join().expect("it writes")).collect()
    });
    nodes.settle();
    assert!(groups.iter().all(|group| group.kills() == 0), "a node was killed for want of memory");
    let mut talk = nodes.connect(stopped);
    for (writer, number) in acknowledged.into_iter().enumerate() {
        let value = talk.ask(&format!(r#"{{"op":"get","key":"w{writer}","consistency":"linearizable"}}"#));
        let found = value["value"].as_str().and_then(|value| value[..8].parse().ok());
        assert!(found >= Some(number), "{number} was acknowledged, and {found:?} is there");
    }
}

both_runtimes!(a_restart_takes_what_running_takes, a_stopped_follower_catches_up_with_little_memory);
