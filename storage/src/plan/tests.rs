use coracle_core::raft::{BatchBuilder, Checksum, Compaction, LogChange, LogIndex, LogPoint, Persist, Term};

use super::*;
use crate::recover::recover;
use crate::testing::{
    Disk, LOG, META, NODE, RandomNode, SNAPSHOT_TEMPORARY, State, append, content, cut, entries_after,
    founded, identities, parts, vote,
};

const PUT: &str = "\"op\":\"PUT\",\"key\":\"snack\",\"value\":\"chips\"";

/// Returns a short word for each operation, so that lists can be compared at a glance.
fn words(ops: &[FileOp]) -> Vec<String> {
    let word = |op: &FileOp| match op {
        FileOp::Create { file, .. } => format!("create {file}"),
        FileOp::Append { file, entries } => {
            let first = entries.first().unwrap().first_index();
            format!("append {file} {first}..={}", entries.last().unwrap().last().index)
        }
        FileOp::AppendText { file, text } => format!("append {file} {} bytes", text.len()),
        FileOp::Overwrite { file, at, .. } => format!("overwrite {file} {at}"),
        FileOp::Truncate { file, len } => format!("truncate {file} {len}"),
        FileOp::Sync { file } => format!("sync {file}"),
        FileOp::Rename { from, to } => format!("rename {from} {to}"),
        FileOp::Remove { file } => format!("remove {file}"),
        FileOp::SyncFolder => "sync folder".to_owned(),
    };
    ops.iter().map(word).collect()
}

const REPLACE_META: [&str; 4] =
    ["create meta0.txt.tmp", "sync meta0.txt.tmp", "rename meta0.txt.tmp meta0.txt", "sync folder"];

/// A node in term 1 with the entries 1 to 3.
fn node_with_three_entries() -> (Disk, Planner, Entries) {
    let (mut disk, start) = founded(SyncPolicy::Always);
    let mut planner = start.planner;
    let entries = entries_after(LogPoint::ORIGIN, 1, &[PUT, PUT, PUT]);
    disk.run(&planner.plan(&[vote(1, 1, 0), append(2, vec![entries.clone()])]));
    (disk, planner, entries)
}

fn recovered(disk: &Disk) -> State {
    State::of(&recover(NODE, &disk.files(NODE), SyncPolicy::Always).unwrap().restored)
}

#[test]
fn many_appends_are_one_write_and_one_sync() {
    let (_, mut planner, entries) = node_with_three_entries();
    let mut last = entries.last();
    let mut group = Vec::new();
    for id in 3..10 {
        let entries = entries_after(last, 1, &[PUT, PUT]);
        last = entries.last();
        group.push(append(id, vec![entries]));
    }
    assert_eq!(words(&planner.plan(&group)), ["append log00.txt 4..=17", "sync log00.txt"]);
}

#[test]
fn a_term_is_on_disk_before_the_entries_that_came_with_it() {
    let (_, start) = founded(SyncPolicy::Always);
    let mut planner = start.planner;
    let mut persist = vote(1, 1, 0);
    persist.log = LogChange::append(vec![entries_after(LogPoint::ORIGIN, 1, &[PUT])].into());
    let expected = [&REPLACE_META[..], &["append log00.txt 1..=1", "sync log00.txt"]].concat();
    assert_eq!(words(&planner.plan(&[persist])), expected);
}

#[test]
fn consecutive_terms_are_written_once_and_the_last_counts() {
    let (mut disk, mut planner, entries) = node_with_three_entries();
    let ops = planner.plan(&[vote(3, 2, 1), vote(4, 3, 2), append(5, Vec::new()), vote(6, 4, 0)]);
    assert_eq!(words(&ops), REPLACE_META);
    disk.run(&ops);
    assert_eq!(recovered(&disk).hard_state, vote(6, 4, 0).hard_state.unwrap());
    assert_eq!(recovered(&disk).log, entries.text());
}

#[test]
fn a_log_change_between_two_terms_keeps_its_place() {
    let (_, mut planner, entries) = node_with_three_entries();
    let next = entries_after(entries.last(), 2, &[PUT]);
    let ops = planner.plan(&[vote(3, 2, 1), append(4, vec![next]), vote(5, 3, 2)]);
    let appended = ["append log00.txt 4..=4", "sync log00.txt"];
    assert_eq!(words(&ops), [&REPLACE_META[..], &appended, &REPLACE_META].concat());
}

