//! Refusals in handshakes: whether it is right that a node is turned away.

use std::collections::BTreeMap;

use coracle_core::host::DialFailure;
use coracle_core::peer::{Founders, Origin, PeerRefusal, Standing};
use coracle_core::raft::NodeId;

use super::checks::violation;
use super::machine::{Machine, Stage};
use super::world::{MACHINES, World};
use crate::simulator::invariants::Verdict;

/// A node without a cluster that believes a refusal has heard it for as long as a member may be behind. Founders ask several members
/// in each round.
const MOMENT: u64 = 300_000;
/// Within this time a node that was restarted is let in by whom it dials, although nobody answers at its address. Chosen as
/// `REACHED_VALID` and `DOUBT_MAX`, and the pauses between calls.
const RESTART_KNOWN: u64 = 6_000_000;
/// Calls that are further apart say nothing of the time between them.
const CALLS: u64 = 700_000;

/// Since when runs of nodes are refused because another process seems to run, by which other run.
#[derive(Debug, Default)]
pub(super) struct Doubted(BTreeMap<(u64, u64), (u64, u64)>);

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
            PeerRefusal::RunsTwice { .. } => self.a_restart_is_believed(from, to),
            _ => Ok(()),
        }
    }

    /// A node that knows less of the members refuses no member that knows more: that one may have been let in again since.
    fn a_later_member_is_heard(&self, from: usize, to: usize, node: NodeId) -> Verdict {
        let process = |machine: usize| self.machines[machine].process.as_ref();
        let Some((dialler, listener)) = process(from).zip(process(to)) else { return Ok(()) };
        let (refuser, refused) = if dialler.id == node { (listener, dialler) } else { (dialler, listener) };
        let is_member = |(_, latest): (_, &coracle_core::raft::Configuration)| {
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

    /// A node that is told that it runs twice is a copy, or is let in soon.
    fn a_restart_is_believed(&mut self, from: usize, to: usize) -> Verdict {
        let boot = |place: &Machine| place.process.as_ref().map_or(0, |process| process.boot);
        let pair = (boot(&self.machines[from]), boot(&self.machines[to]));
        let now = self.now;
        let (since, last) = self.doubted.0.entry(pair).or_insert((now, now));
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

    /// A node without a cluster ends because its id is a member in another incarnation. One member that is behind may say so of
    /// a node that is waited for.
    pub(super) fn gives_up(&self, machine: usize, refused_since: u64) -> Verdict {
        if self.now - refused_since >= MOMENT {
            return Ok(());
        }
        violation("a_refusal_is_heard_again", format!("machine {machine} believes a single refusal"))
    }

    /// A founder has met all the others: none of them was waiting for a cluster that exists.
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
                violation("nobody_founds_with_a_joiner", what)
            }
            None => Ok(()),
        }
    }
}
