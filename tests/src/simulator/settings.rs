//! Settings of a run, drawn from the seed's first choices: kinds and rates of faults, sizes and
//! speeds.
//!
//! Swarm testing: a run with every fault at once explores less than many runs with a few faults
//! each. So each run enables each kind of fault separately and prefers extremes: a window of one
//! message, a timeout close to the heartbeat, a single key, and no faults at all in a fifth of the
//! runs.

use std::time::Duration;

use coracle_core::kv::{Level, SessionLimits};
use coracle_core::raft::ClockDrift;
use coracle_core::{ReplicaLimits, SnapshotPolicy, WatchLimits};

use super::dice::Dice;
use super::watchers::{mixed, watch_limits};

/// The kinds of faults that are injected repeatedly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A process ends at once, and unsynced data may be lost. It starts again later.
    Crash,
    /// All processes end at the same moment.
    CrashAll,
    /// A process ends right after one of its next outputs.
    CrashAfterOutput,
    /// The leader's process ends and restarts soon.
    CrashLeader,
    /// A process ends between two of its next file operations.
    CrashInWrite,
    /// A process ends in the middle of its next start, between two file operations.
    CrashInRecovery,
    /// A process stops for a while, then receives all delayed inputs at once.
    Pause,
    /// No message gets from or to one node.
    Isolate,
    /// No message gets from or to the leader.
    IsolateLeader,
    /// No message gets from or to the leader for little longer than an election takes.
    Depose,
    /// Two groups of nodes that do not reach each other.
    Split,
    /// A random half of the directed links is cut.
    Asymmetric,
    /// Only the links of one node remain.
    Hub,
    /// Each node reaches only its two neighbors.
    Ring,
    /// Some links go up and down every few hundred milliseconds.
    Flap,
    /// Messages on one link take seconds.
    Clog,
    /// A processor is many times slower for a while.
    SlowNode,
    /// Disk operations are many times slower for a while, up to seconds.
    SlowDisk,
    /// The next sync fails, and the node has to stop.
    SyncFails,
    /// The disk is full, and the next write fails.
    DiskFull,
    /// A bit flips in a file of a node that is down, which must refuse to start.
    BitFlip,
    /// A log loses its end, with entries that were committed and durable seconds ago. Its node must
    /// refuse to start.
    LostPage,
    /// The leader is ordered to transfer leadership to a random node.
    Transfer,
    /// The leader is ordered to change the members or their roles.
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

/// The state of the cluster at the end of a run, in which it has to recover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Everything works again.
    Healed,
    /// Only a random majority is alive, permanently.
    MajorityAlive,
    /// Every node is alive, but the only links are those of one node.
    HubConnected,
    /// Every node is alive, but one of them, which may be the leader, receives no messages. All
    /// others receive its messages.
    OneDeaf,
}

/// The endings, with repetitions as weights.
const ENDINGS: [Ending; 5] =
    [Ending::Healed, Ending::Healed, Ending::MajorityAlive, Ending::HubConnected, Ending::OneDeaf];

