//! The simulated world: one event queue in simulated time, from one seed. All events around the
//! cluster go through it.

use std::collections::BTreeSet;

use coracle_core::host::{Router, RouterAction, RouterInput, SnapshotOrder, ToWriter};
use coracle_core::memory::MemoryBudget;
use coracle_core::proxy::{Proxy, ProxyConfig, ProxyInput, Ticket};
use coracle_core::raft::{Config, NodeId, Role, Voters};
use coracle_core::{Input, Instant, Output};
use coracle_storage::Notice;

use super::clients::{Clients, Returned};
use super::connections::Connections;
use super::dice::Dice;
use super::direct_requests::{DirectRequests, is_direct};
use super::invariants::{Invariants, Verdict, Violation};
use super::network::SimNetwork;
use super::process::{Process, SimClock, StartOutcome, found_disks};
use super::queue::{Queue, SimEvent};
use super::samples::Samples;
use super::settings::SimSettings;
use super::trace::Trace;
use super::watchers::{WatcherEvent, Watchers};

/// The delay between proxy and node, in microseconds.
const HOP: u64 = 10;

/// The longest duration of one disk operation, in microseconds. So an operation that began before
/// the faults ended completes within the time for recovery.
pub(super) const OUTAGE_MAX: u64 = 2_000_000;

/// A simulated cluster with everything around it.
#[derive(Debug)]
pub struct World {
    /// The settings of this run.
    pub settings: SimSettings,
    /// The source of random choices.
    pub dice: Dice,
    /// Simulated microseconds since the start.
    pub now: u64,
    queue: Queue,
    /// The nodes, by id.
    pub processes: Vec<Process>,
    /// The network between the nodes.
    pub network: SimNetwork,
    router: Router,
    router_wakes_at: Option<u64>,
    /// The clients.
    pub clients: Clients,
    /// The connections between the clients and the proxy.
    pub(super) connections: Connections,
    pub(super) watchers: Watchers,
    /// Whether clients send new requests.
    pub clients_ask: bool,
    /// The requests that bypass the proxy.
    pub(super) direct_requests: DirectRequests,
    /// The invariants.
    pub invariants: Invariants,
    /// The observations of clients, for the search checker.
    pub samples: Samples,
    /// The trace of the run.
    pub trace: Trace,
    /// Whether faults are still injected.
    pub has_faults: bool,
    /// The links on which a leader has asked a follower how much of a snapshot it has, and has not
    /// sent a part since.
    pub(super) asked_for_snapshots: BTreeSet<(NodeId, NodeId)>,
}

impl World {
    /// Creates a world with these settings at its first moment: every disk is bootstrapped, and
    /// every process is about to start.
    #[must_use]
    pub fn new(settings: SimSettings, mut dice: Dice, trace: Trace) -> Self {
        let ids: Vec<_> = (0..settings.nodes as u64).map(NodeId).collect();
        let disks = found_disks(settings.nodes);
        let processes = ids.iter().zip(disks).zip(&settings.clock_rates).map(|((id, disk), rate)| {
            let offset = dice.below(1 << 30).into();
            Process::new(*id, disk, SimClock { rate: *rate, offset })
        });
        let processes = processes.collect();
        let proxy = ProxyConfig {
            nodes: ids,
            local: None,
            request_timeout: settings.request_timeout,
            pending_max: 1000,
            pending_bytes_max: 1 << 20,
            scans_max: 1 + settings.nodes % 3,
        };
        let memory = MemoryBudget::unlimited();
        let router = Router::new(Proxy::new(proxy, dice.below(u32::MAX).into()), settings.nodes, memory);
        let mut world = Self {
            clients: Clients::new(&settings),
            connections: Connections::new(settings.clients),
            watchers: Watchers::new(dice.tape(), settings.keys),
            invariants: Invariants::new(
                settings.session_limits,
                settings.held_bytes_max.max(settings.retained_bytes),
                &settings.clock_rates,
                settings.watches,
            ),
            network: SimNetwork::default(),
            settings,
            dice,
            now: 0,
            queue: Queue::default(),
            processes,
            router,
            router_wakes_at: None,
            clients_ask: true,
            direct_requests: DirectRequests::default(),
            samples: Samples::default(),
            trace,
            has_faults: true,
            asked_for_snapshots: BTreeSet::new(),
        };
        for node in 0..world.processes.len() {
            world.schedule(0, SimEvent::Start(node));
            if world.settings.upgraded_at > 0 {
                let upgraded_at = world.settings.upgraded_at + world.dice.exponential(1_000_000);
                world.schedule(upgraded_at, SimEvent::Upgrade(node));
            }
        }
        for client in 0..world.settings.clients {
            world.schedule(1, SimEvent::Client(client));
        }
        for watcher in 0..world.watchers.len() {
            world.schedule(1, SimEvent::Watcher(WatcherEvent::Acts(watcher)));
        }
        if world.settings.fault_every.is_some() {
            world.schedule(2, SimEvent::Fault);
        }
        world.schedule(3, SimEvent::HandOver);
        world
    }

