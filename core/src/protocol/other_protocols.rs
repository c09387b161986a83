//! Protocol detection: recognizes HTTP, TLS and other protocols by the start of a connection, and
//! rejects them.
//!
//! A web page can make a browser send an HTTP request with any body to any port of the user's
//! machine. A server that rejects the lines of the HTTP header one by one, and then executes the
//! body, executes commands of a stranger (cross-protocol request forgery). So a first line of
//! another protocol ends the connection: the server replies with one line that says what the port
//! is for, and reads nothing after it.
//!
//! Deliberately narrow: a first line that is merely invalid is answered like any other invalid
//! line, and the connection stays open.

use std::fmt;

use super::reply::push_bad_request;
use super::request::BadRequest;
use crate::peer::PEER_FORMAT;

/// A protocol that does not belong on the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OtherProtocol {
    Http,
    Tls,
    Resp,
    /// The handshake of a cluster node, on the port for clients.
    Peer,
    /// A client's request, on the port for nodes.
    Client,
    /// A first byte that is not text.
    Binary,
}

impl fmt::Display for OtherProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "HTTP",
            Self::Tls => "TLS",
            Self::Resp => "RESP, the protocol of Redis",
            Self::Peer => "the handshake of a cluster node",
            Self::Client => "a client request",
            Self::Binary => "a binary protocol",
        })
    }
}

/// Recognizes a protocol by the first byte of a connection. It must not wait for a whole line,
/// because a TLS client waits for an answer after a few bytes.
pub(super) fn told_by_first_byte(byte: u8) -> Option<OtherProtocol> {
    match byte {
        0x16 => Some(OtherProtocol::Tls),
        b'\t' | b'\n' | b'\r' | b' '.. => None,
        _ => Some(OtherProtocol::Binary),
    }
}

/// Returns whether these first bytes of a connection already show that it is not text, so that
/// there is no need to wait for more.
#[must_use]
pub fn is_binary(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|byte| told_by_first_byte(*byte).is_some())
}

/// Recognizes a protocol by the first line of a connection.
pub(super) fn told_by_first_line(line: &[u8]) -> Option<OtherProtocol> {
    let first = *line.first()?;
    if is_resp(line) {
        return Some(OtherProtocol::Resp);
    }
    if first == b'{' {
        return is_greeting(line).then_some(OtherProtocol::Peer);
    }
    is_http(line).then_some(OtherProtocol::Http)
}

/// Returns whether the line, which begins like a JSON object, is the first line of a handshake
/// between nodes.
pub(crate) fn is_greeting(line: &[u8]) -> bool {
    let format = format!("{{\"format\":\"{PEER_FORMAT}\"");
    line.starts_with(format.as_bytes())
}

/// Returns whether the line is the head of a RESP array or bulk string: `*2`, `$4`.
fn is_resp(line: &[u8]) -> bool {
    let Some((b'*' | b'$', count)) = line.split_first() else { return false };
    !count.is_empty() && count.iter().all(u8::is_ascii_digit)
}

/// Returns whether the line is a method, a target and a version, or, as in HTTP/0.9, a method in
/// capitals and a path.
fn is_http(line: &[u8]) -> bool {
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), version) = (words.next(), words.next(), words.next()) else {
        return false;
    };
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let is_method = !method.is_empty() && method.iter().all(is_token);
    match version {
        Some(version) => {
            is_method && !target.is_empty() && version.starts_with(b"HTTP/") && words.next().is_none()
        }
        None => method.iter().all(u8::is_ascii_uppercase) && !method.is_empty() && target.starts_with(b"/"),
    }
}

/// Appends the line that rejects another protocol on the client port, which clients reach at
/// `address`.
pub(super) fn push_refusal_to_client(line: &mut String, found: OtherProtocol, address: Option<&str>) {
    let place = address.map(|address| format!(" {address}")).unwrap_or_default();
    let hint = match found {
        OtherProtocol::Peer => "; nodes connect to each other at the port in --peers",
        _ => "",
    };
    push_refusal(
        line,
        format!(
            "this is {found}, and the port{place} is for clients, which send one JSON object per line{hint}"
        ),
    );
}

