//! A server whose control group has few places for threads: it says so at the start, or it serves. Where this process may make no
//! control group, these stories say so on stderr and prove nothing.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use coracle_tests::both_runtimes;
use coracle_tests::live::{Nodes, Runtime, Setup, until};

/// Where control groups that limit processes are found, of the first and of the second version.
const PLACES: [&str; 2] = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"];

/// A control group of its own, gone when it is dropped.
struct Group(PathBuf);

impl Group {
    /// `None` where this process may make none.
    fn new(name: &str) -> Option<Self> {
        let made = PLACES.iter().find_map(|place| {
            let path = Path::new(place).join(format!("coracle-{name}-{}", std::process::id()));
            fs::create_dir(&path).ok()?;
            let group = Self(path);
            group.0.join("pids.max").exists().then_some(group)
        });
        if made.is_none() {
            eprintln!("skipped: this process may make no control group that limits threads");
        }
        made
    }

    /// No more threads than there are.
    fn close(&self) {
        let present = fs::read_to_string(self.0.join("pids.current")).expect("it is our group");
        self.set_max(present.trim().parse().expect("it is a number"));
    }

    fn set_max(&self, threads: u32) {
        fs::write(self.0.join("pids.max"), threads.to_string()).expect("it is our group");
    }

    /// Puts what follows into the group.
    fn tracer(&self) -> Vec<OsString> {
        let enter = format!("echo $$ > {}/cgroup.procs; exec \"$@\"", self.0.display());
        ["sh", "-c", &enter, "sh"].map(OsString::from).into()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        _ = fs::remove_dir(&self.0);
    }
}

/// Whatever the limit is, nothing hangs and nothing panics.
fn few_threads_are_named_or_enough(runtime: Runtime) {
    let Some(group) = Group::new(runtime.name()) else { return };
    for max in [1, 2, 3, 5, 8, 10, 12, 16, 20, 26] {
        group.set_max(max);
        let folder = tempfile::tempdir().expect("there is room for a folder");
        let mut server = Setup::in_folder(runtime, folder.path()).under(group.tracer()).launch();
        if server.becomes_ready() {
            let asked = server.connect().ask(r#"{"key":"a","value":1}"#);
            assert_eq!(asked["status"], "ok", "with {max}: {asked}");
            server.stop();
            continue;
        }
        let ended = server.wait();
        assert_eq!(ended.code, Some(6), "with {max}: {}", ended.stderr);
        assert!(ended.stderr.contains("the operating system gives"), "with {max}: {}", ended.stderr);
        assert!(max < 26, "{}", ended.stderr);
    }
}

/// A node that is added while its leader gets no more threads has to wait for its link, and nobody ends.
#[test]
fn a_link_that_finds_no_thread_is_told_and_begins_later() {
    let Some(group) = Group::new("link") else { return };
    group.set_max(200);
    let mut nodes = Nodes::new(&[Runtime::Threads]).under(group.tracer());
    nodes.launch(1, "");
    nodes.wait_until_ready(1);
    let mut talk = nodes.connect(1);
    assert_eq!(talk.ask(r#"{"key":"a","value":1}"#)["status"], "ok");
    group.close();
    let address = nodes.peer_address(2);
    let added = talk.ask(&format!(r#"{{"op":"member_add","node":2,"address":"{address}"}}"#));
    assert_eq!(added["status"], "ok", "{added}");
    until("the link that does not start is told", || {
        nodes.server(1).stderr().contains("has no connection to node 2: Resource temporarily unavailable")
    });
    assert_eq!(talk.ask(r#"{"key":"a","value":2}"#)["status"], "ok");
    group.set_max(200);
    let join = format!("--join {}", nodes.peer_address(1));
    let server = Setup::node(Runtime::Threads, 2, &nodes.folder(2)).with(&join).start();
    assert_eq!(server.connect().ask(r#"{"key":"a"}"#)["value"], 2);
    server.stop();
    nodes.stop(1);
}

both_runtimes!(few_threads_are_named_or_enough);
