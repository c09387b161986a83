use coracle_core::raft::{ADDRESS_BYTES_MAX, LEARNERS_MAX, LogIndex, Member, Roster, SnapshotPart, Term};

use super::*;
use crate::files::{FileKind, FileName, FileOp, SyncPolicy};
use crate::testing::{
    Disk, NODE, SNAPSHOT, SNAPSHOT_TEMPORARY, content, end_of, identities, parts, publish, snapshot_meta,
};

fn planner(sync: SyncPolicy) -> SnapshotPlanner {
    SnapshotPlanner::new(identities(1).remove(0), LogIndex::ORIGIN, sync)
}

fn point(index: u64) -> LogPoint {
    LogPoint { index: LogIndex(index), term: Term(2), checksum: Checksum(0xabc) }
}

fn header() -> SnapshotHeader {
    let meta = SnapshotMeta {
        last: point(9),
        configuration: Configuration::of_voters(Voters::new([NodeId(0), NodeId(2)]).unwrap()),
    };
    SnapshotHeader::new(&identities(1).remove(0), meta, "")
}

/// A whole file.
fn file_with(content: &str) -> Vec<u8> {
    [header().encode(), content.as_bytes().to_vec(), encode_end(end_of(content))].concat()
}

#[test]
fn a_file_reads_as_the_contract_says() {
    let text = "{\"key\":\"snack\",\"value\":\"chips\"}\n{\"key\":\"größe\",\"value\":[1,2]}\n";
    let sealed = |covered: &str| {
        let checksum = crc32fast::hash(covered.as_bytes());
        format!("{covered},\"crc\":\"{checksum:08x}\"}}\n")
    };
    let first = sealed(concat!(
        r#"{"format":"coracle-snapshot","version":1,"node":0,"#,
        r#""cluster":"0000000000000000000000000000feed","incarnation":"000000000000abc0","#,
        r#""last":{"index":9,"term":2,"crc":"00000abc"},"voters":[0,2]"#,
    ));
    let checksum = crc32fast::hash(text.as_bytes());
    let last = sealed(&format!(
        r#"{{"format":"coracle-snapshot-end","version":1,"bytes":{},"checksum":"{checksum:08x}""#,
        text.len()
    ));
    let expected = format!("{first}{text}{last}");
    assert_eq!(String::from_utf8(file_with(text)).unwrap(), expected);
    let read = SnapshotFile::decode(expected.as_bytes()).unwrap();
    assert_eq!((&read.header, read.content, read.end), (&header(), text, end_of(text)));
    assert_eq!(read.restored().meta, header().meta);
}

#[test]
fn no_flipped_bit_no_prefix_and_no_addition_is_accepted() {
    for content in ["", "{}\n", "{\"key\":\"a\"}\n{\"key\":\"b\"}\n{\"key\":\"c\"}\n"] {
        let good = file_with(content);
        assert_eq!(SnapshotFile::decode(&good).unwrap().content, content);
        for at in 0..good.len() {
            assert!(SnapshotFile::decode(&good[..at]).is_err(), "prefix of {at} bytes");
            for bit in 0..8 {
                let mut flipped = good.clone();
                flipped[at] ^= 1 << bit;
                assert!(SnapshotFile::decode(&flipped).is_err(), "byte {at} bit {bit}");
            }
        }
        for extra in ["\n", " ", "{}\n", content] {
            let longer = [&good, extra.as_bytes()].concat();
            assert!(SnapshotFile::decode(&longer).is_err() || extra.is_empty(), "{extra}");
        }
    }
}

#[test]
fn a_line_that_is_missing_or_repeated_is_detected() {
    let good = file_with("{\"key\":\"a\"}\n{\"key\":\"b\"}\n");
    let lines: Vec<_> = good.split_inclusive(|byte| *byte == b'\n').collect();
    for at in 0..lines.len() {
        let without = [&lines[..at], &lines[at + 1..]].concat().concat();
        assert!(SnapshotFile::decode(&without).is_err(), "without line {at}");
        let twice = [&lines[..at], &[lines[at]], &lines[at..]].concat().concat();
        assert!(SnapshotFile::decode(&twice).is_err(), "line {at} twice");
    }
}

