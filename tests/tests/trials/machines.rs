//! Simulated machines for network faults: network namespaces behind a bridge, each with a separate
//! address.

use std::ffi::OsString;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::run;

/// A network of machines, which is removed when it is dropped.
#[derive(Debug)]
pub(crate) struct Network {
    name: String,
    subnet: String,
    machines: usize,
}

impl Network {
    /// Creates this many machines, numbered from 1. Returns `None` if this process may not create
    /// any.
    pub(crate) fn new(machines: usize) -> Option<Self> {
        static NETWORKS: AtomicU32 = AtomicU32::new(0);
        let number = NETWORKS.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id() % 10_000;
        let subnet = format!("10.{}.{}", 100 + process % 100, (process / 100 + 20 * number) % 250);
        let network = Self { name: format!("co{process}x{number}"), subnet, machines };
        let (bridge, here) = (network.bridge(), format!("{}.254/24", network.subnet));
        let mut works = run(&["ip", "link", "add", &bridge, "type", "bridge"])
            && run(&["ip", "address", "add", &here, "dev", &bridge])
            && run(&["ip", "link", "set", &bridge, "up"]);
        for machine in 1..=machines {
            works = works && network.add(machine);
        }
        works.then_some(network)
    }

    fn add(&self, machine: usize) -> bool {
        let (space, link, address) = (self.space(machine), self.link(machine), self.address(machine));
        let address = format!("{address}/24");
        run(&["ip", "netns", "add", &space])
            && run(&["ip", "link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", &space])
            && run(&["ip", "link", "set", &link, "master", &self.bridge(), "up"])
            && self.run_on(machine, &["ip", "link", "set", "lo", "up"])
            && self.run_on(machine, &["ip", "address", "add", &address, "dev", "eth0"])
            && self.run_on(machine, &["ip", "link", "set", "eth0", "up"])
    }

    fn bridge(&self) -> String {
        format!("{}b", self.name)
    }

    fn space(&self, machine: usize) -> String {
        format!("{}n{machine}", self.name)
    }

    fn link(&self, machine: usize) -> String {
        format!("{}v{machine}", self.name)
    }

    /// The address at which other machines reach this one.
    pub(crate) fn address(&self, machine: usize) -> String {
        format!("{}.{machine}", self.subnet)
    }

    /// Returns the words to put before a program, so that it runs on this machine.
    pub(crate) fn enter(&self, machine: usize) -> Vec<OsString> {
        ["ip", "netns", "exec", &self.space(machine)].map(OsString::from).into()
    }

    /// Returns all machines, as [`Nodes`](coracle_tests::live::Nodes) expects them.
    pub(crate) fn all(&self) -> Vec<(String, Vec<OsString>)> {
        (1..=self.machines).map(|machine| (self.address(machine), self.enter(machine))).collect()
    }

    /// Runs a command on a machine. Returns whether it worked.
    pub(crate) fn run_on(&self, machine: usize, words: &[&str]) -> bool {
        let space = self.space(machine);
        run(&[&["ip", "netns", "exec", &space], words].concat())
    }

    /// Runs a command on a machine. Returns its output.
    pub(crate) fn told_by(&self, machine: usize, words: &[&str]) -> String {
        let output = Command::new("ip").args(["netns", "exec", &self.space(machine)]).args(words).output();
        String::from_utf8_lossy(&output.expect("ip starts").stdout).into_owned()
    }

    /// Limits what a machine sends to `rate` (in the notation of `tc`), behind a queue of
    /// `queue_ms`. Returns whether that is possible.
    pub(crate) fn slow_down(&self, machine: usize, rate: &str, queue_ms: u64) -> bool {
        let queue = format!("{queue_ms}ms");
        self.run_on(
            machine,
            &[
                "tc", "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", rate, "burst", "64kb", "latency",
                &queue,
            ],
        )
    }

    /// Returns the connections between two machines, as the first one lists them: `(own port, other
    /// port)`.
    pub(crate) fn connections(&self, machine: usize, other: usize) -> Vec<(u16, u16)> {
        let told =
            self.told_by(machine, &["ss", "-Htn", "state", "established", "dst", &self.address(other)]);
        let port = |address: &str| address.rsplit(':').next().and_then(|port| port.parse().ok());
        let ports = |line: &str| {
            let mut fields = line.split_whitespace().skip(2);
            Some((port(fields.next()?)?, port(fields.next()?)?))
        };
        told.lines().filter_map(ports).collect()
    }

    /// Drops everything that this connection of `machine` and `other` sends from now on, silently,
    /// like a firewall that has forgotten the connection. Returns whether that is possible.
    pub(crate) fn forget(&self, machine: usize, other: usize, (own_port, other_port): (u16, u16)) -> bool {
        let lose = |at: usize, to: usize, from_port: u16, to_port: u16| {
            let (to, from_port, to_port) = (self.address(to), from_port.to_string(), to_port.to_string());
            let rule = ["ip", "rule", "add", "blackhole", "to", &to, "ipproto", "tcp"];
            self.run_on(at, &[rule.as_slice(), &["sport", &from_port, "dport", &to_port]].concat())
        };
        lose(machine, other, own_port, other_port) && lose(other, machine, other_port, own_port)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for machine in 1..=self.machines {
            // This also removes the namespace's end of the link, and so the other end.
            run(&["ip", "netns", "del", &self.space(machine)]);
            run(&["ip", "link", "del", &self.link(machine)]);
        }
        run(&["ip", "link", "del", &self.bridge()]);
    }
}
