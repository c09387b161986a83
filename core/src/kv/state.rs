//! The state of the state machine: the key-value map and the session table. A snapshot holds
//! exactly this.

use std::collections::VecDeque;
use std::time::Duration;

use super::change::Changes;
use super::checked::{Head, StateLine, StateLineError, accept_line};
use super::command::{Command, Write};
use super::level::Level;
use super::outcome::{Applied, Outcome};
use super::revision::{KeyMeta, Revision};
use super::selection::Selection;
use super::session_table::{Memory, SessionLimits, SessionLines, SessionTable};
use super::store::Store;
use super::text::Key;
use super::ttl::{LogTime, Tick};
use super::views::{ViewId, ViewPart, Views};
use crate::mutant::{self, Mutant};
use crate::time::Instant;

/// The state that the log builds. Equal logs give equal states.
#[derive(Clone, Debug, Default)]
pub struct State {
    store: Store,
    sessions: SessionTable,
    /// The lines of the level and the last tick at the frozen moment, as far as they are not read
    /// yet.
    frozen_lines: VecDeque<String>,
    /// The same of the session table.
    frozen_sessions: SessionLines,
}

/// Two states are equal when their maps and session tables are. A snapshot in progress makes no
/// difference.
impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        (&self.store, &self.sessions) == (&other.store, &other.sessions)
    }
}

impl Eq for State {}

impl State {
    /// The state before the first entry.
    #[must_use]
    pub fn new(limits: SessionLimits) -> Self {
        Self::from_parts(Store::default(), SessionTable::new(limits))
    }

    /// The state before the first entry, with a secret seed for the hash tables. Without one, a
    /// client could choose keys that collide and make look-ups slow. The seed does not affect the
    /// content.
    #[must_use]
    pub fn seeded(limits: SessionLimits, seed: u64) -> Self {
        Self::from_parts(Store::seeded(seed), SessionTable::new(limits))
    }

    /// Builds a state from its parts.
    #[must_use]
    pub fn from_parts(store: Store, sessions: SessionTable) -> Self {
        Self { store, sessions, frozen_lines: VecDeque::new(), frozen_sessions: SessionLines::default() }
    }

    /// Applies a write of the entry at revision `at`, unless its session shows that it was applied
    /// before: then returns its first outcome. A write whose session has expired, or cannot be
    /// remembered, is not applied.
    pub fn apply(&mut self, write: &Write, at: Revision) -> Applied {
        let Some(session) = &write.session else { return self.apply_without_session(&write.command, at) };
        match self.sessions.recall(session) {
            Memory::Done(applied) => self.with_known_meta(applied),
            Memory::Expired => Outcome::SessionExpired.without_meta(),
            Memory::Full => Outcome::TooManySessions.without_meta(),
            Memory::New => {
                let applied = self.store.apply(&write.command, at);
                self.sessions.remember(session, applied.clone());
                applied
            }
        }
    }

    fn apply_without_session(&mut self, command: &Command, at: Revision) -> Applied {
        let (before, _) = self.store.expiries().last_tick();
        let applied = self.store.apply(command, at);
        match command {
            Command::RaiseLevel(_) => self.sessions.keep_by_time(),
            Command::Tick(tick) => {
                self.sessions.ticked(self.store.expiries().last_tick().1, tick.applied >= before);
            }
            _ => {}
        }
        applied
    }

    /// Returns the outcome with the entry that raised the level as the revision, if it is from
    /// before that entry.
    fn with_known_meta(&self, applied: Applied) -> Applied {
        let first = self.store.first_revision();
        let is_of_key = matches!(applied.outcome, Outcome::Done | Outcome::Mismatch { actual: Some(_) });
        let is_old = is_of_key && !applied.meta.is_known() && first > Revision::NONE;
        if is_old { applied.outcome.with_meta(KeyMeta::of(first, first)) } else { applied }
    }

    /// Moves this node's clock on, by which keys expire, before entries are applied.
    pub fn advance(&mut self, now: Instant) {
        self.store.expiries_mut().advance(now);
    }

    /// The index of the last tick, and the time since it was applied, as far as this node knows;
    /// `None`: there was no tick.
    #[must_use]
    pub fn elapsed(&self) -> Option<(Revision, Duration)> {
        let (tick, _) = self.store.expiries().last_tick();
        (tick > Revision::NONE).then(|| (tick, self.store.expiries().elapsed()))
    }

    /// Learns from a leader that at least this time has passed since it applied a tick.
    pub fn learn_elapsed(&mut self, tick: Revision, elapsed: Duration) {
        self.store.expiries_mut().learn_elapsed(tick, elapsed);
    }

    /// When a leader has to propose a tick, if nothing changes before.
    #[must_use]
    pub fn next_tick_at(&self) -> Option<Instant> {
        let for_sessions = self.sessions.next_tick_after();
        let for_sessions = for_sessions.map(|after| self.store.expiries().at_elapsed(after));
        self.store.expiries().next_tick_at().into_iter().chain(for_sessions).min()
    }