#[test]
fn each_fault_has_its_message() {
    let text = "{\"key\":\"a\"}\n";
    let good = String::from_utf8(file_with(text)).unwrap();
    let said = |bytes: String| SnapshotFile::decode(bytes.as_bytes()).unwrap_err().to_string();
    assert_eq!(
        said(good.replace(text, "{\"key\":\"aa\"}\n")),
        "it holds 13 bytes of content, and its last line states 12"
    );
    let checksum = crc32fast::hash(b"{\"key\":\"b\"}\n");
    assert_eq!(
        said(good.replace(text, "{\"key\":\"b\"}\n")),
        format!(
            "its content has the checksum {checksum:08x}, and its last line states {}",
            end_of(text).checksum
        )
    );
    let torn = good[..good.len() - 9].to_owned();
    assert_eq!(said(torn), "its last line does not end a snapshot: its line is incomplete");
    assert_eq!(said(good[1..].to_owned()), "line 1: its content is damaged: it does not match its checksum");
    let newer = good.replacen("\"version\":1", "\"version\":3", 1);
    assert!(said(newer).starts_with("line 1: it is in the format \"coracle-snapshot\" version 3"));
}

#[test]
fn voters_out_of_order_are_refused() {
    let good = String::from_utf8(header().encode()).unwrap();
    let covered = good.rsplit_once(",\"crc\"").unwrap().0;
    for voters in ["[2,0]", "[0,0]", "[]"] {
        let covered = covered.replace("[0,2]", voters);
        let line = format!("{covered},\"crc\":\"{:08x}\"}}\n", crc32fast::hash(covered.as_bytes()));
        assert_eq!(SnapshotHeader::decode(line.as_bytes()), Err(SealedLineError::Form), "{voters}");
    }
}

#[test]
fn parts_become_a_file_that_is_published_only_after_it_was_read_back() {
    let text = content(3, 40);
    let mut disk = Disk::default();
    let mut planner = planner(SyncPolicy::Always);
    for part in parts(&snapshot_meta(point(9)), &text, 100) {
        disk.run(&planner.plan_part(&part));
        assert!(disk.files(NODE).snapshot.is_none());
    }
    assert_eq!(disk.unsynced_bytes(SNAPSHOT_TEMPORARY), 0);
    let ops = planner.publish(disk.content(SNAPSHOT_TEMPORARY)).unwrap();
    let rename = FileOp::Rename { from: SNAPSHOT_TEMPORARY, to: SNAPSHOT };
    assert_eq!(ops, [rename, FileOp::SyncFolder]);
    disk.run(&ops);
    let crashed = disk.crashed(|_| 0);
    let file = SnapshotFile::decode(crashed.content(SNAPSHOT)).unwrap();
    assert_eq!((file.content, file.header.meta), (text.as_str(), snapshot_meta(point(9))));
}

#[test]
fn an_empty_snapshot_is_a_snapshot() {
    let mut disk = Disk::default();
    publish(&mut disk, &mut planner(SyncPolicy::Always), &snapshot_meta(point(1)), "");
    assert_eq!(SnapshotFile::decode(disk.content(SNAPSHOT)).unwrap().content, "");
}

#[test]
fn a_snapshot_that_is_begun_again_has_no_bytes_of_the_one_before() {
    let (first, second) = (content(1, 60), content(2, 30));
    let mut disk = Disk::default();
    let mut planner = planner(SyncPolicy::Always);
    for part in &parts(&snapshot_meta(point(9)), &first, 100)[..4] {
        disk.run(&planner.plan_part(part));
    }
    publish(&mut disk, &mut planner, &snapshot_meta(point(12)), &second);
    assert_eq!(SnapshotFile::decode(disk.content(SNAPSHOT)).unwrap().content, second);
}

#[test]
fn a_sync_covers_a_limited_number_of_bytes() {
    let line = format!("{{\"value\":\"{}\"}}\n", "x".repeat(30_000));
    let text = line.repeat(40);
    for bytes_max in [1, 200_000, 400_000] {
        let mut disk = Disk::default();
        let mut planner = planner(SyncPolicy::Always);
        let (mut unsynced_max, mut syncs) = (0, 0);
        for part in parts(&snapshot_meta(point(9)), &text, bytes_max) {
            for op in planner.plan_part(&part) {
                disk.apply(&op);
                unsynced_max = unsynced_max.max(disk.unsynced_bytes(SNAPSHOT_TEMPORARY));
                syncs += usize::from(matches!(op, FileOp::Sync { .. }));
            }
        }
        // A part has up to one line more than asked for, and the first and the last line are not
        // counted.
        assert!(unsynced_max <= SNAPSHOT_SYNC_BYTES.max(bytes_max + line.len()) + 1000, "{unsynced_max}");
        assert!(syncs <= 7, "{syncs}");
    }
}

