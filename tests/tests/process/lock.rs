//! `coracle lock`: a command runs while the lock is held, with a fencing token.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use coracle_tests::both_runtimes;
use coracle_tests::live::{Runtime, Server, Setup, program, signal};
use coracle_tests::locks::contend;

use crate::shell::Shell;

/// Waits until the lock has a holder, and returns its token.
fn token(server: &Server) -> u64 {
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut talk = server.connect();
    loop {
        let reply = talk.ask(r#"{"op":"get","key":"lock/l","consistency":"linearizable","meta":true}"#);
        if let Some(created) = reply["created"].as_u64() {
            return created;
        }
        assert!(Instant::now() < deadline, "{reply}");
    }
}

fn a_command_runs_with_a_token_and_its_exit_code(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let shell = Shell::of(&server);
    let run = |script: &str| shell.run(&["lock", "l", "--", "sh", "-c", script]);
    let first = run("coracle=$CORACLE_FENCE; echo $coracle; exit 7");
    let fence: u64 = first.stdout.trim().parse().expect("a token");
    assert_eq!((first.code, first.stderr.as_str()), (Some(7), ""));
    shell.expect(&["get", "lock/l", "--linearizable"], 1, "");
    let second = run("echo $CORACLE_FENCE; kill -TERM $$");
    let higher: u64 = second.stdout.trim().parse().expect("a token");
    assert!(higher > fence, "{higher} after {fence}");
    assert_eq!(second.code, Some(128 + 15));
    assert_eq!(shell.run(&["lock", "l", "--", "/nowhere/nothing"]).code, Some(127));
    assert_eq!(shell.run(&["lock", "l", "--", "/"]).code, Some(126));
    shell.expect(&["get", "lock/l", "--linearizable"], 1, "");
    for wrong in [&["lock", "l"][..], &["lock", "l", "true"], &["lock", "l", "--ttl", "1ms", "--", "true"]] {
        assert_eq!(shell.run(wrong).code, Some(2), "{wrong:?}");
    }
}

fn a_held_lock_is_waited_for(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let shell = Shell::of(&server);
    let mut holder = Command::new(program())
        .args(["lock", "l", "--ttl", "2s", "--", "cat"])
        .env("CORACLE_CONNECT", server.address().to_string())
        .stdin(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let held = token(&server);
    let given_up = shell.run(&["lock", "l", "--wait", "0s", "--", "true"]);
    assert_eq!(given_up.code, Some(5));
    assert!(given_up.stderr.contains("is held by"), "{}", given_up.stderr);
    // The holder renews its lock for longer than its time to live.
    let given_up = shell.run(&["lock", "l", "--wait", "3s", "--", "true"]);
    assert_eq!(given_up.code, Some(5));
    assert_eq!(token(&server), held);
    drop(holder.stdin.take());
    let next = shell.run(&["lock", "l", "--", "sh", "-c", "echo $CORACLE_FENCE"]);
    assert!(next.stdout.trim().parse::<u64>().expect("a token") > held);
    assert!(holder.wait().expect("it ends").success());
}

/// The holder notices that it has lost the lock, and ends its command.
fn a_lost_lock_ends_the_command(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let holder = Command::new(program())
        .args(["lock", "l", "--ttl", "500ms", "--", "sh", "-c"])
        .arg("trap 'exit 9' TERM; while :; do sleep 0.02; done")
        .env("CORACLE_CONNECT", server.address().to_string())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let _ = token(&server);
    server.connect().ask(r#"{"op":"put","key":"lock/l","value":"another"}"#);
    let ended = holder.wait_with_output().expect("it ends");
    assert_eq!(ended.status.code(), Some(9));
    assert!(String::from_utf8_lossy(&ended.stderr).contains("is lost"));
    server.connect().exchange(r#"{"key":"lock/l"}"#, r#"{"key":"lock/l","value":"another","status":"ok"}"#);
}

fn a_signal_goes_to_the_command(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let mut holder = Command::new(program())
        .args(["lock", "l", "--", "sh", "-c", "echo; exec sleep 1000"])
        .env("CORACLE_CONNECT", server.address().to_string())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut started = [0];
    holder.stdout.take().expect("it is a pipe").read_exact(&mut started).expect("the command has started");
    signal(holder.id(), "TERM");
    assert_eq!(holder.wait_with_output().expect("it ends").status.code(), Some(128 + 15));
    Shell::of(&server).expect(&["get", "lock/l", "--linearizable"], 1, "");
}

fn tokens_rise_over_kills_and_pauses(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let result = contend(&server.address().to_string(), folder.path(), 6, 7).expect("tokens rise");
    assert!(result.holders >= 6, "{result:?}");
}

both_runtimes! {
    a_command_runs_with_a_token_and_its_exit_code,
    a_held_lock_is_waited_for,
    a_lost_lock_ends_the_command,
    a_signal_goes_to_the_command,
    tokens_rise_over_kills_and_pauses,
}