/// The settings of a run.
#[derive(Clone, Debug)]
pub struct SimSettings {
    /// The number of nodes.
    pub nodes: usize,
    /// How long faults are injected, in simulated time.
    pub fault_time: Duration,
    /// The typical time between two faults; `None` for no faults.
    pub fault_every: Option<Duration>,
    /// The kinds of faults of this run.
    pub faults: Vec<Fault>,
    /// How the run ends.
    pub ending: Ending,
    /// The rate of lost messages, in thousandths.
    pub loss: u32,
    /// The rate of duplicated messages, in thousandths.
    pub duplication: u32,
    /// Whether duplicates arrive much later, when sender and receiver may be in other terms and
    /// other incarnations of their processes.
    pub copies_are_late: bool,
    /// The typical delay of a message, in microseconds. Each message draws its own delay, so
    /// messages overtake one another.
    pub delay: u64,
    /// Whether messages of a link keep their order.
    pub is_fifo: bool,
    /// The duration of a turn, in microseconds.
    pub turn: u64,
    /// The typical duration of a write, in microseconds.
    pub write: u64,
    /// The typical duration of a sync, in microseconds.
    pub sync: u64,
    /// The speed of each node's clock, in thousandths of true speed.
    pub clock_rates: Vec<u64>,
    /// The leader's heartbeat interval.
    pub heartbeat: Duration,
    /// The shortest election timeout.
    pub election_min: Duration,
    /// The longest election timeout.
    pub election_max: Duration,
    /// The most messages in flight per follower.
    pub in_flight_messages_max: usize,
    /// The most bytes of an AppendEntries.
    pub append_bytes_max: usize,
    /// The most uncommitted bytes.
    pub uncommitted_bytes_max: usize,
    /// The time after which a request fails.
    pub request_timeout: Duration,
    /// The number of clients.
    pub clients: usize,
    /// The most requests in flight per client.
    pub pipeline: usize,
    /// The number of keys.
    pub keys: u32,
    /// The typical time between a client's requests, in microseconds.
    pub think: u64,
    /// How many of a thousand reads are linearizable.
    pub linearizable: u32,
    /// How many linearizable reads go directly to a node, per thousand requests.
    pub direct_requests: u32,
    /// Whether leaders answer linearizable reads by a lease.
    pub read_lease: Option<ClockDrift>,
    /// The weight of each kind of request.
    pub weights: Weights,
    /// Nodes that start before this time, in microseconds, run a version that cannot raise the
    /// level.
    pub upgraded_at: u64,
    /// How many of the clients use sessions.
    pub session_clients: usize,
    /// The limits of the session table.
    pub session_limits: SessionLimits,
    /// Whether clients only read from some time before the faults end. Then only a leader's own
    /// entry commits what an older leader left behind.
    pub writes_end_early: bool,
    /// The most padding bytes of a value.
    pub value_bytes_max: u32,
    /// When nodes take snapshots, and the size of the parts in which they write and send them.
    pub snapshots: SnapshotPolicy,
    /// How many bytes of the log that a snapshot covers a node keeps in memory.
    pub retained_bytes: usize,
    /// See [`Config::held_bytes_max`](coracle_core::raft::Config::held_bytes_max).
    pub held_bytes_max: usize,
    /// How many of a thousand snapshot parts arrive with a flipped bit.
    pub damage: u32,
    /// How many of a thousand lost messages are reported to their sender.
    pub noticed_losses: u32,
    /// The typical time for which a process is down, in microseconds.
    pub outage: u64,
    /// The typical time between leadership transfers besides all faults, in microseconds; `None`
    /// for none.
    pub transfer_every: Option<u64>,
    /// How many of a thousand TimeoutNow calls arrive after their sender has given up on the
    /// transfer.
    pub late_calls: u32,
    /// How many of a thousand TimeoutNow calls arrive when nothing reaches their sender any more
    /// for a while.
    pub deaf_callers: u32,
    /// The limits of what nodes keep for watches. They follow from the other choices.
    pub watches: WatchLimits,
}

/// The shortest time between two requests of a client, in microseconds.
fn think_min(append_bytes_max: usize, snapshots: SnapshotPolicy, round_trip: u64, clients: u64) -> u64 {
    // Where a message holds one entry, clients send no more than can be replicated that way. An
    // overloaded cluster answers no client, and its run would prove nothing.
    let for_messages = if append_bytes_max <= 1000 { 3 * round_trip * clients } else { 0 };
    // A node that takes a snapshot every few entries would do nothing else if it had to apply
    // thousands per second.
    let for_snapshots = if snapshots.log_entries <= 10 { 4000 * clients } else { 0 };
    for_messages.max(for_snapshots)
}