    /// Runs all events that are due before `end`.
    ///
    /// # Errors
    ///
    /// The first property that does not hold.
    pub fn run_until(&mut self, end: u64) -> Verdict {
        while let Some((at, happening)) = self.queue.pop_before(end) {
            self.now = at;
            self.happen(happening)?;
        }
        self.now = end;
        Ok(())
    }

    /// Schedules an event `delay` microseconds from now.
    pub(super) fn schedule(&mut self, delay: u64, happening: SimEvent) {
        self.queue.push(self.now + delay, happening);
    }

    /// Returns the running node that leads in the highest term.
    #[must_use]
    pub fn leader(&self) -> Option<usize> {
        let running = |process: &Process| process.running.as_ref().map(|running| running.replica.status());
        let leaders = self.processes.iter().enumerate().filter_map(|(node, process)| {
            running(process).filter(|status| status.role == Role::Leader).map(|status| (status.term, node))
        });
        leaders.max().map(|(_, node)| node)
    }

    fn happen(&mut self, happening: SimEvent) -> Verdict {
        match happening {
            SimEvent::Alarm { node, life } => self.alarm(node, life),
            SimEvent::Deliver(message) => {
                let node = usize::try_from(message.to.0).expect("a small id");
                if self.network.is_open(message.from, message.to) {
                    self.deafen_caller(&message);
                    self.hand(node, Input::Message(message));
                }
                Ok(())
            }
            SimEvent::Ask(node, id, request) => {
                self.hand(node, Input::Request(id, request));
                Ok(())
            }
            SimEvent::DiskStep { node, life } => self.disk_step(node, life),
            SimEvent::Unreachable { node, life, peer } => {
                if self.processes[node].life == life {
                    self.hand(node, Input::PeerUnreachable(peer));
                }
                Ok(())
            }
            SimEvent::SnapshotStep { node, life } => self.snapshot_step(node, life),
            SimEvent::ToRouter(input) => self.step_router(vec![input]),
            SimEvent::RouterWake => {
                self.router_wakes_at = None;
                self.step_router(Vec::new())
            }
            SimEvent::Client(client) => self.client_acts(client),
            SimEvent::Watcher(event) => self.watcher_happens(event),
            SimEvent::Start(node) => self.start(node),
            SimEvent::Upgrade(node) => {
                self.upgrade(node);
                Ok(())
            }
            SimEvent::Fault => self.inject_fault(),
            SimEvent::HandOver => {
                self.hand_over();
                Ok(())
            }
            SimEvent::Heal => {
                if self.has_faults {
                    self.network.heal();
                }
                Ok(())
            }
            SimEvent::Flap { from, to, times } => {
                self.flap(from, to, times);
                Ok(())
            }
        }
    }

    /// Puts an input into a node's inbox. A node that is down drops it.
    pub(super) fn hand(&mut self, node: usize, input: Input) {
        let process = &mut self.processes[node];
        if let Some(running) = &mut process.running {
            running.inbox.push(input);
            let at = self.now.max(process.busy_until);
            self.wake_at(node, at);
        }
    }

    fn wake_at(&mut self, node: usize, at: u64) {
        let process = &mut self.processes[node];
        if process.wake_at.is_none_or(|planned| at < planned) {
            process.wake_at = Some(at);
            self.set_alarm(node);
        }
    }

    /// Makes sure that a node's alarm goes off at its wake time or earlier. Most deadlines are
    /// postponed long before they are due, and an alarm that is too early is set again.
    fn set_alarm(&mut self, node: usize) {
        let process = &mut self.processes[node];
        let Some(at) = process.wake_at else { return };
        if process.alarms.last().is_none_or(|next| at < *next) {
            process.alarms.push(at);
            let life = process.life;
            self.schedule(at.saturating_sub(self.now), SimEvent::Alarm { node, life });
        }
    }

