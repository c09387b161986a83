//! The cluster configuration: the voters, the learners, and during a change also the outgoing
//! voters.
//!
//! During a change two sets of voters must agree to every decision, each by its own majority (§6,
//! joint consensus): so the old and the new set can never decide without each other. Learners
//! receive the log and do not vote.
//!
//! A configuration is an entry of the log:
//! `"op":"CONFIG","voters":[1,2,3],"outgoing":[1,2],"learners":[4],"members":[…],"additions":1`,
//! where fields that are empty or 0 are left out. `members` is the [`Roster`], `additions` the
//! number of the latest [`Addition`].

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::quorum::{VoteResult, Voters};
use super::roster::{Addition, Member, MemberText, Roster};
use super::types::NodeId;
use crate::identity::Incarnation;
use crate::mutant::{self, Mutant};

/// The maximum number of learners at once: an arbitrary limit, more than an operator adds together.
pub const LEARNERS_MAX: usize = 16;

/// The prefix of the payload of every configuration entry.
pub(super) const CONFIG_PREFIX: &str = "\"op\":\"CONFIG\",";

/// The members of a cluster. Cloning copies nothing, so types that hold a configuration stay small:
/// messages and outputs are moved often.
///
/// ```
/// use coracle_core::raft::{Configuration, NodeId, Voters};
///
/// let voters = Voters::new([1, 2, 3].map(NodeId)).expect("one to nine voters");
/// let members = Configuration::new(voters, [NodeId(4)]).expect("a learner is no voter");
/// assert!(members.contains(NodeId(4)) && !members.is_voter(NodeId(4)));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    members: Arc<Members>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Members {
    voters: Voters,
    outgoing: Option<Voters>,
    /// In ascending order; none is in `voters`.
    learners: Vec<NodeId>,
    /// Holds members only.
    roster: Roster,
    /// The latest addition, whether or not its member is still a member.
    last_addition: Addition,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    voters: Vec<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    outgoing: Vec<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    learners: Vec<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    members: Vec<MemberText>,
    #[serde(default, skip_serializing_if = "Addition::is_founding")]
    additions: Addition,
}

impl Configuration {
    /// A configuration of these voters alone.
    #[must_use]
    pub fn of_voters(voters: Voters) -> Self {
        Self::of(voters, None, Vec::new())
    }

    /// A configuration of these voters and learners, in any order. `None` when a learner is also a
    /// voter or appears twice, or when there are more than [`LEARNERS_MAX`].
    #[must_use]
    pub fn new(voters: Voters, learners: impl IntoIterator<Item = NodeId>) -> Option<Self> {
        Self::restored(voters, None, learners)
    }

    /// Restores a configuration, joint or not. `None` when it is invalid.
    #[must_use]
    pub fn restored(
        voters: Voters,
        outgoing: Option<Voters>,
        learners: impl IntoIterator<Item = NodeId>,
    ) -> Option<Self> {
        let mut learners: Vec<_> = learners.into_iter().collect();
        learners.sort_unstable();
        let each_once = learners.windows(2).all(|pair| pair[0] != pair[1]);
        let none_votes = learners.iter().all(|learner| !voters.contains(*learner));
        let is_valid = each_once && none_votes && learners.len() <= LEARNERS_MAX;
        is_valid.then(|| Self::of(voters, outgoing, learners))
    }

    fn of(voters: Voters, outgoing: Option<Voters>, learners: Vec<NodeId>) -> Self {
        let (roster, last_addition) = (Roster::default(), Addition::default());
        Members { voters, outgoing, learners, roster, last_addition }.into()
    }

    /// The same members, with their addresses and incarnations from `roster`.
    #[must_use]
    pub fn with_roster(self, roster: &Roster) -> Self {
        let roster = roster.merged(&Roster::default(), |node| self.contains(node));
        self.described(roster)
    }

    /// The addresses and incarnations of the members.
    #[must_use]
    pub fn roster(&self) -> &Roster {
        &self.members.roster
    }

    /// The latest addition to the cluster, whether or not its member is still a member.
    #[must_use]
    pub fn last_addition(&self) -> Addition {
        self.members.last_addition
    }

    /// The same members, with this as the latest addition.
    #[must_use]
    pub fn with_last_addition(mut self, last_addition: Addition) -> Self {
        Arc::make_mut(&mut self.members).last_addition = last_addition;
        self
    }

