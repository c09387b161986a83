//! Reference model of the session table: an independent implementation of its rules, with names in
//! place of fingerprints and a list in place of trees.

use std::time::Duration;

use coracle_core::kv::SessionLimits;
use coracle_core::raft::LogIndex;

/// The decision about a write of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// The write is applied.
    New,
    /// The write is a duplicate of the entry at this index.
    DoneAt(LogIndex),
    /// The write is rejected.
    Expired,
    /// The write is rejected, because its client is new and too many are forgotten.
    TooMany,
}

/// The clients, the least recently writing one first.
#[derive(Debug, Default)]
pub(super) struct SessionTable {
    limits: SessionLimits,
    remembered: Vec<Client>,
    forgotten: Vec<Forgotten>,
    /// Whether the log has a time.
    is_timed: bool,
    /// The index of the last tick.
    tick: u64,
}

#[derive(Debug)]
struct Forgotten {
    name: String,
    /// Whether the client was forgotten before the last tick.
    was_ticked: bool,
    /// A log time in microseconds at which the client was certainly forgotten.
    by: Option<u64>,
}

#[derive(Debug)]
struct Client {
    name: String,
    /// Sequence numbers, the index of each write, and the bytes of a value that it keeps, ordered
    /// by number.
    done: Vec<(u64, LogIndex, usize)>,
    lowest: u64,
}

impl Client {
    fn bytes(&self) -> usize {
        256 + self.name.len() + self.done.iter().map(|(_, _, value_bytes)| 64 + value_bytes).sum::<usize>()
    }
}

impl SessionTable {
    pub(super) fn new(limits: SessionLimits) -> Self {
        Self { limits, ..Self::default() }
    }

    pub(super) fn judge(&mut self, name: &str, seq: u64) -> Judgement {
        let Some(position) = self.remembered.iter().position(|client| client.name == name) else {
            let is_full = self.is_timed && self.forgotten.len() >= self.limits.fingerprints_max;
            return match (self.has_forgotten(name), is_full) {
                (true, _) => Judgement::Expired,
                (false, true) => Judgement::TooMany,
                (false, false) => Judgement::New,
            };
        };
        let client = self.remembered.remove(position);
        let done = client.done.iter().find(|(number, ..)| *number == seq).map(|(_, index, _)| *index);
        let lowest = client.lowest;
        self.remembered.push(client);
        match done {
            Some(index) => Judgement::DoneAt(index),
            None if seq < lowest => Judgement::Expired,
            None => Judgement::New,
        }
    }

    pub(super) fn remembers(&self, name: &str) -> bool {
        self.remembered.iter().any(|client| client.name == name)
    }

    pub(super) fn has_forgotten(&self, name: &str) -> bool {
        self.forgotten.iter().any(|forgotten| forgotten.name == name)
    }

    /// Forgotten clients are kept for a time from now on.
    pub(super) fn count_time(&mut self) {
        self.is_timed = true;
    }

    /// Executes the tick at `index` with this log time, whose leader had applied `applied`.
    pub(super) fn tick(&mut self, index: LogIndex, time: u64, applied: u64) {
        let micros = |time: Duration| u64::try_from(time.as_micros()).expect("a few minutes");
        let last = self.forgotten.iter().filter_map(|forgotten| forgotten.by).max();
        let is_due = last.is_none_or(|last| time >= last + micros(self.limits.kept_for / 60));
        if is_due && applied >= self.tick {
            let certain = self.forgotten.iter_mut().filter(|forgotten| forgotten.was_ticked);
            certain.for_each(|forgotten| forgotten.by = forgotten.by.or(Some(time)));
        }
        let is_over = |forgotten: &&Forgotten| {
            forgotten.by.is_some_and(|by| time.saturating_sub(by) >= micros(self.limits.kept_for))
        };
        let over = self.forgotten.iter().take_while(is_over).count();
        let excess = self.forgotten.len().saturating_sub(self.limits.fingerprints_max / 2);
        self.forgotten.drain(..over.min(excess));
        self.forgotten.iter_mut().for_each(|forgotten| forgotten.was_ticked = true);
        self.tick = index.0;
    }

    /// Records a new write.
    pub(super) fn note(&mut self, name: &str, seq: u64, index: LogIndex, value_bytes: usize) {
        if self.remembered.last().is_none_or(|last| last.name != name) {
            self.remembered.push(Client { name: name.into(), done: Vec::new(), lowest: 0 });
        }
        let client = self.remembered.last_mut().expect("it was there or was put there");
        client.done.push((seq, index, value_bytes));
        client.done.sort_unstable();
        let (highest, ..) = *client.done.last().expect("one was put there");
        client.lowest = client.lowest.max((highest + 1).saturating_sub(self.limits.window));
        while client.done[0].0 < client.lowest
            || (client.bytes() > self.limits.client_bytes_max && client.done.len() > 1)
        {
            let (number, ..) = client.done.remove(0);
            client.lowest = client.lowest.max(number + 1);
        }
        let is_too_much = |clients: &[Client]| {
            clients.len() > self.limits.clients_max
                || clients.iter().map(Client::bytes).sum::<usize>() > self.limits.bytes_max
        };
        while self.remembered.len() > 1 && is_too_much(&self.remembered) {
            let name = self.remembered.remove(0).name;
            self.forgotten.push(Forgotten { name, was_ticked: false, by: None });
        }
    }
}
