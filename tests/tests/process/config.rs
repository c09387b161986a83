//! Settings files and variables of the real program.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use coracle_tests::both_runtimes;
use coracle_tests::live::{Runtime, Talk, program, signal};

both_runtimes!(a_server_starts_from_a_file_alone);

fn coracle(words: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(program());
    command.args(words).envs(variables.iter().copied()).output().expect("the program starts")
}

fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn write(folder: &Path, text: &str) -> String {
    let path = folder.join("coracle.toml");
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn a_server_starts_from_a_file_alone(runtime: Runtime) {
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "# one node, to play with\nruntime = \"{}\"\nlisten = \"127.0.0.1:0\"\nephemeral = true\nnodes = 3\n",
        runtime.name()
    );
    let path = write(folder.path(), &text);
    let mut server = Command::new(program())
        .args(["--config", &path])
        .env("CORACLE_NODES", "1")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    let address = ready.trim().strip_prefix("ready ").unwrap().parse().unwrap();
    let nodes = Talk::open(address).ask(r#"{"op":"status"}"#)["nodes"].as_array().unwrap().len();
    assert_eq!(nodes, 1, "the variable overrides the file");
    signal(server.id(), "TERM");
    let ended = server.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&ended.stderr);
    assert!(told.contains(&format!("the settings of {path} apply")), "{told}");
    assert!(told.contains(&format!("1 node on the {} runtime", runtime.name())), "{told}");
}

#[test]
fn the_settings_and_their_origins_are_shown() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(
        folder.path(),
        "\nheartbeat = \"40ms\"\nid = 2\npeers = [\"1=127.0.0.1:1\", \"2=127.0.0.1:2\"]\n",
    );
    let words = ["config", "show", "--origin", "node", "--config", &path, "--listen", "127.0.0.1:9"];
    let shown = printed(&coracle(&words, &[("CORACLE_MAX_CONNECTIONS", "77")]));
    let line = |name: &str| shown.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    let expected = [
        ("id = 2 ", format!("# {path}, line 3")),
        ("peers = \"1=127.0.0.1:1,2=127.0.0.1:2\" ", format!("# {path}, line 4")),
        ("heartbeat = \"40ms\" ", format!("# {path}, line 2")),
        ("listen = \"127.0.0.1:9\" ", "# flag".to_owned()),
        ("max-connections = 77 ", "# the variable CORACLE_MAX_CONNECTIONS".to_owned()),
        ("sync = \"always\" ", "# default".to_owned()),
        ("# data-dir: ./data ", "# default".to_owned()),
    ];
    for (assignment, origin) in &expected {
        assert!(line(assignment).ends_with(origin), "{shown}");
    }
    let json = printed(&coracle(&["config", "show", "--json", "--nodes", "3"], &[]));
    let nodes = json.lines().find(|line| line.contains("\"nodes\"")).unwrap();
    let nodes: serde_json::Value = serde_json::from_str(nodes).unwrap();
    assert_eq!((&nodes["origin"], &nodes["value"]), (&"flag".into(), &"3".into()));
}

#[test]
fn the_output_of_show_is_a_settings_file_with_the_same_settings() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("a \"b\" #c\\d");
    let flags = ["--nodes", "3", "--election-timeout", "1s..2s", "--data-dir", data.to_str().unwrap()];
    let first = printed(&coracle(&[&["config", "show"], &flags[..]].concat(), &[]));
    let path = write(folder.path(), &first);
    let second = printed(&coracle(&["config", "show", "--config", &path], &[]));
    assert_eq!(first, second);
    assert!(first.contains("nodes = 3\n"), "{first}");
}

#[test]
fn a_wrong_file_ends_the_start_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    for (text, part) in [
        ("nodes = 3\nsync = \"sometimes\"\n", "line 2: sync: possible values are always, never"),
        ("heartbeat = \"2s\"\n", "must be less than the shorter end of --election-timeout"),
        ("require-cluster = true\nephemeral = true\n", "note: --ephemeral is set by"),
    ] {
        let path = write(folder.path(), text);
        for words in [&["--config", &path][..], &["config", "show", "--config", &path]] {
            let refused = coracle(words, &[]);
            assert_eq!(refused.status.code(), Some(2), "{refused:?}");
            let told = String::from_utf8_lossy(&refused.stderr);
            assert!(told.contains(part) || words[0] == "config" && told.contains("cannot be used"), "{told}");
        }
    }
}

#[test]
fn a_bench_has_settings_apart_from_those_of_a_server() {
    let words =
        ["bench", "--nodes", "1", "--ephemeral", "--duration", "100ms", "--warmup", "0s", "-o", "json"];
    let variables = [("CORACLE_CONFIG", "/nowhere/at/all"), ("CORACLE_MAX_CONNECTIONS", "nonsense")];
    assert!(coracle(&words, &variables).status.success());
}
