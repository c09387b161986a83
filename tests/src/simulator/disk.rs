//! Simulated disk with crash semantics: at a crash, data that was written but not synced may be
//! lost, in part and down to a single byte.
//!
//! The model: changes to one file reach the disk in their order, and the last one to do so may be
//! torn at any byte, or have zeros in place of some of its sectors. Changes of names (create,
//! rename, remove) reach it in their order, independently of the files' contents. A sync makes one
//! file, or the names, durable.
//!
//! A file is stored as it is *now*, with an undo record per unsynced change. So a log that grows
//! for minutes takes no more memory than its bytes.

use std::collections::BTreeMap;

use coracle_core::raft::NodeId;
use coracle_storage::{FileKind, FileName, FileOp, NodeFiles};

use super::dice::Dice;

/// The unit that a disk writes as a whole or not at all.
const SECTOR_BYTES: usize = 512;

/// A file's content, and the undo records of its unsynced changes.
#[derive(Clone, Debug, Default)]
struct Content {
    bytes: Vec<u8>,
    unsynced: Vec<Undo>,
}

/// How to take one change of a file back.
#[derive(Clone, Debug)]
enum Undo {
    /// Bytes were appended at this length.
    Append(usize),
    /// These bytes were overwritten at this position.
    Overwrite(usize, Vec<u8>),
    /// These bytes were truncated.
    Truncate(Vec<u8>),
}

/// A change of names that is not durable yet, with the names before it.
#[derive(Clone, Debug)]
struct NameChange {
    before: Vec<(FileName, Option<usize>)>,
}

/// One node's disk.
#[derive(Clone, Debug, Default)]
pub struct SimDisk {
    contents: BTreeMap<usize, Content>,
    /// The number of contents that were ever created.
    made: usize,
    names: BTreeMap<FileName, usize>,
    name_changes: Vec<NameChange>,
}

impl SimDisk {
    /// Executes an operation, as far as a program can see.
    ///
    /// # Panics
    ///
    /// When the operation concerns a file that does not exist, which is a bug of the planner.
    pub fn run(&mut self, op: &FileOp) {
        match op {
            FileOp::Create { file, bytes } => {
                if self.names.contains_key(file) {
                    // The file exists and is emptied: its old content is lost at once, or comes
                    // back as a whole.
                    let content = self.content(*file);
                    content.unsynced.push(Undo::Truncate(std::mem::take(&mut content.bytes)));
                    content.unsynced.push(Undo::Append(0));
                    content.bytes.clone_from(bytes);
                    return;
                }
                let unsynced = vec![Undo::Append(0)];
                self.contents.insert(self.made, Content { bytes: bytes.clone(), unsynced });
                self.rename_all(vec![(*file, Some(self.made))]);
                self.made += 1;
            }
            FileOp::Append { file, entries } => {
                let content = self.content(*file);
                content.unsynced.push(Undo::Append(content.bytes.len()));
                for run in entries {
                    content.bytes.extend_from_slice(run.text().as_bytes());
                }
            }
            FileOp::AppendText { file, text } => {
                let content = self.content(*file);
                content.unsynced.push(Undo::Append(content.bytes.len()));
                content.bytes.extend_from_slice(text.as_bytes());
            }
            FileOp::Overwrite { file, at, bytes } => {
                let content = self.content(*file);
                let start = usize::try_from(*at).expect("a simulated file is small");
                let place = &mut content.bytes[start..start + bytes.len()];
                let before = place.to_vec();
                place.copy_from_slice(bytes);
                content.unsynced.push(Undo::Overwrite(start, before));
            }
            FileOp::Truncate { file, len } => {
                let content = self.content(*file);
                let cut = content.bytes.split_off(usize::try_from(*len).expect("a simulated file is small"));
                content.unsynced.push(Undo::Truncate(cut));
            }
            FileOp::Sync { file } => self.content(*file).unsynced.clear(),
            FileOp::Rename { from, to } => {
                let content = self.names.get(from).copied();
                assert!(content.is_some(), "{from} is renamed and not there");
                self.rename_all(vec![(*from, None), (*to, content)]);
            }
            FileOp::Remove { file } => self.rename_all(vec![(*file, None)]),
            FileOp::SyncFolder => {
                self.name_changes.clear();
                self.free_nameless();
            }
        }
    }

