//! Safety invariants of the simulated cluster: one property per file, with its source, checked at
//! every step.
//!
//! The properties keep ghost state that no node ever sees. To be cheap enough for every step, they
//! look only at changes. This incremental knowledge is compared with the whole state from time to
//! time, and when the run has come to rest.

mod ack_durability;
mod bounds;
mod client_durability;
mod commit_quorum;
mod connection_order;
mod durable_index;
mod election_safety;
mod exactly_once;
mod expiry;
mod leader_append_only;
mod leader_completeness;
mod linearizability;
mod log_matching;
mod membership;
mod monotonic;
mod pre_vote;
mod reads;
mod recoverability;
mod replay;
mod session_retention;
mod session_table;
mod snapshots;
mod state_machine_safety;
mod vote_persistence;
pub mod watches;

use std::collections::BTreeMap;
use std::fmt;

use coracle_core::kv::{SessionLimits, Value};
use coracle_core::raft::{Body, Configuration, LogIndex, LogPoint, Message, NodeId};
use coracle_core::{Output, Replica, Request, SnapshotPolicy, WatchLimits};

use super::clients::{Operation, Returned};
use super::durable::DurableState;
use super::process::{Process, Running};

/// A property that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The name of the property, which is the name of its file.
    pub property: &'static str,
    /// A description of the violation.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.property, self.what)
    }
}

/// The result of checking a property.
pub type Verdict = Result<(), Violation>;

/// Fails with a description when `holds` is false.
fn require(holds: bool, property: &'static str, what: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(Violation { property, what: what() }) }
}

/// An entry that is committed permanently.
#[derive(Clone, Debug)]
pub struct CommittedEntry {
    /// Its point.
    pub point: LogPoint,
    /// Its payload.
    pub payload: Box<str>,
}

/// All properties with their ghost state.
#[derive(Debug, Default)]
pub struct Invariants {
    election_safety: election_safety::ElectionSafety,
    leader_append_only: leader_append_only::LeaderAppendOnly,
    log_matching: log_matching::LogMatching,
    monotonic: monotonic::Monotonic,
    vote_persistence: vote_persistence::VotePersistence,
    pre_vote: pre_vote::PreVote,
    membership: membership::Membership,
    reads: reads::Reads,
    connection_order: connection_order::ConnectionOrder,
    exactly_once: exactly_once::ExactlyOnce,
    expiry: expiry::Expiry,
    session_retention: session_retention::SessionRetention,
    snapshots: snapshots::Snapshots,
    bounds: bounds::Bounds,
    watch_limits: WatchLimits,
    /// The committed log, as the first node that committed each entry holds it.
    pub committed: Vec<CommittedEntry>,
    /// The replay of the committed log into a map.
    pub model: linearizability::Model,
}

impl Invariants {
    /// Creates all properties for a new cluster with these limits of sessions and watches, this
    /// many bytes of log that nodes keep although a snapshot covers them, and clocks of these
    /// speeds.
    #[must_use]
    pub fn new(
        session_limits: SessionLimits,
        kept_log_max: usize,
        clock_rates: &[u64],
        watch_limits: WatchLimits,
    ) -> Self {
        Self {
            expiry: expiry::Expiry::new(clock_rates),
            session_retention: session_retention::SessionRetention::new(session_limits.kept_for, clock_rates),
            watch_limits,
            bounds: bounds::Bounds::new(kept_log_max),
            model: linearizability::Model::new(session_limits),
            snapshots: snapshots::Snapshots::new(session_limits),
            ..Self::default()
        }
    }

    /// Notes that a client is about to send a request, for the first time or as a retry.
    pub fn before_ask(&mut self, request: &Request) {
        if let Request::Write { command, session, .. } = request {
            let mut payload = String::new();
            command.write_payload(session.as_ref(), &mut payload);
            self.exactly_once.asked(&payload);
        }
    }

    /// Checks a node after a turn at the true time `now`, before `outputs` are carried out.
    ///
    /// # Errors
    ///
    /// The first property that does not hold.
    pub fn after_turn(
        &mut self,
        now: u64,
        process: &Process,
        outputs: &[Output],
        all: &[Process],
    ) -> Verdict {
        let Some(running) = &process.running else { return Ok(()) };
        let replica = &running.replica;
        self.election_safety.check(replica)?;
        self.leader_append_only.check(replica, outputs)?;
        self.log_matching.check(outputs)?;
        self.monotonic.check(process.id, replica)?;
        let members = replica.node().configuration();
        self.pre_vote.check(process.id, outputs, members)?;
        self.vote_persistence.check_elected(process.id, outputs, members)?;
        self.membership.check(replica, outputs)?;
        self.reads.check(replica, outputs)?;
        durable_index::check(process, running)?;
        bounds::check(replica)?;
        self.bounds.check_kept_log(process.id, replica)?;
        watches::check_size(replica, self.watch_limits)?;
        self.take_commits(now, replica, all)?;
        leader_completeness::check(replica, outputs, &self.committed)?;
        state_machine_safety::check(replica, &self.committed)?;
        self.snapshots.check(process, running, outputs, &self.committed)?;
        self.exactly_once.check_state(replica, &self.model)
    }

