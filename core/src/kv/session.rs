//! What a client says about a write so that it can ask again without harm: its own name, and a
//! number for the write.
//!
//! The pair travels in the log with the command. What has become of it before is remembered in
//! `sessions`.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// The longest name of a client, in bytes of UTF-8.
pub const CLIENT_BYTES_MAX: usize = 128;
/// The highest number of a write: the last one that no JSON library rounds.
pub const SEQ_MAX: u64 = 1 << 53;

/// The name that a client has given itself: 1 to [`CLIENT_BYTES_MAX`] bytes of UTF-8. Cloning
/// copies no text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientName(Arc<str>);

impl ClientName {
    /// Checks a name.
    ///
    /// # Errors
    ///
    /// [`SessionError::Client`] when it is empty or too long.
    pub fn new(text: &str) -> Result<Self, SessionError> {
        if is_client(text) { Ok(Self(text.into())) } else { Err(SessionError::Client) }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for ClientName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Which write of which client: the same pair names the same write, however often it is sent.
///
/// A client takes a name that nobody else has, such as a random one, and a higher number for each
/// new write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    client: ClientName,
    seq: u64,
}

impl Session {
    /// A write of `client`; `seq` is 0 to [`SEQ_MAX`].
    ///
    /// # Errors
    ///
    /// [`SessionError::Seq`] when `seq` is too high.
    pub fn new(client: ClientName, seq: u64) -> Result<Self, SessionError> {
        if seq <= SEQ_MAX { Ok(Self { client, seq }) } else { Err(SessionError::Seq) }
    }

    /// Who writes.
    #[must_use]
    pub fn client(&self) -> &ClientName {
        &self.client
    }

    /// Which of its writes.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }
}

/// A [`Session`] as it is read from the log, borrowed from its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedSession<'a> {
    /// Who writes: as long as a [`ClientName`] may be.
    pub client: Cow<'a, str>,
    /// Which of its writes.
    pub seq: u64,
}

impl<'a> LoggedSession<'a> {
    /// The pair, if it is one that could have been proposed.
    pub(super) fn checked(client: Cow<'a, str>, seq: u64) -> Option<Self> {
        (is_client(&client) && seq <= SEQ_MAX).then_some(Self { client, seq })
    }
}

impl From<LoggedSession<'_>> for Session {
    fn from(LoggedSession { client, seq }: LoggedSession<'_>) -> Self {
        Self { client: ClientName(client.into()), seq }
    }
}

impl<'a> From<&'a Session> for LoggedSession<'a> {
    fn from(session: &'a Session) -> Self {
        Self { client: Cow::Borrowed(session.client.as_str()), seq: session.seq }
    }
}

fn is_client(text: &str) -> bool {
    (1..=CLIENT_BYTES_MAX).contains(&text.len())
}

/// What is wrong with a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionError {
    /// The client's name is empty or longer than [`CLIENT_BYTES_MAX`].
    Client,
    /// The number is above [`SEQ_MAX`].
    Seq,
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client => write!(f, "a session's \"client\" is a string of 1 to {CLIENT_BYTES_MAX} bytes"),
            Self::Seq => write!(f, "a session's \"seq\" is a whole number from 0 to {SEQ_MAX}"),
        }
    }
}

impl std::error::Error for SessionError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_have_limits() {
        let longest = "c".repeat(CLIENT_BYTES_MAX);
        let client = ClientName::new(&longest).unwrap();
        assert_eq!(ClientName::new(""), Err(SessionError::Client));
        assert_eq!(ClientName::new(&(longest + "c")), Err(SessionError::Client));
        assert_eq!(Session::new(client.clone(), SEQ_MAX).unwrap().seq(), SEQ_MAX);
        assert_eq!(Session::new(client, SEQ_MAX + 1), Err(SessionError::Seq));
    }
}
