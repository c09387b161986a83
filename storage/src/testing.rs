//! Test support: a disk in memory that can lose unsynced changes, and a node that creates random
//! persists and snapshots.
//!
//! The model of the disk: unsynced writes to a file survive a crash up to any byte, in the order
//! they were written, for each file separately; names likewise, up to any of their changes. Blocks
//! of one write that survive out of order are not modelled; recovery refuses or cuts them like any
//! other bad bytes.

use std::collections::BTreeMap;

use coracle_core::raft::{
    BatchBuilder, Checksum, Compaction, Configuration, Entries, HardState, LogChange, LogIndex, LogPoint,
    NodeId, Persist, PersistId, Restored, Runs, SnapshotEnd, SnapshotMeta, SnapshotPart, Term, Voters,
};

use crate::{
    ClusterId, FileKind, FileName, FileOp, Identity, Incarnation, NodeFiles, Recovery, SnapshotPlanner,
    SyncPolicy, survey,
};

pub(crate) const NODE: NodeId = NodeId(0);
pub(crate) const LOG: FileName = FileName::new(NODE, FileKind::Log);
pub(crate) const META: FileName = FileName::new(NODE, FileKind::Meta);
pub(crate) const SNAPSHOT: FileName = FileName::new(NODE, FileKind::Snapshot);
pub(crate) const SNAPSHOT_TEMPORARY: FileName = FileName::new(NODE, FileKind::SnapshotTemporary);

#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    inodes: Vec<Inode>,
    names: BTreeMap<FileName, usize>,
    durable_names: BTreeMap<FileName, usize>,
    unsynced_names: Vec<NameChange>,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    now: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Truncate { len: usize },
}

#[derive(Clone, Copy, Debug)]
enum NameChange {
    Link(FileName, usize),
    Unlink(FileName),
    Rename(FileName, FileName),
}

impl Change {
    /// The number of steps in which it reaches the disk.
    fn steps(&self) -> usize {
        match self {
            Self::Write { bytes, .. } => bytes.len(),
            Self::Truncate { .. } => 1,
        }
    }

    /// Applies the first `steps` steps of it. A write past the end leaves a hole of zeros.
    fn apply(&self, content: &mut Vec<u8>, steps: usize) {
        match self {
            Self::Write { at, bytes } => {
                let bytes = &bytes[..steps];
                content.resize(content.len().max(at + bytes.len()), 0);
                content[*at..at + bytes.len()].copy_from_slice(bytes);
            }
            Self::Truncate { len } if steps > 0 => content.truncate(*len),
            Self::Truncate { .. } => {}
        }
    }
}

fn change_name(names: &mut BTreeMap<FileName, usize>, change: NameChange) {
    match change {
        NameChange::Link(name, inode) => drop(names.insert(name, inode)),
        NameChange::Unlink(name) => drop(names.remove(&name)),
        NameChange::Rename(from, to) => {
            let inode = names.remove(&from).expect("it was there when it was renamed");
            names.insert(to, inode);
        }
    }
}

impl Disk {
    pub(crate) fn run(&mut self, ops: &[FileOp]) {
        ops.iter().for_each(|op| self.apply(op));
    }

