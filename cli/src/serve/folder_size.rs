//! Reads from a data folder how many nodes its cluster has, so that a later start needs no
//! `--nodes`.
//!
//! The header of each log lists all nodes of its cluster. Only their number is used here. The start
//! itself checks whether the files belong to one intact cluster of this size.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use coracle_storage::{FileKind, FileName, Identity, LogHeader};

/// The limit for the length of a header, in bytes. Arbitrary: the headers of a cluster in one
/// process have some 300 bytes.
const HEADER_BYTES_MAX: u64 = 64 << 10;

/// Returns the number of nodes of the cluster in one process whose logs are in the folder; `None`
/// if there are no logs, if they disagree, or if they belong to a cluster of processes.
pub(crate) fn nodes_of(folder: &Path) -> Option<u8> {
    let entries = fs::read_dir(folder).ok()?.filter_map(Result::ok);
    let is_log = |entry: &fs::DirEntry| {
        let name = entry.file_name().into_string().ok().and_then(|name| FileName::parse(&name));
        name.is_some_and(|name| name.kind == FileKind::Log)
    };
    let sizes = entries.filter(is_log).filter_map(|entry| size_in(&entry.path()));
    let mut sizes: Vec<_> = sizes.collect();
    sizes.dedup();
    if let [Some(size)] = sizes[..] { Some(size) } else { None }
}

fn identity_in(log: &Path) -> Option<Identity> {
    let mut line = Vec::new();
    BufReader::new(File::open(log).ok()?.take(HEADER_BYTES_MAX)).read_until(b'\n', &mut line).ok()?;
    Some(LogHeader::decode(&line).ok()?.identity)
}

/// Returns the cluster size in a log's header, if it is readable; `Some(None)` for a log of another
/// kind of cluster.
fn size_in(log: &Path) -> Option<Option<u8>> {
    let identity = identity_in(log)?;
    let size = u8::try_from(identity.voters.len()).ok().filter(|size| (1..=9).contains(size));
    Some(size.filter(|_| identity.roster.is_empty()))
}

#[cfg(test)]
mod tests {
    use coracle_core::raft::{LogPoint, NodeId};
    use coracle_storage::{ClusterId, Incarnation, first_member};

    use super::*;

    fn write(folder: &Path, identity: Identity) {
        let name = FileName::new(identity.node, FileKind::Log).to_string();
        let header = LogHeader { identity, after: LogPoint::ORIGIN };
        fs::write(folder.join(name), header.encode()).unwrap();
    }

    fn identities(count: u64) -> Vec<Identity> {
        let incarnations: Vec<_> = (0..count).map(Incarnation).collect();
        Identity::for_new_cluster(ClusterId(7), &incarnations)
    }

    #[test]
    fn the_number_of_nodes_is_read_from_the_logs() {
        let place = tempfile::tempdir().unwrap();
        assert_eq!(nodes_of(&place.path().join("missing")), None);
        assert_eq!(nodes_of(place.path()), None);
        identities(3).into_iter().for_each(|identity| write(place.path(), identity));
        assert_eq!(nodes_of(place.path()), Some(3));
        fs::write(place.path().join("log01.txt"), "{\"torn").unwrap();
        fs::write(place.path().join("log.txt"), "notes").unwrap();
        assert_eq!(nodes_of(place.path()), Some(3));
    }

    #[test]
    fn logs_that_disagree_give_no_number() {
        let place = tempfile::tempdir().unwrap();
        identities(3).into_iter().for_each(|identity| write(place.path(), identity));
        write(place.path(), identities(5).remove(4));
        assert_eq!(nodes_of(place.path()), None);
        let place = tempfile::tempdir().unwrap();
        write(place.path(), first_member(NodeId(1), "h:1".into(), ClusterId(5), Incarnation(6)));
        assert_eq!(nodes_of(place.path()), None);
    }
}
