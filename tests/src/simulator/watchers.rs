//! Simulated watchers: clients with a watch each, which read eagerly, slowly or not at all for a
//! while, and go from node to node.
//!
//! A watcher talks lines of the protocol with the shipped `ClientHost`. In place of a router, the
//! world hands the requests of the watch to the watcher's node, and the node's answers to the host,
//! as long as the node's process lives. So the watches of a cluster of processes are modelled, in
//! which a connection ends with its server. The lines are checked by the property `watches`.
//!
//! Whether a run has watchers, and everything that they draw, follows from the choices that the
//! run's settings have drawn, and takes no choices from the dice. So runs without watchers are the
//! same as if there were none.

use std::collections::BTreeMap;

use coracle_core::host::{ClientHost, RouterInput, ToWriter};
use coracle_core::kv::HistoryLimits;
use coracle_core::memory::MemoryBudget;
use coracle_core::proxy::{Answered, RequestError};
use coracle_core::{
    Answer, ClusterId, Input, KnownCluster, Request, RequestId, VIEW_TIMEOUT, WatchAnswer, WatchLimits,
    WatchPart,
};

use super::invariants::watches::{Followed, Heard, Selected};
use super::invariants::{Verdict, Violation};
use super::queue::SimEvent;
use super::world::World;

/// The first id of a watch request. Those of a proxy and of other direct requests never reach it.
const FIRST: u64 = 3 << 61;

/// How long a request takes from a watcher's connection to its node, in microseconds.
const HOP: u64 = 10;

/// The silence after which a watcher leaves its node: more than the time in which a node sends a
/// line, on the slowest clock.
const SILENCE_MAX: u64 = 10_000_000;

/// The time in which a watcher that is behind comes further, in microseconds.
const CATCH_UP_STEP: u64 = 1_000_000;

/// An event of a watcher.
#[derive(Debug)]
pub(super) enum WatcherEvent {
    /// It reads, or changes its node.
    Acts(usize),
    /// Its request arrives at a node, if the node's process still lives.
    Asks { node: usize, life: u64, id: RequestId, request: Request },
}

/// The watchers of a run.
#[derive(Debug)]
pub(super) struct Watchers {
    rng: fastrand::Rng,
    watchers: Vec<Watcher>,
    /// The requests under way: watcher, session and slot.
    asked: BTreeMap<RequestId, (usize, u64, u64)>,
    next: u64,
    /// The most bytes of keys and values that are requested at once.
    part_bytes: usize,
    /// Whether all read eagerly, at this node: the run comes to rest.
    calm_at: Option<usize>,
}

#[derive(Debug)]
struct Watcher {
    selected: Selected,
    followed: Followed,
    /// The typical time between two reads, in microseconds; 0: it reads at once.
    pace: u64,
    /// In how many of a thousand cases it leaves its node.
    leaves: u32,
    session: Option<Session>,
}

#[derive(Debug)]
struct Session {
    number: u64,
    host: ClientHost,
    node: usize,
    life: u64,
    heard_at: u64,
}

/// Mixes the choices of a run into one number.
pub(super) fn mixed(tape: &[u32]) -> u64 {
    tape.iter().fold(7, |mixed: u64, choice| {
        (mixed.rotate_left(5) ^ u64::from(*choice)).wrapping_mul(0x517c_c1b7_2722_0a95)
    })
}

/// The limits of what nodes keep for watches, in a run whose settings drew these choices.
pub(super) fn watch_limits(tape: &[u32]) -> WatchLimits {
    let mut rng = fastrand::Rng::with_seed(mixed(tape) ^ 1);
    let all = WatchLimits::default();
    let events = [all.history.events, 200, 20, 3][rng.usize(..4)];
    let bytes = [all.history.bytes, 2000][rng.usize(..2)];
    let view_bytes = [all.view_bytes, 100][rng.usize(..2)];
    WatchLimits {
        history: HistoryLimits { events, bytes },
        view_bytes,
        views: [all.views, 1][rng.usize(..2)],
    }
}

impl Watchers {
    /// The watchers of a run whose settings drew these choices; none in two thirds of the runs.
    pub(super) fn new(tape: &[u32], keys: u32) -> Self {
        let mut rng = fastrand::Rng::with_seed(mixed(tape));
        let count = if rng.u32(..3) == 0 { rng.usize(1..=4) } else { 0 };
        let part_bytes = [usize::MAX, 1, 100][rng.usize(..3)];
        let watchers = (0..count).map(|_| Watcher::new(&mut rng, keys)).collect();
        Self { rng, watchers, asked: BTreeMap::new(), next: FIRST, part_bytes, calm_at: None }
    }

