//! Hosts: what every runtime decides alike, without I/O.
//!
//! A runtime carries bytes, messages and time. Between the machines of this crate and a runtime stand hosts: plain state
//! machines that are handed events or the time and answer with what to do. The simulator drives the same ones, so a rule that
//! stands here is a rule that is tested.
//!
//! | file | decides |
//! | --- | --- |
//! | `wait` | when a waiting driver arms its timer, and when its deadline is due |

mod wait;

pub use wait::{NextWait, Wait};
