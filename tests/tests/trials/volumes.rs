//! A volume that is not mounted: its folder exists and is empty.

use coracle_tests::both_runtimes;
use coracle_tests::live::{Runtime, Setup};

use crate::disks::Disk;
use crate::skipped;

/// A start on an empty folder looks like a first start. The server logs that it bootstraps a
/// cluster, and in which folder; with `--require-cluster` it refuses to start. Neither loses data.
fn a_missing_volume_is_told_or_refused(runtime: Runtime) {
    let Some(disk) = Disk::in_file(64 << 20) else {
        return skipped("a_missing_volume_is_told_or_refused", "this process may mount no file system");
    };
    let folder = disk.path().join("data");
    let setup = Setup::in_folder(runtime, &folder);
    let server = setup.start();
    assert_eq!(server.connect().ask(r#"{"key":"a","value":1}"#)["status"], "ok");
    server.stop();
    disk.unmount();

    let refused = setup.clone().with("--require-cluster").fail();
    assert_eq!(refused.code, Some(6), "{}", refused.stderr);
    let named = |stderr: &str| stderr.contains(&folder.display().to_string()) && stderr.contains("mounted?");
    assert!(named(&refused.stderr), "{}", refused.stderr);
    assert!(!folder.exists(), "a refusal leaves nothing behind");

    let told = setup.start().stop();
    let warning = told.stderr.lines().find(|line| line.contains(" warn ") && named(line));
    assert!(warning.is_some(), "{}", told.stderr);

    assert!(disk.mount_again());
    let server = setup.with("--require-cluster").start();
    let found = server.connect().ask(r#"{"op":"get","key":"a","consistency":"linearizable"}"#);
    assert_eq!(found["value"], 1, "{found}");
    server.stop();
}

both_runtimes!(a_missing_volume_is_told_or_refused);
