//! Hosts with files: what every runtime decides alike about a node's folder, without I/O.
//!
//! A runtime carries file operations out and measures time. Which operation comes next is decided
//! here, by plain state machines that hand out one piece of work after the other. The simulator
//! drives the same ones.
//!
//! | file | decides |
//! | --- | --- |
//! | `opening` | whether a folder may be used as it is asked for, and what has to be written before it is |
//! | `start` | what a cluster or a node is started with, and why it does not start |
//! | `node` | what a node is made of, what arrives in its inbox, and why it ends |
//! | `identities` | what a new incarnation, cluster or run is called |
//! | `disk_queue` | which persists become one group and one sync, and when a piece of a new log goes in between |
//! | `snapshot_work` | which file operation of a snapshot comes next, and when the work rests |

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
pub use start::{MemberFailure, MemberOptions, Options, StartError};
