//! `log show`: prints the header and every entry of a log, in columns or as the lines of the file.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use clap::Args;
use coracle_core::raft::{Entries, Entry};
use coracle_storage::LogHeader;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{LogError, ending, open, read, shown, snapshot};
use crate::input::Input;
use crate::output::{Format, escaped, one_line};

/// The widths of the columns with shortened cells. Arbitrary: a row is about 100 characters wide.
const KEY_WIDTH: usize = 24;
const VALUE_WIDTH: usize = 40;

/// Print a log's header and entries, or a snapshot's header and lines
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  coracle log show data/log00.txt
  coracle log show data/log00.txt -o json | jq 'select(.key == \"snack\")'
  coracle log show data/snap0.txt

Long keys and values are shortened, which `…` marks; -o json prints the lines of the file as they are. Entries \
after a damaged or torn line are not shown, and the exit code is 6. A damaged snapshot is not shown at all.")]
pub(super) struct Show {
    /// A node's log or snapshot, such as data/log00.txt or data/snap0.txt; `-` for stdin
    file: PathBuf,

    /// Columns, or the lines of the file
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    output: Format,
}

impl Show {
    pub(super) fn run(&self) -> Result<(), LogError> {
        let Input { name, bytes } = read(&self.file)?;
        if snapshot::is_snapshot(&bytes) {
            return snapshot::show(&name, &bytes, self.output);
        }
        let mut scan = open(&name, &bytes)?;
        let mut out = BufWriter::new(io::stdout().lock());
        match self.output {
            Format::Text => {
                write_header(&mut out, scan.header())?;
                scan.by_ref().try_for_each(|entries| write_rows(&mut out, &entries))?;
            }
            Format::Json | Format::Jsonl => {
                out.write_all(&bytes[..scan.header_len()])?;
                scan.by_ref().try_for_each(|entries| out.write_all(shown(entries.text()).as_bytes()))?;
            }
        }
        out.flush()?;
        ending(&name, &scan)
    }
}

fn write_header(out: &mut dyn Write, header: &LogHeader) -> io::Result<()> {
    let identity = &header.identity;
    let voters = identity.voters.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let after = header.after;
    writeln!(out, "node         {}", identity.node)?;
    writeln!(out, "cluster      {}", identity.cluster)?;
    writeln!(out, "incarnation  {}", identity.incarnation)?;
    writeln!(out, "voters       {voters}")?;
    writeln!(out, "after        index {}, term {}, crc {}", after.index, after.term, after.checksum)?;
    writeln!(out)?;
    write_row(out, ["INDEX", "TERM", "OP", "KEY", "VALUE", "CRC"])
}

fn write_rows(out: &mut dyn Write, entries: &Entries) -> io::Result<()> {
    entries.iter().try_for_each(|entry| {
        let Entry { point, payload, .. } = entry;
        let Shown { op, key, value } = Shown::of(payload);
        let (index, term) = (point.index.to_string(), point.term.to_string());
        write_row(out, [&index, &term, &op, &key, &value, &point.checksum.to_string()])
    })
}

/// The widths are fixed, because finding the widest cell would need a second pass over a long file.
fn write_row(out: &mut dyn Write, [index, term, op, key, value, crc]: [&str; 6]) -> io::Result<()> {
    writeln!(out, "{index:>8}  {term:>6}  {op:<13}  {key:<KEY_WIDTH$}  {value:<VALUE_WIDTH$}  {crc}")
}

/// The members of an entry's payload.
#[derive(Deserialize)]
struct Members {
    op: String,
    key: Option<String>,
    prefix: Option<String>,
    value: Option<Box<RawValue>>,
    rev: Option<u64>,
    by: Option<i64>,
    limit: Option<u64>,
    level: Option<u64>,
    ttl_ms: Option<u64>,
    expired: Option<Vec<String>>,
    #[serde(rename = "if")]
    conditions: Option<Box<RawValue>>,
    then: Option<Box<RawValue>>,
    #[serde(rename = "else")]
    otherwise: Option<Box<RawValue>>,
}

impl Members {
    fn key_cell(&self) -> Option<String> {
        let prefix = || self.prefix.as_ref().map(|prefix| format!("{}*", escaped(prefix)));
        self.key.as_deref().map(escaped).or_else(prefix)
    }

