//! Crashes by SIGKILL: a kill at any moment loses no acknowledged write.

use coracle_tests::both_runtimes;
use coracle_tests::live::{Campaign, LogFile, Runtime, Setup};

use crate::tracing::Tracer;

/// A server that is killed under load, during a start or right after one comes back with every
/// acknowledged write, and with none that no client sent.
///
/// `cargo run --release -p coracle-tests --bin kill` does the same for longer.
fn a_killed_server_keeps_what_it_acknowledged(runtime: Runtime) {
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let campaign = Campaign { runtime, cycles: 5, seed: fastrand::u64(..), flags: String::new() };
    let summary = campaign.run(folder.path());
    assert_eq!(summary.lost, 0, "{campaign:?}: {summary:?}");
    // The check would prove nothing if hardly anything were acknowledged.
    assert!(summary.acknowledged > 100, "{campaign:?}: {summary:?}");
}

/// When the bootstrap of a cluster is killed at any step that changes the folder, the next start
/// can bootstrap it.
fn founding_may_be_killed_at_every_step(runtime: Runtime) {
    const CALLS: &str = "fsync,fdatasync,rename";
    if !Tracer::can_inject() {
        return;
    }
    let mut steps = 0;
    loop {
        let folder = tempfile::tempdir().expect("there is room for a folder");
        let data = folder.path().join("data");
        let setup = Setup::in_folder(runtime, &data).with("--nodes 3 --election-timeout 10h..20h");
        let tracer = Tracer::new(folder.path().join("trace")).killing(CALLS, steps + 1);
        let mut server = setup.clone().under(tracer.words()).launch();
        let was_killed = !server.becomes_ready();
        drop(server);
        steps += 1;
        let server = setup.with("--election-timeout 100ms..200ms").start();
        assert_eq!(
            server.connect().ask(r#"{"key":"a","value":1}"#)["status"],
            "ok",
            "killed at step {steps}"
        );
        server.stop();
        let _ = LogFile::read_all(&data, 3);
        if !was_killed {
            break;
        }
    }
    assert!(steps > 5, "the founding was never killed");
}

both_runtimes!(a_killed_server_keeps_what_it_acknowledged, founding_may_be_killed_at_every_step);