    /// Returns whether the node that joined as `addition` has been removed since, or was never
    /// added by a committed configuration. Once true, it stays true, and it also holds for a node
    /// that has heard nothing since it joined. If the id is not among the members, the answer holds
    /// only if this configuration is committed (`is_settled`).
    #[must_use]
    pub fn has_taken_back(&self, node: NodeId, addition: Addition, is_settled: bool) -> bool {
        let is_taken_back = match self.roster().member(node) {
            // An id is added again only when its removal is committed.
            Some(member) => addition < member.addition,
            None => !addition.is_founding() && addition <= self.last_addition() && is_settled,
        };
        is_taken_back && !mutant::is_active(Mutant::TakenBackNotTold)
    }

    /// The joint configuration from `self` to `target`: both sets of voters decide.
    #[must_use]
    pub(super) fn joint(&self, target: &Self) -> Self {
        let outgoing = Some(self.voters().clone());
        let joint = Self::from(Members { outgoing, ..Members::clone(&target.members) });
        let roster = target.roster().merged(self.roster(), |node| joint.contains(node));
        joint.described(roster)
    }

    /// The configuration that ends the change: without the outgoing voters.
    #[must_use]
    pub(crate) fn without_outgoing(&self) -> Self {
        let settled = Members { outgoing: None, ..Members::clone(&self.members) };
        Self::from(settled).with_roster(self.roster())
    }

    /// The voters; during a change, the new ones.
    #[must_use]
    pub fn voters(&self) -> &Voters {
        &self.members.voters
    }

    /// The voters from before the change under way, if there is one.
    #[must_use]
    pub fn outgoing(&self) -> Option<&Voters> {
        self.members.outgoing.as_ref()
    }

    /// The learners, which receive the log and do not vote, in ascending order.
    #[must_use]
    pub fn learners(&self) -> &[NodeId] {
        &self.members.learners
    }

    /// Returns whether a change is under way.
    #[must_use]
    pub fn is_joint(&self) -> bool {
        self.outgoing().is_some()
    }

    /// Returns whether the node's vote counts.
    #[must_use]
    pub fn is_voter(&self, node: NodeId) -> bool {
        self.voters().contains(node) || self.outgoing().is_some_and(|outgoing| outgoing.contains(node))
    }

    /// Returns whether the node is a voter or a learner.
    #[must_use]
    pub fn contains(&self, node: NodeId) -> bool {
        self.is_voter(node) || self.learners().binary_search(&node).is_ok()
    }

    /// Returns whether `node` is a member in this incarnation. No configuration names a member
    /// whose incarnation the roster does not know yet: such a member receives the log and does not
    /// vote. Without a roster the id alone decides.
    #[must_use]
    pub fn names(&self, node: NodeId, incarnation: Option<Incarnation>) -> bool {
        self.contains(node) && self.roster().names(node, incarnation)
    }

    /// Returns whether `node` is a voter in this incarnation.
    #[must_use]
    pub fn names_voter(&self, node: NodeId, incarnation: Option<Incarnation>) -> bool {
        self.is_voter(node) && self.roster().names(node, incarnation)
    }

    /// All members, in ascending order.
    #[must_use]
    pub fn members(&self) -> Vec<NodeId> {
        let outgoing = self.outgoing().into_iter().flat_map(Voters::nodes);
        let mut members: Vec<_> =
            self.voters().nodes().iter().chain(outgoing).chain(self.learners()).copied().collect();
        members.sort_unstable();
        members.dedup();
        members
    }

    /// The highest value that a majority has reached; during a change, a majority of each set.
    #[must_use]
    pub fn majority_reached<T: Ord + Copy>(&self, reached: impl Fn(NodeId) -> T) -> T {
        let of_new = self.voters().majority_reached(&reached);
        let of_outgoing = self.outgoing().map(|outgoing| outgoing.majority_reached(&reached));
        let of_both = match of_outgoing {
            Some(least) if least < of_new && !mutant::is_active(Mutant::OutgoingNotAsked) => least,
            _ => of_new,
        };
        self.of_learners_too_by_mutant(reached).unwrap_or(of_both)
    }

