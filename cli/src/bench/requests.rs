//! The request lines of a load, encoded before it starts.
//!
//! All keys have the same length, so a request is a template in which only the digits of the key
//! change. The keys have a random prefix, so a user's keys on the server are not touched.

use std::ops::Range;

/// The number of keys, unless their values would take too many bytes. Arbitrary: enough that
/// concurrent clients seldom use the same key.
const KEYS_MAX: usize = 10_000;

/// The limit for the bytes of all values together; a single value may exceed it. Arbitrary.
const VALUES_BYTES_MAX: usize = 64 << 20;

/// The number of digits in a key's number.
const DIGITS: usize = 8;

/// The kinds of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Put,
    Get,
    Delete,
}

/// The requests of one benchmark.
#[derive(Debug)]
pub(super) struct Requests {
    prefix: String,
    keys: usize,
    put: Template,
    get: Template,
    delete: Template,
}

/// A request line, including its line break, and the position of the key's number in it.
#[derive(Debug)]
struct Template {
    line: Vec<u8>,
    number: Range<usize>,
}

impl Template {
    fn new(before: &str, after: &str) -> Self {
        let number = before.len()..before.len() + DIGITS;
        let line = format!("{before}{}{after}\n", "0".repeat(DIGITS)).into_bytes();
        Self { line, number }
    }

    fn write(&self, key: usize, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.line);
        let mut rest = key;
        for digit in out[start..][self.number.clone()].iter_mut().rev() {
            *digit = b"0123456789"[rest % 10];
            rest /= 10;
        }
    }
}

impl Requests {
    /// Creates requests for keys that begin with `bench:`, `number` in hexadecimal, and a colon.
    pub(super) fn new(number: u32, value_bytes: usize, linearizable: bool) -> Self {
        let prefix = format!("bench:{number:08x}:");
        let value: String = ('a'..='z').cycle().take(value_bytes).collect();
        let get = if linearizable {
            let before = format!("{{\"op\":\"get\",\"consistency\":\"linearizable\",\"key\":\"{prefix}");
            Template::new(&before, "\"}")
        } else {
            Template::new(&format!("{{\"key\":\"{prefix}"), "\"}")
        };
        Self {
            keys: (VALUES_BYTES_MAX / value_bytes.max(1)).clamp(1, KEYS_MAX),
            put: Template::new(&format!("{{\"key\":\"{prefix}"), &format!("\",\"value\":\"{value}\"}}")),
            get,
            delete: Template::new(&format!("{{\"op\":\"delete\",\"key\":\"{prefix}"), "\"}"),
            prefix,
        }
    }

    /// Returns the prefix of all keys.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Returns the number of keys; they are numbered from 0.
    pub(super) fn keys(&self) -> usize {
        self.keys
    }

    /// Returns the length of the longest request, in bytes.
    pub(super) fn bytes_max(&self) -> usize {
        self.put.line.len().max(self.get.line.len())
    }

    /// Appends a request for the key with this number.
    pub(super) fn write(&self, kind: Kind, key: usize, out: &mut Vec<u8>) {
        match kind {
            Kind::Put => self.put.write(key, out),
            Kind::Get => self.get.write(key, out),
            Kind::Delete => self.delete.write(key, out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(requests: &Requests, kind: Kind, key: usize) -> String {
        let mut out = Vec::new();
        requests.write(kind, key, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn requests_are_lines_of_the_protocol() {
        let eventual = Requests::new(0x9f3a, 3, false);
        assert_eq!(eventual.prefix(), "bench:00009f3a:");
        let put = "{\"key\":\"bench:00009f3a:00000042\",\"value\":\"abc\"}\n";
        assert_eq!(line(&eventual, Kind::Put, 42), put);
        assert_eq!(line(&eventual, Kind::Get, 9_999), "{\"key\":\"bench:00009f3a:00009999\"}\n");
        let delete = "{\"op\":\"delete\",\"key\":\"bench:00009f3a:00000000\"}\n";
        assert_eq!(line(&eventual, Kind::Delete, 0), delete);
        let get = "{\"op\":\"get\",\"consistency\":\"linearizable\",\"key\":\"bench:00009f3a:00000001\"}\n";
        assert_eq!(line(&Requests::new(0x9f3a, 3, true), Kind::Get, 1), get);
    }

    #[test]
    fn large_values_have_fewer_keys() {
        assert_eq!(Requests::new(1, 0, false).keys(), KEYS_MAX);
        assert_eq!(Requests::new(1, 64, false).keys(), KEYS_MAX);
        assert_eq!(Requests::new(1, 512 << 10, false).keys(), 128);
    }
}
