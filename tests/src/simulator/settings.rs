//! What a seed's run looks like: which faults, how often, how large, how fast. Drawn from the
//! seed's first choices.
//!
//! Swarm testing: a run with every fault at once explores less than many runs with a few each. So
//! each run switches each kind of fault on or off by itself, and likes extremes: a window of one
//! message, a timeout close to the heartbeat, a single key, a quarter of the time no fault at all.

use std::time::Duration;

use coracle_core::kv::SessionLimits;
use coracle_core::raft::ClockDrift;
use coracle_core::{ReplicaLimits, SnapshotPolicy};

use super::dice::Dice;

/// The kinds of faults that are brought about from time to time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A process ends at once; what was not synced may be lost. It starts again later.
    Crash,
    /// All processes end at the same moment.
    CrashAll,
    /// A process ends right after one of its next outputs.
    CrashAfterOutput,
    /// The leader's process ends, and is soon back.
    CrashLeader,
    /// A process ends between two of its next file operations.
    CrashInWrite,
    /// A process ends in the middle of its next start, between two file operations.
    CrashInRecovery,
    /// A process does nothing for a while, then has everything at once.
    Pause,
    /// One node hears nobody and nobody hears it.
    Isolate,
    /// The leader hears nobody and nobody hears it.
    IsolateLeader,
    /// The leader hears nobody and nobody hears it, for little longer than an election takes.
    Depose,
    /// Two groups that do not hear each other.
    Split,
    /// A random half of the directed links is cut.
    Asymmetric,
    /// All links are cut but those of one node.
    Hub,
    /// Each node hears only its neighbours.
    Ring,
    /// Some links go up and down every few hundred milliseconds.
    Flap,
    /// Messages on one link take seconds.
    Clog,
    /// A processor that is many times slower for a while.
    SlowNode,
    /// Syncs that take up to seconds for a while.
    SlowDisk,
    /// The next sync fails: the node has to stop.
    SyncFails,
    /// The disk is full: the next write fails, and the node has to stop.
    DiskFull,
    /// A bit flips in a file of a node that is down: it must refuse to start.
    BitFlip,
    /// A log loses its end, with entries that were committed and on its disk seconds ago: its node
    /// must refuse to start.
    LostPage,
    /// The leader is told to let a random node lead.
    Transfer,
    /// The leader is told that other nodes take part from now on, or with other rights.
    ChangeMembers,
}

impl Fault {
    /// All kinds.
    pub const ALL: [Self; 24] = [
        Self::Crash,
        Self::CrashAll,
        Self::CrashAfterOutput,
        Self::CrashLeader,
        Self::CrashInWrite,
        Self::CrashInRecovery,
        Self::Pause,
        Self::Isolate,
        Self::IsolateLeader,
        Self::Depose,
        Self::Split,
        Self::Asymmetric,
        Self::Hub,
        Self::Ring,
        Self::Flap,
        Self::Clog,
        Self::SlowNode,
        Self::SlowDisk,
        Self::SyncFails,
        Self::DiskFull,
        Self::BitFlip,
        Self::LostPage,
        Self::Transfer,
        Self::ChangeMembers,
    ];
}

/// How a run ends: what is left of the cluster while it has to recover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Everything works again.
    Healed,
    /// Only a random majority is alive, for ever.
    MajorityAlive,
    /// Every node is alive, but only one of them hears all others, who hear only that one.
    HubConnected,
    /// Every node is alive, but one of them, who may be the leader, hears nobody. All others hear
    /// it.
    OneDeaf,
}

/// The endings, those that are drawn more often more often.
const ENDINGS: [Ending; 5] =
    [Ending::Healed, Ending::Healed, Ending::MajorityAlive, Ending::HubConnected, Ending::OneDeaf];

