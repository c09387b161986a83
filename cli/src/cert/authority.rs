//! Authorities: makes them, reads them, and signs certificates with them.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use coracle_tls::Certificate;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

use super::{CertError, Signed, files};
use crate::tls::{TlsFileError, read};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long an authority is valid. Chosen as long as a cluster is likely to live: all its
/// certificates end with it.
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(3650 * DAY.as_secs());
/// How long a certificate is valid. Chosen so that one that was stolen does not last, and that
/// renewal is a yearly habit.
const CERTIFICATE_LIFETIME: Duration = Duration::from_secs(365 * DAY.as_secs());
/// How long before now a certificate begins, for machines whose clocks are late.
const CLOCK_DIFFERENCE: Duration = Duration::from_secs(3600);

/// The URI that names the cluster of an authority begins with this.
const SCHEME: &str = "coracle://";

/// The certificates that an authority signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Those of nodes, for each other.
    Peers,
    /// Those of clients, and of the ports for clients.
    Clients,
}

impl Kind {
    /// The name of the authority's files, without their ending.
    pub(super) fn file_name(self) -> &'static str {
        match self {
            Self::Peers => "peers-ca",
            Self::Clients => "clients-ca",
        }
    }

    fn uri(self, cluster: &str) -> String {
        format!("{SCHEME}{cluster}/authority/{}", self.file_name())
    }

    /// The purposes of the certificate of a server.
    pub(super) fn uses(self) -> &'static [ExtendedKeyUsagePurpose] {
        match self {
            // Each node dials and is dialled.
            Self::Peers => &[ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
            Self::Clients => &[ExtendedKeyUsagePurpose::ServerAuth],
        }
    }

    /// The purposes of the certificate of a client.
    pub(super) fn uses_of_client(self) -> &'static [ExtendedKeyUsagePurpose] {
        &[ExtendedKeyUsagePurpose::ClientAuth]
    }
}

/// An authority that can sign.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    cluster: String,
    path: PathBuf,
}

fn made_badly(path: &Path) -> impl Fn(rcgen::Error) -> CertError {
    let path = path.to_owned();
    move |error| CertError::Make { path: path.clone(), why: error.to_string() }
}

fn valid_for(params: &mut CertificateParams, lifetime: Duration) {
    let now = SystemTime::now();
    params.not_before = (now - CLOCK_DIFFERENCE).into();
    params.not_after = (now + lifetime).into();
}

fn uri(text: &str, path: &Path) -> Result<SanType, CertError> {
    Ok(SanType::URI(text.try_into().map_err(made_badly(path))?))
}

/// Makes an authority.
pub(super) fn make(cluster: &str, kind: Kind) -> Result<Signed, CertError> {
    let path = Path::new(kind.file_name());
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, format!("{cluster} {}", kind.file_name()));
    params.subject_alt_names = vec![uri(&kind.uri(cluster), path)?];
    valid_for(&mut params, AUTHORITY_LIFETIME);
    let key = KeyPair::generate().map_err(made_badly(path))?;
    let certificate = params.self_signed(&key).map_err(made_badly(path))?;
    Ok(Signed { certificate: certificate.pem(), key: key.serialize_pem() })
}

impl Authority {
    /// Reads an authority from its folder.
    pub(super) fn open(folder: &Path, kind: Kind) -> Result<Self, CertError> {
        let path = folder.join(format!("{}.pem", kind.file_name()));
        if !path.exists() {
            return Err(CertError::NoFolder(folder.to_owned()));
        }
        let certificate = read(&path)?.certificate().map_err(TlsFileError::from)?;
        let mut uris = certificate.uris.iter();
        let rest = uris.find_map(|uri| uri.strip_prefix(SCHEME));
        let cluster = rest.and_then(|rest| rest.split_once('/')).map(|(cluster, _)| cluster.to_owned());
        let cluster = cluster.filter(|cluster| certificate.uris.contains(&kind.uri(cluster)));
        let cluster = cluster.ok_or_else(|| CertError::NoAuthority(path.clone()))?;
        let key = files::read_text(&folder.join(format!("{}.key", kind.file_name())))?;
        let key = KeyPair::from_pem(&key).map_err(made_badly(&path))?;
        let issuer = Issuer::from_ca_cert_pem(&files::read_text(&path)?, key).map_err(made_badly(&path))?;
        Ok(Self { issuer, cluster, path })
    }

    pub(super) fn cluster(&self) -> &str {
        &self.cluster
    }

    /// Makes a certificate and a new key. `subject` is a URI, which is among its names then, or
    /// another text.
    pub(super) fn sign(
        &self,
        subject: &str,
        hosts: &[&str],
        uses: &[ExtendedKeyUsagePurpose],
    ) -> Result<Signed, CertError> {
        let key = KeyPair::generate().map_err(made_badly(&self.path))?;
        let certificate = self.certificate(subject, hosts, uses, &key)?;
        Ok(Signed { certificate, key: key.serialize_pem() })
    }