    pub(super) fn len(&self) -> usize {
        self.watchers.len()
    }

    /// The time after which every watcher that reads eagerly has come to the end, in microseconds.
    /// The views of watchers that have left hold their places until a timeout, which may take a
    /// quarter longer on the slowest clock.
    pub(super) fn rest(&self) -> u64 {
        let timeout = u64::try_from(VIEW_TIMEOUT.as_micros()).expect("some seconds");
        if self.watchers.is_empty() { 0 } else { timeout * 3 / 2 }
    }
}

/// Returns whether a request is of a watch.
pub(super) fn is_of_watch(request: RequestId) -> bool {
    request.0 >= FIRST
}

impl Watcher {
    fn new(rng: &mut fastrand::Rng, keys: u32) -> Self {
        let key = format!("k{}", rng.u32(..keys));
        let selected = match rng.u32(..5) {
            0 => Selected::Prefix(String::new()),
            1 => Selected::Prefix("k".into()),
            2 | 3 => Selected::Prefix(key),
            _ => Selected::Key(key),
        };
        let pace = [0, 0, 100_000, 1_000_000, 12_000_000][rng.usize(..5)];
        let leaves = [0, 5, 100][rng.usize(..3)];
        let followed = Followed::fresh(rng.bool());
        Self { selected, followed, pace, leaves, session: None }
    }
}

impl World {
    pub(super) fn watcher_happens(&mut self, event: WatcherEvent) -> Verdict {
        match event {
            WatcherEvent::Acts(watcher) => self.watcher_acts(watcher),
            WatcherEvent::Asks { node, life, id, request } => {
                if self.processes[node].life == life {
                    self.hand(node, Input::Request(id, request));
                }
                Ok(())
            }
        }
    }

    fn watcher_acts(&mut self, at: usize) -> Verdict {
        let Watchers { rng, watchers, calm_at, .. } = &mut self.watchers;
        let watcher = &mut watchers[at];
        let pace = if calm_at.is_some() { 0 } else { watcher.pace };
        let pause = 50_000 + pace / 2 + rng.u64(..=pace.max(1));
        let leaves = rng.u32(..1000) < watcher.leaves && calm_at.is_none();
        let is_lost = watcher.session.as_ref().is_none_or(|session| {
            let is_silent = self.now > session.heard_at + SILENCE_MAX;
            is_silent || leaves || self.processes[session.node].life != session.life
        });
        self.schedule(pause, SimEvent::Watcher(WatcherEvent::Acts(at)));
        if is_lost {
            return self.watch_elsewhere(at);
        }
        self.read_watch(at)
    }

    /// Begins at another node, where the watch stopped, or somewhere else.
    fn watch_elsewhere(&mut self, at: usize) -> Verdict {
        let committed = self.invariants.committed.len() as u64;
        let Watchers { rng, watchers, calm_at, next, .. } = &mut self.watchers;
        let watcher = &mut watchers[at];
        watcher.session = None;
        let node = calm_at.unwrap_or_else(|| rng.usize(..self.processes.len()));
        let process = &self.processes[node];
        if process.running.is_none() {
            return Ok(());
        }
        if rng.u32(..10) == 0 && calm_at.is_none() {
            watcher.followed = match rng.u32(..3) {
                0 => Followed::after(rng.u64(..=committed + 5)),
                1 => Followed::fresh(true),
                _ => Followed::fresh(false),
            };
        }
        let number = *next;
        *next += 1;
        let cluster = KnownCluster::default();
        cluster.set(ClusterId(1));
        let (memory, _) = MemoryBudget::unlimited().connect(number).expect("there is no limit");
        let mut host = ClientHost::new(number, "simulated:1".into(), cluster, memory);
        let line = watcher.followed.request(&watcher.selected, &ClusterId(1).to_string());
        host.received(line.as_bytes());
        let ([_, asked], ..) = host.next_read();
        watcher.session = Some(Session { number, host, node, life: process.life, heard_at: self.now });
        self.trace.note(self.now, [18, at as u64, node as u64], || {
            format!("watcher {at} begins at node {node}: {}", line.trim_end())
        });
        self.ask_for_watch(at, asked)
    }

