//! Disks that hang: a start that waits for one reports that, and a signal still ends the process.

use coracle_tests::both_runtimes;
use coracle_tests::live::{Runtime, Setup, signal, until};

use crate::tracing::Tracer;

/// Longer than a stop may take with [`FLAGS`], so that all messages come while the disk still
/// hangs.
const HANGS_MS: u64 = 25_000;
const FLAGS: &str = "--nodes 1 --request-timeout 1s";

/// A start waits for the first sync of its metadata. It reports that, and a signal ends it.
fn a_start_whose_disk_hangs_is_told_and_ends_on_a_signal(runtime: Runtime) {
    if !Tracer::can_inject() {
        return;
    }
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let data = folder.path().join("data");
    let tracer = Tracer::new(folder.path().join("trace")).slowing_first(
        "fsync,fdatasync",
        "fsync,fdatasync",
        HANGS_MS,
    );
    let server = Setup::in_folder(runtime, &data).with(FLAGS).under(tracer.words()).launch();
    until("the long start is told", || server.stderr().contains("the start has taken 10 s so far"));
    signal(server.pid(), "TERM");
    until("the stop is given up", || server.stderr().contains("the shutdown has taken 6 s"));
    let ended = server.wait();
    assert!(ended.stdout.is_empty(), "{}", ended.stdout);
    assert_eq!(ended.code, Some(6), "{}", ended.stderr);
    Setup::in_folder(runtime, &data).with(FLAGS).start().stop();
}

both_runtimes!(a_start_whose_disk_hangs_is_told_and_ends_on_a_signal);
