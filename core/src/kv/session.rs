//! The session of a write: a client name and a sequence number, by which a retry is recognized.
//!
//! The pair is stored in the log with the command. The table in `sessions` remembers the outcome
//! for each pair.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// The longest client name, in bytes of UTF-8.
pub const CLIENT_BYTES_MAX: usize = 128;
/// The highest sequence number: the last integer that no JSON library rounds.
pub const SEQ_MAX: u64 = 1 << 53;

/// A name that a client chose: 1 to [`CLIENT_BYTES_MAX`] bytes of UTF-8. Cloning copies no text.
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

/// The identity of a write: client name and sequence number. Requests with the same pair are the
/// same write, sent again.
///
/// A client chooses a name that no other client has, such as a random one, and a higher number for
/// each new write.
///
/// ```
/// use coracle_core::kv::{ClientName, Session};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let client = ClientName::new("till-4")?;
/// let first = Session::new(client.clone(), 1)?;
/// let second = Session::new(client, 2)?;
/// assert_ne!(first, second);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    client: ClientName,
    seq: u64,
}

impl Session {
    /// The session of a write of `client`; `seq` is 0 to [`SEQ_MAX`].
    ///
    /// # Errors
    ///
    /// [`SessionError::Seq`] when `seq` is too high.
    pub fn new(client: ClientName, seq: u64) -> Result<Self, SessionError> {
        if seq <= SEQ_MAX { Ok(Self { client, seq }) } else { Err(SessionError::Seq) }
    }

    /// The client's name.
    #[must_use]
    pub fn client(&self) -> &ClientName {
        &self.client
    }

    /// The write's sequence number.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }
}

/// A [`Session`] as parsed from the log, borrowed from its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedSession<'a> {
    /// The client's name, within the limits of [`ClientName`].
    pub client: Cow<'a, str>,
    /// The write's sequence number.
    pub seq: u64,
}

impl<'a> LoggedSession<'a> {
    /// Returns the pair if both members are within their limits.
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

/// The reason why a session is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionError {
    /// The client's name is empty or longer than [`CLIENT_BYTES_MAX`].
    Client,
    /// The sequence number is above [`SEQ_MAX`].
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