    pub(crate) fn apply(&mut self, op: &FileOp) {
        match op {
            FileOp::Create { file, bytes } => {
                if self.names.contains_key(file) {
                    self.rename(NameChange::Unlink(*file));
                }
                self.inodes.push(Inode::default());
                self.rename(NameChange::Link(*file, self.inodes.len() - 1));
                self.change(*file, Change::Write { at: 0, bytes: bytes.clone() });
            }
            FileOp::Append { file, entries } => {
                let bytes = entries.iter().flat_map(|entries| entries.text().bytes()).collect();
                let at = self.content(*file).len();
                self.change(*file, Change::Write { at, bytes });
            }
            FileOp::AppendText { file, text } => {
                let at = self.content(*file).len();
                self.change(*file, Change::Write { at, bytes: text.as_bytes().to_vec() });
            }
            FileOp::Overwrite { file, at, bytes } => {
                let at = usize::try_from(*at).unwrap();
                assert!(at + bytes.len() <= self.content(*file).len(), "overwriting never grows a file");
                self.change(*file, Change::Write { at, bytes: bytes.clone() });
            }
            FileOp::Truncate { file, len } => {
                let len = usize::try_from(*len).unwrap();
                assert!(len <= self.content(*file).len(), "truncating never grows a file");
                self.change(*file, Change::Truncate { len });
            }
            FileOp::Sync { file } => {
                let inode = self.inode(*file);
                for change in std::mem::take(&mut inode.unsynced) {
                    change.apply(&mut inode.durable, change.steps());
                }
            }
            FileOp::Rename { from, to } => self.rename(NameChange::Rename(*from, *to)),
            FileOp::Remove { file } => self.rename(NameChange::Unlink(*file)),
            FileOp::SyncFolder => {
                self.durable_names = self.names.clone();
                self.unsynced_names.clear();
            }
        }
    }

    /// A sync that fails as on ext4: unsynced data stays readable and is never written.
    pub(crate) fn fail_sync(&mut self, file: FileName) {
        self.inode(file).unsynced.clear();
    }

    /// Returns the disk after a power cut. `keep(n)` says how many of the last `n` unsynced steps
    /// have reached it.
    pub(crate) fn crashed(&self, mut keep: impl FnMut(usize) -> usize) -> Self {
        let mut names = self.durable_names.clone();
        let kept = keep(self.unsynced_names.len());
        self.unsynced_names[..kept].iter().for_each(|change| change_name(&mut names, *change));
        let inodes = self.inodes.iter().map(|inode| {
            let mut content = inode.durable.clone();
            let mut steps = keep(inode.unsynced.iter().map(Change::steps).sum());
            for change in &inode.unsynced {
                let done = steps.min(change.steps());
                change.apply(&mut content, done);
                steps -= done;
            }
            Inode { now: content.clone(), durable: content, unsynced: Vec::new() }
        });
        let inodes = inodes.collect();
        Self { inodes, durable_names: names.clone(), names, unsynced_names: Vec::new() }
    }

    pub(crate) fn files(&self, node: NodeId) -> NodeFiles {
        let bytes = |kind| {
            let inode = self.names.get(&FileName::new(node, kind))?;
            Some(self.inodes[*inode].now.clone())
        };
        let has_cut_bytes = bytes(FileKind::LogCut).is_some();
        let (log, meta, snapshot) = (bytes(FileKind::Log), bytes(FileKind::Meta), bytes(FileKind::Snapshot));
        NodeFiles { log, meta, founding: bytes(FileKind::Founding), snapshot, has_cut_bytes }
    }

    pub(crate) fn content(&self, file: FileName) -> &[u8] {
        &self.inodes[self.names[&file]].now
    }

    /// The number of bytes that no sync covers.
    pub(crate) fn unsynced_bytes(&self, file: FileName) -> usize {
        self.inodes[self.names[&file]].unsynced.iter().map(Change::steps).sum()
    }

    pub(crate) fn remove(&mut self, file: FileName) {
        self.run(&[FileOp::Remove { file }, FileOp::SyncFolder]);
    }

    pub(crate) fn replace(&mut self, file: FileName, bytes: Vec<u8>) {
        self.run(&[FileOp::Create { file, bytes }, FileOp::Sync { file }, FileOp::SyncFolder]);
    }

    fn inode(&mut self, file: FileName) -> &mut Inode {
        &mut self.inodes[self.names[&file]]
    }

    fn change(&mut self, file: FileName, change: Change) {
        let inode = self.inode(file);
        change.apply(&mut inode.now, change.steps());
        inode.unsynced.push(change);
    }

    fn rename(&mut self, change: NameChange) {
        change_name(&mut self.names, change);
        self.unsynced_names.push(change);
    }
}

