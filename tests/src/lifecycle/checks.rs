//! Invariants of a cluster's life cycle, whatever its operator does.

use std::collections::{BTreeMap, BTreeSet};

use coracle_core::kv::{Found, LoggedWrite, Operation};
use coracle_core::raft::{
    Addition, Configuration, EntryKind, Log, LogIndex, LogPoint, NodeId, Role, Term, Voters,
};
use coracle_core::{ClusterId, Incarnation};
use coracle_storage::{Identity, SnapshotFile};

use super::machine::Running;
use super::world::MACHINES;
use crate::simulator::invariants::{Verdict, Violation};

/// The entries that any process was seen to commit, and ghost state derived from them.
#[derive(Debug, Default)]
pub(super) struct Checks {
    pub(super) cluster: Option<ClusterId>,
    committed: BTreeMap<LogIndex, LogPoint>,
    /// The committed configurations, including that of the founders.
    configurations: BTreeMap<LogIndex, Configuration>,
    /// The numbers written to each key, by log index.
    writes: BTreeMap<String, BTreeMap<LogIndex, u64>>,
    /// The log index of each number of each key.
    written: BTreeMap<(String, u64), LogIndex>,
    leaders: BTreeMap<Term, (NodeId, Incarnation)>,
    /// The index up to which each run's commits were checked.
    seen: BTreeMap<u64, LogIndex>,
    /// The time of each node's latest turn.
    ran_at: BTreeMap<Incarnation, u64>,
    /// The time of the turn before that.
    ran_before: BTreeMap<Incarnation, u64>,
    /// The incarnations that a configuration in the log of that incarnation has named.
    named: BTreeSet<Incarnation>,
    /// The highest index that the log of each incarnation has ever reached.
    reached: BTreeMap<Incarnation, LogIndex>,
}

/// The checks of the old cluster, and of the one that was restored from its backup.
#[derive(Debug, Default)]
pub(super) struct Histories {
    pub(super) first: Checks,
    pub(super) restored: Checks,
}

impl Histories {
    /// The checks of the cluster to which this machine belongs.
    pub(super) fn of(&mut self, machine: usize) -> &mut Checks {
        if machine < MACHINES { &mut self.first } else { &mut self.restored }
    }

    pub(super) fn at(&self, machine: usize) -> &Checks {
        if machine < MACHINES { &self.first } else { &self.restored }
    }
}

/// A term that no run reaches by elections.
const REACHABLE: Term = Term(1 << 32);

pub(super) fn violation(property: &'static str, what: String) -> Verdict {
    Err(Violation { property, what })
}

impl Checks {
    /// Checks that a process belongs to the only cluster of its machines, with these founders.
    pub(super) fn belongs(&mut self, cluster: ClusterId, founders: Configuration) -> Verdict {
        let known = *self.cluster.get_or_insert(cluster);
        self.configurations.entry(LogIndex::ORIGIN).or_insert(founders);
        if known == cluster {
            Ok(())
        } else {
            violation("one_cluster", "a second cluster was founded".into())
        }
    }

    /// Election safety: each term has one leader (§5.2), which is one node in one incarnation.
    pub(super) fn leads(&mut self, term: Term, node: NodeId, incarnation: Incarnation) -> Verdict {
        let leader = *self.leaders.entry(term).or_insert((node, incarnation));
        let is_same = leader == (node, incarnation);
        let what = || format!("term {term} is led by {leader:?} and by {:?}", (node, incarnation));
        if is_same { Ok(()) } else { violation("election_safety", what()) }
    }

