//! The servers that a client trusts, and the certificate by which it proves who it is.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use clap::Args;
use coracle_core::access::TOKEN_BYTES_MAX;
use coracle_tls::{Caller, CallerFiles, Fault, PemFile, Session};
use thiserror::Error;

use super::auth::Token;
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

    /// This client's token. Other users of this machine can see it here: prefer the variable, or
    /// --token-from
    #[arg(long, value_name = "TOKEN", env = "CORACLE_TOKEN", hide_env_values = true)]
    token: Option<String>,

    /// A file that holds this client's token
    #[arg(long, value_name = "FILE", env = "CORACLE_TOKEN_FROM", conflicts_with = "token")]
    token_from: Option<PathBuf>,
}

/// Why a client cannot use TLS, or has no token.
#[derive(Debug, Error)]
pub(crate) enum TrustError {
    #[error(transparent)]
    Files(#[from] TlsFileError),
    #[error("--tls: no file with the authorities that this machine trusts: name one with --tls-ca FILE")]
    NoSystemAuthorities,
    #[error("{}: {cause}", .path.display())]
    TokenFile { path: PathBuf, cause: io::Error },
    #[error("a token has 1 to {TOKEN_BYTES_MAX} bytes (CORACLE_TOKEN, --token, --token-from)")]
    Token,
}

/// The trust of a client. Clones share it. The default speaks plain text.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trust {
    caller: Option<Result<Caller, Arc<TrustError>>>,
    /// The host names that were looked up for these addresses.
    names: BTreeMap<SocketAddr, String>,
    token: Option<Result<Token, Arc<TrustError>>>,
}

impl Trust {
    /// Loads the files that the flags name. An error is kept until the trust is needed.
    pub(crate) fn load(flags: &TrustFlags) -> Self {
        let is_used = flags.tls || flags.tls_ca.is_some() || flags.tls_cert.is_some();
        let caller = is_used.then(|| load(flags).map_err(Arc::new));
        let token = load_token(flags).map_err(Arc::new).transpose();
        Self { caller, names: BTreeMap::new(), token }
    }

    /// The token with which each connection begins.
    pub(crate) fn token(&self) -> Option<&Token> {
        self.token.as_ref()?.as_ref().ok()
    }

    /// Returns the trust in the server at this address for the certificate of this host.
    pub(crate) fn knowing(mut self, address: SocketAddr, host: &str) -> Self {
        self.names.insert(address, host.to_owned());
        self
    }

    /// Returns the error of loading, if there was one.
    pub(crate) fn error(&self) -> Option<Arc<TrustError>> {
        let of_token = self.token.as_ref().and_then(|token| token.as_ref().err());
        self.caller.as_ref().and_then(|caller| caller.as_ref().err()).or(of_token).cloned()
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

fn load_token(flags: &TrustFlags) -> Result<Option<Token>, TrustError> {
    let text = match (&flags.token, &flags.token_from) {
        (Some(token), _) if token.is_empty() => return Ok(None),
        (Some(token), _) => token.clone(),
        (None, Some(path)) => {
            fs::read_to_string(path).map_err(|cause| TrustError::TokenFile { path: path.clone(), cause })?
        }
        (None, None) => return Ok(None),
    };
    Token::new(&text).map(Some).ok_or(TrustError::Token)
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
