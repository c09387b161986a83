//! Notifications to a supervisor, with a socket of the test in its place, and the unit, the image
//! and the manifest that packagers and operators start from.

use std::ffi::OsString;
use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use coracle_tests::both_runtimes;
use coracle_tests::live::{Nodes, Runtime, Setup, TIMEOUT, program, signal, until};

both_runtimes!(
    a_supervisor_is_notified,
    a_node_without_a_leader_is_not_ready_for_its_supervisor,
    a_node_of_the_manifest_becomes_ready,
);

/// A command prefix that sets the variable for the socket.
fn notifying(socket: &str) -> Vec<OsString> {
    ["env", &format!("NOTIFY_SOCKET={socket}")].map(OsString::from).to_vec()
}

fn next(socket: &UnixDatagram) -> String {
    let mut bytes = [0; 4096];
    let len = socket.recv(&mut bytes).expect("a notification arrives");
    String::from_utf8(bytes[..len].to_vec()).unwrap()
}

/// The next notification that is no status.
fn next_state(socket: &UnixDatagram) -> (String, Vec<String>) {
    let mut statuses = Vec::new();
    loop {
        let text = next(socket);
        match text.strip_prefix("STATUS=") {
            Some(status) => statuses.push(status.to_owned()),
            None => return (text, statuses),
        }
    }
}

fn a_supervisor_is_notified(runtime: Runtime) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let name = format!("coracle-{}-{}", runtime.name(), std::process::id());
    let of_path = UnixDatagram::bind(&path).unwrap();
    let of_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    for (socket, name) in [(of_path, path.to_str().unwrap().to_owned()), (of_name, format!("@{name}"))] {
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        let setup = Setup::in_memory(runtime).with("--nodes 3 --ready-when answering");
        let server = setup.under(notifying(&name)).start();
        let (state, mut statuses) = next_state(&socket);
        assert_eq!(state, "READY=1");
        // The nodes report it in any order.
        if statuses.is_empty() {
            statuses.push(next(&socket).trim_start_matches("STATUS=").to_owned());
        }
        let is_about_a_leader = |status: &String| status.contains("leader") && status.contains("in term");
        assert!(!statuses.is_empty() && statuses.iter().all(is_about_a_leader), "{statuses:?}");
        signal(server.pid(), "TERM");
        assert_eq!(next_state(&socket).0, "STOPPING=1");
        assert_eq!(server.wait().code, Some(0));
    }
}

fn a_node_without_a_leader_is_not_ready_for_its_supervisor(runtime: Runtime) {
    let nodes = Nodes::new(&[runtime; 3]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    let setup = nodes.setup(1).with("--ready-when answering").under(notifying(path.to_str().unwrap()));
    let server = setup.launch();
    until("it waits", || server.stderr().contains("waits for nodes 2, 3"));
    signal(server.pid(), "TERM");
    let (state, statuses) = next_state(&socket);
    assert_eq!((state.as_str(), statuses), ("STOPPING=1", Vec::new()));
}

fn contrib(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../contrib").join(name)
}

/// Runs a program of the machine; `None`: the machine does not have it.
fn machine(words: &[&str]) -> Option<Output> {
    let ran = Command::new(words[0]).args(&words[1..]).output();
    if ran.is_err() {
        eprintln!("skipped: this machine has no {}", words[0]);
    }
    ran.ok()
}

#[test]
fn the_unit_is_valid() {
    let text = fs::read_to_string(contrib("systemd/coracle.service")).unwrap();
    let installed = "/usr/local/bin/coracle";
    assert!(text.contains(&format!("ExecStart={installed} node --config /etc/coracle/coracle.toml")));
    let folder = tempfile::tempdir().unwrap();
    let unit = folder.path().join("coracle.service");
    // The program is where this test finds it, and the manual is not installed.
    let text = text.replace(installed, program().to_str().unwrap()).replace("User=coracle", "User=root");
    let lines = text.lines().filter(|line| !line.starts_with("Documentation="));
    fs::write(&unit, lines.collect::<Vec<_>>().join("\n") + "\n").unwrap();
    let Some(checked) = machine(&["systemd-analyze", "verify", unit.to_str().unwrap()]) else { return };
    let told = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success() && !told.contains("coracle.service"), "{told}");
}

#[test]
fn the_settings_of_the_unit_start_a_node() {
    let settings = contrib("coracle.toml");
    let words = ["config", "show", "--origin", "node", "--config", settings.to_str().unwrap()];
    let shown = Command::new(program()).args(words).output().unwrap();
    let text = String::from_utf8_lossy(&shown.stdout);
    assert!(shown.status.success() && text.contains("id = 1 "), "{shown:?}");
}

/// Variables of client commands, and one that a comment names.
const OF_CLIENTS: [&str; 2] = ["CORACLE_INSECURE", "CORACLE_TOKEN_FROM"];

