//! The types of this crate without TLS: none of them has a value.
//!
//! A runtime that is built without TLS contains the same code, and the compiler removes it.

use std::convert::Infallible;

use crate::{ClientName, Fault, NotOpen, PeerName, Received};

/// A session, which does not exist without TLS.
#[derive(Debug)]
pub struct Session(Infallible);

/// The credentials of a port for clients, which do not exist without TLS.
#[derive(Clone, Debug)]
pub struct ClientPort(Infallible);

/// The credentials of a node, which do not exist without TLS.
#[derive(Clone, Debug)]
pub struct PeerPort(Infallible);

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
    /// # Errors
    ///
    /// Never.
    pub fn accept(&self) -> Result<Session, Fault> {
        match self.0 {}
    }
}

impl PeerPort {
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
