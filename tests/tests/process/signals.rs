//! Start and shutdown: the ready line, signals, and exit codes.

use std::time::Duration;

use coracle_tests::both_runtimes;
use coracle_tests::live::{Runtime, Setup, Talk, signal};

const PONG: &str = r#"{"status":"ok"}"#;

/// A script that starts a server reads exactly one line from its stdout, with an address that
/// serves.
fn stdout_is_the_ready_line_alone(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let address = server.address();
    let mut talk = server.connect();
    talk.exchange(r#"{"op":"ping"}"#, PONG);
    talk.exchange(r#"{"key":"a","value":1}"#, r#"{"key":"a","value":1,"status":"ok"}"#);
    talk.say("nonsense");
    let _ = talk.hear();
    let ended = server.stop();
    assert_eq!(ended.stdout, format!("ready {address}\n"));
}

/// SIGTERM, SIGINT and SIGHUP, which a closed terminal sends, each cause an orderly shutdown, also
/// with idle clients connected.
fn term_int_and_hup_end_it_in_order(runtime: Runtime) {
    for name in ["TERM", "INT", "HUP"] {
        let server = Setup::in_memory(runtime).start();
        let mut talk = server.connect();
        talk.exchange(r#"{"op":"ping"}"#, PONG);
        signal(server.pid(), name);
        talk.expect_end();
        let address = server.address();
        assert_eq!(server.wait().code, Some(0), "after SIG{name}");
        assert!(Talk::try_open(address).is_err(), "somebody still listens");
    }
}

/// A signal before the first election, or before a client connects, also causes an orderly
/// shutdown.
fn a_signal_right_after_ready_ends_it(runtime: Runtime) {
    let folder = tempfile::tempdir().expect("there is room for a folder");
    for _ in 0..3 {
        Setup::in_folder(runtime, folder.path()).start().stop();
    }
}

/// A second signal ends the server at once, for an operator who does not want to wait.
///
/// A client that does not read its replies keeps the orderly shutdown from completing, and both
/// signals are delivered while the process is stopped, so neither can come too late.
fn a_second_signal_ends_it_at_once(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let value = "v".repeat(64 << 10);
    server.connect().exchange(
        &format!(r#"{{"key":"big","value":"{value}"}}"#),
        &format!(r#"{{"key":"big","value":"{value}","status":"ok"}}"#),
    );
    let mut deaf = server.connect();
    deaf.flood(b"{\"key\":\"big\"}\n", 64 << 20, Duration::from_millis(500));
    for name in ["STOP", "TERM", "INT", "CONT"] {
        signal(server.pid(), name);
    }
    assert_eq!(server.wait().code, Some(130));
}

/// The log on stderr reports elections but no requests, and in the JSON format every line is JSON.
fn stderr_tells_of_elections_and_not_of_requests(runtime: Runtime) {
    let told = |requests: usize| {
        let server = Setup::in_memory(runtime).with("--log-format json").start();
        let mut talk = server.connect();
        for number in 0..requests {
            talk.exchange(r#"{"key":"marker","value":1}"#, r#"{"key":"marker","value":1,"status":"ok"}"#);
            talk.say(&format!("nonsense {number}"));
            let _ = talk.hear();
        }
        server.stop().stderr
    };
    let stderr = told(100);
    assert!(stderr.contains("leader"), "{stderr}");
    assert!(!stderr.contains("marker") && !stderr.contains("nonsense"), "{stderr}");
    for line in stderr.lines() {
        let told: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(told["level"].is_string() && told["message"].is_string(), "{line}");
    }
}

both_runtimes!(
    stdout_is_the_ready_line_alone,
    term_int_and_hup_end_it_in_order,
    a_signal_right_after_ready_ends_it,
    a_second_signal_ends_it_at_once,
    stderr_tells_of_elections_and_not_of_requests,
);
