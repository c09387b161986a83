//! `HOST:PORT` addresses on the command line. Names are resolved only when the program connects or
//! listens, so a command line is checked without using the network.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;
use std::{io, vec};

use thiserror::Error;

/// A server's address: a host name or an IP address, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// Without the brackets of an IPv6 address.
    host: String,
    port: u16,
}

/// Why a text is not an address.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(crate) enum AddressError {
    #[error("expected HOST:PORT, such as 127.0.0.1:3001, localhost:3001 or [::1]:3001")]
    Shape,
    #[error("a server is named by HOST:PORT alone, such as 127.0.0.1:3001, without a scheme such as http://")]
    Scheme,
    #[error("the port must be a number from 0 to 65535, as in 127.0.0.1:3001")]
    Port,
    #[error("an IPv6 address stands in brackets, as in [::1]:3001")]
    Brackets,
}

impl Address {
    /// The host name or address, without brackets.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let text = text.trim();
        if text.contains("://") {
            return Err(AddressError::Scheme);
        }
        let (host, port) = text.rsplit_once(':').ok_or(AddressError::Shape)?;
        let port = port.parse().map_err(|_| AddressError::Port)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        if bare.is_none() && host.contains(':') {
            return Err(AddressError::Brackets);
        }
        let host = bare.unwrap_or(host);
        if host.is_empty() || host.contains(char::is_whitespace) {
            return Err(AddressError::Shape);
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl ToSocketAddrs for Address {
    type Iter = vec::IntoIter<SocketAddr>;

    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        (self.host.as_str(), self.port).to_socket_addrs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_read_and_shown_alike() {
        for text in ["127.0.0.1:3001", "localhost:0", "[::1]:3001", "db-1.example.org:65535"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn every_mistake_has_its_own_error() {
        let error = |text: &str| text.parse::<Address>().unwrap_err();
        assert_eq!(error("localhost"), AddressError::Shape);
        assert_eq!(error(":3001"), AddressError::Shape);
        assert_eq!(error(""), AddressError::Shape);
        assert_eq!(error("localhost:"), AddressError::Port);
        assert_eq!(error("localhost:70000"), AddressError::Port);
        assert_eq!(error("http://localhost:3001"), AddressError::Scheme);
        assert_eq!(error("tcp://[::1]:3001/"), AddressError::Scheme);
        assert_eq!(error("::1:3001"), AddressError::Brackets);
    }
}
