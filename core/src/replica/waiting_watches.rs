//! Watches on the replica: records what each entry changes, and answers the requests that wait for
//! changes.
//!
//! A request for changes is answered at once if the history has some for it. Otherwise it waits in
//! an [index](super::watch_index), and a change that concerns it removes it from there. It is
//! answered at the end of the step, with everything that the node has applied by then. A request
//! that no change concerns is answered after [`PROGRESS_INTERVAL`], so that its client knows up to
//! which revision nothing happened.
//!
//! A node that may not answer reads lets requests for changes wait: it may lag far behind, or be
//! removed. The beginning of a watch is rejected instead, as a read is.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::interface::{Answer, Output, RequestId, RequestRefusal};
use super::watch::{
    NodeView, PROGRESS_INTERVAL, VIEW_TIMEOUT, WatchAnswer, WatchLimits, WatchPart, WatchRequest,
};
use super::watch_index::WatchIndex;
use super::{READ_TIMEOUT, Replica};
use crate::kv::{ChangeEvent, ChangedEntry, Changes, History, Level, Revision, Selection, ViewId, ViewPart};
use crate::mutant::{self, Mutant};
use crate::raft::LogIndex;
use crate::time::Instant;

/// The most entries of the history and keys of views that one step looks at, so that ten thousand
/// watchers do not make a step long. One request may exceed it; further ones wait for the next
/// step.
const WATCH_WORK_MAX: usize = 20_000;

/// The watches of a replica. See the module.
#[derive(Debug)]
pub(super) struct WaitingWatches {
    limits: WatchLimits,
    history: History,
    /// Requests that were not looked at yet.
    arrived: VecDeque<Arrived>,
    /// Requests for changes that were looked at, and their index.
    waiting: BTreeMap<RequestId, Waiting>,
    index: WatchIndex,
    /// The times at which they are answered, even if nothing has changed.
    progress: BTreeSet<(Instant, RequestId)>,
    /// Requests that a change concerns, with the entry that made it.
    concerned: VecDeque<(RequestId, Waiting, Revision)>,
    /// The open views, each with the time at which it was read last.
    views: BTreeMap<ViewId, Instant>,
    next_view: u64,
    /// Whether the last step has left requests to the next one.
    has_more: bool,
}

#[derive(Debug)]
struct Arrived {
    id: RequestId,
    request: WatchRequest,
    since: Instant,
}

/// A request for changes. No entry up to `after` concerns it.
#[derive(Debug)]
struct Waiting {
    selection: Selection,
    after: Revision,
    bytes_max: usize,
    /// The time at which it is answered at the latest.
    due: Instant,
}

impl WaitingWatches {
    /// Watches of a map that the entry at `last` was the last one to change.
    pub(super) fn new(limits: WatchLimits, last: LogIndex) -> Self {
        Self {
            limits,
            history: History::new(limits.history, Revision(last.0)),
            arrived: VecDeque::new(),
            waiting: BTreeMap::new(),
            index: WatchIndex::default(),
            progress: BTreeSet::new(),
            concerned: VecDeque::new(),
            views: BTreeMap::new(),
            next_view: 0,
            has_more: false,
        }
    }

    pub(super) fn history(&self) -> &History {
        &self.history
    }

    /// The memory of waiting requests, in bytes.
    pub(super) fn request_bytes(&self) -> usize {
        /// A request with its places in three maps. Approximate.
        const REQUEST_BYTES: usize = 512;
        REQUEST_BYTES * (self.arrived.len() + self.waiting.len() + self.concerned.len())
    }

    /// Adds the changes of the entry at `rev`, and finds the requests that they concern.
    fn note(&mut self, rev: Revision, changes: Changes) {
        if !self.waiting.is_empty() {
            let index = &mut self.index;
            let concerned = changes.as_slice().iter().flat_map(|event| index.pop_concerned(event));
            for id in concerned {
                let Some(waiting) = self.waiting.remove(&id) else { continue };
                self.progress.remove(&(waiting.due, id));
                self.concerned.push_back((id, waiting, rev));
            }
        }
        self.history.push(rev, changes);
    }

