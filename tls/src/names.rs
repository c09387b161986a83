//! Identities in certificates: who the holder of a certificate is, as a URI among its subject
//! alternative names.
//!
//! A node is `coracle://CLUSTER/node/ID`, a client `coracle://CLUSTER/client/NAME`. Addresses and
//! host names play no part: they change, they are shared behind address translation, and they are
//! in the hands of those that control the name service.

use std::fmt;

/// The longest cluster name or client name, in bytes. Arbitrary.
pub const NAME_BYTES_MAX: usize = 64;

const SCHEME: &str = "coracle://";

/// The identity of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerName {
    /// The name of the cluster, as its certificates state it.
    pub cluster: Box<str>,
    /// The id of the node.
    pub node: u64,
}

/// The identity of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientName {
    /// The name of the cluster, as its certificates state it.
    pub cluster: Box<str>,
    /// The name of the client.
    pub name: Box<str>,
}

/// Returns whether the text is a cluster name or a client name: 1 to [`NAME_BYTES_MAX`] letters,
/// digits, dots, hyphens and underscores. Such a name needs no escape in a URI.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_allowed)
}

/// Splits `coracle://CLUSTER/KIND/REST` for this kind.
fn parts<'a>(uri: &'a str, kind: &str) -> Option<(&'a str, &'a str)> {
    let (cluster, rest) = uri.strip_prefix(SCHEME)?.split_once('/')?;
    let rest = rest.strip_prefix(kind)?.strip_prefix('/')?;
    is_name(cluster).then_some((cluster, rest))
}

/// Returns the cluster in the URI of an authority, `coracle://CLUSTER/authority/NAME`.
#[cfg(feature = "rustls")]
pub(crate) fn cluster_of_authority(uri: &str) -> Option<&str> {
    let (cluster, name) = parts(uri, "authority")?;
    is_name(name).then_some(cluster)
}

impl PeerName {
    /// Parses a URI; `None`: it is not the identity of a node.
    #[must_use]
    pub fn parse(uri: &str) -> Option<Self> {
        let (cluster, id) = parts(uri, "node")?;
        let node: u64 = id.parse().ok()?;
        // One identity has one spelling: no sign, no leading zero.
        (node.to_string() == id).then(|| Self { cluster: cluster.into(), node })
    }
}

impl ClientName {
    /// Parses a URI; `None`: it is not the identity of a client.
    #[must_use]
    pub fn parse(uri: &str) -> Option<Self> {
        let (cluster, name) = parts(uri, "client")?;
        is_name(name).then(|| Self { cluster: cluster.into(), name: name.into() })
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/node/{}", self.cluster, self.node)
    }
}

impl fmt::Display for ClientName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/client/{}", self.cluster, self.name)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_identity_has_one_spelling() {
        let peer = PeerName { cluster: "tea".into(), node: 12 };
        assert_eq!(PeerName::parse("coracle://tea/node/12"), Some(peer));
        for other in [
            "coracle://tea/node/012",
            "coracle://tea/node/+12",
            "coracle://tea/node/12/",
            "coracle://tea/node/",
            "coracle:///node/12",
            "coracle://t%65a/node/12",
            "Coracle://tea/node/12",
            "coracle://tea/client/12",
            "coracle://tea/node/12?x",
            "coracle://tea/node/99999999999999999999",
        ] {
            assert_eq!(PeerName::parse(other), None, "{other}");
        }
        let client = ClientName { cluster: "tea".into(), name: "billing-2".into() };
        assert_eq!(ClientName::parse(&client.to_string()), Some(client));
        assert_eq!(ClientName::parse("coracle://tea/node/1"), None);
        assert_eq!(ClientName::parse("coracle://tea/client/a/b"), None);
    }

    #[test]
    fn a_name_has_a_length_limit() {
        assert!(is_name(&"x".repeat(NAME_BYTES_MAX)) && !is_name(&"x".repeat(NAME_BYTES_MAX + 1)));
        assert!(!is_name("") && !is_name("a b") && !is_name("ä") && is_name("A.b-c_9"));
    }

    proptest! {
        #[test]
        fn a_text_that_parses_is_the_text_of_what_it_parsed_to(uri in "(coracle://)?[a-z0-9/.%]{0,30}") {
            if let Some(name) = PeerName::parse(&uri) {
                prop_assert_eq!(name.to_string(), uri.as_str());
            }
            if let Some(name) = ClientName::parse(&uri) {
                prop_assert_eq!(name.to_string(), uri.as_str());
            }
        }
    }
}
