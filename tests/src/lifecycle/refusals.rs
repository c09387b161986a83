//! Rejections in handshakes: checks that a node was rejected for a valid reason.

use std::collections::BTreeMap;

use coracle_core::Incarnation;
use coracle_core::host::DialError;
use coracle_core::peer::{Founders, HandshakeRefusal, Origin, Standing};
use coracle_core::raft::{Configuration, NodeId};

use super::checks::violation;
use super::machine::{Machine, Stage};
use super::world::{MACHINES, World};
use crate::simulator::invariants::Verdict;

/// The shortest time after its first rejection at which a node without a cluster gives up, in
/// microseconds. Chosen as less than five rounds of calls, in which a founder of five gets twenty
/// rejections.
const MOMENT: u64 = 300_000;
/// The time in which a restarted node is admitted by a node that it dials, although its own address
/// cannot be dialed, in microseconds. Chosen as `REACHED_VALID` and `DOUBT_MAX`, plus the pauses
/// between calls.
const RESTART_KNOWN: u64 = 6_000_000;
/// The longest pause between two calls, in microseconds. A longer one was caused by the network,
/// and the time starts again.
const CALLS: u64 = 700_000;

/// The first and the last time at which a listener rejected a dialer because it seemed to run
/// twice, by the runs of dialer and listener.
#[derive(Debug, Default)]
pub(super) struct RunsTwice(BTreeMap<(u64, u64), (u64, u64)>);

impl World {
    /// Checks a failed call: the process on this machine has dialed, and one of the two has
    /// rejected the other.
    pub(super) fn call_failed(
        &mut self,
        from: usize,
        node: Option<NodeId>,
        address: &str,
        failure: &DialError,
    ) -> Verdict {
        let DialError::Refused(refusal) = failure else { return Ok(()) };
        let Some(to) = self.dialled(from, node, address) else { return Ok(()) };
        let is_one_cluster = from.max(to) < MACHINES;
        match refusal {
            _ if !is_one_cluster => Ok(()),
            HandshakeRefusal::OtherIncarnation { node, .. } => {
                self.a_later_member_is_heard(from, to, NodeId(*node))
            }
            HandshakeRefusal::Removed { node, .. } => self.no_member_is_removed(from, to, NodeId(*node)),
            HandshakeRefusal::RunsTwice { .. } => self.a_restart_is_believed(from, to),
            _ => Ok(()),
        }
    }

    /// Checks that a node which knows an older configuration rejects no member that knows a newer
    /// one, because that member may have been added again since.
    fn a_later_member_is_heard(&self, from: usize, to: usize, node: NodeId) -> Verdict {
        let process = |machine: usize| self.machines[machine].process.as_ref();
        let Some((dialler, listener)) = process(from).zip(process(to)) else { return Ok(()) };
        let (refuser, refused) = if dialler.id == node { (listener, dialler) } else { (dialler, listener) };
        let is_member = |(_, latest): (_, &Configuration)| {
            refused.id == node && latest.names(node, Some(refused.incarnation))
        };
        let (theirs, own) = (refused.directory.local(), refuser.directory.local());
        let has_cluster = matches!(theirs.standing, Standing::Member(..));
        let knows_more = theirs.configuration_index > own.configuration_index;
        if refuser.id != node
            && has_cluster
            && knows_more
            && self.checks.first.latest().is_some_and(is_member)
        {
            let what = format!("node {} refuses node {node}, which is a member and knows more", refuser.id);
            return violation("a_later_member_is_heard", what);
        }
        Ok(())
    }

    /// Checks that a node which is rejected as removed is no member by the latest committed
    /// configuration, and that the addition which admitted it was committed.
    fn no_member_is_removed(&self, from: usize, to: usize, node: NodeId) -> Verdict {
        let Some((_, latest)) = self.checks.first.latest() else { return Ok(()) };
        let process = |machine: usize| self.machines[machine].process.as_ref().filter(|it| it.id == node);
        let refused = process(from).or(process(to));
        if refused.is_some_and(|refused| latest.names(node, Some(refused.incarnation))) {
            return violation(
                "no_member_is_refused_as_removed",
                format!("node {node} is a member: {latest}"),
            );
        }
        let addition = refused.map(|refused| refused.directory.local().addition).unwrap_or_default();
        let is_of_first = from.max(to) < MACHINES;
        if is_of_first && !addition.is_founding() && !self.checks.first.was_added(node, addition) {
            let what = format!("{addition:?} of node {node} was rolled back, not followed by a removal");
            return violation("only_the_removed_are_refused_as_removed", what);
        }
        Ok(())
    }

    /// Checks that a node which is rejected because it seems to run twice is a copy, or is admitted
    /// soon.
    fn a_restart_is_believed(&mut self, from: usize, to: usize) -> Verdict {
        let boot = |place: &Machine| place.process.as_ref().map_or(0, |process| process.boot);
        let pair = (boot(&self.machines[from]), boot(&self.machines[to]));
        let now = self.now;
        let (since, last) = self.runs_twice.0.entry(pair).or_insert((now, now));
        if now - *last > CALLS {
            *since = now;
        }
        *last = now;
        let doubted_for = now - *since;
        if self.copied.is_none() && doubted_for > RESTART_KNOWN {
            let what = format!("machine {from} was restarted, and machine {to} still takes it for a copy");
            return violation("a_restart_is_believed", what);
        }
        Ok(())
    }

    /// Checks a node without a cluster that ends because its id belongs to another incarnation. A
    /// single rejection must not suffice, because it may come from a member that lags.
    pub(super) fn gives_up(&self, machine: usize, refused_since: u64) -> Verdict {
        if self.now - refused_since >= MOMENT {
            return Ok(());
        }
        violation("one_refusal_is_not_final", format!("machine {machine} believes a single refusal"))
    }

    /// Checks a founder that makes its files: the cluster names it as a founder in its incarnation,
    /// so it never lost the files of that founder. None of the nodes with which it bootstraps the
    /// cluster is a joiner, which waits for an existing cluster.
    pub(super) fn founds_with_founders(
        &self,
        (node, incarnation): (NodeId, Incarnation),
        founders: &Founders,
    ) -> Verdict {
        let own = founders.roster.member(node).and_then(|member| member.incarnation);
        if own != Some(incarnation) {
            let what = format!("node {node} in {incarnation} takes part as the founder in {own:?}");
            return violation("only_founders_take_part_as_founders", what);
        }
        let joins = |place: &&Machine| {
            let joins = place.unit.as_ref().is_some_and(|unit| matches!(unit.origin, Origin::Join(_)));
            let is_named = |incarnation| {
                founders.roster.iter().any(|(_, member)| member.incarnation == Some(incarnation))
            };
            let process = place.process.as_ref();
            let process = process.filter(|process| matches!(process.stage, Stage::Searching(_)));
            joins && process.is_some_and(|process| is_named(process.incarnation))
        };
        match self.machines.iter().find(joins) {
            Some(place) => {
                let what = format!("{:?} waits to join, and is a founder", place.unit);
                violation("no_joiner_is_a_founder", what)
            }
            None => Ok(()),
        }
    }
}