    /// Sends the requests of a watcher's connection to its node.
    fn ask_for_watch(&mut self, at: usize, asked: Option<RouterInput>) -> Verdict {
        let Some(RouterInput::Asked(number, requests)) = asked else { return Ok(()) };
        for (slot, mut request) in requests {
            let Watchers { watchers, asked, next, part_bytes, .. } = &mut self.watchers;
            let Some(session) = &watchers[at].session else { continue };
            let (node, life, id) = (session.node, session.life, RequestId(*next));
            *next += 1;
            asked.insert(id, (at, number, slot));
            if let Request::Watch(watch) = &mut request {
                let (WatchPart::Start { bytes_max, .. }
                | WatchPart::Content { bytes_max, .. }
                | WatchPart::Changes { bytes_max, .. }) = &mut watch.part;
                *bytes_max = (*bytes_max).min(*part_bytes);
            }
            self.schedule(HOP, SimEvent::Watcher(WatcherEvent::Asks { node, life, id, request }));
        }
        Ok(())
    }

    /// Hands a node's answer to the connection that asked, if it still exists.
    pub(super) fn watch_answered(&mut self, id: RequestId, answer: &Answer) -> Verdict {
        let Some((at, number, slot)) = self.watchers.asked.remove(&id) else { return Ok(()) };
        let watcher = &mut self.watchers.watchers[at];
        let Some(session) = watcher.session.as_mut().filter(|session| session.number == number) else {
            return Ok(());
        };
        let reply = match answer {
            Answer::Refused(_) => Err(RequestError::NoLeader),
            answer => Ok(Answered::ByNode(answer.clone())),
        };
        self.trace
            .note(self.now, [19, at as u64, slot & 0xffff], || format!("watcher {at} is given {answer:?}"));
        match answer {
            Answer::Watch(answer) => match **answer {
                WatchAnswer::Lagged { .. } => self.trace.sight("a watch lagged"),
                WatchAnswer::Compacted { .. } => self.trace.sight("a watch was too old for the history"),
                WatchAnswer::Content { .. } => self.trace.sight("a watch read its content in parts"),
                WatchAnswer::Changes { ref entries, .. } if entries.is_empty() => {
                    self.trace.sight("a watch showed progress");
                }
                _ => {}
            },
            _ => self.trace.sight("a node could not begin a watch"),
        }
        session.host.told(ToWriter::Reply(slot, reply));
        let is_eager = watcher.pace == 0 || self.watchers.calm_at.is_some();
        if is_eager { self.read_watch(at) } else { Ok(()) }
    }

    /// Reads everything that a watcher's connection has to write.
    fn read_watch(&mut self, at: usize) -> Verdict {
        let mut lines = String::new();
        loop {
            let Some(session) = &mut self.watchers.watchers[at].session else { return Ok(()) };
            let [_, asked] = session.host.next_write(&mut lines);
            let is_done = asked.is_none() && lines.is_empty();
            if !lines.is_empty() {
                session.heard_at = self.now;
            }
            self.ask_for_watch(at, asked)?;
            if is_done {
                return Ok(());
            }
            for line in lines.lines() {
                let watcher = &mut self.watchers.watchers[at];
                match self.invariants.hear_watch(&watcher.selected, &mut watcher.followed, line)? {
                    Heard::GoOn => {}
                    Heard::End => watcher.session = None,
                    Heard::Gone => {
                        watcher.session = None;
                        watcher.followed = Followed::fresh(self.watchers.rng.bool());
                    }
                }
            }
        }
    }

    /// Lets all watchers read eagerly at the leader, because the run comes to rest.
    pub(super) fn calm_watchers(&mut self, leader: usize) {
        self.watchers.calm_at = Some(leader);
        self.watchers.watchers.iter_mut().for_each(|watcher| watcher.session = None);
        // The next event of a slow one may be after the end of the run.
        for at in 0..self.watchers.len() {
            self.schedule(1, SimEvent::Watcher(WatcherEvent::Acts(at)));
        }
    }

    /// Lets the watchers go on that are far behind, as long as they come further: some read one
    /// entry at a time.
    ///
    /// # Errors
    ///
    /// The first property that does not hold meanwhile.
    pub(super) fn let_watchers_catch_up(&mut self) -> Verdict {
        let mut before = None;
        while self.check_watchers_at_rest().is_err() {
            let reached: Vec<_> =
                self.watchers.watchers.iter().map(|watcher| watcher.followed.after_rev()).collect();
            if before.as_ref() == Some(&reached) {
                return Ok(());
            }
            before = Some(reached);
            self.run_until(self.now + CATCH_UP_STEP)?;
        }
        Ok(())
    }

    /// Checks that every watcher has received everything, once the run is at rest.
    pub(super) fn check_watchers_at_rest(&self) -> Verdict {
        for (at, watcher) in self.watchers.watchers.iter().enumerate() {
            self.invariants.watch_at_rest(&watcher.selected, &watcher.followed).map_err(|violation| {
                Violation { what: format!("watcher {at}: {}", violation.what), ..violation }
            })?;
        }
        Ok(())
    }
}
