//! Hosts with files: the decisions about a node's folder that all runtimes share, without I/O.
//!
//! A runtime carries file operations out and measures time. Plain state machines here decide which
//! operation comes next, and hand out one piece of work after the other. The simulator drives the
//! same state machines.
//!
//! | file | decides |
//! | --- | --- |
//! | `opening` | whether a folder may be used, and what has to be written before it is used |
//! | `start` | the options of a cluster or a node, and the reasons why it does not start |
//! | `node` | the parts of a node, the items in its inbox, and the reasons why it ends |
//! | `identities` | the numbers of a new incarnation, cluster or run |
//! | `disk_queue` | group commit: which persists share one sync, and when a piece of a log rewrite comes in between |
//! | `snapshot_work` | which file operation of a snapshot comes next, and when the work pauses |

mod disk_queue;
mod identities;
mod node;
mod opening;
mod snapshot_work;
mod start;

pub use disk_queue::DiskQueue;
pub use identities::{draw_boot, draw_cluster, draw_incarnation};
pub use node::{FileWork, NodeEnd, NodeInput, NodeStart, StartedNode};
pub use opening::{
    ClusterOpening, FileStart, FolderNames, FoundCluster, FoundMember, MemberOpening, OpenedMember,
};
pub use snapshot_work::{FileTask, SnapshotCheck, SnapshotTask, SnapshotWork, VerifiedSnapshot};
pub use start::{MemberFailure, MemberOptions, Options, PeersExposed, StartError, is_reachable_elsewhere};
