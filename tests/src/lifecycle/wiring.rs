//! Dialing, handshakes and frames between processes. A connection carries bytes in order, in one
//! direction, until it breaks.

use coracle_core::host::{DialError, HostInput, Link, LinkChange, PeerActions, PeerNews, SearchStep};
use coracle_core::peer::{HandshakeResult, KnownMembers, Welcome};
use coracle_core::raft::NodeId;

use super::checks::violation;
use super::machine::{Process, Seat, Stage};
use super::world::{SimEvent, World};
use crate::simulator::invariants::Verdict;

/// The typical latency of bytes, in microseconds.
const LATENCY: u64 = 300;

/// A connection from a link of one process to another process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Connection {
    pub(super) from: usize,
    pub(super) from_boot: u64,
    /// The node to which the link leads.
    node: NodeId,
    pub(super) to: usize,
    pub(super) to_boot: u64,
    /// The arrival time of the last bytes; later ones do not overtake them.
    busy_until: u64,
}

impl World {
    /// Returns the machine that answers at this address, if a process runs there and the network is
    /// open in both directions.
    fn reachable(&self, from: usize, address: &str) -> Option<usize> {
        let answers = |machine: &super::machine::Machine| {
            machine.addresses.iter().any(|known| **known == *address) && machine.process.is_some()
        };
        let to = self.machines.iter().position(answers)?;
        let is_closed = self.closed_machine() == Some(to);
        (!is_closed && self.is_open(from, to) && self.is_open(to, from)).then_some(to)
    }

    /// Returns the machine that is reached when the process on `from` dials.
    pub(super) fn dialled(&self, from: usize, node: Option<NodeId>, address: &str) -> Option<usize> {
        let dialler = self.machines[from].process.as_ref()?;
        self.reachable(from, &dialler.directory.address_to_dial(node, address))
    }

    /// Performs a handshake, both lines at once. The listening side gets a connection if frames may
    /// follow.
    fn shake_hands(
        &mut self,
        from: usize,
        node: Option<NodeId>,
        address: &str,
    ) -> Result<(usize, HandshakeResult, Welcome), DialError> {
        let refused = || DialError::Failed("connection refused".into());
        let dialler = self.machines[from].process.as_ref().ok_or_else(refused)?;
        let hello = dialler.directory.hello(node);
        let to = self.dialled(from, node, address).ok_or_else(refused)?;
        let now = self.local(to);
        let listener = self.machines[to].process.as_mut().ok_or_else(refused)?;
        let mut actions = PeerActions::default();
        let greeting = listener.directory.greet(&hello, now, &mut actions);
        self.carry_out_for_directory(to, actions);
        let now_there = self.local(from);
        let dialler = self.machines[from].process.as_mut().ok_or_else(refused)?;
        let (handshake, welcome) = dialler.directory.accept(node, &greeting.reply, now_there)?;
        if let Some(seen) = greeting.handshake.filter(|_| handshake.is_of_cluster) {
            self.connect(from, to, &handshake, seen);
        }
        Ok((to, handshake, welcome))
    }

    fn connect(&mut self, from: usize, to: usize, handshake: &HandshakeResult, seen: HandshakeResult) {
        self.last_connection += 1;
        let number = self.last_connection;
        let boot = |machine: usize| self.machines[machine].process.as_ref().map_or(0, |process| process.boot);
        let (from_boot, to_boot) = (boot(from), boot(to));
        let node = handshake.node;
        let connection = Connection { from, from_boot, node, to, to_boot, busy_until: self.now };
        self.connections.insert(number, connection);
        let (now, mut actions) = (self.local(to), PeerActions::default());
        if let Some(listener) = self.machines[to].process.as_mut()
            && let Some(inbound) = listener.directory.admit(seen, number, now, &mut actions)
        {
            listener.inbound.retain(|_, older| older.node() != inbound.node());
            listener.inbound.insert(number, inbound);
        }
        self.carry_out_for_directory(to, actions);
    }

    /// Dials for a link.
    pub(super) fn dial(&mut self, machine: usize, boot: u64, node: NodeId, generation: u64) -> Verdict {
        let Some(process) = self.process_of(machine, boot) else { return Ok(()) };
        let Some(seat) = process.links.get(&node) else { return Ok(()) };
        if seat.generation != generation || seat.link.is_up() || seat.link.is_over() {
            return Ok(());
        }
        let address = seat.address.clone();
        let outcome = self.shake_hands(machine, Some(node), &address);
        if let Err(failure) = &outcome {
            self.call_failed(machine, Some(node), &address, failure)?;
        }
        let number = self.last_connection;
        let (now, mut news) = (self.local(machine), Vec::new());
        let Some(process) = self.process_of(machine, boot) else { return Ok(()) };
        let Some(seat) = process.links.get_mut(&node) else { return Ok(()) };
        let failure = match outcome {
            Ok((_, handshake, _)) if handshake.is_of_cluster => {
                if seat.link.go_up(&handshake, now, &mut news) {
                    seat.connection = Some(number);
                    process.forwarder.connected(handshake.node, handshake.incarnation);
                }
                None
            }
            Ok(_) => Some(DialError::NotReady),
            Err(failure) => Some(failure),
        };
        if let Some(failure) = failure {
            let pause = seat.link.failed(failure, &mut news);
            let pause = u64::try_from(pause.as_micros()).unwrap_or(u64::MAX);
            self.schedule(1 + pause, SimEvent::Dial { machine, boot, node, generation });
        }
        self.spread(machine, news)
    }

