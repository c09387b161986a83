//! Symbolic links in a data folder or at the path of a backup: nothing is written through them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use coracle_tests::both_runtimes;
use coracle_tests::live::{Runtime, Setup};

use crate::shell::Shell;

/// Creates a file outside of the folder, which must not change.
fn precious(place: &Path) -> std::path::PathBuf {
    let file = place.join("precious");
    fs::write(&file, "precious").expect("there is room for a file");
    file
}

fn check_that_it_is_unchanged(file: &Path) {
    assert_eq!(fs::read_to_string(file).expect("it is text"), "precious");
}

/// Links with the names of temporary files are removed, like the leftovers of a crash, at a start
/// and while the server runs.
fn a_temporary_file_is_not_written_through_a_link(runtime: Runtime) {
    let place = tempfile::tempdir().expect("there is room for a folder");
    let folder = place.path().join("data");
    let file = precious(place.path());
    let setup = Setup::in_folder(runtime, &folder).with("--nodes 1 --snapshot-entries 20");
    let server = setup.start();
    server.connect().exchange(r#"{"key":"k","value":0}"#, r#"{"key":"k","value":0,"status":"ok"}"#);
    server.stop();
    let temporary = ["meta0.txt.tmp", "snap0.txt.tmp", "log00.txt.tmp"].map(|name| folder.join(name));
    temporary.iter().for_each(|link| symlink(&file, link).expect("a link can be made"));
    let server = setup.start();
    let mut talk = server.connect();
    check_that_it_is_unchanged(&file);
    temporary.iter().for_each(|link| drop(symlink(&file, link)));
    for number in 0..100 {
        assert_eq!(talk.ask(&format!("{{\"key\":\"k\",\"value\":{number}}}"))["status"], "ok");
    }
    let _ = server.settle();
    server.stop();
    check_that_it_is_unchanged(&file);
    let snapshot = fs::symlink_metadata(folder.join("snap0.txt")).expect("a snapshot was taken");
    assert!(snapshot.is_file());
    setup.start().stop();
}

/// The lock file is truncated and written to, so a link in its place is rejected by name.
fn a_lock_file_that_is_a_link_is_refused(runtime: Runtime) {
    let place = tempfile::tempdir().expect("there is room for a folder");
    let file = precious(place.path());
    let folder = place.path().join("data");
    fs::create_dir(&folder).expect("there is room for a folder");
    symlink(&file, folder.join("LOCK")).expect("a link can be made");
    let ended = Setup::in_folder(runtime, &folder).fail();
    assert_eq!(ended.code, Some(6), "{}", ended.stderr);
    assert!(ended.stderr.contains("LOCK is a symbolic link"), "{}", ended.stderr);
    check_that_it_is_unchanged(&file);
}

/// A backup that replaces a link replaces the link itself, not the file that it points to.
fn a_backup_is_not_written_through_a_link(runtime: Runtime) {
    let place = tempfile::tempdir().expect("there is room for a folder");
    let file = precious(place.path());
    let backup = place.path().join("backup.txt");
    symlink(&file, &backup).expect("a link can be made");
    let server = Setup::in_folder(runtime, &place.path().join("data")).with("--nodes 1").start();
    let shell = Shell::of(&server);
    let name = backup.display().to_string();
    let ended = shell.expect(&["backup", &name], 2, "");
    assert!(ended.stderr.contains("--force"), "{}", ended.stderr);
    let ended = shell.run(&["backup", &name, "--force"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(fs::symlink_metadata(&backup).expect("it is there").is_file());
    check_that_it_is_unchanged(&file);
}

both_runtimes!(
    a_temporary_file_is_not_written_through_a_link,
    a_lock_file_that_is_a_link_is_refused,
    a_backup_is_not_written_through_a_link,
);