/// The names of the program's flags and variables that a text uses.
fn variables(text: &str) -> Vec<&str> {
    let is_part = |symbol: char| symbol.is_ascii_uppercase() || symbol == '_';
    let words = text.split(|symbol: char| !is_part(symbol));
    words.filter(|word| word.starts_with("CORACLE_")).collect()
}

#[test]
fn the_image_and_the_manifest_use_settings_that_exist() {
    let show = |words: &[&str]| {
        let mut command = Command::new(program());
        names(&ran(command.args(["config", "show", "--json"]).args(words)))
    };
    let known = [show(&["serve"]), show(&["node", "--id", "1"])].concat();
    for name in ["Containerfile", "kubernetes.yaml"] {
        let text = fs::read_to_string(contrib(name)).unwrap();
        let used = variables(&text);
        assert!(!used.is_empty());
        for variable in used.iter().filter(|variable| !OF_CLIENTS.contains(variable)) {
            assert!(known.iter().any(|known| known == variable), "{name}: {variable}");
        }
    }
    let manifest = fs::read_to_string(contrib("kubernetes.yaml")).unwrap();
    for probe in manifest.lines().filter_map(|line| line.split_once("exec: {command: [")) {
        let words: Vec<_> = probe.1.trim_end_matches("]}").split(", ").skip(1).collect();
        let probed =
            Command::new(program()).args(&words).args(["--connect", "127.0.0.1:1"]).output().unwrap();
        assert_eq!(probed.status.code(), Some(6), "{words:?}: {probed:?}");
    }
}

fn ran(command: &mut Command) -> String {
    String::from_utf8(command.output().unwrap().stdout).unwrap()
}

/// The variables of the settings in the output of `config show --json`.
fn names(json: &str) -> Vec<String> {
    let name = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        format!("CORACLE_{}", line["name"].as_str().unwrap().to_uppercase().replace('-', "_"))
    };
    json.lines().map(name).collect()
}

/// The commands in the manifest's comment make the files that its server and probes read.
fn a_node_of_the_manifest_becomes_ready(runtime: Runtime) {
    let manifest = fs::read_to_string(contrib("kubernetes.yaml")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let script = manifest.lines().filter_map(|line| line.strip_prefix("#   "));
    let script: Vec<_> = script.filter(|line| !line.starts_with("kubectl")).collect();
    assert_eq!(script.len(), 4, "{script:?}");
    let coracle = format!("coracle() {{ {} \"$@\"; }}\nset -e\n", program().display());
    let mut shell = Command::new("bash");
    let script = coracle + &script.join("\n");
    let made = shell.args(["-c", &script]).current_dir(folder.path()).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let here = |text: &str| text.replace("/certs/", &format!("{}/certs/", folder.path().display()));
    let flags = manifest.lines().filter_map(|line| line.trim().strip_prefix("- --"));
    let flags =
        flags.map(|flag| here(&format!("--{}", flag.replace("$(CORACLE_ID)", "0").replace('=', " "))));
    let flags = flags.collect::<Vec<_>>().join(" ");
    let nodes = Nodes::new(&[runtime]);
    let peers = format!("--peers 0={} {flags}", nodes.peer_address(1));
    let server = Setup::node(runtime, 0, &folder.path().join("data")).with(&peers).start();
    let variables = ["CORACLE_TLS_CA", "CORACLE_TOKEN_FROM"].map(|name| {
        let (_, rest) = manifest.split_once(&format!("name: {name}, value: ")).unwrap();
        (name, here(rest.split('}').next().unwrap()))
    });
    until("it is ready", || {
        let mut probe = Command::new(program());
        let address = server.address().to_string();
        probe.args(["health", "--ready", "--connect", &address]).envs(variables.clone());
        probe.output().unwrap().status.success()
    });
}

/// Builds the image from the program, where the machine has buildah. An image is a matter of its
/// settings here: this program is not static.
#[test]
fn the_image_can_be_built() {
    let (context, store) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::copy(program(), context.path().join("coracle")).unwrap();
    let file = contrib("Containerfile");
    let store = store.path().to_str().unwrap();
    let at = ["buildah", "--storage-driver", "vfs", "--root", store, "--runroot", store];
    let build = ["build", "--isolation", "chroot", "--format", "docker", "-t", "coracle", "-f"];
    let words = [&at[..], &build, &[file.to_str().unwrap(), context.path().to_str().unwrap()]].concat();
    let Some(built) = machine(&words) else { return };
    let told = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "{told}");
    let Some(inspected) = machine(&[&at[..], &["inspect", "--type", "image", "coracle"]].concat()) else {
        return;
    };
    let image: serde_json::Value = serde_json::from_slice(&inspected.stdout).unwrap();
    let config = &image["Docker"]["config"];
    assert_eq!(config["Healthcheck"]["Test"][2], "health", "{config}");
    assert_eq!((&config["User"], &config["Entrypoint"][0]), (&"65532:65532".into(), &"/coracle".into()));
}
