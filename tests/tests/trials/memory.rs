//! What a restart costs in memory.

use std::path::Path;

use coracle_tests::both_runtimes;
use coracle_tests::live::{Runtime, Server, Setup, Talk};

/// How much is stored: enough for the program's own memory not to count.
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

/// What a restart may take at its peak, in tenths of what the same state took before. What five nodes share after a start depends on
/// how far apart they apply their logs, which a busy machine decides; without sharing it would be three to five times as much.
const TENTHS: [(usize, u64); 2] = [(1, 13), (5, 20)];

/// A restart takes at its peak hardly more memory than the same state took before.
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

both_runtimes!(a_restart_takes_what_running_takes);
