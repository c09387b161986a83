use coracle_core::raft::{Checksum, HardState, Persist, Term};

use super::*;
use crate::identity::{ClusterId, Incarnation};
use crate::testing::{Disk, LOG, META, NODE, State, append, entries_after, founded, identities, vote};

const PUT: &str = "\"op\":\"PUT\",\"key\":\"snack\",\"value\":\"chips\"";

/// A node in term 2 with entries 1 to 4, of which 1 and 2 are noted as committed.
fn used_node() -> (Disk, Entries) {
    let (mut disk, start) = founded(SyncPolicy::Always);
    let mut planner = start.planner;
    let entries = entries_after(LogPoint::ORIGIN, 1, &[PUT, PUT, PUT, PUT]);
    disk.run(&planner.plan(&[vote(1, 1, 0), append(2, vec![entries.clone()])]));
    disk.run(&planner.plan(&[Persist { floor: LogIndex(2), ..vote(3, 2, 1) }]));
    (disk, entries)
}

fn recover_from(disk: &Disk) -> Result<Recovery, RecoverError> {
    recover(NODE, &disk.files(NODE), SyncPolicy::Always)
}

/// Returns the error from files of which one was replaced.
fn refusal(disk: &Disk, file: FileName, bytes: Vec<u8>) -> RecoverError {
    let mut disk = disk.clone();
    disk.replace(file, bytes);
    recover_from(&disk).unwrap_err()
}

#[test]
fn a_log_cut_at_any_byte_recovers_down_to_the_floor() {
    let (disk, entries) = used_node();
    let bytes = disk.content(LOG).to_vec();
    let header_len = bytes.len() - entries.text().len();
    for len in 0..=bytes.len() {
        let mut torn = disk.clone();
        torn.replace(LOG, bytes[..len].to_vec());
        let whole = bytes[..len].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let last = bytes[..whole].iter().filter(|byte| **byte == b'\n').count().saturating_sub(1) as u64;
        let recovery = match recover_from(&torn) {
            Err(error) if len < header_len => {
                assert!(matches!(error, RecoverError::Header { .. }), "{error}");
                continue;
            }
            Err(error) => {
                let lost = RecoverError::LostEntries {
                    log: LOG,
                    meta: META,
                    last: LogIndex(last),
                    floor: LogIndex(2),
                };
                assert_eq!(error, lost, "cut at {len}");
                assert!(last < 2);
                continue;
            }
            Ok(recovery) => recovery,
        };
        assert!(last >= 2);
        assert_eq!(State::of(&recovery.restored).log.as_bytes(), &bytes[header_len..whole]);
        torn.run(&recovery.repairs);
        assert_eq!(torn.content(LOG), &bytes[..whole]);
        let cut = FileName::new(NODE, FileKind::LogCut);
        if whole < len {
            assert_eq!(torn.content(cut), &bytes[whole..len]);
            let tail = TornTail { line: last + 2, offset: whole as u64, bytes: (len - whole) as u64 };
            assert_eq!(recovery.notices, [Notice::TornTail { log: LOG, kept_in: cut, tail }]);
        } else {
            assert_eq!(recovery.notices, []);
        }
    }
}

#[test]
fn a_notice_says_what_was_done() {
    let (mut disk, _) = used_node();
    let bytes = disk.content(LOG).to_vec();
    disk.replace(LOG, bytes[..bytes.len() - 7].to_vec());
    let notice = recover_from(&disk).unwrap().notices[0];
    let bytes = bytes.split_inclusive(|byte| *byte == b'\n').next_back().unwrap().len() - 7;
    assert_eq!(
        notice.to_string(),
        format!(
            "log00.txt: the last write was torn at line 5, as by a power cut; the {bytes} bytes from \
             there on were cut off, and kept in log00.txt.cut if the disk had room for them"
        )
    );
}

/// The tests of `scan` flip every bit of a log. This checks the result for a node, also for its
/// metadata.
#[test]
fn no_flipped_bit_changes_what_is_recovered() {
    let (disk, entries) = used_node();
    let last_line = entries.text().split_inclusive('\n').next_back().unwrap().len();
    for file in [LOG, META] {
        let bytes = disk.content(file).to_vec();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = disk.clone();
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                changed.replace(file, flipped);
                let Ok(recovery) = recover_from(&changed) else { continue };
                assert!(file == LOG && at >= bytes.len() - last_line, "{file} byte {at} bit {bit}");
                let kept = entries.ending_at(LogIndex(3)).unwrap();
                assert_eq!(State::of(&recovery.restored).log, kept.text());
            }
        }
    }
}