    /// Deliberate bug: the highest value that a majority of voters and learners has reached.
    fn of_learners_too_by_mutant<T: Ord + Copy>(&self, reached: impl Fn(NodeId) -> T) -> Option<T> {
        if self.learners().is_empty() || !mutant::is_active(Mutant::LearnersCounted) {
            return None;
        }
        let mut values: Vec<T> = self.members().into_iter().map(reached).collect();
        values.sort_unstable();
        Some(values[(values.len() - 1) / 2])
    }

    /// The result of a vote so far; during a change both sets must grant it.
    #[must_use]
    pub fn tally(&self, vote: impl Fn(NodeId) -> Option<bool>) -> VoteResult {
        let of_new = self.voters().tally(&vote);
        let Some(outgoing) = self.outgoing() else { return of_new };
        match (of_new, outgoing.tally(&vote)) {
            (VoteResult::Won, VoteResult::Won) => VoteResult::Won,
            (VoteResult::Lost, _) | (_, VoteResult::Lost) => VoteResult::Lost,
            _ => VoteResult::Pending,
        }
    }

    /// Appends the payload of the configuration entry to `line`.
    pub(super) fn write_payload(&self, line: &mut String) {
        line.push_str("\"op\":\"CONFIG\",");
        let ids = |nodes: &[NodeId]| nodes.iter().map(|node| node.0).collect();
        let text = Text {
            voters: ids(self.voters().nodes()),
            outgoing: self.outgoing().map_or_else(Vec::new, |outgoing| ids(outgoing.nodes())),
            learners: ids(self.learners()),
            members: self.roster().to_texts(),
            additions: self.last_addition(),
        };
        let json = serde_json::to_string(&text).expect("numbers and text always encode");
        line.push_str(&json[1..json.len() - 1]);
    }

    /// The payload of the configuration entry.
    #[must_use]
    pub fn to_payload(&self) -> String {
        let mut payload = String::new();
        self.write_payload(&mut payload);
        payload
    }

    /// Parses the payload of an entry; `None` when it is not a configuration of this version, or
    /// differs from the text that [`to_payload`](Self::to_payload) writes for it.
    #[must_use]
    pub fn read(payload: &str) -> Option<Self> {
        let members = payload.strip_prefix(CONFIG_PREFIX)?;
        let text: Text = serde_json::from_str(&format!("{{{members}}}")).ok()?;
        let voters = |ids: Vec<u64>| Voters::new(ids.into_iter().map(NodeId));
        let outgoing = if text.outgoing.is_empty() { None } else { Some(voters(text.outgoing)?) };
        let learners = text.learners.into_iter().map(NodeId);
        let configuration = Self::restored(voters(text.voters)?, outgoing, learners)?;
        let configuration = configuration.described_by(&text.members, text.additions)?;
        (configuration.to_payload() == payload).then_some(configuration)
    }

    /// The same members, with the addresses and incarnations of `texts` and `additions` as the
    /// latest addition; `None` when `texts` name nodes that are not members or additions after that
    /// one, or are not a valid roster.
    #[must_use]
    pub fn described_by(self, texts: &[MemberText], additions: Addition) -> Option<Self> {
        let roster = Roster::from_texts(texts)?;
        let is_possible =
            |(node, member): (NodeId, &Member)| self.contains(node) && member.addition <= additions;
        let are_members = roster.iter().all(is_possible) && additions <= Addition::MAX;
        are_members.then(|| self.described(roster).with_last_addition(additions))
    }

    fn described(mut self, roster: Roster) -> Self {
        Arc::make_mut(&mut self.members).roster = roster;
        self
    }
}

impl From<Members> for Configuration {
    fn from(members: Members) -> Self {
        Self { members: Arc::new(members) }
    }
}

