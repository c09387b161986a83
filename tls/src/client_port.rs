//! The port for clients: the server's certificate, and which client certificates are accepted.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::UnbufferedServerConnection;

use crate::fault::Fault;
use crate::files::{CredentialError, Identity};
use crate::named_files::{ClientPortFiles, End, PemFile};
use crate::provider::{VERSIONS, provider};
use crate::session::Session;
use crate::slot::Slot;
use crate::verifier::{Expected, Verifier};

/// The credentials of a port for clients. Clones share them.
#[derive(Clone, Debug)]
pub struct ClientPort(Slot<ServerConfig>);

impl ClientPort {
    /// Loads and checks all files. `cluster`: client certificates must be of this cluster; `None`:
    /// of the cluster that the authorities name, as those of `coracle cert` do, or else of any.
    /// `may_be_missing`: clients need no certificate, because they can prove who they are in
    /// another way. Also returns when the certificates end.
    ///
    /// # Errors
    ///
    /// [`CredentialError`].
    pub fn load(
        files: &ClientPortFiles,
        cluster: Option<&str>,
        may_be_missing: bool,
    ) -> Result<(Self, Vec<End>), CredentialError> {
        let identity = Identity::load(&files.certificate, &files.key)?;
        let damaged = |file: &PemFile, why: String| CredentialError::Damaged { path: file.path.clone(), why };
        let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(VERSIONS);
        let builder = builder.map_err(|error| damaged(&files.certificate, error.to_string()))?;
        let mut ends = vec![files.certificate.end()?];
        let builder = match &files.authorities {
            None => builder.with_no_client_auth(),
            Some(file) => {
                ends.push(file.end()?);
                let expected = Expected::Client(cluster.map(Into::into).or(file.only_cluster()?));
                let verifier = Verifier::new(expected, file.authorities()?, may_be_missing);
                builder.with_client_cert_verifier(verifier.map_err(|why| damaged(file, why))?)
            }
        };
        let config = builder.with_single_cert(identity.chain, identity.key);
        let config = config.map_err(|error| damaged(&files.certificate, error.to_string()))?;
        Ok((Self(Slot::new(without_resumption(config))), ends))
    }

    /// Uses these credentials for new connections.
    pub fn replace(&self, new: &Self) {
        self.0.replace_by(&new.0);
    }

    /// Starts the session of a connection that was accepted.
    ///
    /// # Errors
    ///
    /// [`Fault`] when the library refuses its own configuration.
    pub fn accept(&self) -> Result<Session, Fault> {
        Ok(Session::server(UnbufferedServerConnection::new(self.0.current())?))
    }
}