    /// Simulates a power failure: the dice decide which unsynced changes survive.
    pub fn crash(&mut self, dice: &mut Dice) {
        let lost_names = dice.position(self.name_changes.len() + 1);
        for change in self.name_changes.drain(..).rev().take(lost_names) {
            for (name, content) in change.before.into_iter().rev() {
                set_name(&mut self.names, name, content);
            }
        }
        self.free_nameless();
        for content in self.names.values() {
            if let Some(content) = self.contents.get_mut(content) {
                content.crash(dice);
            }
        }
    }

    /// Frees contents that have no name and cannot get one back: a run creates tens of thousands of
    /// snapshots.
    fn free_nameless(&mut self) {
        let names = &self.names;
        self.contents.retain(|content, _| names.values().any(|named| named == content));
    }

    /// Returns the files as a starting node finds them.
    #[must_use]
    pub fn files(&self, node: NodeId) -> NodeFiles {
        let bytes = |kind| {
            let content = self.names.get(&FileName::new(node, kind))?;
            Some(self.contents[content].bytes.clone())
        };
        NodeFiles {
            log: bytes(FileKind::Log),
            meta: bytes(FileKind::Meta),
            snapshot: bytes(FileKind::Snapshot),
            founding: bytes(FileKind::Founding),
            has_cut_bytes: bytes(FileKind::LogCut).is_some(),
        }
    }

    /// The names of all existing files of all nodes.
    #[must_use]
    pub fn names(&self) -> Vec<FileName> {
        self.names.keys().copied().collect()
    }

    /// Returns a file's bytes, as a program would read them now.
    #[must_use]
    pub fn read(&self, file: FileName) -> Option<&[u8]> {
        self.names.get(&file).map(|content| self.contents[content].bytes.as_slice())
    }

    /// Returns whether all changes are durable.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        let contents_are = self.names.values().all(|content| self.contents[content].unsynced.is_empty());
        self.name_changes.is_empty() && contents_are
    }

    /// Returns the disk that would be found if the power failed now and no unsynced change
    /// survived.
    #[must_use]
    pub fn durable_image(&self) -> Self {
        let mut image = self.clone();
        // Dice on an ended tape make the first choice everywhere, so they would lose nothing.
        // Therefore the changes are undone explicitly.
        for change in image.name_changes.drain(..).rev() {
            for (name, content) in change.before.into_iter().rev() {
                set_name(&mut image.names, name, content);
            }
        }
        image.contents.values_mut().for_each(Content::lose_all);
        image
    }

    /// Flips a bit of an existing file. Returns whether it did.
    pub fn flip_bit(&mut self, file: FileName, dice: &mut Dice) -> bool {
        let content = self.names.get(&file).and_then(|content| self.contents.get_mut(content));
        let Some(Content { bytes, .. }) = content else { return false };
        if bytes.is_empty() {
            return false;
        }
        let at = dice.position(bytes.len());
        bytes[at] ^= 1 << dice.below(8);
        true
    }

    fn content(&mut self, file: FileName) -> &mut Content {
        let content = self.names.get(&file).and_then(|content| self.contents.get_mut(content));
        content.unwrap_or_else(|| panic!("{file} is written and not there"))
    }

    fn rename_all(&mut self, changes: Vec<(FileName, Option<usize>)>) {
        let mut before = Vec::new();
        for (name, content) in changes {
            before.push((name, self.names.get(&name).copied()));
            set_name(&mut self.names, name, content);
        }
        self.name_changes.push(NameChange { before });
    }
}

