//! The certificates, keys and tokens of a running server: loads them at the start, and again when
//! their content changes.
//!
//! All files are read and checked together, and either all of them are used or none: a certificate
//! that is replaced before its key must not leave a server that no client can reach. Connections
//! that exist go on; new ones use what was loaded last.
//!
//! The files may be on a disk that hangs, so a thread of its kind looks at them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use coracle_core::access::Gate;
use coracle_core::raft::NodeId;
use coracle_storage::tokens::{TokenFile, TokenGate};
use coracle_tls::{ClientPort, ClientPortFiles, End, PeerFiles, PeerPort, PemFile, Protection};
use thiserror::Error;

use super::LOOK_EVERY;
use super::diagnostics::Diagnostics;
use super::node::NodeOptions;
use super::options::{LogLevel, ServeOptions};
use super::security::{ClientSecurity, PeerSecurity};
use crate::tls::{TlsFileError, read};
use crate::token::file::{self, TokenFileProblem};
use crate::token::now;

/// The interval at which the files are read. Arbitrary: short enough for someone who waits for it.
const READ_EVERY: Duration = Duration::from_secs(5);
/// How long before its end a certificate is reported. Chosen so that a monthly look finds it.
const REPORT_BEFORE: Duration = Duration::from_secs(30 * 24 * 3600);
/// The interval between two reports.
const REPORT_EVERY: Duration = Duration::from_secs(24 * 3600);

/// The files of a server, as they were read.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Files {
    clients: Option<ClientPortFiles>,
    peers: Option<PeerFiles>,
    tokens: Option<TokenFile>,
}

/// The credentials of a server. See the module.
#[derive(Debug)]
pub(super) struct Credentials {
    clients: ClientSecurity,
    peers: PeerSecurity,
    id: NodeId,
    /// The files that were loaded, or rejected, last.
    seen: Files,
    protection: Protection,
    gate: Option<Arc<TokenGate>>,
    ends: Vec<End>,
}

/// The options of a server that could start.
#[derive(Debug)]
pub(crate) enum Started {
    /// All nodes of a cluster.
    Cluster(Box<ServeOptions>),
    /// One node of a cluster of processes.
    Node(Box<NodeOptions>),
}

impl Started {
    /// The options that both kinds have.
    pub(crate) fn serving(&self) -> &ServeOptions {
        match self {
            Self::Cluster(serving) => serving,
            Self::Node(node) => &node.serving,
        }
    }

    /// Loads the files of certificates, keys and tokens, as a start does. Returns when the
    /// certificates end; `None` if there is no file.
    ///
    /// # Errors
    ///
    /// [`CredentialsError`].
    pub(crate) fn certificate_ends(&self) -> Result<Option<Vec<End>>, CredentialsError> {
        let clients = &self.serving().security;
        let credentials = match self {
            Self::Cluster(_) => Credentials::load(clients, &PeerSecurity::default(), NodeId(0))?,
            Self::Node(node) => Credentials::load(clients, &node.security, node.id)?,
        };
        Ok(credentials.has_files().then_some(credentials.ends))
    }
}

