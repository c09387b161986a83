//! Searches what follows a bad line for a line that is valid by itself: the evidence that the bad
//! line was not the last one written.
//!
//! A valid line may start anywhere after the bad one starts, also within it: when the byte that
//! changed was a line break, two lines have become one. So a start is tried wherever the head of an
//! entry stands, `{"index":`, and it is valid when its checksum fits one of three predecessors:
//!
//! 1. the last good line: the bad one was put in between;
//! 2. the checksum that stands right before it, in the last digits of the line before, whatever
//!    else of that line has changed;
//! 3. the checksum that the bytes between the last good line and the start give: these digits
//!    themselves, or the marks around them, have changed.
//!
//! A torn write never leaves such a line behind, whatever a client put into its values: a start
//! within a line counts only when that line ends in a line break, and what is left of a single line
//! has none; at the start of a line, where text of a client never stands, the line break may be
//! missing.
//!
//! Deliberately linear: a client's value may hold thousands of heads in one line, and the checksum
//! of each tail is not computed anew but taken from the checksums of two prefixes, since CRC-32 is
//! linear.

use coracle_core::raft::{Checksum, Line};
use crc32fast::Hasher;

const HEAD: &[u8] = b"{\"index\":";
const TAIL_START: &[u8] = b",\"crc\":\"";
const TAIL_END: &[u8] = b"\"}";
const TAIL_LEN: usize = TAIL_START.len() + Checksum::TEXT_LEN + TAIL_END.len();

/// Where in `region` a valid line starts, other than at its first byte. `region` reaches from the
/// bad line to the end of the file, `before` is the checksum of the last good line.
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
    /// Covers the text of `before` and then `region[..covered]`.
    prefix: Hasher,
    covered: usize,
}

impl<'a> Search<'a> {
    fn new(region: &'a [u8], before: Checksum) -> Self {
        let mut prefix = Hasher::new();
        prefix.update(&before.to_text());
        Self { region, before, prefix, covered: 0 }
    }

    /// Looks at `region[start..end]`, a line without its line break.
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

    /// Moves the prefix on to `to`; gives its checksum when that covers anything of the region.
    fn advance(&mut self, to: usize) -> Option<Checksum> {
        self.prefix.update(&self.region[self.covered..to]);
        self.covered = to;
        (to > 0).then(|| Checksum(self.prefix.clone().finalize()))
    }

    /// The checksum of the prefix if it went on to `to`.
    fn checksum_to(&self, to: usize) -> u32 {
        let mut hasher = self.prefix.clone();
        hasher.update(&self.region[self.covered..to]);
        hasher.finalize()
    }

    /// The digits where the line that ends right before `head` has its checksum.
    fn checksum_found_before(&self, head: usize) -> Option<Checksum> {
        let digits_end = head.checked_sub(TAIL_END.len() + 1)?;
        let digits_start = digits_end.checked_sub(Checksum::TEXT_LEN)?;
        Checksum::from_text(&self.region[digits_start..digits_end])
    }
}

/// Where the part of `line` ends that its checksum covers, and the checksum that it states.
fn stated_checksum(line: &[u8]) -> Option<(usize, Checksum)> {
    let body_end = line.len().checked_sub(TAIL_LEN)?;
    let digits = line[body_end..].strip_prefix(TAIL_START)?.strip_suffix(TAIL_END)?;
    Some((body_end, Checksum::from_text(digits)?))
}

/// Where in `bytes` the head of an entry stands.
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

/// The CRC-32 that `checksum` becomes when that many zero bytes follow, without the part that the
/// zeros themselves add: the linear half of appending.
fn shifted(checksum: u32, zeros: usize) -> u32 {
    let mut hasher = Hasher::new_with_initial(checksum);
    hasher.combine(&Hasher::new_with_initial_len(0, zeros as u64));
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_core::raft::{BatchBuilder, LogPoint, Term};

    /// Lines with their line breaks, and the checksum of the line before them.
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
    fn without_its_line_break_only_a_line_of_its_own_counts() {
        let (lines, before) = lines(&[PUT, PUT]);
        let mut bytes = lines.concat();
        bytes[12] ^= 1;
        bytes.pop();
        assert_eq!(later_valid_line(&bytes, before), Some(lines[0].len()));
        bytes[lines[0].len() - 1] = b' ';
        assert_eq!(later_valid_line(&bytes, before), None);
    }

    /// A value may hold what looks like a line of a log, with a checksum that is right for what
    /// stands before it. No torn write of that entry may be taken for damage.
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

    /// Megabytes of heads in one line, each a start to try: quadratic work would take minutes.
    #[test]
    fn the_search_is_linear() {
        let many = "{\"index\":1,\"crc\":\"00000000\"},".repeat(70_000);
        let payload = format!("\"op\":\"PUT\",\"key\":\"a\",\"value\":[{many}0]");
        let (mut lines, before) = lines(&[&payload]);
        lines[0][12] ^= 1;
        assert_eq!(later_valid_line(&lines[0], before), None);
    }
}
