//! `coracle bench`: it reports plausible measurements and leaves the data of a server unchanged.

use std::path::Path;
use std::process::{Command, Stdio};

use coracle_tests::both_runtimes;
use coracle_tests::live::{Runtime, Setup, program, signal, until};
use serde_json::Value;

use crate::shell::Shell;

/// A short load. Its values are large, so that few keys have to be stored.
const SHORT: [&str; 6] = ["--value-size", "500000", "--warmup", "10ms", "--duration", "200ms"];

fn members(value: &Value) -> Vec<&str> {
    let members = value.as_object().expect("a JSON object").keys();
    members.map(String::as_str).collect()
}

/// Checks that the result has the documented members and plausible figures.
#[track_caller]
fn check(result: &Value) {
    let expected = ["clients", "get", "nodes", "pipeline", "put", "runtime", "seconds"];
    assert_eq!(members(result), expected);
    for kind in ["put", "get"] {
        let figures = &result[kind];
        let expected = ["errors", "max_us", "ops", "p50_us", "p999_us", "p99_us", "per_second"];
        assert_eq!(members(figures), expected);
        assert_eq!(figures["errors"], 0, "{result}");
        let times = ["p50_us", "p99_us", "p999_us", "max_us"].map(|time| figures[time].as_u64());
        assert!(times.is_sorted() && times.iter().all(Option::is_some), "{result}");
    }
}

fn json(stdout: &str) -> Value {
    serde_json::from_str(stdout).expect("one JSON object on stdout")
}

/// A bench leaves the user's keys unchanged and removes its own keys.
fn a_running_server_is_left_as_it_was(runtime: Runtime) {
    let server = Setup::in_memory(runtime).with("--nodes 3").start();
    let shell = Shell::of(&server);
    shell.expect(&["put", "bench:mine", "chips"], 0, "ok\n");
    let address = server.address().to_string();
    let load = ["bench", "--connect", &address, "--clients", "4", "--pipeline", "2", "-o", "json"];
    for more in [&[][..], &["--linearizable", "--puts", "10"], &["--rate", "100"]] {
        let ended = shell.run(&[&load, &SHORT[..], more].concat());
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        let result = json(&ended.stdout);
        check(&result);
        assert_eq!(result["runtime"], Value::Null);
        assert_eq!(
            (&result["nodes"], &result["clients"], &result["pipeline"]),
            (&3.into(), &4.into(), &2.into())
        );
        let done = [&result["put"]["ops"], &result["get"]["ops"]].map(|ops| ops.as_u64().unwrap_or(0));
        assert!(done[0] + done[1] > 0, "{result}");
    }
    let _ = server.settle();
    shell.expect(&["scan"], 0, "bench:mine\tchips\n");
}

/// Ctrl-C ends a bench early, after it has removed its keys.
fn an_interrupted_bench_tidies_up(runtime: Runtime) {
    let server = Setup::in_memory(runtime).with("--nodes 3").start();
    let shell = Shell::of(&server);
    let mut bench = Command::new(program())
        .args(["bench", "--connect", &server.address().to_string(), "--duration", "1h"])
        .args(["--value-size", "500000", "--clients", "2"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    until("a key is stored", || !shell.run(&["scan", "bench:", "--limit", "1"]).stdout.is_empty());
    signal(bench.id(), "INT");
    assert_eq!(bench.wait().expect("the bench ends").code(), Some(130));
    let _ = server.settle();
    shell.expect(&["scan"], 0, "");
}

/// Without the address of a server, a bench starts a cluster and removes its folder afterwards.
#[test]
fn a_bench_without_a_server_leaves_no_folder() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let run = |arguments: &[&str]| {
        let output = Command::new(program())
            .args(["bench", "--nodes", "3", "--clients", "4", "-o", "json"])
            .args(arguments)
            .args(SHORT)
            .env("TMPDIR", folder.path())
            .output()
            .expect("the program starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(is_empty(folder.path()));
        json(&String::from_utf8_lossy(&output.stdout))
    };
    let result = run(&["--runtime", "threads"]);
    check(&result);
    assert_eq!((&result["runtime"], &result["nodes"]), (&"threads".into(), &3.into()));
    let compared = run(&["--compare", "smol,threads", "--rounds", "2", "--ephemeral", "--puts", "100"]);
    assert_eq!(members(&compared), ["all", "medians", "ratio", "rounds"]);
    for (place, runtime) in ["smol", "threads"].into_iter().enumerate() {
        check(&compared["medians"][place]);
        assert_eq!(compared["medians"][place]["runtime"], runtime);
        assert_eq!(compared["all"][place].as_array().map(Vec::len), Some(2));
    }
    assert!(compared["ratio"]["put"]["per_second"].is_f64(), "{compared}");
    assert_eq!(compared["ratio"]["get"], Value::Null);
}

/// An unreachable server has its own exit code, and the bench starts no cluster instead.
#[test]
fn an_unreachable_server_has_its_own_exit_code() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let address = listener.local_addr().expect("a listener has an address").to_string();
    drop(listener);
    let ended = Shell::of_addresses(&address).expect(&["bench", "--connect", &address], 3, "");
    assert!(ended.stderr.contains(&address), "{}", ended.stderr);
    Shell::of_addresses(&address).expect(&["bench", "--compare", "smol"], 2, "");
}

fn is_empty(folder: &Path) -> bool {
    folder.read_dir().expect("the folder is there").next().is_none()
}

both_runtimes!(a_running_server_is_left_as_it_was, an_interrupted_bench_tidies_up,);