    /// Checks a process after a turn. All processes agree on the entry that is committed at each
    /// index.
    pub(super) fn after_turn(
        &mut self,
        boot: u64,
        (node, own): (NodeId, Incarnation),
        running: &Running,
    ) -> Verdict {
        let replica = running.host.replica();
        let (log, commit) = (replica.node().log(), replica.node().commit_index());
        let term = replica.node().current_term();
        let reached = self.reached.entry(own).or_default();
        *reached = log.last().index.max(*reached);
        // A turn may append the entry that names the node, and also one that no longer names it.
        let mut in_force = replica.node().configurations_since(commit).into_iter().flatten();
        if in_force.any(|configuration| configuration.names(node, Some(own))) {
            self.named.insert(own);
        }
        if replica.node().role() == Role::Leader
            && replica.node().membership_is_settled()
            && !replica.node().configuration().names_voter(node, Some(own))
        {
            return violation("a_removed_leader_steps_down", format!("node {node} leads on"));
        }
        if term > REACHABLE {
            return violation("forgeries", format!("node {node} is in term {term}"));
        }
        let seen = *self.seen.entry(boot).or_insert(LogIndex::ORIGIN);
        if commit <= seen {
            return Ok(());
        }
        self.seen.insert(boot, commit);
        let first = LogIndex(seen.0.max(log.start().index.0) + 1);
        self.look_at(log, first, commit, node)
    }

    fn look_at(&mut self, log: &Log, first: LogIndex, last: LogIndex, node: NodeId) -> Verdict {
        for entry in log.between(first, last) {
            let point = entry.point;
            let known = *self.committed.entry(point.index).or_insert(point);
            if known != point {
                let what = format!("node {node} has committed {point:?}, and another one {known:?}");
                return violation("one_history", what);
            }
            match entry.kind() {
                EntryKind::Config => {
                    let configuration = Configuration::read(entry.payload).expect("it is in a log");
                    self.configurations.insert(point.index, configuration);
                }
                EntryKind::Command => self.note_write(point.index, entry.payload)?,
                EntryKind::Noop => {}
            }
        }
        Ok(())
    }

    /// Checks the configurations in a leader's log, the latest last, of which all but the first may
    /// be uncommitted. A leader adds no node again in an incarnation that was removed, even if no
    /// log holds that removal any more.
    pub(super) fn binds(&self, commit: LogIndex, open: Vec<&Configuration>) -> Verdict {
        let mut history: Vec<_> = self.configurations.range(..=commit).map(|(_, of)| of).collect();
        history.extend(open);
        let Some((latest, earlier)) = history.split_last() else { return Ok(()) };
        for (node, member) in latest.roster().iter() {
            let names = |of: &&&Configuration| of.names(node, member.incarnation);
            let mut earlier = earlier.iter();
            if member.incarnation.is_some()
                && earlier.by_ref().any(|of| names(&of))
                && !earlier.all(|of| names(&of))
            {
                let what = format!("{latest} names node {node} in {member:?}, which was removed before");
                return violation("a_removed_incarnation_stays_removed", what);
            }
        }
        Ok(())
    }

    /// Checks a leader's belief that the member in this incarnation holds all entries up to
    /// `commit`: its log must have reached that index.
    pub(super) fn names_committed(&self, member: (NodeId, Incarnation), commit: LogIndex) -> Verdict {
        let reached = self.reached.get(&member.1).copied().unwrap_or_default();
        let what =
            || format!("{member:?} is taken to hold entry {commit}, and its log never went beyond {reached}");
        if commit <= reached { Ok(()) } else { violation("a_leader_knows_what_a_member_holds", what()) }
    }

    /// Checks that a node is admitted only by a committed configuration, so that its addition is
    /// never rolled back.
    pub(super) fn lets_in(&self, node: NodeId, joined: &Configuration) -> Verdict {
        let addition = joined.roster().member(node).map(|own| own.addition);
        if addition.is_some_and(|addition| self.was_added(node, addition)) {
            return Ok(());
        }
        violation(
            "only_committed_additions_let_in",
            format!("node {node} was let in by {joined}: {addition:?}"),
        )
    }

    /// Returns whether a committed configuration had this member by this addition.
    pub(super) fn was_added(&self, node: NodeId, addition: Addition) -> bool {
        let is_the_one =
            |of: &Configuration| of.roster().member(node).is_some_and(|it| it.addition == addition);
        self.configurations.values().any(is_the_one)
    }

    /// Returns another incarnation in which a committed configuration named this node.
    pub(super) fn other_incarnation(&self, node: NodeId, current: Incarnation) -> Option<Incarnation> {
        let named = |of: &Configuration| of.roster().member(node).and_then(|member| member.incarnation);
        self.configurations.values().filter_map(named).find(|incarnation| *incarnation != current)
    }

