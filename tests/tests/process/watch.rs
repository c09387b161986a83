//! `coracle watch` as a script uses it, and watches through kills of the nodes.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};

use coracle_tests::both_runtimes;
use coracle_tests::live::{Nodes, Runtime, Server, Setup, WatchCampaign, program, signal, until};
use serde_json::Value;

use crate::shell::Shell;

/// A running `coracle watch`.
struct Watching {
    child: Child,
    out: Option<BufReader<ChildStdout>>,
}

impl Watching {
    fn start(connect: &str, arguments: &[&str]) -> Self {
        let mut child = Command::new(program())
            .arg("watch")
            .args(arguments)
            .env("CORACLE_CONNECT", connect)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let out = child.stdout.take().map(BufReader::new);
        Self { child, out }
    }

    fn of(server: &Server, arguments: &[&str]) -> Self {
        Self::start(&server.address().to_string(), arguments)
    }

    /// The next line, without its line break.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.as_mut().expect("stdout is open").read_line(&mut line).expect("a line");
        assert_eq!(line.pop(), Some('\n'), "the command has ended");
        line
    }

    /// Waits for the end of the command. Returns its exit code, and the text on stderr.
    fn end(&mut self) -> (Option<i32>, String) {
        let mut status = None;
        until("the command ends", || {
            status = self.child.try_wait().expect("a child can be waited for");
            status.is_some()
        });
        let mut stderr = String::new();
        self.child.stderr.take().expect("a pipe").read_to_string(&mut stderr).expect("text");
        (status.and_then(|status| status.code()), stderr)
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        // Ignore the errors: it may have ended before.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// Writes until the watch reports a first change: then it has begun.
fn begin(watching: &mut Watching, shell: &Shell) -> u64 {
    let first = std::thread::scope(|scope| {
        let line = scope.spawn(|| watching.line());
        until("the watch has begun", || {
            shell.expect(&["put", "begin", "x"], 0, "ok\n");
            line.is_finished()
        });
        line.join().expect("a line")
    });
    let (rev, rest) = first.split_once('\t').expect("a revision");
    assert_eq!(rest, "put\tbegin\tx");
    rev.parse().expect("a number")
}

/// The next line of a change that is not one of [`begin`].
fn next(watching: &mut Watching) -> String {
    loop {
        let line = watching.line();
        if !line.ends_with("put\tbegin\tx") {
            return line.split_once('\t').expect("a revision").1.to_owned();
        }
    }
}

fn one_line_per_change(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let shell = Shell::of(&server);
    shell.expect(&["put", "a\tb", "line\nbreak"], 0, "ok\n");
    shell.expect(&["put", "n", "[1, 2]", "--json"], 0, "ok\n");
    let mut content = Watching::of(&server, &["--initial", "-o", "json"]);
    let first: Value = serde_json::from_str(&content.line()).expect("JSON");
    assert_eq!((&first["key"], &first["value"]), (&"a\tb".into(), &"line\nbreak".into()));
    assert!(content.line().starts_with(r#"{"key":"n","value":[1,2],"rev":"#));
    let mut watching = Watching::of(&server, &[]);
    begin(&mut watching, &shell);
    shell.expect(&["put", "a\tb", "42"], 0, "ok\n");
    assert_eq!(next(&mut watching), "put\ta\\tb\t42");
    shell.expect(&["delete", "n"], 0, "ok\n");
    assert_eq!(next(&mut watching), "delete\tn");
    let deleted = loop {
        let event: Value = serde_json::from_str(&content.line()).expect("JSON");
        if event["key"] == "n" {
            break event;
        }
    };
    assert_eq!((&deleted["deleted"], &deleted["because"]), (&true.into(), &"delete".into()));
    // One key, and a revision to begin with.
    let from = deleted["rev"].to_string();
    let mut of_key = Watching::of(&server, &["--key", "n", "--from", &from]);
    assert_eq!(of_key.line(), format!("{from}\tdelete\tn"));
}

fn a_watch_ends_with_its_reader_or_an_interrupt(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let shell = Shell::of(&server);
    let mut interrupted = Watching::of(&server, &[]);
    begin(&mut interrupted, &shell);
    signal(interrupted.child.id(), "INT");
    assert_eq!(interrupted.end().0, Some(130));
    // Nothing changes, and yet the command notices that its reader is gone.
    let mut closed = Watching::of(&server, &["none/"]);
    drop(closed.out.take());
    assert_eq!(closed.end(), (Some(0), String::new()));
}

fn a_watch_that_cannot_begin_says_why(runtime: Runtime) {
    let nowhere = Shell::of_addresses("127.0.0.1:1").run(&["watch"]);
    assert_eq!(nowhere.code, Some(3), "{}", nowhere.stderr);
    let server = Setup::in_memory(runtime).start();
    let shell = Shell::of(&server);
    shell.expect(&["watch", "--initial", "--from", "7"], 2, "");
    shell.expect(&["watch", "a", "--key", "b"], 2, "");
    shell.expect(&["watch", &"k".repeat(1025)], 2, "");
}

/// The watch goes on at another node, without a gap or a repeat.
fn a_watch_survives_the_kill_of_its_node(runtime: Runtime) {
    let mut nodes = Nodes::start(&[runtime; 3]);
    let addresses: Vec<_> = nodes.addresses().iter().map(ToString::to_string).collect();
    let mut watching = Watching::start(&addresses.join(","), &["w/"]);
    let write = |nodes: &Nodes, node: usize, number: u64| {
        let reply = nodes
            .connect(node)
            .ask(&format!(r#"{{"key":"w/k","value":{number},"session":{{"client":"c","seq":{number}}}}}"#));
        reply["status"] == "ok"
    };
    // Written again until the watch has begun.
    let mut number = 0;
    let first = std::thread::scope(|scope| {
        let line = scope.spawn(|| watching.line());
        until("the watch has begun", || {
            number += 1;
            assert!(write(&nodes, 2, number));
            line.is_finished()
        });
        line.join().expect("a line")
    });
    let mut last: u64 = first.rsplit_once('\t').expect("a value").1.parse().expect("a number");
    // The first of the list serves the watch.
    _ = nodes.kill(1);
    for _ in 0..50 {
        number += 1;
        until("a leader takes it", || write(&nodes, 2, number) || write(&nodes, 3, number));
    }
    while last < number {
        last += 1;
        assert_eq!(next(&mut watching), format!("put\tw/k\t{last}"));
    }
}

/// `cargo run --release -p coracle-tests --bin watch_kill` does the same for longer.
fn a_watcher_sees_each_change_once_through_kills(runtime: Runtime) {
    let campaign = WatchCampaign { runtime, changes: 20_000, kills: 6, seed: fastrand::u64(..) };
    let summary = campaign.run();
    assert!(summary.is_right(), "{campaign:?}: {summary:?}");
    assert!(summary.sessions > 3, "{campaign:?}: {summary:?}");
}

/// The history of a node ends at a restart from a snapshot. Another node may have more of it.
fn a_history_that_is_gone_ends_the_command(runtime: Runtime) {
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let setup = Setup::in_folder(runtime, folder.path()).with("--nodes 1 --snapshot-entries 20");
    let server = setup.start();
    let mut talk = server.connect();
    (0..100).for_each(|value| drop(talk.ask(&format!(r#"{{"key":"k","value":{value}}}"#))));
    until("a snapshot is taken", || {
        talk.ask(r#"{"op":"status"}"#)["nodes"][0]["snapshot_index"].as_u64() > Some(20)
    });
    _ = server.stop();
    let server = setup.start();
    let ended = Shell::of(&server).run(&["watch", "--from", "3"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(6), ""));
    assert!(ended.stderr.contains("compacted") && ended.stderr.contains("--initial"), "{}", ended.stderr);
}

both_runtimes!(
    one_line_per_change,
    a_watch_ends_with_its_reader_or_an_interrupt,
    a_watch_that_cannot_begin_says_why,
    a_watch_survives_the_kill_of_its_node,
    a_watcher_sees_each_change_once_through_kills,
    a_history_that_is_gone_ends_the_command,
);