impl SimSettings {
    /// Draws the settings.
    pub fn draw(dice: &mut Dice, fault_time: Duration) -> Self {
        let nodes = dice.one_of(&[5, 3, 3, 5, 5, 1, 2, 4, 7]);
        let faults: Vec<_> = Fault::ALL.into_iter().filter(|_| dice.happens(400)).collect();
        let changes_members = faults.contains(&Fault::ChangeMembers);
        let fault_every = draw_fault_every(dice, &faults);
        let (heartbeat, election_min, election_max) =
            dice.one_of(&[(50, 300, 600), (50, 300, 600), (20, 60, 100), (50, 120, 1500), (100, 1000, 1100)]);
        let clock_rates = draw_clock_rates(dice, nodes);
        let clients = dice.one_of(&[3, 1, 8]);
        let delay = dice.one_of(&[100, 50, 1000, 10_000]);
        let sync = dice.one_of(&[500, 200, 5000, 20_000]);
        // No node can be elected unless messages and disks are far faster than elections (§5.6).
        let (delay, sync) =
            if election_max <= 100 { (delay.min(1000), sync.min(5000)) } else { (delay, sync) };
        let append_bytes_max = dice.one_of(&[1 << 20, 1, 200, 1000]);
        let round_trip = 2 * delay + 2 * sync;
        let snapshots = draw_snapshots(dice, round_trip);
        let think_min = think_min(append_bytes_max, snapshots, round_trip, clients as u64);
        Self {
            nodes,
            fault_time,
            fault_every,
            faults,
            // The nodes that stay alive have to be a majority. With changing members it is
            // undefined of which set.
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
            direct_requests: dice.one_of(&[200, 0, 500]),
            // The clocks of a run may be up to a quarter fast and a fifth slow.
            read_lease: dice.happens(300).then_some(ClockDrift { per_mille: 250 }),
            writes_end_early: dice.happens(200),
            weights: draw_weights(dice),
            upgraded_at: dice.one_of(&[0, 0, 0, 3_000_000]),
            session_clients: dice.one_of(&[0, clients, clients.div_ceil(2)]),
            session_limits: short_memory(draw_session_limits(dice), dice.tape()),
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
            watches: watch_limits(dice.tape()),
        }
    }

    /// The limits of a replica that starts at this time, in microseconds.
    #[must_use]
    pub fn replica_limits(&self, now: u64) -> ReplicaLimits {
        let (sessions, snapshots) = (self.session_limits, self.snapshots);
        let supports = if now < self.upgraded_at { Level::FIRST } else { Level::MAX };
        ReplicaLimits { sessions, snapshots, supports, watches: self.watches, ..ReplicaLimits::default() }
    }

    /// The simulated time in which the cluster has to recover after the faults end: generous, but
    /// bounded.
    #[must_use]
    pub fn recovery_bound(&self) -> Duration {
        self.election_max * 20 + self.request_timeout * 2 + Duration::from_secs(5)
    }

    /// The time in which clients that are served almost surely write something, even if they mostly
    /// read.
    #[must_use]
    pub fn some_writes_take(&self) -> Duration {
        let requests = Duration::from_micros(self.think * 60 / self.clients as u64);
        self.request_timeout * 2 + Duration::from_secs(1) + requests
    }
}

/// The weights of the kinds of requests.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weights {
    /// Put.
    pub put: u32,
    /// Get.
    pub get: u32,
    /// Delete.
    pub delete: u32,
    /// Compare-and-swap by value.
    pub swap: u32,
    /// Scan.
    pub scan: u32,
    /// Compare-and-swap and delete by revision.
    pub by_revision: u32,
    /// Increment.
    pub incr: u32,
    /// Delete by prefix.
    pub delete_prefix: u32,
    /// Transaction.
    pub txn: u32,
    /// Writes and reads of keys that expire.
    pub expiry: u32,
}

/// Draws the speeds of the clocks.
fn draw_clock_rates(dice: &mut Dice, nodes: usize) -> Vec<u64> {
    let drifts = dice.happens(300);
    (0..nodes).map(|_| if drifts { dice.between(800, 1250) } else { 1000 }).collect()
}