    /// Processes the events of a connection.
    fn spread(&mut self, machine: usize, news: Vec<PeerNews>) -> Verdict {
        for item in news {
            match item {
                PeerNews::Node(input) => self.hand(machine, input),
                PeerNews::Removed(refusal) => {
                    self.sight("a removed node heard of it in a handshake");
                    self.hears_of_its_removal(machine, refusal);
                }
                PeerNews::Report(event) => self.tell(|| format!("m{machine} {event}")),
                PeerNews::Router(_) => {}
            }
        }
        Ok(())
    }

    /// Carries out the link changes of a directory, and processes its events.
    pub(super) fn carry_out_for_directory(&mut self, machine: usize, actions: PeerActions) {
        for change in actions.links {
            let Some(process) = self.machines[machine].process.as_mut() else { return };
            let boot = process.boot;
            match change {
                LinkChange::Start(node, address) => {
                    self.last_generation += 1;
                    let generation = self.last_generation;
                    let seed = u64::from(self.dice.below(u32::MAX));
                    let timeout = self.settings.election_timeout_min;
                    if let Some(process) = self.machines[machine].process.as_mut() {
                        let link = Link::new(process.id, node, seed, timeout).with_memory(&process.memory);
                        let seat = Seat { link, address, connection: None, generation };
                        process.links.insert(node, seat);
                    }
                    self.schedule(1, SimEvent::Dial { machine, boot, node, generation });
                }
                LinkChange::End(node) => {
                    let mut news = Vec::new();
                    if let Some(mut seat) = process.links.remove(&node) {
                        seat.link.end(&mut news);
                    }
                    // A link that ends has no event except that it is down.
                    let _ = self.spread(machine, news);
                }
            }
        }
        // None of these events is a removal.
        let _ = self.spread(machine, actions.news);
    }

    /// Sends the contents of a process's outboxes.
    pub(super) fn flush(&mut self, machine: usize) {
        let now = self.local(machine);
        let Some(process) = self.machines[machine].process.as_mut() else { return };
        let mut sent = Vec::new();
        for seat in process.links.values_mut().filter(|seat| seat.link.is_up() && seat.link.has_work()) {
            let Some(number) = seat.connection else { continue };
            while seat.link.has_work() {
                let mut bytes = Vec::new();
                seat.link.drain(now, &mut bytes);
                seat.link.sent();
                sent.push((number, bytes));
            }
        }
        for (number, bytes) in sent {
            let delay = LATENCY / 2 + self.dice.exponential(LATENCY);
            let Some(connection) = self.connections.get_mut(&number) else { continue };
            let at = (self.now + delay).max(connection.busy_until);
            // When sent in two pieces, the second arrives one microsecond later.
            connection.busy_until = at + 1;
            self.deliver(number, at, bytes);
        }
    }

    /// Delivers bytes, unless the connection turns out to be gone.
    pub(super) fn arrive(&mut self, number: u64, bytes: &[u8]) -> Verdict {
        let Some(connection) = self.connections.get(&number).copied() else { return Ok(()) };
        let Connection { from, to, to_boot, .. } = connection;
        let is_open = self.is_open(from, to);
        let Some(process) = self.process_of(to, to_boot).filter(|_| is_open) else {
            self.break_connection(number);
            return Ok(());
        };
        let Some(inbound) = process.inbound.get_mut(&number) else {
            self.break_connection(number);
            return Ok(());
        };
        match inbound.receive(bytes) {
            Ok(received) => {
                if let Some(input) = received.input {
                    self.maybe_repeat(connection, &input);
                    self.hand(to, input);
                }
                self.hear_answers(from, received.answers)?;
                if !received.reply.is_empty() {
                    let delay = LATENCY / 2 + self.dice.exponential(LATENCY);
                    self.schedule(delay, SimEvent::Hear { number, bytes: received.reply });
                }
            }
            Err(fault) => {
                let what = format!("machine {to} understands nothing of what {from} sends: {fault}");
                return violation("frames", what);
            }
        }
        Ok(())
    }