/// Why the files that the flags name cannot be used.
#[derive(Debug, Error)]
pub(crate) enum CredentialsError {
    #[error(transparent)]
    Tls(#[from] TlsFileError),
    #[error(transparent)]
    Tokens(#[from] TokenFileProblem),
}

impl Credentials {
    /// Loads the files that the flags name.
    ///
    /// # Errors
    ///
    /// [`CredentialsError`].
    pub(super) fn load(
        clients: &ClientSecurity,
        peers: &PeerSecurity,
        id: NodeId,
    ) -> Result<Self, CredentialsError> {
        let seen = Files::read(clients, peers)?;
        let (protection, ends) = seen.load(clients, id)?;
        let gate = seen.tokens.clone().map(|tokens| Arc::new(TokenGate::new(tokens, now())));
        Ok(Self { clients: clients.clone(), peers: peers.clone(), id, seen, protection, gate, ends })
    }

    /// Decides on the rights of clients by the token file, if there is one.
    pub(super) fn gate(&self) -> Option<Arc<dyn Gate>> {
        Some(Arc::clone(self.gate.as_ref()?) as Arc<dyn Gate>)
    }

    /// The protection of the ports, which follows the files.
    pub(super) fn protection(&self) -> Protection {
        self.protection.clone()
    }

    /// Returns whether there is anything to load again.
    pub(super) fn has_files(&self) -> bool {
        self.seen.clients.is_some() || self.seen.peers.is_some() || self.gate.is_some()
    }

    /// Starts the thread that follows the files, and that reads them at once when `is_asked`.
    pub(super) fn follow(
        mut self,
        diagnostics: Diagnostics,
        should_end: Arc<AtomicBool>,
        is_asked: Arc<AtomicBool>,
    ) {
        if !self.has_files() {
            return;
        }
        self.report_ends(&diagnostics);
        // Without a thread the files are not followed, and the server serves as it is.
        drop(thread::Builder::new().name("credentials".into()).spawn(move || {
            let (mut read_at, mut reported_at) = (Instant::now(), Instant::now());
            while !should_end.load(Ordering::Acquire) {
                thread::sleep(LOOK_EVERY);
                let is_asked = is_asked.swap(false, Ordering::AcqRel);
                if is_asked || read_at.elapsed() >= READ_EVERY {
                    read_at = Instant::now();
                    self.look(is_asked, &diagnostics);
                    self.look_at_tokens(&diagnostics);
                }
                if reported_at.elapsed() >= REPORT_EVERY {
                    reported_at = Instant::now();
                    self.report_ends(&diagnostics);
                }
            }
        }));
    }

    /// Loads the files again if they have changed.
    fn look(&mut self, is_asked: bool, diagnostics: &Diagnostics) {
        match self.renew() {
            Ok(false) if !is_asked => {}
            Ok(false) => {
                diagnostics.tell(LogLevel::Info, &"the certificates, keys and tokens have not changed");
            }
            Ok(true) => {
                diagnostics.tell(
                    LogLevel::Info,
                    &"certificates, keys and tokens were loaded: new connections use them",
                );
                self.report_ends(diagnostics);
            }
            Err(error) => {
                let what = format_args!("{error}. The certificates, keys and tokens from before stay in use");
                diagnostics.tell(LogLevel::Error, &what);
            }
        }
    }

    /// Ends the rights of tokens that have expired, and reports invalid ones.
    fn look_at_tokens(&self, diagnostics: &Diagnostics) {
        let Some(gate) = &self.gate else { return };
        gate.expire(now());
        let failures = gate.take_failures();
        if failures > 0 {
            let seconds = READ_EVERY.as_secs();
            let what = format_args!("clients have sent {failures} invalid tokens within {seconds} s");
            diagnostics.tell(LogLevel::Warn, &what);
        }
    }

    /// Returns whether new files were loaded. A failure is returned once per content.
    fn renew(&mut self) -> Result<bool, CredentialsError> {
        let found = Files::read(&self.clients, &self.peers)?;
        if found == self.seen {
            return Ok(false);
        }
        self.seen = found;
        let (new, ends) = self.seen.load(&self.clients, self.id)?;
        if let (Some(port), Some(new)) = (&self.protection.clients, &new.clients) {
            port.replace(new);
        }
        if let (Some(port), Some(new)) = (&self.protection.peers, &new.peers) {
            port.replace(new);
        }
        if let (Some(gate), Some(tokens)) = (&self.gate, &self.seen.tokens) {
            gate.replace(tokens.clone(), now());
        }
        self.ends = ends;
        Ok(true)
    }

    /// Reports the certificates that end soon.
    fn report_ends(&self, diagnostics: &Diagnostics) {
        for end in &self.ends {
            let left = i128::from(end.at) - i128::from(now());
            if left > i128::from(REPORT_BEFORE.as_secs()) {
                continue;
            }
            let path = end.path.display();
            let what = match left {
                ..0 => {
                    format!("the certificate in {path} has expired: make a new one with `coracle cert renew`")
                }
                _ => {
                    let days = left / (24 * 3600);
                    format!(
                        "the certificate in {path} ends in {days} days: renew it with `coracle cert renew`"
                    )
                }
            };
            diagnostics.tell(LogLevel::Warn, &what);
        }
    }
}

impl Files {
    fn read(clients: &ClientSecurity, peers: &PeerSecurity) -> Result<Self, CredentialsError> {
        let optional = |path: &Option<std::path::PathBuf>| path.as_deref().map(read).transpose();
        let pair =
            |certificate: &Option<_>, key: &Option<_>| -> Result<Option<(PemFile, PemFile)>, TlsFileError> {
                Ok(optional(certificate)?.zip(optional(key)?))
            };
        let tokens = clients.token_file.as_deref().map(file::read).transpose()?;
        let authorities = optional(&clients.tls_ca)?;
        let clients = pair(&clients.tls_cert, &clients.tls_key)?.map(|(certificate, key)| ClientPortFiles {
            certificate,
            key,
            authorities,
        });
        let peers = pair(&peers.peer_cert, &peers.peer_key)?
            .zip(optional(&peers.peer_ca)?)
            .map(|((certificate, key), authorities)| PeerFiles { certificate, key, authorities });
        Ok(Self { clients, peers, tokens })
    }

    fn load(&self, flags: &ClientSecurity, id: NodeId) -> Result<(Protection, Vec<End>), TlsFileError> {
        let (mut protection, mut ends) = (Protection::default(), Vec::new());
        if let Some(files) = &self.peers {
            let (port, of_peers) = PeerPort::load(files, id.0)?;
            protection.peers = Some(port);
            ends.extend(of_peers);
        }
        if let Some(files) = &self.clients {
            let cluster = protection.peers.as_ref().map(|port| port.name().cluster);
            let may_be_missing = flags.certificate_may_be_missing();
            let (port, of_clients) = ClientPort::load(files, cluster.as_deref(), may_be_missing)?;
            protection.clients = Some(port);
            ends.extend(of_clients);
        }
        Ok((protection, ends))
    }
}
