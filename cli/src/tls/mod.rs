//! TLS for the program: the files that its flags name, the servers that a client trusts, the proof
//! of its identity, and its stream.
//!
//! | file | topic |
//! | --- | --- |
//! | `auth` | the token of a client |
//! | `files` | reading certificates and keys |
//! | `trust` | the flags of clients, and which servers they trust |
//! | `stream` | a client's stream, encrypted or not |

mod auth;
mod files;
mod stream;
mod trust;

pub(crate) use auth::{TokenDenied, check, prove};
pub(crate) use files::{TlsFileError, read};
pub(crate) use stream::{Stream, fault_in, shake_hands};
pub(crate) use trust::{Trust, TrustError, TrustFlags};