    fn wait(&mut self, id: RequestId, waiting: Waiting) {
        self.index.insert(id, &waiting.selection);
        self.progress.insert((waiting.due, id));
        self.waiting.insert(id, waiting);
    }

    /// Collects the changes after `after`, and returns them with the revision up to which they are
    /// complete, and the number of entries that were looked at.
    fn collect(
        &self,
        Waiting { selection, bytes_max, .. }: &Waiting,
        after: Revision,
        applied: Revision,
    ) -> (Vec<ChangedEntry>, Revision, usize) {
        let (mut entries, mut bytes, mut looked_at) = (Vec::<ChangedEntry>::new(), 0, 0);
        for entry in self.history.after(after) {
            looked_at += 1;
            let changes = selection.of(&entry.changes);
            if changes.is_empty() {
                continue;
            }
            bytes += changes.as_slice().iter().map(ChangeEvent::text_bytes).sum::<usize>();
            if bytes > *bytes_max
                && let Some(last) = entries.last()
            {
                let up_to = last.rev;
                return (entries, up_to, looked_at);
            }
            entries.push(ChangedEntry { rev: entry.rev, changes });
        }
        (entries, after.max(applied), looked_at)
    }
}

impl Replica {
    /// The history ring.
    #[must_use]
    pub fn history(&self) -> &History {
        self.watches.history()
    }

    /// The number of open views, and the number of bytes of old content in them.
    #[must_use]
    pub fn views(&self) -> (usize, usize) {
        (self.state.views().len(), self.state.views().bytes())
    }

    pub(super) fn take_watch_request(&mut self, id: RequestId, request: WatchRequest, now: Instant) {
        self.watches.arrived.push_back(Arrived { id, request, since: now });
    }

    /// Records what the entry at `rev`, which was just applied, has changed.
    #[inline]
    pub(super) fn note_changes(&mut self, rev: Revision) {
        if self.state.store().first_revision() == rev {
            self.watches.history.level_raised(rev);
        }
        let changes = self.state.take_changes();
        if !changes.is_empty() {
            self.watches.note(rev, changes);
        }
    }

    /// Notes that a snapshot up to `last` has replaced the map. The changes before it are
    /// not known, so waiting watches end.
    pub(super) fn restart_history(&mut self, last: LogIndex, outputs: &mut Vec<Output>) {
        let (watches, before) = (&mut self.watches, Revision(self.last_applied.0));
        let waiting = std::mem::take(&mut watches.waiting);
        let waiting = waiting.into_iter().map(|(id, waiting)| (id, waiting, before));
        let concerned = std::mem::take(&mut watches.concerned).into_iter();
        let concerned = concerned.map(|(id, waiting, first)| (id, waiting, Revision(first.0 - 1)));
        watches.index = WatchIndex::default();
        watches.progress.clear();
        watches.views.clear();
        watches.history.restart_unless_mutant(Revision(last.0));
        for (id, waiting, before) in waiting.chain(concerned) {
            let after = waiting.after.max(before);
            if after.0 < last.0 {
                outputs.push(answer(id, lagged_after(after)));
            } else {
                // It has the changes that the snapshot covers from another node.
                watches.wait(id, waiting);
            }
        }
    }

    /// Answers the watch requests that have something to be told.
    pub(super) fn answer_watches(&mut self, now: Instant, outputs: &mut Vec<Output>) {
        self.watches.has_more = false;
        self.close_views(now);
        let may_answer = self.may_answer(LogIndex::ORIGIN);
        if may_answer {
            self.answer_concerned(outputs);
        }
        self.look_at_arrived(may_answer, now, outputs);
        let watches = &mut self.watches;
        while may_answer
            && let Some((_, id)) = first_due(&mut watches.progress, now)
            && let Some(waiting) = watches.waiting.remove(&id)
        {
            watches.index.remove(id, &waiting.selection);
            let up_to = waiting.after.max(Revision(self.last_applied.0));
            outputs.push(answer(id, WatchAnswer::Changes { entries: Vec::new(), up_to }));
        }
    }

