//! Warns when this machine's own name resolves to a loopback address: `/etc/hosts` of many
//! distributions has `127.0.1.1 NAME`. Other machines cannot reach a node that listens there, and
//! each of them reports only that the connection was refused.

use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::thread;

use coracle_core::peer::Origin;

use super::diagnostics::Diagnostics;
use super::node::NodeOptions;
use super::options::LogLevel;

/// The warning about a name that only this machine can use.
#[derive(Debug, PartialEq, Eq)]
struct OnlyHere {
    name: Box<str>,
    found: SocketAddr,
}

impl fmt::Display for OnlyHere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, found } = self;
        write!(
            f,
            "{name} is {found} on this machine, a loopback address: this node listens for the others there, \
             and no node on another machine can reach it. Correct the name (/etc/hosts), or set the address \
             to listen on with --peer-listen, such as 0.0.0.0:{}",
            found.port()
        )
    }
}

/// Resolves this node's name in `--peers`, and warns if it resolves to an address that no other
/// machine can reach. This runs in a separate thread, so an unresponsive name service does not
/// delay the start.
pub(super) fn watch(options: &NodeOptions, diagnostics: Diagnostics) {
    let Origin::Found(founders) = &options.origin else { return };
    let Some(own) = founders.member(options.id).map(|member| member.address.clone()) else { return };
    let mut others = founders.iter().filter(|(id, _)| *id != options.id).map(|(_, member)| &*member.address);
    if options.peer_listen.is_some() || !others.any(is_elsewhere) {
        return;
    }
    // Without a thread only the warning is missing.
    drop(thread::Builder::new().name("own name".into()).spawn(move || {
        let found: Vec<_> = own.to_socket_addrs().into_iter().flatten().collect();
        if let Some(only_here) = only_here(own, &found) {
            diagnostics.tell(LogLevel::Warn, &only_here);
        }
    }));
}

fn only_here(name: Box<str>, found: &[SocketAddr]) -> Option<OnlyHere> {
    let is_loopback = |address: &SocketAddr| address.ip().to_canonical().is_loopback();
    let first = *found.first()?;
    found.iter().all(is_loopback).then_some(OnlyHere { name, found: first })
}

/// Returns whether the address, as written, may be that of another machine.
fn is_elsewhere(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let number: Result<IpAddr, _> = host.trim_matches(['[', ']']).parse();
    match number {
        Ok(number) => !number.to_canonical().is_loopback(),
        Err(_) => host != "localhost",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(addresses: &[&str]) -> Option<OnlyHere> {
        let addresses: Vec<SocketAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
        only_here("n1:4001".into(), &addresses)
    }

    #[test]
    fn a_name_that_resolves_only_to_loopback_is_reported() {
        let told = found(&["127.0.1.1:4001", "[::1]:4001"]).unwrap().to_string();
        assert!(
            told.contains("n1:4001 is 127.0.1.1:4001")
                && told.contains("--peer-listen, such as 0.0.0.0:4001")
        );
        assert_eq!(found(&["127.0.1.1:4001", "10.0.0.1:4001"]), None, "it listens at both");
        assert_eq!(found(&[]), None, "the start says that nobody knows the name");
    }

    #[test]
    fn a_cluster_on_one_machine_may_be_on_loopback() {
        for (address, elsewhere) in [
            ("127.0.0.1:1", false),
            ("[::1]:1", false),
            ("localhost:1", false),
            ("n2:1", true),
            ("10.0.0.2:1", true),
        ] {
            assert_eq!(is_elsewhere(address), elsewhere, "{address}");
        }
    }
}