/// The state that has to survive: term, vote, the snapshot's end, the log's start and its text. If
/// the log continues the snapshot, only its part after the snapshot counts. So a log rewrite behind
/// the snapshot, whenever it happens, does not change the state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) hard_state: HardState,
    pub(crate) snapshot: Option<LogPoint>,
    pub(crate) start: LogPoint,
    pub(crate) log: String,
}

impl State {
    pub(crate) fn of(restored: &Restored) -> Self {
        let snapshot = restored.snapshot.as_ref().map(|snapshot| snapshot.meta.last);
        let held = |last: &LogPoint| restored.log.iter().any(|run| run.point_at(last.index) == Some(*last));
        let start = snapshot.filter(held).unwrap_or(restored.log_start);
        let behind = restored.log.iter().filter_map(|run| run.starting_at(start.index.next()));
        let log = behind.map(|run| run.text().to_owned()).collect();
        Self { hard_state: restored.hard_state, snapshot, start, log }
    }
}

pub(crate) fn identities(nodes: u64) -> Vec<Identity> {
    let incarnations: Vec<_> = (0..nodes).map(|node| Incarnation(0xabc0 + node)).collect();
    Identity::for_new_cluster(ClusterId(0xfeed), &incarnations)
}

/// A cluster of one node, just founded.
pub(crate) fn founded(sync: SyncPolicy) -> (Disk, Recovery) {
    let mut disk = Disk::default();
    let mut survey = survey(vec![disk.files(NODE)], &identities(1), sync).unwrap();
    disk.run(&survey.creation);
    (disk, survey.nodes.remove(0))
}

pub(crate) fn entries_after(before: LogPoint, term: u64, payloads: &[&str]) -> Entries {
    let mut builder = BatchBuilder::new(before);
    for payload in payloads {
        builder.seal(Term(term), |text| text.push_str(payload));
    }
    builder.finish().unwrap()
}

pub(crate) fn vote(id: u64, term: u64, candidate: u64) -> Persist {
    let hard_state = HardState { current_term: Term(term), voted_for: Some(NodeId(candidate)) };
    Persist { hard_state: Some(hard_state), ..append(id, Vec::new()) }
}

pub(crate) fn append(id: u64, entries: Vec<Entries>) -> Persist {
    let floor = LogIndex::ORIGIN;
    Persist { id: PersistId(id), hard_state: None, log: LogChange::append(entries.into()), floor }
}

/// A persist that cuts the log and appends entries.
pub(crate) fn cut(id: u64, from: u64, entries: Vec<Entries>) -> Persist {
    let log = LogChange::Append { cut_from: Some(LogIndex(from)), entries: entries.into() };
    Persist { log, ..append(id, Vec::new()) }
}

