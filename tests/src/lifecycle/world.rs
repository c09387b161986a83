//! The simulated world: one event queue in simulated time, from one seed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::ops::Range;
use std::time::Duration;

use coracle_core::host::{HostInput, NodeAction, PeerActions, Settings};
use coracle_core::memory::MemoryShares;
use coracle_core::peer::Origin;
use coracle_core::proxy::ProxyInput;
use coracle_core::raft::{Body, Configuration, Event, Message, NodeId, Role, Voters};
use coracle_core::{Answer, BackupPiece, Incarnation, Instant};

use super::checks::{Histories, violation};
use super::clients::{CLIENTS, Clients};
use super::machine::{Machine, Process, Running, Stage};
use super::operator::Operator;
use super::refusals::RunsTwice;
use super::restores::{Restores, SPARE};
use super::wiring::{Connection, keeps_its_connections};
use crate::simulator::dice::Dice;
use crate::simulator::invariants::Verdict;
use crate::simulator::process::SimClock;

/// The duration of a turn of a node, in microseconds.
const TURN: u64 = 20;
/// A node whose answer its leader counts has run within this time, in microseconds.
const LATELY: u64 = 1_000_000;
/// The number of machines of the first cluster: some bootstrap it, and the others are free.
pub(super) const MACHINES: usize = 7;

/// An event of the simulation.
#[derive(Debug)]
pub(super) enum SimEvent {
    Wake { machine: usize, boot: u64 },
    DiskStep { machine: usize, boot: u64 },
    SnapshotStep { machine: usize, boot: u64 },
    Dial { machine: usize, boot: u64, node: NodeId, generation: u64 },
    Search { machine: usize, boot: u64 },
    Farewell { machine: usize, boot: u64 },
    Arrive { number: u64, bytes: Vec<u8> },
    ArriveAgain { connection: Connection, input: HostInput },
    Hear { number: u64, bytes: Vec<u8> },
    Client(usize),
    Operator,
    AskForBackup(BackupPiece),
    Restored,
    Fault,
    Start(usize),
    Mount(usize),
}

/// The machines, the network between them, the clients and the operator.
#[derive(Debug)]
pub(super) struct World {
    pub(super) dice: Dice,
    /// Simulated microseconds since the start.
    pub(super) now: u64,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    planned: BTreeMap<u64, SimEvent>,
    last_planned: u64,
    pub(super) events: u64,
    pub(super) machines: Vec<Machine>,
    /// Pairs of machines; messages from the first to the second are lost.
    pub(super) cut: BTreeSet<(usize, usize)>,
    pub(super) connections: BTreeMap<u64, Connection>,
    pub(super) last_connection: u64,
    pub(super) last_generation: u64,
    pub(super) last_boot: u64,
    pub(super) checks: Histories,
    pub(super) restores: Restores,
    pub(super) clients: Clients,
    pub(super) client_count: usize,
    /// The typical time between a client's requests, in microseconds.
    pub(super) think: u64,
    pub(super) operator: Operator,
    /// The machine that runs a copy of another one's folder.
    pub(super) copied: Option<usize>,
    pub(super) runs_twice: RunsTwice,
    pub(super) settings: Settings,
    /// The memory limits of the parts of a process.
    pub(super) shares: MemoryShares,
    pub(super) has_faults: bool,
    sightings: BTreeMap<&'static str, u64>,
    tells: bool,
}

impl World {
    /// Creates a world at its first moment: some machines are about to bootstrap a cluster, and
    /// clients and operator are about to act.
    pub(super) fn new(mut dice: Dice, shares: MemoryShares, tells: bool) -> Self {
        let machine = |number: usize, dice: &mut Dice| {
            let clock = SimClock { rate: dice.between(990, 1010), offset: dice.below(1 << 30).into() };
            Machine::new(format!("m{number}:1").into(), clock)
        };
        let machines = (0..MACHINES + SPARE).map(|number| machine(number, &mut dice)).collect();
        let entries = dice.one_of(&[20, 100, 1_000_000]);
        let settings = Settings { snapshot_log_entries: entries, ..Settings::default() };
        let mut world = Self {
            now: 0,
            queue: BinaryHeap::new(),
            planned: BTreeMap::new(),
            last_planned: 0,
            events: 0,
            machines,
            cut: BTreeSet::new(),
            connections: BTreeMap::new(),
            last_connection: 0,
            last_generation: 0,
            last_boot: 0,
            checks: Histories::default(),
            restores: Restores::default(),
            clients: Clients::default(),
            client_count: CLIENTS,
            think: dice.one_of(&[10_000, 30_000, 100_000]),
            operator: Operator::default(),
            copied: None,
            runs_twice: RunsTwice::default(),
            settings,
            shares,
            has_faults: true,
            sightings: BTreeMap::new(),
            tells,
            dice,
        };
        world.found();
        (0..world.client_count).for_each(|client| world.schedule(1000, SimEvent::Client(client)));
        world.schedule(1_000_000, SimEvent::Operator);
        world.schedule(1_500_000, SimEvent::Fault);
        world
    }

