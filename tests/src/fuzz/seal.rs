//! Valid checksums for arbitrary content, computed independently of the code under test.

/// The beginning of the last member of a line.
const TAIL: &[u8] = b",\"crc\":\"";

/// A frame with this content: its length, the checksum of its content, and that of both.
pub(crate) fn frame(content: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(content.len()).unwrap_or(u32::MAX).to_le_bytes().to_vec();
    frame.extend(crc32fast::hash(content).to_le_bytes());
    frame.extend(crc32fast::hash(&frame).to_le_bytes());
    frame.extend_from_slice(content);
    frame
}

/// The part of a line before its checksum.
fn body_of(line: &[u8]) -> Option<&[u8]> {
    let at = line.windows(TAIL.len()).rposition(|window| window == TAIL)?;
    Some(&line[..at])
}

/// A line with the checksum of its content, behind what `before` states.
fn sealed(line: &[u8], before: &[u8]) -> (Vec<u8>, [u8; 8]) {
    let Some(body) = body_of(line) else { return (line.to_vec(), *b"00000000") };
    let digits = format!("{:08x}", crc32fast::hash(&[before, body].concat()));
    let digits: [u8; 8] = digits.into_bytes().try_into().expect("eight digits");
    ([body, TAIL, digits.as_slice(), b"\"}"].concat(), digits)
}

fn split(text: &[u8]) -> Vec<&[u8]> {
    text.split(|byte| *byte == b'\n').collect()
}

fn joined(lines: &[Vec<u8>]) -> Vec<u8> {
    lines.join(&b'\n')
}

/// A file of one line with its checksum.
pub(super) fn line(text: &[u8]) -> Vec<u8> {
    let lines: Vec<_> = split(text).into_iter().map(|line| sealed(line, b"").0).collect();
    joined(&lines)
}

/// A log: each entry's checksum continues that of the line before.
pub(super) fn log(text: &[u8]) -> Vec<u8> {
    let lines = split(text);
    let Some((header, entries)) = lines.split_first() else { return Vec::new() };
    let mut sealed_lines = vec![sealed(header, b"").0];
    let after = body_of(header).and_then(|body| {
        let at = body.windows(TAIL.len()).rposition(|window| window == TAIL)? + TAIL.len();
        body.get(at..at + 8)?.try_into().ok()
    });
    let mut before: [u8; 8] = after.unwrap_or(*b"00000000");
    for entry in entries {
        let (line, digits) = sealed(entry, &before);
        sealed_lines.push(line);
        before = digits;
    }
    joined(&sealed_lines)
}

/// A snapshot: the last line states the length and the checksum of the lines in between.
pub(super) fn snapshot(text: &[u8]) -> Vec<u8> {
    let mut lines: Vec<_> = split(text).into_iter().map(<[u8]>::to_vec).collect();
    let Some(end) = lines.iter().rposition(|line| line.starts_with(b"{\"format\":")).filter(|end| *end > 0)
    else {
        return text.to_vec();
    };
    lines[0] = sealed(&lines[0], b"").0;
    let mut content = joined(&lines[1..end]);
    if end > 1 {
        content.push(b'\n');
    }
    let stated = format!(
        "{{\"format\":\"coracle-snapshot-end\",\"version\":1,\"bytes\":{},\"checksum\":\"{:08x}\",\"crc\":\"\"}}",
        content.len(),
        crc32fast::hash(&content)
    );
    lines[end] = sealed(stated.as_bytes(), b"").0;
    joined(&lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::Target;

    #[test]
    fn files_with_valid_checksums_stay_as_they_are() {
        let target = Target::from_name("files").unwrap();
        for input in target.corpus() {
            let parts: Vec<_> = input.split(|byte| *byte == b'%').collect();
            let (log_part, meta, snapshot_part) = (parts[0], &parts[1][1..], &parts[2][1..]);
            assert!(log(log_part) == log_part && line(meta) == meta);
            assert!(snapshot(snapshot_part) == snapshot_part);
        }
    }
}
