//! `coracle cert`: certificates for a cluster, without another program.
//!
//! A folder holds two authorities: one signs the certificates of nodes for each other, one those of
//! clients and of the ports for clients. They are apart, so that neither passes for the other: a
//! client's certificate opens no peer port.
//!
//! | file | topic |
//! | --- | --- |
//! | `authority` | making and reading authorities, and signing |
//! | `files` | writing a new file, complete or not at all |
//! | `show` | the fields of certificates |

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use coracle_tls::{ClientName, PeerName, is_name};
use thiserror::Error;

use crate::exit::Exit;
use crate::numbers;
use crate::tls::TlsFileError;
use authority::{Authority, Kind};
use show::Show;

mod authority;
mod files;
mod show;

/// The folder of the authorities, unless another one is named.
const FOLDER_DEFAULT: &str = "certs";

/// The hosts by which a server is reached on its machine.
const LOCAL_HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Make and show the certificates of a cluster
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  coracle cert init --cluster tea
      two authorities in ./certs: keep it on one machine, not on the nodes
  coracle cert node --id 1 --host 10.0.0.1 --host kv1.example
      certs/node1-peer.pem and .key for --peer-cert and --peer-key,
      certs/node1.pem and .key for --tls-cert and --tls-key
  coracle cert client billing
  coracle cert show certs/*.pem
  coracle cert renew certs/node1.pem certs/node1-peer.pem

Keys are written with mode 0600. A node needs its four files, peers-ca.pem and clients-ca.pem; a client needs \
its two and clients-ca.pem. The keys of the authorities (peers-ca.key, clients-ca.key) stay where they are.")]
pub(crate) struct Cert {
    #[command(subcommand)]
    command: CertCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum CertCommand {
    /// Make the two authorities of a cluster
    Init {
        /// The name of the cluster in all certificates
        #[arg(long, value_name = "NAME", default_value = "coracle", value_parser = name)]
        cluster: String,
        #[command(flatten)]
        place: Place,
    },
    /// Make the certificates of a node: for the other nodes, and for its clients
    Node {
        /// The id of the node
        #[arg(long, value_name = "ID", value_parser = numbers::id)]
        id: u64,
        /// A host name or address at which clients reach the node; may be repeated. localhost is
        /// included
        #[arg(long = "host", value_name = "NAME_OR_IP", required = true, value_delimiter = ',')]
        hosts: Vec<String>,
        #[command(flatten)]
        place: Place,
    },
    /// Make the certificate of a client
    Client {
        /// The name of the client: letters, digits, dots, hyphens and underscores
        #[arg(value_parser = name)]
        name: String,
        #[command(flatten)]
        place: Place,
    },
    Show(Show),
    /// Replace certificates by new ones for the same names and the same keys
    Renew {
        /// The files of the certificates
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// The folder of the authorities
        #[arg(long, value_name = "DIR", default_value = FOLDER_DEFAULT)]
        dir: PathBuf,
    },
}

#[derive(Args, Clone, Debug)]
struct Place {
    /// The folder of the authorities, where the new files are written, too
    #[arg(long, value_name = "DIR", default_value = FOLDER_DEFAULT)]
    dir: PathBuf,

    /// Replace files that exist
    #[arg(long)]
    force: bool,
}

/// Why a text is no name.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("expected 1 to 64 letters, digits, dots, hyphens and underscores")]
struct NotAName;

fn name(text: &str) -> Result<String, NotAName> {
    if is_name(text) { Ok(text.to_owned()) } else { Err(NotAName) }
}

/// Why certificates were not made.
#[derive(Debug, Error)]
pub(crate) enum CertError {
    #[error("{}: the file already exists; use --force to replace it", .0.display())]
    Exists(PathBuf),
    #[error("{}: {cause}", .path.display())]
    File { path: PathBuf, cause: io::Error },
    #[error(transparent)]
    Read(#[from] TlsFileError),
    #[error("{}: not an authority of `coracle cert init`", .0.display())]
    NoAuthority(PathBuf),
    #[error("{}: {why}", .path.display())]
    Make { path: PathBuf, why: String },
    #[error("{}: there are no authorities: `coracle cert init` makes them", .0.display())]
    NoFolder(PathBuf),
    #[error("cannot write the answer: {0}")]
    Output(#[from] io::Error),
}

impl CertError {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Exists(_) => Exit::Usage,
            _ => Exit::Failure,
        }
    }

    /// Returns whether stdout was closed by its reader.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

impl Cert {
    pub(crate) fn run(&self) -> Result<(), CertError> {
        let written = match &self.command {
            CertCommand::Show(show) => return show.run(),
            CertCommand::Init { cluster, place } => init(cluster, place)?,
            CertCommand::Node { id, hosts, place } => node(*id, hosts, place)?,
            CertCommand::Client { name, place } => {
                let authority = Authority::open(&place.dir, Kind::Clients)?;
                let client = ClientName { cluster: authority.cluster().into(), name: name.as_str().into() };
                let signed = authority.sign(&client.to_string(), &[], Kind::Clients.uses_of_client())?;
                write(&place.dir, &[(name, signed)], place.force)?
            }
            CertCommand::Renew { files, dir } => {
                files.iter().map(|file| authority::renew(file, dir)).collect::<Result<_, _>>()?
            }
        };
        let mut out = io::stdout().lock();
        written.iter().try_for_each(|path| writeln!(out, "{}", path.display()))?;
        Ok(())
    }
}

/// Makes both authorities.
fn init(cluster: &str, place: &Place) -> Result<Vec<PathBuf>, CertError> {
    files::make_folder(&place.dir)?;
    let make = |kind: Kind| Ok((kind.file_name(), authority::make(cluster, kind)?));
    let made: Vec<_> =
        [Kind::Peers, Kind::Clients].into_iter().map(make).collect::<Result<_, CertError>>()?;
    write(&place.dir, &made, place.force)
}

/// Makes the two certificates of a node.
fn node(id: u64, hosts: &[String], place: &Place) -> Result<Vec<PathBuf>, CertError> {
    let (peers, clients) =
        (Authority::open(&place.dir, Kind::Peers)?, Authority::open(&place.dir, Kind::Clients)?);
    let peer = PeerName { cluster: peers.cluster().into(), node: id };
    let mut all: Vec<&str> = hosts.iter().map(String::as_str).collect();
    all.extend(LOCAL_HOSTS.iter().filter(|local| !hosts.iter().any(|host| host == *local)));
    let made = [
        (format!("node{id}-peer"), peers.sign(&peer.to_string(), &[], Kind::Peers.uses())?),
        (format!("node{id}"), clients.sign(&hosts[0], &all, Kind::Clients.uses())?),
    ];
    let made = made.each_ref().map(|(name, signed)| (name.as_str(), signed.clone()));
    write(&place.dir, &made, place.force)
}

/// A certificate and its key, as PEM.
#[derive(Clone, Debug)]
struct Signed {
    certificate: String,
    key: String,
}

/// Writes certificates and keys under these names, none if one of them exists.
fn write<N: AsRef<str>>(folder: &Path, made: &[(N, Signed)], force: bool) -> Result<Vec<PathBuf>, CertError> {
    let mut all = Vec::new();
    for (name, signed) in made {
        let path = |ending: &str| folder.join(format!("{}.{ending}", name.as_ref()));
        // The key comes first: a certificate without its key is of no use.
        all.extend([(path("key"), &signed.key), (path("pem"), &signed.certificate)]);
    }
    if let Some((path, _)) = all.iter().find(|(path, _)| path.exists() && !force) {
        return Err(CertError::Exists(path.clone()));
    }
    for (path, text) in &all {
        files::write(path, text.as_bytes(), force)?;
    }
    Ok(all.into_iter().map(|(path, _)| path).collect())
}