#[test]
fn cut_bytes_stay_until_a_start_finds_nothing_to_cut() {
    let (mut disk, _) = used_node();
    let len = disk.content(LOG).len() as u64;
    disk.run(&[FileOp::Truncate { file: LOG, len: len - 1 }]);
    disk.run(&recover_from(&disk).unwrap().repairs);
    assert!(disk.files(NODE).has_cut_bytes);
    disk.run(&recover_from(&disk).unwrap().repairs);
    assert!(!disk.files(NODE).has_cut_bytes);
    assert!(recover_from(&disk).is_ok());
}

/// After a failed sync the page cache shows lines that are not on disk and that no later sync
/// writes. Everything that a start has read must be on disk all the same.
#[test]
fn log_lines_that_a_failed_sync_left_in_the_cache_are_written_again() {
    let large = format!("\"op\":\"PUT\",\"key\":\"a\",\"value\":\"{}\"", "x".repeat(500_000));
    let groups: [Vec<&str>; 4] =
        [vec![PUT], vec![&large; 40], vec![PUT, &large], vec![PUT; GROUP_BYTES_MAX / 128]];
    for payloads in groups {
        let (mut disk, entries) = used_node();
        let mut planner = recover_from(&disk).unwrap().planner;
        let more = entries_after(entries.last(), 2, &payloads);
        let ops = planner.plan(&[append(4, vec![more])]);
        disk.run(&ops[..ops.len() - 1]);
        disk.fail_sync(LOG);
        disk.fail_sync(META);

        let seen = recover_from(&disk).unwrap();
        let state = State::of(&seen.restored);
        let lost = recover_from(&disk.crashed(|_| 0)).unwrap();
        assert_ne!(State::of(&lost.restored), state, "the failed sync lost something");
        disk.run(&seen.repairs);
        let kept = recover_from(&disk.crashed(|_| 0)).unwrap();
        assert!(State::of(&kept.restored) == state, "a group of {} entries", payloads.len());
    }
}

#[test]
fn a_vote_that_a_failed_sync_left_in_the_cache_is_written_again() {
    let (mut disk, _) = used_node();
    let ops = recover_from(&disk).unwrap().planner.plan(&[vote(4, 3, 2)]);
    disk.apply(&ops[0]);
    disk.fail_sync(FileName::new(NODE, FileKind::MetaTemporary));
    disk.run(&ops[2..]);
    let seen = recover_from(&disk).unwrap();
    assert!(recover_from(&disk.crashed(|_| 0)).is_err(), "the failed sync lost the vote");
    disk.run(&seen.repairs);
    let kept = recover_from(&disk.crashed(|_| 0)).unwrap();
    assert_eq!(kept.restored.hard_state, vote(4, 3, 2).hard_state.unwrap());
}

#[test]
fn without_sync_nothing_is_written_again() {
    let (disk, _) = used_node();
    let recovery = recover(NODE, &disk.files(NODE), SyncPolicy::Never).unwrap();
    assert_eq!(recovery.repairs, []);
}

#[test]
fn a_missing_file_is_named() {
    let (disk, _) = used_node();
    for file in [LOG, META] {
        let mut disk = disk.clone();
        disk.remove(file);
        let error = recover_from(&disk).unwrap_err();
        assert_eq!(error, RecoverError::Missing { file });
        assert!(error.to_string().starts_with(&format!("{file} is missing")), "{error}");
    }
}

#[test]
fn metadata_that_cannot_be_read_ends_the_start() {
    let (disk, _) = used_node();
    let good = disk.content(META).to_vec();
    let next_version = String::from_utf8(good.clone()).unwrap().replace("\"version\":1", "\"version\":2");
    for (bytes, said) in [
        (Vec::new(), "its line is incomplete"),
        (good[..good.len() - 1].to_vec(), "its line is incomplete"),
        (vec![0; good.len()], "its line is incomplete"),
        ([good.clone(), good.clone()].concat(), "its content is damaged"),
        (b"{}\n".to_vec(), "its content is damaged"),
        (b"{\"currentTerm\":4,\"votedFor\":2}\n".to_vec(), "its content is damaged"),
        (next_version.into_bytes(), "\"coracle-meta\" version 2"),
        (b"{\"format\":\"raft-meta\",\"version\":1}\n".to_vec(), "\"raft-meta\" version 1"),
    ] {
        let error = refusal(&disk, META, bytes);
        assert!(matches!(error, RecoverError::Meta { file: META, .. }), "{error:?}");
        assert!(error.to_string().contains("meta0.txt, line 1"), "{error}");
        assert!(error.to_string().contains(said), "{error}");
    }
}

