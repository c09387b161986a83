//! The token by which a client proves who it is, and the exchange that begins each connection with
//! it.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use coracle_core::access::TOKEN_BYTES_MAX;
use coracle_tls::Session;
use serde::Deserialize;
use serde_json::json;
use thiserror::Error;

/// The longest reply to a token, in bytes.
const REPLY_BYTES_MAX: usize = 4 << 10;

/// A token, which no message shows.
#[derive(Clone)]
pub(crate) struct Token(String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

/// The server does not accept the token.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{message}")]
pub(crate) struct TokenDenied {
    message: String,
}

#[derive(Deserialize)]
struct AuthReply {
    status: String,
    error: Option<String>,
    message: Option<String>,
}

impl Token {
    /// Returns the token in this text, without the white space around it; `None`: it holds none.
    pub(crate) fn new(text: &str) -> Option<Self> {
        let token = text.trim();
        ((1..=TOKEN_BYTES_MAX).contains(&token.len())).then(|| Self(token.to_owned()))
    }

    /// The request line, without its line break.
    pub(crate) fn line(&self) -> String {
        json!({"op": "auth", "token": self.0}).to_string()
    }
}

/// Checks the reply to [`Token::line`].
pub(crate) fn check(reply: &str) -> Result<(), TokenDenied> {
    let denied = |message: String| TokenDenied { message };
    let reply: AuthReply = serde_json::from_str(reply)
        .map_err(|_| denied("the reply to the token is no reply of a Coracle server".to_owned()))?;
    if reply.status == "ok" {
        return Ok(());
    }
    let code = reply.error.unwrap_or_else(|| "error".to_owned());
    Err(denied(format!("{code}: {}", reply.message.unwrap_or_default())))
}

/// Sends the token on a connection that has sent nothing else, and checks the reply.
///
/// # Errors
///
/// The error of the socket or the session; one that holds a [`TokenDenied`] if the server does not
/// accept the token.
pub(crate) fn prove(mut socket: &TcpStream, session: Option<&mut Session>, token: &Token) -> io::Result<()> {
    let line = token.line() + "\n";
    let Some(session) = session else {
        socket.write_all(line.as_bytes())?;
        return check(&reply_line(|piece| socket.read(piece))?).map_err(io::Error::other);
    };
    let mut sealed = Vec::new();
    session.seal(line.as_bytes(), &mut sealed).map_err(io::Error::other)?;
    socket.write_all(&sealed)?;
    let mut plain = Vec::new();
    let reply = reply_line(|piece| {
        while plain.is_empty() {
            let mut bytes = [0; REPLY_BYTES_MAX];
            let len = socket.read(&mut bytes)?;
            if len == 0 {
                return Ok(0);
            }
            session.receive(&bytes[..len], |plaintext| plain.extend_from_slice(plaintext));
            if let Some(fault) = session.fault() {
                return Err(io::Error::other(fault.clone()));
            }
        }
        let len = plain.len().min(piece.len());
        piece[..len].copy_from_slice(&plain[..len]);
        plain.drain(..len);
        Ok(len)
    })?;
    check(&reply).map_err(io::Error::other)
}

fn reply_line(mut read: impl FnMut(&mut [u8]) -> io::Result<usize>) -> io::Result<String> {
    let (mut line, mut piece) = (Vec::new(), [0; 512]);
    while !line.ends_with(b"\n") && line.len() < REPLY_BYTES_MAX {
        match read(&mut piece)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            len => line.extend_from_slice(&piece[..len]),
        }
    }
    String::from_utf8(line).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_trimmed_and_never_shown() {
        let token = Token::new(" coracle_12\n").unwrap();
        assert_eq!(token.line(), r#"{"op":"auth","token":"coracle_12"}"#);
        assert_eq!(format!("{token:?}"), "Token");
        assert!(Token::new(" \n").is_none() && Token::new(&"t".repeat(TOKEN_BYTES_MAX + 1)).is_none());
    }

    #[test]
    fn a_denial_keeps_the_words_of_the_server() {
        assert_eq!(check(r#"{"name":"till","status":"ok"}"#), Ok(()));
        let denied = check(r#"{"status":"error","error":"unauthenticated","message":"no","definite":true}"#);
        assert_eq!(denied.unwrap_err().to_string(), "unauthenticated: no");
        assert!(check("HTTP/1.1 400").unwrap_err().to_string().contains("no reply of a Coracle server"));
    }
}
