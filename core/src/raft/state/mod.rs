//! The state of a Raft node: Figure 2's state, and the state that the handlers keep in addition.
//!
//! This folder makes no decisions. Its files hold state and keep it consistent; the handlers
//! outside of the folder read and change it, and no file here names a handler. The log and the view
//! of the disk are separate state machines: see [`Log`] and [`Durability`].
//!
//! | file | state |
//! | --- | --- |
//! | this one | of every node: Fig. 2's persistent and volatile state, and the role |
//! | `campaign` | of a candidate: its votes |
//! | `leadership` | of a leader: Fig. 2's volatile state on leaders, uncommitted entries, a transfer |
//! | `followers`, `progress` | of a leader: its followers, and the replication progress and window of each |
//! | `waiting_reads` | of every node: linearizable reads that wait |
//! | `membership_history` | the configurations of the log |
//! | `incoming_snapshot` | a snapshot that this node is receiving |
//! | `turn_outputs` | the outputs of the turn under way |

mod campaign;
mod followers;
mod incoming_snapshot;
mod leadership;
mod membership_history;
mod progress;
mod turn_outputs;
mod waiting_reads;

use std::fmt;
use std::time::Duration;

pub(super) use campaign::Campaign;
pub(super) use incoming_snapshot::Receiving;
pub(super) use leadership::{Leadership, Transfer};
pub(super) use membership_history::Membership;
pub(super) use progress::Progress;
pub(super) use turn_outputs::Turn;
pub use waiting_reads::READ_BATCHES_MAX;
pub(super) use waiting_reads::{Asker, LeaderReads, OwnReads};

use super::batch_builder::BatchBuilder;
use super::configuration::Configuration;
use super::durability::{Durability, Promise};
use super::event::Event;
use super::log::Log;
use super::message::{Body, Elapsed, Message};
use super::settings::Config;
use super::snapshot::SnapshotMeta;
use super::types::{LogIndex, LogPoint, NodeId, Term};
use crate::identity::Incarnation;
use crate::time::{Instant, micros};

/// The role of a node (§5.1), with candidates split in two by pre-vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Follows a leader, or waits for one.
    Follower,
    /// Runs a pre-vote: asks whether it would be elected.
    PreCandidate,
    /// Runs an election.
    Candidate,
    /// Leads.
    Leader,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Role {
    /// The name of the role in lower case, as in the paper.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Follower => "follower",
            Self::PreCandidate => "pre-candidate",
            Self::Candidate => "candidate",
            Self::Leader => "leader",
        }
    }
}

/// The role of a node, with the state that only this role needs.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "a node has just one, and looks into it all the time")]
pub(super) enum Part {
    Follower { leader: Option<NodeId> },
    PreCandidate(Campaign),
    Candidate(Campaign),
    Leader(Leadership),
}

/// One node of a Raft cluster. The module documentation says how to drive it.
///
/// ```
/// use coracle_core::Instant;
/// use coracle_core::raft::{Config, Node, NodeId, Output, Restored, Role, Voters};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let voters = Voters::new([NodeId(1)]).ok_or("one to nine voters")?;
/// let now = Instant::from_micros(0);
/// let mut node = Node::new(Config::new(NodeId(1), voters), Restored::default(), 42, now)?;
/// let mut outputs = Vec::new();
/// node.end_turn(node.deadline(), &mut outputs);
/// // A cluster of one elects itself, once its vote is durable.
/// while let Some(Output::Persist(persist)) = outputs.iter().find(|it| matches!(it, Output::Persist(_))) {
///     node.persisted(persist.id, now);
///     outputs.clear();
///     node.end_turn(node.deadline(), &mut outputs);
/// }
/// assert_eq!(node.role(), Role::Leader);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Node {
    pub(super) config: Config,
    pub(super) rng: fastrand::Rng,
    /// Fig. 2, persistent state: the latest term seen; the vote in it (`voted_for`); the log.
    pub(super) current_term: Term,
    pub(super) voted_for: Option<NodeId>,
    /// The incarnation of the candidate `voted_for`; not kept on disk.
    pub(super) voted_for_incarnation: Option<Incarnation>,
    pub(super) log: Log,
    pub(super) membership: Membership,
    /// Fig. 2, volatile state: the highest index known to be committed.
    pub(super) commit_index: LogIndex,
    pub(super) part: Part,
    /// When a follower or candidate starts the next campaign.
    pub(super) election_deadline: Instant,
    /// The time of the last turn, and whether the sleep before it was forgiven.
    pub(super) last_turn: Instant,
    pub(super) sleep_was_discounted: bool,
    /// When a message of the leader of this term last arrived.
    pub(super) leader_contact: Option<Instant>,
    /// When a message of a leader of any term last arrived; at first the start of the node, because
    /// of the promises that it may have made before.
    pub(super) vote_is_promised_from: Option<Instant>,
    pub(super) own_reads: OwnReads,
    /// The number of this node's latest campaign.
    pub(super) round: u64,
    pub(super) durability: Durability,
    /// The latest snapshot that is durable on this node.
    pub(super) snapshot: Option<SnapshotMeta>,
    pub(super) receiving: Option<Receiving>,
    /// Entries that were proposed in this turn and are not in the log yet.
    pub(super) proposals: BatchBuilder,
    pub(super) turn: Turn,
    /// The age of an entry that heartbeats state, and the one that the leader's last heartbeat has
    /// stated.
    pub(super) elapsed: Option<Elapsed>,
    pub(super) heard_elapsed: Option<Elapsed>,
}

