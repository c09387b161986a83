//! One real node, number 1, among peers that only exist as hand-made messages: for tables of what a
//! node answers.

use std::ops::{Deref, DerefMut};

use coracle_core::raft::{Body, Config, Message, Node, Restored, Role};

use super::cluster::Cluster;
use super::forge;

/// Node 1 of a cluster whose other nodes never run. What it sends is kept for the story to look at.
#[derive(Debug)]
pub struct Lone(Cluster<Node>);

impl Lone {
    /// One of `size` nodes, with this disk.
    #[must_use]
    pub fn new(size: u64, disk: Restored) -> Self {
        Self::tuned(size, disk, |config| config)
    }

    /// The same with other settings.
    #[must_use]
    pub fn tuned(size: u64, disk: Restored, tune: impl Fn(Config) -> Config) -> Self {
        Self::seeded(size, disk, 0, tune)
    }

    /// The same with another seed for what is random.
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

    /// A message arrives. Returns what the node sends because of it, once its disk is done.
    pub fn hand(&mut self, message: Message) -> Vec<Message> {
        self.0.intercepted();
        self.0.deliver(message);
        self.sent()
    }

    /// Lets the disk work, and takes what the node sent since the last look.
    pub fn sent(&mut self) -> Vec<Message> {
        self.0.settle();
        self.0.intercepted()
    }

    /// The election timer runs out. Returns the calls for votes.
    pub fn time_out(&mut self) -> Vec<Message> {
        self.0.intercepted();
        self.0.campaign(1);
        self.sent()
    }

    /// Campaigns until it stands for election in earnest; the others say yes to the pre-vote.
    /// Returns its calls.
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

    /// Campaigns and wins; the others say yes. Returns what it sends when it has won.
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