#[test]
fn without_sync_nothing_is_waited_for() {
    let mut disk = Disk::default();
    let mut planner = planner(SyncPolicy::Never);
    let mut ops = Vec::new();
    for part in parts(&snapshot_meta(point(9)), &content(3, 40), 100) {
        ops.extend(planner.plan_part(&part));
    }
    disk.run(&ops);
    ops.extend(planner.publish(disk.content(SNAPSHOT_TEMPORARY)).unwrap());
    assert!(!ops.iter().any(|op| matches!(op, FileOp::Sync { .. } | FileOp::SyncFolder)));
    assert!(matches!(ops.last(), Some(FileOp::Rename { .. })));
}

#[test]
fn a_snapshot_that_arrives_broken_is_the_senders_fault() {
    let text = content(3, 10);
    let meta = snapshot_meta(point(9));
    let mut wrong = parts(&meta, &text, 50);
    let stated = SnapshotEnd { checksum: Checksum(1), ..end_of(&text) };
    wrong.last_mut().unwrap().end = Some(stated);
    let mut disk = Disk::default();
    let mut planner = planner(SyncPolicy::Always);
    wrong.iter().for_each(|part| disk.run(&planner.plan_part(part)));
    let found = end_of(&text);
    let error = planner.publish(disk.content(SNAPSHOT_TEMPORARY)).unwrap_err();
    assert_eq!(error, PublishError::Content { last: LogIndex(9), stated, found });

    let split = SnapshotPart { meta, offset: 0, text: "{}".into(), end: Some(end_of("{}")) };
    disk.run(&planner.plan_part(&split));
    let error = planner.publish(disk.content(SNAPSHOT_TEMPORARY)).unwrap_err();
    assert_eq!(error, PublishError::PartOfALine { last: LogIndex(9) });
}

/// If the disk returns other bytes than were written, the snapshot does not replace the one before.
#[test]
fn a_snapshot_that_cannot_be_read_back_is_not_published() {
    let text = content(3, 10);
    let mut disk = Disk::default();
    let mut planner = planner(SyncPolicy::Always);
    parts(&snapshot_meta(point(9)), &text, 50).iter().for_each(|part| disk.run(&planner.plan_part(part)));
    let written = disk.content(SNAPSHOT_TEMPORARY).to_vec();
    assert!(planner.clone().publish(&written).is_ok());
    for at in 0..written.len() {
        let mut changed = written.clone();
        changed[at] ^= 1;
        for bytes in [&changed, &written[..at]] {
            let error = planner.clone().publish(bytes).unwrap_err();
            assert!(matches!(error, PublishError::Damaged { file: SNAPSHOT_TEMPORARY, .. }), "{error}");
        }
    }
    let error = planner.publish(&file_with(&text)).unwrap_err();
    assert_eq!(error, PublishError::Other { file: SNAPSHOT_TEMPORARY });
}

#[test]
#[should_panic(expected = "parts of a snapshot follow one another")]
fn a_gap_is_never_written() {
    let parts = parts(&snapshot_meta(point(9)), &content(3, 40), 100);
    let mut planner = planner(SyncPolicy::Always);
    drop(planner.plan_part(&parts[0]));
    drop(planner.plan_part(&parts[2]));
}

#[test]
#[should_panic(expected = "a snapshot up to 8 after one up to 9")]
fn an_older_snapshot_never_replaces_a_newer_one() {
    let mut planner = planner(SyncPolicy::Always);
    publish(&mut Disk::default(), &mut planner, &snapshot_meta(point(9)), "");
    drop(planner.plan_part(&parts(&snapshot_meta(point(8)), "", 1)[0]));
}

/// If the power fails while a snapshot is written, there is none, the one before, or the new one.
/// Once it was reported as durable, the new one stays.
#[test]
fn a_crash_anywhere_leaves_the_old_snapshot_or_the_new() {
    let mut rng = fastrand::Rng::with_seed(5);
    let mut disk = Disk::default();
    let mut planner = planner(SyncPolicy::Always);
    let mut before = None;
    for (index, lines) in [(4, 6), (9, 12), (9, 12), (20, 0), (31, 3)] {
        let text = content(index, lines);
        let parts = parts(&snapshot_meta(point(index)), &text, 60);
        for part in &parts {
            for op in planner.plan_part(part) {
                disk.apply(&op);
                check_crashes(&disk, &mut rng, &[before.as_deref()]);
            }
        }
        for op in planner.publish(disk.content(SNAPSHOT_TEMPORARY)).unwrap() {
            disk.apply(&op);
            check_crashes(&disk, &mut rng, &[before.as_deref(), Some(&text)]);
        }
        check_crashes(&disk, &mut rng, &[Some(&text)]);
        before = Some(text);
    }
}

