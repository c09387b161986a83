//! Faults: why a TLS session cannot go on, in words that name the remedy.
//!
//! The library that speaks TLS has some hundred errors, most of which say only that the bytes are
//! not TLS. An operator can act on about ten of them: those are told apart here.

use thiserror::Error;

/// Why a TLS session cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Fault {
    /// The first byte is not that of TLS.
    #[error("the other end does not speak TLS")]
    NotTls,
    /// The connection ended without the message that ends a session: bytes may be missing.
    #[error("the connection ended without the end of the TLS session")]
    Cut,
    /// The handshake took too long.
    #[error("the other end did not complete the TLS handshake in time")]
    Silent,
    /// The other end sent no certificate.
    #[error("the other end has no certificate")]
    NoCertificate,
    /// The certificate has expired.
    #[error("the certificate of the other end has expired: renew it")]
    Expired,
    /// The certificate is not valid yet.
    #[error("the certificate of the other end is not valid yet: compare the clocks of both machines")]
    NotYetValid,
    /// No authority that is trusted here has signed the certificate.
    #[error("the certificate of the other end is not signed by an authority that is trusted here")]
    UnknownAuthority,
    /// The certificate is not for the name or address that was dialled.
    #[error("the certificate of the other end is not for {wanted}, but for {}", listed(.found))]
    WrongName {
        /// The name or address that was dialled.
        wanted: Box<str>,
        /// The names and addresses in the certificate.
        found: Vec<String>,
    },
    /// The certificate is for another purpose, such as one of a client for a server.
    #[error("the certificate of the other end is for another purpose")]
    WrongPurpose,
    /// The certificate names no node.
    #[error("the certificate of the other end names no node (coracle://CLUSTER/node/ID)")]
    NoNode,
    /// The certificate names no client.
    #[error("the certificate of the other end names no client (coracle://CLUSTER/client/NAME)")]
    NoClient,
    /// The certificate is of another cluster.
    #[error("the certificate of the other end is of cluster {theirs}, not of {ours}")]
    OtherCluster {
        /// The name of the cluster in this end's certificate.
        ours: Box<str>,
        /// The name of the cluster in the other end's certificate.
        theirs: Box<str>,
    },
    /// The other end has ended the handshake because of this end's certificate.
    #[error("the other end {0}")]
    Rejected(Rejection),
    /// More bytes than a handshake has.
    #[error("the other end sends more than a TLS handshake has")]
    TooMuch,
    /// The bytes are not what TLS allows at this point.
    #[error("the TLS session failed: {0}")]
    Protocol(Box<str>),
}

/// The other end's reason for rejecting this end's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Rejection {
    /// It has expired.
    #[error("rejects this end's certificate, because it has expired")]
    Expired,
    /// It is signed by an authority that the other end does not trust.
    #[error("rejects this end's certificate, because it does not trust the authority that signed it")]
    UnknownAuthority,
    /// It is missing.
    #[error("needs a certificate of this end")]
    Required,
    /// It is not acceptable for another reason.
    #[error("rejects this end's certificate: it may be of another cluster, or for another purpose")]
    NotAcceptable,
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "no name".to_owned() } else { names.join(", ") }
}

/// The flags of a node that speaks TLS with the others.
const PEER_FLAGS: &str = "--peer-cert, --peer-key and --peer-ca";

impl Fault {
    /// Returns the report of a handshake between nodes that has failed, which names the flags if
    /// only one of the two may have certificates. A node without them waits for the first line of
    /// the node that dials, which waits for the first message of TLS: so silence may mean it, too.
    #[must_use]
    pub fn between_nodes(&self) -> String {
        match self {
            Self::NotTls => format!("the other end speaks plain text: start that node with {PEER_FLAGS}"),
            Self::Silent | Self::Cut => {
                format!("{self}; if that node was started without {PEER_FLAGS}, start it with them")
            }
            _ => self.to_string(),
        }
    }

    /// Returns whether the fault is in a certificate, and not in the connection or the other end's
    /// protocol: it stays until an operator acts.
    #[must_use]
    pub fn is_of_certificates(&self) -> bool {
        !matches!(self, Self::NotTls | Self::Cut | Self::Silent | Self::TooMuch | Self::Protocol(_))
    }
}

#[cfg(feature = "rustls")]
mod from_rustls {
    use rustls::{AlertDescription, CertificateError, Error};

    use super::{Fault, Rejection};

    impl From<Error> for Fault {
        fn from(error: Error) -> Self {
            match error {
                Error::InvalidCertificate(why) => certificate(why),
                Error::NoCertificatesPresented => Self::NoCertificate,
                Error::AlertReceived(alert) => match alert {
                    AlertDescription::CertificateExpired => Self::Rejected(Rejection::Expired),
                    AlertDescription::UnknownCA => Self::Rejected(Rejection::UnknownAuthority),
                    AlertDescription::CertificateRequired => Self::Rejected(Rejection::Required),
                    AlertDescription::BadCertificate
                    | AlertDescription::UnsupportedCertificate
                    | AlertDescription::CertificateRevoked
                    | AlertDescription::CertificateUnknown
                    | AlertDescription::AccessDenied => Self::Rejected(Rejection::NotAcceptable),
                    _ => Self::Protocol(error.to_string().into()),
                },
                _ => Self::Protocol(error.to_string().into()),
            }
        }
    }

    fn certificate(error: CertificateError) -> Fault {
        match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Fault::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Fault::NotYetValid,
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Fault::UnknownAuthority,
            CertificateError::NotValidForNameContext { expected, presented } => {
                Fault::WrongName { wanted: expected.to_str().into(), found: names(&presented) }
            }
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                Fault::WrongPurpose
            }
            CertificateError::Other(other) => match other.0.downcast_ref::<Fault>() {
                Some(fault) => fault.clone(),
                None => Fault::Protocol(other.to_string().into()),
            },
            other => Fault::Protocol(other.to_string().into()),
        }
    }

    /// Returns the names without the wrappings in which the library prints them, such as
    /// `DnsName("a")`.
    fn names(presented: &[String]) -> Vec<String> {
        let bare = |name: &String| {
            let inside = name.split_once('(').map_or(&**name, |(_, rest)| rest);
            inside.trim_end_matches(')').trim_matches('"').to_owned()
        };
        presented.iter().map(bare).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_without_certificates_does_is_reported_with_the_flags() {
        for fault in [Fault::NotTls, Fault::Silent, Fault::Cut] {
            assert!(fault.between_nodes().contains(PEER_FLAGS), "{fault}");
        }
        assert_eq!(Fault::Expired.between_nodes(), Fault::Expired.to_string());
    }
}