#[test]
fn a_cut_is_on_disk_before_anything_takes_its_place() {
    let (mut disk, mut planner, entries) = node_with_three_entries();
    let kept = entries.ending_at(LogIndex(1)).unwrap();
    let replaced = entries_after(kept.last(), 1, &["\"op\":\"NOOP\""]);
    let persist = cut(3, 2, vec![replaced.clone()]);
    let kept_len = disk.content(LOG).len() - entries.text().len() + kept.text().len();
    let ops = planner.plan(&[persist]);
    let truncate = format!("truncate log00.txt {kept_len}");
    let expected = [truncate.as_str(), "sync log00.txt", "append log00.txt 2..=2", "sync log00.txt"];
    assert_eq!(words(&ops), expected);
    disk.run(&ops);
    assert_eq!(recovered(&disk).log, format!("{}{}", kept.text(), replaced.text()));
}

#[test]
fn a_cut_right_above_the_floor_leaves_the_floor() {
    let (mut disk, mut planner, entries) = node_with_three_entries();
    let floor = append(3, Vec::new());
    assert_eq!(planner.plan(&[Persist { floor: LogIndex(2), ..floor.clone() }]), []);
    let cut = Persist { floor: LogIndex(2), ..cut(3, 3, Vec::new()) };
    disk.run(&planner.plan(&[cut]));
    assert_eq!(recovered(&disk).log, entries.ending_at(LogIndex(2)).unwrap().text());
    let other = entries_after(entries.point_at(LogIndex(2)).unwrap(), 1, &["\"op\":\"NOOP\""]);
    disk.run(&planner.plan(&[append(5, vec![other.clone()])]));
    assert!(recovered(&disk).log.ends_with(other.text()));
}

#[test]
#[should_panic(expected = "a cut from 2 at or below the floor 2")]
fn what_is_committed_is_never_cut() {
    let (_, mut planner, _) = node_with_three_entries();
    let cut = Persist { floor: LogIndex(2), ..cut(3, 2, Vec::new()) };
    drop(planner.plan(&[cut]));
}

#[test]
#[should_panic(expected = "entries continue the log")]
fn a_gap_is_never_written() {
    let (_, mut planner, entries) = node_with_three_entries();
    let mut builder = BatchBuilder::new(entries.last());
    builder.seal(Term(1), |text| text.push_str(PUT));
    let gap = entries_after(builder.last(), 1, &[PUT]);
    drop(planner.plan(&[append(3, vec![gap])]));
}

#[test]
#[should_panic(expected = "the term is persisted first")]
fn entries_of_a_term_that_was_not_persisted_are_never_written() {
    let (_, mut planner, entries) = node_with_three_entries();
    drop(planner.plan(&[append(3, vec![entries_after(entries.last(), 2, &[PUT])])]));
}

fn compaction(id: u64, after: LogPoint, entries: Vec<Entries>) -> Persist {
    Persist { log: LogChange::Compact(Compaction { after, entries }), ..append(id, Vec::new()) }
}

#[test]
fn a_compaction_rewrites_the_log_and_replaces_it_atomically() {
    let (mut disk, mut planner, entries) = node_with_three_entries();
    let kept = entries.starting_at(LogIndex(3)).unwrap();
    let next = entries_after(kept.last(), 2, &[PUT]);
    let mut persist = compaction(3, kept.before(), vec![kept.clone(), next.clone()]);
    persist.hard_state = vote(3, 2, 1).hard_state;
    let ops = planner.plan(&[persist]);
    let anew = [
        "create log00.txt.tmp",
        "append log00.txt.tmp 3..=4",
        "sync log00.txt.tmp",
        "rename log00.txt.tmp log00.txt",
        "sync folder",
    ];
    assert_eq!(words(&ops), [&REPLACE_META[..], &anew].concat());
    disk.run(&ops);
    let header = LogHeader { identity: identities(1).remove(0), after: kept.before() }.encode();
    let expected = [&header, kept.text().as_bytes(), next.text().as_bytes()].concat();
    assert_eq!(disk.content(LOG), expected);

    // Later persists change the new log, at its offsets.
    let cut = cut(4, 4, Vec::new());
    let kept_len = header.len() + kept.text().len();
    assert_eq!(
        words(&planner.plan(&[cut])),
        [format!("truncate log00.txt {kept_len}").as_str(), "sync log00.txt"]
    );
}

