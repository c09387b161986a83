//! The state of the state machine: the key-value map and the session table. A snapshot holds
//! exactly this.

use std::collections::VecDeque;

use super::checked::{StateLineError, accept_line};
use super::command::Write;
use super::session_table::{Memory, SessionLimits, SessionTable};
use super::store::{Outcome, Store};

/// The state that the log builds. Equal logs give equal states.
#[derive(Clone, Debug, Default)]
pub struct State {
    store: Store,
    sessions: SessionTable,
    /// The lines of the session table at the frozen moment that are not read yet.
    frozen_sessions: VecDeque<String>,
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
        Self { store, sessions, frozen_sessions: VecDeque::new() }
    }

    /// Applies a write, unless its session shows that it was applied before: then returns its first
    /// outcome. A write whose session has expired is not applied.
    pub fn apply(&mut self, write: &Write) -> Outcome {
        let Some(session) = &write.session else { return self.store.apply(&write.command) };
        match self.sessions.recall(session) {
            Memory::Done(outcome) => outcome,
            Memory::Expired => Outcome::SessionExpired,
            Memory::New => {
                let outcome = self.store.apply(&write.command);
                self.sessions.remember(session, outcome.clone());
                outcome
            }
        }
    }

    /// Freezes the current state, to be read with [`State::read_frozen`] while the state goes on
    /// changing.
    pub fn freeze(&mut self) {
        self.store.freeze();
        // One line per client, some thousands: few compared with the keys, so they are built at
        // once.
        self.frozen_sessions = self.sessions.lines().collect();
    }

    /// Discards the frozen state.
    pub fn thaw(&mut self) {
        self.store.thaw();
        self.frozen_sessions.clear();
    }

    /// Appends the next lines of the frozen state to `text`, each with its line break, until it
    /// holds `bytes_max` bytes. Returns whether all lines were read. Equal states always give the
    /// same lines.
    pub fn read_frozen(&mut self, text: &mut String, bytes_max: usize) -> bool {
        while text.len() < bytes_max
            && let Some(line) = self.frozen_sessions.pop_front()
        {
            text.push_str(&line);
            text.push('\n');
        }
        self.frozen_sessions.is_empty() && self.store.read_frozen(text, bytes_max)
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
        let pair = accept_line(line, &mut self.sessions, self.store.last_key())?;
        if let Some((key, value)) = pair {
            self.store.restore(&key, value, beside.map(|beside| &beside.store));
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
    use crate::kv::{ClientName, Command, Key, LoggedWrite, Session, Value};

    fn apply(state: &mut State, command: &Command, session: Option<&Session>) {
        let mut payload = String::new();
        command.write_payload(session, &mut payload);
        state.apply(&LoggedWrite::read(&payload).unwrap().into());
    }

    fn write(state: &mut State, rng: &mut fastrand::Rng) {
        let values = ["1", "\"a\\\"b\"", "[1e999,null]", "{\"b\":1}"];
        let key = Key::new(&format!("k\"{}", rng.u32(0..50))).unwrap();
        let value = Value::from_json(values[rng.usize(..values.len())]).unwrap();
        let command = match rng.u32(0..4) {
            0 => Command::Delete { key },
            1 => Command::Cas { key, expect: None, value },
            _ => Command::Put { key, value },
        };
        let name = ClientName::new(&format!("c{}", rng.u32(0..5))).unwrap();
        let session = rng.bool().then(|| Session::new(name, rng.u64(0..100)).unwrap());
        apply(state, &command, session.as_ref());
    }

    /// Covers sessions, keys with escapes, all kinds of values and failed swaps, read in parts
    /// during writes.
    #[test]
    fn a_restored_state_equals_the_frozen_one() {
        let mut rng = fastrand::Rng::with_seed(3);
        for _ in 0..200 {
            let mut state = State::default();
            (0..rng.u32(0..100)).for_each(|_| write(&mut state, &mut rng));
            let moment = state.clone();
            state.freeze();
            let mut text = String::new();
            loop {
                let limit = text.len() + rng.usize(1..300);
                if state.read_frozen(&mut text, limit) {
                    break;
                }
                write(&mut state, &mut rng);
            }
            let mut restored = State::default();
            text.lines().for_each(|line| restored.restore(line).unwrap());
            assert_eq!(restored, moment);
        }
    }
}
