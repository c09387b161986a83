//! Certificates for sessions in memory: made once per process.

use std::sync::OnceLock;

use coracle_tls::{Caller, CallerFiles, ClientPort, ClientPortFiles, PeerFiles, PeerPort, PemFile};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};

const SERVER: ExtendedKeyUsagePurpose = ExtendedKeyUsagePurpose::ServerAuth;
const CLIENT: ExtendedKeyUsagePurpose = ExtendedKeyUsagePurpose::ClientAuth;

/// The host in the server's certificate.
pub(super) const HOST: &str = "kv.example";

/// The ports and clients of one cluster.
#[derive(Debug)]
pub struct Credentials {
    /// A port for clients that asks them for no certificate.
    pub open_port: ClientPort,
    /// A port for clients that need certificates.
    pub mutual_port: ClientPort,
    /// The client `billing`, with its certificate.
    pub caller: Caller,
    /// The nodes 1 and 2.
    pub nodes: [PeerPort; 2],
}

/// Returns the credentials of this process.
pub fn credentials() -> &'static Credentials {
    static MADE: OnceLock<Credentials> = OnceLock::new();
    MADE.get_or_init(Credentials::make)
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    file: PemFile,
}

impl Authority {
    fn new() -> Result<Self, rcgen::Error> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        let file = PemFile::new("ca.pem", params.self_signed(&key)?.pem());
        Ok(Self { issuer: Issuer::new(params, key), file })
    }

    fn sign(
        &self,
        hosts: &[&str],
        uri: Option<&str>,
        uses: &[ExtendedKeyUsagePurpose],
    ) -> Result<(PemFile, PemFile), rcgen::Error> {
        let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(hosts)?;
        if let Some(uri) = uri {
            params.subject_alt_names.push(SanType::URI(uri.try_into()?));
        }
        params.extended_key_usages = uses.to_vec();
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok((PemFile::new("cert.pem", certificate.pem()), PemFile::new("key.pem", key.serialize_pem())))
    }
}

impl Credentials {
    fn make() -> Self {
        let authority = Authority::new().expect("a certificate can be made");
        let sign = |hosts: &[&str], uri: Option<&str>, uses: &[ExtendedKeyUsagePurpose]| {
            authority.sign(hosts, uri, uses).expect("a certificate can be made")
        };
        let port = |authorities: Option<PemFile>| {
            let (certificate, key) = sign(&[HOST], None, &[SERVER]);
            let files = ClientPortFiles { certificate, key, authorities };
            ClientPort::load(&files, Some("tea"), false).expect("the files fit together").0
        };
        let node = |id: u64| {
            let uri = format!("coracle://tea/node/{id}");
            let (certificate, key) = sign(&[], Some(&uri), &[SERVER, CLIENT]);
            let files = PeerFiles { certificate, key, authorities: authority.file.clone() };
            PeerPort::load(&files, id).expect("the files fit together").0
        };
        let identity = Some(sign(&[], Some("coracle://tea/client/billing"), &[CLIENT]));
        let files = CallerFiles { authorities: Some(authority.file.clone()), identity };
        Self {
            open_port: port(None),
            mutual_port: port(Some(authority.file.clone())),
            caller: Caller::load(&files).expect("the files fit together"),
            nodes: [node(1), node(2)],
        }
    }
}
