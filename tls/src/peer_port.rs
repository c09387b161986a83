//! The connections between nodes: both ends prove which node they are.
//!
//! In TLS the server shows its certificate to a client that has proven nothing yet. If the node
//! that accepts a connection were the server, then any program that connects would read the names
//! of cluster and node from that certificate. So the roles are exchanged: **the node that dials is
//! the TLS server.** It shows its certificate first, to the address that its operator has given it;
//! the node that accepts checks it, and shows its own certificate, encrypted, only to a node of its
//! cluster. A stranger gets the first message of a TLS client, which names nothing.
//!
//! The price is half a round trip more when a connection is made.

use std::sync::Arc;

use rustls::client::{Resumption, UnbufferedClientConnection};
use rustls::server::UnbufferedServerConnection;
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::ServerName;

use crate::client_port::without_resumption;
use crate::fault::Fault;
use crate::files::{CredentialError, Identity};
use crate::named_files::{End, PeerFiles};
use crate::names::PeerName;
use crate::provider::{VERSIONS, provider};
use crate::session::Session;
use crate::slot::Slot;
use crate::verifier::{Expected, Verifier};

/// The name that the library wants for a connection. It is not sent, and not compared.
const NO_NAME: &str = "node.invalid";

/// The credentials of a node towards other nodes. Clones share them.
#[derive(Clone, Debug)]
pub struct PeerPort(Slot<Configs>);

#[derive(Debug)]
struct Configs {
    name: PeerName,
    accepting: Arc<ClientConfig>,
    dialling: Arc<ServerConfig>,
}

impl PeerPort {
    /// Loads and checks all files of the node with the id `own`. Also returns when the certificates
    /// end.
    ///
    /// # Errors
    ///
    /// [`CredentialError`].
    pub fn load(files: &PeerFiles, own: u64) -> Result<(Self, Vec<End>), CredentialError> {
        let identity = Identity::load(&files.certificate, &files.key)?;
        let name = identity.peer(&files.certificate.path, own)?;
        let ends = vec![files.certificate.end()?, files.authorities.end()?];
        let damaged = |why: String| CredentialError::Damaged { path: files.certificate.path.clone(), why };
        let expected = Expected::Peer(name.cluster.clone());
        let verifier = Verifier::new(expected, files.authorities.authorities()?, false).map_err(damaged)?;
        verifier.check_own(&identity.chain).map_err(|why| CredentialError::NotSigned {
            certificate: files.certificate.path.clone(),
            authorities: files.authorities.path.clone(),
            why,
        })?;
        let (chain, key) = (identity.chain.clone(), identity.key.clone_key());
        let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(VERSIONS);
        let dialling = builder
            .map(|builder| builder.with_client_cert_verifier(Arc::clone(&verifier) as _))
            .and_then(|builder| builder.with_single_cert(chain, key))
            .map_err(|error| damaged(error.to_string()))?;
        let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(VERSIONS);
        let mut accepting = builder
            .map(|builder| builder.dangerous().with_custom_certificate_verifier(verifier))
            .and_then(|builder| builder.with_client_auth_cert(identity.chain, identity.key))
            .map_err(|error| damaged(error.to_string()))?;
        accepting.resumption = Resumption::disabled();
        accepting.enable_sni = false;
        let (accepting, dialling) = (Arc::new(accepting), Arc::new(without_resumption(dialling)));
        Ok((Self(Slot::new(Configs { name, accepting, dialling })), ends))
    }

    /// Uses these credentials for new connections.
    pub fn replace(&self, new: &Self) {
        self.0.replace_by(&new.0);
    }

    /// The identity of this node.
    #[must_use]
    pub fn name(&self) -> PeerName {
        self.0.current().name.clone()
    }

    /// Starts the session of a connection that another program has dialled.
    ///
    /// # Errors
    ///
    /// [`Fault`] when the library refuses its own configuration.
    pub fn accept(&self) -> Result<Session, Fault> {
        let config = Arc::clone(&self.0.current().accepting);
        let name =
            ServerName::try_from(NO_NAME).map_err(|error| Fault::Protocol(error.to_string().into()))?;
        Ok(Session::client(UnbufferedClientConnection::new(config, name)?))
    }

