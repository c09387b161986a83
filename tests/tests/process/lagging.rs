//! Followers that lag because their disks are slow: connections keep read-your-writes and monotonic
//! reads.

use std::path::PathBuf;
use std::thread;

use coracle_tests::both_runtimes;
use coracle_tests::live::{Runtime, Setup};
use serde_json::Value;

use crate::tracing::Tracer;

/// A server of five nodes, two of which sync slowly.
fn setup(runtime: Runtime, folder: &std::path::Path) -> Setup {
    let data = folder.join("data");
    let logs: Vec<PathBuf> = [3, 4].map(|node| data.join(format!("log{node:02}.txt"))).into();
    let tracer = Tracer::new(folder.join("trace")).slowing_syncs(150, &logs);
    Setup::in_folder(runtime, &data).with("--election-timeout 1s..2s").under(tracer.words())
}

/// With followers that lag far behind, a connection still reads its own writes, and never reads an
/// older state than it has read before.
fn a_lagging_follower_never_takes_a_connection_back(runtime: Runtime) {
    if !Tracer::can_inject() {
        return;
    }
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let server = setup(runtime, folder.path()).start();
    let mut talk = server.connect();
    assert_eq!(talk.ask(r#"{"key":"own","value":0}"#)["status"], "ok");
    thread::scope(|scope| {
        let mut load = server.connect();
        scope.spawn(move || {
            let filler = "x".repeat(4 << 10);
            // More than can be in flight to a follower.
            for number in 0..1500 {
                load.say(&format!(r#"{{"key":"load-{number}","value":"{filler}"}}"#));
            }
            for _ in 0..1500 {
                assert_eq!(load.hear_json()["status"], "ok");
            }
        });
        let mut reader = server.connect();
        let mut seen = 0;
        for round in 1..=60_u64 {
            let stored = format!(r#"{{"key":"own","value":{round},"status":"ok"}}"#);
            talk.exchange(&format!(r#"{{"key":"own","value":{round}}}"#), &stored);
            for _ in 0..3 {
                talk.exchange(r#"{"key":"own"}"#, &stored);
                let now = reader.ask(r#"{"key":"own"}"#);
                let now = now.get("value").and_then(Value::as_u64).unwrap_or(0);
                assert!(now >= seen, "{seen} was read before {now}");
                seen = now;
            }
        }
    });
    server.stop();
}

both_runtimes!(a_lagging_follower_never_takes_a_connection_back);
