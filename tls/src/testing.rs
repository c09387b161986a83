//! Certificates for tests, and a pair of sessions that exchange bytes in memory.

#![expect(clippy::unwrap_used, reason = "a test that cannot begin has failed")]

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};

use crate::{
    Caller, CallerFiles, ClientPort, ClientPortFiles, CredentialError, PeerFiles, PeerPort, PemFile,
    Received, Session,
};

pub(crate) const SERVER: ExtendedKeyUsagePurpose = ExtendedKeyUsagePurpose::ServerAuth;
pub(crate) const CLIENT: ExtendedKeyUsagePurpose = ExtendedKeyUsagePurpose::ClientAuth;

/// An authority.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) file: PemFile,
}

/// The years in which a certificate is valid.
pub(crate) type Years = (i32, i32);
pub(crate) const NOW: Years = (2020, 2120);

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        Self::with_names(name, Vec::new())
    }

    /// An authority that names its cluster.
    pub(crate) fn naming(name: &str, uri: &str) -> Self {
        Self::with_names(name, vec![SanType::URI(uri.try_into().unwrap())])
    }

    fn with_names(name: &str, names: Vec<SanType>) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names = names;
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let file = PemFile::new(format!("{name}-ca.pem"), certificate.pem());
        Self { issuer: Issuer::new(params, key), file }
    }

    /// A certificate with its key, for these names: URIs, and host names or addresses.
    pub(crate) fn sign(
        &self,
        names: &[&str],
        uses: &[ExtendedKeyUsagePurpose],
        (from, to): Years,
    ) -> (PemFile, PemFile) {
        let (uris, hosts): (Vec<&str>, Vec<&str>) = names.iter().partition(|name| name.contains("://"));
        let mut params =
            CertificateParams::new(hosts.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
        params.subject_alt_names.extend(uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())));
        params.extended_key_usages = uses.to_vec();
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(to, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (PemFile::new("cert.pem", certificate.pem()), PemFile::new("key.pem", key.serialize_pem()))
    }

    pub(crate) fn peer(&self, uri: &str, years: Years) -> PeerFiles {
        let (certificate, key) = self.sign(&[uri], &[SERVER, CLIENT], years);
        PeerFiles { certificate, key, authorities: self.file.clone() }
    }

    /// The port of the node with this id of the cluster `tea`.
    pub(crate) fn peer_port(&self, id: u64) -> PeerPort {
        PeerPort::load(&self.peer(&format!("coracle://tea/node/{id}"), NOW), id).unwrap().0
    }

    pub(crate) fn client_port(&self, needs_certificates: bool) -> ClientPort {
        let (certificate, key) = self.sign(&["kv.example", "127.0.0.1"], &[SERVER], NOW);
        let authorities = needs_certificates.then(|| self.file.clone());
        let files = ClientPortFiles { certificate, key, authorities };
        ClientPort::load(&files, Some("tea"), false).unwrap().0
    }

    pub(crate) fn caller(&self, identity: Option<(PemFile, PemFile)>) -> Result<Caller, CredentialError> {
        Caller::load(&CallerFiles { authorities: Some(self.file.clone()), identity })
    }
}

/// Moves bytes between two sessions until neither has more to send. Returns how each ended up.
pub(crate) fn exchange(one: &mut Session, other: &mut Session) -> [Received; 2] {
    let (mut to_other, mut to_one) = (Vec::new(), Vec::new());
    let mut ends = [Received::Open; 2];
    loop {
        one.drain(&mut to_other);
        other.drain(&mut to_one);
        if to_other.is_empty() && to_one.is_empty() {
            return ends;
        }
        if !to_other.is_empty() {
            ends[1] = other.receive(&std::mem::take(&mut to_other), |_| panic!("nothing was sent"));
        }
        if !to_one.is_empty() {
            ends[0] = one.receive(&std::mem::take(&mut to_one), |_| panic!("nothing was sent"));
        }
    }
}

/// A client and a server whose handshake is complete.
pub(crate) fn pair() -> (Session, Session) {
    let authority = Authority::new("tea");
    let mut server = authority.client_port(false).accept().unwrap();
    let mut client = authority.caller(None).unwrap().call("kv.example").unwrap();
    assert_eq!(exchange(&mut client, &mut server), [Received::Open; 2]);
    assert!(client.is_established() && server.is_established());
    (client, server)
}
