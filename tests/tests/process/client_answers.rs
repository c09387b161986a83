//! Client commands in unusual cases: an unknown member, a value of another type, an interruption.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Command, Stdio};

use coracle_tests::both_runtimes;
use coracle_tests::live::{Nodes, Runtime, Setup, program, signal, until};

use crate::shell::Shell;

/// Returns the roles in the table of `status`, one per row.
fn roles(shell: &Shell) -> Vec<String> {
    let ended = shell.run(&["status"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let role = |row: &str| row.split_whitespace().nth(1).expect("a row has a role").to_owned();
    ended.stdout.lines().skip(1).map(role).collect()
}

/// An unknown member id gives an error that lists the members, and `status` shows which members are
/// learners.
fn members_are_called_what_they_are(runtime: Runtime) {
    let mut nodes = Nodes::start(&[runtime]);
    let learner = nodes.join(runtime);
    let shell = Shell::of(nodes.server(1));
    for order in
        [&["member", "promote", "9"][..], &["member", "remove", "9"], &["member", "remove", "9", "--force"]]
    {
        let ended = shell.expect(order, 2, "");
        assert_eq!(ended.stderr, "error: there is no member 9: the members are 1, 2\n", "{order:?}");
    }
    until("the leader has met the learner", || roles(&shell) == ["leader", "learner"]);
    assert_eq!(nodes.rows(1)[1]["role"], "learner", "on the wire as in the table");
    shell.expect(&["member", "promote", &learner.to_string()], 0, "ok\n");
    until("the learner has become a follower", || roles(&shell) == ["leader", "follower"]);
    let in_one_process = Setup::in_memory(runtime).with("--nodes 3").start();
    let ended = Shell::of(&in_one_process).expect(&["member", "promote", "9"], 2, "");
    assert_eq!(ended.stderr, "error: there is no member 9: the members are 0, 1, 2\n");
}

/// A failed compare-and-swap reports the type of the value that it found, because the number 42 and
/// the string "42" look alike on a command line.
fn a_swap_names_the_kind_that_it_found(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let shell = Shell::of(&server);
    shell.expect(&["put", "n", "42", "--json"], 0, "ok\n");
    let ended = shell.expect(&["cas", "n", "--expect", "42", "43"], 5, "42\n");
    assert!(
        ended.stderr.contains("it holds a number, and a string was expected; --json"),
        "{}",
        ended.stderr
    );
    let ended = shell.expect(&["cas", "n", "--json", "--expect", "41", "43"], 5, "42\n");
    assert_eq!(ended.stderr, "error: \"n\" does not hold the expected value\n");
    shell.expect(&["cas", "n", "--json", "--expect", "42", "43"], 0, "ok\n");
}

/// Ctrl-C during a backup leaves no file.
#[test]
fn an_interrupted_backup_leaves_no_file() {
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let server = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let address = server.local_addr().expect("a listener has an address").to_string();
    let mut backup = Command::new(program())
        .args(["backup", "backup.txt", "--connect", &address])
        .current_dir(folder.path())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let (connection, _) = server.accept().expect("the client connects");
    BufReader::new(&connection).read_line(&mut String::new()).expect("the client asks");
    let names = || std::fs::read_dir(folder.path()).expect("the folder is there").count();
    assert_eq!(names(), 1, "the file has no name yet");
    signal(backup.id(), "INT");
    assert_eq!(backup.wait().expect("it ends").code(), Some(130));
    assert_eq!(names(), 0);
}

/// Ctrl-C while a command waits for its reply: the exit code is 130, and for a write the message
/// says that the outcome is unknown.
#[test]
fn an_interrupted_write_has_an_unknown_outcome() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let address = silent.local_addr().expect("a listener has an address").to_string();
    for (arguments, is_write) in
        [(&["put", "a", "1"][..], true), (&["delete", "a"], true), (&["get", "a"], false)]
    {
        let client = Command::new(program())
            .args(arguments)
            .args(["--connect", &address])
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let (connection, _) = silent.accept().expect("the client connects");
        let mut request = String::new();
        BufReader::new(&connection).read_line(&mut request).expect("the client asks");
        signal(client.id(), "INT");
        let ended = client.wait_with_output().expect("the program ends");
        let stderr = String::from_utf8(ended.stderr).expect("the program speaks UTF-8");
        assert_eq!(ended.status.code(), Some(130), "{arguments:?}: {stderr}");
        assert_eq!(stderr.contains("the outcome is unknown"), is_write, "{arguments:?}: {stderr}");
    }
}

both_runtimes!(members_are_called_what_they_are, a_swap_names_the_kind_that_it_found);