/// Creates persists as a core does: terms grow, cuts stay above the floor, floors are reported
/// first, and the log is rewritten only behind a published snapshot.
pub(crate) struct RandomNode {
    rng: fastrand::Rng,
    id: u64,
    hard_state: HardState,
    snapshot: Option<LogPoint>,
    /// The log has to be rewritten behind the snapshot.
    compaction: Option<Due>,
    /// The points of the log, beginning with the one that it starts after.
    points: Vec<LogPoint>,
    lines: Vec<String>,
    floor: u64,
    /// The last index at the latest report, or a lower one if the log was cut since.
    reported: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Due {
    /// At any time: the snapshot is of this node's log.
    Sometime,
    /// Before any other change of the log: the snapshot is a leader's.
    AtOnce,
}

impl RandomNode {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            rng: fastrand::Rng::with_seed(seed),
            id: 0,
            hard_state: HardState::default(),
            snapshot: None,
            compaction: None,
            points: vec![LogPoint::ORIGIN],
            lines: Vec::new(),
            floor: 0,
            reported: 0,
        }
    }

    pub(crate) fn state(&self) -> State {
        let held = |last: &LogPoint| self.points.contains(last);
        let start = self.snapshot.filter(held).unwrap_or(self.points[0]);
        let log = self.lines[self.lines_to(start.index.0)..].concat();
        State { hard_state: self.hard_state, snapshot: self.snapshot, start, log }
    }

    /// The point that the log starts after.
    pub(crate) fn log_start(&self) -> LogPoint {
        self.points[0]
    }

    fn start(&self) -> u64 {
        self.points[0].index.0
    }

    fn last(&self) -> u64 {
        self.start() + self.lines.len() as u64
    }

    /// The number of lines up to `index`.
    fn lines_to(&self, index: u64) -> usize {
        usize::try_from(index - self.start()).unwrap()
    }

    /// Marks everything so far as durable.
    pub(crate) fn report(&mut self) {
        self.reported = self.last();
    }

    /// Returns a snapshot now and then, when everything is reported: of this node's log, or a
    /// leader's. It has to be published before the next group. From then on the log counts only as
    /// far as it continues the snapshot.
    pub(crate) fn snapshot(&mut self) -> Option<SnapshotMeta> {
        if self.rng.u8(..3) > 0 || self.hard_state.current_term == Term(0) {
            return None;
        }
        let reaches = self.snapshot.map_or(1, |snapshot| snapshot.index.0);
        if self.rng.bool() && reaches.max(self.start()) <= self.floor {
            let index = self.rng.u64(reaches.max(self.start())..=self.floor);
            self.snapshot = Some(self.points[self.lines_to(index)]);
            // If a leader's snapshot still has to take effect, it stays due at once.
            self.compaction.get_or_insert(Due::Sometime);
        } else {
            let index = LogIndex(self.rng.u64(self.floor + 1..self.last() + 5));
            let (term, checksum) = (self.hard_state.current_term, Checksum(self.rng.u32(..)));
            let last = LogPoint { index, term, checksum };
            (self.snapshot, self.compaction) = (Some(last), Some(Due::AtOnce));
            (self.points, self.lines) = (vec![last], Vec::new());
            (self.floor, self.reported) = (index.0, index.0);
        }
        self.snapshot.map(snapshot_meta)
    }

    /// Returns a group of persists, and every state that a crash may leave while it is written, in
    /// order.
    pub(crate) fn group(&mut self) -> (Vec<Persist>, Vec<State>) {
        let mut states = vec![self.state()];
        let group = (0..self.rng.usize(1..5)).map(|_| self.persist(&mut states)).collect();
        (group, states)
    }

    fn persist(&mut self, states: &mut Vec<State>) -> Persist {
        self.id += 1;
        if self.rng.u8(..3) == 0 {
            self.floor = self.rng.u64(self.floor..=self.reported.max(self.floor));
        }
        let mut persist = append(self.id, Vec::new());
        persist.floor = LogIndex(self.floor);
        if self.rng.u8(..4) == 0 || self.hard_state.current_term == Term(0) {
            let current_term = Term(self.hard_state.current_term.0 + self.rng.u64(..3).max(1));
            let voted_for = self.rng.bool().then(|| NodeId(self.rng.u64(..5)));
            self.hard_state = HardState { current_term, voted_for };
            persist.hard_state = Some(self.hard_state);
            states.push(self.state());
        }
        let is_due = self.compaction == Some(Due::AtOnce) || self.rng.u8(..3) == 0;
        if let Some(due) = self.compaction.take_if(|_| is_due) {
            persist.log = LogChange::Compact(self.compact(states));
            if due == Due::AtOnce && self.rng.bool() {
                persist.floor = LogIndex::ORIGIN;
            }
            states.push(self.state());
            return persist;
        }
        let (mut cut_from, mut entries) = (None, Runs::new());
        if self.rng.u8(..4) == 0 && self.floor < self.last() {
            cut_from = Some(self.cut());
            states.push(self.state());
        }
        for _ in 0..self.rng.usize(..3) {
            entries.push(self.added(states));
        }
        persist.log = LogChange::Append { cut_from, entries };
        persist
    }

    /// Appends new entries, of which a crash may leave a part.
    fn added(&mut self, states: &mut Vec<State>) -> Entries {
        let before = self.lines.len();
        let entries = self.entries();
        let whole = self.state();
        let first = self.lines_to(whole.start.index.0).min(before);
        for lines in before..self.lines.len() {
            states.push(State { log: self.lines[first..=lines].concat(), ..whole.clone() });
        }
        entries
    }

    /// Returns the log after the snapshot, maybe with a cut and with new entries, which are
    /// appended if the log continues the snapshot.
    fn compact(&mut self, states: &mut Vec<State>) -> Compaction {
        let after = self.snapshot.expect("a compaction is behind a snapshot");
        if self.rng.bool() && self.floor < self.last() {
            self.cut();
        }
        let dropped = self.lines_to(after.index.0);
        self.points.drain(..dropped);
        self.lines.drain(..dropped);
        let mut builder = BatchBuilder::new(after);
        let mut entries = Vec::new();
        for line in &self.lines {
            builder.accept(line.trim_end().as_bytes()).unwrap();
            entries.extend(self.rng.bool().then(|| builder.finish().unwrap()));
        }
        entries.extend(builder.finish());
        entries.extend(self.rng.bool().then(|| self.added(states)));
        Compaction { after, entries }
    }

    fn cut(&mut self) -> LogIndex {
        let kept = self.rng.u64(self.floor..self.last());
        let lines = self.lines_to(kept);
        self.lines.truncate(lines);
        self.points.truncate(lines + 1);
        self.reported = self.reported.min(kept);
        LogIndex(kept + 1)
    }

    fn entries(&mut self) -> Entries {
        let mut builder = BatchBuilder::new(*self.points.last().unwrap());
        for _ in 0..self.rng.usize(1..4) {
            let value = "x".repeat(self.rng.usize(..12));
            let payload = format!("\"op\":\"PUT\",\"key\":\"{}\",\"value\":\"{value}\"", self.rng.u32(..));
            self.points.push(builder.seal(self.hard_state.current_term, |text| text.push_str(&payload)));
        }
        let entries = builder.finish().unwrap();
        self.lines.extend(entries.text().split_inclusive('\n').map(str::to_owned));
        entries
    }
}