impl Node {
    /// The id of this node.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.config.id
    }

    /// Its role.
    #[must_use]
    pub fn role(&self) -> Role {
        match self.part {
            Part::Follower { .. } => Role::Follower,
            Part::PreCandidate(_) => Role::PreCandidate,
            Part::Candidate(_) => Role::Candidate,
            Part::Leader(_) => Role::Leader,
        }
    }

    /// The leader of its term, itself included, if it knows one.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        match self.part {
            Part::Follower { leader } => leader,
            Part::PreCandidate(_) | Part::Candidate(_) => None,
            Part::Leader(_) => Some(self.config.id),
        }
    }

    /// The latest term that it has seen, durable or not yet.
    #[must_use]
    pub fn current_term(&self) -> Term {
        self.current_term
    }

    /// The candidate that it voted for in its term.
    #[must_use]
    pub fn voted_for(&self) -> Option<NodeId> {
        self.voted_for
    }

    /// The highest index that it knows to be committed.
    #[must_use]
    pub fn commit_index(&self) -> LogIndex {
        self.commit_index
    }

    /// The highest index that is durable on its own disk.
    #[must_use]
    pub fn durable_index(&self) -> LogIndex {
        self.durability.durable_index()
    }

    /// How long, as of the last turn, its disk has finished no write although one waits; zero if
    /// none waits.
    #[must_use]
    pub fn disk_waits_for(&self) -> Duration {
        self.durability.waiting_since().map_or(Duration::ZERO, |since| self.last_turn.since(since))
    }

    /// Its log, without the proposals of the turn under way.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The configuration in force: the latest one in its log, committed or not.
    #[must_use]
    pub fn configuration(&self) -> &Configuration {
        self.membership.current()
    }

    /// Returns whether this leader still sends entries to a member that was removed.
    #[must_use]
    pub fn sends_to_removed_member(&self) -> bool {
        matches!(&self.part, Part::Leader(leadership) if leadership.followers.any_is_leaving())
    }

    /// Returns whether this leader has committed an entry of its term, and with it all entries
    /// before.
    #[must_use]
    pub fn commits_own_term(&self) -> bool {
        matches!(&self.part, Part::Leader(leadership) if leadership.is_own(self.commit_index))
    }

    /// The point of the last entry, including the proposals of the turn under way.
    pub(super) fn last_entry(&self) -> LogPoint {
        self.proposals.last()
    }

    pub(super) fn report(&mut self, event: Event) {
        self.turn.events.push(event);
    }

    pub(super) fn send(&mut self, to: NodeId, promise: Promise, body: Body) {
        let Config { id: from, incarnation, .. } = self.config;
        let message = Message { from, incarnation, to, term: self.current_term, body };
        self.turn.messages.push((promise, message));
    }

    pub(super) fn peers(&self) -> Vec<NodeId> {
        let own_id = self.config.id;
        self.configuration().members().into_iter().filter(|&node| node != own_id).collect()
    }

    /// Draws a new election deadline (§5.2: randomised, so that split votes are rare).
    pub(super) fn reset_election_timer(&mut self, now: Instant) {
        let shortest = micros(self.config.election_timeout_min);
        let longest = micros(self.config.election_timeout_max);
        self.election_deadline = now + Duration::from_micros(self.rng.u64(shortest..longest));
        self.sleep_was_discounted = false;
    }
}