impl Content {
    fn crash(&mut self, dice: &mut Dice) {
        let lost = dice.position(self.unsynced.len() + 1);
        for _ in 0..lost {
            self.undo();
        }
        // The last surviving change may survive in part: an append up to any byte, or with holes.
        if let Some(Undo::Append(from)) = self.unsynced.last() {
            let from = *from;
            let written = self.bytes.len() - from;
            if dice.happens(250) {
                self.lose_sectors(from, dice);
            } else if lost == 0 || dice.happens(500) {
                let torn = dice.position(written + 1);
                self.bytes.truncate(from + written - torn);
            }
        }
        self.unsynced.clear();
    }

    /// Fills some of the sectors that a write at this length has touched with zeros, which is what
    /// was there before behind the old length.
    fn lose_sectors(&mut self, from: usize, dice: &mut Dice) {
        let mut at = from;
        while at < self.bytes.len() {
            let end = (at / SECTOR_BYTES + 1) * SECTOR_BYTES;
            let end = end.min(self.bytes.len());
            if dice.happens(500) {
                self.bytes[at..end].fill(0);
            }
            at = end;
        }
    }

    fn lose_all(&mut self) {
        while !self.unsynced.is_empty() {
            self.undo();
        }
    }

    fn undo(&mut self) {
        match self.unsynced.pop() {
            None => {}
            Some(Undo::Append(len)) => self.bytes.truncate(len),
            Some(Undo::Overwrite(at, before)) => self.bytes[at..at + before.len()].copy_from_slice(&before),
            Some(Undo::Truncate(cut)) => self.bytes.extend_from_slice(&cut),
        }
    }
}

fn set_name(names: &mut BTreeMap<FileName, usize>, name: FileName, content: Option<usize>) {
    match content {
        Some(content) => drop(names.insert(name, content)),
        None => drop(names.remove(&name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: FileName = FileName::new(NodeId(0), FileKind::Log);

    fn disk_with(synced: &[u8], unsynced: &[u8]) -> SimDisk {
        let mut disk = SimDisk::default();
        disk.run(&FileOp::Create { file: LOG, bytes: synced.to_vec() });
        disk.run(&FileOp::Sync { file: LOG });
        disk.run(&FileOp::SyncFolder);
        let at = synced.len() as u64 - unsynced.len() as u64;
        disk.run(&FileOp::Overwrite { file: LOG, at, bytes: unsynced.to_vec() });
        disk
    }

    #[test]
    fn synced_bytes_survive_a_crash_and_others_may_not() {
        let mut kept = 0;
        for seed in 0..100 {
            let mut disk = disk_with(b"abcdef", b"XY");
            disk.crash(&mut Dice::from_seed(seed));
            let log = disk.files(NodeId(0)).log.unwrap();
            assert!(log == b"abcdef" || log == b"abcdXY", "{log:?}");
            kept += usize::from(log == b"abcdXY");
        }
        assert!((1..100).contains(&kept), "{kept}");
    }

    #[test]
    fn the_durable_image_has_only_synced_bytes() {
        let disk = disk_with(b"abcdef", b"XY");
        assert!(!disk.is_synced());
        assert_eq!(disk.durable_image().files(NodeId(0)).log.unwrap(), b"abcdef");
        let mut synced = disk.clone();
        synced.run(&FileOp::Sync { file: LOG });
        assert!(synced.is_synced());
        assert_eq!(synced.durable_image().files(NodeId(0)).log.unwrap(), b"abcdXY");
    }

    #[test]
    fn an_unsynced_name_may_be_lost() {
        let mut found = [0; 2];
        for seed in 0..50 {
            let mut disk = SimDisk::default();
            disk.run(&FileOp::Create { file: LOG, bytes: b"x".to_vec() });
            disk.run(&FileOp::Sync { file: LOG });
            disk.crash(&mut Dice::from_seed(seed));
            found[usize::from(disk.files(NodeId(0)).log.is_some())] += 1;
        }
        assert!(found[0] > 0 && found[1] > 0, "{found:?}");
    }
}
