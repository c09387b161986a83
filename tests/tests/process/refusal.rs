//! Rejected starts: the server exits with an error code, and a message says what to do.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use coracle_tests::both_runtimes;
use coracle_tests::live::{Ended, LogFile, Nodes, Runtime, Setup, crc32, program};

/// Checks for exit code 6, nothing on stdout, and all of these words in one error message.
#[track_caller]
fn check_refusal(ended: &Ended, words: &[&str]) {
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(6), ""), "{}", ended.stderr);
    let message =
        ended.stderr.split("error: ").nth(1).unwrap_or_else(|| panic!("no error in {}", ended.stderr));
    for word in words {
        assert!(message.contains(word), "{word:?} is missing in {message:?}");
    }
}

/// Returns a folder that a cluster of five has used.
fn used_folder(runtime: Runtime) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let server = Setup::in_folder(runtime, folder.path()).start();
    let mut talk = server.connect();
    for number in 0..10 {
        let stored = format!(r#"{{"key":"k","value":{number},"status":"ok"}}"#);
        talk.exchange(&format!(r#"{{"key":"k","value":{number}}}"#), &stored);
    }
    let _ = server.settle();
    server.stop();
    folder
}

fn edit(path: &Path, change: impl FnOnce(String) -> String) {
    let text = fs::read_to_string(path).expect("the file is text");
    fs::write(path, change(text)).expect("the file can be written");
}

/// Checks that a rejected start changed nothing: once the old bytes are back, all data is there.
fn check_that_it_still_starts(runtime: Runtime, folder: &Path) {
    let server = Setup::in_folder(runtime, folder).start();
    server.connect().exchange(r#"{"key":"k"}"#, r#"{"key":"k","value":9,"status":"ok"}"#);
    server.stop();
}

/// A port in use is rejected, because two servers on one port would each get half of the clients.
fn a_port_in_use_is_refused(runtime: Runtime) {
    let taken = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let address = taken.local_addr().expect("a listener has an address").to_string();
    check_refusal(
        &Setup::in_memory(runtime).with(&format!("--listen {address}")).fail(),
        &[&address, "in use"],
    );
}

/// A folder in use is rejected, because two processes would corrupt it. The message names the
/// folder and the process that uses it.
fn a_folder_in_use_is_refused(runtime: Runtime) {
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let setup = Setup::in_folder(runtime, folder.path());
    let server = setup.start();
    let name = folder.path().display().to_string();
    check_refusal(&setup.fail(), &[&name, "in use by another process", &server.pid().to_string()]);
    server.connect().exchange(r#"{"key":"a","value":1}"#, r#"{"key":"a","value":1,"status":"ok"}"#);
    server.kill();
    setup.start().stop();
}

/// A folder made for another number of nodes is rejected: half a cluster, or one with foreign
/// nodes, could lose acknowledged writes.
fn a_folder_of_another_size_is_refused(runtime: Runtime) {
    let folder = used_folder(runtime);
    for nodes in [1, 3, 7] {
        let ended = Setup::in_folder(runtime, folder.path()).with(&format!("--nodes {nodes}")).fail();
        check_refusal(&ended, &["created for 5 nodes", "--nodes 5", "--data-dir"]);
    }
    check_that_it_still_starts(runtime, folder.path());
}

/// A newer format is rejected even if the checksum is valid, because an older program would misread
/// it.
fn a_newer_format_is_refused_by_name_and_version(runtime: Runtime) {
    let folder = used_folder(runtime);
    for name in ["log02.txt", "meta2.txt"] {
        let path = folder.path().join(name);
        let before = fs::read_to_string(&path).expect("the file is text");
        edit(&path, |text| {
            let (first, rest) = text.split_once('\n').expect("the file has a line");
            let (covered, _) = first.rsplit_once(",\"crc\"").expect("the line has a checksum");
            let covered = covered.replace("\"version\":1", "\"version\":2");
            format!("{covered},\"crc\":\"{:08x}\"}}\n{rest}", crc32(&[covered.as_bytes()]))
        });
        let kind = if name.starts_with("log") { "coracle-log" } else { "coracle-meta" };
        check_refusal(
            &Setup::in_folder(runtime, folder.path()).fail(),
            &[name, kind, "version 2", "use the program"],
        );
        fs::write(&path, before).expect("the file can be written");
    }
    check_that_it_still_starts(runtime, folder.path());
}

/// A valid entry with an unknown operation was written by a newer program, and serving without it
/// would lose acknowledged writes. The message names the file and the line.
fn an_entry_of_a_newer_program_is_refused_by_its_index(runtime: Runtime) {
    let folder = used_folder(runtime);
    let path = folder.path().join("log02.txt");
    let before = fs::read_to_string(&path).expect("the file is text");
    let log = LogFile::read(folder.path(), 2);
    let (next, last) = (log.lines.len() + 1, log.entries.last().expect("there are entries"));
    let covered = format!("{{\"index\":{next},\"term\":{},\"op\":\"SWAP\",\"key\":\"k\"", last["term"]);
    let chain = last["crc"].as_str().expect("an entry has a checksum");
    let crc = crc32(&[chain.as_bytes(), covered.as_bytes()]);
    fs::write(&path, format!("{before}{covered},\"crc\":\"{crc:08x}\"}}\n"))
        .expect("the file can be written");
    let line = format!("log02.txt: line {} ", next + 1);
    check_refusal(&Setup::in_folder(runtime, folder.path()).fail(), &[&line, "cannot parse"]);
    fs::write(&path, before).expect("the file can be written");
    check_that_it_still_starts(runtime, folder.path());
}

/// Damage before a valid line is never cut off: the message names the file, the line and the
/// remedy, and no file changes.
fn damage_is_refused_and_left_alone(runtime: Runtime) {
    let folder = used_folder(runtime);
    let (log, meta) = (folder.path().join("log03.txt"), folder.path().join("meta3.txt"));
    let before = (fs::read(&log).expect("a log"), fs::read(&meta).expect("metadata"));
    let setup = Setup::in_folder(runtime, folder.path());
    let refuse = |words: &[&str]| {
        let damaged = (fs::read(&log).ok(), fs::read(&meta).ok());
        check_refusal(&setup.fail(), words);
        assert!(damaged == (fs::read(&log).ok(), fs::read(&meta).ok()), "the files were changed");
        fs::write(&log, &before.0).expect("the log can be written");
        fs::write(&meta, &before.1).expect("the metadata can be written");
    };
    edit(&log, |text| text.replacen("\"value\":3", "\"value\":8", 1));
    refuse(&["log03.txt", "line 7", "Put the file back"]);
    edit(&log, |text| {
        text.lines().filter(|line| !line.contains("\"value\":3")).map(|line| format!("{line}\n")).collect()
    });
    refuse(&["log03.txt", "line 7", "Put the file back"]);
    edit(&meta, |text| text.replacen("\"currentTerm\":", "\"currentTerm\":1", 1));
    refuse(&["meta3.txt", "Put the file back"]);
    fs::write(&meta, "").expect("the metadata can be written");
    refuse(&["meta3.txt"]);
    fs::remove_file(&meta).expect("the metadata can be removed");
    refuse(&["meta3.txt", "Put the file back"]);
    fs::remove_file(&log).expect("the log can be removed");
    refuse(&["log03.txt", "Put the file back"]);
    fs::copy(folder.path().join("log01.txt"), &log).expect("a log can be copied");
    refuse(&["log03.txt", "node 1"]);
    check_that_it_still_starts(runtime, folder.path());
}

/// One damaged log of five loses nothing: the message names the intact nodes, and its commands, run
/// verbatim, lead to a cluster with all data.
fn a_lost_node_is_survived_by_following_the_message(runtime: Runtime) {
    let folder = used_folder(runtime);
    let data = folder.path().join("data");
    fs::create_dir(&data).expect("there is room");
    for (name, bytes) in bytes_in(folder.path()) {
        fs::write(data.join(name), bytes).expect("there is room");
    }
    edit(&data.join("log03.txt"), |text| text.replacen("\"value\":3", "\"value\":8", 1));
    let before = bytes_in(&data);
    let ended = Setup::in_folder(runtime, &data).fail();
    check_refusal(
        &ended,
        &["log03.txt: line 7", "Nodes 0, 1, 2 and 4 of 5 are whole", "everything that was acknowledged"],
    );
    let message = ended.stderr.split("error: ").nth(1).expect("it was refused");
    let commands: Vec<_> = message.split('`').skip(1).step_by(2).collect();
    let [backup, restore, serve] = commands[..] else { panic!("three commands in {}", ended.stderr) };
    for command in [backup, restore] {
        let words = command.split_whitespace().skip(1);
        let output = Command::new(program()).args(words).output().expect("the program can be run");
        assert!(output.status.success(), "{command}: {output:?}");
    }
    assert_eq!(bytes_in(&data), before, "what is left of the old cluster is not touched");
    let restored = serve.split_whitespace().last().expect("a folder");
    check_that_it_still_starts(runtime, Path::new(restored));
}

/// A torn last line, as a power loss leaves it, is cut off and reported, and no acknowledged write
/// is lost.
fn a_torn_end_is_cut_off_and_told(runtime: Runtime) {
    let folder = used_folder(runtime);
    for torn in [
        "{\"index\":12,\"te",
        "\0\0\0\0\0\0",
        "{\"index\":12,\"term\":1,\"op\":\"NOOP\",\"crc\":\"00000000\"}\n",
    ] {
        edit(&folder.path().join("log04.txt"), |text| text + torn);
        let server = Setup::in_folder(runtime, folder.path()).start();
        server.connect().exchange(r#"{"key":"k"}"#, r#"{"key":"k","value":9,"status":"ok"}"#);
        let stderr = server.stop().stderr;
        assert!(stderr.contains("log04.txt") && stderr.contains("torn"), "{stderr}");
    }
}

/// An error names a folder that cannot be created or written.
fn a_folder_that_is_a_file_is_refused(runtime: Runtime) {
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let path = folder.path().join("data");
    fs::write(&path, "not a folder").expect("the file can be written");
    check_refusal(&Setup::in_folder(runtime, &path).fail(), &[&path.display().to_string()]);
}

/// Returns all files in a folder, except the lock, with their bytes.
fn bytes_in(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(folder)
        .expect("the folder is there")
        .map(|entry| entry.expect("it is readable"))
        .filter(|entry| entry.path().is_file());
    let file = |entry: fs::DirEntry| {
        (entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path()).expect("it is a file"))
    };
    let mut files: Vec<_> = entries.map(file).filter(|(name, _)| name != "LOCK").collect();
    files.sort_unstable();
    files
}

/// A wrong `--id` must not create a new node, or a whole new cluster, beside another node's log.
/// With the id that the message proposes, the node starts again.
fn a_folder_of_another_node_is_refused(runtime: Runtime) {
    let mut nodes = Nodes::start(&[runtime]);
    nodes.kill(1);
    let folder = nodes.folder(1);
    let before = bytes_in(&folder);
    let peers = format!("--peers 2={},1={}", nodes.peer_address(2), nodes.peer_address(1));
    let join = format!("--join {}", nodes.peer_address(3));
    for flags in ["", &peers, &join] {
        let ended = Setup::node(runtime, 2, &folder).with(flags).fail();
        check_refusal(&ended, &["belongs to node 1", "--id 1", "--data-dir"]);
    }
    for count in [1, 3, 5] {
        let ended = Setup::in_folder(runtime, &folder).with(&format!("--nodes {count}")).fail();
        let advice = if count == 1 { "belongs to node 1" } else { "--id 1" };
        check_refusal(&ended, &[advice, "--data-dir"]);
    }
    assert_eq!(bytes_in(&folder), before);
    nodes.restart(1);
}

fn a_folder_of_a_cluster_in_one_process_is_no_nodes(runtime: Runtime) {
    let folder = used_folder(runtime);
    let before = bytes_in(folder.path());
    for id in [2, 9] {
        let peers = format!("--peers {id}=127.0.0.1:1");
        for flags in ["", &peers, "--join 127.0.0.1:1"] {
            let words = if id == 2 { "coracle serve" } else { "belongs to node 0" };
            check_refusal(
                &Setup::node(runtime, id, folder.path()).with(flags).fail(),
                &[words, "--data-dir"],
            );
        }
    }
    assert_eq!(bytes_in(folder.path()), before);
    check_that_it_still_starts(runtime, folder.path());
}

/// Runs `log verify` on the folder: exit code, the verdict on each node, and stderr.
fn verify(folder: &Path) -> (Option<i32>, Vec<String>, String) {
    let mut command = Command::new(program());
    let output =
        command.args(["log", "verify", "-o", "json"]).arg(folder).output().expect("the program starts");
    let stdout = String::from_utf8(output.stdout).expect("stdout is text");
    let reports = stdout.lines().map(|line| serde_json::from_str(line).expect("each line is JSON"));
    let verdict = |report: serde_json::Value| report["verdict"].as_str().expect("there is one").to_owned();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), reports.map(verdict).collect(), stderr)
}

/// `log verify` of a metadata file says what it promises; a changed byte or another version is not
/// clean.
fn a_metadata_file_is_verified(runtime: Runtime) {
    let folder = used_folder(runtime);
    let path = folder.path().join("meta2.txt");
    let text = fs::read_to_string(&path).expect("the file is text");
    let written: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    let verify = || {
        let output = Command::new(program()).args(["log", "verify", "-o", "json"]).arg(&path).output();
        let output = output.expect("the program starts");
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("the report is JSON");
        (output.status.code(), report)
    };
    let (code, report) = verify();
    assert_eq!((code, &report["verdict"]), (Some(0), &"clean".into()));
    assert_eq!(report["current_term"], written["currentTerm"]);
    assert_eq!(report["floor_index"], written["floor"]["index"]);
    assert_eq!((&report["node"], &report["voted_for"]), (&2.into(), &written["votedFor"]));
    for (from, to, verdict) in [
        (r#""currentTerm":"#, r#""currentTerm":1"#, "damaged"),
        (r#""version":1"#, r#""version":99"#, "unknown_format"),
    ] {
        fs::write(&path, text.replacen(from, to, 1)).expect("the file can be written");
        let (code, report) = verify();
        assert_eq!((code, &report["verdict"]), (Some(6), &verdict.into()));
    }
    for len in [text.len() - 1, text.len() / 2, 40] {
        fs::write(&path, &text[..len]).expect("the file can be written");
        let (code, report) = verify();
        assert_eq!((code, &report["verdict"]), (Some(6), &"damaged".into()), "{len} bytes");
        assert!(report["message"].as_str().expect("there is one").contains("the metadata:"), "{report}");
    }
}

/// A change of a file's text.
type Damage = fn(String) -> String;

/// `log verify` of a folder and a start agree about it, whatever file is damaged, missing or of
/// another time. Neither changes a byte.
fn a_folder_is_verified_as_a_start_judges_it(runtime: Runtime) {
    let folder = used_folder(runtime);
    assert_eq!(verify(folder.path()), (Some(0), vec!["clean".to_owned(); 5], String::new()));
    let damages: [(&str, Damage); 4] = [
        ("log01.txt", |text| text.replace(r#""value":3"#, r#""value":4"#)),
        ("meta2.txt", |text| text.replace(r#""currentTerm":"#, r#""currentTerm":9"#)),
        ("log03.txt", |text| text.lines().take(2).map(|line| format!("{line}\n")).collect()),
        ("log04.txt", |_| String::new()),
    ];
    for (name, damage) in damages {
        let path = folder.path().join(name);
        let before = fs::read_to_string(&path).expect("the file is text");
        edit(&path, damage);
        let found = bytes_in(folder.path());
        let (code, verdicts, stderr) = verify(folder.path());
        assert_eq!(code, Some(6), "{name}: {stderr}");
        assert_eq!(verdicts.iter().filter(|verdict| *verdict != "clean").count(), 1, "{name}: {verdicts:?}");
        assert!(!stderr.is_empty());
        assert_eq!(Setup::in_folder(runtime, folder.path()).fail().code, Some(6), "{name}");
        assert_eq!(bytes_in(folder.path()), found, "{name}");
        fs::write(&path, before).expect("the file can be written");
    }
    fs::rename(folder.path().join("meta0.txt"), folder.path().join("elsewhere")).expect("it can be moved");
    let (code, verdicts, _) = verify(folder.path());
    assert_eq!((code, verdicts[0].as_str()), (Some(6), "damaged"));
    fs::rename(folder.path().join("elsewhere"), folder.path().join("meta0.txt")).expect("it can be moved");
    check_that_it_still_starts(runtime, folder.path());
}

#[test]
fn a_folder_without_a_node_is_not_clean() {
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let (code, verdicts, stderr) = verify(folder.path());
    assert_eq!((code, verdicts), (Some(6), Vec::new()));
    assert!(stderr.contains("no file of a node"), "{stderr}");
}

both_runtimes!(
    a_port_in_use_is_refused,
    a_folder_is_verified_as_a_start_judges_it,
    a_metadata_file_is_verified,
    a_folder_in_use_is_refused,
    a_folder_of_another_size_is_refused,
    a_newer_format_is_refused_by_name_and_version,
    an_entry_of_a_newer_program_is_refused_by_its_index,
    damage_is_refused_and_left_alone,
    a_lost_node_is_survived_by_following_the_message,
    a_torn_end_is_cut_off_and_told,
    a_folder_that_is_a_file_is_refused,
    a_folder_of_another_node_is_refused,
    a_folder_of_a_cluster_in_one_process_is_no_nodes,
);

/// A usage error starts nothing, prints what would be right, and has exit code 2.
#[test]
fn wrong_usage_has_exit_code_two() {
    for flags in [
        "--runtime tokio",
        "--nodes 0",
        "--nodes 10",
        "--nodes",
        "--listen 3001",
        "--heartbeat 50",
        "--election-timeout 600ms..300ms",
        "--election-timeout 300ms..300ms100ns",
        "--heartbeat 300ms",
        "--sync sometimes",
        "--max-connections 0",
        "--request-timeout 0",
        "--log-level loud",
        "--log-format xml",
        "--no-such-flag",
        "frobnicate",
        "serve --nodes 99",
    ] {
        let output = Command::new(program()).args(flags.split(' ')).output().expect("the program starts");
        assert_eq!(output.status.code(), Some(2), "{flags}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{flags}");
    }
}