    fn answer_concerned(&mut self, outputs: &mut Vec<Output>) {
        let (watches, applied) = (&mut self.watches, Revision(self.last_applied.0));
        let mut work = 0;
        while work < WATCH_WORK_MAX
            && let Some((id, waiting, first)) = watches.concerned.pop_front()
        {
            let after = waiting.after.max(Revision(first.0 - 1));
            if !watches.history.reaches(after) {
                outputs.push(answer(id, lagged_after(after)));
                continue;
            }
            let (entries, up_to, looked_at) = watches.collect(&waiting, after, applied);
            work += looked_at + 1;
            if entries.is_empty() || mutant::is_active(Mutant::WatchNotWoken) {
                // The watch has these changes from another node, which was ahead of this one.
                watches.wait(id, waiting);
            } else {
                outputs.push(answer(id, WatchAnswer::Changes { entries, up_to }));
            }
        }
        watches.has_more |= !watches.concerned.is_empty();
    }

    fn look_at_arrived(&mut self, may_answer: bool, now: Instant, outputs: &mut Vec<Output>) {
        let (mut work, mut left) = (0, VecDeque::new());
        while work < WATCH_WORK_MAX
            && let Some(Arrived { id, request, since }) = self.watches.arrived.pop_front()
        {
            let WatchRequest { selection, part } = &request;
            let answered = match part {
                WatchPart::Start { at_least, .. } if !self.may_answer(*at_least) => {
                    let is_in_vain = self.node.leader().is_none() || now.since(since) > READ_TIMEOUT;
                    is_in_vain.then_some(Answer::Refused(RequestRefusal::CatchingUp))
                }
                WatchPart::Start { from, wants_content, bytes_max, .. } => {
                    let content = wants_content.then_some(*bytes_max);
                    Some(self.start_watch(selection, *from, content, now, &mut work))
                }
                _ if !may_answer => None,
                WatchPart::Content { view, bytes_max } => {
                    Some(self.read_content(*view, *bytes_max, now, &mut work))
                }
                WatchPart::Changes { after, bytes_max } => {
                    let (selection, due) = (selection.clone(), now + PROGRESS_INTERVAL);
                    let waiting = Waiting { selection, after: *after, bytes_max: *bytes_max, due };
                    match self.next_changes(id, waiting, &mut work) {
                        Some(given) => Some(given),
                        None => continue,
                    }
                }
            };
            match answered {
                Some(answered) => outputs.push(Output::Answer(id, answered)),
                None => left.push_back(Arrived { id, request, since }),
            }
        }
        self.watches.has_more |= !self.watches.arrived.is_empty();
        left.append(&mut self.watches.arrived);
        self.watches.arrived = left;
    }

    /// Begins a watch: with the first part of its content, if that was requested.
    fn start_watch(
        &mut self,
        selection: &Selection,
        from: Option<Revision>,
        content: Option<usize>,
        now: Instant,
        work: &mut usize,
    ) -> Answer {
        *work += 1;
        if self.level() < Level::REVISIONS {
            return Answer::Refused(RequestRefusal::NotYet);
        }
        let applied = Revision(self.last_applied.0);
        let after = from.map_or(applied, |from| Revision(from.0.saturating_sub(1 + repeated_by_mutant())));
        if !self.watches.history.reaches(after) {
            return Answer::Watch(Box::new(WatchAnswer::Compacted { oldest: self.watches.history.oldest() }));
        }
        let Some(bytes_max) = content else {
            return Answer::Watch(Box::new(WatchAnswer::Started { after, content: None }));
        };
        let id = ViewId(self.watches.next_view);
        self.watches.next_view += 1;
        self.state.open_view(id, selection, self.watches.limits.view_bytes);
        let part = self.state.read_view(id, bytes_max).expect("the view was just opened");
        *work += part.items.len();
        if !part.is_last && self.watches.views.len() >= self.watches.limits.views {
            self.state.close_view(id);
            return Answer::Refused(RequestRefusal::Overloaded);
        }
        if !part.is_last {
            self.watches.views.insert(id, now);
        }
        let view = NodeView { node: self.node.id(), id, as_of: applied };
        Answer::Watch(Box::new(WatchAnswer::Started { after, content: Some((view, part)) }))
    }

