//! All that the log builds: the map, and what became of the clients' last writes. It is what a
//! snapshot has to hold.

use std::collections::VecDeque;

use super::checked::{StateLineError, accept_line};
use super::command::Write;
use super::sessions::{Memory, SessionLimits, Sessions};
use super::store::{Outcome, Store};

/// The state of the state machine. Equal logs give equal states.
#[derive(Clone, Debug, Default)]
pub struct State {
    store: Store,
    sessions: Sessions,
    /// The lines of the sessions at the moment that is being read.
    frozen_sessions: VecDeque<String>,
}

/// Equal when the map and the sessions are. A snapshot under way makes no difference.
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
        Self::from_parts(Store::default(), Sessions::new(limits))
    }

    /// The same, with a seed that nobody else knows: without one, somebody who may write can choose
    /// keys that take long to tell apart. It changes nothing that shows.
    #[must_use]
    pub fn seeded(limits: SessionLimits, seed: u64) -> Self {
        Self::from_parts(Store::seeded(seed), Sessions::new(limits))
    }

    /// A state from its parts.
    #[must_use]
    pub fn from_parts(store: Store, sessions: Sessions) -> Self {
        Self { store, sessions, frozen_sessions: VecDeque::new() }
    }

    /// Carries out a write, unless it was before: then its first outcome is given again. A write
    /// whose session has expired is not carried out.
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

    /// Remembers this moment, to be read with [`State::read_frozen`] while the state goes on.
    pub fn freeze(&mut self) {
        self.store.freeze();
        // A line per client, some thousands: little beside the keys, so this is done at once.
        self.frozen_sessions = self.sessions.lines().collect();
    }

    /// Forgets the remembered moment.
    pub fn thaw(&mut self) {
        self.store.thaw();
        self.frozen_sessions.clear();
    }

    /// Appends the next lines of the remembered moment to `text`, each with its line break, until
    /// it holds `bytes_max` bytes. Returns whether there are no more. The lines are always the same
    /// for equal states.
    pub fn read_frozen(&mut self, text: &mut String, bytes_max: usize) -> bool {
        while text.len() < bytes_max
            && let Some(line) = self.frozen_sessions.pop_front()
        {
            text.push_str(&line);
            text.push('\n');
        }
        self.frozen_sessions.is_empty() && self.store.read_frozen(text, bytes_max)
    }

    /// Takes the next line of [`State::read_frozen`], without its line break, and no other.
    ///
    /// # Errors
    ///
    /// [`StateLineError`]; the state is then good for nothing.
    pub fn restore(&mut self, line: &str) -> Result<(), StateLineError> {
        self.restore_beside(line, None)
    }

    /// The same in a process that holds the state of another node: what both have is not kept
    /// twice.
    pub(crate) fn restore_beside(&mut self, line: &str, beside: Option<&Self>) -> Result<(), StateLineError> {
        let pair = accept_line(line, &mut self.sessions, self.store.last_key())?;
        if let Some((key, value)) = pair {
            self.store.restore(&key, value, beside.map(|beside| &beside.store));
        }
        Ok(())
    }

    /// The map.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// What became of the clients' last writes.
    #[must_use]
    pub fn sessions(&self) -> &Sessions {
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

    /// Sessions, keys with escapes, values of all kinds, failed swaps: read piece by piece while
    /// more is written.
    #[test]
    fn a_state_that_is_read_and_restored_is_the_moment_at_which_it_was_frozen() {
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
