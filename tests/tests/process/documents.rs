//! The shell blocks of all documents, run against a cluster that serves and one that is down.
//!
//! A script that copies a block must not continue when the cluster is down, so no block that asks
//! the cluster may succeed then. The procedures of the guide that change a cluster run in `guide`.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

use coracle_tests::live::{Guide, Nodes, Runtime, Setup, Step, program, until};

const DOCUMENTS: [&str; 8] = [
    "README.md",
    "docs/command-line.md",
    "docs/files.md",
    "docs/operations.md",
    "docs/performance.md",
    "docs/protocol.md",
    "docs/recipes.md",
    "docs/three-machines.md",
];
/// Documents whose blocks all run, in order, on a server that serves.
const SHOWN: [&str; 5] =
    ["README.md", "docs/command-line.md", "docs/files.md", "docs/operations.md", "docs/recipes.md"];
/// Beginnings of commands that start a program or wait for the user's input, and ask no cluster by
/// themselves.
const STARTS: [&str; 5] = ["cargo ", "coracle node ", "coracle bench", "coracle client", "nc "];
/// Beginnings of commands that work on files or set a variable.
const READS_FILES: [&str; 8] = [
    "jq ",
    "coracle log ",
    "coracle restore ",
    "coracle cert ",
    "coracle man ",
    "coracle config ",
    "source <(coracle completions ",
    "export ",
];
/// Longer than a command waits for a cluster that does not answer. A loop that still waits then has
/// not succeeded.
const WAIT_SECONDS: &str = "7";

fn begins_with(step: &str, beginnings: &[&str]) -> bool {
    beginnings.iter().any(|beginning| step.starts_with(beginning))
}

/// Runs a command of a document in this folder, against the cluster at these addresses. `ssh` and
/// `sudo` do nothing, because every machine is this one.
fn run(command: &str, folder: &Path, connect: &str) -> Output {
    let programs = folder.join("bin");
    if !programs.exists() {
        fs::create_dir(&programs).expect("the folder is writable");
        symlink(program(), programs.join("coracle")).expect("a link can be made");
        for name in ["ssh", "sudo"] {
            symlink("/bin/true", programs.join(name)).expect("a link can be made");
        }
    }
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap_or_default());
    Command::new("timeout")
        .args([WAIT_SECONDS, "bash", "-c", command])
        .current_dir(folder)
        .env("PATH", path)
        .env("CORACLE_CONNECT", connect)
        .output()
        .expect("a shell starts")
}

/// Returns the command with the folder and file of a backup replaced by local ones.
fn here(command: &str, folder: &Path) -> String {
    command.replace("/backup/", &format!("{}/", folder.display())).replace("FILE", "backup.txt")
}

fn steps_and_rows(document: &str) -> Vec<String> {
    let document = Guide::document(document);
    let steps = document.all_procedures().concat().into_iter();
    let by_operator = steps.filter(|step| step.machine.is_none()).map(|step| step.command);
    by_operator.chain(document.commands_in_tables()).collect()
}

/// Returns three addresses at which nothing listens.
fn closed() -> String {
    let listeners: Vec<_> =
        (0..3).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port is free")).collect();
    let addresses = listeners.iter().map(|listener| listener.local_addr().expect("it is bound").to_string());
    addresses.collect::<Vec<_>>().join(",")
}

/// All commands that ask the cluster, each with its document.
fn questions() -> Vec<(&'static str, String)> {
    let all = DOCUMENTS
        .iter()
        .flat_map(|document| steps_and_rows(document).into_iter().map(move |command| (*document, command)));
    let asks = |command: &str| {
        command.contains("coracle ") && !begins_with(command, &STARTS) && !begins_with(command, &READS_FILES)
    };
    all.filter(|(_, command)| asks(command)).collect()
}

#[test]
fn no_block_succeeds_without_a_cluster() {
    let (folder, connect) = (tempfile::tempdir().unwrap(), closed());
    let questions = questions();
    assert!(questions.len() > 20, "{questions:?}");
    std::thread::scope(|scope| {
        for (number, (document, command)) in questions.iter().enumerate() {
            let (folder, connect) = (folder.path().join(number.to_string()), &connect);
            scope.spawn(move || {
                fs::create_dir(&folder).unwrap();
                let output = run(&here(command, &folder), &folder, connect);
                assert!(!output.status.success(), "{document}: {command}\n{output:?}");
            });
        }
    });
}

/// While one node is down, the checks of the guide that ask any node succeed, and those that ask
/// every node fail.
#[test]
fn the_checks_of_the_guide_see_a_node_that_is_down() {
    let mut nodes = Nodes::start(&[Runtime::Smol; 3]);
    nodes.settle();
    let folder = tempfile::tempdir().unwrap();
    let addresses: Vec<_> = nodes.addresses().iter().map(ToString::to_string).collect();
    let connect = addresses.join(",");
    let rows = Guide::read().commands_in_tables();
    let rows: Vec<_> = rows.iter().filter(|row| !begins_with(row, &READS_FILES)).collect();
    let succeed = || -> Vec<bool> {
        rows.iter().map(|row| run(row, folder.path(), &connect).status.success()).collect()
    };
    assert_eq!(succeed(), [true; 4], "{rows:?}");
    nodes.kill(1);
    let asks_any: Vec<_> = rows.iter().map(|row| !row.contains("status")).collect();
    assert_eq!(asks_any, [true, true, false, false], "{rows:?}");
    until("the others serve, and the loss is seen", || succeed() == asks_any);
}

/// Runs the blocks of a document, as they are shown, on a server of one node. Returns the number of
/// steps.
fn carry_out(document: &str) -> usize {
    let folder = tempfile::tempdir().unwrap();
    // With one node, every file that a document names exists, because node 0 takes the snapshot for
    // a backup.
    let setup = Setup::in_folder(Runtime::Smol, &folder.path().join("data")).with("--nodes 1");
    let server = setup.start();
    let connect = server.address().to_string();
    let prepare = "coracle put user '{}' --json && coracle backup first.txt && coracle delete user";
    assert!(run(prepare, folder.path(), &connect).status.success());
    let steps = Guide::document(document).all_procedures().concat();
    let steps: Vec<_> = steps.iter().filter(|step| !begins_with(&step.command, &STARTS)).collect();
    for Step { command, output, .. } in &steps {
        let ended = run(command, folder.path(), &connect);
        assert!(ended.status.success(), "{document}: {command}\n{ended:?}");
        let shown = String::from_utf8_lossy(&ended.stdout);
        assert!(output.is_empty() || shown.contains(output), "{document}: {command}\n{ended:?}");
    }
    server.stop();
    steps.len()
}

#[test]
fn every_block_succeeds_on_a_cluster_that_serves() {
    let steps: usize = SHOWN.into_iter().map(carry_out).sum();
    assert!(steps > 15, "{steps} steps");
}
