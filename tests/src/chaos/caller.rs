//! A client's connection with timeouts, and the interpretation of its replies.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// The time that a server has to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// The result of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// A write was applied.
    Done,
    /// A read found this value.
    Found(Option<u32>),
    /// A delete found no value.
    NotFound,
    /// A compare-and-swap found this value instead.
    Mismatch(Option<u32>),
    /// The request certainly had no effect.
    Refused,
    /// The session has expired.
    Expired,
    /// The outcome is unknown.
    Unknown,
    /// A reply that a server must never send.
    Nonsense(String),
}

/// A connection.
#[derive(Debug)]
pub(super) struct Caller {
    reader: BufReader<TcpStream>,
    next_id: u64,
}

impl Caller {
    pub(super) fn open(address: SocketAddr, patience: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        Ok(Self { reader: BufReader::new(stream), next_id: 1 })
    }

    /// Sends a request and waits for its reply. After an error the connection must not be used
    /// again: a late reply would be mistaken for that of a later request.
    pub(super) fn ask(&mut self, mut request: Value) -> io::Result<Value> {
        let id = self.next_id;
        self.next_id += 1;
        request["id"] = id.into();
        self.reader.get_mut().write_all(format!("{request}\n").as_bytes())?;
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        if !line.ends_with('\n') {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let reply: Value = serde_json::from_str(&line)?;
        if reply["id"] != id {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{line} in reply to {request}")));
        }
        Ok(reply)
    }
}

/// Sends one request on a new connection.
pub(super) fn ask_once(address: SocketAddr, patience: Duration, request: Value) -> Option<Value> {
    Caller::open(address, patience).ok()?.ask(request).ok()
}

/// Interprets the reply to `request`.
pub(super) fn understand(request: &Value, reply: &Value) -> Heard {
    let is_get = request["op"] == "get";
    let nonsense = || Heard::Nonsense(format!("{reply} in reply to {request}"));
    let number = |value: &Value| value.as_u64().and_then(|value| u32::try_from(value).ok());
    if reply["key"] != request["key"] && !reply["key"].is_null() {
        return nonsense();
    }
    if reply["status"] == "ok" {
        return match number(&reply["value"]) {
            Some(value) if is_get => Heard::Found(Some(value)),
            None if is_get => nonsense(),
            _ if reply["value"] != request["value"] => nonsense(),
            _ => Heard::Done,
        };
    }
    match (reply["error"].as_str(), reply["definite"].as_bool()) {
        (Some("not_found"), _) if is_get => Heard::Found(None),
        (Some("not_found"), _) if request["op"] == "delete" => Heard::NotFound,
        (Some("cas_mismatch"), _) if request["op"] == "cas" => Heard::Mismatch(number(&reply["actual"])),
        (Some("session_expired"), _) => Heard::Expired,
        (Some("no_leader" | "busy" | "shutting_down"), Some(true)) => Heard::Refused,
        (Some("timeout" | "storage"), Some(false)) => Heard::Unknown,
        _ => nonsense(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn replies_are_interpreted() {
        let put = json!({"op":"put","key":"k","value":3});
        let get = json!({"op":"get","key":"k"});
        let cas = json!({"op":"cas","key":"k","expect":1,"value":2});
        let ok = json!({"key":"k","value":3,"status":"ok"});
        let failed =
            |code: &str, definite: bool| json!({"key":"k","status":"error","error":code,"definite":definite});
        assert_eq!(understand(&put, &ok), Heard::Done);
        assert_eq!(understand(&get, &ok), Heard::Found(Some(3)));
        assert_eq!(understand(&get, &failed("not_found", true)), Heard::Found(None));
        assert_eq!(understand(&put, &failed("timeout", false)), Heard::Unknown);
        assert_eq!(understand(&put, &failed("no_leader", true)), Heard::Refused);
        let mismatch =
            json!({"key":"k","status":"error","error":"cas_mismatch","definite":true,"actual":null});
        assert_eq!(understand(&cas, &mismatch), Heard::Mismatch(None));
        for wrong in [
            json!({"key":"k","value":4,"status":"ok"}),
            failed("no_leader", false),
            failed("bad_request", true),
        ] {
            assert!(matches!(understand(&put, &wrong), Heard::Nonsense(_)), "{wrong}");
        }
    }
}
