//! `scan`: lists keys and values in byte order of the keys, page by page.
//!
//! Each page is a separate request. A key that is written or deleted between two pages may be
//! missing or present: a scan is a listing, not a snapshot.

use std::io::{self, Write};

use clap::Args;
use serde_json::value::RawValue;

use super::{CommandError, Context, Execute};
use crate::numbers;
use crate::output::{Format, escaped, harmless, one_line, unmistakable_line};
use crate::reply::Item;
use crate::request::{Range, Request};
use crate::value::quoted;

/// The number of items per request. Chosen so that a page of keys and values of the maximum size,
/// about 250 MiB, stays below [`REPLY_BYTES_MAX`](crate::connection::REPLY_BYTES_MAX).
const PAGE_ITEMS: u64 = 500;

/// List keys and values in byte order of the keys
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  coracle scan                            everything
  coracle scan user: --limit 10
  coracle scan user: --after user:41      goes on where an earlier scan ended
  coracle scan --keys-only
  coracle scan user: --reverse --limit 10 the last ten
  coracle scan --after user:41 --end user:90
  coracle scan user: --count
  coracle scan -o json | jq -r '.items[] | select(.value > 9) | .key'
  coracle scan -o jsonl | jq -r 'select(.value > 9) | .key'

Every item is one line: key, tab, value. Keys and string values are escaped where they would break that: a tab \
is \\t, a line break \\n, a carriage return \\r, a backslash \\\\ and any other control character \\u00XX. \
Values other than strings are JSON. With -o json nothing is escaped or lost: one object in the shape of the \
protocol's reply, {\"items\":[{\"key\":...,\"value\":...},...],\"more\":BOOL,\"status\":\"ok\"}. With -o jsonl \
every item is a line, {\"key\":...,\"value\":...}.")]
pub(crate) struct Scan {
    /// Only keys that begin with this
    #[arg(default_value = "", hide_default_value = true, allow_negative_numbers = true)]
    prefix: String,

    /// Stop after this many items; without it, at the end
    #[arg(long, value_name = "N", value_parser = numbers::at_least_one)]
    limit: Option<u64>,

    /// Only keys after this one; with --reverse, before it
    #[arg(long, value_name = "KEY", allow_negative_numbers = true)]
    after: Option<String>,

    /// Only keys before this one
    #[arg(long, value_name = "KEY", allow_negative_numbers = true)]
    end: Option<String>,

    /// In descending order
    #[arg(long)]
    reverse: bool,

    /// The keys alone, one per line
    #[arg(long)]
    keys_only: bool,

    /// Print only the number of keys, whatever the limit
    #[arg(long, conflicts_with = "keys_only")]
    count: bool,
}

impl Execute for Scan {
    fn execute(&self, context: &mut Context<'_>) -> Result<(), CommandError> {
        let mut remaining = self.limit.unwrap_or(u64::MAX);
        let mut after = self.after.clone();
        let mut is_first = true;
        if self.count {
            let reply =
                context.ask(Request::Scan(Range { count: true, ..self.range(1, after.as_deref()) }))?;
            context.print_reply(&reply)?;
            let count = reply.count.ok_or(CommandError::ReplyIncomplete)?;
            if context.format.is_text() {
                writeln!(context.out, "{count}")?;
            }
            return Ok(());
        }
        loop {
            let limit = remaining.min(PAGE_ITEMS);
            let reply = context.ask(Request::Scan(self.range(limit, after.as_deref())))?;
            let items = reply.items.ok_or(CommandError::ReplyIncomplete)?;
            remaining = remaining.saturating_sub(items.len() as u64);
            let is_last = !reply.more || remaining == 0;
            if items.is_empty() && !is_last {
                // The next page is requested after the last key, and there is none.
                return Err(CommandError::ReplyIncomplete);
            }
            match context.format {
                Format::Text => write_lines(context.out, &items, context.is_terminal)?,
                Format::Json => {
                    let end = is_last.then_some(reply.more);
                    write_json(context.out, &items, is_first, end, context.is_terminal)?;
                }
                Format::Jsonl => items
                    .iter()
                    .try_for_each(|item| writeln!(context.out, "{}", object(item, context.is_terminal)))?,
            }
            if is_last {
                return Ok(());
            }
            // Flushed so that the reader of a pipe sees each page as soon as it arrives.
            context.out.flush()?;
            after = items.into_iter().next_back().map(|item| item.key);
            is_first = false;
        }
    }
}