    /// Starts the session of a connection that this node has dialled.
    ///
    /// # Errors
    ///
    /// [`Fault`] when the library refuses its own configuration.
    pub fn dial(&self) -> Result<Session, Fault> {
        let config = Arc::clone(&self.0.current().dialling);
        Ok(Session::server(UnbufferedServerConnection::new(config)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Authority, CLIENT, NOW, SERVER, Years, exchange};
    use crate::{Received, Rejection};

    fn load(authority: &Authority, uri: &str, own: u64, years: Years) -> PeerPort {
        PeerPort::load(&authority.peer(uri, years), own).unwrap().0
    }

    /// The faults of the node that accepts and of the one that dials.
    fn faults(accepting: &PeerPort, dialling: &PeerPort) -> [Option<Fault>; 2] {
        let (mut accepts, mut dials) = (accepting.accept().unwrap(), dialling.dial().unwrap());
        exchange(&mut accepts, &mut dials);
        [accepts.fault().cloned(), dials.fault().cloned()]
    }

    #[test]
    fn both_nodes_prove_which_they_are() {
        let authority = Authority::new("tea");
        let (one, two) = (authority.peer_port(1), authority.peer_port(2));
        let (mut accepts, mut dials) = (one.accept().unwrap(), two.dial().unwrap());
        assert_eq!(exchange(&mut accepts, &mut dials), [Received::Open; 2]);
        assert_eq!(accepts.peer(), Some(two.name()));
        assert_eq!(dials.peer(), Some(one.name()));
        assert_eq!((accepts.client_name(), one.name().node), (None, 1));
    }

    /// The node that accepts must not show its certificate: it has the names of cluster and node.
    #[test]
    fn a_stranger_sees_no_name_and_is_refused() {
        let (authority, foreign) = (Authority::new("tea"), Authority::new("sea"));
        let port = authority.peer_port(1);
        let (mut accepts, mut dials) =
            (port.accept().unwrap(), load(&foreign, "coracle://tea/node/2", 2, NOW).dial().unwrap());
        exchange(&mut accepts, &mut dials);
        assert_eq!(accepts.fault(), Some(&Fault::UnknownAuthority));
        assert_eq!(dials.fault(), Some(&Fault::Rejected(Rejection::UnknownAuthority)));
        assert!(dials.peer().is_none() && !dials.is_established());
        let mut hello = Vec::new();
        port.accept().unwrap().drain(&mut hello);
        assert!(!hello.windows(3).any(|bytes| bytes == b"tea"));
    }

    #[test]
    fn a_certificate_of_another_cluster_of_nobody_or_of_a_client_is_refused() {
        let authority = Authority::new("tea");
        let one = authority.peer_port(1);
        let other = load(&authority, "coracle://sea/node/2", 2, NOW);
        let cluster = Fault::OtherCluster { ours: "tea".into(), theirs: "sea".into() };
        let rejected = Some(Fault::Rejected(Rejection::NotAcceptable));
        assert_eq!(faults(&one, &other), [Some(cluster), rejected.clone()]);
        let ports = |names: &[&str], uses: &[_]| {
            let (certificate, key) = authority.sign(names, uses, NOW);
            let files = crate::ClientPortFiles { certificate, key, authorities: None };
            crate::ClientPort::load(&files, None, false).unwrap().0.accept().unwrap()
        };
        for (name, fault) in [("coracle://tea/client/a", Fault::NoNode), ("kv.example", Fault::NoNode)] {
            let (mut accepts, mut dials) = (one.accept().unwrap(), ports(&[name], &[SERVER]));
            exchange(&mut accepts, &mut dials);
            assert_eq!(accepts.fault(), Some(&fault), "{name}");
        }
        // One that may be used only as a client's does not pass for a node that dials.
        let (mut accepts, mut dials) = (one.accept().unwrap(), ports(&["coracle://tea/node/2"], &[CLIENT]));
        exchange(&mut accepts, &mut dials);
        assert_eq!(accepts.fault(), Some(&Fault::WrongPurpose));
    }

    #[test]
    fn a_certificate_is_refused_when_it_is_loaded_if_no_node_would_accept_it() {
        let (authority, foreign) = (Authority::new("tea"), Authority::new("sea"));
        let told = |files: &PeerFiles| PeerPort::load(files, 1).unwrap_err();
        let mine = authority.peer("coracle://tea/node/1", NOW);
        let unsigned = PeerFiles { authorities: foreign.file.clone(), ..mine.clone() };
        assert!(matches!(told(&unsigned), CredentialError::NotSigned { .. }));
        let other_key = PeerFiles { key: authority.peer("coracle://tea/node/1", NOW).key, ..mine.clone() };
        assert!(matches!(told(&other_key), CredentialError::KeyMismatch { .. }));
        let mut readable = mine.clone();
        readable.key.is_readable_by_others = true;
        assert_eq!(
            told(&readable).to_string(),
            "key.pem: other users can read this key: `chmod 600 key.pem`"
        );
        let swapped =
            PeerFiles { certificate: mine.key.clone(), key: mine.certificate.clone(), ..mine.clone() };
        assert!(matches!(told(&swapped), CredentialError::NoCertificate { .. }));
        let no_key = PeerFiles { key: mine.certificate.clone(), ..mine.clone() };
        assert!(matches!(told(&no_key), CredentialError::NoKey { .. }));
        let two = authority.peer("coracle://tea/node/2", NOW);
        assert!(matches!(told(&two), CredentialError::OtherNode { found: 2, own: 1, .. }));
        let host = authority.peer("kv.example", NOW);
        assert!(matches!(told(&host), CredentialError::NoNode { .. }));
        let old = authority.peer("coracle://tea/node/1", (2020, 2021));
        assert!(matches!(told(&old), CredentialError::Expired { .. }));
        let early = authority.peer("coracle://tea/node/1", (2119, 2120));
        assert!(matches!(told(&early), CredentialError::NotYetValid { .. }));
        let (_, ends) = PeerPort::load(&mine, 1).unwrap();
        assert_eq!((&ends[0].path, ends[0].at), (&mine.certificate.path, 4_733_510_400));
    }

    #[test]
    fn new_credentials_are_used_for_new_connections_and_old_ones_go_on() {
        let (old, new) = (Authority::new("tea"), Authority::new("tea"));
        let (one, two) = (old.peer_port(1), old.peer_port(2));
        let (mut accepts, mut dials) = (one.accept().unwrap(), two.dial().unwrap());
        exchange(&mut accepts, &mut dials);
        one.clone().replace(&new.peer_port(1));
        let mut sealed = Vec::new();
        dials.seal(b"frame", &mut sealed).unwrap();
        assert_eq!(accepts.receive(&sealed, |plaintext| assert_eq!(plaintext, b"frame")), Received::Open);
        assert_eq!(faults(&one, &two)[0], Some(Fault::UnknownAuthority));
        two.replace(&new.peer_port(2));
        assert_eq!(faults(&one, &two), [None, None]);
    }
}