    /// Runs all events that are due before `end`.
    pub(super) fn run_until(&mut self, end: u64) -> Verdict {
        while let Some(Reverse((at, number))) = self.queue.peek().copied().filter(|next| next.0.0 < end) {
            self.queue.pop();
            self.now = at;
            self.events += 1;
            if let Some(happening) = self.planned.remove(&number) {
                self.happen(happening)?;
            }
        }
        self.now = end;
        Ok(())
    }

    pub(super) fn schedule(&mut self, delay: u64, happening: SimEvent) {
        self.last_planned += 1;
        self.planned.insert(self.last_planned, happening);
        self.queue.push(Reverse((self.now + delay, self.last_planned)));
    }

    fn happen(&mut self, happening: SimEvent) -> Verdict {
        match happening {
            SimEvent::Wake { machine, boot } => self.wake(machine, boot),
            SimEvent::DiskStep { machine, boot } => {
                self.disk_step(machine, boot);
                Ok(())
            }
            SimEvent::SnapshotStep { machine, boot } => self.snapshot_step(machine, boot),
            SimEvent::Dial { machine, boot, node, generation } => self.dial(machine, boot, node, generation),
            SimEvent::Search { machine, boot } => self.search(machine, boot),
            SimEvent::Farewell { machine, boot } => self.say_farewell(machine, boot),
            SimEvent::Arrive { number, bytes } => self.arrive(number, &bytes),
            SimEvent::ArriveAgain { connection, input } => {
                self.arrive_again(connection, input);
                Ok(())
            }
            SimEvent::Hear { number, bytes } => self.hear(number, &bytes),
            SimEvent::Client(client) => self.client_acts(client),
            SimEvent::Operator => self.operator_acts(),
            SimEvent::AskForBackup(piece) => {
                self.ask_for_backup(piece);
                Ok(())
            }
            SimEvent::Restored => {
                self.restored_acts();
                Ok(())
            }
            SimEvent::Fault => {
                self.inject_fault();
                self.burst()?;
                self.forge()
            }
            SimEvent::Start(machine) => self.start(machine),
            SimEvent::Mount(machine) => {
                self.mount(machine);
                Ok(())
            }
        }
    }

    pub(super) fn sight(&mut self, what: &'static str) {
        *self.sightings.entry(what).or_default() += 1;
    }