    fn read_content(&mut self, view: NodeView, bytes_max: usize, now: Instant, work: &mut usize) -> Answer {
        let NodeView { node, id, as_of } = view;
        let part = if node == self.node.id() { self.state.read_view(id, bytes_max) } else { None };
        let Some(part) = part else {
            self.watches.views.remove(&id);
            return Answer::Watch(Box::new(WatchAnswer::Lagged { resume: as_of }));
        };
        *work += part.items.len() + 1;
        if part.is_last {
            self.watches.views.remove(&id);
        } else {
            self.watches.views.insert(id, now);
        }
        let as_of = self.later_by_mutant(&part).unwrap_or(as_of);
        Answer::Watch(Box::new(WatchAnswer::Content { part, as_of }))
    }

    /// Answers a request for changes, or lets it wait.
    fn next_changes(&mut self, id: RequestId, waiting: Waiting, work: &mut usize) -> Option<Answer> {
        let watches = &mut self.watches;
        *work += 1;
        if !watches.history.reaches(waiting.after) {
            return Some(Answer::Watch(Box::new(lagged_after(waiting.after))));
        }
        let applied = Revision(self.last_applied.0);
        let (entries, up_to, looked_at) = watches.collect(&waiting, waiting.after, applied);
        *work += looked_at;
        if entries.is_empty() {
            watches.wait(id, Waiting { after: up_to, ..waiting });
            return None;
        }
        Some(Answer::Watch(Box::new(WatchAnswer::Changes { entries, up_to })))
    }

    /// Closes the views that no one reads, and forgets those that were dropped.
    fn close_views(&mut self, now: Instant) {
        let state = &mut self.state;
        self.watches.views.retain(|id, read_at| {
            if now.since(*read_at) >= VIEW_TIMEOUT {
                state.close_view(*id);
            }
            state.views().contains(*id)
        });
    }

    /// When the next step is due for watches; `None`: not before something arrives.
    pub(super) fn watch_deadline(&self) -> Option<Instant> {
        let watches = &self.watches;
        if !self.may_answer(LogIndex::ORIGIN) {
            return None;
        }
        if watches.has_more {
            return Some(Instant::default());
        }
        let progress = watches.progress.first().map(|(due, _)| *due);
        let views = watches.views.values().min().map(|read_at| *read_at + VIEW_TIMEOUT);
        progress.into_iter().chain(views).min()
    }

    /// Deliberate bug: the last part of initial content states the present revision as its own, so
    /// that the changes made since its beginning are lost.
    fn later_by_mutant(&self, part: &ViewPart) -> Option<Revision> {
        let is_lost = mutant::is_active(Mutant::ChangesAfterViewLost);
        (part.is_last && is_lost).then_some(Revision(self.last_applied.0))
    }
}

/// Removes the first request that is due.
fn first_due(progress: &mut BTreeSet<(Instant, RequestId)>, now: Instant) -> Option<(Instant, RequestId)> {
    if progress.first()?.0 <= now { progress.pop_first() } else { None }
}

fn answer(id: RequestId, given: WatchAnswer) -> Output {
    Output::Answer(id, Answer::Watch(Box::new(given)))
}

/// The end of a watch that has all changes up to `after`.
fn lagged_after(after: Revision) -> WatchAnswer {
    WatchAnswer::Lagged { resume: Revision(after.0 + 1 + skipped_by_mutant()) }
}

/// Deliberate bug: how many entries a watch that lags is told to leave out.
fn skipped_by_mutant() -> u64 {
    u64::from(mutant::is_active(Mutant::LaggedTooFar))
}

/// Deliberate bug: how many entries a watch that is resumed gets again.
fn repeated_by_mutant() -> u64 {
    u64::from(mutant::is_active(Mutant::ResumptionRepeats))
}
