//! Verifiers: which certificates of the other end are accepted.
//!
//! The library checks signatures, times and purposes. This file adds the identity: a node's
//! certificate must name a node of the same cluster, a client's certificate a client of it. A
//! certificate of the right authority that names something else is refused in the handshake, before
//! a byte of the protocol above is read.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::certificate::Certificate;
use crate::fault::Fault;
use crate::provider::provider;

/// The identity that a certificate has to state.
#[derive(Clone, Debug)]
pub(crate) enum Expected {
    /// A node of this cluster.
    Peer(Box<str>),
    /// A client, of this cluster if it is known.
    Client(Option<Box<str>>),
}

impl Expected {
    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        self.fault(certificate).map_or(Ok(()), |fault| Err(refused(fault)))
    }

    fn fault(&self, certificate: &CertificateDer<'_>) -> Option<Fault> {
        let Ok(certificate) = Certificate::parse(certificate) else {
            return Some(Fault::Protocol("the certificate cannot be parsed".into()));
        };
        let (ours, theirs) = match self {
            Self::Peer(cluster) => {
                let Some(peer) = certificate.peer() else { return Some(Fault::NoNode) };
                (Some(cluster), peer.cluster)
            }
            Self::Client(cluster) => {
                let Some(client) = certificate.client() else { return Some(Fault::NoClient) };
                (cluster.as_ref(), client.cluster)
            }
        };
        let ours = ours.filter(|ours| **ours != theirs)?;
        Some(Fault::OtherCluster { ours: ours.clone(), theirs })
    }
}

fn refused(fault: Fault) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(fault))))
}

/// Accepts certificates that an authority has signed and that state the expected identity.
#[derive(Debug)]
pub(crate) struct Verifier {
    expected: Expected,
    roots: Arc<RootCertStore>,
    of_clients: Arc<dyn ClientCertVerifier>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    /// A verifier for these authorities. `may_be_missing`: a TLS client need not have a
    /// certificate. Fails when there is no authority.
    pub(crate) fn new(
        expected: Expected,
        roots: Arc<RootCertStore>,
        may_be_missing: bool,
    ) -> Result<Arc<Self>, String> {
        let provider = provider();
        // The names of the authorities would show a stranger whose port this is.
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
            .clear_root_hint_subjects();
        let builder = if may_be_missing { builder.allow_unauthenticated() } else { builder };
        let of_clients = builder.build().map_err(|error| error.to_string())?;
        Ok(Arc::new(Self { expected, roots, of_clients, provider }))
    }

    /// Checks that another node with the same authorities accepts this certificate, in either role.
    pub(crate) fn check_own(&self, chain: &[CertificateDer<'_>]) -> Result<(), String> {
        let Some((own, intermediates)) = chain.split_first() else { return Err("no certificate".into()) };
        let now = UnixTime::now();
        let name = ServerName::try_from("unused").map_err(|error| error.to_string())?;
        let checked = self
            .verify_server_cert(own, intermediates, &name, &[], now)
            .and_then(|_| self.verify_client_cert(own, intermediates, now));
        checked.map(drop).map_err(|error| Fault::from(error).to_string())
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.of_clients.root_hint_subjects()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.of_clients.client_auth_mandatory()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.of_clients.verify_client_cert(end_entity, intermediates, now)?;
        self.expected.check(end_entity)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.of_clients.verify_tls12_signature(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.of_clients.verify_tls13_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.of_clients.supported_verify_schemes()
    }
}

impl ServerCertVerifier for Verifier {
    /// Ignores the name that was dialled: the identity counts.
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, algorithms)?;
        self.expected.check(end_entity)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