    fn start(&mut self, node: usize) -> Verdict {
        let config = self.config(node);
        let seed = self.dice.below(u32::MAX).into();
        let now = self.now;
        let process = &mut self.processes[node];
        if process.running.is_some() || process.is_dead {
            return Ok(());
        }
        let before = process.durable.clone();
        let outcome = process.start(config, self.settings.replica_limits(now), seed, now);
        let is_first = process.life <= 1;
        self.trace.note(now, [2, node as u64, self.processes[node].life], || {
            format!("node {node} starts: {outcome:?}")
        });
        match outcome {
            StartOutcome::Runs(notices) => {
                for notice in notices {
                    self.trace.sight(match notice {
                        Notice::TornTail { .. } => "a torn tail was cut off",
                        Notice::LogMadeAnew { .. } => "a start made the log anew behind a snapshot",
                    });
                }
                if !is_first {
                    self.trace.sight("a node was restarted");
                }
                self.invariants.after_start(&self.processes[node], &before)?;
                self.wake_at(node, now);
            }
            StartOutcome::CrashedInRecovery => {
                self.trace.sight("a crash in the middle of recovery");
                self.processes[node].disk.crash(&mut self.dice);
                self.schedule(1000, SimEvent::Start(node));
            }
            StartOutcome::Refused(error) => {
                return Err(Violation {
                    property: "recoverability",
                    what: format!("node {node} refuses to start: {error}"),
                });
            }
        }
        Ok(())
    }

    fn config(&self, node: usize) -> Config {
        let voters = Voters::new(self.processes.iter().map(|process| process.id)).expect("one to nine nodes");
        let settings = &self.settings;
        Config {
            heartbeat_interval: settings.heartbeat,
            election_timeout_min: settings.election_min,
            election_timeout_max: settings.election_max,
            append_bytes_max: settings.append_bytes_max,
            in_flight_messages_max: settings.in_flight_messages_max,
            uncommitted_bytes_max: settings.uncommitted_bytes_max,
            read_lease: settings.read_lease,
            retained_bytes: settings.retained_bytes,
            held_bytes_max: settings.held_bytes_max,
            ..Config::new(self.processes[node].id, voters)
        }
    }

    fn alarm(&mut self, node: usize, life: u64) -> Verdict {
        let process = &mut self.processes[node];
        if process.life != life {
            return Ok(());
        }
        process.alarms.pop();
        if process.wake_at.is_none_or(|planned| planned > self.now) {
            self.set_alarm(node);
            return Ok(());
        }
        process.wake_at = None;
        self.wake(node, life)
    }

    fn wake(&mut self, node: usize, life: u64) -> Verdict {
        let now = self.now;
        let process = &mut self.processes[node];
        if now < process.busy_until {
            let at = process.busy_until;
            self.wake_at(node, at);
            return Ok(());
        }
        let slowness = if now < process.slow_until { 50 } else { 1 };
        process.busy_until = now + self.settings.turn * slowness;
        let clock = process.clock;
        let Some(running) = &mut process.running else { return Ok(()) };
        let outputs = running.step(clock.local(now));
        process.durable_commits.sample(now, process.life, running.replica.node());
        let deadline = clock.world(running.replica.deadline());
        self.invariants.after_turn(now, &self.processes[node], &outputs, &self.processes)?;
        self.carry_out(node, outputs)?;
        if self.processes[node].running.is_some() && self.processes[node].life == life {
            let at = deadline.max(self.processes[node].busy_until).max(now + 1);
            self.wake_at(node, at);
        }
        Ok(())
    }

    fn carry_out(&mut self, node: usize, outputs: Vec<Output>) -> Verdict {
        for output in outputs {
            if let Some(left) = &mut self.processes[node].crash_after_outputs {
                if *left == 0 {
                    self.trace.sight("a crash between two outputs");
                    let down = 1000 + self.dice.exponential(300_000);
                    self.crash(node, down);
                    return Ok(());
                }
                *left -= 1;
            }
            self.carry_out_one(node, output)?;
        }
        Ok(())
    }

