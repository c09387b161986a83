//! Evidence of damage: searches behind a bad log line for a line that is valid by itself, which
//! shows that the bad line was not the last one written.
//!
//! A valid line may start anywhere after the start of the bad one, even inside it: if the byte that
//! changed was a line break, two lines have become one. So the search tries every place where the
//! head of an entry stands, `{"index":`. A line there is valid when its checksum continues from one
//! of three predecessors:
//!
//! 1. The last good line: the bad line was inserted.
//! 2. The checksum digits right before it, at the end of the preceding line: any other part of that
//!    line has changed.
//! 3. The checksum computed from the bytes between the last good line and this one: the digits
//!    themselves, or the characters around them, have changed.
//!
//! A torn write never leaves such a line, whatever values clients have written. A candidate inside
//! a line counts only if that line ends in a line break, which the remainder of a single torn line
//! does not. At the start of a line, where a client's text never stands, the line break may be
//! missing.
//!
//! The search is linear in time: a client's value may hold thousands of heads in one line. So the
//! checksum of each tail is not computed from scratch but derived from the checksums of two
//! prefixes, which works because CRC-32 is linear.

use coracle_core::raft::{Checksum, Line};
use crc32fast::Hasher;

const HEAD: &[u8] = b"{\"index\":";
const TAIL_START: &[u8] = b",\"crc\":\"";
const TAIL_END: &[u8] = b"\"}";
const TAIL_LEN: usize = TAIL_START.len() + Checksum::TEXT_LEN + TAIL_END.len();

/// Returns the offset in `region` at which a valid line starts, other than its first byte. `region`
/// reaches from the bad line to the end of the file, and `before` is the checksum of the last good
/// line.
pub(crate) fn later_valid_line(region: &[u8], before: Checksum) -> Option<usize> {
    let mut search = Search::new(region, before);
    let mut start = 0;
    for line in region.split_inclusive(|byte| *byte == b'\n') {
        let end = start + line.strip_suffix(b"\n").unwrap_or(line).len();
        let found = search.in_line(start, end);
        if found.is_some() {
            return found;
        }
        start += line.len();
    }
    None
}

struct Search<'a> {
    region: &'a [u8],
    before: Checksum,
    /// The checksum of the text of `before`, followed by `region[..covered]`.
    prefix: Hasher,
    covered: usize,
}

impl<'a> Search<'a> {
    fn new(region: &'a [u8], before: Checksum) -> Self {
        let mut prefix = Hasher::new();
        prefix.update(&before.to_text());
        Self { region, before, prefix, covered: 0 }
    }

    /// Searches `region[start..end]`, a line without its line break.
    fn in_line(&mut self, start: usize, end: usize) -> Option<usize> {
        let region = self.region;
        let (body_end, stated) = stated_checksum(&region[start..end])?;
        let body_end = start + body_end;
        let is_complete = end < region.len();
        let mut up_to_body_end = None;
        for head in heads(&region[start..body_end]).map(|at| start + at) {
            if head == 0 || (head != start && !is_complete) {
                continue;
            }
            let computed = self.advance(head.saturating_sub(TAIL_LEN + 1));
            let whole = *up_to_body_end.get_or_insert_with(|| self.checksum_to(body_end));
            let without = self.checksum_to(head);
            let follows = |predecessor: Checksum| {
                let difference = crc32fast::hash(&predecessor.to_text()) ^ without;
                shifted(difference, body_end - head) == stated.0 ^ whole
                    && Line::read(&region[head..end]).is_some_and(|line| line.follows(predecessor))
            };
            if [Some(self.before), self.checksum_found_before(head), computed]
                .into_iter()
                .flatten()
                .any(follows)
            {
                return Some(head);
            }
        }
        None
    }

    /// Extends the prefix to `to`, and returns its checksum if it covers any byte of the region.
    fn advance(&mut self, to: usize) -> Option<Checksum> {
        self.prefix.update(&self.region[self.covered..to]);
        self.covered = to;
        (to > 0).then(|| Checksum(self.prefix.clone().finalize()))
    }

    /// Returns the checksum of the prefix if it were extended to `to`.
    fn checksum_to(&self, to: usize) -> u32 {
        let mut hasher = self.prefix.clone();
        hasher.update(&self.region[self.covered..to]);
        hasher.finalize()
    }

    /// Returns the checksum whose digits stand right before `head`, at the end of the preceding
    /// line.
    fn checksum_found_before(&self, head: usize) -> Option<Checksum> {
        let digits_end = head.checked_sub(TAIL_END.len() + 1)?;
        let digits_start = digits_end.checked_sub(Checksum::TEXT_LEN)?;
        Checksum::from_text(&self.region[digits_start..digits_end])
    }
}

/// Returns where the part of `line` ends that its checksum covers, and the checksum that it states.
fn stated_checksum(line: &[u8]) -> Option<(usize, Checksum)> {
    let body_end = line.len().checked_sub(TAIL_LEN)?;
    let digits = line[body_end..].strip_prefix(TAIL_START)?.strip_suffix(TAIL_END)?;
    Some((body_end, Checksum::from_text(digits)?))
}

