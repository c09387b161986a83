//! `coracle client` with commands from a pipe, and `coracle log` on the files of a server.

use std::fs;

use coracle_tests::both_runtimes;
use coracle_tests::live::{Runtime, Setup};
use serde_json::Value;

use crate::shell::Shell;

/// A file of commands is executed line by line on one connection, with nothing on stdout except the
/// replies.
fn a_session_reads_commands_from_a_pipe(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let input = "\
put a 1
get a
# a remark

put 'a key' \"two words\"
get 'a key'
cas a --expect 1 2
{\"key\":\"a\"}
scan a --limit 1
delete a
ping
";
    let answers = "\
ok
1
ok
two words
ok
{\"key\":\"a\",\"value\":\"2\",\"status\":\"ok\"}
a\t2
ok
ok
";
    let ended = Shell::of(&server).run_with_input(&["client"], input);
    assert_eq!((ended.stdout.as_str(), ended.stderr.as_str(), ended.code), (answers, "", Some(0)));
}

/// The last line may lack its line break, as in the output of `printf`.
fn a_session_answers_a_last_line_without_a_line_break(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let ended = Shell::of(&server).run_with_input(&["client"], "put a 1\nget a");
    assert_eq!((ended.stdout.as_str(), ended.stderr.as_str(), ended.code), ("ok\n1\n", "", Some(0)));
}

/// A failed line is reported with its number, the other lines are executed, and the exit code is
/// that of the first failure.
fn a_session_goes_on_after_a_failure(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let input = "put a 1\nget no\ncas a --expect 2 3\nfrobnicate\nput b -\nget a\nexit\nput never 1\n";
    let ended = Shell::of(&server).run_with_input(&["client"], input);
    assert_eq!((ended.stdout.as_str(), ended.code), ("ok\n1\n1\n", Some(1)), "{}", ended.stderr);
    for line in 2..=5 {
        assert!(
            ended.stderr.contains(&format!("line {line}: ")),
            "line {line} is missing in {}",
            ended.stderr
        );
    }
    assert_eq!(server.connect().ask(r#"{"op":"cas","key":"never","expect":null,"value":1}"#)["status"], "ok");
}

/// With `-o json`, a session prints only JSON.
fn a_session_speaks_json(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let ended =
        Shell::of(&server).run_with_input(&["client", "-o", "json"], "put a 1\nget a\nget no\nstatus\n");
    let lines: Vec<Value> =
        ended.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((lines.len(), ended.code), (4, Some(1)), "{}", ended.stdout);
    assert_eq!((&lines[1]["value"], &lines[2]["error"]), (&"1".into(), &"not_found".into()));
    assert_eq!(lines[3]["nodes"].as_array().map(Vec::len), Some(5));
}

/// `coracle log verify` needs no server. It distinguishes damage from a torn tail, and fails for
/// both.
fn logs_can_be_verified_without_a_server(runtime: Runtime) {
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let server = Setup::in_folder(runtime, folder.path()).start();
    let mut talk = server.connect();
    for number in 0..10 {
        assert_eq!(talk.ask(&format!(r#"{{"key":"k","value":{number}}}"#))["status"], "ok");
    }
    let last = server.settle();
    let shell = Shell::of(&server);
    server.stop();
    let verify = |node: usize| {
        let file = folder.path().join(format!("log{node:02}.txt"));
        let ended = shell.run(&["log", "verify", "-o", "json", &file.display().to_string()]);
        let report: Value = serde_json::from_str(&ended.stdout).expect("the report is JSON");
        (ended.code, report["verdict"].as_str().unwrap_or_default().to_owned(), report["last_index"].as_u64())
    };
    for node in 0..5 {
        assert_eq!(verify(node), (Some(0), "clean".to_owned(), Some(last)), "log{node:02}.txt");
    }
    let path = folder.path().join("log00.txt");
    let text = fs::read_to_string(&path).expect("a log is text");
    fs::write(&path, &text[..text.len() - 3]).expect("a log can be written");
    assert_eq!(verify(0), (Some(6), "torn_tail".to_owned(), Some(last - 1)));
    fs::write(&path, text.replacen("\"value\":3", "\"value\":4", 1)).expect("a log can be written");
    let (code, verdict, _) = verify(0);
    assert_eq!((code, verdict.as_str()), (Some(6), "damaged"));
    let shown =
        shell.run(&["log", "show", "-o", "json", &folder.path().join("log01.txt").display().to_string()]);
    assert_eq!(
        (shown.code, shown.stdout),
        (Some(0), fs::read_to_string(folder.path().join("log01.txt")).expect("text"))
    );
}

both_runtimes!(
    a_session_reads_commands_from_a_pipe,
    a_session_answers_a_last_line_without_a_line_break,
    a_session_goes_on_after_a_failure,
    a_session_speaks_json,
    logs_can_be_verified_without_a_server,
);
