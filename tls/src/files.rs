//! Files of certificates, keys and authorities: parses them, and checks that they fit together.
//!
//! The files themselves are read elsewhere; a [`PemFile`] is the content of one, with its path for
//! messages. All files of a port are checked before any of them is used: a key that belongs to
//! another certificate is found when the operator is there to see it, and not when the first
//! client connects.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use thiserror::Error;

use crate::certificate::Certificate;
use crate::named_files::{End, PemFile};
use crate::names::PeerName;
use crate::provider::provider;

/// Why credentials cannot be used. Nothing of them is used then.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CredentialError {
    /// A key that other users can read.
    #[error("{0}: other users can read this key: `chmod 600 {0}`", .path.display())]
    Readable {
        /// The file.
        path: PathBuf,
    },
    /// No certificate in a file.
    #[error("{}: the file holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)", .path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// No key in a file.
    #[error(
        "{}: the file holds no private key in PEM form (-----BEGIN PRIVATE KEY-----) without a password",
        .path.display()
    )]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// Something in a file cannot be parsed, or is of a kind that is not supported.
    #[error("{}: {why}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The reason, in the words of the library.
        why: String,
    },
    /// Key and certificate do not belong together.
    #[error(
        "the key in {} does not belong to the certificate in {}: give the two files that were made together",
        .key.display(), .certificate.display()
    )]
    KeyMismatch {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
    /// The certificate is not signed by the authority.
    #[error(
        "the certificate in {} is not signed by the authority in {}: {why}",
        .certificate.display(), .authorities.display()
    )]
    NotSigned {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the authority.
        authorities: PathBuf,
        /// The reason, in the words of the library.
        why: String,
    },
    /// The certificate has expired.
    #[error("{}: the certificate has expired: make a new one, as with `coracle cert renew`", .path.display())]
    Expired {
        /// The file.
        path: PathBuf,
    },
    /// The certificate is not valid yet.
    #[error("{}: the certificate is not valid yet: check this machine's clock", .path.display())]
    NotYetValid {
        /// The file.
        path: PathBuf,
    },
    /// The certificate names no node.
    #[error(
        "{}: the certificate names no node (URI coracle://CLUSTER/node/ID): make one with `coracle cert node`",
        .path.display()
    )]
    NoNode {
        /// The file.
        path: PathBuf,
    },
    /// The certificate names another node than this one.
    #[error("{}: the certificate is of node {found}, and this is node {own} (--id)", .path.display())]
    OtherNode {
        /// The file.
        path: PathBuf,
        /// The node in the certificate.
        found: u64,
        /// This node.
        own: u64,
    },
}

impl PemFile {
    fn damaged(&self, why: impl ToString) -> CredentialError {
        CredentialError::Damaged { path: self.path.clone(), why: why.to_string() }
    }

    /// Returns the certificates, at least one.
    pub(crate) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, CredentialError> {
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(&self.bytes)
            .collect::<Result<_, _>>()
            .map_err(|error| self.damaged(error))?;
        if certificates.is_empty() {
            return Err(CredentialError::NoCertificate { path: self.path.clone() });
        }
        Ok(certificates)
    }

    /// Returns the certificates as authorities.
    pub(crate) fn authorities(&self) -> Result<Arc<RootCertStore>, CredentialError> {
        let mut roots = RootCertStore::empty();
        // A file of many authorities may hold one of a kind that is not supported.
        let (added, _) = roots.add_parsable_certificates(self.certificates()?);
        if added == 0 {
            return Err(self.damaged("none of its certificates can be an authority"));
        }
        Ok(Arc::new(roots))
    }

    /// Returns the cluster that all authorities in the file name, if it is the same one.
    pub(crate) fn only_cluster(&self) -> Result<Option<Box<str>>, CredentialError> {
        let all = self.certificates()?;
        let mut named = all.iter().map(|der| Certificate::parse(der).ok()?.cluster_of_authority());
        let Some(first) = named.next().flatten() else { return Ok(None) };
        Ok(named.all(|other| other.as_ref() == Some(&first)).then_some(first))
    }

    fn private_key(&self) -> Result<PrivateKeyDer<'static>, CredentialError> {
        if self.is_readable_by_others {
            return Err(CredentialError::Readable { path: self.path.clone() });
        }
        PrivateKeyDer::from_pem_slice(&self.bytes)
            .map_err(|_| CredentialError::NoKey { path: self.path.clone() })
    }

    /// The fields of the first certificate.
    ///
    /// # Errors
    ///
    /// [`CredentialError`] when there is none.
    pub fn certificate(&self) -> Result<Certificate, CredentialError> {
        Certificate::parse(&self.certificates()?[0]).map_err(|error| self.damaged(error))
    }

    /// When the first certificate of the file to end ends.
    pub(crate) fn end(&self) -> Result<End, CredentialError> {
        let ends = self.certificates()?;
        let ends = ends.iter().map(|der| Certificate::parse(der).map(|certificate| certificate.to));
        let ends: Result<Vec<_>, _> = ends.collect();
        let first = ends.map_err(|error| self.damaged(error))?.into_iter().min();
        Ok(End { path: self.path.clone(), at: first.unwrap_or(i64::MAX) })
    }
}

/// A certificate with its chain and its key, which belong together and are valid now.
pub(crate) struct Identity {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
    pub(crate) certificate: Certificate,
}

impl Identity {
    pub(crate) fn load(certificate: &PemFile, key: &PemFile) -> Result<Self, CredentialError> {
        let (chain, private) = (certificate.certificates()?, key.private_key()?);
        let signer = provider().key_provider.load_private_key(private.clone_key());
        let certified = CertifiedKey::new(chain.clone(), signer.map_err(|error| key.damaged(error))?);
        match certified.keys_match() {
            Ok(()) => {}
            Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) => {
                let (certificate, key) = (certificate.path.clone(), key.path.clone());
                return Err(CredentialError::KeyMismatch { certificate, key });
            }
            // The library cannot compare keys of this kind.
            Err(rustls::Error::InconsistentKeys(_)) => {}
            Err(error) => return Err(certificate.damaged(error)),
        }
        let fields = certificate.certificate()?;
        let now = i64::try_from(UnixTime::now().as_secs()).unwrap_or(i64::MAX);
        if now > fields.to {
            return Err(CredentialError::Expired { path: certificate.path.clone() });
        }
        if now < fields.from {
            return Err(CredentialError::NotYetValid { path: certificate.path.clone() });
        }
        Ok(Self { chain, key: private, certificate: fields })
    }

    /// The identity of the node with this id.
    pub(crate) fn peer(&self, path: &Path, own: u64) -> Result<PeerName, CredentialError> {
        let name =
            self.certificate.peer().ok_or_else(|| CredentialError::NoNode { path: path.to_owned() })?;
        if name.node != own {
            return Err(CredentialError::OtherNode { path: path.to_owned(), found: name.node, own });
        }
        Ok(name)
    }
}
