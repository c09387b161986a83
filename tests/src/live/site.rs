//! Execution of the guide's steps: simulates the guide's machines by folders and processes of this
//! one.
//!
//! Fixed rules map a step to this machine; the rest of it is unchanged:
//!
//! | in the guide | here |
//! | --- | --- |
//! | `10.0.0.N:4001`, `10.0.0.N:3001` | a loopback address that no other site has, with ports 4000 + N and 3000 + N |
//! | `/var/lib/…`, `/backup/…` | folders of machine N, or of the site |
//! | `/etc/coracle/…` | the folder in which the operator has made the certificates |
//! | `$SECURED` | the flags that the guide states, with the id of the node |
//! | machine 12 | machine 2 with another address |
//! | `$(date +%F)` | `2026-01-31` |
//! | `coracle node …` on a machine | a process, started and awaited until it is ready |
//! | `systemctl` on a machine | the process that the guide's unit file describes |
//! | `export …` | its variables are set for all later commands |
//! | anything else | `bash`, with `ssh` and `sudo` scripts that run the rest of the line |
//!
//! Connections of the tests reach the nodes through relays, which speak TLS with the certificate of
//! the guide's operator.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::certificates::{caller_in, start_relay};
use super::nodes::own_host;
use super::{Ended, Guide, Runtime, Server, Setup, Step, TIMEOUT, Talk, program, until};

/// The scripts that replace `ssh HOST COMMAND` and `sudo COMMAND`.
const SSH: &str = "#!/bin/bash\nexport SITE_MACHINE=${1##*.}\nshift\nexec \"$@\"\n";
const SUDO: &str = "#!/bin/bash\nexec \"$@\"\n";
/// The script that replaces `systemctl`: it asks the site, which manages the processes.
const SYSTEMCTL: &str = "#!/bin/bash\nexec 3<>/dev/tcp/127.0.0.1/$SITE_PORT\necho \"$SITE_MACHINE $*\" >&3\n\
                         read -r code <&3\nexit \"$code\"\n";

/// The simulated machines and their processes. Dropping it kills all processes.
#[derive(Debug)]
pub struct Site {
    folder: tempfile::TempDir,
    machines: Arc<Mutex<Machines>>,
    /// The port that `systemctl` uses.
    port: u16,
}

#[derive(Debug)]
struct Machines {
    folder: PathBuf,
    host: String,
    runtime: Runtime,
    /// The command of the guide's unit file.
    unit: String,
    /// The flags that `$SECURED` stands for.
    security: String,
    /// The commands that set variables, so far.
    exports: String,
    /// The relays to the client ports.
    relays: BTreeMap<SocketAddr, SocketAddr>,
    /// The id of the node that was last started manually on each machine. The unit uses the same
    /// id.
    ids: BTreeMap<u64, u64>,
    running: BTreeMap<u64, Server>,
}

/// The machine at an address: `10.0.0.12` is where machine 2 moved to.
fn machine_at(number: u64) -> u64 {
    number % 10
}

impl Site {
    /// Creates machines on which nothing runs yet.
    ///
    /// # Panics
    ///
    /// When files or ports are not available.
    #[must_use]
    pub fn new(guide: &Guide, runtime: Runtime) -> Self {
        let folder = tempfile::tempdir().expect("there is room for a folder");
        let programs = folder.path().join("bin");
        for name in ["bin", "backup"] {
            fs::create_dir(folder.path().join(name)).expect("a new folder is empty");
        }
        symlink(program(), programs.join("coracle")).expect("a link can be made");
        for (name, text) in [("ssh", SSH), ("sudo", SUDO), ("systemctl", SYSTEMCTL)] {
            fs::write(programs.join(name), text).expect("there is room");
            let permissions = fs::Permissions::from_mode(0o755);
            fs::set_permissions(programs.join(name), permissions).expect("the file is there");
        }
        let machines = Machines {
            folder: folder.path().to_owned(),
            host: own_host(),
            runtime,
            unit: guide.unit_command(),
            security: guide.security_flags(),
            exports: String::new(),
            relays: BTreeMap::new(),
            ids: BTreeMap::new(),
            running: BTreeMap::new(),
        };
        let machines = Arc::new(Mutex::new(machines));
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let controlled = Arc::clone(&machines);
        thread::spawn(move || while answer_systemctl(&listener, &controlled).is_some() {});
        Self { folder, machines, port }
    }

