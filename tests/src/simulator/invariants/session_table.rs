//! Reference model of the session table: an independent implementation of its rules, with names in
//! place of fingerprints and a list in place of trees.

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
}

/// The clients, the least recently writing one first.
#[derive(Debug, Default)]
pub(super) struct SessionTable {
    limits: SessionLimits,
    remembered: Vec<Client>,
    forgotten: Vec<String>,
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
            let is_forgotten = self.forgotten.iter().any(|forgotten| forgotten == name);
            return if is_forgotten { Judgement::Expired } else { Judgement::New };
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
            self.forgotten.push(self.remembered.remove(0).name);
        }
    }
}