/// Returns the line that rejects a client that sends plain text to a port that speaks TLS.
#[must_use]
pub fn refusal_of_plain_text() -> String {
    let mut line = String::new();
    push_refusal(
        &mut line,
        "this is plain text, and the port speaks TLS: give the program --tls-ca FILE, the authority that \
         has signed the server's certificate"
            .to_owned(),
    );
    line
}

/// Returns the line that rejects a connection on the port for nodes when its first line is not a
/// handshake. Clients connect at `clients`.
pub(crate) fn refusal_at_peer_port(first_line: &[u8], clients: Option<&str>) -> Vec<u8> {
    let by_first_byte = first_line.first().and_then(|byte| told_by_first_byte(*byte));
    let found = by_first_byte.or_else(|| told_by_first_line(first_line)).unwrap_or(OtherProtocol::Client);
    let found = match (found, first_line.first()) {
        (OtherProtocol::Client, Some(b'{')) => found.to_string(),
        (OtherProtocol::Client, _) => "not a node's handshake".to_owned(),
        _ => found.to_string(),
    };
    let place = clients.map(|clients| format!("; clients connect to {clients}")).unwrap_or_default();
    let mut line = String::new();
    push_refusal(
        &mut line,
        format!("this is {found}, and the port is for the other nodes of a cluster{place}"),
    );
    line.into_bytes()
}

fn push_refusal(line: &mut String, why: String) {
    let message = why + ". Nothing was executed, and the connection is closed";
    push_bad_request(line, &BadRequest { id: None, key: None, is_too_large: false, message });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_lines_of_other_protocols_are_recognized() {
        for (line, found) in [
            ("GET / HTTP/1.1", OtherProtocol::Http),
            ("POST /api?x=1 HTTP/1.0", OtherProtocol::Http),
            ("OPTIONS * HTTP/1.1", OtherProtocol::Http),
            ("CONNECT host:443 HTTP/1.1", OtherProtocol::Http),
            ("M-SEARCH * HTTP/1.1", OtherProtocol::Http),
            ("x-made-up /a HTTP/1.1", OtherProtocol::Http),
            ("PRI * HTTP/2.0", OtherProtocol::Http),
            ("GET /old", OtherProtocol::Http),
            ("*1", OtherProtocol::Resp),
            ("$4", OtherProtocol::Resp),
            (r#"{"format":"coracle-peer","version":2,"node":1}"#, OtherProtocol::Peer),
        ] {
            assert_eq!(told_by_first_line(line.as_bytes()), Some(found), "{line}");
        }
    }

    #[test]
    fn a_line_that_is_merely_wrong_is_not_another_protocol() {
        for line in
            ["", "x", "get snack", "PUT a 1", "hello /x", "*", "*x", "[]", "{", r#"{"key":"GET / HTTP/1.1"}"#]
        {
            assert_eq!(told_by_first_line(line.as_bytes()), None, "{line}");
        }
        assert!(b"\t\r\n {\"x\xff".iter().all(|byte| told_by_first_byte(*byte).is_none()));
        assert_eq!(told_by_first_byte(0x16), Some(OtherProtocol::Tls));
        assert_eq!(told_by_first_byte(0), Some(OtherProtocol::Binary));
    }

    #[test]
    fn each_port_says_what_it_is_for() {
        let mut line = String::new();
        push_refusal_to_client(&mut line, OtherProtocol::Peer, Some("h:1"));
        assert!(line.contains("the port h:1 is for clients") && line.contains("--peers"), "{line}");
        let line = String::from_utf8(refusal_at_peer_port(b"{\"key\":\"a\"}", Some("h:1"))).unwrap();
        assert!(line.contains("a client request") && line.contains("clients connect to h:1"), "{line}");
        let line = refusal_of_plain_text();
        assert!(line.contains("--tls-ca") && line.ends_with("}\n") && line.lines().count() == 1, "{line}");
        let line = String::from_utf8(refusal_at_peer_port(b"G", None)).unwrap();
        assert!(line.contains("not a node's handshake"), "{line}");
        assert!(line.ends_with("}\n") && line.lines().count() == 1);
    }
}
