//! Access control: what a client may do.
//!
//! A client proves who it is by a token or by a certificate, and gets a [`Grant`]: a role, and the
//! prefixes to which it is limited. A request that its grant does not cover is rejected as a whole.
//! A scan, for example, is never filtered: a client could not tell a filtered answer from a
//! complete one.
//!
//! Deliberately not here: which tokens are valid, which a [`Gate`] decides, and what each request
//! needs (`protocol/permission.rs`).

use std::fmt;
use std::sync::Arc;

/// The longest token, in bytes. A longer one is rejected before it is hashed.
pub const TOKEN_BYTES_MAX: usize = 256;

/// A role: a kind of requests that a client may send. Each role includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Read keys, watch them, and read the status of the cluster.
    Read,
    /// Change keys.
    Write,
    /// Change the members, transfer leadership, and make backups.
    Admin,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 3] = [Self::Read, Self::Write, Self::Admin];

    /// The name, as it stands in token files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }

    /// Returns the role with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The rights of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The client's name, for replies and reports.
    pub name: Box<str>,
    /// Its role.
    pub role: Role,
    /// The prefixes of the keys that it may read and change; empty: all keys.
    pub prefixes: Vec<Box<str>>,
}

impl Grant {
    /// Returns whether the grant covers this key.
    #[must_use]
    pub fn covers_key(&self, key: &str) -> bool {
        self.prefixes.is_empty() || self.prefixes.iter().any(|prefix| key.starts_with(&**prefix))
    }

    /// Returns whether the grant covers every key with this prefix.
    #[must_use]
    pub fn covers_prefix(&self, prefix: &str) -> bool {
        // A key begins with `prefix`, so it begins with each text with which `prefix` begins.
        self.covers_key(prefix)
    }
}

/// The proof of a client's identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The SHA-256 digest of a token. The token itself is not kept.
    Token([u8; 32]),
    /// A name in a certificate that was verified.
    Certificate(Box<str>),
}

/// Decides which proofs are valid. Shared by all connections of a server.
pub trait Gate: fmt::Debug + Send + Sync {
    /// A number that changes whenever a grant may have changed. A connection looks its grant up
    /// again when it has, and not at each request.
    fn generation(&self) -> u64;

    /// Returns the proof that this token is, whether it is valid or not.
    fn proof_of(&self, token: &str) -> Proof;

    /// Returns the grant of a proof; `None`: it is not valid, or not any more.
    fn grant(&self, proof: &Proof) -> Option<Arc<Grant>>;

    /// Notes that a client has failed to prove its identity.
    fn note_failure(&self);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_covers_keys_by_their_prefixes_and_nothing_beside_them() {
        let grant = |prefixes: &[&str]| Grant {
            name: "till".into(),
            role: Role::Write,
            prefixes: prefixes.iter().map(|prefix| Box::from(*prefix)).collect(),
        };
        let limited = grant(&["a/", "ü"]);
        for key in ["a/", "a/b", "ü", "über"] {
            assert!(limited.covers_key(key) && limited.covers_prefix(key), "{key}");
        }
        for key in ["", "a", "ab", "b/a/", "u", "A/"] {
            assert!(!limited.covers_key(key) && !limited.covers_prefix(key), "{key}");
        }
        assert!(grant(&[]).covers_key("a") && grant(&[]).covers_prefix(""));
    }

    #[test]
    fn roles_are_ordered_and_have_names() {
        assert!(Role::Read < Role::Write && Role::Write < Role::Admin);
        for role in Role::ALL {
            assert_eq!(Role::from_name(role.name()), Some(role));
        }
        assert_eq!(Role::from_name("root"), None);
    }
}
