//! Independent verification of a node's log file, by the documented format and without the
//! program's code.

use std::path::Path;

use serde_json::Value;

/// A log with verified lines.
#[derive(Debug)]
pub struct LogFile {
    /// The index after which the log starts: 0, or the last one that a snapshot covers.
    pub after: u64,
    /// The lines of the entries, without line breaks; the entry of index `i` is at `i - after - 1`.
    pub lines: Vec<String>,
    /// The same lines, parsed as JSON.
    pub entries: Vec<Value>,
}

impl LogFile {
    /// Reads the log of `node` in `folder` and verifies it: every line is UTF-8 JSON and ends in a
    /// line break, the indexes are consecutive from the log's start, the terms never decrease, and
    /// `crc` comes last and continues the chain.
    ///
    /// # Panics
    ///
    /// When one of these does not hold.
    #[must_use]
    pub fn read(folder: &Path, node: usize) -> Self {
        let path = folder.join(format!("log{node:02}.txt"));
        let text =
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(text.ends_with('\n'), "{} ends within a line", path.display());
        let mut lines = text.lines();
        let header: Value = parse(lines.next().expect("a log has a header"));
        assert_eq!(header["node"], node, "{header}");
        assert!(header["format"].is_string() && header["version"].is_u64(), "{header}");
        let mut crc = header["after"]["crc"].as_str().expect("a header has a checksum").to_owned();
        let number = |name: &str| header["after"][name].as_u64().expect("a header says where the log starts");
        let (after, mut term) = (number("index"), number("term"));
        let mut log = Self { after, lines: Vec::new(), entries: Vec::new() };
        for (index, line) in (after + 1..).zip(lines) {
            let entry = parse(line);
            let (covered, rest) = line.rsplit_once(",\"crc\":\"").expect("an entry has a checksum");
            assert_eq!(rest.len(), 10, "crc comes last: {line}");
            assert_eq!(rest[8..], *"\"}", "crc comes last: {line}");
            assert_eq!(rest[..8], format!("{:08x}", crc32(&[crc.as_bytes(), covered.as_bytes()])), "{line}");
            assert_eq!(entry["index"], index, "{line}");
            let next_term = entry["term"].as_u64().expect("a term is a number");
            assert!(next_term >= term, "the term falls: {line}");
            term = next_term;
            crc = rest[..8].to_owned();
            log.lines.push(line.to_owned());
            log.entries.push(entry);
        }
        log
    }

    /// The index of the last entry, or the one after which the log starts.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.after + self.lines.len() as u64
    }

    /// The line of the entry with this index, if the log contains it.
    #[must_use]
    pub fn line(&self, index: u64) -> Option<&str> {
        let at = usize::try_from(index.checked_sub(self.after + 1)?).ok()?;
        self.lines.get(at).map(String::as_str)
    }

    /// Reads and verifies the logs of all nodes.
    #[must_use]
    pub fn read_all(folder: &Path, nodes: usize) -> Vec<Self> {
        (0..nodes).map(|node| Self::read(folder, node)).collect()
    }
}

fn parse(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

/// CRC-32 of IEEE 802.3 (as in zip and PNG) over the parts, one after another.
#[must_use]
pub fn crc32(parts: &[&[u8]]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    };
    !parts.iter().copied().flatten().fold(!0, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_crc_32() {
        assert_eq!(crc32(&[b"123456789"]), 0xcbf4_3926);
        assert_eq!(crc32(&[b"1234", b"56789"]), 0xcbf4_3926);
    }
}