    /// Records a write. Clients send each number once, so each is committed at most once.
    fn note_write(&mut self, index: LogIndex, payload: &str) -> Verdict {
        let Some(Operation::Put { key, value }) = LoggedWrite::read(payload).map(|write| write.operation)
        else {
            return Ok(());
        };
        let number = value.parse().expect("clients write numbers");
        let first = *self.written.entry((key.clone().into_owned(), number)).or_insert(index);
        if first != index {
            return violation(
                "done_once",
                format!("{key} = {number} is committed at {first} and at {index}"),
            );
        }
        self.writes.entry(key.into_owned()).or_default().insert(index, number);
        Ok(())
    }

    /// The checks of a new cluster that is restored from a backup of this one.
    pub(super) fn restored(&self, backup: &SnapshotFile<'_>, identity: &Identity) -> Self {
        let last = backup.header.last();
        let mut writes = self.writes.clone();
        writes.values_mut().for_each(|numbers| numbers.retain(|index, _| *index <= last.index));
        let voters = Voters::new([identity.node]).expect("it is one");
        let first = Configuration::of_voters(voters).with_roster(&identity.roster);
        let configurations = BTreeMap::from([(last.index, first)]);
        Self { cluster: Some(identity.cluster), configurations, writes, ..Self::default() }
    }

    /// The value of each key after everything up to `index` was applied.
    pub(super) fn values_at(&self, index: LogIndex) -> BTreeMap<&str, u64> {
        let value = |numbers: &BTreeMap<LogIndex, u64>| {
            numbers.range(..=index).next_back().map(|(_, number)| *number)
        };
        self.writes.iter().filter_map(|(key, numbers)| Some((key.as_str(), value(numbers)?))).collect()
    }

    /// The latest configuration that any process knows to be committed.
    pub(super) fn latest(&self) -> Option<(LogIndex, &Configuration)> {
        self.configurations.last_key_value().map(|(index, configuration)| (*index, configuration))
    }

    /// Returns whether a committed configuration named this node, and the latest does not.
    pub(super) fn was_removed(&self, node: NodeId, incarnation: Incarnation) -> bool {
        let names = |configuration: &Configuration| configuration.names(node, Some(incarnation));
        let was_named = self.configurations.values().any(names);
        was_named && self.latest().is_some_and(|(_, latest)| !names(latest))
    }

    /// Returns whether a committed configuration had this node at this address.
    pub(super) fn was_at(&self, node: NodeId, address: &str) -> bool {
        let is_there =
            |of: &Configuration| of.roster().member(node).is_some_and(|its| *its.address == *address);
        self.configurations.values().any(is_there)
    }

    /// The configuration in force at this index of the committed log.
    pub(super) fn configuration_at(&self, index: LogIndex) -> Option<&Configuration> {
        self.configurations.range(..=index).next_back().map(|(_, configuration)| configuration)
    }

    /// Checks an acknowledged write: it is committed at the index of the answer.
    pub(super) fn acknowledged(&self, key: &str, number: u64, index: LogIndex) -> Verdict {
        let found = self.writes.get(key).and_then(|writes| writes.get(&index));
        let what = || format!("{key} = {number} was acknowledged at {index}, where {found:?} is committed");
        if found == Some(&number) { Ok(()) } else { violation("acknowledged_is_committed", what()) }
    }

    /// Checks the answer to a read. By the entries that it has applied the reader is a member, and
    /// the value is that of the log at this index.
    pub(super) fn was_read(
        &self,
        key: &str,
        index: LogIndex,
        found: &Found,
        reader: (NodeId, Incarnation),
    ) -> Verdict {
        let names = |configuration: &Configuration| configuration.names(reader.0, Some(reader.1));
        if !self.configuration_at(index).is_some_and(names) {
            let what = format!("{reader:?} answers a read at {index}, by which it is no member");
            return violation("only_members_answer", what);
        }
        let expected = self.writes.get(key).and_then(|writes| writes.range(..=index).next_back());
        let expected = expected.map(|(_, number)| number.to_string());
        let Found::Value(value) = found else { return violation("reads", "a page for a get".into()) };
        let value = value.as_ref().map(|value| value.as_json().to_owned());
        let what = || format!("{reader:?} answers {value:?} for {key} at {index}: it is {expected:?}");
        if value == expected { Ok(()) } else { violation("reads", what()) }
    }

