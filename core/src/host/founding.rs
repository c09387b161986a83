//! Bootstrap and joining: how a node without files finds its cluster.
//!
//! The founders must agree on the cluster's first members before it has a log. The naive way is to
//! write the configured peers down as the first configuration and start. But a founder that lost
//! its files later would do the same: it would vote again in terms in which it has voted already,
//! or bootstrap a second cluster with other nodes that wait. So the first configuration also names
//! the *incarnation* of each founder, which only a handshake reveals, and a founder dials all
//! others, round after round, until it has completed a handshake with every one of them in one
//! round. An older handshake does not count, because that node may have lost its files since. A
//! joiner dials the member at the given address until that member accepts it. Two founders that saw
//! the same incarnations derive the same cluster id, and both founders and joiners adopt the
//! cluster of the first node that states one.
//!
//! Most refusals come from a node that is briefly behind, so the node keeps dialling. A refusal
//! that says that this node is a member in another incarnation is final after it was received often
//! enough (see [`FinalRefusals`]).
//!
//! Deliberately not here: dialling. A runtime dials the node that [`ClusterSearch::next_step`]
//! names and reports the outcome to [`ClusterSearch::called`].

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::DialError;
use crate::identity::Incarnation;
use crate::peer::{
    FinalRefusals, Founders, HandshakeRefusal, HandshakeResult, LocalNode, Origin, PeerEvent, Welcome,
};
use crate::raft::{Configuration, NodeId, Roster};

/// The pause between two rounds of dialling.
pub const CALL_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// The next step of a node without a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SearchStep {
    /// Dial this node (`None`: any node) at this address, and report the outcome.
    Call(Option<NodeId>, Box<str>),
    /// Wait for this time.
    Rest(Duration),
    /// The cluster is found. A joiner also gets its configuration.
    Found(Founders, Option<Configuration>),
}

/// A node's search for its cluster. See the module.
#[derive(Debug)]
pub struct ClusterSearch {
    own: NodeId,
    origin: Search,
    finally: FinalRefusals,
    found: Option<(Founders, Option<Configuration>)>,
}

#[derive(Debug)]
enum Search {
    Founding(Founding),
    Joining(Joining),
}

#[derive(Debug)]
struct Founding {
    peers: Roster,
    /// The nodes to dial in this round, the next one first.
    round: VecDeque<NodeId>,
    /// The nodes with a handshake in this round, and their incarnations.
    handshakes: BTreeMap<NodeId, Incarnation>,
    called: Option<NodeId>,
    has_rested: bool,
    reported_missing: Vec<NodeId>,
    reported_refusals: BTreeMap<NodeId, HandshakeRefusal>,
    /// Why a node has not proven its identity, or does not accept that of this node.
    reported_unproven: BTreeMap<NodeId, Box<str>>,
}

#[derive(Debug)]
struct Joining {
    address: Box<str>,
    has_rested: bool,
    reported: String,
}

impl ClusterSearch {
    /// Creates the search of the node `own`; `None` when `origin` names no way to find a cluster.
    #[must_use]
    pub fn new(own: NodeId, origin: Origin) -> Option<Self> {
        let origin = match origin {
            Origin::Found(peers) => Search::Founding(Founding::new(own, peers)),
            Origin::Join(address) => {
                Search::Joining(Joining { address, has_rested: true, reported: String::new() })
            }
            Origin::Known => return None,
        };
        Some(Self { own, origin, finally: FinalRefusals::default(), found: None })
    }

    /// Returns the next step. Events for the operator are appended to `events`.
    pub fn next_step(&mut self, local: &LocalNode, events: &mut Vec<PeerEvent>) -> SearchStep {
        if let Some((founders, configuration)) = self.found.take() {
            return SearchStep::Found(founders, configuration);
        }
        match &mut self.origin {
            Search::Founding(founding) => founding.next_step(self.own, local, events),
            Search::Joining(joining) => joining.next_step(),
        }
    }

    /// Handles the outcome of dialling.
    ///
    /// # Errors
    ///
    /// The refusal, if it will not change without the operator.
    pub fn called(
        &mut self,
        outcome: Result<(HandshakeResult, Welcome), DialError>,
        events: &mut Vec<PeerEvent>,
    ) -> Result<(), HandshakeRefusal> {
        let failure = match outcome {
            Ok((handshake, welcome)) => match welcome.cluster()? {
                Some((founders, configuration)) => {
                    let configuration = matches!(self.origin, Search::Joining(_)).then_some(configuration);
                    self.found = Some((founders, configuration));
                    return Ok(());
                }
                None => {
                    if let Search::Founding(founding) = &mut self.origin {
                        founding.handshakes.insert(handshake.node, handshake.incarnation);
                    }
                    DialError::NotReady
                }
            },
            Err(failure) => failure,
        };
        if let DialError::Refused(refusal) = &failure
            && self.finally.is_reached_by(refusal, self.own)
        {
            return Err(refusal.clone());
        }
        match &mut self.origin {
            Search::Founding(founding) => founding.failed(failure, events),
            Search::Joining(joining) => joining.failed(&failure, events),
        }
        Ok(())
    }
}