impl fmt::Display for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |nodes: &[NodeId]| nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        write!(f, "voters {}", list(self.voters().nodes()))?;
        if let Some(outgoing) = self.outgoing() {
            write!(f, ", outgoing {}", list(outgoing.nodes()))?;
        }
        if !self.learners().is_empty() {
            write!(f, ", learners {}", list(self.learners()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voters(ids: &[u64]) -> Voters {
        Voters::new(ids.iter().copied().map(NodeId)).unwrap()
    }

    fn nodes(ids: &[u64]) -> Vec<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    #[test]
    fn a_written_configuration_is_read_back() {
        let old = Configuration::of_voters(voters(&[1, 2]));
        let new = Configuration::new(voters(&[2, 3, 4]), nodes(&[9, 7])).unwrap();
        let joint = old.joint(&new);
        let mut line = String::new();
        joint.write_payload(&mut line);
        assert_eq!(line, r#""op":"CONFIG","voters":[2,3,4],"outgoing":[1,2],"learners":[7,9]"#);
        for configuration in [old, new, joint] {
            let mut line = String::new();
            configuration.write_payload(&mut line);
            assert_eq!(Configuration::read(&line), Some(configuration));
        }
        for other in [
            r#""op":"CONFIG","voters":[1],"members":[{"id":2,"address":"a:1"}]"#,
            r#""op":"CONFIG","voters":[1],"members":[{"id":1,"address":"a:1","addition":2}],"additions":1"#,
            r#""op":"CONFIG","voters":[]"#,
            r#""op":"CONFIG","voters":[1,1]"#,
            r#""op":"CONFIG","voters":[1],"learners":[1]"#,
            r#""op":"CONFIG","voters":[1],"x":1"#,
            r#""op":"NOOP""#,
        ] {
            assert_eq!(Configuration::read(other), None, "{other}");
        }
    }

    #[test]
    fn a_roster_covers_members_and_outgoing_voters_only() {
        let member = |port: u16| Member::founder(format!("host:{port}").into(), None);
        let roster = |ids: &[u64]| Roster::new(ids.iter().map(|id| (NodeId(*id), member(7000))));
        let old = Configuration::of_voters(voters(&[1, 2])).with_roster(&roster(&[1, 2, 3]));
        assert_eq!(old.roster(), &roster(&[1, 2]));
        let added = roster(&[2, 3]).with(NodeId(4), Member { addition: Addition(5), ..member(7000) });
        let new = Configuration::new(voters(&[2, 3]), nodes(&[4])).unwrap();
        let new = new.with_roster(&added).with_last_addition(Addition(5));
        let joint = old.joint(&new);
        let outgoing = added.with(NodeId(1), member(7000));
        assert_eq!(joint.roster(), &outgoing, "who is on its way out must still be found");
        assert_eq!(joint.without_outgoing(), new);
        let mut line = String::new();
        joint.write_payload(&mut line);
        assert!(line.ends_with(r#""addition":5}],"additions":5"#), "{line}");
        assert_eq!(Configuration::read(&line), Some(joint));
    }

    /// Compares with the definition: the largest value that more than half of each set has reached.
    #[test]
    fn a_joint_configuration_needs_a_majority_of_both_sets() {
        let mut rng = fastrand::Rng::with_seed(5);
        for _ in 0..20_000 {
            let draw = |rng: &mut fastrand::Rng| {
                let mut ids: Vec<u64> = (1..=7).filter(|_| rng.bool()).collect();
                ids.push(rng.u64(8..10));
                voters(&ids)
            };
            let (old, new) = (draw(&mut rng), draw(&mut rng));
            let joint = Configuration::of_voters(old.clone()).joint(&Configuration::of_voters(new.clone()));
            let values: Vec<u64> = (0..10).map(|_| rng.u64(0..5)).collect();
            let value = |node: NodeId| values[usize::try_from(node.0).unwrap()];
            let agrees = |set: &Voters, wanted: u64| {
                2 * set.nodes().iter().filter(|node| value(**node) >= wanted).count() > set.nodes().len()
            };
            let reached = joint.majority_reached(value);
            assert!(agrees(&old, reached) && agrees(&new, reached));
            assert!(!(agrees(&old, reached + 1) && agrees(&new, reached + 1)));
            let votes: Vec<Option<bool>> =
                (0..10).map(|_| [None, Some(true), Some(false)][rng.usize(..3)]).collect();
            let vote = |node: NodeId| votes[usize::try_from(node.0).unwrap()];
            let both = (old.tally(vote), new.tally(vote));
            let is_won = both == (VoteResult::Won, VoteResult::Won);
            assert_eq!(joint.tally(vote) == VoteResult::Won, is_won);
            let is_lost = both.0 == VoteResult::Lost || both.1 == VoteResult::Lost;
            assert_eq!(joint.tally(vote) == VoteResult::Lost, is_lost);
        }
    }
}