fn check_crashes(disk: &Disk, rng: &mut fastrand::Rng, allowed: &[Option<&str>]) {
    let mut crashes = vec![disk.clone(), disk.crashed(|_| 0), disk.crashed(|steps| steps)];
    crashes.extend((0..20).map(|_| disk.crashed(|steps| rng.usize(..=steps))));
    for crashed in crashes {
        let bytes = crashed.files(NODE).snapshot;
        let found = bytes.as_deref().map(|bytes| SnapshotFile::decode(bytes).unwrap().content);
        assert!(allowed.contains(&found), "{found:?}");
    }
}

/// Reads a part of a file in memory; also returns the number of bytes that were read.
fn read(file: &[u8], wanted: PartWanted) -> Result<(Option<SnapshotPart>, u64), SnapshotError> {
    let mut reader = PartReader::new(wanted, file.len() as u64);
    let mut bytes_read = 0;
    loop {
        let range = reader.range();
        bytes_read += range.end - range.start;
        let at = |offset| usize::try_from(offset).unwrap();
        match reader.accept(&file[at(range.start)..at(range.end)])? {
            PartProgress::More => {}
            PartProgress::Part(part) => return Ok((Some(part), bytes_read)),
            PartProgress::NoSuchPart => return Ok((None, bytes_read)),
        }
    }
}

#[test]
fn parts_of_every_size_give_back_the_content() {
    for text in [String::new(), "\n".to_owned(), content(1, 1), content(2, 25)] {
        let file = file_with(&text);
        for bytes_max in 0..=text.len() + 2 {
            let mut offset = 0;
            let mut found = String::new();
            loop {
                let wanted = PartWanted { last: point(9), offset, bytes_max };
                let part = read(&file, wanted).unwrap().0.unwrap();
                assert_eq!((&part.meta, part.offset), (&header().meta, offset));
                let lines = part.text.lines().count();
                assert!(part.text.len() <= bytes_max || lines == 1, "{lines} lines for {bytes_max} bytes");
                assert!(text.is_empty() || part.text.ends_with('\n'));
                let more = &text[found.len() + part.text.len()..];
                let next_line = more.split_inclusive('\n').next().map_or(0, str::len);
                assert!(next_line == 0 || part.text.len() + next_line > bytes_max, "one more line fits");
                found.push_str(&part.text);
                offset = found.len() as u64;
                match part.end {
                    Some(end) => break assert_eq!((end, &found), (end_of(&text), &text)),
                    None => assert!(found.len() < text.len()),
                }
            }
        }
    }
}

#[test]
fn a_part_starts_where_a_line_starts_and_of_the_right_snapshot() {
    let text = content(2, 25);
    let file = file_with(&text);
    for offset in 0..text.len() as u64 + 3 {
        let wanted = PartWanted { last: point(9), offset, bytes_max: 50 };
        let at = usize::try_from(offset).unwrap();
        let is_line_start = offset == 0 || text.as_bytes().get(at - 1) == Some(&b'\n');
        assert_eq!(read(&file, wanted).unwrap().0.is_some(), is_line_start, "offset {offset}");
    }
    let beyond = PartWanted { last: point(9), offset: u64::MAX, bytes_max: usize::MAX };
    assert_eq!(read(&file, beyond).unwrap().0, None);
    for last in
        [point(8), LogPoint { term: Term(1), ..point(9) }, LogPoint { checksum: Checksum(1), ..point(9) }]
    {
        assert_eq!(read(&file, PartWanted { last, offset: 0, bytes_max: 50 }).unwrap().0, None);
    }
}

