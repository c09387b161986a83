//! Watches: the lines of a watch are exactly the changes that the committed log makes to the
//! selected keys, each once, in the order of revisions, and no entry is split.
//!
//! The expected changes come from the replay of the committed log by an independent implementation.
//! A watch that lags may only be told to resume where it has everything before; its initial content
//! is the content as of the revision that its last line states. The history ring and the views of a
//! node stay within their limits.

use std::collections::BTreeMap;

use coracle_core::kv::Revision;
use coracle_core::raft::LogIndex;
use coracle_core::{Replica, WatchLimits};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::linearizability::Model;
use super::{Invariants, Verdict, Violation, require};

/// The keys that a watcher has selected.
#[derive(Clone, Debug)]
pub enum Selected {
    /// One key.
    Key(String),
    /// All keys with a prefix.
    Prefix(String),
}

impl Selected {
    fn selects(&self, key: &str) -> bool {
        match self {
            Self::Key(selected) => key == selected,
            Self::Prefix(prefix) => key.get(..prefix.len()) == Some(prefix),
        }
    }

    fn member(&self) -> String {
        match self {
            Self::Key(key) => format!("\"key\":\"{key}\""),
            Self::Prefix(prefix) => format!("\"prefix\":\"{prefix}\""),
        }
    }
}

/// The state of a watch, as its client knows it.
#[derive(Clone, Debug)]
pub enum Followed {
    /// It begins with the present.
    Fresh,
    /// Its initial content is being read: the lines so far, as of this revision.
    Content(Option<u64>, Vec<Event>),
    /// It has all changes up to this revision.
    After(u64),
}

/// The reaction of a watcher to a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It reads on.
    GoOn,
    /// It begins again at another node.
    End,
    /// The same, but it has missed changes.
    Gone,
}

/// An event of a line.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Event {
    key: String,
    value: Option<serde_json::Value>,
    #[serde(default)]
    deleted: bool,
    because: Option<String>,
    rev: u64,
}

/// A line of a watch.
#[derive(Deserialize)]
struct Line<'a> {
    watch: u64,
    rev: Option<u64>,
    cluster: Option<&'a str>,
    events: Option<Vec<Event>>,
    current: Option<bool>,
    error: Option<&'a str>,
    oldest: Option<u64>,
    #[serde(borrow)]
    status: Option<&'a RawValue>,
}

impl Followed {
    /// A watch that begins with the present, perhaps with its content.
    pub(in super::super) fn fresh(wants_content: bool) -> Self {
        if wants_content { Self::Content(None, Vec::new()) } else { Self::Fresh }
    }

    /// A watch that begins after this revision.
    pub(in super::super) fn after(rev: u64) -> Self {
        Self::After(rev)
    }

    /// The revision up to which it has all changes, if it has.
    pub(in super::super) fn after_rev(&self) -> Option<u64> {
        if let Self::After(rev) = self { Some(*rev) } else { None }
    }

    /// The line with which a client begins or resumes the watch.
    pub(in super::super) fn request(&mut self, selected: &Selected, cluster: &str) -> String {
        let how = match self {
            Self::Fresh => String::new(),
            Self::Content(as_of, events) => {
                *as_of = None;
                events.clear();
                ",\"initial\":true".to_owned()
            }
            Self::After(rev) => format!(",\"from\":{}", *rev + 1),
        };
        format!("{{\"op\":\"watch\",{}{how},\"cluster\":\"{cluster}\"}}\n", selected.member())
    }
}

fn violated(what: String) -> Violation {
    Violation { property: "watches", what }
}

impl Invariants {
    /// Checks a line that a watcher receives.
    pub(in super::super) fn hear_watch(
        &self,
        selected: &Selected,
        followed: &mut Followed,
        text: &str,
    ) -> Result<Heard, Violation> {
        let line: Line<'_> =
            serde_json::from_str(text).map_err(|error| violated(format!("{error}: {text}")))?;
        require(line.watch == 1, "watches", || format!("{text} is of another watch"))?;
        let committed = self.committed.len() as u64;
        if let Some(error) = line.error {
            return self.hear_end(selected, followed, error, line.rev.or(line.oldest));
        }
        let rev = line.rev.ok_or_else(|| violated(format!("{text} has no revision")))?;
        let is_future = matches!(followed, Followed::After(after) if rev <= *after);
        require(rev <= committed || is_future, "watches", || format!("{text} is beyond {committed}"))?;
        if line.status.is_some() {
            require(line.cluster.is_some(), "watches", || format!("{text} names no cluster"))?;
            match followed {
                Followed::Fresh => *followed = Followed::After(rev),
                Followed::Content(as_of, _) => *as_of = Some(rev),
                Followed::After(after) => require(rev == *after, "watches", || {
                    format!("{text} begins after {rev} and not after {after}")
                })?,
            }
            return Ok(Heard::GoOn);
        }
        match followed {
            Followed::Fresh => return Err(violated(format!("{text} comes before the watch has begun"))),
            Followed::Content(as_of, so_far) => {
                require(*as_of == Some(rev), "watches", || format!("{text} is not as of {as_of:?}"))?;
                so_far.extend(line.events.unwrap_or_default());
                if line.current == Some(true) {
                    self.check_content(selected, rev, so_far)?;
                    *followed = Followed::After(rev);
                }
            }
            Followed::After(after) => {
                self.check_changes(selected, *after, rev, line.events.as_deref(), text)?;
                *after = rev.max(*after);
            }
        }
        Ok(Heard::GoOn)
    }