    /// Checks a message that is about to leave its node, whose disk holds `durable`.
    ///
    /// # Errors
    ///
    /// The first property that does not hold.
    pub fn before_send(&mut self, message: &Message, durable: &DurableState) -> Verdict {
        self.pre_vote.note(message);
        match &message.body {
            Body::RequestVoteResponse(_) | Body::RequestVote(_) => {
                self.vote_persistence.check(message, durable)
            }
            Body::AppendEntriesResponse(response) => ack_durability::check(message, response, durable),
            Body::InstallSnapshotResponse(response) => {
                ack_durability::check_install(message, response, durable)
            }
            _ => Ok(()),
        }
    }

    /// Checks a node that has started. `before` is the state that was durable when it went down.
    ///
    /// # Errors
    ///
    /// The first property that does not hold.
    pub fn after_start(&mut self, process: &Process, before: &DurableState) -> Verdict {
        self.monotonic.restarted(process.id);
        self.leader_append_only.restarted(process.id);
        self.exactly_once.restarted(process.id);
        self.reads.restarted(process.id, process.durable.end().index);
        self.snapshots.restarted(process.id);
        self.bounds.restarted(process.id);
        recoverability::check(process, before)
    }

    /// Checks the outcome of a client's request.
    ///
    /// # Errors
    ///
    /// The first property that does not hold.
    pub fn after_return(&mut self, operation: &Operation, returned: &Returned) -> Verdict {
        client_durability::check(operation, returned, &self.committed)?;
        self.exactly_once.returned(operation, returned)?;
        self.model.check(operation, returned, &self.committed)?;
        self.connection_order.check(operation, returned, &self.model)
    }

    /// Checks a read of `key` that was answered with `value` at the applied index `index`.
    ///
    /// # Errors
    ///
    /// When the committed log says otherwise.
    pub fn check_value(&self, key: &str, index: LogIndex, value: Option<&Value>) -> Verdict {
        require(index.0 <= self.committed.len() as u64, "linearizability", || {
            format!("a read at {index}, beyond what is committed")
        })?;
        let expected = self.model.value_at(key, index);
        require(value.map(Value::as_json) == expected, "linearizability", || {
            format!("{key:?} at {index} was {value:?}, the log says {expected:?}")
        })
    }

    /// Collects the entries that `replica` is the first to commit.
    fn take_commits(&mut self, now: u64, replica: &Replica, all: &[Process]) -> Verdict {
        let commit_index = replica.node().commit_index();
        let known = LogIndex(self.committed.len() as u64);
        if commit_index <= known {
            return Ok(());
        }
        commit_quorum::check(replica, commit_index, all)?;
        for run in replica.node().log().entries_from(known.next(), usize::MAX) {
            for entry in run.iter().take_while(|entry| entry.point.index <= commit_index) {
                self.committed.push(CommittedEntry { point: entry.point, payload: entry.payload.into() });
                self.membership.committed(entry.point.index, entry.payload)?;
                self.exactly_once.committed(entry.point.index, entry.payload)?;
                self.expiry.committed(entry.point.index, entry.payload, now, &self.model)?;
                self.session_retention.committed(entry.point.index, entry.payload, now, &self.model)?;
                self.model.apply(entry.point.index, entry.payload)?;
                self.session_retention.executed(entry.payload, now, &self.model);
            }
        }
        require(self.committed.len() as u64 == commit_index.0, "commit_quorum", || {
            format!("node {} committed {commit_index} and its log lacks some of it", replica.node().id())
        })
    }

    /// Checks that no key that expires has stayed too long, at the true time `now`, on a cluster
    /// that has been healthy since `healthy_at`.
    ///
    /// # Errors
    ///
    /// When a key has.
    pub fn check_overdue(&self, now: u64, healthy_at: u64) -> Verdict {
        self.expiry.check_at_rest(now, healthy_at, &self.model)
    }

    /// Returns whether the point is that of a committed entry.
    #[must_use]
    pub fn is_committed(&self, point: Option<LogPoint>) -> bool {
        point.is_some_and(|point| {
            committed_at(&self.committed, point.index).is_some_and(|entry| entry.point == point)
        })
    }

    /// Checks a node once the cluster is at rest: the length of its log, and in full the state that
    /// is otherwise checked incrementally.
    ///
    /// # Errors
    ///
    /// The first property that does not hold.
    pub fn at_rest(&mut self, process: &Process, policy: SnapshotPolicy) -> Verdict {
        if let Some(running) = &process.running {
            exactly_once::ExactlyOnce::check_at_rest(&running.replica, &self.model)?;
            self.snapshots.check_at_rest(process, &self.committed)?;
        }
        bounds::check_log_behind_snapshot(process, policy)
    }
}

/// Returns whether these nodes are a majority of the voters, and of the outgoing voters of a joint
/// configuration. Counted here independently of the node.
fn majorities(members: &Configuration, nodes: &[NodeId]) -> bool {
    let sets = [Some(members.voters()), members.outgoing()];
    sets.into_iter().flatten().all(|set| {
        let holders = set.nodes().iter().filter(|voter| nodes.contains(voter)).count();
        2 * holders > set.nodes().len()
    })
}

/// A map from nodes to ghost state.
type ByNode<T> = BTreeMap<NodeId, T>;

/// The committed entry at `index`.
fn committed_at(committed: &[CommittedEntry], index: LogIndex) -> Option<&CommittedEntry> {
    committed.get(usize::try_from(index.0).ok()?.checked_sub(1)?)
}