impl Founding {
    fn new(own: NodeId, peers: Roster) -> Self {
        let round = others(own, &peers).collect();
        Self {
            peers,
            round,
            handshakes: BTreeMap::new(),
            called: None,
            has_rested: true,
            reported_missing: Vec::new(),
            reported_refusals: BTreeMap::new(),
            reported_unproven: BTreeMap::new(),
        }
    }

    fn next_step(&mut self, own: NodeId, local: &LocalNode, events: &mut Vec<PeerEvent>) -> SearchStep {
        self.called = self.round.pop_front();
        if let Some(node) = self.called
            && let Some(member) = self.peers.member(node)
        {
            self.has_rested = false;
            return SearchStep::Call(Some(node), member.address.clone());
        }
        if let Some(founders) = local.found(&self.handshakes) {
            return SearchStep::Found(founders, None);
        }
        let missing: Vec<_> =
            others(own, &self.peers).filter(|node| !self.handshakes.contains_key(node)).collect();
        if !missing.is_empty() && missing != self.reported_missing && !self.has_rested {
            events.push(PeerEvent::WaitsFor(missing.clone()));
            self.reported_missing = missing;
        }
        self.handshakes.clear();
        self.has_rested = true;
        self.round = others(own, &self.peers).collect();
        SearchStep::Rest(CALL_AGAIN_AFTER)
    }

    fn failed(&mut self, failure: DialError, events: &mut Vec<PeerEvent>) {
        let Some(node) = self.called else { return };
        match failure {
            DialError::Refused(refusal) => {
                if self.reported_refusals.insert(node, refusal.clone()).as_ref() != Some(&refusal) {
                    events.push(PeerEvent::Refused(node, refusal));
                }
            }
            DialError::Unproven(why) => {
                if self.reported_unproven.insert(node, why.clone()).as_ref() != Some(&why) {
                    events.push(PeerEvent::Unproven(Some(node), why));
                }
            }
            // The node is not running yet.
            DialError::Failed(_) | DialError::NotReady => {}
        }
    }
}

fn others(own: NodeId, peers: &Roster) -> impl Iterator<Item = NodeId> {
    peers.iter().map(|(node, _)| node).filter(move |node| *node != own)
}

impl Joining {
    fn next_step(&mut self) -> SearchStep {
        if std::mem::take(&mut self.has_rested) {
            return SearchStep::Call(None, self.address.clone());
        }
        self.has_rested = true;
        SearchStep::Rest(CALL_AGAIN_AFTER)
    }