    /// Returns whether keys expire or the session table needs log time, so that a leader has to
    /// propose ticks.
    pub(crate) fn needs_ticks(&self) -> bool {
        self.store.expiring_len() > 0 || self.sessions.next_tick_after().is_some()
    }

    /// Returns the tick that a leader has to propose now, if one is due. `applied` is the last
    /// entry that it has applied. `at_least` is the log time by its ticks that are not applied yet,
    /// and `is_proposed` are their keys; `dates`: whether to propose a tick that only dates keys.
    #[must_use]
    pub fn due_tick(
        &self,
        at_least: LogTime,
        applied: Revision,
        dates: bool,
        is_proposed: impl Fn(&Key) -> bool,
    ) -> Option<Tick> {
        let elapsed = self.store.expiries().elapsed();
        let for_sessions = dates && self.sessions.next_tick_after().is_some_and(|after| elapsed >= after);
        let tick = self.store.expiries().due_tick(at_least, applied, dates, is_proposed);
        tick.or_else(|| for_sessions.then(|| self.store.expiries().empty_tick(at_least, applied)))
    }

    /// Removes the changes that [`State::apply`] has made since the last call.
    #[inline]
    pub(crate) fn take_changes(&mut self) -> Changes {
        self.store.take_changes()
    }

    /// Freezes the current content of the selected keys, to be read with [`State::read_view`]. The
    /// view is dropped when it holds more than `bytes_max` bytes of old content.
    pub(crate) fn open_view(&mut self, id: ViewId, selection: &Selection, bytes_max: usize) {
        self.store.open_view(id, selection, bytes_max);
    }

    /// Reads the next items of a view, about `bytes_max` bytes; `None`: the view does not exist, or
    /// held too much. A view that was read entirely is closed.
    pub(crate) fn read_view(&mut self, id: ViewId, bytes_max: usize) -> Option<ViewPart> {
        self.store.read_view(id, bytes_max)
    }

    /// The views.
    pub(crate) fn views(&self) -> &Views {
        &self.store.views
    }

    /// Discards a view.
    pub(crate) fn close_view(&mut self, id: ViewId) {
        self.store.views.close(id);
    }

    /// Freezes the current state, to be read with [`State::read_frozen`] while the state goes on
    /// changing.
    pub fn freeze(&mut self) {
        self.store.freeze();
        let first = self.store.first_revision();
        let Level(level) = self.store.level();
        let level = (first > Revision::NONE).then(|| format!("{{\"level\":{level},\"since\":{first}}}"));
        let (tick, LogTime(time)) = self.store.expiries().last_tick();
        let has_ticked = tick > Revision::NONE && !mutant::is_active(Mutant::LogTimeNotSaved);
        let tick = has_ticked.then(|| format!("{{\"tick\":{tick},\"time_us\":{time}}}"));
        self.frozen_lines = level.into_iter().chain(tick).collect();
        self.frozen_sessions = self.sessions.lines();
    }

    /// Discards the frozen state.
    pub fn thaw(&mut self) {
        self.store.thaw();
        self.frozen_lines.clear();
        self.frozen_sessions = SessionLines::default();
    }

    /// Appends the next lines of the frozen state to `text`, each with its line break, until it
    /// holds `bytes_max` bytes. Returns whether all lines were read. Equal states always give the
    /// same lines.
    pub fn read_frozen(&mut self, text: &mut String, bytes_max: usize) -> bool {
        while text.len() < bytes_max {
            let Some(line) = self.frozen_lines.pop_front().or_else(|| self.frozen_sessions.next()) else {
                return self.store.read_frozen(text, bytes_max);
            };
            text.push_str(&line);
            text.push('\n');
        }
        false
    }

    /// Accepts the next line of [`State::read_frozen`], without its line break, and rejects any
    /// other line.
    ///
    /// # Errors
    ///
    /// [`StateLineError`]; the state is unusable then.
    pub fn restore(&mut self, line: &str) -> Result<(), StateLineError> {
        self.restore_beside(line, None)
    }

    /// Like [`State::restore`], in a process that already holds another node's state `beside`:
    /// equal keys and values share their memory.
    pub(crate) fn restore_beside(&mut self, line: &str, beside: Option<&Self>) -> Result<(), StateLineError> {
        let head = Head { first: self.store.first_revision(), tick: self.store.expiries().last_tick() };
        match accept_line(line, head, &mut self.sessions, self.store.last_key())? {
            StateLine::Level(first) => self.store.restore_level(first),
            StateLine::Tick(tick, time) => self.store.expiries_mut().restore_tick(tick, time),
            StateLine::Session => {}
            StateLine::Key(key, held, expiry) => {
                self.store.restore(&key, held, expiry, beside.map(|beside| &beside.store));
            }
        }
        Ok(())
    }

