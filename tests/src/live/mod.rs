//! Tests of real servers: the built program as a process, clients that send bytes over TCP, and an
//! independent reader of its files.
//!
//! Deliberately, none of the product's code is used here. The documentation defines a server's
//! behavior, and a test that used the product's parser or checksum would share its bugs. So a
//! conversation consists of lines, and a log of lines whose checksum chain is computed again.
//!
//! ```text
//!   Setup ──start──► Server ──connect──► Talk      send a line, expect a line
//!                      │
//!                      ├─ stop, kill ──► Ended     exit code, stdout, stderr
//!                      └─ folder ──────► LogFile   every line, with the checksum chain verified
//! ```
//!
//! [`Nodes`] is a cluster of servers, [`Load`] a counting client, and a [`Site`] executes the
//! procedures of a [`Guide`] from its text.
//!
//! Both runtimes pass the same stories: a story is a function of a [`Runtime`], and
//! [`both_runtimes!`](crate::both_runtimes) makes two tests of it. A server listens on a free port
//! and keeps its files in a separate folder, so any number of stories run concurrently.
//!
//! The waits are limited by [`TIMEOUT`], which ends a hanging test. No test concludes anything
//! from how long something took.

use std::time::{Duration, Instant};

mod campaign;
mod certificates;
mod group;
mod guide;
mod load;
mod log_file;
mod nodes;
mod over_tls;
mod program;
mod server;
mod site;
mod talk;
mod watch_campaign;

pub use campaign::{Campaign, Summary, Writer, Writers};
pub use certificates::{Certificates, shake_hands};
pub use group::Group;
pub use guide::{Guide, Step};
pub use load::Load;
pub use log_file::{LogFile, crc32};
pub use nodes::Nodes;
pub use over_tls::over_tls;
pub use program::program;
pub use server::{Ended, Runtime, Server, Setup, signal};
pub use site::Site;
pub use talk::{Broken, Talk};
pub use watch_campaign::{WatchCampaign, WatchSummary};

/// The longest wait for anything that must happen. Chosen far above what a busy machine needs.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// Waits until a condition is true, by polling.
///
/// # Panics
///
/// When it is not true within [`TIMEOUT`]; `what` describes the condition.
pub fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    let give_up_at = Instant::now() + TIMEOUT;
    while !is_true() {
        assert!(Instant::now() < give_up_at, "waited in vain: {what}");
        std::thread::yield_now();
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Makes two tests of every story, one per runtime, in the modules `smol` and `threads`.
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

/// Makes four tests of every story: one per runtime, and one per runtime with servers that speak
/// TLS and need a token, in the modules `smol_over_tls` and `threads_over_tls`. Stories behind
/// `only plain:` are about the first bytes or the address of a server, which a relay hides.
#[macro_export]
macro_rules! both_runtimes_and_tls {
    ($($story:ident),+ $(,)? $(; only plain: $($plain:ident),+ $(,)?)?) => {
        $crate::both_runtimes!($($story,)+ $($($plain),+)?);
        mod smol_over_tls {
            $(#[test] fn $story() { $crate::live::over_tls(|| super::$story($crate::live::Runtime::Smol)); })+
        }
        mod threads_over_tls {
            $(#[test] fn $story() {
                $crate::live::over_tls(|| super::$story($crate::live::Runtime::Threads));
            })+
        }
    };
}
