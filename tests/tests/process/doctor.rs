//! `coracle doctor` on real folders and clusters, healthy and not.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use coracle_tests::both_runtimes;
use coracle_tests::live::{Certificates, Nodes, Runtime, Setup, program, until};

both_runtimes!(a_folder_is_checked, a_cluster_is_checked);

/// The exit code, and the lines.
fn doctor(words: &[&OsStr]) -> (Option<i32>, String) {
    let ran = Command::new(program()).arg("doctor").args(words).output().expect("the program starts");
    let text = String::from_utf8(ran.stdout).unwrap();
    assert!(ran.stderr.is_empty() && !text.is_empty(), "{:?}", ran.stderr);
    for line in text.lines() {
        assert!(["ok    ", "warn  ", "fail  "].iter().any(|begin| line.starts_with(begin)), "{line}");
    }
    (ran.status.code(), text)
}

fn of_folder(folder: &Path) -> (Option<i32>, String) {
    doctor(&[OsStr::new("--data-dir"), folder.as_os_str()])
}

fn has(text: &str, begin: &str, part: &str) -> bool {
    text.lines().any(|line| line.starts_with(begin) && line.contains(part))
}

fn a_folder_is_checked(runtime: Runtime) {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("data");
    let server = Setup::in_folder(runtime, &folder).with("--nodes 3").start();
    server.connect().exchange(r#"{"key":"a","value":1}"#, r#"{"key":"a","value":1,"status":"ok"}"#);
    let (code, told) = of_folder(&folder);
    assert!(code == Some(0) && has(&told, "ok    lock", "a server uses"), "{told}");
    server.stop();
    let before = names(&folder);
    let (code, told) = of_folder(&folder);
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(names(&folder), before, "nothing is left behind");
    assert!(has(&told, "ok    lock", "no server") && has(&told, "ok    permissions", ""), "{told}");
    assert!((0..3).all(|id| has(&told, "ok    files", &format!("node {id} is clean"))), "{told}");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(folder.join("snap0.txt.tmp"), "x").unwrap();
    let log = folder.join("log01.txt");
    let text = fs::read_to_string(&log).unwrap();
    fs::write(&log, text.replacen("\"index\":1", "\"index\":7", 1)).unwrap();
    let (code, told) = of_folder(&folder);
    assert_eq!(code, Some(6), "{told}");
    assert!(has(&told, "warn  permissions", "chmod 700"), "{told}");
    assert!(has(&told, "warn  leftovers", "snap0.txt.tmp"), "{told}");
    assert!(has(&told, "fail  files", "node 1 cannot start"), "{told}");
    let (code, told) = of_folder(&place.path().join("nowhere"));
    assert!(code == Some(6) && has(&told, "fail  folder", "mounted"), "{told}");
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn a_cluster_is_checked(runtime: Runtime) {
    let mut nodes = Nodes::start(&[runtime; 3]);
    nodes.settle();
    let address = nodes.server(1).address().to_string();
    let check = || doctor(&["--connect", &address].map(OsStr::new));
    let (code, told) = check();
    assert_eq!(code, Some(0), "{told}");
    assert!(has(&told, "ok    leader", "leads") && has(&told, "ok    voters", "3 of 3"), "{told}");
    nodes.kill(3);
    until("the loss is seen", || check().0 == Some(6));
    let (_, told) = check();
    assert!(has(&told, "fail  node", "node 3 is unreachable"), "{told}");
    assert!(has(&told, "warn  voters", "one more stops"), "{told}");
    nodes.kill(2);
    until("there is no leader", || has(&check().1, "fail  leader", "no leader"));
    nodes.kill(1);
    let (code, told) = check();
    assert!(code == Some(6) && has(&told, "fail  connection", "refused"), "{told}");
    let json =
        Command::new(program()).args(["doctor", "-o", "json", "--connect", &address]).output().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((&json["status"], &json["checks"][0]["check"]), (&"fail".into(), &"connection".into()));
}

#[test]
fn the_files_that_the_settings_name_are_checked() {
    let certificates = Certificates::new("tea");
    let path = |name: &str| certificates.path(name);
    let settings = path("coracle.toml");
    let write = |key: &str| {
        let text =
            format!("ephemeral = true\ntls-cert = {:?}\ntls-key = {:?}\n", path("node1.pem"), path(key));
        fs::write(&settings, text).unwrap();
    };
    let check = || doctor(&[OsStr::new("--config"), settings.as_os_str()]);
    write("node1.key");
    let (code, told) = check();
    assert!(code == Some(0) && has(&told, "ok    certificate", "node1.pem is valid for"), "{told}");
    write("node2.key");
    let (code, told) = check();
    assert!(code == Some(6) && has(&told, "fail  credentials", "node"), "{told}");
    write("node1.key");
    fs::set_permissions(path("node1.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let (code, told) = check();
    assert!(code == Some(6) && has(&told, "fail  credentials", "chmod 600"), "{told}");
    fs::write(&settings, "nodes = \"many\"\n").unwrap();
    let (code, told) = check();
    assert!(code == Some(6) && has(&told, "fail  settings", "line 1"), "{told}");
}
