//! Refusals in handshakes: checks that a node which is refused should be.

use std::collections::BTreeMap;

use coracle_core::host::DialFailure;
use coracle_core::peer::{Founders, Origin, PeerRefusal, Standing};
use coracle_core::raft::{Configuration, NodeId};

use super::checks::violation;
use super::machine::{Machine, Stage};
use super::world::{MACHINES, World};
use crate::simulator::invariants::Verdict;

/// A node without a cluster gives up no sooner than this after its first refusal, in microseconds.
/// Chosen as less than five rounds of calls, in which a founder of five hears twenty refusals.
const MOMENT: u64 = 300_000;
/// Within this time a restarted node is let in by a node that it dials, although nothing answers at
/// its own address. Chosen as `REACHED_VALID` and `DOUBT_MAX`, and the pauses between calls.
const RESTART_KNOWN: u64 = 6_000_000;
/// The longest pause between two calls. After a longer one the network was in the way, and the time
/// starts anew.
const CALLS: u64 = 700_000;

/// Of two runs of processes, the dialler's and the listener's: when the one was first refused by
/// the other because it seemed to run twice, and when last.
#[derive(Debug, Default)]
pub(super) struct RunsTwice(BTreeMap<(u64, u64), (u64, u64)>);

impl World {
    /// The process on this machine has dialled, and one of the two has refused the other.
    pub(super) fn call_failed(
        &mut self,
        from: usize,
        node: Option<NodeId>,
        address: &str,
        failure: &DialFailure,
    ) -> Verdict {
        let DialFailure::Refused(refusal) = failure else { return Ok(()) };
        let Some(to) = self.dialled(from, node, address) else { return Ok(()) };
        let is_one_cluster = from.max(to) < MACHINES;
        match refusal {
            _ if !is_one_cluster => Ok(()),
            PeerRefusal::OtherIncarnation { node, .. } => {
                self.a_later_member_is_heard(from, to, NodeId(*node))
            }
            PeerRefusal::Removed { node, .. } => self.no_member_is_removed(from, to, NodeId(*node)),
            PeerRefusal::RunsTwice { .. } => self.a_restart_is_believed(from, to),
            _ => Ok(()),
        }
    }

    /// A node that knows less of the members refuses no member that knows more: that one may have
    /// been let in again since.
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

    /// A node that is refused as removed is no member by the configuration that was committed last,
    /// and the addition that let it in was committed once.
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

    /// A node that is refused because it seems to run twice is a copy, or is let in soon.
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

    /// A node without a cluster ends because its id is a member in another incarnation. A single
    /// refusal may come from a member that lags, so it must not be enough.
    pub(super) fn gives_up(&self, machine: usize, refused_since: u64) -> Verdict {
        if self.now - refused_since >= MOMENT {
            return Ok(());
        }
        violation("one_refusal_is_not_final", format!("machine {machine} believes a single refusal"))
    }

    /// A founder has met all the others: none of them is a joiner, which waits for a cluster that
    /// exists.
    pub(super) fn founds_with_founders(&self, founders: &Founders) -> Verdict {
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