    fn machines(&self) -> MutexGuard<'_, Machines> {
        self.machines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Executes these steps, one after the other.
    ///
    /// # Panics
    ///
    /// When a step fails, or prints something else than the guide shows.
    pub fn run(&self, steps: &[Step]) {
        for step in steps {
            let number = step.machine.unwrap_or(0);
            if step.command.starts_with("coracle node ") {
                self.machines().start(number, &step.command);
            } else if step.command.starts_with("export ") {
                self.machines().exports += &format!("{}\n", step.command);
            } else {
                self.run_in_shell(number, step);
            }
        }
    }

    fn run_in_shell(&self, number: u64, step: &Step) {
        let (script, connect) = {
            let machines = self.machines();
            let all = "10.0.0.1:3001,10.0.0.2:3001,10.0.0.3:3001";
            let script = format!("{}{}", machines.exports, machines.here(number, &step.command));
            (script, machines.here(0, all))
        };
        let path = std::env::var("PATH").unwrap_or_default();
        let output = Command::new("timeout")
            .args([&TIMEOUT.as_secs().to_string(), "bash", "-c", &script])
            .current_dir(self.folder.path())
            .env("PATH", format!("{}:{path}", self.folder.path().join("bin").display()))
            .env("CORACLE_CONNECT", connect)
            .env("SITE_MACHINE", number.to_string())
            .env("SITE_PORT", self.port.to_string())
            .output()
            .expect("a shell starts");
        let (stdout, stderr) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{script}\n{stdout}{stderr}");
        if step.output == "ok\n" {
            assert_eq!(stdout, step.output, "{script}\n{stderr}");
        }
    }

    /// Stops the nodes that were started manually, and starts them by their units.
    pub fn hand_over_to_units(&self, numbers: &[u64]) {
        for number in numbers {
            let mut machines = self.machines();
            machines.take(*number).stop();
            machines.start_unit(*number);
        }
    }

    /// Kills the node of a machine and deletes its disk.
    ///
    /// # Panics
    ///
    /// When no node runs there.
    pub fn lose_disk(&self, number: u64) {
        let mut machines = self.machines();
        machines.take(number).kill();
        fs::remove_dir_all(machines.disk(number)).expect("it is there");
    }

    /// Kills the node of a machine.
    pub fn kill(&self, number: u64) {
        self.machines().take(number).kill();
    }

    /// Stops the nodes of all machines by SIGTERM.
    pub fn stop_all(&self) {
        let running = std::mem::take(&mut self.machines().running);
        running.into_values().for_each(|server| {
            server.stop();
        });
    }

    /// Starts the unit of a machine whose node cannot serve. Returns its end.
    #[must_use]
    pub fn fail_unit(&self, number: u64) -> Ended {
        let mut machines = self.machines();
        let setup = machines.unit_setup(number);
        machines.running.remove(&number);
        setup.launch().wait()
    }

    /// Addresses at which these machines can be reached by plain text.
    #[must_use]
    pub fn addresses(&self, numbers: &[u64]) -> Vec<SocketAddr> {
        let mut machines = self.machines();
        numbers.iter().map(|number| machines.relay_to(*number)).collect()
    }

    /// The peer address of a machine.
    #[must_use]
    pub fn peer_address(&self, number: u64) -> String {
        self.machines().here(0, &format!("10.0.0.{number}:4001"))
    }

    /// A connection to the node of a machine.
    #[must_use]
    pub fn connect(&self, number: u64) -> Talk {
        Talk::open(self.addresses(&[number])[0])
    }

