use coracle_core::raft::{BatchBuilder, LogPoint, Term};

use super::*;
use crate::testing::identities;

/// Returns a log of entries with these payloads, the offset of each of its lines, and its length.
fn log_of(payloads: &[&str]) -> (Vec<u8>, Vec<usize>) {
    let header = LogHeader { identity: identities(3).remove(0), after: LogPoint::ORIGIN };
    let mut bytes = header.encode();
    let mut builder = BatchBuilder::new(LogPoint::ORIGIN);
    for payload in payloads {
        builder.seal(Term(1), |text| text.push_str(payload));
    }
    if let Some(entries) = builder.finish() {
        bytes.extend_from_slice(entries.text().as_bytes());
    }
    let mut starts = vec![0];
    starts.extend(bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1));
    (bytes, starts)
}

fn verdict_of(bytes: &[u8]) -> (Vec<Entries>, Verdict) {
    let mut scan = LogScan::new(bytes).unwrap();
    assert_eq!(scan.verdict(), None);
    let runs = scan.by_ref().collect();
    (runs, scan.verdict().unwrap())
}

/// Payloads that contain what looks like further lines.
fn hard_payloads() -> Vec<String> {
    let (inner, starts) = log_of(&["\"op\":\"NOOP\"", "\"op\":\"NOOP\""]);
    let inner_line = |number: usize| {
        std::str::from_utf8(&inner[starts[number]..starts[number + 1] - 1]).unwrap().to_owned()
    };
    vec![
        "\"op\":\"NOOP\"".to_owned(),
        format!("\"op\":\"PUT\",\"key\":\"a\",\"value\":[{},{}]", inner_line(1), inner_line(2)),
        "\"op\":\"PUT\",\"key\":\"größe\",\"value\":{\"crc\":\"00000000\"}".to_owned(),
        "\"op\":\"PUT\",\"key\":\"\\n\",\"value\":\"{\\\"index\\\":\"".to_owned(),
        "\"op\":\"DELETE\",\"key\":\"a\"".to_owned(),
    ]
}

#[test]
fn a_whole_log_is_read_to_its_end() {
    let payloads = hard_payloads();
    let payloads: Vec<_> = payloads.iter().map(String::as_str).collect();
    let (bytes, starts) = log_of(&payloads);
    let scan = LogScan::new(&bytes).unwrap();
    assert_eq!((scan.header().identity.clone(), scan.header_len()), (identities(3).remove(0), starts[1]));
    let (runs, verdict) = verdict_of(&bytes);
    assert_eq!(verdict, Verdict::Clean);
    assert_eq!(runs.len(), 1);
    assert_eq!(runs[0].text().as_bytes(), &bytes[starts[1]..]);
    let read: Vec<_> = runs[0].iter().map(|entry| entry.payload).collect();
    assert_eq!(read, payloads);
}

#[test]
fn a_log_without_entries_is_clean() {
    let (runs, verdict) = verdict_of(&log_of(&[]).0);
    assert_eq!((runs, verdict), (Vec::new(), Verdict::Clean));
}

#[test]
fn a_log_cut_anywhere_is_torn_at_the_last_line() {
    let payloads = hard_payloads();
    let payloads: Vec<_> = payloads.iter().map(String::as_str).collect();
    let (bytes, starts) = log_of(&payloads);
    for len in starts[1]..=bytes.len() {
        let whole_lines = starts.iter().filter(|start| **start <= len).count() - 1;
        let start = starts[whole_lines];
        let (runs, verdict) = verdict_of(&bytes[..len]);
        assert_eq!(runs.iter().map(Entries::len).sum::<usize>(), whole_lines - 1);
        let torn =
            TornTail { line: whole_lines as u64 + 1, offset: start as u64, bytes: (len - start) as u64 };
        let expected = if len == start { Verdict::Clean } else { Verdict::TornTail(torn) };
        assert_eq!(verdict, expected, "cut at {len}");
    }
    for len in 0..starts[1] {
        assert!(LogScan::new(&bytes[..len]).is_err());
    }
}

