//! Robust client for fault injection: counts acknowledged writes, and tolerates errors and closed
//! connections.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// The longest time for a reply: longer than the server's own request timeout.
const REPLY_TIMEOUT: Duration = Duration::from_secs(8);
/// The time in which the cluster has to answer after a start without faults.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(40);
const KEYS: usize = 4;

/// An error: neither a reply nor the end of the connection arrived in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Silence;

/// The client; see the module. It writes ever greater numbers to each key.
#[derive(Debug, Default)]
pub(super) struct Client {
    stream: Option<BufReader<TcpStream>>,
    acknowledged: [u64; KEYS],
    sent: [u64; KEYS],
}

enum Heard {
    Reply(Value),
    /// The connection has ended, or could not be opened.
    Nothing,
    Silence,
}

impl Client {
    /// The number of keys with an acknowledged number.
    pub(super) fn acknowledged(&self) -> usize {
        self.acknowledged.iter().filter(|number| **number > 0).count()
    }

    /// Writes this number, and sometimes reads.
    pub(super) fn work(&mut self, server: SocketAddr, number: u64) -> Result<Option<Silence>, String> {
        let key = usize::try_from(number).expect("it is small") % KEYS;
        self.sent[key] = number;
        match self.ask(server, &format!(r#"{{"key":"k{key}","value":{number}}}"#)) {
            Heard::Reply(reply) if reply["status"] == "ok" => self.acknowledged[key] = number,
            Heard::Reply(_) | Heard::Nothing => {}
            Heard::Silence => return Ok(Some(Silence)),
        }
        let read = match number % 10 {
            3 => format!(r#"{{"op":"get","key":"k{key}","consistency":"linearizable"}}"#),
            7 => r#"{"op":"scan","prefix":"k"}"#.to_owned(),
            9 => r#"{"op":"status"}"#.to_owned(),
            _ => return Ok(None),
        };
        match self.ask(server, &read) {
            Heard::Reply(reply) if number % 10 == 3 && reply["error"] != "bad_request" => {
                self.check(key, &reply)?;
            }
            Heard::Reply(reply) if reply["error"] == "bad_request" => return Err(reply.to_string()),
            Heard::Reply(_) | Heard::Nothing => {}
            Heard::Silence => return Ok(Some(Silence)),
        }
        if number.is_multiple_of(30) {
            // The next request opens another connection.
            self.stream = None;
        }
        Ok(None)
    }

    fn check(&self, key: usize, reply: &Value) -> Result<(), String> {
        let is_absent = reply["error"] == "not_found" || reply["value"].is_null() && reply["error"].is_null();
        let value = reply["value"].as_u64().or_else(|| is_absent.then_some(0));
        match value {
            Some(value) if value < self.acknowledged[key] || value > self.sent[key] => Err(format!(
                "k{key} is {reply}; acknowledged is {}, sent {}",
                self.acknowledged[key], self.sent[key]
            )),
            Some(_) | None => Ok(()),
        }
    }

    /// Reads and checks all keys through a server without faults.
    pub(super) fn look_for_losses(&mut self, server: SocketAddr) -> Result<(), String> {
        self.stream = None;
        for key in 0..KEYS {
            let read = format!(r#"{{"op":"get","key":"k{key}","consistency":"linearizable"}}"#);
            let give_up_at = Instant::now() + ANSWER_TIMEOUT;
            loop {
                let heard = self.ask(server, &read);
                if let Heard::Reply(reply) = &heard
                    && (reply["status"] == "ok" || reply["error"].is_null() || reply["error"] == "not_found")
                {
                    self.check(key, reply)?;
                    break;
                }
                if Instant::now() > give_up_at {
                    let last =
                        if let Heard::Reply(reply) = heard { reply.to_string() } else { String::new() };
                    return Err(format!("k{key} is not answered without faults, but {last}"));
                }
                thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }

    fn ask(&mut self, server: SocketAddr, line: &str) -> Heard {
        if self.stream.is_none() {
            let Ok(stream) = TcpStream::connect_timeout(&server, REPLY_TIMEOUT) else {
                thread::sleep(Duration::from_millis(20));
                return Heard::Nothing;
            };
            _ = stream.set_nodelay(true);
            _ = stream.set_read_timeout(Some(REPLY_TIMEOUT));
            self.stream = Some(BufReader::new(stream));
        }
        let Some(stream) = &mut self.stream else { return Heard::Nothing };
        let mut reply = String::new();
        let heard = match stream.get_mut().write_all(format!("{line}\n").as_bytes()) {
            Err(_) => Heard::Nothing,
            Ok(()) => match stream.read_line(&mut reply) {
                Ok(_) if reply.ends_with('\n') => {
                    serde_json::from_str(&reply).map_or(Heard::Nothing, Heard::Reply)
                }
                Ok(_) => Heard::Nothing,
                Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock) => Heard::Silence,
                Err(_) => Heard::Nothing,
            },
        };
        if !matches!(heard, Heard::Reply(_)) {
            self.stream = None;
        }
        heard
    }
}