    fn certificate(
        &self,
        subject: &str,
        hosts: &[&str],
        uses: &[ExtendedKeyUsagePurpose],
        key: &KeyPair,
    ) -> Result<String, CertError> {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(hosts).map_err(made_badly(&self.path))?;
        params.distinguished_name.push(DnType::CommonName, subject);
        if subject.starts_with(SCHEME) {
            params.subject_alt_names.push(uri(subject, &self.path)?);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = uses.to_vec();
        params.use_authority_key_identifier_extension = true;
        valid_for(&mut params, CERTIFICATE_LIFETIME);
        let signed = params.signed_by(key, &self.issuer).map_err(made_badly(&self.path))?;
        Ok(signed.pem())
    }
}

/// Replaces a certificate by a new one for the same names and the same key, which stands beside it.
/// One file is replaced, so that a server that reads it never finds two that do not fit.
pub(super) fn renew(file: &Path, authorities: &Path) -> Result<PathBuf, CertError> {
    let old = read(file)?.certificate().map_err(TlsFileError::from)?;
    let key_file = file.with_extension("key");
    let key = KeyPair::from_pem(&files::read_text(&key_file)?).map_err(made_badly(&key_file))?;
    let (kind, uses) = purpose(&old, file)?;
    let authority = Authority::open(authorities, kind)?;
    let (subject, hosts) = match old.uris.first() {
        Some(uri) => (uri.clone(), Vec::new()),
        None => {
            let addresses = old.addresses.iter().map(ToString::to_string);
            let hosts: Vec<String> = old.dns_names.iter().cloned().chain(addresses).collect();
            (hosts.first().cloned().unwrap_or_default(), hosts)
        }
    };
    let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
    let certificate = authority.certificate(&subject, &hosts, uses, &key)?;
    files::write(file, certificate.as_bytes(), true)?;
    Ok(file.to_owned())
}

fn purpose(old: &Certificate, file: &Path) -> Result<(Kind, &'static [ExtendedKeyUsagePurpose]), CertError> {
    if old.is_authority {
        let why = "an authority is not renewed: `coracle cert init` makes new ones in another folder".into();
        return Err(CertError::Make { path: file.to_owned(), why });
    }
    Ok(match (old.peer(), old.client()) {
        (Some(_), _) => (Kind::Peers, Kind::Peers.uses()),
        (None, Some(_)) => (Kind::Clients, Kind::Clients.uses_of_client()),
        (None, None) => (Kind::Clients, Kind::Clients.uses()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for kind in [Kind::Peers, Kind::Clients] {
            let made = make("tea", kind).unwrap();
            let path = |ending: &str| folder.path().join(format!("{}.{ending}", kind.file_name()));
            files::write(&path("pem"), made.certificate.as_bytes(), false).unwrap();
            files::write(&path("key"), made.key.as_bytes(), false).unwrap();
        }
        folder
    }

    fn parsed(pem: &str) -> Certificate {
        coracle_tls::PemFile::new("x.pem", pem).certificate().unwrap()
    }

    #[test]
    fn a_certificate_has_the_names_and_the_lifetime_that_it_should_have() {
        let folder = folder();
        let authority = Authority::open(folder.path(), Kind::Clients).unwrap();
        let signed = authority.sign("kv1", &["kv1", "10.0.0.1"], Kind::Clients.uses()).unwrap();
        let server = parsed(&signed.certificate);
        assert_eq!((server.dns_names, server.addresses.len()), (vec!["kv1".to_owned()], 1));
        assert_eq!((server.uris.len(), server.is_authority), (0, false));
        let lifetime = i64::try_from((CERTIFICATE_LIFETIME + CLOCK_DIFFERENCE).as_secs()).unwrap();
        assert_eq!(server.to - server.from, lifetime);
        assert!(matches!(
            Authority::open(&folder.path().join("none"), Kind::Peers),
            Err(CertError::NoFolder(_))
        ));
    }

    #[test]
    fn a_renewed_certificate_has_the_same_names_and_the_same_key() {
        let folder = folder();
        let peers = Authority::open(folder.path(), Kind::Peers).unwrap();
        let clients = Authority::open(folder.path(), Kind::Clients).unwrap();
        let all = [
            ("peer", peers.sign("coracle://tea/node/7", &[], Kind::Peers.uses())),
            ("server", clients.sign("kv1", &["kv1", "10.0.0.1", "::1"], Kind::Clients.uses())),
            ("client", clients.sign("coracle://tea/client/a", &[], Kind::Clients.uses_of_client())),
        ];
        for (name, signed) in all {
            let (signed, path) = (signed.unwrap(), folder.path().join(format!("{name}.pem")));
            files::write(&path, signed.certificate.as_bytes(), false).unwrap();
            files::write(&path.with_extension("key"), signed.key.as_bytes(), false).unwrap();
            renew(&path, folder.path()).unwrap();
            let (old, new) = (parsed(&signed.certificate), parsed(&files::read_text(&path).unwrap()));
            assert_eq!((old.uris, old.dns_names, old.addresses), (new.uris, new.dns_names, new.addresses));
            assert_ne!(signed.certificate, files::read_text(&path).unwrap());
            assert_eq!(files::read_text(&path.with_extension("key")).unwrap(), signed.key);
        }
        let authority = renew(&folder.path().join("peers-ca.pem"), folder.path()).unwrap_err();
        assert!(authority.to_string().contains("not renewed"), "{authority}");
    }
}
