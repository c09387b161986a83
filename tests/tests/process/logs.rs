//! Log lines of the real program: fields in JSON, and priorities for the journal.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

use coracle_tests::both_runtimes;
use coracle_tests::live::{Runtime, Setup, program, until};
use serde_json::Value;

both_runtimes!(lines_in_json_have_the_fields_of_their_events);

fn lines_in_json_have_the_fields_of_their_events(runtime: Runtime) {
    let server = Setup::in_memory(runtime).with("--nodes 3 --log-format json").start();
    until("there is a leader", || server.stderr().contains("became_leader"));
    let ended = server.stop();
    let lines: Vec<Value> = ended.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of =
        |event: &str| lines.iter().find(|line| line["event"] == event).unwrap_or_else(|| panic!("{event}"));
    assert!(lines.iter().all(|line| line["event"].is_string() && line["time"].is_string()), "{lines:?}");
    let leader = of("became_leader");
    assert!(leader["node"].is_u64() && leader["term"].as_u64() >= Some(1), "{leader}");
    assert!(leader["votes"].as_u64() >= Some(2), "{leader}");
    assert_eq!(of("leader_found")["leader"], leader["node"]);
    assert_eq!((&of("server_starts")["level"], lines.last()), (&"info".into(), Some(of("server_stopped"))));
}

/// Starts a server whose stderr is a file, which fails at once, and returns what it wrote.
fn written(words: &[&str], is_journal: bool) -> String {
    let place = tempfile::NamedTempFile::new().unwrap();
    let stderr = File::create(place.path()).unwrap();
    let status = stderr.metadata().unwrap();
    let inode = if is_journal { status.ino() } else { status.ino() + 1 };
    let ran = Command::new(program())
        .args(["--data-dir", "/dev/null/x", "--listen", "127.0.0.1:0"])
        .args(words)
        .env("JOURNAL_STREAM", format!("{}:{inode}", status.dev()))
        .stdout(Stdio::null())
        .stderr(stderr)
        .status()
        .unwrap();
    assert!(!ran.success());
    std::fs::read_to_string(place.path()).unwrap()
}

#[test]
fn lines_have_priorities_where_stderr_is_the_journal() {
    let is_prefixed = |text: &str| text.starts_with("<6>coracle ") && text.contains(" starts ");
    assert!(is_prefixed(&written(&[], true)));
    assert!(!is_prefixed(&written(&[], false)), "the variable is of another file");
    assert!(is_prefixed(&written(&["--log-format", "journal"], false)));
    assert!(written(&["--log-format", "json"], true).starts_with('{'));
}