/// A node with twelve entries, two of them in a snapshot and four committed. The planner copies one
/// entry at a time if no entries are added.
fn node_that_renews() -> (Disk, Planner, Entries) {
    let (mut disk, start) = founded(SyncPolicy::Always);
    let mut planner = start.planner;
    planner.set_renewal_bytes(1);
    let entries = entries_after(LogPoint::ORIGIN, 1, &[PUT; 12]);
    disk.run(&planner.plan(&[vote(1, 1, 0), append(2, vec![entries.clone()])]));
    let kept = entries.starting_at(LogIndex(3)).unwrap();
    let persist = Persist { floor: LogIndex(4), ..compaction(3, kept.before(), vec![kept]) };
    assert_eq!(planner.plan(&[persist]), [], "nobody waits for it");
    (disk, planner, entries)
}

#[test]
fn a_log_that_continues_is_rewritten_between_groups() {
    let (mut disk, mut planner, entries) = node_that_renews();
    let renew = |planner: &mut Planner, disk: &mut Disk, expected: &[&str]| {
        assert!(planner.can_renew());
        let ops = planner.renew();
        assert_eq!(words(&ops), expected);
        disk.run(&ops);
    };
    let sync = "sync log00.txt.tmp";
    renew(&mut planner, &mut disk, &["create log00.txt.tmp", "append log00.txt.tmp 3..=3", sync]);
    renew(&mut planner, &mut disk, &["append log00.txt.tmp 4..=4", sync]);
    assert!(!planner.can_renew() && planner.renew().is_empty(), "the others may be cut");

    // The log grows meanwhile, so twice as much is copied; then it is cut.
    let more = entries_after(entries.last(), 1, &[PUT]);
    let ops = planner.plan(&[Persist { floor: LogIndex(6), ..append(4, vec![more]) }]);
    assert_eq!(words(&ops), ["append log00.txt 13..=13", "sync log00.txt"]);
    disk.run(&ops);
    renew(&mut planner, &mut disk, &["append log00.txt.tmp 5..=6", sync]);
    disk.run(&planner.plan(&[Persist { floor: LogIndex(7), ..cut(5, 8, Vec::new()) }]));
    renew(&mut planner, &mut disk, &["append log00.txt.tmp 7..=7", sync]);
    let anew = [sync, "rename log00.txt.tmp log00.txt", "sync folder"];
    renew(&mut planner, &mut disk, &[&anew, &REPLACE_META[..]].concat());
    assert!(!planner.can_renew());
    assert_eq!(Meta::decode(disk.content(META)).unwrap().floor.index, LogIndex(7));

    // Later persists change the new log, at its offsets.
    let kept = entries.starting_at(LogIndex(3)).and_then(|kept| kept.ending_at(LogIndex(7))).unwrap();
    let header = LogHeader { identity: identities(1).remove(0), after: kept.before() }.encode();
    assert_eq!(disk.content(LOG), [&header, kept.text().as_bytes()].concat());
    disk.run(&planner.plan(&[append(6, vec![entries_after(kept.last(), 1, &[PUT])])]));
    let cut = cut(7, 8, Vec::new());
    let truncate = format!("truncate log00.txt {}", header.len() + kept.text().len());
    assert_eq!(words(&planner.plan(&[cut])), [truncate.as_str(), "sync log00.txt"]);
}

/// There is no room for the last piece, which would have put the new log in place: later persists
/// go to the old log.
#[test]
fn a_renewal_that_is_given_up_leaves_the_log_as_it_was() {
    let (mut disk, mut planner, entries) = node_that_renews();
    let header_len = disk.content(LOG).len() - entries.text().len();
    planner.set_renewal_bytes(1 << 20);
    let all = Persist { floor: LogIndex(12), ..append(4, Vec::new()) };
    assert_eq!(planner.plan(&[all]), []);
    while planner.can_renew() {
        drop(planner.renew());
    }
    assert!(planner.len < disk.content(LOG).len() as u64, "the new log is shorter");
    planner.give_up_renewal();
    assert_eq!(planner.len, disk.content(LOG).len() as u64);
    assert_eq!(planner.floor_end, planner.len, "all of it is committed");
    let more = entries_after(entries.last(), 1, &[PUT]);
    disk.run(&planner.plan(&[append(5, vec![more.clone()])]));
    let cut = cut(6, 13, Vec::new());
    let truncate = format!("truncate log00.txt {}", header_len + entries.text().len());
    assert_eq!(words(&planner.plan(&[cut])), [truncate.as_str(), "sync log00.txt"]);
    assert_eq!(planner.noted_floor, LogPoint::ORIGIN, "what was not written was not noted");
}