/// Changes every bit of every byte, and sets bytes that have a meaning in a log.
#[test]
fn a_changed_byte_is_damage_in_every_line_but_the_last() {
    let payloads = hard_payloads();
    for count in 1..=payloads.len() {
        let payloads: Vec<_> = payloads[payloads.len() - count..].iter().map(String::as_str).collect();
        let (bytes, starts) = log_of(&payloads);
        let last_start = starts[count];
        for at in 0..bytes.len() {
            let flips = (0..8).map(|bit| bytes[at] ^ (1 << bit));
            let others = *b"\n\0 ,}\"{0a";
            for byte in flips.chain(others).filter(|byte| *byte != bytes[at]) {
                let mut changed = bytes.clone();
                changed[at] = byte;
                let whole = format!("byte {at} of {count} entries became {byte}");
                let line = starts.iter().filter(|start| **start <= at).count();
                let Ok(mut scan) = LogScan::new(&changed) else {
                    assert_eq!(line, 1, "{whole}");
                    continue;
                };
                assert_ne!(line, 1, "{whole}");
                let read: String = scan.by_ref().map(|run| run.text().to_owned()).collect();
                assert_eq!(read.as_bytes(), &bytes[starts[1]..starts[line - 1]], "{whole}");
                match scan.verdict() {
                    Some(Verdict::Damaged(damage)) => {
                        assert_eq!(damage.line, line as u64, "{whole}");
                        assert_eq!(damage.offset, starts[line - 1] as u64, "{whole}");
                        assert!(at < last_start, "{whole}: nothing valid can follow the last line");
                    }
                    Some(Verdict::TornTail(_)) => assert!(at >= last_start, "{whole}"),
                    other => panic!("{whole}: {other:?}"),
                }
            }
        }
    }
}

#[test]
fn zeros_at_the_end_are_torn() {
    let (bytes, starts) = log_of(&["\"op\":\"NOOP\"", "\"op\":\"NOOP\""]);
    for len in starts[1]..=bytes.len() {
        for zeros in [1, 17, 512, 4096] {
            let mut filled = bytes[..len].to_vec();
            filled.resize(len + zeros, 0);
            let (runs, verdict) = verdict_of(&filled);
            assert!(matches!(verdict, Verdict::TornTail(_)), "{len} bytes and {zeros} zeros: {verdict:?}");
            let whole_lines = starts.iter().filter(|start| **start <= len).count() - 2;
            assert_eq!(runs.iter().map(Entries::len).sum::<usize>(), whole_lines);
        }
    }
}

#[test]
fn a_hole_of_zeros_before_a_whole_line_is_damage() {
    let (mut bytes, starts) = log_of(&["\"op\":\"NOOP\"", "\"op\":\"NOOP\"", "\"op\":\"NOOP\""]);
    bytes[starts[2]..starts[3] - 12].fill(0);
    let (_, verdict) = verdict_of(&bytes);
    assert!(matches!(verdict, Verdict::Damaged(Damage { line: 3, later_line: Some(4), .. })));
}

#[test]
fn a_removed_line_and_a_repeated_line_are_damage() {
    let noop = "\"op\":\"NOOP\"";
    let (bytes, starts) = log_of(&[noop, noop, noop, noop]);
    let removed = [&bytes[..starts[2]], &bytes[starts[3]..]].concat();
    let (_, verdict) = verdict_of(&removed);
    assert!(matches!(verdict, Verdict::Damaged(Damage { line: 3, later_line: Some(4), .. })), "{verdict:?}");
    let repeated = [&bytes[..starts[3]], &bytes[starts[2]..]].concat();
    let (_, verdict) = verdict_of(&repeated);
    assert!(matches!(verdict, Verdict::Damaged(Damage { line: 4, later_line: Some(5), .. })), "{verdict:?}");
}

/// Lines with valid checksums in the wrong place.
#[test]
fn a_gap_with_right_checksums_is_damage_and_not_torn() {
    let (mut bytes, _) = log_of(&["\"op\":\"NOOP\""]);
    let (runs, _) = verdict_of(&bytes);
    let last = runs[0].last();
    let later = LogPoint { index: last.index.next(), ..last };
    let older = LogPoint { term: Term::INITIAL, ..last };
    for (before, term) in [(later, 1), (older, 0)] {
        let mut builder = BatchBuilder::new(before);
        builder.seal(Term(term), |text| text.push_str("\"op\":\"NOOP\""));
        let entries = builder.finish().unwrap();
        let len = bytes.len();
        bytes.extend_from_slice(entries.text().as_bytes());
        let (_, verdict) = verdict_of(&bytes);
        assert!(matches!(verdict, Verdict::Damaged(Damage { line: 3, later_line: None, .. })), "{verdict:?}");
        bytes.truncate(len);
    }
}