    /// The members, as `(id, role, address)`.
    ///
    /// # Panics
    ///
    /// When the node of machine `through` does not list them.
    #[must_use]
    pub fn members(&self, through: u64) -> Vec<(u64, String, String)> {
        let reply = self.connect(through).ask(r#"{"op":"members"}"#);
        let rows = reply["members"].as_array().unwrap_or_else(|| panic!("{reply}"));
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        rows.iter()
            .map(|row| (row["id"].as_u64().unwrap_or_default(), text(&row["role"]), text(&row["address"])))
            .collect()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.machines().running.clear();
        // An empty connection ends the thread that answers, if it still runs. Otherwise the error
        // is ignored.
        _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl Machines {
    /// Returns the address of the relay to the client port of a machine.
    fn relay_to(&mut self, number: u64) -> SocketAddr {
        let text = self.here(0, &format!("10.0.0.{number}:3001"));
        let port: SocketAddr = text.parse().unwrap_or_else(|_| panic!("no address: {text}"));
        let folder = self.certificates();
        *self.relays.entry(port).or_insert_with(|| start_relay(caller_in(&folder, "operator"), port))
    }

    fn certificates(&self) -> PathBuf {
        self.folder.join("certs")
    }

    /// Maps a text of the guide to this machine.
    fn here(&self, number: u64, text: &str) -> String {
        let mut here = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("10.0.0.") {
            let digits = after.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(after.len());
            let (host, behind) = after.split_at(digits);
            here += before;
            rest = behind;
            let port = [(":4001", 4000), (":3001", 3000)]
                .into_iter()
                .find_map(|(port, base)| Some((behind.strip_prefix(port)?, base)));
            match (port, host.parse::<u16>()) {
                (Some((behind, base)), Ok(host)) => {
                    here += &format!("{}:{}", self.host, base + host);
                    rest = behind;
                }
                _ => here += &format!("10.0.0.{host}"),
            }
        }
        here += rest;
        let here = match here.split_once("--host 10.0.0.") {
            Some((before, after)) => {
                let after = after.trim_start_matches(|letter: char| letter.is_ascii_digit());
                format!("{before}--host {}{after}", self.host)
            }
            None => here,
        };
        here.replace("/etc/coracle/", &format!("{}/", self.certificates().display()))
            .replace("/var/lib/", &format!("{}/", self.disk(number).display()))
            .replace("/backup/", &format!("{}/backup/", self.folder.display()))
            .replace("$(date +%F)", "2026-01-31")
    }

    fn disk(&self, number: u64) -> PathBuf {
        self.folder.join(format!("machine{}", machine_at(number)))
    }

    /// The setup of a command that starts a node.
    fn setup(&self, number: u64, command: &str) -> Setup {
        let here = self.here(number, &command.replace("$SECURED", &self.security));
        let mut words = here.split_whitespace().skip(2);
        let (mut id, mut folder, mut flags) = (None, None, String::new());
        while let Some(word) = words.next() {
            match word {
                "--id" => id = words.next().and_then(|id| id.parse().ok()),
                "--data-dir" => folder = words.next(),
                _ => flags += &format!(" {word}"),
            }
        }
        let (Some(id), Some(folder)) = (id, folder) else { panic!("no id or folder in {command}") };
        Setup::node(self.runtime, id, Path::new(folder)).with(&flags.replace("/nodeN", &format!("/node{id}")))
    }

    /// Starts a node manually. It is the node of that machine from then on.
    fn start(&mut self, number: u64, command: &str) {
        let is_free = self.running.get_mut(&machine_at(number)).is_none_or(Server::has_ended);
        assert!(is_free, "a node runs on machine {number}: {command}");
        let (_, rest) = command.split_once("--id ").expect("a node has an id");
        let id = rest.split(' ').next().and_then(|id| id.parse().ok()).expect("an id is a number");
        self.ids.insert(number, id);
        let server = self.setup(number, command).start();
        self.running.insert(machine_at(number), server);
    }

    fn unit_setup(&self, number: u64) -> Setup {
        let id = self.ids[&number];
        let unit = self.unit.replace("--id 1 ", &format!("--id {id} "));
        let unit = unit.replace("/node1", &format!("/node{id}"));
        self.setup(number, &unit.replace("10.0.0.1:", &format!("10.0.0.{number}:")))
    }

    fn start_unit(&mut self, number: u64) {
        let server = self.unit_setup(number).start();
        self.running.insert(machine_at(number), server);
    }

    fn take(&mut self, number: u64) -> Server {
        self.running.remove(&machine_at(number)).unwrap_or_else(|| panic!("nothing runs on machine {number}"))
    }

    /// Executes an order of `systemctl`. Returns its exit code.
    fn systemctl(&mut self, number: u64, order: &str) -> i32 {
        match order {
            "stop coracle" | "disable --now coracle" => {
                // The process may have ended by itself, as a removed node does.
                let Some(mut server) = self.running.remove(&machine_at(number)) else { return 0 };
                if !server.has_ended() {
                    super::signal(server.pid(), "TERM");
                }
                until("the unit's process ends", || server.has_ended());
            }
            "restart coracle" => {
                self.take(number).stop();
                self.start_unit(number);
            }
            _ => return 1,
        }
        0
    }
}

/// Answers one order; `None` at the end.
fn answer_systemctl(listener: &TcpListener, machines: &Mutex<Machines>) -> Option<()> {
    let (mut stream, _) = listener.accept().ok()?;
    let mut line = String::new();
    BufReader::new(stream.try_clone().ok()?).read_line(&mut line).ok()?;
    let (number, order) = line.trim_end().split_once(' ')?;
    let mut machines = machines.lock().unwrap_or_else(PoisonError::into_inner);
    let code = machines.systemctl(number.parse().ok()?, order);
    writeln!(stream, "{code}").ok()
}