    fn failed(&mut self, failure: &DialError, events: &mut Vec<PeerEvent>) {
        let why = failure.to_string();
        if why != self.reported {
            events.push(PeerEvent::Joining(self.address.to_string(), why.clone()));
            self.reported = why;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::Level;
    use crate::peer::Standing;
    use crate::raft::{Addition, LogIndex, Member};

    fn roster(ids: std::ops::RangeInclusive<u64>) -> Roster {
        let member = |id: u64| (NodeId(id), Member::founder(format!("h:{id}").into(), None));
        Roster::new(ids.map(member))
    }

    fn node(id: u64, standing: Standing) -> LocalNode {
        LocalNode {
            id: NodeId(id),
            incarnation: Incarnation(10 * id),
            client_address: None,
            boot: id,
            standing,
            configuration_index: LogIndex(0),
            named_index: LogIndex(0),
            is_settled: false,
            was_named: false,
            addition: Addition::default(),
            supports: Level::MAX,
            level: Level::FIRST,
        }
    }

    fn founder(id: u64) -> LocalNode {
        node(id, Standing::Founding(roster(1..=3)))
    }

    fn member(id: u64) -> LocalNode {
        let met = [2, 3].map(|id| (NodeId(id), Incarnation(10 * id))).into();
        let founders = founder(1).found(&met).unwrap();
        let configuration = LocalNode::first_configuration(&founders).unwrap();
        node(id, Standing::Member(founders, configuration))
    }

    /// Returns the outcome when `from` dials `to`.
    fn call(
        from: &LocalNode,
        to: &LocalNode,
        wanted: Option<NodeId>,
    ) -> Result<(HandshakeResult, Welcome), DialError> {
        let (welcome, _) = to.answer(&from.hello(wanted, None)).map_err(DialError::Refused)?;
        Ok((from.accept(wanted, &welcome).map_err(DialError::Refused)?, welcome))
    }

    /// Drives a search until it rests or ends; `answers` gives the node that is reached by
    /// dialling, if any.
    fn round(
        search: &mut ClusterSearch,
        own: &LocalNode,
        events: &mut Vec<PeerEvent>,
        answers: impl Fn(Option<NodeId>) -> Option<LocalNode>,
    ) -> Result<SearchStep, HandshakeRefusal> {
        loop {
            match search.next_step(own, events) {
                SearchStep::Call(to, _) => {
                    let outcome = match answers(to) {
                        Some(there) => call(own, &there, to),
                        None => Err(DialError::Failed("it is down".into())),
                    };
                    search.called(outcome, events)?;
                }
                step => return Ok(step),
            }
        }
    }

    #[test]
    fn a_cluster_is_founded_after_handshakes_with_all_founders_in_one_round() {
        let own = founder(1);
        let mut search = ClusterSearch::new(NodeId(1), Origin::Found(roster(1..=3))).unwrap();
        let mut events = Vec::new();
        let only = |up: u64| move |to: Option<NodeId>| to.filter(|to| to.0 == up).map(|to| founder(to.0));
        for up in [2, 3, 3] {
            let step = round(&mut search, &own, &mut events, only(up)).unwrap();
            assert_eq!(step, SearchStep::Rest(CALL_AGAIN_AFTER));
        }
        let waits = [PeerEvent::WaitsFor(vec![NodeId(3)]), PeerEvent::WaitsFor(vec![NodeId(2)])];
        assert_eq!(events, waits, "each once");
        let step = round(&mut search, &own, &mut events, |to| to.map(|to| founder(to.0))).unwrap();
        let SearchStep::Found(founders, None) = step else { panic!("{step:?}") };
        assert_eq!(founders.ids(), [1, 2, 3].map(NodeId));
    }

    #[test]
    fn a_cluster_of_one_is_founded_at_once() {
        let own = node(1, Standing::Founding(roster(1..=1)));
        let mut search = ClusterSearch::new(NodeId(1), Origin::Found(roster(1..=1))).unwrap();
        let step = round(&mut search, &own, &mut Vec::new(), |_| None).unwrap();
        assert!(matches!(step, SearchStep::Found(..)));
    }

    #[test]
    fn a_founder_adopts_the_cluster_that_another_founder_states() {
        let own = LocalNode { incarnation: Incarnation(10), ..founder(1) };
        let mut search = ClusterSearch::new(NodeId(1), Origin::Found(roster(1..=3))).unwrap();
        let there = |to: Option<NodeId>| to.filter(|to| to.0 == 2).map(|to| member(to.0));
        let step = round(&mut search, &own, &mut Vec::new(), there).unwrap();
        let Standing::Member(founders, _) = member(2).standing else { panic!() };
        assert_eq!(step, SearchStep::Found(founders, None));
    }

    #[test]
    fn a_founder_that_lost_its_files_gives_up_and_reports_each_refusal_once() {
        let own = LocalNode { incarnation: Incarnation(99), ..founder(1) };
        let mut search = ClusterSearch::new(NodeId(1), Origin::Found(roster(1..=3))).unwrap();
        let mut events = Vec::new();
        let there = |to: Option<NodeId>| to.map(|to| member(to.0));
        let refusal = (0..100).find_map(|_| round(&mut search, &own, &mut events, there).err()).unwrap();
        assert!(refusal.is_final_for(NodeId(1)), "{refusal}");
        let refusals = events.iter().filter(|event| matches!(event, PeerEvent::Refused(..)));
        assert_eq!(refusals.count(), 2, "once per node that refuses");
    }

    /// A founder without certificates keeps a cluster of others from being founded. The operator
    /// has to learn that before there is any link.
    #[test]
    fn a_missing_proof_is_reported_while_a_cluster_is_founded() {
        let own = founder(1);
        let mut search = ClusterSearch::new(NodeId(1), Origin::Found(roster(1..=3))).unwrap();
        let mut events = Vec::new();
        for _ in 0..20 {
            if let SearchStep::Call(Some(NodeId(2)), _) = search.next_step(&own, &mut events) {
                search.called(Err(DialError::Unproven("plain text".into())), &mut events).unwrap();
            }
        }
        let unproven = PeerEvent::Unproven(Some(NodeId(2)), "plain text".into());
        assert_eq!(events.iter().filter(|event| **event == unproven).count(), 1, "{events:?}");
    }

    #[test]
    fn a_joiner_waits_until_it_is_added() {
        let own = node(4, Standing::Joining);
        let mut search = ClusterSearch::new(NodeId(4), Origin::Join("h:1".into())).unwrap();
        let mut events = Vec::new();
        for _ in 0..3 {
            let step = round(&mut search, &own, &mut events, |_| Some(member(1))).unwrap();
            assert_eq!(step, SearchStep::Rest(CALL_AGAIN_AFTER));
        }
        assert_eq!(events.len(), 1, "once per reason: {events:?}");
        let mut there = member(1);
        let Standing::Member(_, configuration) = &mut there.standing else { panic!() };
        let roster = configuration.roster().with(NodeId(4), Member::founder("h:4".into(), None));
        let voters = configuration.voters().clone();
        *configuration = Configuration::new(voters, [NodeId(4)]).unwrap().with_roster(&roster);
        there.is_settled = true;
        let step = round(&mut search, &own, &mut events, |_| Some(there.clone())).unwrap();
        let SearchStep::Found(_, Some(configuration)) = step else { panic!("{step:?}") };
        assert_eq!(configuration.roster().member(NodeId(4)).map(|member| &*member.address), Some("h:4"));
    }

    #[test]
    fn without_an_origin_there_is_no_search() {
        assert!(ClusterSearch::new(NodeId(4), Origin::Known).is_none());
    }
}