/// A run's settings.
#[derive(Clone, Debug)]
pub struct SimSettings {
    /// How many nodes.
    pub nodes: usize,
    /// How long faults are brought about, in simulated time.
    pub trouble: Duration,
    /// Time between two faults, typically; `None`: there are none.
    pub fault_every: Option<Duration>,
    /// The kinds of faults of this run.
    pub faults: Vec<Fault>,
    /// How the run ends.
    pub ending: Ending,
    /// Messages lost, of a thousand.
    pub loss: u32,
    /// Messages doubled, of a thousand.
    pub duplication: u32,
    /// Whether the second one comes much later, when its sender and receiver may be in other terms
    /// and other lives.
    pub copies_are_late: bool,
    /// A message's way, typically, in microseconds; each takes its own time, so they overtake one
    /// another.
    pub delay: u64,
    /// Whether messages of a link keep their order.
    pub is_fifo: bool,
    /// A turn's time in microseconds.
    pub turn: u64,
    /// A write's time, typically, in microseconds.
    pub write: u64,
    /// A sync's time, typically, in microseconds.
    pub sync: u64,
    /// Each node's clock, in thousandths of true speed.
    pub clock_rates: Vec<u64>,
    /// The leader's beat.
    pub heartbeat: Duration,
    /// The shortest election timeout.
    pub election_min: Duration,
    /// The longest.
    pub election_max: Duration,
    /// The window's messages.
    pub in_flight_messages_max: usize,
    /// The most bytes of an AppendEntries.
    pub append_bytes_max: usize,
    /// The most uncommitted bytes.
    pub uncommitted_bytes_max: usize,
    /// How long a request may take.
    pub request_timeout: Duration,
    /// How many clients.
    pub clients: usize,
    /// How many requests each has under way.
    pub pipeline: usize,
    /// How many keys.
    pub keys: u32,
    /// Time between a client's requests, typically, in microseconds.
    pub think: u64,
    /// How many of a thousand reads are linearizable.
    pub linearizable: u32,
    /// How often somebody asks a node itself for a linearizable read, per thousand requests.
    pub walk_ins: u32,
    /// Whether leaders answer linearizable reads on a lease.
    pub read_lease: Option<ClockDrift>,
    /// Weights of put, get, delete, swap, scan.
    pub weights: [u32; 5],
    /// How many of the clients use sessions.
    pub session_clients: usize,
    /// How much the nodes remember of them.
    pub session_limits: SessionLimits,
    /// Whether clients only read from a while before the trouble ends: then nothing but a leader's
    /// own entry commits what an older one left behind.
    pub writes_end_early: bool,
    /// The most padding bytes of a value.
    pub value_bytes_max: u32,
    /// When nodes take snapshots, and in which pieces they write and send them.
    pub snapshots: SnapshotPolicy,
    /// How much of the log that a snapshot covers a node keeps in memory.
    pub retained_bytes: usize,
    /// See [`Config::held_bytes_max`](coracle_core::raft::Config::held_bytes_max).
    pub held_bytes_max: usize,
    /// Of a thousand parts of snapshots, how many arrive with a bit changed.
    pub damage: u32,
    /// Of a thousand lost messages, how many their sender is told of.
    pub noticed_losses: u32,
    /// How long a process is down, typically, in microseconds.
    pub outage: u64,
    /// How often leadership is handed over beside all faults, typically, in microseconds; `None`:
    /// never.
    pub transfer_every: Option<u64>,
    /// Of a thousand calls to take leadership over, how many arrive after their sender has given
    /// the transfer up.
    pub late_calls: u32,
    /// Of a thousand of them, how many arrive when nothing reaches their sender any more for a
    /// while.
    pub deaf_callers: u32,
}

/// How long a client rests at least between two requests, in microseconds.
fn think_min(append_bytes_max: usize, snapshots: SnapshotPolicy, round_trip: u64, clients: u64) -> u64 {
    // Where a message holds one entry, no more is asked for than can be replicated that way: an
    // overloaded cluster answers nobody, and its run would prove nothing.
    let for_messages = if append_bytes_max <= 1000 { 3 * round_trip * clients } else { 0 };
    // A node that takes a snapshot every few entries spends the run with that, if there are
    // thousands a second.
    let for_snapshots = if snapshots.log_entries <= 10 { 4000 * clients } else { 0 };
    for_messages.max(for_snapshots)
}

