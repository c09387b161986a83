use coracle_core::raft::{Configuration, LogChange, LogIndex, Persist, SnapshotMeta, Term, Voters};

use super::*;
use crate::identity::{ClusterId, Incarnation};
use crate::testing::{Disk, append, content, entries_after, identities, parts, snapshot_meta, vote};

const NODES: u64 = 3;

fn survey_of(disk: &Disk, fresh: &[Identity]) -> Result<Survey, SurveyError> {
    let files = fresh.iter().map(|identity| disk.files(identity.node)).collect();
    survey(files, fresh, SyncPolicy::Always)
}

/// Identities with other random numbers than those of [`identities`].
fn other_identities(nodes: u64) -> Vec<Identity> {
    let incarnations: Vec<_> = (0..nodes).map(|node| Incarnation(0xdef0 + node)).collect();
    Identity::for_new_cluster(ClusterId(0xbeef), &incarnations)
}

fn founded_cluster() -> Disk {
    let mut disk = Disk::default();
    disk.run(&survey_of(&disk, &identities(NODES)).unwrap().creation);
    disk
}

/// A cluster in which node 1 has voted and node 2 also has an entry.
fn used_cluster() -> Disk {
    let mut disk = founded_cluster();
    let mut nodes = survey_of(&disk, &identities(NODES)).unwrap().nodes;
    disk.run(&nodes[1].planner.plan(&[vote(1, 1, 2)]));
    let entries = entries_after(LogPoint::ORIGIN, 1, &["\"op\":\"NOOP\""]);
    let log = LogChange::append(vec![entries].into());
    disk.run(&nodes[2].planner.plan(&[Persist { log, ..vote(1, 1, 2) }]));
    disk
}

/// Returns the first lost file, and the file that shows that the cluster was used.
fn lost_file(error: &SurveyError) -> (FileName, FileName) {
    let SurveyError::Nodes(lost) = error else { panic!("{error}") };
    let file = lost.faults.iter().find_map(|(_, fault)| match fault {
        RecoverError::Lost { file, witness } => Some((*file, *witness)),
        _ => None,
    });
    file.unwrap_or_else(|| panic!("{error}"))
}

fn file(node: u64, kind: FileKind) -> FileName {
    FileName::new(NodeId(node), kind)
}

#[test]
fn an_empty_folder_becomes_a_cluster_and_stays_it() {
    let mut disk = Disk::default();
    let fresh = identities(NODES);
    let first = survey_of(&disk, &fresh).unwrap();
    assert!(first.nodes.iter().all(|node| node.repairs.is_empty() && node.restored.log.is_empty()));
    disk.run(&first.creation);
    let again = survey_of(&disk.crashed(|_| 0), &other_identities(NODES)).unwrap();
    assert_eq!(again.creation, []);
    let found: Vec<_> = again.nodes.iter().map(|node| node.identity.clone()).collect();
    assert_eq!(found, fresh, "what is there counts, not what is drawn anew");
}

#[test]
fn founding_syncs_whatever_the_policy() {
    let fresh = identities(NODES);
    let files = vec![NodeFiles::default(); fresh.len()];
    let always = survey(files.clone(), &fresh, SyncPolicy::Always).unwrap();
    let never = survey(files, &fresh, SyncPolicy::Never).unwrap();
    assert_eq!(always.creation, never.creation);
    assert!(never.creation.contains(&FileOp::SyncFolder));
}

/// If a power cut ends the founding, and the founding after that, the next start has a whole
/// cluster.
#[test]
fn an_interrupted_founding_is_repeated() {
    let mut rng = fastrand::Rng::with_seed(7);
    let fresh = identities(NODES);
    let creation = survey_of(&Disk::default(), &fresh).unwrap().creation;
    for done in 0..=creation.len() {
        let mut disk = Disk::default();
        disk.run(&creation[..done]);
        for _ in 0..20 {
            let crashed = disk.crashed(|steps| rng.usize(..=steps));
            let second = survey_of(&crashed, &other_identities(NODES)).unwrap();
            for done_again in 0..=second.creation.len() {
                let mut disk = crashed.clone();
                disk.run(&second.creation[..done_again]);
                let mut disk = disk.crashed(|steps| rng.usize(..=steps));
                let third = survey_of(&disk, &fresh).unwrap();
                disk.run(&third.creation);
                let whole = survey_of(&disk.crashed(|_| 0), &fresh).unwrap();
                assert_eq!(whole.creation, [], "after {done} and {done_again} operations");
                assert!(whole.nodes.iter().all(|node| node.restored.hard_state == HardState::default()));
            }
        }
    }
}

