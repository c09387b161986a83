//! The servers that a client trusts, and the certificate by which it proves who it is.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use coracle_tls::{Caller, CallerFiles, Fault, PemFile, Session};
use thiserror::Error;

use super::files::{TlsFileError, read};

/// Where distributions keep the authorities that their users trust.
const SYSTEM_AUTHORITIES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

// The flags of clients. No doc comment: clap would use it as the help of the command that this
// struct is part of.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[command(next_help_heading = "Connection")]
pub(crate) struct TrustFlags {
    /// Connect by TLS, to a server whose certificate this machine trusts; --tls-ca includes it
    #[arg(long, env = "CORACLE_TLS")]
    tls: bool,

    /// Connect by TLS, to a server whose certificate this authority has signed (PEM)
    #[arg(long, value_name = "FILE", env = "CORACLE_TLS_CA")]
    tls_ca: Option<PathBuf>,

    /// This client's certificate (PEM)
    #[arg(long, value_name = "FILE", env = "CORACLE_TLS_CERT", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// The key of --tls-cert (PEM)
    #[arg(long, value_name = "FILE", env = "CORACLE_TLS_KEY", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

/// Why a client cannot use TLS.
#[derive(Debug, Error)]
pub(crate) enum TrustError {
    #[error(transparent)]
    Files(#[from] TlsFileError),
    #[error("--tls: no file with the authorities that this machine trusts: name one with --tls-ca FILE")]
    NoSystemAuthorities,
}

/// The trust of a client. Clones share it. The default speaks plain text.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trust {
    caller: Option<Result<Caller, Arc<TrustError>>>,
    /// The host names that were looked up for these addresses.
    names: BTreeMap<SocketAddr, String>,
}

impl Trust {
    /// Loads the files that the flags name. An error is kept until the trust is needed.
    pub(crate) fn load(flags: &TrustFlags) -> Self {
        let is_used = flags.tls || flags.tls_ca.is_some() || flags.tls_cert.is_some();
        let caller = is_used.then(|| load(flags).map_err(Arc::new));
        Self { caller, names: BTreeMap::new() }
    }

    /// Returns the trust in the server at this address for the certificate of this host.
    pub(crate) fn knowing(mut self, address: SocketAddr, host: &str) -> Self {
        self.names.insert(address, host.to_owned());
        self
    }

    /// Returns the error of loading, if there was one.
    pub(crate) fn error(&self) -> Option<Arc<TrustError>> {
        self.caller.as_ref()?.as_ref().err().cloned()
    }

    /// Starts a session with a server at this host; `None`: plain text is spoken.
    pub(crate) fn call(&self, host: &str, address: SocketAddr) -> Option<Result<Session, Fault>> {
        let host = self.names.get(&address).map_or(host, String::as_str);
        match self.caller.as_ref()? {
            Ok(caller) => Some(caller.call(host)),
            Err(error) => Some(Err(Fault::Protocol(error.to_string().into()))),
        }
    }
}

fn load(flags: &TrustFlags) -> Result<Caller, TrustError> {
    let authorities = match &flags.tls_ca {
        Some(path) => read(path)?,
        None => system_authorities()?,
    };
    let identity = match (&flags.tls_cert, &flags.tls_key) {
        (Some(certificate), Some(key)) => Some((read(certificate)?, read(key)?)),
        _ => None,
    };
    let files = CallerFiles { authorities: Some(authorities), identity };
    Ok(Caller::load(&files).map_err(TlsFileError::from)?)
}

fn system_authorities() -> Result<PemFile, TrustError> {
    let found = SYSTEM_AUTHORITIES.iter().map(Path::new).find(|path| path.is_file());
    Ok(read(found.ok_or(TrustError::NoSystemAuthorities)?)?)
}
