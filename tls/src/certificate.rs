//! The fields of a certificate that Coracle reads or shows.

use std::net::IpAddr;

use thiserror::Error;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use crate::names::{ClientName, PeerName, cluster_of_authority};

/// The bytes are not a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not a certificate")]
pub struct NotACertificate;

/// The fields of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The holder, as a distinguished name.
    pub subject: String,
    /// The authority that has signed it, as a distinguished name.
    pub issuer: String,
    /// URIs among its subject alternative names.
    pub uris: Vec<String>,
    /// Host names among its subject alternative names.
    pub dns_names: Vec<String>,
    /// Addresses among its subject alternative names.
    pub addresses: Vec<IpAddr>,
    /// The first second at which it is valid, since 1970.
    pub from: i64,
    /// The last second at which it is valid, since 1970.
    pub to: i64,
    /// Whether it is the certificate of an authority.
    pub is_authority: bool,
}

impl Certificate {
    /// Parses the DER encoding of a certificate.
    ///
    /// # Errors
    ///
    /// [`NotACertificate`].
    pub fn parse(der: &[u8]) -> Result<Self, NotACertificate> {
        let (rest, parsed) = X509Certificate::from_der(der).map_err(|_| NotACertificate)?;
        if !rest.is_empty() {
            return Err(NotACertificate);
        }
        let mut certificate = Self {
            subject: parsed.subject().to_string(),
            issuer: parsed.issuer().to_string(),
            uris: Vec::new(),
            dns_names: Vec::new(),
            addresses: Vec::new(),
            from: parsed.validity().not_before.timestamp(),
            to: parsed.validity().not_after.timestamp(),
            is_authority: parsed.is_ca(),
        };
        let names = parsed.subject_alternative_name().map_err(|_| NotACertificate)?;
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::URI(uri) => certificate.uris.push((*uri).to_owned()),
                GeneralName::DNSName(name) => certificate.dns_names.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) => certificate.addresses.extend(address(bytes)),
                _ => {}
            }
        }
        Ok(certificate)
    }

    /// Returns the node that the certificate names. One that names several names none: it would
    /// pass for each of them.
    #[must_use]
    pub fn peer(&self) -> Option<PeerName> {
        only(self.uris.iter().filter_map(|uri| PeerName::parse(uri)))
    }

    /// Returns the client that the certificate names. One that names several names none.
    #[must_use]
    pub fn client(&self) -> Option<ClientName> {
        only(self.uris.iter().filter_map(|uri| ClientName::parse(uri)))
    }
}

impl Certificate {
    /// Returns the cluster that the certificate of an authority names. One that names several names
    /// none.
    #[must_use]
    pub fn cluster_of_authority(&self) -> Option<Box<str>> {
        let name = |uri: &String| cluster_of_authority(uri).map(Box::from);
        if self.is_authority { only(self.uris.iter().filter_map(name)) } else { None }
    }
}

fn only<T>(mut found: impl Iterator<Item = T>) -> Option<T> {
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}