#[test]
fn damage_says_where_and_why() {
    let (mut bytes, starts) = log_of(&["\"op\":\"NOOP\"", "\"op\":\"NOOP\"", "\"op\":\"NOOP\""]);
    let mut merged = bytes.clone();
    merged[starts[3] - 1] = b' ';
    bytes[starts[2] + 20] ^= 1;
    let said = |bytes: &[u8]| match verdict_of(bytes).1 {
        Verdict::Damaged(damage) => damage.to_string(),
        other => panic!("{other:?}"),
    };
    let at = starts[2];
    assert_eq!(
        said(&bytes),
        format!(
            "line 3 (at byte {at}) is damaged: its checksum does not match its bytes and the line before, \
             and line 4 after it is valid"
        )
    );
    assert!(said(&merged).ends_with("and a valid entry follows inside of it"));
}

#[test]
fn runs_are_bounded_and_follow_one_another() {
    let payload = format!("\"op\":\"PUT\",\"key\":\"a\",\"value\":\"{}\"", "x".repeat(100_000));
    let half = "x".repeat(RUN_BYTES_MAX / 2);
    let longer = format!("\"op\":\"CAS\",\"key\":\"a\",\"expect\":\"{half}\",\"value\":\"{half}\"");
    let mut payloads = vec![payload.as_str(); 23];
    payloads.insert(7, &longer);
    let (bytes, starts) = log_of(&payloads);
    let (runs, verdict) = verdict_of(&bytes);
    assert_eq!(verdict, Verdict::Clean);
    let mut last = LogPoint::ORIGIN;
    for run in &runs {
        assert_eq!(run.before(), last);
        assert!(run.text().len() <= RUN_BYTES_MAX || run.len() == 1);
        last = run.last();
    }
    let text: String = runs.iter().map(Entries::text).collect();
    assert_eq!(text.as_bytes(), &bytes[starts[1]..]);
    assert!(runs.len() <= 8, "{} runs for {} bytes", runs.len(), bytes.len());
}

/// Zeros in place of whole sectors, with valid lines behind them: one write whose blocks reached
/// the disk out of order. Zeros in any other place, or too far before the end, are damage.
#[test]
fn a_hole_in_the_last_write_is_torn_and_no_other_zeros_are() {
    let value = format!("\"op\":\"PUT\",\"key\":\"a\",\"value\":\"{}\"", "x".repeat(300));
    let (bytes, starts) = log_of(&[value.as_str(); 20]);
    let torn_from = |damaged: &[u8]| match verdict_of(damaged) {
        (runs, Verdict::TornTail(tail)) => Some((runs.iter().map(Entries::len).sum::<usize>(), tail.offset)),
        (_, Verdict::Clean | Verdict::Damaged(_)) => None,
    };
    let zeroed = |from: usize, to: usize| {
        let mut damaged = bytes.clone();
        damaged[from..to].fill(0);
        damaged
    };
    let sector = starts[3].next_multiple_of(SECTOR_BYTES);
    let hit = starts.iter().rposition(|start| *start <= sector).unwrap();
    let torn = Some((hit - 1, starts[hit] as u64));
    assert_eq!(torn_from(&zeroed(sector, sector + SECTOR_BYTES)), torn);
    assert_eq!(torn_from(&zeroed(sector, sector + 3 * SECTOR_BYTES)), torn);
    assert_eq!(
        torn_from(&zeroed(starts[3], sector)),
        Some((2, starts[3] as u64)),
        "the write began in a sector"
    );
    assert_eq!(torn_from(&zeroed(sector + 1, sector + SECTOR_BYTES)), None);
    assert_eq!(torn_from(&zeroed(sector, sector + SECTOR_BYTES - 1)), None);
    assert_eq!(torn_from(&zeroed(sector, sector + 1)), None);
}

/// More bytes than one sync covers were written in several writes, each synced before the next: a
/// hole in the first of them is damage.
#[test]
fn a_hole_further_back_than_one_write_is_damage() {
    let value = format!("\"op\":\"PUT\",\"key\":\"a\",\"value\":\"{}\"", "x".repeat(500_000));
    let (mut bytes, starts) = log_of(&[value.as_str(); 18]);
    assert!(bytes.len() - starts[1] > GROUP_BYTES_MAX);
    let mut late = bytes.clone();
    let zero = |bytes: &mut [u8], line: usize| {
        let sector = starts[line].next_multiple_of(SECTOR_BYTES);
        bytes[sector..sector + SECTOR_BYTES].fill(0);
    };
    zero(&mut bytes, 1);
    assert!(matches!(verdict_of(&bytes).1, Verdict::Damaged(_)));
    zero(&mut late, 3);
    assert!(matches!(verdict_of(&late).1, Verdict::TornTail(_)));
}