    fn carry_out_one(&mut self, node: usize, output: Output) -> Verdict {
        let id = self.processes[node].id;
        match output {
            Output::Persist(persist) => {
                self.note_persist(node, &persist);
                let process = &mut self.processes[node];
                if let Some(running) = &mut process.running {
                    running.disk_queue.push(persist);
                    if running.begin_disk_work() {
                        self.schedule_disk_step(node);
                    }
                }
            }
            Output::WriteSnapshot(part) => self.order_snapshot(node, SnapshotOrder::Write(part)),
            Output::ReadSnapshot { last, offset } => {
                self.order_snapshot(node, SnapshotOrder::Read { last, offset });
            }
            Output::Send(message) => {
                self.invariants.before_send(&message, &self.processes[node].durable)?;
                let (from, to) = (message.from, message.to);
                let arrivals = self.network.send(from, to, self.now, &mut self.dice, &self.settings);
                let arrivals = self.delay_call(&message, arrivals);
                self.note_send(&message, arrivals);
                if arrivals[0].is_none() && self.dice.happens(self.settings.noticed_losses) {
                    // This models a connection that breaks with the message in it.
                    let (life, later) = (self.processes[node].life, self.dice.exponential(100_000));
                    self.trace.sight("a node was told that messages were lost");
                    self.schedule(later, SimEvent::Unreachable { node, life, peer: to });
                }
                for at in arrivals.into_iter().flatten() {
                    let arriving = self.damaged_on_the_way(message.clone());
                    self.schedule(at - self.now, SimEvent::Deliver(arriving));
                }
            }
            Output::Answer(request, answer) if is_direct(request) => {
                self.direct_request_answered(node, request, &answer)?;
            }
            Output::Answer(request, answer) => {
                let news = RouterInput::FromNode(vec![ProxyInput::Answer(id, request, answer)]);
                self.schedule(HOP, SimEvent::ToRouter(news));
            }
            Output::LeaderChanged { term, leader } => {
                let news = RouterInput::FromNode(vec![ProxyInput::LeaderChanged { node: id, term, leader }]);
                self.schedule(HOP, SimEvent::ToRouter(news));
            }
            // Without a roster no removal is final.
            Output::Removed(_) => {}
            Output::Event(event) => self.note_event(node, &event),
        }
        Ok(())
    }

    fn client_acts(&mut self, client: usize) -> Verdict {
        // A tape of zeros draws zero time. With a client that sends every microsecond, the run
        // would never end.
        let think = self.settings.think / 100 + self.dice.exponential(self.settings.think);
        self.schedule(think, SimEvent::Client(client));
        if self.asks_again(client)? || !self.clients_ask || !self.clients.may_ask(client, &self.settings) {
            return Ok(());
        }
        if self.dice.happens(self.settings.direct_requests) {
            self.read_directly();
        }
        let (ticket, request) = self.clients.ask(client, self.now, &mut self.dice, &self.settings);
        self.ask(ticket, request)
    }

    /// Runs a step of the router, and further steps while connections that have room again send
    /// requests.
    pub(super) fn step_router(&mut self, mut inputs: Vec<RouterInput>) -> Verdict {
        loop {
            inputs.drain(..).for_each(|input| self.router.accept(input));
            let mut actions = Vec::new();
            self.router.step(Instant::from_micros(self.now), &mut actions);
            for action in actions {
                inputs.extend(self.carry_out_for_router(action)?);
            }
            if inputs.is_empty() {
                break;
            }
        }
        if let Some(deadline) = self.router.deadline() {
            let at = deadline.as_micros().max(self.now + 1);
            if self.router_wakes_at.is_none_or(|planned| at < planned) {
                self.router_wakes_at = Some(at);
                self.schedule(at - self.now, SimEvent::RouterWake);
            }
        }
        Ok(())
    }

    /// Carries out an action of the router. Returns the requests of a connection that has room
    /// again.
    fn carry_out_for_router(&mut self, action: RouterAction) -> Result<Vec<RouterInput>, Violation> {
        match action {
            RouterAction::Ask(node, requests) => {
                let node = usize::try_from(node.0).expect("a small id");
                for request in requests {
                    if let Input::Request(id, request) = request {
                        self.schedule(HOP, SimEvent::Ask(node, id, request));
                    }
                }
                Ok(Vec::new())
            }
            RouterAction::ReplyToCaller(call, _) => {
                Err(Violation { property: "routing", what: format!("there is no caller {call}") })
            }
            // The simulated clients have no memory limit, so the only expected notices are replies.
            RouterAction::Tell(connection, ToWriter::Reply(slot, reply)) => {
                let ticket = Ticket { connection, slot };
                let returned = Returned::from_reply(reply.clone());
                self.trace.note(self.now, [5, ticket.connection, ticket.slot], || {
                    format!("client {} gets {returned:?}", ticket.connection - 1)
                });
                let operation = self.clients.remove(ticket, &returned).ok_or_else(|| Violation {
                    property: "exactly_once",
                    what: format!("a second reply for {ticket:?}"),
                })?;
                self.hear(operation, &returned)?;
                self.connections.reply(ticket, reply)
            }
            // The simulated clients have no memory limit, so none is cut off.
            RouterAction::Cut(connection)
            | RouterAction::EndInput(connection)
            | RouterAction::Tell(connection, _) => {
                Err(Violation { property: "routing", what: format!("client {connection} is given up") })
            }
        }
    }
}