/// A piece is larger than the entries added since the one before, however fast the log grows.
#[test]
fn a_log_rewrite_ends_under_load() {
    let (mut disk, mut planner, entries) = node_that_renews();
    let mut last = entries.last();
    let mut rounds = 0;
    while planner.renewal.is_some() {
        let more = entries_after(last, 1, &[PUT, PUT]);
        rounds += 1;
        disk.run(&planner.plan(&[Persist { floor: last.index, ..append(3 + rounds, vec![more.clone()]) }]));
        disk.run(&planner.renew());
        last = more.last();
    }
    assert!((3..10).contains(&rounds), "{rounds}");
    assert_eq!(disk.content(LOG).iter().filter(|byte| **byte == b'\n').count() as u64, last.index.0 - 1);
}

#[test]
fn a_leaders_snapshot_ends_a_rewrite_in_progress() {
    let (_, mut planner, entries) = node_that_renews();
    let after = LogPoint { index: LogIndex(9), term: Term(1), checksum: Checksum(7) };
    let ops = planner.plan(&[Persist { floor: LogIndex(9), ..compaction(4, after, Vec::new()) }]);
    assert_eq!(words(&ops)[0], "create log00.txt.tmp");
    assert!(!planner.can_renew() && planner.last == after, "{entries:?}");
}

#[test]
fn a_compaction_without_entries_leaves_a_header() {
    let (mut disk, mut planner, _) = node_with_three_entries();
    let after = LogPoint { index: LogIndex(9), term: Term(1), checksum: Checksum(7) };
    let ops = planner.plan(&[Persist { floor: LogIndex(9), ..compaction(3, after, Vec::new()) }]);
    let anew =
        ["create log00.txt.tmp", "sync log00.txt.tmp", "rename log00.txt.tmp log00.txt", "sync folder"];
    assert_eq!(words(&ops), anew);
    disk.run(&ops);
    assert_eq!(words(&planner.plan(&[append(4, vec![entries_after(after, 1, &[PUT])])])).len(), 2);
    let ops = planner.close();
    disk.run(&ops);
    assert_eq!(Meta::decode(disk.content(META)).unwrap().floor, after);
}

/// Earlier persists of the same group go to the old log, later ones to the new log.
#[test]
fn a_compaction_keeps_its_place_in_a_group() {
    let (_, mut planner, entries) = node_with_three_entries();
    let fourth = entries_after(entries.last(), 1, &[PUT]);
    let fifth = entries_after(fourth.last(), 1, &[PUT]);
    let group = [
        append(3, vec![fourth.clone()]),
        compaction(4, entries.last(), vec![fourth]),
        append(5, vec![fifth]),
    ];
    let expected = [
        "append log00.txt 4..=4",
        "sync log00.txt",
        "create log00.txt.tmp",
        "append log00.txt.tmp 4..=4",
        "sync log00.txt.tmp",
        "rename log00.txt.tmp log00.txt",
        "sync folder",
        "append log00.txt 5..=5",
        "sync log00.txt",
    ];
    assert_eq!(words(&planner.plan(&group)), expected);
}

#[test]
#[should_panic(expected = "a floor above the log: 2 above 1")]
fn a_compaction_never_drops_what_is_committed() {
    let (_, mut planner, entries) = node_with_three_entries();
    drop(planner.plan(&[Persist { floor: LogIndex(2), ..append(3, Vec::new()) }]));
    let first = entries.ending_at(LogIndex(1)).unwrap();
    drop(planner.plan(&[compaction(4, LogPoint::ORIGIN, vec![first])]));
}

