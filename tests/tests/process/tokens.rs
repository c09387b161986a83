//! Tokens: who has none gets nothing, roles and prefixes hold at the program's own commands, and a
//! token that is revoked ends the rights of an open connection.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use coracle_tests::both_runtimes;
use coracle_tests::live::{Runtime, Server, Setup, program, until};

fn coracle(words: &[&str]) -> Output {
    Command::new(program()).args(words).output().expect("the program starts")
}

/// Makes a token and returns it.
fn new_token(file: &Path, words: &[&str]) -> String {
    let file = file.to_str().unwrap();
    let made = coracle(&[&["token", "new"], words, &["--file", file]].concat());
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    String::from_utf8(made.stdout).unwrap().trim().to_owned()
}

/// Runs a command of the client with this token, and returns its exit code and stdout.
fn run(server: &Server, token: &str, words: &[&str]) -> (Option<i32>, String) {
    let ran = Command::new(program())
        .args(words)
        .env("CORACLE_CONNECT", server.address().to_string())
        .env("CORACLE_TOKEN", token)
        .output()
        .expect("the program starts");
    (ran.status.code(), String::from_utf8(ran.stdout).unwrap().trim().to_owned())
}

fn code(server: &Server, token: &str, words: &[&str]) -> Option<i32> {
    run(server, token, words).0
}

fn a_client_may_do_what_its_token_grants_and_nothing_else(runtime: Runtime) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens.jsonl");
    let till = new_token(&file, &["till", "--role", "write", "--prefix", "till/"]);
    let reader = new_token(&file, &["kitchen", "--role", "read"]);
    let admin = new_token(&file, &["root", "--role", "admin"]);
    assert!(!fs::read_to_string(&file).unwrap().contains(&till), "the file holds digests alone");
    let server = Setup::in_memory(runtime).with(&format!("--token-file {}", file.display())).start();
    let no_token = server.connect().ask(r#"{"key":"till/1"}"#);
    assert_eq!((&no_token["error"], &no_token["definite"]), (&"unauthenticated".into(), &true.into()));
    for (token, words, expected) in [
        ("", &["get", "till/1"][..], 7),
        ("coracle_0000", &["get", "till/1"], 7),
        (&till, &["put", "till/1", "open"], 0),
        (&till, &["put", "till", "open"], 7),
        (&till, &["scan", "till/"], 0),
        (&till, &["scan"], 7),
        (&till, &["transfer", "1"], 7),
        (&till, &["lock", "till/lock", "--", "true"], 7),
        (&reader, &["get", "till/1", "--linearizable"], 0),
        (&reader, &["put", "till/1", "closed"], 7),
        (&reader, &["status"], 0),
        (&reader, &["backup", "-"], 7),
        (&admin, &["put", "a", "b"], 0),
        (&admin, &["backup", "-"], 0),
    ] {
        assert_eq!(code(&server, token, words), Some(expected), "{words:?}");
    }
    let bench = ["bench", "--connect", &server.address().to_string(), "--duration", "1s", "--warmup", "0s"];
    assert_eq!((code(&server, &admin, &bench), code(&server, "", &bench)), (Some(0), Some(7)));
    assert!(!server.stderr().contains(&till), "no token is ever written");
}

fn a_revoked_token_ends_the_rights_of_an_open_connection(runtime: Runtime) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens.jsonl");
    let token = new_token(&file, &["till", "--role", "read"]);
    let server = Setup::in_memory(runtime).with(&format!("--token-file {}", file.display())).start();
    let mut talk = server.connect();
    let auth = format!(r#"{{"op":"auth","token":"{token}"}}"#);
    assert_eq!(talk.ask(&auth)["name"], "till");
    assert_eq!(talk.ask(r#"{"op":"ping"}"#)["status"], "ok");
    let later = new_token(&file, &["other", "--role", "read"]);
    until("the new token is accepted", || code(&server, &later, &["status"]) == Some(0));
    assert_eq!(talk.ask(r#"{"op":"ping"}"#)["status"], "ok", "open connections go on");
    assert!(coracle(&["token", "revoke", "till", "--file", file.to_str().unwrap()]).status.success());
    until("the revoked token has no rights", || talk.ask(r#"{"op":"ping"}"#)["error"] == "unauthenticated");
    // A file that cannot be used changes nothing, and is reported.
    fs::write(&file, "nonsense\n").unwrap();
    until("the fault is reported", || server.stderr().contains("line 1"));
    assert_eq!(code(&server, &later, &["status"]), Some(0));
}

fn an_invalid_token_costs_time_and_is_counted(runtime: Runtime) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens.jsonl");
    new_token(&file, &["till", "--role", "read"]);
    let server = Setup::in_memory(runtime).with(&format!("--token-file {}", file.display())).start();
    let (mut talk, begin) = (server.connect(), Instant::now());
    for _ in 0..3 {
        assert_eq!(talk.ask(r#"{"op":"auth","token":"guess"}"#)["error"], "unauthenticated");
    }
    assert!(begin.elapsed() >= Duration::from_secs(2), "it rests between attempts");
    until("the attempts are reported", || server.stderr().contains("invalid tokens"));
}

fn a_token_file_that_others_can_read_is_refused(runtime: Runtime) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens.jsonl");
    new_token(&file, &["till", "--role", "read"]);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let ended = Setup::in_memory(runtime).with(&format!("--token-file {}", file.display())).fail();
    assert!(ended.stderr.contains("chmod 600"), "{}", ended.stderr);
}

both_runtimes!(
    a_client_may_do_what_its_token_grants_and_nothing_else,
    a_revoked_token_ends_the_rights_of_an_open_connection,
    an_invalid_token_costs_time_and_is_counted,
    a_token_file_that_others_can_read_is_refused,
);
