//! Real servers for tests: the built program as a process, clients that speak bytes over TCP, and
//! an eye of its own on the files.
//!
//! Deliberately nothing of the product is linked here. What a server is, the contract says, and a
//! test that borrowed the product's parser or its checksum would share its mistakes. So a
//! conversation is lines, and a log is lines whose chain is computed again.
//!
//! ```text
//!   Setup ──start──► Server ──connect──► Talk      say a line, expect a line
//!                      │
//!                      ├─ stop, kill ──► Ended     exit code, stdout, stderr
//!                      └─ folder ──────► LogFile   every line, with its chain verified
//! ```
//!
//! [`Nodes`] is a cluster of them, [`Load`] a client that counts, and a [`Site`] runs the
//! procedures of a [`Guide`] from its text.
//!
//! Both runtimes pass the same stories: a story is a function of a [`Runtime`], and
//! [`both_runtimes!`](crate::both_runtimes) makes two tests of it. A server listens on a free port
//! of its own and keeps its files in a folder of its own, so any number of stories run side by
//! side.
//!
//! The waits have a bound, [`PATIENCE`]. It ends a hanging test; nothing is concluded from how long
//! something took.

use std::time::{Duration, Instant};

mod campaign;
mod group;
mod guide;
mod load;
mod log_file;
mod nodes;
mod program;
mod server;
mod site;
mod talk;

pub use campaign::{Campaign, Summary, Writer, Writers};
pub use group::Group;
pub use guide::{Guide, Step};
pub use load::Load;
pub use log_file::{LogFile, crc32};
pub use nodes::Nodes;
pub use program::program;
pub use server::{Ended, Runtime, Server, Setup, signal};
pub use site::Site;
pub use talk::{Broken, Talk};

/// How long anything may take that must happen. Chosen far above what a busy machine needs.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for something that must become true: looks again until it is.
///
/// # Panics
///
/// When it is not true within [`PATIENCE`]; `what` says what was waited for.
pub fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    let give_up_at = Instant::now() + PATIENCE;
    while !is_true() {
        assert!(Instant::now() < give_up_at, "waited in vain: {what}");
        std::thread::yield_now();
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Two tests of every story, one per runtime, in the modules `smol` and `threads`.
#[macro_export]
macro_rules! both_runtimes {
    ($($story:ident),+ $(,)?) => {
        mod smol {
            $(#[test] fn $story() { super::$story($crate::live::Runtime::Smol); })+
        }
        mod threads {
            $(#[test] fn $story() { super::$story($crate::live::Runtime::Threads); })+
        }
    };
}