#[test]
#[should_panic(expected = "a compaction after 2 that changes the floor 2")]
fn a_compaction_never_changes_what_is_committed() {
    let (_, mut planner, entries) = node_with_three_entries();
    drop(planner.plan(&[Persist { floor: LogIndex(2), ..append(3, Vec::new()) }]));
    let other = LogPoint { checksum: Checksum(1), ..entries.point_at(LogIndex(2)).unwrap() };
    drop(planner.plan(&[compaction(4, other, Vec::new())]));
}

#[test]
fn more_than_a_group_may_hold_is_synced_in_between() {
    let (mut disk, mut planner, entries) = node_with_three_entries();
    let large = format!("\"op\":\"PUT\",\"key\":\"a\",\"value\":\"{}\"", "x".repeat(500_000));
    let huge = format!("\"op\":\"PUT\",\"key\":\"a\",\"value\":\"{}\"", "x".repeat(GROUP_BYTES_MAX));
    let many = entries_after(entries.last(), 1, &[large.as_str(); 40]);
    let one = entries_after(many.last(), 1, &[PUT, huge.as_str(), PUT]);
    let mut unsynced_max = 0;
    for op in planner.plan(&[append(3, vec![many.clone()]), append(4, vec![one.clone()])]) {
        if let FileOp::Append { entries, .. } = &op {
            let bytes: usize = entries.iter().map(|entries| entries.text().len()).sum();
            let is_one_entry = entries.len() == 1 && entries[0].len() == 1;
            assert!(bytes <= GROUP_BYTES_MAX || is_one_entry, "{bytes} bytes");
            assert_eq!(disk.unsynced_bytes(LOG), 0);
        }
        disk.apply(&op);
        unsynced_max = unsynced_max.max(disk.unsynced_bytes(LOG));
    }
    assert!(unsynced_max > GROUP_BYTES_MAX, "the huge entry was among them");
    let written = [entries.text(), many.text(), one.text()].concat();
    assert!(disk.content(LOG).ends_with(written.as_bytes()));

    // A rewrite is written in pieces, too.
    let temporary = FileName::new(NODE, FileKind::LogTemporary);
    let all = vec![entries, many, one];
    for op in planner.plan(&[compaction(5, LogPoint::ORIGIN, all)]) {
        if let FileOp::Append { .. } = &op {
            assert!(disk.unsynced_bytes(temporary) < 1000, "no more than the header");
        }
        disk.apply(&op);
    }
    assert_eq!(disk.unsynced_bytes(LOG), 0);
}

#[test]
fn without_sync_nothing_is_waited_for_and_no_floor_is_noted() {
    let (mut disk, start) = founded(SyncPolicy::Never);
    let mut planner = start.planner;
    let entries = entries_after(LogPoint::ORIGIN, 1, &[PUT, PUT]);
    let ops = planner.plan(&[vote(1, 1, 0), append(2, vec![entries.clone()])]);
    let expected = [REPLACE_META[0], REPLACE_META[2], "append log00.txt 1..=2"];
    assert_eq!(words(&ops), expected);
    disk.run(&ops);
    let floor = Persist { floor: LogIndex(2), ..append(3, Vec::new()) };
    disk.run(&planner.plan(&[floor, vote(4, 2, 0)]));
    assert_eq!(planner.close(), []);
    let meta = Meta::decode(disk.content(META)).unwrap();
    assert_eq!(meta.floor, LogPoint::ORIGIN);
    assert_eq!(recovered(&disk).log, entries.text());
}

#[test]
fn an_orderly_stop_notes_the_floor_once() {
    let (mut disk, mut planner, entries) = node_with_three_entries();
    assert_eq!(planner.close(), [], "nothing is known to be committed");
    drop(planner.plan(&[Persist { floor: LogIndex(2), ..append(3, Vec::new()) }]));
    let ops = planner.close();
    assert_eq!(words(&ops), REPLACE_META);
    disk.run(&ops);
    assert_eq!(planner.close(), []);
    let meta = Meta::decode(disk.content(META)).unwrap();
    assert_eq!(Some(meta.floor), entries.point_at(LogIndex(2)));
    assert_eq!(meta.hard_state.current_term, Term(1));
}