/// The metadata of the first founding must not be mistaken for that of the second.
#[test]
fn a_founding_over_whole_metadata_may_be_interrupted_too() {
    let mut rng = fastrand::Rng::with_seed(9);
    let mut without_log = founded_cluster();
    without_log.remove(file(1, FileKind::Log));
    let mut without_header = founded_cluster();
    without_header.replace(file(1, FileKind::Log), Vec::new());
    for start in [without_log, without_header] {
        let creation = survey_of(&start, &other_identities(NODES)).unwrap().creation;
        for done in 0..=creation.len() {
            let mut disk = start.clone();
            disk.run(&creation[..done]);
            let mut crashes = vec![disk.crashed(|_| 0), disk.crashed(|steps| steps)];
            crashes.extend((0..20).map(|_| disk.crashed(|steps| rng.usize(..=steps))));
            for mut disk in crashes {
                let next = survey_of(&disk, &identities(NODES)).unwrap();
                disk.run(&next.creation);
                assert!(survey_of(&disk, &identities(NODES)).is_ok_and(|survey| survey.creation.is_empty()));
            }
        }
    }
}

#[test]
fn a_node_that_lost_its_files_is_refused_once_the_cluster_was_used() {
    let disk = used_cluster();
    for node in 0..NODES {
        for kinds in [&[FileKind::Log][..], &[FileKind::Meta], &[FileKind::Log, FileKind::Meta]] {
            let mut disk = disk.clone();
            kinds.iter().for_each(|kind| disk.remove(file(node, *kind)));
            let error = survey_of(&disk, &other_identities(NODES)).unwrap_err();
            let (lost, witness) = lost_file(&error);
            assert_eq!(lost, file(node, kinds[0]));
            assert!(disk.files(witness.node).meta.is_some() || witness.kind == FileKind::Log);
        }
    }
    let mut disk = disk;
    disk.remove(file(0, FileKind::Log));
    let said = survey_of(&disk, &identities(NODES)).unwrap_err().to_string();
    let start = "log00.txt is missing or was never finished, but meta1.txt shows that the cluster has been";
    assert!(said.starts_with(start), "{said}");
}

/// A snapshot gets its name only when it is whole, so whatever its content is now, the cluster was
/// used.
#[test]
fn a_snapshot_alone_shows_that_the_cluster_has_been_in_use() {
    for bytes in [Vec::new(), b"{}\n".to_vec()] {
        let mut disk = Disk::default();
        disk.replace(file(1, FileKind::Snapshot), bytes);
        let error = survey_of(&disk, &other_identities(NODES)).unwrap_err();
        let (file, witness) = (file(0, FileKind::Log), file(1, FileKind::Snapshot));
        assert_eq!(lost_file(&error), (file, witness));
    }
}

/// A log that starts after a snapshot has had entries, even if it is empty now.
#[test]
fn an_empty_log_behind_a_snapshot_is_a_used_one() {
    let mut disk = founded_cluster();
    let after = LogPoint { index: LogIndex(5), term: Term(1), ..LogPoint::ORIGIN };
    let header = LogHeader { identity: identities(NODES).remove(1), after };
    disk.replace(file(1, FileKind::Log), header.encode());
    disk.remove(file(0, FileKind::Meta));
    let error = survey_of(&disk, &other_identities(NODES)).unwrap_err();
    let (file, witness) = (file(0, FileKind::Meta), file(1, FileKind::Log));
    assert_eq!(lost_file(&error), (file, witness));
}

