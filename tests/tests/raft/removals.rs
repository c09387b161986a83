//! Removed members: how a node learns of its removal, and what it no longer does.

use coracle_core::raft::{Body, Checksum, NodeId, Role, SnapshotEnd, SnapshotMeta, SnapshotPart};
use coracle_core::{Answer, MemberChange, Replica, RequestRefusal};
use coracle_tests::scenario::Cluster;
use coracle_tests::scenario::forge::message;

use super::incarnations::{founded, get, obeyed, put};

/// Returns how often node 3 has reported that it was removed.
fn removals(cluster: &Cluster<Replica>) -> usize {
    let is_it = |line: &&String| line.starts_with('3') && line.contains("is no longer a member");
    cluster.trace().iter().filter(is_it).count()
}

/// A removed member receives the entry of its removal and the commit index that covers it. It
/// reports the removal once, and serves no more reads.
#[test]
fn a_removed_member_learns_of_its_removal_and_serves_no_more() {
    let mut cluster = founded();
    put(&mut cluster, 1, "old");
    cluster.elapse_ms(100);
    let before = get(&mut cluster, 3);
    cluster.elapse_ms(10);
    assert!(matches!(cluster.answer(before), Some(Answer::Read { .. })));
    obeyed(&mut cluster, 1, MemberChange::Remove(NodeId(3)));
    assert_eq!(removals(&cluster), 1);
    let after = get(&mut cluster, 3);
    cluster.elapse_ms(3000);
    assert_eq!(cluster.answer(after), Some(&Answer::Refused(RequestRefusal::CatchingUp)));
    assert_eq!(cluster.role(3), Role::Follower);
    assert!(cluster.node(3).removed_at().is_some());
    assert_eq!(removals(&cluster), 1);
}

/// A node that ended before its removal is on its disk would, at its next start, find a log that
/// still names it, or one that never did.
#[test]
fn a_removal_is_reported_once_it_is_on_the_disk() {
    let mut cluster = founded();
    cluster.hold_disk(3);
    obeyed(&mut cluster, 1, MemberChange::Remove(NodeId(3)));
    assert!(cluster.node(3).removed_at().is_some());
    assert_eq!(removals(&cluster), 0);
    cluster.release_disk(3);
    cluster.elapse_ms(100);
    assert_eq!(removals(&cluster), 1);
}

/// A snapshot that was in flight to a member when it was removed covers the removal. In place of
/// the member's log, it would name the member nowhere: after a restart the member would take itself
/// for a node that has not been added yet.
#[test]
fn a_snapshot_that_covers_a_removal_reports_it_and_is_not_installed() {
    let mut cluster = founded();
    put(&mut cluster, 1, "old");
    cluster.elapse_ms(100);
    cluster.isolate(3);
    obeyed(&mut cluster, 1, MemberChange::Remove(NodeId(3)));
    let (last, term) = (cluster.node(1).log().last(), cluster.term(1));
    let meta = SnapshotMeta { last, configuration: cluster.node(1).configuration().clone() };
    let end = SnapshotEnd { bytes: 0, checksum: Checksum(0) };
    let part = SnapshotPart { meta, offset: 0, text: "".into(), end: Some(end) };
    let before = cluster.node(3).log().last();
    cluster.deliver(message(1, 3, term, Body::InstallSnapshot(part)));
    cluster.elapse_ms(100);
    assert_eq!(removals(&cluster), 1);
    assert!(cluster.node(3).log().last() == before && !cluster.node(3).receives_snapshot());
    let read = get(&mut cluster, 3);
    cluster.elapse_ms(3000);
    assert_eq!(
        cluster.answer(read),
        Some(&Answer::Refused(RequestRefusal::CatchingUp)),
        "its map is of no use any more"
    );
    cluster.crash(3);
    cluster.restart(3);
    assert!(cluster.node(3).was_named(), "so whoever hears of it can tell it that it was removed");
}

/// A member that was down during its removal learns of it from the first node that it dials. From
/// then on it serves no reads, although its own log names it.
#[test]
fn a_member_that_is_dismissed_serves_no_more() {
    let mut cluster = founded();
    put(&mut cluster, 1, "old");
    cluster.elapse_ms(100);
    cluster.isolate(3);
    obeyed(&mut cluster, 1, MemberChange::Remove(NodeId(3)));
    let before = get(&mut cluster, 3);
    cluster.elapse_ms(10);
    assert!(matches!(cluster.answer(before), Some(Answer::Read { .. })), "it does not know");
    cluster.dismiss(3);
    let after = get(&mut cluster, 3);
    cluster.elapse_ms(3000);
    assert_eq!(cluster.answer(after), Some(&Answer::Refused(RequestRefusal::CatchingUp)));
}