    /// The value, and whatever else the entry says of its effect.
    fn value_cell(&self) -> Option<String> {
        let part = |name: &str, json: &Option<Box<RawValue>>| {
            json.as_deref().filter(|json| json.get() != "[]").map(|json| format!("{name} {}", one_line(json)))
        };
        let parts = [
            self.value.as_deref().map(one_line),
            self.by.map(|by| format!("by {by}")),
            self.limit.map(|limit| format!("at most {limit}")),
            self.level.map(|level| level.to_string()),
            self.rev.map(|rev| format!("if rev {rev}")),
            self.ttl_ms.map(|ms| format!("for {ms} ms")),
            self.expired.as_ref().map(|keys| match keys.len() {
                0 => "nothing expires".to_owned(),
                1 => format!("expired {}", escaped(&keys[0])),
                more => format!("expired {more} keys from {}", escaped(&keys[0])),
            }),
            part("if", &self.conditions),
            part("then", &self.then),
            part("else", &self.otherwise),
        ];
        let parts: Vec<_> = parts.into_iter().flatten().collect();
        (!parts.is_empty()).then(|| parts.join(" "))
    }
}

/// The cells of a row that come from an entry's payload.
struct Shown {
    op: String,
    key: String,
    value: String,
}

impl Shown {
    fn of(payload: &str) -> Self {
        match serde_json::from_str::<Members>(&format!("{{{payload}}}")) {
            Ok(members) => Self {
                op: escaped(&members.op),
                key: shortened(&members.key_cell().unwrap_or_else(|| "-".to_owned()), KEY_WIDTH),
                value: shortened(&members.value_cell().unwrap_or_else(|| "-".to_owned()), VALUE_WIDTH),
            },
            // An entry of a newer version, valid as a line: its payload is shown as far as it fits.
            Err(_) => Self {
                op: "?".to_owned(),
                key: "?".to_owned(),
                value: shortened(&escaped(payload), VALUE_WIDTH),
            },
        }
    }
}

/// Shortens a text to at most `width` characters, the last of which is an ellipsis.
fn shortened(text: &str, width: usize) -> String {
    match text.char_indices().nth(width) {
        None => text.to_owned(),
        Some(_) => text.chars().take(width - 1).chain(['…']).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(payload: &str) -> (String, String, String) {
        let Shown { op, key, value } = Shown::of(payload);
        (op, key, value)
    }

    fn owned(op: &str, key: &str, value: &str) -> (String, String, String) {
        (op.to_owned(), key.to_owned(), value.to_owned())
    }

    #[test]
    fn every_kind_of_entry_has_its_cells() {
        assert_eq!(cells(r#""op":"PUT","key":"a","value":"x\ny""#), owned("PUT", "a", r"x\ny"));
        assert_eq!(cells(r#""op":"PUT","key":"a","value":1e400"#), owned("PUT", "a", "1e400"));
        assert_eq!(cells(r#""op":"DELETE","key":"a""#), owned("DELETE", "a", "-"));
        assert_eq!(cells(r#""op":"NOOP""#), owned("NOOP", "-", "-"));
        assert_eq!(cells(r#""op":"CAS","key":"a","rev":7,"value":1"#), owned("CAS", "a", "1 if rev 7"));
        assert_eq!(cells(r#""op":"DELETE","key":"a","rev":7"#), owned("DELETE", "a", "if rev 7"));
        assert_eq!(cells(r#""op":"INCR","key":"a","by":-5"#), owned("INCR", "a", "by -5"));
        let delete = r#""op":"DELETE_PREFIX","limit":9,"prefix":"a""#;
        assert_eq!(cells(delete), owned("DELETE_PREFIX", "a*", "at most 9"));
        assert_eq!(cells(r#""op":"LEVEL","level":1"#), owned("LEVEL", "-", "1"));
        let txn = r#""op":"TXN","if":[],"then":[{"op":"get","key":"a"}],"else":[]"#;
        assert_eq!(cells(txn), owned("TXN", "-", r#"then [{"op":"get","key":"a"}]"#));
        let put = r#""op":"PUT","key":"a","ttl_ms":250,"value":1"#;
        assert_eq!(cells(put), owned("PUT", "a", "1 for 250 ms"));
        assert_eq!(cells(r#""op":"TOUCH","key":"a","ttl_ms":250"#), owned("TOUCH", "a", "for 250 ms"));
        for (expired, cell) in
            [("[]", "nothing expires"), (r#"["a"]"#, "expired a"), (r#"["a","b"]"#, "expired 2 keys from a")]
        {
            let tick = format!(r#""op":"TICK","time_us":7,"applied":5,"expired":{expired}"#);
            assert_eq!(cells(&tick), owned("TICK", "-", cell));
        }
        assert_eq!(cells(r#""new":1"#), owned("?", "?", r#""new":1"#));
    }

    #[test]
    fn a_cell_that_does_not_fit_is_shortened_by_characters() {
        assert_eq!(shortened("äöü", 3), "äöü");
        assert_eq!(shortened("äöüß", 3), "äö…");
        assert_eq!(shortened("", 3), "");
    }
}