    /// Delivers a reply of the listening side.
    pub(super) fn hear(&mut self, number: u64, bytes: &[u8]) -> Verdict {
        let Some(connection) = self.connections.get(&number).copied() else { return Ok(()) };
        let Connection { from, from_boot, node, to, .. } = connection;
        if !self.is_open(to, from) {
            self.break_connection(number);
            return Ok(());
        }
        let now = self.local(from);
        let Some(process) = self.process_of(from, from_boot) else { return Ok(()) };
        let Some(seat) = process.links.get_mut(&node).filter(|seat| seat.connection == Some(number)) else {
            return Ok(());
        };
        if let Err(fault) = seat.link.hear(bytes, now) {
            let what = format!("machine {from} understands nothing of what {to} answers: {fault}");
            return violation("frames", what);
        }
        self.flush(from);
        Ok(())
    }

    /// Breaks a connection. The dialing side notices, and dials again after a pause.
    pub(super) fn break_connection(&mut self, number: u64) {
        let Some(connection) = self.connections.remove(&number) else { return };
        let Connection { from, from_boot, node, to, to_boot, .. } = connection;
        if let Some(listener) = self.process_of(to, to_boot)
            && let Some(inbound) = listener.inbound.remove(&number)
        {
            listener.directory.leave(inbound.node(), number);
        }
        let Some(process) = self.process_of(from, from_boot) else { return };
        let Some(seat) = process.links.get_mut(&node).filter(|seat| seat.connection == Some(number)) else {
            return;
        };
        seat.connection = None;
        let mut news = Vec::new();
        let pause = seat.link.failed(DialError::Failed("it broke".into()), &mut news);
        let generation = seat.generation;
        let pause = u64::try_from(pause.as_micros()).unwrap_or(u64::MAX);
        self.schedule(1 + pause, SimEvent::Dial { machine: from, boot: from_boot, node, generation });
        // The events of a broken connection never include a removal.
        let _ = self.spread(from, news);
    }

    /// Takes the next step in the search of a process without a cluster.
    pub(super) fn search(&mut self, machine: usize, boot: u64) -> Verdict {
        let now = self.now;
        let Some(process) = self.process_of(machine, boot) else { return Ok(()) };
        let Stage::Searching(searching) = &mut process.stage else { return Ok(()) };
        match searching.search.next_step(process.directory.local(), &mut Vec::new()) {
            SearchStep::Rest(pause) => {
                let pause = u64::try_from(pause.as_micros()).unwrap_or(u64::MAX);
                self.schedule(1 + pause, SimEvent::Search { machine, boot });
            }
            SearchStep::Call(node, address) => {
                let outcome = self.shake_hands(machine, node, &address);
                let outcome = outcome.map(|(_, handshake, welcome)| (handshake, welcome));
                let Some(process) = self.process_of(machine, boot) else { return Ok(()) };
                let id = process.id;
                let Stage::Searching(searching) = &mut process.stage else { return Ok(()) };
                if let Err(DialError::Refused(refusal)) = &outcome
                    && refusal.is_final_for(id)
                {
                    searching.refused_since.get_or_insert(now);
                }
                let refused_since = searching.refused_since.unwrap_or(now);
                if let Err(refusal) = searching.search.called(outcome, &mut Vec::new()) {
                    self.sight("a node without its files was refused");
                    self.gives_up(machine, refused_since)?;
                    self.lost_its_files(machine, &refusal)?;
                    return self.ends(machine, &refusal.to_string());
                }
                let pause = 1 + self.dice.exponential(LATENCY);
                self.schedule(pause, SimEvent::Search { machine, boot });
            }
            SearchStep::Found(founders, configuration) => {
                let Some(opened) = searching.opened.take() else { return Ok(()) };
                return self.has_found(machine, opened, &founders, configuration.as_ref());
            }
        }
        Ok(())
    }

    /// Puts an input into a node's inbox.
    pub(super) fn hand(&mut self, machine: usize, input: HostInput) {
        let now = self.now;
        let Some(running) = self.machines[machine].running_mut() else { return };
        running.inbox.push(input);
        let at = self.machines[machine].process.as_ref().map_or(now, |process| process.busy_until.max(now));
        self.wake_at(machine, at);
    }
}

/// Checks that a node that reads its removal does not dial again where it has a connection. Over it
/// goes the acknowledgement by which the leader learns that the node holds the entry.
pub(super) fn keeps_its_connections(
    process: &Process,
    known: &KnownMembers,
    changes: &[LinkChange],
) -> Verdict {
    let is_redialed = |change: &LinkChange| {
        let LinkChange::Start(node, address) = change else { return false };
        process.links.get(node).is_some_and(|seat| seat.address == *address)
    };
    if known.configuration.contains(process.id) || !changes.iter().any(is_redialed) {
        return Ok(());
    }
    let what =
        format!("node {} reads in entry {} that it was removed, and dials again", process.id, known.index);
    violation("a_removed_node_keeps_its_connections", what)
}
