//! The flags that protect a server's ports, and the rule that a port that other machines can reach
//! is protected.
//!
//! A port on loopback is reached by programs of this machine only. On any other address the
//! network decides who reaches it, and networks change. So such a port needs TLS and a proof of who
//! is on the other end, or the flag that says that the operator knows better. Without these, the
//! server refuses to start, before it creates anything.
//!
//! The flags are checked here. The address of a node may also come from its data folder, or from
//! the cluster that it joins, and its name may resolve to other addresses later: so each runtime
//! checks the address again when it begins to listen.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use clap::Args;
use clap::builder::BoolishValueParser;
use coracle_core::peer::Origin;
use coracle_core::raft::NodeId;
use coracle_storage::host::{PeersExposed, is_reachable_elsewhere};
use thiserror::Error;

/// The flags that protect the port for clients.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[command(next_help_heading = "Security")]
pub(crate) struct ClientSecurity {
    /// The server's certificate (PEM): clients speak TLS. Read again when it changes
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(super) tls_cert: Option<PathBuf>,

    /// The key of --tls-cert (PEM), readable by its owner alone
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(super) tls_key: Option<PathBuf>,

    /// The authority of clients' certificates (PEM): every client needs one
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(super) tls_ca: Option<PathBuf>,

    /// The tokens of clients, made with `coracle token new`: every client needs one, or a
    /// certificate that the file names. Read again when it changes
    #[arg(long, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,

    /// Accept that other machines can reach a port that does not ask who they are; the variable
    /// takes true or 1
    #[arg(long, env = "CORACLE_INSECURE", value_parser = BoolishValueParser::new())]
    pub(super) insecure: bool,
}

/// The flags that protect the connections between nodes.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[command(next_help_heading = "Security")]
pub(crate) struct PeerSecurity {
    /// This node's certificate for the other nodes (PEM), for mutual TLS
    #[arg(long, value_name = "FILE", requires_all = ["peer_key", "peer_ca"])]
    pub(super) peer_cert: Option<PathBuf>,

    /// The key of --peer-cert (PEM), readable by its owner alone
    #[arg(long, value_name = "FILE", requires = "peer_cert")]
    pub(super) peer_key: Option<PathBuf>,

    /// The authority of the nodes' certificates (PEM)
    #[arg(long, value_name = "FILE", requires = "peer_cert")]
    pub(super) peer_ca: Option<PathBuf>,
}

/// A port that other machines can reach, and that does not ask who they are.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(crate) enum Exposed {
    #[error(
        "{flag} {address}: other machines can reach this address, and any program there could read and write \
         everything. Listen on 127.0.0.1; or let clients prove who they are, with --tls-cert, --tls-key and \
         --token-file or --tls-ca (`coracle cert init` begins to make certificates, `coracle token new` a \
         token); or accept it with --insecure"
    )]
    ToClients { flag: &'static str, address: SocketAddr },
    #[error(transparent)]
    ToNodes(#[from] PeersExposed),
}

impl ClientSecurity {
    /// Checks the address for clients that a flag has set.
    pub(super) fn check(&self, flag: &'static str, address: SocketAddr) -> Result<(), Exposed> {
        let is_protected = self.tls_cert.is_some() && self.asks_who();
        if self.insecure || is_protected || !is_reachable_elsewhere(&address) {
            return Ok(());
        }
        Err(Exposed::ToClients { flag, address })
    }

    /// Returns whether clients have to prove who they are.
    fn asks_who(&self) -> bool {
        self.tls_ca.is_some() || self.token_file.is_some()
    }

    /// Returns whether a client may do without a certificate, because it can prove who it is in
    /// another way.
    pub(super) fn certificate_may_be_missing(&self) -> bool {
        self.token_file.is_some()
    }
}

impl PeerSecurity {
    /// Returns whether a node must listen for the others on loopback only.
    pub(super) fn needs_loopback(&self, clients: &ClientSecurity) -> bool {
        self.peer_cert.is_none() && !clients.insecure
    }

    /// Checks the address of a node, as far as the flags tell it. A name that cannot be resolved
    /// yet is checked when the node listens.
    pub(super) fn check(
        &self,
        clients: &ClientSecurity,
        id: NodeId,
        origin: &Origin,
        peer_listen: Option<&str>,
    ) -> Result<(), PeersExposed> {
        if !self.needs_loopback(clients) {
            return Ok(());
        }
        let address = match (peer_listen, origin) {
            (Some(address), _) => Some(address),
            (None, Origin::Found(founders)) => founders.member(id).map(|own| &*own.address),
            // A node that others reach on loopback is on the machine of the member that it joins.
            (None, Origin::Join(member)) => Some(&**member),
            (None, _) => None,
        };
        let is_exposed = |address: &&str| {
            address
                .to_socket_addrs()
                .is_ok_and(|found| found.into_iter().any(|at| is_reachable_elsewhere(&at)))
        };
        match address.filter(is_exposed) {
            Some(address) => Err(PeersExposed { address: address.into() }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_off_loopback_is_protected_or_said_to_be_insecure() {
        let file = Some(PathBuf::from("x.pem"));
        let open = ClientSecurity::default();
        let tls = ClientSecurity { tls_cert: file.clone(), tls_key: file.clone(), ..open.clone() };
        let mutual = ClientSecurity { tls_ca: file.clone(), ..tls.clone() };
        let tokens = ClientSecurity { token_file: file.clone(), ..tls.clone() };
        let plain_tokens = ClientSecurity { token_file: file.clone(), ..open.clone() };
        let insecure = ClientSecurity { insecure: true, ..open.clone() };
        for (security, is_protected) in [
            (&open, false),
            (&tls, false),
            (&mutual, true),
            (&tokens, true),
            (&plain_tokens, false),
            (&insecure, true),
        ] {
            for address in ["127.0.0.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
                assert_eq!(security.check("--listen", address.parse().unwrap()), Ok(()));
            }
            for address in ["0.0.0.0:1", "10.0.0.1:1", "[::]:1", "[2001:db8::1]:1"] {
                assert_eq!(
                    security.check("--listen", address.parse().unwrap()).is_ok(),
                    is_protected,
                    "{address}"
                );
            }
        }
        let told = open.check("--listen", "0.0.0.0:3001".parse().unwrap()).unwrap_err().to_string();
        assert!(["127.0.0.1", "--tls-ca", "--insecure"].iter().all(|way| told.contains(way)), "{told}");
    }
}