    /// Checks that a linearizable read reflects everything that was acknowledged before it was
    /// sent.
    pub(super) fn was_read_linearizably(&self, key: &str, index: LogIndex, floor: LogIndex) -> Verdict {
        let what = || format!("a linearizable read of {key} is answered at {index}, below {floor}");
        if index >= floor { Ok(()) } else { violation("linearizable", what()) }
    }

    /// Checks a process that has ended because it considers itself removed. By the committed
    /// configurations it must not be a member.
    pub(super) fn ended(&self, node: NodeId, incarnation: Incarnation, why: &str) -> Verdict {
        let is_member = self.latest().is_some_and(|(_, latest)| latest.names(node, Some(incarnation)));
        let what = || format!("member {node} in {incarnation} ends: {why}");
        if is_member { violation("a_healthy_node_never_ends", what()) } else { Ok(()) }
    }

    /// Checks an answer that reports to the operator that this node was removed.
    pub(super) fn told_removed(&self, node: NodeId, told: &Configuration) -> Verdict {
        let is_there = told.contains(node);
        if is_there { violation("orders", format!("{node} was removed, and is a member")) } else { Ok(()) }
    }

    /// Checks a node that grants a vote or a pre-vote: a configuration of its log has named it.
    pub(super) fn votes(&self, node: NodeId, incarnation: Incarnation) -> Verdict {
        let what = || format!("{node} in {incarnation} votes, and no entry of its log names it");
        if self.knows_itself(incarnation) { Ok(()) } else { violation("only_members_vote", what()) }
    }

    /// Returns whether a configuration of its log has named this incarnation.
    pub(super) fn knows_itself(&self, incarnation: Incarnation) -> bool {
        self.named.contains(&incarnation)
    }

    /// Checks a membership change of a leader: a majority of the new voters answered it recently,
    /// and no two members have the same address.
    pub(super) fn proposed(&self, proposed: &Configuration, a_moment_ago: u64) -> Verdict {
        let roster = proposed.roster();
        let addresses: BTreeSet<_> = roster.iter().map(|(_, member)| &member.address).collect();
        if addresses.len() < roster.iter().count() {
            return violation("one_member_an_address", format!("{proposed} has two"));
        }
        let has_run = |voter: &&NodeId| {
            let incarnation = roster.member(**voter).and_then(|member| member.incarnation);
            incarnation.and_then(|its| self.ran_at.get(&its)).is_some_and(|at| *at >= a_moment_ago)
        };
        let voters = proposed.voters();
        let running = voters.nodes().iter().filter(has_run).count();
        if proposed.is_joint() && running < voters.majority() {
            return violation("a_majority_is_left", format!("{proposed}: only {running} have run lately"));
        }
        Ok(())
    }

    /// Records a turn of a node.
    pub(super) fn ran(&mut self, incarnation: Incarnation, now: u64) {
        if let Some(before) = self.ran_at.insert(incarnation, now) {
            self.ran_before.insert(incarnation, before);
        }
    }

    /// The time of a node's turn before the present one. A node that was paused in between acts on
    /// answers that are as old as that.
    pub(super) fn turn_before(&self, incarnation: Incarnation, now: u64) -> u64 {
        self.ran_before.get(&incarnation).copied().unwrap_or(now)
    }

    /// Checks an answer that reports to the operator that this node is a voter: it has run and
    /// answered recently.
    pub(super) fn told_promoted(&self, node: NodeId, told: &Configuration, long_ago: u64) -> Verdict {
        let member = told.roster().member(node).and_then(|member| member.incarnation);
        if !told.voters().contains(node) || member.is_none() {
            return violation("orders", format!("{node} was promoted, and does not vote: {told}"));
        }
        let has_run = member.and_then(|member| self.ran_at.get(&member)).is_some_and(|at| *at >= long_ago);
        if has_run {
            Ok(())
        } else {
            violation("orders", format!("{node} was promoted, and has not run for long"))
        }
    }
}