impl SimSettings {
    /// The settings that the dice give.
    pub fn draw(dice: &mut Dice, trouble: Duration) -> Self {
        let nodes = dice.one_of(&[5, 3, 3, 5, 5, 1, 2, 4, 7]);
        let faults: Vec<_> = Fault::ALL.into_iter().filter(|_| dice.happens(400)).collect();
        let changes_members = faults.contains(&Fault::ChangeMembers);
        let fault_every = draw_fault_every(dice, &faults);
        let (heartbeat, election_min, election_max) =
            dice.one_of(&[(50, 300, 600), (50, 300, 600), (20, 60, 100), (50, 120, 1500), (100, 1000, 1100)]);
        let drifts = dice.happens(300);
        let clock_rates = (0..nodes).map(|_| if drifts { dice.between(800, 1250) } else { 1000 }).collect();
        let (clients, delay, sync) = (
            dice.one_of(&[3, 1, 8]),
            dice.one_of(&[100, 50, 1000, 10_000]),
            dice.one_of(&[500, 200, 5000, 20_000]),
        );
        // Raft asks that messages and disks take far less than an election timeout (§5.6): else
        // nobody can be elected.
        let (delay, sync) =
            if election_max <= 100 { (delay.min(1000), sync.min(5000)) } else { (delay, sync) };
        let append_bytes_max = dice.one_of(&[1 << 20, 1, 200, 1000]);
        let round_trip = 2 * delay + 2 * sync;
        let snapshots = draw_snapshots(dice, round_trip);
        let think_min = think_min(append_bytes_max, snapshots, round_trip, clients as u64);
        let weights = draw_weights(dice);
        Self {
            nodes,
            trouble,
            fault_every,
            faults,
            // Who is left has to be a majority: with changing members nobody could say of what.
            ending: if changes_members { Ending::Healed } else { dice.one_of(&ENDINGS) },
            loss: dice.one_of(&[0, 0, 10, 100, 300]),
            duplication: dice.one_of(&[0, 0, 20, 200]),
            delay,
            copies_are_late: dice.happens(500),
            is_fifo: dice.happens(400),
            turn: dice.one_of(&[20, 5, 200, 1000]),
            write: dice.one_of(&[30, 10, 300]),
            sync,
            clock_rates,
            heartbeat: Duration::from_millis(heartbeat),
            election_min: Duration::from_millis(election_min),
            election_max: Duration::from_millis(election_max),
            in_flight_messages_max: dice.one_of(&[64, 1, 2, 8]),
            append_bytes_max,
            uncommitted_bytes_max: dice.one_of(&[64 << 20, 64 << 20, 500]),
            request_timeout: Duration::from_millis(dice.one_of(&[2000, 500, 5000])),
            clients,
            pipeline: dice.one_of(&[1, 1, 4, 16]),
            keys: dice.one_of(&[5, 1, 100]),
            think: dice.one_of(&[20_000, 5000, 100_000]).max(think_min),
            linearizable: dice.one_of(&[300, 0, 1000]),
            walk_ins: dice.one_of(&[200, 0, 500]),
            // The clocks of a run may be up to a quarter fast and a fifth slow.
            read_lease: dice.happens(300).then_some(ClockDrift { per_mille: 250 }),
            writes_end_early: dice.happens(200),
            weights,
            session_clients: dice.one_of(&[0, clients, clients.div_ceil(2)]),
            session_limits: draw_session_limits(dice),
            value_bytes_max: dice.one_of(&[0, 20, 200]),
            snapshots,
            retained_bytes: dice.one_of(&[0, 0, 300, 4 << 20]),
            held_bytes_max: dice.one_of(&[0, 1000, 1 << 20]),
            damage: dice.one_of(&[0, 0, 0, 30]),
            noticed_losses: dice.one_of(&[0, 100, 900]),
            outage: dice.one_of(&[500_000, 500_000, 4_000_000]),
            transfer_every: dice.one_of(&[None, None, Some(2_000_000), Some(500_000)]),
            late_calls: dice.one_of(&[0, 300, 1000]),
            deaf_callers: dice.one_of(&[0, 300, 1000]),
        }
    }