    /// The key-value map.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The session table.
    #[must_use]
    pub fn sessions(&self) -> &SessionTable {
        &self.sessions
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::{ClientName, Command, Expected, Key, LoggedWrite, Session, Ttl, Txn, Value};

    fn apply(state: &mut State, command: &Command, session: Option<&Session>, at: u64) -> Applied {
        let mut payload = String::new();
        command.write_payload(session, &mut payload);
        state.apply(&LoggedWrite::read(&payload).unwrap().into(), Revision(at))
    }

    fn session(client: &str, seq: u64) -> Session {
        Session::new(ClientName::new(client).unwrap(), seq).unwrap()
    }

    fn write(state: &mut State, rng: &mut fastrand::Rng, at: u64) {
        let values = ["1", "\"a\\\"b\"", "[1e999,null]", "{\"b\":1}"];
        let text = format!("k{}", rng.u32(0..50));
        let key = Key::new(&text).unwrap();
        let value = Value::from_json(values[rng.usize(..values.len())]).unwrap();
        let ttl = Ttl::from_ms(rng.u64(1..500)).unwrap();
        let kind = rng.u32(0..14);
        let command = match kind {
            6..=10 if state.store().level() == Level::FIRST => Command::Put { key, value },
            6 => Command::PutExpiring { key, value, ttl },
            7 => Command::CasExpiring { key, expected: Expected::Absent, value, ttl },
            8 => Command::Touch { key, ttl },
            9 => Command::Persist { key },
            10 => {
                let tick = state.due_tick(LogTime::default(), Revision(rng.u64(..at)), true, |_| false);
                tick.map_or(Command::Persist { key }, |tick| Command::Tick(tick.into()))
            }
            0 => Command::Delete { key },
            1 => Command::Cas { key, expect: None, value },
            2 => Command::Incr { key, by: rng.i64(-5..5) },
            3 => Command::DeletePrefix { prefix: text.into(), keys_max: 3 },
            4 => Command::CasRevision { key, rev: Revision(rng.u64(..at)), value },
            5 => {
                let then = format!(r#"[{{"op":"incr","key":"{text}","by":1}},{{"op":"get","key":"k1"}}]"#);
                Command::Txn(Txn::from_json(None, Some(&then), None).unwrap().into())
            }
            _ => Command::Put { key, value },
        };
        let has_session = rng.bool() && !command.is_leaders();
        let session = has_session.then(|| session(&format!("c{}", rng.u32(0..5)), rng.u64(0..100)));
        apply(state, &command, session.as_ref(), at);
    }

    /// Covers sessions, keys with escapes, all kinds of values and outcomes, read in parts during
    /// writes, with and without revisions.
    #[test]
    fn a_restored_state_equals_the_frozen_one() {
        let mut rng = fastrand::Rng::with_seed(3);
        for _ in 0..200 {
            let mut state = State::default();
            let mut at = 1;
            let raised_at = rng.u64(0..200);
            let mut step = |state: &mut State, rng: &mut fastrand::Rng| {
                state.advance(Instant::from_micros(at * rng.u64(1..20_000)));
                if at == raised_at {
                    apply(state, &Command::RaiseLevel(Level::REVISIONS), None, at);
                } else {
                    write(state, rng, at);
                }
                at += 1;
            };
            (0..rng.u32(0..100)).for_each(|_| step(&mut state, &mut rng));
            let moment = state.clone();
            state.freeze();
            let mut text = String::new();
            loop {
                let limit = text.len() + rng.usize(1..300);
                if state.read_frozen(&mut text, limit) {
                    break;
                }
                step(&mut state, &mut rng);
            }
            let mut restored = State::default();
            text.lines().for_each(|line| restored.restore(line).unwrap());
            assert_eq!(restored, moment);
        }
    }

    #[test]
    fn a_retry_gets_the_first_outcome_with_its_revisions() {
        let mut state = State::default();
        let put = Command::Put { key: Key::new("k").unwrap(), value: Value::from_json("1").unwrap() };
        let incr = Command::Incr { key: Key::new("n").unwrap(), by: 2 };
        apply(&mut state, &put, Some(&session("c", 1)), 1);
        apply(&mut state, &Command::RaiseLevel(Level::REVISIONS), None, 2);
        let first = apply(&mut state, &incr, Some(&session("c", 2)), 3);
        assert_eq!(first, Outcome::Sum(2).with_meta(KeyMeta::of(Revision(3), Revision(3))));
        apply(&mut state, &incr, None, 4);
        assert_eq!(apply(&mut state, &incr, Some(&session("c", 2)), 5), first);
        let raised = KeyMeta::of(Revision(2), Revision(2));
        assert_eq!(apply(&mut state, &put, Some(&session("c", 1)), 6), Outcome::Done.with_meta(raised));
    }
}
