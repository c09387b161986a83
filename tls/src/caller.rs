//! A client of a server that speaks TLS: which servers it trusts, and the certificate by which it
//! proves who it is.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::client::{Resumption, UnbufferedClientConnection};
use rustls_pki_types::ServerName;

use crate::fault::Fault;
use crate::files::{CredentialError, Identity};
use crate::named_files::CallerFiles;
use crate::provider::{VERSIONS, provider};
use crate::session::Session;

/// The credentials of a client. Clones share them.
#[derive(Clone, Debug)]
pub struct Caller(Arc<ClientConfig>);

impl Caller {
    /// Loads and checks all files.
    ///
    /// # Errors
    ///
    /// [`CredentialError`].
    pub fn load(files: &CallerFiles) -> Result<Self, CredentialError> {
        let roots = match &files.authorities {
            Some(file) => file.authorities()?,
            None => Arc::new(RootCertStore::empty()),
        };
        let damaged = |error: rustls::Error| {
            let file = files.identity.as_ref().map(|(certificate, _)| certificate);
            let path = file.or(files.authorities.as_ref()).map(|file| file.path.clone()).unwrap_or_default();
            CredentialError::Damaged { path, why: error.to_string() }
        };
        let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(VERSIONS);
        let builder = builder.map_err(damaged)?.with_root_certificates(roots);
        let mut config = match &files.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let identity = Identity::load(certificate, key)?;
                builder.with_client_auth_cert(identity.chain, identity.key).map_err(damaged)?
            }
        };
        config.resumption = Resumption::disabled();
        Ok(Self(Arc::new(config)))
    }

    /// Starts the session of a connection to a server at this host name or address, which its
    /// certificate must name.
    ///
    /// # Errors
    ///
    /// [`Fault`] when the host is no name that a certificate can have.
    pub fn call(&self, host: &str) -> Result<Session, Fault> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let name = match bare.parse::<IpAddr>() {
            Ok(address) => ServerName::from(address),
            Err(_) => ServerName::try_from(bare.to_owned())
                .map_err(|_| Fault::WrongName { wanted: host.into(), found: Vec::new() })?,
        };
        Ok(Session::client(UnbufferedClientConnection::new(Arc::clone(&self.0), name)?))
    }
}