    /// What the replicas of this run are told.
    #[must_use]
    pub fn replica_limits(&self) -> ReplicaLimits {
        let (sessions, snapshots) = (self.session_limits, self.snapshots);
        ReplicaLimits { sessions, snapshots, ..ReplicaLimits::default() }
    }

    /// How much simulated time the cluster has to recover in, once the trouble is over: generous,
    /// but a bound.
    #[must_use]
    pub fn recovery_bound(&self) -> Duration {
        self.election_max * 20 + self.request_timeout * 2 + Duration::from_secs(5)
    }

    /// In how much time clients that are served write something, almost surely, also when they
    /// mostly read.
    #[must_use]
    pub fn some_writes_take(&self) -> Duration {
        let requests = Duration::from_micros(self.think * 60 / self.clients as u64);
        self.request_timeout * 2 + Duration::from_secs(1) + requests
    }
}

/// Weights of put, get, delete, swap, scan.
fn draw_weights(dice: &mut Dice) -> [u32; 5] {
    let writes_only = dice.happens(100);
    if writes_only {
        [10, 0, 0, 0, 0]
    } else {
        dice.one_of(&[[5, 5, 1, 2, 1], [1, 8, 0, 1, 0], [2, 2, 3, 6, 1]])
    }
}

/// Few sessions, few numbers, few bytes; or more than a run ever uses.
fn draw_session_limits(dice: &mut Dice) -> SessionLimits {
    let all = SessionLimits::default();
    SessionLimits {
        clients_max: dice.one_of(&[all.clients_max, all.clients_max, 4, 1]),
        bytes_max: dice.one_of(&[all.bytes_max, all.bytes_max, 2000]),
        window: dice.one_of(&[all.window, all.window, 8, 1]),
        client_bytes_max: dice.one_of(&[all.client_bytes_max, all.client_bytes_max, 600]),
        // Clients take a new name when theirs has expired, so that a name that was forgotten twice
        // could not be told from one that was never used.
        expired_max: all.expired_max,
    }
}

/// How often a fault comes; `None`: never.
fn draw_fault_every(dice: &mut Dice, faults: &[Fault]) -> Option<Duration> {
    let has_faults = dice.happens(800) && !faults.is_empty();
    has_faults.then(|| Duration::from_millis(dice.one_of(&[500, 100, 1500, 4000])))
}

/// The log that a node with little memory may have before a snapshot is due, and as much again
/// while something holds that back.
const LITTLE_LOG_BYTES: u64 = 3000;

/// Snapshots after a few entries or a few hundred bytes; none at all in a few runs.
fn draw_snapshots(dice: &mut Dice, round_trip: u64) -> SnapshotPolicy {
    // Each part waits for the one before: where that takes long, parts are larger, or nobody would
    // catch up in time.
    let part_bytes_min = if round_trip <= 2000 { 1 } else { 1000 };
    let part_bytes = dice.one_of(&[100_usize, 1, 300, 2000]).max(part_bytes_min);
    let all = SnapshotPolicy { part_bytes, ..SnapshotPolicy::default() };
    let (log_entries, log_bytes) = dice.one_of(&[
        (50, all.log_bytes),
        (3, all.log_bytes),
        (10, all.log_bytes),
        (all.log_entries, 300),
        (all.log_entries, LITTLE_LOG_BYTES),
        (all.log_entries, all.log_bytes),
    ]);
    // Little memory, in the runs that these thresholds are drawn for: no state is so large, and
    // nobody so slow, that the log outgrows it.
    let little = (log_bytes == LITTLE_LOG_BYTES).then_some(LITTLE_LOG_BYTES);
    let (log_bytes_max, held_back) =
        (little.unwrap_or(all.log_bytes_max), little.unwrap_or(all.held_back_bytes));
    let takes_turns = dice.happens(800);
    SnapshotPolicy { log_bytes, log_bytes_max, log_entries, held_back_bytes: held_back, takes_turns, ..all }
}