    pub(super) fn sightings(&self) -> &BTreeMap<&'static str, u64> {
        &self.sightings
    }

    /// Prints a line of the trace, if it was requested.
    #[expect(clippy::print_stdout, reason = "a trace is for reading")]
    pub(super) fn tell(&self, line: impl FnOnce() -> String) {
        if self.tells {
            println!("{:>10.6} {}", Duration::from_micros(self.now).as_secs_f64(), line());
        }
    }

    pub(super) fn is_open(&self, from: usize, to: usize) -> bool {
        let is_kept_off = |machine| self.operator.kept_off == Some(machine);
        !self.cut.contains(&(from, to)) && !is_kept_off(from) && !is_kept_off(to)
    }

    pub(super) fn local(&self, machine: usize) -> Instant {
        self.machines[machine].clock.local(self.now)
    }

    pub(super) fn process_of(&mut self, machine: usize, boot: u64) -> Option<&mut Process> {
        self.machines[machine].process.as_mut().filter(|process| process.boot == boot)
    }

    /// The machine whose node leads the old cluster, in the highest term.
    pub(super) fn leader(&self) -> Option<usize> {
        self.leader_among(0..MACHINES)
    }

    /// The machine among these whose node leads in the highest term.
    pub(super) fn leader_among(&self, machines: Range<usize>) -> Option<usize> {
        let leads = |number: usize| {
            let status = self.machines[number].running()?.host.replica().status();
            (status.role == Role::Leader).then_some((status.term, number))
        };
        machines.filter_map(leads).max().map(|(_, number)| number)
    }

    pub(super) fn wake_at(&mut self, machine: usize, at: u64) {
        let now = self.now;
        let Some(process) = self.machines[machine].process.as_mut() else { return };
        let at = at.max(process.busy_until).max(now);
        if process.wake_at.is_none_or(|planned| at < planned) {
            process.wake_at = Some(at);
            let boot = process.boot;
            self.schedule(at - now, SimEvent::Wake { machine, boot });
        }
    }

    fn wake(&mut self, machine: usize, boot: u64) -> Verdict {
        let now = self.now;
        let Some(process) = self.process_of(machine, boot) else { return Ok(()) };
        if process.wake_at != Some(now) {
            return Ok(());
        }
        process.wake_at = None;
        if now < process.busy_until {
            let at = process.busy_until;
            self.wake_at(machine, at);
            return Ok(());
        }
        self.turn_now(machine, boot)
    }

    /// Runs one turn of a node.
    pub(super) fn turn_now(&mut self, machine: usize, boot: u64) -> Verdict {
        let (now, time) = (self.now, self.local(machine));
        let Some(process) = self.process_of(machine, boot) else { return Ok(()) };
        process.busy_until = now + TURN;
        let (id, incarnation) = (process.id, process.incarnation);
        let Stage::Running(running) = &mut process.stage else { return Ok(()) };
        let followed = running.host.replica().node().configuration_index();
        for input in running.inbox.drain(..) {
            running.host.accept(input);
        }
        let mut actions = Vec::new();
        running.host.step(time, &mut actions);
        let deadline = if running.host.has_work() { time } else { running.host.deadline() };
        self.checks.of(machine).ran(incarnation, now);
        self.old_members_learn_nothing_new(machine)?;
        if let Some(running) = self.machines[machine].running() {
            self.checks.of(machine).after_turn(boot, (id, incarnation), running)?;
            // In a turn that changes the members, a message may be for the previous member.
            if running.host.replica().node().configuration_index() == followed {
                self.heartbeats_are_true(machine, running, &actions)?;
            }
        }
        for action in actions {
            self.carry_out(machine, (id, incarnation), action)?;
            if self.process_of(machine, boot).is_none() {
                return Ok(());
            }
        }
        if let Some(process) = self.process_of(machine, boot) {
            process.is_dismissed = process.removal.is_heard();
        }
        self.memory_is_counted(machine)?;
        self.flush(machine);
        self.tidy(machine);
        let at = self.machines[machine].clock.world(deadline).max(now + TURN);
        self.wake_at(machine, at);
        Ok(())
    }

    /// Checks that the cluster has reached no level that this process does not support: it would
    /// receive entries that it cannot apply.
    fn old_members_learn_nothing_new(&self, machine: usize) -> Verdict {
        let Some(process) = &self.machines[machine].process else { return Ok(()) };
        let Stage::Running(running) = &process.stage else { return Ok(()) };
        let level = running.host.replica().level();
        let what =
            || format!("node {} supports {:?}, and the level is {level:?}", process.id, process.supports);
        if level <= process.supports { Ok(()) } else { violation("old_members_learn_nothing_new", what()) }
    }

    /// Checks a node that has other members in force. If it leads, it has proposed them.
    fn members_changed(&self, machine: usize, changed: &Configuration) -> Verdict {
        let node = self.machines[machine].running().map(|running| running.host.replica().node());
        if node.is_none_or(|node| node.role() != Role::Leader || node.configuration() != changed) {
            return Ok(());
        }
        let since = node
            .and_then(|node| Some((node.commit_index(), node.configurations_since(node.commit_index())?)));
        if let Some((commit, open)) = since {
            self.checks.at(machine).binds(commit, open.collect())?;
        }
        let Some(leader) = self.machines[machine].process.as_ref() else { return Ok(()) };
        let answered = self.checks.at(machine).turn_before(leader.incarnation, self.now);
        self.checks.at(machine).proposed(changed, answered.saturating_sub(LATELY))?;
        for place in &self.machines {
            let Some((process, unit)) = place.process.as_ref().zip(place.unit.as_ref()) else { continue };
            let member = changed.roster().member(process.id);
            let member = member.filter(|member| member.incarnation == Some(process.incarnation));
            let is_new = |outgoing: &Voters| !outgoing.contains(process.id);
            let is_promoted = changed.outgoing().is_some_and(is_new) && changed.voters().contains(process.id);
            if member.is_some() && is_promoted && !self.checks.at(machine).knows_itself(process.incarnation) {
                let what = format!("{changed} promotes node {}, and its log does not name it", process.id);
                return violation("who_is_promoted_knows_itself", what);
            }
            let founds = matches!(unit.origin, Origin::Found(_));
            if member.is_some_and(|member| founds && !place.addresses.contains(&member.address)) {
                let what = format!("{changed} binds node {} at {:?}", process.id, place.addresses);
                return violation("a_member_is_where_it_was_added", what);
            }
        }
        Ok(())
    }

    /// Checks that a heartbeat's commit index is not beyond the highest index that the log of the
    /// member has ever reached, in its incarnation.
    fn heartbeats_are_true(&self, machine: usize, running: &Running, actions: &[NodeAction]) -> Verdict {
        let roster = running.host.replica().node().configuration().roster();
        for action in actions {
            if let NodeAction::Send(Message { to, body: Body::Heartbeat(beat), .. }) = action
                && let Some(incarnation) = roster.member(*to).and_then(|member| member.incarnation)
            {
                self.checks.at(machine).names_committed((*to, incarnation), beat.leader_commit)?;
            }
        }
        Ok(())
    }

    fn tidy(&mut self, machine: usize) {
        let time = self.local(machine);
        let Some(process) = self.machines[machine].process.as_mut() else { return };
        let mut actions = PeerActions::default();
        let links = &mut process.links;
        let was_used = |node| links.get_mut(&node).is_some_and(|seat| seat.link.was_used());
        process.directory.tidy(time, was_used, &mut actions);
        self.carry_out_for_directory(machine, actions);
    }

    fn carry_out(&mut self, machine: usize, own: (NodeId, Incarnation), action: NodeAction) -> Verdict {
        match action {
            NodeAction::Persist(persist) => {
                if let Some(running) = self.machines[machine].running_mut() {
                    running.disk.push(persist);
                }
                self.begin_disk_work(machine);
            }
            NodeAction::Snapshot(order) => {
                let is_idle =
                    self.machines[machine].running_mut().is_some_and(|it| it.snapshots.order(order));
                let boot = self.machines[machine].process.as_ref().map_or(0, |process| process.boot);
                if is_idle {
                    self.schedule(0, SimEvent::SnapshotStep { machine, boot });
                }
            }
            NodeAction::Send(message) => self.send(machine, own, &message)?,
            NodeAction::Route(news) => self.route(machine, own, news)?,
            NodeAction::Follow(known) => {
                let time = self.local(machine);
                self.machines[machine].members = Some(known.configuration.clone());
                self.tell(|| format!("m{machine} follows {}: {}", known.index, known.configuration));
                let mut actions = PeerActions::default();
                if let Some(process) = self.machines[machine].process.as_mut() {
                    process.directory.follow(&known, time, &mut actions);
                    keeps_its_connections(process, &known, &actions.links)?;
                }
                self.carry_out_for_directory(machine, actions);
            }
            NodeAction::Removed(refusal) => {
                self.sight("a node read in its log that it was removed");
                self.removal_is_on_the_disk(machine, &refusal)?;
                if let Some(process) = self.machines[machine].process.as_mut() {
                    process.knows_its_removal = true;
                }
                self.hears_of_its_removal(machine, refusal);
            }
            NodeAction::Report(event) => {
                self.tell(|| format!("m{machine} node {} {event}", own.0));
                if let Event::BecameLeader { term, .. } = event {
                    self.sight("a leader was elected");
                    self.checks.of(machine).leads(term, own.0, own.1)?;
                }
                if let Event::MembershipChanged { configuration, .. } = &event {
                    self.members_changed(machine, configuration)?;
                    self.pause_the_hurried(configuration);
                }
            }
            NodeAction::AnswerPeer(peer, call, answer) => {
                let process = self.machines[machine].process.as_mut();
                if let Some(seat) = process.and_then(|process| process.links.get_mut(&peer)) {
                    seat.link.push_answer(call, &answer);
                }
            }
            NodeAction::Resigned => {}
        }
        Ok(())
    }

    /// Hands a node's answers to their clients. A node that was notified earlier that it is no
    /// member answers no read.
    fn route(&mut self, machine: usize, own: (NodeId, Incarnation), news: Vec<ProxyInput>) -> Verdict {
        let process = self.machines[machine].process.as_ref();
        let was_told = process.is_some_and(|process| process.is_dismissed);
        for item in news {
            if let ProxyInput::Answer(_, id, answer) = item {
                if was_told && matches!(answer, Answer::Read { .. }) {
                    let what = format!("{own:?} answers read {} and was told that it is no member", id.0);
                    return violation("only_members_answer", what);
                }
                self.answered(machine, own, id, &answer)?;
            }
        }
        Ok(())
    }

    fn send(&mut self, machine: usize, own: (NodeId, Incarnation), message: &Message) -> Verdict {
        if let Body::RequestVoteResponse(vote) | Body::RequestPreVoteResponse(vote) = &message.body
            && vote.granted
        {
            self.checks.at(machine).votes(own.0, own.1)?;
        }
        let time = self.local(machine);
        let Some(process) = self.machines[machine].process.as_mut() else { return Ok(()) };
        let mut actions = PeerActions::default();
        process.directory.wanted(message.to, time, &mut actions);
        self.carry_out_for_directory(machine, actions);
        let Some(process) = self.machines[machine].process.as_mut() else { return Ok(()) };
        if let Some(seat) = process.links.get_mut(&message.to) {
            seat.link.push_message(message);
        }
        Ok(())
    }
}
