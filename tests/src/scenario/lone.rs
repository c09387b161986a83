//! One real node, number 1, whose peers exist only as hand-made messages: for tables of a node's
//! responses.

use std::ops::{Deref, DerefMut};

use coracle_core::raft::{Body, Config, Message, Node, Restored, Role};

use super::cluster::Cluster;
use super::forge;

/// Node 1 of a cluster whose other nodes never run. Its messages are intercepted for the scenario
/// to inspect.
#[derive(Debug)]
pub struct Lone(Cluster<Node>);

impl Lone {
    /// Creates one of `size` nodes, with this disk.
    #[must_use]
    pub fn new(size: u64, disk: Restored) -> Self {
        Self::tuned(size, disk, |config| config)
    }

    /// Same as [`Lone::new`], with other settings.
    #[must_use]
    pub fn tuned(size: u64, disk: Restored, tune: impl Fn(Config) -> Config) -> Self {
        Self::seeded(size, disk, 0, tune)
    }

    /// Same as [`Lone::tuned`], with another seed for everything random.
    #[must_use]
    pub fn seeded(size: u64, disk: Restored, seed: u64, tune: impl Fn(Config) -> Config) -> Self {
        let mut disks = vec![Restored::default(); usize::try_from(size).expect("a small number")];
        disks[0] = disk;
        let mut cluster = Cluster::start(disks, seed, tune);
        cluster.auditor.peers_are_imagined = true;
        for peer in 2..=size {
            cluster.crash(peer);
            cluster.intercept(1, peer);
        }
        Self(cluster)
    }

    /// Delivers a message. Returns the messages that the node sends because of it, once its disk
    /// has completed all writes.
    pub fn hand(&mut self, message: Message) -> Vec<Message> {
        self.0.intercepted();
        self.0.deliver(message);
        self.sent()
    }

    /// Completes all writes, and returns the messages that the node has sent since the last call.
    pub fn sent(&mut self) -> Vec<Message> {
        self.0.settle();
        self.0.intercepted()
    }

    /// Expires the election timer. Returns the vote requests.
    pub fn time_out(&mut self) -> Vec<Message> {
        self.0.intercepted();
        self.0.campaign(1);
        self.sent()
    }

    /// Campaigns until the node is a candidate; the other nodes grant the pre-vote. Returns its
    /// vote requests.
    pub fn stand(&mut self) -> Vec<Message> {
        let mut calls = self.time_out();
        for call in calls.clone() {
            if matches!(call.body, Body::RequestPreVote(_)) && self.0.role(1) == Role::PreCandidate {
                calls = self.hand(forge::vote_answer(&call, true));
            }
        }
        assert_eq!(self.0.role(1), if calls.is_empty() { Role::Leader } else { Role::Candidate });
        calls
    }

    /// Campaigns and wins; the other nodes grant their votes. Returns the messages that the node
    /// sends as a leader.
    pub fn lead(&mut self) -> Vec<Message> {
        let mut sent = self.stand();
        for call in sent.clone() {
            if self.0.role(1) == Role::Candidate {
                sent = self.hand(forge::vote_answer(&call, true));
            }
        }
        assert_eq!(self.0.role(1), Role::Leader);
        sent
    }
}

impl Deref for Lone {
    type Target = Cluster<Node>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Lone {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}