/// A crash leaves a state that the node went through, with everything that was reported.
#[test]
fn a_crash_anywhere_leaves_a_prefix_of_the_group() {
    let (mut own, mut installed, mut compacted, mut pieces) = (0, 0, 0, 0);
    for seed in 0..40 {
        let (mut disk, start) = founded(SyncPolicy::Always);
        let (mut planner, mut snapshots) = (start.planner, start.snapshots);
        planner.set_renewal_bytes([1, 60, REWRITE_PIECE_BYTES][usize::try_from(seed % 3).unwrap()]);
        let mut node = RandomNode::new(seed);
        let mut rng = fastrand::Rng::with_seed(!seed);
        for _ in 0..8 {
            let (group, states) = node.group();
            compacted += group.iter().filter(|persist| persist.compaction().is_some()).count();
            let ops = planner.plan(&group);
            for op in &ops {
                crash_in_every_way(&disk, &states, &mut rng, seed);
                disk.apply(op);
            }
            crash_in_every_way(&disk, &states, &mut rng, seed);
            // Everything is reported now, so only the last state is allowed.
            node.report();
            let state = &states[states.len() - 1..];
            crash_in_every_way(&disk, state, &mut rng, seed);
            for _ in 0..rng.usize(..3) {
                for op in planner.renew() {
                    pieces += usize::from(matches!(op, FileOp::Append { .. }));
                    disk.apply(&op);
                    crash_in_every_way(&disk, state, &mut rng, seed);
                }
            }
            if rng.u8(..4) == 0 {
                disk.run(&planner.close());
            }
            let (before, start) = (node.state(), node.log_start());
            if let Some(meta) = node.snapshot() {
                let states = [before, node.state()];
                *if node.log_start() == start { &mut own } else { &mut installed } += 1;
                let text = content(meta.last.index.0, 3);
                for part in parts(&meta, &text, 50) {
                    disk.run(&snapshots.plan_part(&part));
                    crash_in_every_way(&disk, &states[..1], &mut rng, seed);
                }
                for op in snapshots.publish(disk.content(SNAPSHOT_TEMPORARY)).unwrap() {
                    disk.apply(&op);
                    crash_in_every_way(&disk, &states, &mut rng, seed);
                }
                crash_in_every_way(&disk, &states[1..], &mut rng, seed);
            }
            if rng.u8(..3) == 0 {
                let again = recover(NODE, &disk.files(NODE), SyncPolicy::Always).unwrap();
                disk.run(&again.repairs);
                (planner, snapshots) = (again.planner, again.snapshots);
                planner.set_renewal_bytes(1);
            }
        }
        assert_eq!(recovered(&disk), node.state(), "seed {seed}");
    }
    let found = [own, installed, compacted, pieces];
    assert!(found.iter().all(|count| *count > 10), "{found:?}");
}

fn crash_in_every_way(disk: &Disk, states: &[State], rng: &mut fastrand::Rng, seed: u64) {
    let unsynced = disk.unsynced_bytes(LOG);
    let mut crashes = vec![disk.crashed(|_| 0), disk.crashed(|steps| steps)];
    crashes.extend((0..3).map(|_| disk.crashed(|steps| rng.usize(..=steps))));
    crashes.extend((0..unsynced).map(|kept| disk.crashed(|steps| kept.min(steps))));
    for crashed in crashes {
        let recovery = recover(NODE, &crashed.files(NODE), SyncPolicy::Always);
        let recovery = recovery.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let state = State::of(&recovery.restored);
        assert!(states.contains(&state), "seed {seed}: {state:?} is none of {states:?}");
        if let Some(snapshot) = &recovery.restored.snapshot {
            assert_eq!(*snapshot.text, content(snapshot.meta.last.index.0, 3), "seed {seed}");
        }
        if rng.u8(..8) == 0 {
            crash_while_repairing(crashed, &recovery.repairs, &state, rng);
        }
    }
}

/// Recovering again gives the same state, wherever the repairs were interrupted.
fn crash_while_repairing(mut disk: Disk, repairs: &[FileOp], state: &State, rng: &mut fastrand::Rng) {
    for op in repairs {
        disk.apply(op);
        let crashes = [disk.crashed(|_| 0), disk.crashed(|steps| steps), disk.crashed(|n| rng.usize(..=n))];
        for crashed in crashes {
            assert_eq!(&recovered(&crashed), state, "after {op:?}");
        }
    }
    let again = recover(NODE, &disk.files(NODE), SyncPolicy::Always).unwrap();
    assert_eq!((&State::of(&again.restored), again.notices.as_slice()), (state, [].as_slice()));
}
