//! Hosts with files: what every runtime decides alike about a node's folder, without I/O.
//!
//! A runtime carries file operations out and measures time. Which operation comes next is decided here, by plain state
//! machines that hand out one piece of work after the other. The simulator drives the same ones.
//!
//! | file | decides |
//! | --- | --- |
//! | `disk_queue` | which persists become one group and one sync, and when a piece of a new log goes in between |

mod disk_queue;

pub use disk_queue::DiskQueue;
