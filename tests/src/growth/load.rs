//! Load of a measured server: the program's bench, a filler, and silent clients.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::Value;

use crate::live::{TIMEOUT, Talk, program};

/// The requests that a filler has in flight: enough for full batches, and below the limit of a
/// connection.
const WINDOW: u64 = 500;

/// Runs the program's own bench against the server: half puts, half gets, 64 clients. Returns its
/// figures by name.
pub(super) fn bench(address: SocketAddr, flags: &str) -> BTreeMap<String, f64> {
    let mut command = Command::new(program());
    command.args(["bench", "--connect", &address.to_string(), "-o", "json"]).args(flags.split_whitespace());
    let output = command.stderr(Stdio::inherit()).output().expect("the bench starts");
    assert!(output.status.success(), "the bench failed");
    let report: Value = serde_json::from_slice(&output.stdout).expect("a bench prints JSON");
    let mut figures = BTreeMap::new();
    for kind in ["put", "get"] {
        for (name, scale) in [("per_second", 1.0), ("p50_us", 1e-3), ("p99_us", 1e-3), ("errors", 1.0)] {
            let value = report[kind][name].as_f64().expect("a bench knows this figure");
            figures.insert(format!("{kind}_{}", name.replace("_us", "_ms")), value * scale);
        }
    }
    figures.insert("requests_per_second".into(), figures["put_per_second"] + figures["get_per_second"]);
    figures
}

/// Puts a value of 64 bytes to each of `keys` new keys.
pub(super) fn fill(address: SocketAddr, keys: u64) {
    let value = "v".repeat(64);
    let mut talk = Talk::open(address);
    let mut heard = 0;
    for first in (0..keys).step_by(usize::try_from(WINDOW).expect("a small number")) {
        let window = first..keys.min(first + WINDOW);
        let lines = window.map(|key| format!("{{\"key\":\"key:{key:012}\",\"value\":\"{value}\"}}\n"));
        talk.send(lines.collect::<String>());
        // One window is being answered while the next is in flight.
        while heard < first {
            expect_ok(&mut talk);
            heard += 1;
        }
    }
    (heard..keys).for_each(|_| expect_ok(&mut talk));
}

fn expect_ok(talk: &mut Talk) {
    let reply = talk.hear();
    assert!(reply.ends_with("\"status\":\"ok\"}"), "{reply}");
}

/// Connects clients that each put and get a value and are silent from then on. Returns as many of
/// them as the server and the operating system allow.
pub(super) fn silent_clients(address: SocketAddr, wanted: u64) -> Vec<TcpStream> {
    raise_file_limit();
    let mut clients = Vec::new();
    for _ in 0..wanted {
        match silent_client(address) {
            Ok(client) => clients.push(client),
            Err(_) => break,
        }
    }
    clients
}

fn silent_client(address: SocketAddr) -> io::Result<TcpStream> {
    let mut client = TcpStream::connect(address)?;
    client.set_read_timeout(Some(TIMEOUT))?;
    let value = "v".repeat(64);
    client.write_all(format!("{{\"key\":\"k\",\"value\":\"{value}\"}}\n{{\"key\":\"k\"}}\n").as_bytes())?;
    let (mut heard, mut bytes) = (String::new(), [0; 512]);
    while heard.matches('\n').count() < 2 {
        let len = client.read(&mut bytes)?;
        heard.push_str(&String::from_utf8_lossy(&bytes[..len]));
        if len == 0 || heard.contains("\"busy\"") {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
    }
    Ok(client)
}

/// Raises the limit of open files to the maximum.
fn raise_file_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Ignore the error: with a lower limit, fewer clients connect.
    _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}
