//! All that the log builds: the map, and what became of the clients' last writes. It is what a snapshot has to hold.

use super::command::LoggedWrite;
use super::sessions::{Memory, SessionLimits, Sessions};
use super::store::{Outcome, Store};

/// The state of the state machine. Equal logs give equal states.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    store: Store,
    sessions: Sessions,
}

impl State {
    /// The state before the first entry.
    #[must_use]
    pub fn new(limits: SessionLimits) -> Self {
        Self { store: Store::default(), sessions: Sessions::new(limits) }
    }

    /// A state from its parts.
    #[must_use]
    pub fn from_parts(store: Store, sessions: Sessions) -> Self {
        Self { store, sessions }
    }

    /// Carries out a write, unless it was before: then its first outcome is given again. A write whose session has expired
    /// is not carried out.
    pub fn apply(&mut self, write: &LoggedWrite<'_>) -> Outcome {
        let Some(session) = &write.session else { return self.store.apply(&write.operation) };
        match self.sessions.recall(session) {
            Memory::Done(outcome) => outcome,
            Memory::Expired => Outcome::SessionExpired,
            Memory::New => {
                let outcome = self.store.apply(&write.operation);
                self.sessions.remember(session, outcome.clone());
                outcome
            }
        }
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
