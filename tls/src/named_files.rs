//! The contents of the files that a port or a client uses, before they are parsed.

use std::path::PathBuf;

/// The content of a file, with its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PemFile {
    /// The path, for messages.
    pub path: PathBuf,
    /// The content.
    pub bytes: Vec<u8>,
    /// Whether other users than its owner can read the file.
    pub is_readable_by_others: bool,
}

/// When a certificate ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// The file that holds it.
    pub path: PathBuf,
    /// The last second at which it is valid, since 1970.
    pub at: i64,
}

/// The files of a port for clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientPortFiles {
    /// The certificate of the server, with its chain.
    pub certificate: PemFile,
    /// Its key.
    pub key: PemFile,
    /// The authorities of client certificates. `None`: clients are not asked for one.
    pub authorities: Option<PemFile>,
}

/// The files of a node, for its connections with other nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerFiles {
    /// The certificate of the node, with its chain.
    pub certificate: PemFile,
    /// Its key.
    pub key: PemFile,
    /// The authorities of the nodes' certificates.
    pub authorities: PemFile,
}

/// The files of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallerFiles {
    /// The authorities of servers' certificates. `None`: no server is trusted.
    pub authorities: Option<PemFile>,
    /// The client's certificate and its key, if it has one.
    pub identity: Option<(PemFile, PemFile)>,
}

impl PemFile {
    /// Content that was not read from a file, under a name for messages.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, bytes: impl Into<Vec<u8>>) -> Self {
        Self { path: path.into(), bytes: bytes.into(), is_readable_by_others: false }
    }
}