/// Switches the resumption of sessions off. A resumed session is not checked against the
/// authorities of today, and each ticket costs memory.
pub(crate) fn without_resumption(mut config: ServerConfig) -> ServerConfig {
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Authority, CLIENT, NOW, SERVER, exchange};
    use crate::{ClientName, Rejection};

    const NAME: &str = "coracle://tea/client/billing";

    /// The session of the server, after a handshake with a client that has this certificate.
    fn greeted(port: &ClientPort, server: &Authority, identity: Option<(PemFile, PemFile)>) -> [Session; 2] {
        let mut session = port.accept().unwrap();
        let mut client = server.caller(identity).unwrap().call("kv.example").unwrap();
        exchange(&mut client, &mut session);
        [session, client]
    }

    #[test]
    fn a_client_is_known_by_the_name_in_its_certificate() {
        let authority = Authority::new("tea");
        let port = authority.client_port(true);
        let [server, _] = greeted(&port, &authority, Some(authority.sign(&[NAME], &[CLIENT], NOW)));
        let name = ClientName { cluster: "tea".into(), name: "billing".into() };
        assert_eq!(server.client_name(), Some(name));
        assert_eq!(server.peer(), None);
    }

    /// A server in one process has no certificate that names its cluster, but its authority may.
    #[test]
    fn the_cluster_of_clients_is_that_of_their_authority_if_none_is_given() {
        let authority = Authority::naming("tea", "coracle://tea/authority/clients-ca");
        let (certificate, key) = authority.sign(&["kv.example"], &[SERVER], NOW);
        let files = ClientPortFiles { certificate, key, authorities: Some(authority.file.clone()) };
        let port = ClientPort::load(&files, None, false).unwrap().0;
        let [server, _] = greeted(&port, &authority, Some(authority.sign(&[NAME], &[CLIENT], NOW)));
        assert_eq!(server.fault(), None);
        let of_sea = authority.sign(&["coracle://sea/client/billing"], &[CLIENT], NOW);
        let [server, _] = greeted(&port, &authority, Some(of_sea));
        assert!(matches!(server.fault(), Some(Fault::OtherCluster { .. })));
    }

    #[test]
    fn a_client_without_a_right_certificate_is_refused() {
        let (authority, foreign) = (Authority::new("tea"), Authority::new("sea"));
        let port = authority.client_port(true);
        let [server, client] = greeted(&port, &authority, None);
        assert_eq!(server.fault(), Some(&Fault::NoCertificate));
        assert_eq!(client.fault(), Some(&Fault::Rejected(Rejection::Required)));
        for (signer, name, uses, fault) in [
            (&foreign, NAME, CLIENT, Fault::UnknownAuthority),
            (&authority, "coracle://tea/node/1", CLIENT, Fault::NoClient),
            (&authority, NAME, SERVER, Fault::WrongPurpose),
            (
                &authority,
                "coracle://sea/client/billing",
                CLIENT,
                Fault::OtherCluster { ours: "tea".into(), theirs: "sea".into() },
            ),
        ] {
            let [server, _] = greeted(&port, &authority, Some(signer.sign(&[name], &[uses], NOW)));
            assert_eq!(server.fault(), Some(&fault));
        }
        let mut session = port.accept().unwrap();
        let identity = Some(authority.sign(&[NAME, "coracle://tea/client/b"], &[CLIENT], NOW));
        let mut client = authority.caller(identity).unwrap().call("kv.example").unwrap();
        exchange(&mut client, &mut session);
        assert_eq!(session.fault(), Some(&Fault::NoClient), "two names are none");
    }

    #[test]
    fn a_port_that_accepts_other_proofs_asks_for_a_certificate_and_does_without() {
        let authority = Authority::new("tea");
        let (certificate, key) = authority.sign(&["kv.example"], &[SERVER], NOW);
        let files = ClientPortFiles { certificate, key, authorities: Some(authority.file.clone()) };
        let port = ClientPort::load(&files, None, true).unwrap().0;
        let [server, client] = greeted(&port, &authority, None);
        assert!(server.is_established() && client.is_established() && server.client_name().is_none());
        let [server, _] = greeted(&port, &authority, Some(authority.sign(&[NAME], &[CLIENT], NOW)));
        assert!(server.client_name().is_some());
    }

    #[test]
    fn a_client_checks_the_name_and_the_authority_of_the_server() {
        let (authority, foreign) = (Authority::new("tea"), Authority::new("sea"));
        let port = authority.client_port(false);
        let fault = |trusts: &Authority, host: &str| {
            let mut session = port.accept().unwrap();
            let mut client = trusts.caller(None).unwrap().call(host).unwrap();
            exchange(&mut client, &mut session);
            client.fault().cloned()
        };
        assert_eq!(fault(&authority, "127.0.0.1"), None);
        assert_eq!(fault(&foreign, "kv.example"), Some(Fault::UnknownAuthority));
        let Some(Fault::WrongName { wanted, found }) = fault(&authority, "other.example") else { panic!() };
        assert_eq!((&*wanted, found), ("other.example", vec!["kv.example".into(), "127.0.0.1".into()]));
        assert!(matches!(fault(&authority, "[::1]"), Some(Fault::WrongName { .. })));
        let (expired, key) = authority.sign(&["kv.example"], &[SERVER], (2020, 2021));
        let files = ClientPortFiles { certificate: expired, key, authorities: None };
        assert!(matches!(ClientPort::load(&files, None, false), Err(CredentialError::Expired { .. })));
    }
}