#[test]
fn a_cluster_with_snapshots_goes_on() {
    let mut disk = used_cluster();
    let mut nodes = survey_of(&disk, &identities(NODES)).unwrap().nodes;
    let last = nodes[2].restored.log[0].last();
    let voters = Voters::new(identities(NODES).iter().map(|identity| identity.node)).unwrap();
    let meta = SnapshotMeta { configuration: Configuration::of_voters(voters), ..snapshot_meta(last) };
    for part in parts(&meta, &content(1, 4), 40) {
        disk.run(&nodes[2].snapshots.plan_part(&part));
    }
    let ops = nodes[2].snapshots.publish(disk.content(file(2, FileKind::SnapshotTemporary))).unwrap();
    disk.run(&ops);
    let again = survey_of(&disk, &other_identities(NODES)).unwrap();
    assert_eq!(again.creation, []);
    let found: Vec<_> = again.nodes.iter().map(|node| node.restored.snapshot.is_some()).collect();
    assert_eq!(found, [false, false, true]);
}

#[test]
fn an_emptied_log_is_a_lost_one() {
    let mut disk = used_cluster();
    for bytes in [Vec::new(), b"{\"format\":\"coracle-log\",\"ver".to_vec(), vec![0; 300]] {
        disk.replace(file(0, FileKind::Log), bytes);
        let error = survey_of(&disk, &identities(NODES)).unwrap_err();
        assert_eq!(lost_file(&error).0, file(0, FileKind::Log));
    }
}

/// An unreadable file may hold a vote or an entry, so no cluster is founded over it.
#[test]
fn nothing_is_founded_over_files_that_cannot_be_read() {
    for kind in [FileKind::Log, FileKind::Meta] {
        let mut disk = founded_cluster();
        disk.remove(file(0, FileKind::Meta));
        let mut bytes = disk.content(file(1, kind)).to_vec();
        bytes[60] ^= 1;
        disk.replace(file(1, kind), bytes);
        let error = survey_of(&disk, &identities(NODES)).unwrap_err();
        assert!(matches!(error, SurveyError::Nodes(_)), "{error}");
        assert!(error.to_string().contains(&format!("; {}, line 1: ", file(1, kind))), "{error}");
    }
}

#[test]
fn a_folder_of_another_size_is_refused() {
    for nodes in [1, 2, 4, 5] {
        for disk in [founded_cluster(), used_cluster()] {
            let error = survey_of(&disk, &identities(nodes)).unwrap_err();
            assert_eq!(error, SurveyError::OtherSize { found: 3 });
            assert_eq!(
                error.to_string(),
                "the folder was created for 3 nodes: start it with --nodes 3, or choose another --data-dir"
            );
        }
    }
}

#[test]
fn files_of_two_clusters_are_refused() {
    let mut disk = founded_cluster();
    let mut other = Disk::default();
    other.run(&survey_of(&other, &other_identities(NODES)).unwrap().creation);
    for kind in [FileKind::Log, FileKind::Meta] {
        disk.replace(file(2, kind), other.content(file(2, kind)).to_vec());
    }
    let error = survey_of(&disk, &identities(NODES)).unwrap_err();
    let expected =
        SurveyError::DifferentClusters { one: file(0, FileKind::Log), other: file(2, FileKind::Log) };
    assert_eq!(error, expected);
}

#[test]
fn a_used_cluster_goes_on() {
    let disk = used_cluster();
    let survey = survey_of(&disk, &identities(NODES)).unwrap();
    let terms: Vec<_> = survey.nodes.iter().map(|node| node.restored.hard_state.current_term).collect();
    assert_eq!(terms, [Term(0), Term(1), Term(1)]);
    assert_eq!(survey.nodes[2].restored.log.len(), 1);
    let mut nodes = survey.nodes;
    let next = entries_after(nodes[2].restored.log[0].last(), 1, &["\"op\":\"NOOP\""]);
    assert_eq!(nodes[2].planner.plan(&[append(2, vec![next])]).len(), 2);
}
