//! Stories over TLS: the same stories, whose servers speak TLS and need a token.
//!
//! A story starts servers and opens connections as ever. Inside [`over_tls`] each server of its
//! thread gets a certificate and a token file, and its address is that of a relay that speaks TLS
//! and has sent the token of an administrator.

use std::cell::Cell;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::OnceLock;

use super::certificates::start_relay_with;
use super::{Certificates, program};

thread_local! {
    static IS_SECURED: Cell<bool> = const { Cell::new(false) };
}

/// The certificates and the token of all such servers of this process.
#[derive(Debug)]
struct Security {
    certificates: Certificates,
    token: String,
}

/// Runs a story whose servers speak TLS and need a token.
pub fn over_tls(story: impl FnOnce()) {
    IS_SECURED.set(true);
    story();
    IS_SECURED.set(false);
}

pub(super) fn is_secured() -> bool {
    IS_SECURED.get()
}

fn security() -> &'static Security {
    static MADE: OnceLock<Security> = OnceLock::new();
    MADE.get_or_init(|| {
        let certificates = Certificates::new("tea");
        let mut command = Command::new(program());
        command.args(["token", "new", "root", "--role", "admin", "--file"]);
        let made = command.arg(certificates.path("tokens.jsonl")).output().expect("the program runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let token = String::from_utf8_lossy(&made.stdout).trim().to_owned();
        Security { certificates, token }
    })
}

/// The flags of such a server.
pub(super) fn flags() -> Vec<String> {
    let Security { certificates, .. } = security();
    let file = certificates.path("tokens.jsonl");
    let flags = format!("{} --token-file {}", certificates.client_port(), file.display());
    flags.split(' ').map(str::to_owned).collect()
}

/// Starts a relay to such a server. Returns its address.
pub(super) fn relay_to(server: SocketAddr) -> SocketAddr {
    let Security { certificates, token } = security();
    let line = format!("{{\"op\":\"auth\",\"token\":\"{token}\"}}\n");
    start_relay_with(certificates.caller(), server, Some(line))
}