#[test]
fn a_header_that_cannot_be_read_ends_the_start() {
    let (disk, _) = used_node();
    let good = String::from_utf8(disk.content(LOG).to_vec()).unwrap();
    for (bytes, said) in [
        (good.replacen("\"version\":1", "\"version\":7", 1), "\"coracle-log\" version 7"),
        (good.replacen("coracle-log", "other-log", 1), "\"other-log\" version 1"),
        (good.replacen("\"node\":0", "\"node\":1", 1), "its content is damaged"),
        (good.split_once('\n').unwrap().1.to_owned(), "its content is damaged"),
        (String::new(), "its line is incomplete"),
    ] {
        let error = refusal(&disk, LOG, bytes.into_bytes());
        assert!(matches!(error, RecoverError::Header { file: LOG, .. }), "{error:?}");
        assert!(error.to_string().contains(said), "{error}");
    }
}

fn header_with(change: impl FnOnce(&mut LogHeader)) -> Vec<u8> {
    let mut header = LogHeader { identity: identities(1).remove(0), after: LogPoint::ORIGIN };
    change(&mut header);
    header.encode()
}

fn meta_with(change: impl FnOnce(&mut Meta)) -> Vec<u8> {
    let hard_state = HardState { current_term: Term(2), voted_for: None };
    let mut meta = Meta::new(&identities(1).remove(0), hard_state, LogPoint::ORIGIN);
    change(&mut meta);
    meta.encode()
}

#[test]
fn files_of_another_owner_are_refused() {
    let (disk, _) = used_node();
    let other = NodeId(3);
    let error = refusal(&disk, LOG, header_with(|header| header.identity = identities(4).remove(3)));
    assert_eq!(error, RecoverError::OfAnotherNode { file: LOG, owner: other });
    let error = refusal(&disk, META, meta_with(|meta| meta.node = other));
    assert_eq!(error, RecoverError::OfAnotherNode { file: META, owner: other });
    let different = RecoverError::DifferentOwners { one: LOG, other: META };
    for error in [
        refusal(&disk, LOG, header_with(|header| header.identity.cluster = ClusterId(1))),
        refusal(&disk, LOG, header_with(|header| header.identity.incarnation = Incarnation(1))),
        refusal(&disk, META, meta_with(|meta| meta.cluster = ClusterId(1))),
        refusal(&disk, META, meta_with(|meta| meta.incarnation = Incarnation(1))),
    ] {
        assert_eq!(error, different);
        assert!(error.to_string().starts_with("log00.txt and meta0.txt do not belong together"));
    }
}

#[test]
fn files_of_different_times_are_refused() {
    let (disk, entries) = used_node();
    let floor = LogPoint { checksum: Checksum(1), ..entries.point_at(LogIndex(2)).unwrap() };
    let error = refusal(&disk, META, meta_with(|meta| meta.floor = floor));
    assert_eq!(error, RecoverError::OtherEntries { log: LOG, meta: META, floor: LogIndex(2) });
    let error = refusal(&disk, META, meta_with(|meta| meta.hard_state.current_term = Term::INITIAL));
    let old = RecoverError::OldMeta { file: LOG, meta: META, found: Term(1), current: Term(0) };
    assert_eq!(error, old);
    let error = refusal(&disk, LOG, header_with(|_| {}));
    let lost = RecoverError::LostEntries { log: LOG, meta: META, last: LogIndex(0), floor: LogIndex(2) };
    assert_eq!(error, lost);
}

#[test]
fn damage_names_file_and_line() {
    let (disk, entries) = used_node();
    let mut bytes = disk.content(LOG).to_vec();
    let header_len = bytes.len() - entries.text().len();
    bytes[header_len + 30] ^= 1;
    let error = refusal(&disk, LOG, bytes);
    let said = format!("log00.txt: line 2 (at byte {header_len}) is damaged: ");
    assert!(error.to_string().starts_with(&said), "{error}");
    assert!(error.advice().starts_with("Nothing was changed."), "{error}");
}

mod snapshots;
