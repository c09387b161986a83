//! TLS without I/O: sessions beneath the lines of clients and the frames of nodes, and the
//! identities that certificates state.
//!
//! rustls is a state machine already. This crate wraps it once for every part of Coracle that
//! speaks TLS: both runtimes and the program's clients. Bytes from a socket go in, plaintext comes
//! out, and the other way round; who opens the socket, waits and gives up is the caller's concern.
//!
//! ```text
//!   socket ── bytes ──► Session::receive ── plaintext ──► lines or frames
//!   socket ◄─ bytes ─── Session::seal    ◄─ plaintext ─── lines or frames
//! ```
//!
//! Only TLS 1.3 is spoken, on both ports. Its certificates are encrypted, it has no renegotiation
//! and no weak cipher, and every client library of the last years supports it.
//!
//! | file | topic |
//! | --- | --- |
//! | `session` | one connection: handshake, plaintext, end |
//! | `handshake` | the steps of a handshake and of reading, for callers that move the bytes |
//! | `fault` | why a session cannot go on |
//! | `names` | the identities in certificates: `coracle://CLUSTER/node/ID` and `…/client/NAME` |
//! | `certificate` | the fields of a certificate |
//! | `named_files`, `files` | certificates, keys and authorities, checked together |
//! | `verifier` | which certificates of the other end are accepted |
//! | `client_port`, `peer_port`, `caller` | the three uses: a port for clients, the connections between nodes, a client |
//! | `provider` | the one place that chooses the cryptography |
//! | `absent` | the same types without TLS, when the feature `rustls` is off |
//!
//! A port that is given new credentials uses them for new connections; the existing ones go on.
//!
//! # An example
//!
//! A client and a server in one process, with certificates made on the spot.
//!
//! ```
//! # #[cfg(feature = "rustls")] {
//! use coracle_tls::{Caller, CallerFiles, ClientPort, ClientPortFiles, PemFile};
//!
//! let made = rcgen::generate_simple_self_signed(vec!["kv.example".to_owned()]).unwrap();
//! let certificate = PemFile::new("cert.pem", made.cert.pem());
//! let key = PemFile::new("key.pem", made.signing_key.serialize_pem());
//! let files = ClientPortFiles { certificate: certificate.clone(), key, authorities: None };
//! let (port, _) = ClientPort::load(&files, None, false).unwrap();
//! let caller = Caller::load(&CallerFiles { authorities: Some(certificate), identity: None }).unwrap();
//!
//! let mut server = port.accept().unwrap();
//! let mut client = caller.call("kv.example").unwrap();
//! let (mut wire, mut heard) = (Vec::new(), Vec::new());
//! while !(client.is_established() && server.is_established()) {
//!     client.drain(&mut wire);
//!     server.receive(&std::mem::take(&mut wire), |_| {});
//!     server.drain(&mut wire);
//!     client.receive(&std::mem::take(&mut wire), |_| {});
//! }
//! client.seal(b"{\"key\":\"a\"}\n", &mut wire).unwrap();
//! server.receive(&wire, |plaintext| heard.extend_from_slice(plaintext));
//! assert_eq!(heard, b"{\"key\":\"a\"}\n");
//! # }
//! ```

mod fault;
mod handshake;
mod named_files;
mod names;

#[cfg(feature = "rustls")]
mod caller;
#[cfg(feature = "rustls")]
mod certificate;
#[cfg(feature = "rustls")]
mod client_port;
#[cfg(feature = "rustls")]
mod files;
#[cfg(feature = "rustls")]
mod peer_port;
#[cfg(feature = "rustls")]
mod provider;
#[cfg(feature = "rustls")]
mod session;
#[cfg(feature = "rustls")]
mod slot;
#[cfg(feature = "rustls")]
mod verifier;

#[cfg(all(test, feature = "rustls"))]
mod testing;

#[cfg(not(feature = "rustls"))]
mod absent;

#[cfg(not(feature = "rustls"))]
pub use absent::{Caller, ClientPort, CredentialError, PeerPort, Session};
#[cfg(feature = "rustls")]
pub use caller::Caller;
#[cfg(feature = "rustls")]
pub use certificate::{Certificate, NotACertificate};
#[cfg(feature = "rustls")]
pub use client_port::ClientPort;
pub use fault::{Fault, Rejection};
#[cfg(feature = "rustls")]
pub use files::CredentialError;
pub use handshake::{HANDSHAKE_READ_BYTES, Handshake, Plaintext, Secured};
pub use named_files::{CallerFiles, ClientPortFiles, End, PeerFiles, PemFile};
pub use names::{ClientName, NAME_BYTES_MAX, PeerName, is_name};
#[cfg(feature = "rustls")]
pub use peer_port::PeerPort;
#[cfg(feature = "rustls")]
pub use session::{OUTGOING_BYTES_MAX, Session, UNPROCESSED_BYTES_MAX};

/// The memory cost of an established session that holds no data: keys, state, and the other end's
/// certificates. Measured, and rounded up.
pub const SESSION_BYTES: usize = 16 << 10;

/// The meaning for a connection of the bytes that its session has received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// More bytes may follow.
    Open,
    /// The other end has ended its direction in order: nothing is missing.
    Ended,
    /// The session cannot go on, for the reason that [`Session::fault`] states. Bytes may be
    /// missing at the end.
    Broken,
}

/// A session cannot send: its handshake is not complete, or it has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the TLS session cannot send")]
pub struct NotOpen;

/// The protection of a server's two ports. The default is none.
#[derive(Clone, Debug, Default)]
pub struct Protection {
    /// Clients speak TLS.
    pub clients: Option<ClientPort>,
    /// Nodes prove their identities to each other by TLS.
    pub peers: Option<PeerPort>,
}