impl Scan {
    fn range<'a>(&'a self, limit: u64, after: Option<&'a str>) -> Range<'a> {
        let Self { prefix, end, reverse, keys_only, .. } = self;
        let (end, reverse, keys_only) = (end.as_deref(), *reverse, *keys_only);
        Range { prefix, limit, after, end, reverse, keys_only, count: false }
    }
}

fn write_lines(out: &mut dyn Write, items: &[Item], is_terminal: bool) -> io::Result<()> {
    let line = if is_terminal { unmistakable_line } else { one_line };
    items.iter().try_for_each(|item| match &item.value {
        Some(value) => writeln!(out, "{}\t{}", escaped(&item.key), line(value)),
        None => writeln!(out, "{}", escaped(&item.key)),
    })
}

/// Formats one item as a JSON object; for a terminal without control characters.
fn object(item: &Item, is_terminal: bool) -> String {
    let key = quoted(&item.key);
    let Some(value) = item.value.as_deref().map(RawValue::get) else { return format!("{{\"key\":{key}}}") };
    let value = if is_terminal { harmless(value) } else { value.into() };
    format!("{{\"key\":{key},\"value\":{value}}}")
}

/// Writes one page's part of the reply that a single request without a limit would have received.
/// `end` is the value of `more` on the last page, `None` on earlier pages.
fn write_json(
    out: &mut dyn Write,
    items: &[Item],
    is_first: bool,
    end: Option<bool>,
    is_terminal: bool,
) -> io::Result<()> {
    let mut separator = if is_first { "{\"items\":[" } else { "," };
    for item in items {
        write!(out, "{separator}{}", object(item, is_terminal))?;
        separator = ",";
    }
    if items.is_empty() && is_first {
        out.write_all(separator.as_bytes())?;
    }
    match end {
        Some(more) => writeln!(out, "],\"more\":{more},\"status\":\"ok\"}}"),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(key: &str, value: &str) -> Item {
        Item { key: key.to_owned(), value: RawValue::from_string(value.to_owned()).ok() }
    }

    fn json(pages: &[&[Item]], more: bool) -> String {
        let mut out = Vec::new();
        for (position, page) in pages.iter().enumerate() {
            let end = (position + 1 == pages.len()).then_some(more);
            write_json(&mut out, page, position == 0, end, false).unwrap();
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_has_one_tab_and_one_end() {
        let mut out = Vec::new();
        write_lines(&mut out, &[item("a\tb", "\"x\\ny\\\\\""), item("n", "1e400")], false).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "a\\tb\tx\\ny\\\\\nn\t1e400\n");
    }

    #[test]
    fn an_item_alone_is_an_object() {
        assert_eq!(object(&item("a\"\n", "1e400"), false), r#"{"key":"a\"\n","value":1e400}"#);
        let key = Item { key: "a".to_owned(), value: None };
        assert_eq!(object(&key, false), r#"{"key":"a"}"#);
        let mut out = Vec::new();
        write_lines(&mut out, &[key], false).unwrap();
        assert_eq!(out, b"a\n");
        assert_eq!(object(&item("a", "\"\u{9b}\""), true), r#"{"key":"a","value":"\u009b"}"#);
        assert_eq!(object(&item("a", "\"\u{9b}\""), false), "{\"key\":\"a\",\"value\":\"\u{9b}\"}");
    }

    #[test]
    fn pages_join_to_one_reply() {
        let (one, two, three) = (item("a", "1"), item("b", "1e400"), item("c\"", "{}"));
        assert_eq!(json(&[&[]], false), "{\"items\":[],\"more\":false,\"status\":\"ok\"}\n");
        assert_eq!(
            json(&[&[one, two], &[three], &[]], true),
            "{\"items\":[{\"key\":\"a\",\"value\":1},{\"key\":\"b\",\"value\":1e400},\
             {\"key\":\"c\\\"\",\"value\":{}}],\"more\":true,\"status\":\"ok\"}\n"
        );
    }
}
