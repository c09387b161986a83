//! Session retention: a client that was forgotten is taken for a new one only after the time for
//! which its fingerprint is kept has passed since its last use, by true time, except for the speed
//! of the fastest clock. Before that, a retry of its write could be applied a second time.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use coracle_core::raft::LogIndex;

use super::linearizability::Model;
use super::{Verdict, require};
use crate::reference::EntryText;

/// The rounding of clocks and of their sum, in microseconds.
const ROUNDING: u64 = 50;

/// When each client was last used.
#[derive(Debug, Default)]
pub(super) struct SessionRetention {
    /// True time in microseconds, by the client's name.
    used_at: BTreeMap<String, u64>,
    kept_for: Duration,
    /// The speed of the fastest clock, in thousandths.
    fastest: u64,
}

impl SessionRetention {
    pub(super) fn new(kept_for: Duration, rates: &[u64]) -> Self {
        let fastest = rates.iter().max().copied().unwrap_or(1000);
        Self { used_at: BTreeMap::new(), kept_for, fastest }
    }

    /// Checks an entry that was committed at `now`, before the model executes it.
    pub(super) fn committed(&self, index: LogIndex, payload: &str, now: u64, model: &Model) -> Verdict {
        let Some(client) = client_of(payload) else { return Ok(()) };
        let Some(used_at) = self.used_at.get(&client).filter(|_| !model.knows_client(&client)) else {
            return Ok(());
        };
        let kept_for = u64::try_from(self.kept_for.as_micros()).unwrap_or(u64::MAX);
        let least = kept_for.saturating_mul(1000) / self.fastest;
        require(now + ROUNDING >= used_at.saturating_add(least), "session_retention", || {
            format!("client {client} of {index} is new at {now}, although it was used at {used_at}")
        })
    }

    /// Notes an entry that was committed at `now`, after the model has executed it.
    pub(super) fn executed(&mut self, payload: &str, now: u64, model: &Model) {
        if let Some(client) = client_of(payload).filter(|client| model.remembers_client(client)) {
            self.used_at.insert(client, now);
        }
    }
}

fn client_of(payload: &str) -> Option<String> {
    if !payload.contains("\"client\":") {
        return None;
    }
    let object = ["{", payload, "}"].concat();
    EntryText::parse(&object).client.map(Cow::into_owned)
}