/// Draws the weights.
fn draw_weights(dice: &mut Dice) -> Weights {
    let basic = |put, get, delete, swap, scan| Weights { put, get, delete, swap, scan, ..Weights::default() };
    match dice.below(12) {
        10 => Weights { expiry: 6, ..basic(2, 2, 0, 0, 0) },
        11 => Weights { expiry: 3, incr: 1, delete_prefix: 1, ..basic(2, 2, 1, 1, 1) },
        0 => basic(10, 0, 0, 0, 0),
        1 | 2 => basic(5, 5, 1, 2, 1),
        3 => basic(1, 8, 0, 1, 0),
        4 => basic(2, 2, 3, 6, 1),
        5 => Weights { incr: 8, ..basic(1, 2, 0, 0, 0) },
        6 => Weights { by_revision: 6, ..basic(3, 4, 1, 1, 1) },
        7 => Weights { txn: 6, ..basic(2, 3, 1, 0, 0) },
        _ => Weights { by_revision: 2, incr: 2, delete_prefix: 1, txn: 2, ..basic(3, 4, 1, 2, 2) },
    }
}

/// A time for which forgotten clients are remembered that no run reaches.
pub(super) const KEPT_FOR_RETRIES: Duration = Duration::from_secs(600);

/// Draws the limits of sessions: few sessions, sequence numbers or bytes, or more than a run ever
/// uses.
fn draw_session_limits(dice: &mut Dice) -> SessionLimits {
    let all = SessionLimits::default();
    SessionLimits {
        clients_max: dice.one_of(&[all.clients_max, all.clients_max, 4, 1]),
        bytes_max: dice.one_of(&[all.bytes_max, all.bytes_max, 2000]),
        window: dice.one_of(&[all.window, all.window, 8, 1]),
        client_bytes_max: dice.one_of(&[all.client_bytes_max, all.client_bytes_max, 600]),
        // Clients take a new name when theirs has expired. With a lower limit, a name that was
        // forgotten twice could not be told from a new one.
        expired_max: all.expired_max,
        ..all
    }
}

/// In a third of the runs, forgotten clients are soon taken for new ones, or new ones are rejected.
/// This follows from the choices of the run and takes none from the dice.
fn short_memory(limits: SessionLimits, tape: &[u32]) -> SessionLimits {
    let mut rng = fastrand::Rng::with_seed(mixed(tape) ^ 2);
    if rng.u32(..3) > 0 {
        return limits;
    }
    let kept_for =
        [KEPT_FOR_RETRIES, Duration::from_millis(400), Duration::from_millis(1500)][rng.usize(..3)];
    SessionLimits { fingerprints_max: [1, 6][rng.usize(..2)], kept_for, ..limits }
}

/// Draws the time between faults; `None` for no faults.
fn draw_fault_every(dice: &mut Dice, faults: &[Fault]) -> Option<Duration> {
    let has_faults = dice.happens(800) && !faults.is_empty();
    has_faults.then(|| Duration::from_millis(dice.one_of(&[500, 100, 1500, 4000])))
}

/// The log size at which a node with little memory has to take a snapshot; it may grow by as much
/// again while the snapshot is held back.
const LITTLE_LOG_BYTES: u64 = 3000;

/// Draws the snapshot policy: snapshots after a few entries or a few hundred bytes, or none at all
/// in a few runs.
fn draw_snapshots(dice: &mut Dice, round_trip: u64) -> SnapshotPolicy {
    // Each part waits for the one before. Where that takes long, parts are larger, because
    // otherwise no follower would catch up in time.
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
    // Limits of a node with little memory, in the runs that have these thresholds: the log stays
    // within them however large the state is, and however far a follower lags.
    let little = (log_bytes == LITTLE_LOG_BYTES).then_some(LITTLE_LOG_BYTES);
    let (log_bytes_max, held_back) =
        (little.unwrap_or(all.log_bytes_max), little.unwrap_or(all.held_back_bytes));
    let takes_turns = dice.happens(800);
    SnapshotPolicy { log_bytes, log_bytes_max, log_entries, held_back_bytes: held_back, takes_turns, ..all }
}
