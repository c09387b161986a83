//! The types of this crate without TLS: none of them has a value.
//!
//! A runtime that is built without TLS contains the same code, and the compiler removes it.

use std::convert::Infallible;

use crate::{CallerFiles, ClientName, ClientPortFiles, End, Fault, NotOpen, PeerFiles, PeerName, Received};

/// A session, which does not exist without TLS.
#[derive(Debug)]
pub struct Session(Infallible);

/// The credentials of a port for clients, which do not exist without TLS.
#[derive(Clone, Debug)]
pub struct ClientPort(Infallible);

/// The credentials of a node, which do not exist without TLS.
#[derive(Clone, Debug)]
pub struct PeerPort(Infallible);

/// The credentials of a client, which do not exist without TLS.
#[derive(Clone, Debug)]
pub struct Caller(Infallible);

/// Why credentials cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialError {
    /// There is no TLS.
    #[error("this program was built without TLS")]
    Absent,
}

impl Caller {
    /// Fails.
    ///
    /// # Errors
    ///
    /// [`CredentialError::Absent`].
    pub fn load(_files: &CallerFiles) -> Result<Self, CredentialError> {
        Err(CredentialError::Absent)
    }

    /// Is never called.
    ///
    /// # Errors
    ///
    /// Never.
    pub fn call(&self, _host: &str) -> Result<Session, Fault> {
        match self.0 {}
    }
}

#[expect(missing_docs, reason = "as with TLS")]
impl Session {
    pub fn receive(&mut self, _bytes: &[u8], _plaintext: impl FnMut(&[u8])) -> Received {
        match self.0 {}
    }

    pub fn stream_ended(&mut self) -> Received {
        match self.0 {}
    }

    pub fn timed_out(&mut self) -> Received {
        match self.0 {}
    }

    #[must_use]
    pub fn fault(&self) -> Option<&Fault> {
        match self.0 {}
    }

    #[must_use]
    pub fn is_established(&self) -> bool {
        match self.0 {}
    }

    #[must_use]
    pub fn peer(&self) -> Option<PeerName> {
        match self.0 {}
    }

    #[must_use]
    pub fn client_name(&self) -> Option<ClientName> {
        match self.0 {}
    }

    #[must_use]
    pub fn has_output(&self) -> bool {
        match self.0 {}
    }

    pub fn drain(&mut self, _bytes: &mut Vec<u8>) {
        match self.0 {}
    }

    /// # Errors
    ///
    /// Never.
    pub fn seal(&mut self, _plaintext: &[u8], _sealed: &mut Vec<u8>) -> Result<(), NotOpen> {
        match self.0 {}
    }

    pub fn close(&mut self, _sealed: &mut Vec<u8>) {
        match self.0 {}
    }
}

impl ClientPort {
    /// Fails.
    ///
    /// # Errors
    ///
    /// [`CredentialError::Absent`].
    pub fn load(
        _files: &ClientPortFiles,
        _cluster: Option<&str>,
        _may_be_missing: bool,
    ) -> Result<(Self, Vec<End>), CredentialError> {
        Err(CredentialError::Absent)
    }

    /// Is never called.
    pub fn replace(&self, _new: &Self) {
        match self.0 {}
    }

    /// Is never called.
    ///
    /// # Errors
    ///
    /// Never.
    pub fn accept(&self) -> Result<Session, Fault> {
        match self.0 {}
    }
}

impl PeerPort {
    /// Fails.
    ///
    /// # Errors
    ///
    /// [`CredentialError::Absent`].
    pub fn load(_files: &PeerFiles, _own: u64) -> Result<(Self, Vec<End>), CredentialError> {
        Err(CredentialError::Absent)
    }

    /// Is never called.
    pub fn replace(&self, _new: &Self) {
        match self.0 {}
    }

    /// Is never called.
    #[must_use]
    pub fn name(&self) -> PeerName {
        match self.0 {}
    }

    /// Is never called.
    ///
    /// # Errors
    ///
    /// Never.
    pub fn accept(&self) -> Result<Session, Fault> {
        match self.0 {}
    }

    /// # Errors
    ///
    /// Never.
    pub fn dial(&self) -> Result<Session, Fault> {
        match self.0 {}
    }
}