/// Returns the offsets in `bytes` at which the head of an entry stands.
fn heads(bytes: &[u8]) -> impl Iterator<Item = usize> {
    let mut from = 0;
    std::iter::from_fn(move || {
        loop {
            let at = from + bytes[from..].iter().position(|byte| *byte == HEAD[0])?;
            from = at + 1;
            if bytes[at..].starts_with(HEAD) {
                return Some(at);
            }
        }
    })
}

/// Returns the CRC-32 that `checksum` becomes when `zeros` zero bytes follow, without the constant
/// that the zeros themselves add: the linear part of appending.
fn shifted(checksum: u32, zeros: usize) -> u32 {
    let mut hasher = Hasher::new_with_initial(checksum);
    hasher.combine(&Hasher::new_with_initial_len(0, zeros as u64));
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_core::raft::{BatchBuilder, LogPoint, Term};

    /// Returns lines with their line breaks, and the checksum of the line before them.
    fn lines(payloads: &[&str]) -> (Vec<Vec<u8>>, Checksum) {
        let mut builder = BatchBuilder::new(LogPoint::ORIGIN);
        let before = builder.seal(Term(1), |text| text.push_str("\"op\":\"NOOP\"")).checksum;
        for payload in payloads {
            builder.seal(Term(1), |text| text.push_str(payload));
        }
        let entries = builder.finish().unwrap();
        let lines = entries.text().split_inclusive('\n').skip(1);
        (lines.map(|line| line.as_bytes().to_vec()).collect(), before)
    }

    const PUT: &str = "\"op\":\"PUT\",\"key\":\"a\",\"value\":\"b\"";

    #[test]
    fn checksums_are_linear() {
        let (head, tail) = (b"what comes before".as_slice(), b"what comes after it".as_slice());
        let whole = crc32fast::hash(&[head, tail].concat());
        assert_eq!(shifted(crc32fast::hash(head), tail.len()) ^ crc32fast::hash(tail), whole);
        assert_eq!(shifted(0xdead_beef, 0), 0xdead_beef);
    }

    #[test]
    fn the_three_predecessors() {
        let (lines, before) = lines(&[PUT, PUT, PUT]);
        let in_between = [b"garbage\n".as_slice(), &lines[0]].concat();
        assert_eq!(later_valid_line(&in_between, before), Some(8));

        let mut body = lines[..2].concat();
        body[12] ^= 1;
        assert_eq!(later_valid_line(&body, before), Some(lines[0].len()));

        let mut digits = lines[..2].concat();
        digits[lines[0].len() - 5] = b'!';
        assert_eq!(later_valid_line(&digits, before), Some(lines[0].len()));
    }

    #[test]
    fn a_line_after_a_lost_line_break_is_found_within_the_line() {
        let (lines, before) = lines(&[PUT, PUT]);
        for replacement in [0, b' ', b',', b'}', b'\r', 0xff] {
            let mut merged = lines.concat();
            merged[lines[0].len() - 1] = replacement;
            assert_eq!(later_valid_line(&merged, before), Some(lines[0].len()), "{replacement}");
        }
    }

    #[test]
    fn an_incomplete_line_counts_only_at_the_start_of_a_line() {
        let (lines, before) = lines(&[PUT, PUT]);
        let mut bytes = lines.concat();
        bytes[12] ^= 1;
        bytes.pop();
        assert_eq!(later_valid_line(&bytes, before), Some(lines[0].len()));
        bytes[lines[0].len() - 1] = b' ';
        assert_eq!(later_valid_line(&bytes, before), None);
    }

    /// A value may hold text that looks like a line of a log, with a checksum that is valid for the
    /// text before it. A torn write of that entry must not be reported as damage.
    #[test]
    fn lines_within_a_value_are_no_evidence_in_a_torn_line() {
        let (inner, _) = lines(&[PUT, PUT]);
        let inner: Vec<_> = inner.iter().map(|line| std::str::from_utf8(line).unwrap().trim_end()).collect();
        let payload = format!("\"op\":\"PUT\",\"key\":\"a\",\"value\":[{},{}]", inner[0], inner[1]);
        let (outer, before) = lines(&[&payload]);
        let whole_of_inner = outer[0].windows(2).rposition(|pair| pair == b"}]").unwrap() + 1;
        for len in [whole_of_inner, outer[0].len() - 1] {
            assert_eq!(later_valid_line(&outer[0][..len], before), None);
        }
        for len in 0..outer[0].len() {
            assert_eq!(later_valid_line(&outer[0][..len], before), None, "{len} bytes");
        }
    }

    /// Megabytes of heads in one line, each of them a candidate: quadratic work would take minutes.
    #[test]
    fn the_search_is_linear() {
        let many = "{\"index\":1,\"crc\":\"00000000\"},".repeat(70_000);
        let payload = format!("\"op\":\"PUT\",\"key\":\"a\",\"value\":[{many}0]");
        let (mut lines, before) = lines(&[&payload]);
        lines[0][12] ^= 1;
        assert_eq!(later_valid_line(&lines[0], before), None);
    }
}
