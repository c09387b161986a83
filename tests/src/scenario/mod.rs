//! Vocabulary of the scenario tests: a cluster under a deterministic clock, network and disks.
//!
//! A [`Cluster`] holds the nodes of one cluster with their environment: time, network and one disk
//! per node. The verbs below change the environment, never a node's fields:
//!
//! | verb | effect |
//! | --- | --- |
//! | [`cluster()`], [`replicas`], [`cluster_with`] | nodes start, with empty or given logs |
//! | [`elect`](Cluster::elect) | a node's clock runs ahead until it campaigns, and it wins |
//! | [`propose`](Cluster::propose), [`ask`](Cluster::ask) | a client sends a request to a node |
//! | [`isolate`](Cluster::isolate), [`cut`](Cluster::cut), [`heal`](Cluster::heal) | links are cut, one direction at a time, and restored |
//! | [`intercept`](Cluster::intercept), [`deliver`](Cluster::deliver) | messages are intercepted; any message, intercepted or forged, is delivered |
//! | [`crash`](Cluster::crash), [`tear`](Cluster::tear), [`restart`](Cluster::restart) | a process crashes with or without a part of its last writes, and restarts from its disk |
//! | [`hold_disk`](Cluster::hold_disk), [`release_writes`](Cluster::release_writes), [`release_disk`](Cluster::release_disk) | a disk hangs, completes some of its writes, and works again |
//! | [`elapse`](Cluster::elapse_ms), [`settle`](Cluster::settle), [`oversleep`](Cluster::oversleep_ms) | time passes; or all messages and writes in flight complete; or time passes and no node acts |
//!
//! In calm weather (the default) messages and disks take no time, and messages of one link arrive
//! in order. A [`Weather`] makes both slow and the network lossy, from a seed.
//!
//! After every step the [`Auditor`] checks the invariants. A scenario need not state them.

mod auditor;
mod cluster;
mod disk;
mod facts;
pub mod forge;
mod lone;
mod network;
mod subject;

pub use auditor::Auditor;
pub use cluster::{Cluster, cluster, cluster_with, replicas};
pub use disk::Disk;
pub use lone::Lone;
pub use network::Weather;
pub use subject::{Limited, Limits, Subject, first_level};
