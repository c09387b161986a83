//! Backup and restore with the real program: a backup holds everything that was acknowledged before
//! it began, and a restore brings it back.

use std::fs;
use std::path::Path;

use coracle_tests::both_runtimes;
use coracle_tests::live::{Ended, Runtime, Setup, Talk};
use serde_json::Value;

use crate::shell::Shell;

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Puts these numbers, pipelined, and waits for all replies.
fn put(talk: &mut Talk, numbers: std::ops::Range<u64>) {
    let lines: String =
        numbers.clone().map(|number| format!("{{\"key\":\"k{number:05}\",\"value\":{number}}}\n")).collect();
    talk.send(lines);
    for _ in numbers {
        assert_eq!(talk.hear_json()["status"], "ok");
    }
}

/// Returns all keys and values, as `scan` lists them.
fn scan(shell: &Shell) -> String {
    let ended = shell.run(&["scan"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended.stdout
}

#[track_caller]
fn succeed(ended: &Ended) {
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{}", ended.stdout);
}

/// A backup that is made while clients write and snapshots follow one another holds everything that
/// was acknowledged before it began: values of every kind, and the sessions, so that a write that
/// is retried after the restore is not applied again.
fn everything_acknowledged_comes_back(runtime: Runtime) {
    let place = tempfile::tempdir().expect("there is room for a folder");
    let (data, backup, restored) =
        (place.path().join("data"), place.path().join("backup.txt"), place.path().join("restored"));
    let server = Setup::in_folder(runtime, &data).with("--nodes 3 --snapshot-entries 500").start();
    let shell = Shell::of(&server);
    put(&mut server.connect(), 0..3_000);
    let mut talk = server.connect();
    // Each value fills a part of the backup, and would double in size if its quotes were escaped
    // again.
    let large = format!("\"{}\"", "\\\"".repeat(200_000));
    for key in ["large1", "large2"] {
        assert_eq!(talk.ask(&format!("{{\"key\":\"{key}\",\"value\":{large}}}"))["status"], "ok");
    }
    let write = r#"{"op":"cas","key":"once","expect":null,"value":1,"session":{"client":"till-7","seq":1}}"#;
    assert_eq!(talk.ask(write)["status"], "ok");
    assert_eq!(talk.ask(r#"{"op":"delete","key":"once"}"#)["status"], "ok");

    let is_done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut talk = server.connect();
            let mut next = 100_000;
            while !is_done.load(std::sync::atomic::Ordering::Relaxed) {
                put(&mut talk, next..next + 500);
                next = 100_000 + (next + 500) % 5_000;
            }
        });
        let ended = shell.run(&["backup", &text(&backup)]);
        is_done.store(true, std::sync::atomic::Ordering::Relaxed);
        succeed(&ended);
    });
    server.stop();
    succeed(&shell.run(&["log", "verify", &text(&backup)]));
    let content = fs::read_to_string(&backup).expect("the backup is text");
    let from_stdin = place.path().join("from stdin");
    succeed(
        &shell.run_with_input(&["restore", "-", "--data-dir", &text(&from_stdin), "--nodes", "3"], &content),
    );
    assert!(!place.path().join("backup.txt.tmp").exists());

    succeed(&shell.run(&["restore", &text(&backup), "--data-dir", &text(&restored), "--nodes", "3"]));
    let server = Setup::in_folder(runtime, &restored).with("--nodes 3").start();
    let mut talk = server.connect();
    for number in (0..3_000).step_by(7) {
        let found = talk
            .ask(&format!("{{\"op\":\"get\",\"key\":\"k{number:05}\",\"consistency\":\"linearizable\"}}"));
        assert_eq!(found["value"].as_u64(), Some(number), "{found}");
    }
    for key in ["large1", "large2"] {
        talk.say(&format!("{{\"op\":\"get\",\"key\":\"{key}\",\"consistency\":\"linearizable\"}}"));
        assert_eq!(talk.hear(), format!("{{\"key\":\"{key}\",\"value\":{large},\"status\":\"ok\"}}"));
    }
    assert_eq!(talk.ask(write)["status"], "ok", "it is the first outcome");
    let once = talk.ask(r#"{"op":"get","key":"once","consistency":"linearizable"}"#);
    assert_eq!(once["error"], "not_found", "a write of a session that was done is not done again");
    put(&mut talk, 0..10);
    server.stop();
}

/// Without writes meanwhile, the restored cluster holds exactly the data of the original, and so
/// does a backup of the restored one.
fn a_restored_cluster_is_the_same_and_goes_on(runtime: Runtime) {
    let place = tempfile::tempdir().expect("there is room for a folder");
    let path = |name: &str| text(&place.path().join(name));
    let server = Setup::in_memory(runtime).start();
    let shell = Shell::of(&server);
    put(&mut server.connect(), 0..200);
    let _ = server.settle();
    let before = scan(&shell);
    succeed(&shell.run(&["backup", &path("first.txt")]));
    // A backup to stdout is the same.
    let on_stdout = shell.run(&["backup", "-"]);
    succeed(&on_stdout);
    assert_eq!(
        on_stdout.stdout,
        fs::read_to_string(place.path().join("first.txt")).expect("a backup is text")
    );
    server.stop();

    let restored = shell.run(&["restore", &path("first.txt"), "--data-dir", &path("data"), "-o", "json"]);
    succeed(&restored);
    let report: Value = serde_json::from_str(&restored.stdout).expect("JSON");
    assert_eq!((report["keys"].as_u64(), report["nodes"].as_u64()), (Some(200), Some(5)));
    let setup = Setup::in_folder(runtime, &place.path().join("data"));
    let server = setup.start();
    let _ = server.settle();
    let shell = Shell::of(&server);
    assert_eq!(scan(&shell), before);
    put(&mut server.connect(), 200..210);
    server.kill();
    let server = setup.start();
    let shell = Shell::of(&server);
    assert_eq!(shell.run(&["get", "k00209", "--linearizable"]).stdout, "209\n");
    succeed(&shell.run(&["backup", &path("second.txt")]));
    let content = |name: &str| -> Vec<String> {
        let text = fs::read_to_string(place.path().join(name)).expect("a backup is text");
        text.lines().filter(|line| line.starts_with("{\"key\"")).map(str::to_owned).collect()
    };
    assert_eq!(content("second.txt")[..200], content("first.txt"));
    server.stop();
}

/// Backup and restore overwrite nothing, and a restore detects damage before it creates anything.
#[test]
fn nothing_is_overwritten_and_damage_is_refused() {
    let place = tempfile::tempdir().expect("there is room for a folder");
    let path = |name: &str| text(&place.path().join(name));
    let server = Setup::in_memory(Runtime::Smol).with("--nodes 3").start();
    let shell = Shell::of(&server);
    shell.expect(&["put", "a", "1"], 0, "ok\n");
    fs::write(place.path().join("backup.txt"), "precious").expect("a file can be written");
    let ended = shell.expect(&["backup", &path("backup.txt")], 2, "");
    assert!(ended.stderr.contains("--force"), "{}", ended.stderr);
    assert_eq!(fs::read_to_string(place.path().join("backup.txt")).expect("text"), "precious");
    succeed(&shell.run(&["backup", &path("backup.txt"), "--force"]));
    shell.expect(&["backup", &path("no/such/folder.txt")], 6, "");
    server.stop();
    shell.expect(&["backup", &path("other.txt")], 3, "");
    assert!(!place.path().join("other.txt").exists() && !place.path().join("other.txt.tmp").exists());

    let backup = fs::read_to_string(place.path().join("backup.txt")).expect("text");
    fs::write(place.path().join("bad.txt"), backup.replacen("\"value\":\"1\"", "\"value\":\"2\"", 1))
        .expect("written");
    shell.expect(&["restore", &path("bad.txt"), "--data-dir", &path("data")], 6, "");
    assert!(!place.path().join("data").exists(), "nothing was made");
    succeed(&shell.run(&["restore", &path("backup.txt"), "--data-dir", &path("data"), "--nodes", "3"]));
    let ended = shell.expect(&["restore", &path("backup.txt"), "--data-dir", &path("data")], 2, "");
    assert!(ended.stderr.contains("belongs to a node"), "{}", ended.stderr);
    // An interrupted restore does not start as a cluster, neither as an empty one nor as half of
    // one.
    fs::remove_file(place.path().join("data/meta2.txt")).expect("it is there");
    let ended = Setup::in_folder(Runtime::Smol, &place.path().join("data")).with("--nodes 3").fail();
    assert_eq!(ended.code, Some(6), "{}", ended.stderr);
    assert!(ended.stderr.contains("meta2.txt is missing"), "{}", ended.stderr);
}

both_runtimes!(everything_acknowledged_comes_back, a_restored_cluster_is_the_same_and_goes_on);