    /// Checks the end of a watch.
    fn hear_end(
        &self,
        selected: &Selected,
        followed: &Followed,
        error: &str,
        rev: Option<u64>,
    ) -> Result<Heard, Violation> {
        match (error, followed) {
            ("lagged", Followed::After(after)) => {
                let resume = rev.unwrap_or_default();
                let missed = self.model.changes_between(selected, *after, resume.saturating_sub(1));
                require(resume > 0 && missed.is_empty(), "watches", || {
                    format!("a watch that has everything up to {after} is told to resume from {resume}")
                })?;
                Ok(Heard::End)
            }
            ("compacted", Followed::After(after)) => {
                require(rev > Some(*after + 1), "watches", || {
                    format!("a watch is told that {rev:?} is too late for what follows {after}")
                })?;
                Ok(Heard::Gone)
            }
            ("no_leader", _) | ("lagged", Followed::Content(Some(_), _)) => Ok(Heard::End),
            _ => Err(violated(format!("{followed:?} ends with {error}"))),
        }
    }

    /// Checks the changes of the line at `rev` of a watch that had everything up to `after`. No
    /// events: progress.
    fn check_changes(
        &self,
        selected: &Selected,
        after: u64,
        rev: u64,
        events: Option<&[Event]>,
        text: &str,
    ) -> Verdict {
        let mut expected = self.model.changes_between(selected, after, rev);
        let Some(events) = events else {
            return require(expected.is_empty(), "watches", || {
                format!("{text} passes over {expected:?} after {after}")
            });
        };
        require(rev > after, "watches", || format!("{text} comes after {after}"))?;
        let own = expected.remove(&rev).unwrap_or_default();
        require(expected.is_empty(), "watches", || format!("{text} passes over {expected:?} after {after}"))?;
        let mut found = BTreeMap::new();
        for event in events {
            let because = if self.model.is_tick(LogIndex(rev)) { "expire" } else { "delete" };
            let is_removal = event.deleted && event.because.as_deref() == Some(because);
            let is_whole = event.rev == rev && event.value.is_some() != is_removal;
            let is_new = found.insert(event.key.clone(), event.value.clone()).is_none();
            require(is_whole && is_new, "watches", || format!("{text} has a wrong event"))?;
        }
        let own: BTreeMap<_, _> =
            own.into_iter().map(|(key, json)| (key, json.as_deref().map(parsed))).collect();
        require(found == own, "watches", || format!("{text}, and the log says {own:?}"))
    }

    fn check_content(&self, selected: &Selected, rev: u64, found: &[Event]) -> Verdict {
        let index = LogIndex(rev);
        let keys = self.model.map_at(index).filter(|(key, _)| selected.selects(key));
        let expected = keys.map(|(key, json)| {
            let meta = self.model.meta_at(key, index).unwrap_or_default();
            (key.to_owned(), Some(parsed(json)), meta.rev)
        });
        let expected: Vec<_> = expected.collect();
        let found: Vec<_> =
            found.iter().map(|event| (event.key.clone(), event.value.clone(), Revision(event.rev))).collect();
        require(found == expected, "watches", || {
            format!("the content as of {rev} is {found:?}, and the log says {expected:?}")
        })
    }

    /// Checks that a watch has received everything.
    pub(in super::super) fn watch_at_rest(&self, selected: &Selected, followed: &Followed) -> Verdict {
        let committed = self.committed.len() as u64;
        let Followed::After(after) = followed else {
            return Err(violated(format!("it has not come further than {followed:?}")));
        };
        let missed = self.model.changes_between(selected, *after, committed);
        require(missed.is_empty(), "watches", || format!("it was never told of {missed:?} after {after}"))
    }
}

fn parsed(json: &str) -> serde_json::Value {
    serde_json::from_str(json).expect("a value is JSON")
}

impl Model {
    /// The changes of the selected keys by the entries after `after` up to `to`: the new value of
    /// each key, if it has one.
    fn changes_between(
        &self,
        selected: &Selected,
        after: u64,
        to: u64,
    ) -> BTreeMap<u64, BTreeMap<String, Option<String>>> {
        let mut changes = BTreeMap::<_, BTreeMap<_, _>>::new();
        for (index, key) in self.keys_between(LogIndex(after), LogIndex(to)) {
            if selected.selects(key)
                && let Some(value) = self.change_at(key, index)
            {
                changes.entry(index.0).or_default().insert(key.to_owned(), value.map(str::to_owned));
            }
        }
        changes
    }
}

/// Checks the size of what a node keeps for watches.
pub(super) fn check_size(replica: &Replica, limits: WatchLimits) -> Verdict {
    let history = replica.history();
    let is_large = history.events() > limits.history.events || history.text_bytes() > limits.history.bytes;
    let is_latest_alone = is_large && history.after(Revision::NONE).count() <= 1;
    require(!is_large || is_latest_alone, "watches", || {
        format!("the history has {} events, and may have {:?}", history.events(), limits.history)
    })?;
    let (views, bytes) = replica.views();
    require(views <= limits.views && bytes <= views * limits.view_bytes, "watches", || {
        format!("there are {views} views with {bytes} bytes, and the limits are {limits:?}")
    })
}