/// Returns lines as a state machine would write them, different for each seed.
pub(crate) fn content(seed: u64, lines: usize) -> String {
    let mut rng = fastrand::Rng::with_seed(seed);
    let line = |at| format!("{{\"key\":\"größe {at:04}\",\"value\":\"{}\"}}\n", "x".repeat(rng.usize(..30)));
    (0..lines).map(line).collect()
}

pub(crate) fn end_of(content: &str) -> SnapshotEnd {
    SnapshotEnd { bytes: content.len() as u64, checksum: Checksum(crc32fast::hash(content.as_bytes())) }
}

pub(crate) fn snapshot_meta(last: LogPoint) -> SnapshotMeta {
    SnapshotMeta { last, configuration: Configuration::of_voters(Voters::new([NODE]).unwrap()) }
}

/// Splits a snapshot into parts of whole lines, each with at least `bytes_min` bytes except the
/// last.
pub(crate) fn parts(meta: &SnapshotMeta, content: &str, bytes_min: usize) -> Vec<SnapshotPart> {
    let part = |offset, text: &str| {
        let end = (offset + text.len() == content.len()).then(|| end_of(content));
        SnapshotPart { meta: meta.clone(), offset: offset as u64, text: text.into(), end }
    };
    let mut parts = Vec::new();
    let (mut start, mut at) = (0, 0);
    for line in content.split_inclusive('\n') {
        at += line.len();
        if at - start >= bytes_min && at < content.len() {
            parts.push(part(start, &content[start..at]));
            start = at;
        }
    }
    parts.push(part(start, &content[start..]));
    parts
}

/// Writes a whole snapshot and publishes it.
pub(crate) fn publish(disk: &mut Disk, planner: &mut SnapshotPlanner, meta: &SnapshotMeta, content: &str) {
    for part in parts(meta, content, 100) {
        disk.run(&planner.plan_part(&part));
    }
    let ops = planner.publish(disk.content(SNAPSHOT_TEMPORARY)).unwrap();
    disk.run(&ops);
}