#[test]
fn a_part_costs_no_more_than_itself() {
    let text = content(2, 20_000);
    let file = file_with(&text);
    let second_line = text.find('\n').unwrap() as u64 + 1;
    for offset in [0, second_line] {
        let wanted = PartWanted { last: point(9), offset, bytes_max: 10_000 };
        let (part, bytes_read) = read(&file, wanted).unwrap();
        assert!(part.unwrap().text.len() > 9_000);
        // The reads of the first and the last line, and of the part.
        assert!(bytes_read < 2 * (16 << 10) + 13_000, "{bytes_read} bytes read");
    }
    let long = format!("{{\"value\":\"{}\"}}\n", "x".repeat(300_000)).repeat(3);
    let wanted = PartWanted { last: point(9), offset: 0, bytes_max: 1 };
    let (part, bytes_read) = read(&file_with(&long), wanted).unwrap();
    assert_eq!(part.unwrap().text.len(), long.len() / 3);
    assert!(bytes_read < 4 * 300_000, "{bytes_read} bytes read");
}

#[test]
fn a_part_of_a_broken_file_is_refused_if_the_read_bytes_show_it() {
    let text = content(2, 25);
    let file = file_with(&text);
    let header_len = header().encode().len();
    let end_len = encode_end(end_of(&text)).len();
    let wanted = PartWanted { last: point(9), offset: 0, bytes_max: 100 };
    for len in 0..file.len() {
        assert!(read(&file[..len], wanted).is_err(), "prefix of {len} bytes");
    }
    for at in (0..header_len).chain(file.len() - end_len..file.len()) {
        let mut flipped = file.clone();
        flipped[at] ^= 1;
        assert!(read(&flipped, wanted).is_err(), "byte {at}");
    }
}

#[test]
fn the_longest_first_line_fits_what_is_read_of_it() {
    let identity = Identity { node: NodeId(u64::MAX), ..identities(1).remove(0) };
    let set = |below: u64| Voters::new((below..below + 9).map(|below| NodeId(u64::MAX - below))).unwrap();
    let learners = (0..LEARNERS_MAX as u64).map(|below| NodeId(u64::MAX - 50 - below));
    let configuration = Configuration::restored(set(0), Some(set(9)), learners).unwrap();
    let longest = |node: NodeId| format!("{}:{node}", "a".repeat(ADDRESS_BYTES_MAX - 21)).into();
    let member = |node| (node, Member::founder(longest(node), Some(Incarnation(5))));
    let roster = Roster::new(configuration.members().into_iter().map(member));
    let configuration = configuration.with_roster(&roster);
    let last = LogPoint { index: content::INDEX_MAX, term: content::TERM_MAX, checksum: Checksum(u32::MAX) };
    let header = SnapshotHeader::new(&identity, SnapshotMeta { last, configuration }, "").encode();
    let end = SnapshotEnd { bytes: 0, checksum: Checksum(0) };
    let file = [header, encode_end(end)].concat();
    let part = read(&file, PartWanted { last, offset: 0, bytes_max: 1 }).unwrap().0.unwrap();
    assert_eq!((part.text.len(), part.end), (0, Some(end)));
}

#[test]
fn the_temporary_has_its_own_name() {
    let temporary = FileName::new(NODE, FileKind::SnapshotTemporary);
    assert_eq!(planner(SyncPolicy::Always).temporary(), temporary);
}

#[test]
fn a_rest_is_in_proportion_to_the_work_and_has_an_end() {
    let ms = std::time::Duration::from_millis;
    assert_eq!([0, 2, 10, 1000].map(|took| rest_after(ms(took))), [ms(0), ms(6), ms(30), ms(100)]);
}

/// A program that knows no levels reads version 1 only, so it refuses such a snapshot by name.
#[test]
fn content_with_a_level_has_another_version() {
    let content = "{\"level\":1,\"since\":2}\n{\"key\":\"a\",\"rev\":3,\"created\":3,\"value\":1}\n";
    let header = SnapshotHeader { has_level: true, ..header() };
    assert!(String::from_utf8(header.encode()).unwrap().contains("\"version\":2,"));
    let file = [header.encode(), content.as_bytes().to_vec(), encode_end(end_of(content))].concat();
    let read = SnapshotFile::decode(&file).unwrap();
    assert_eq!((&read.header, read.content), (&header, content));
    // So an older program backs up a newer cluster.
    let older = [self::header().encode(), content.as_bytes().to_vec(), encode_end(end_of(content))];
    assert_eq!(SnapshotFile::decode(&older.concat()).map(|read| read.content), Ok(content));
    let empty = [header.encode(), encode_end(end_of(""))].concat();
    let fault = SnapshotFile::decode(&empty).map(|_| ());
    assert_eq!(fault, Err(SnapshotError::Header(SealedLineError::Form)));
}
