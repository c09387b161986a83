//! The example clients of docs/clients, run against a real server. A client whose interpreter is
//! missing is skipped with a message.

use std::path::Path;
use std::process::Command;

use coracle_tests::both_runtimes;
use coracle_tests::live::{Runtime, Setup};

/// The interpreter, the file, and the text that each line of the output must contain: put, get, a
/// write, its retry, another write.
const CLIENTS: [(&str, &str, [&str; 5]); 3] = [
    ("python3", "client.py", ["put ok", "get chips", "first ok", "retry ok", "again cas_mismatch"]),
    ("node", "client.mjs", ["put ok", "get chips", "first ok", "retry ok", "again cas_mismatch"]),
    ("sh", "client.sh", [OK, r#""value":"chips""#, OK, OK, r#""error":"cas_mismatch""#]),
];
const OK: &str = r#""status":"ok""#;

/// Returns whether the client can run here: its interpreter exists, and for the shell client also
/// an `nc` that ends after the last reply.
fn is_available(interpreter: &str) -> bool {
    let check = match interpreter {
        "sh" => "nc -h 2>&1 | grep -q -e -N".to_owned(),
        _ => format!("command -v {interpreter}"),
    };
    let found = Command::new("sh").args(["-c", &check]).output();
    found.expect("a shell starts").status.success()
}

fn every_client_puts_gets_and_retries(runtime: Runtime) {
    let server = Setup::in_memory(runtime).start();
    let (host, port) = (server.address().ip().to_string(), server.address().port().to_string());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/clients");
    for (interpreter, file, expected) in CLIENTS {
        if !is_available(interpreter) {
            eprintln!("skipped {file}: it needs {interpreter}, and for the shell an nc with -N");
            continue;
        }
        let client = Command::new(interpreter).arg(folder.join(file)).args([&host, &port]).output();
        let output = client.expect("the client starts");
        assert!(output.status.success(), "{file}: {output:?}");
        let shown = String::from_utf8_lossy(&output.stdout);
        let lines: Vec<_> = shown.lines().collect();
        assert_eq!(lines.len(), expected.len(), "{file}: {output:?}");
        for (line, part) in lines.into_iter().zip(expected) {
            assert!(line.contains(part), "{file}: {line} lacks {part}");
        }
    }
    server.stop();
}

both_runtimes!(every_client_puts_gets_and_retries);
