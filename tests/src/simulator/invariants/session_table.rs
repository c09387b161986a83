//! What the nodes should remember of their clients, by rules that are written down here once more,
//! with names in the place of fingerprints and a list in the place of trees.

use coracle_core::kv::SessionLimits;
use coracle_core::raft::LogIndex;

/// What a write of a session comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// It is done.
    New,
    /// It was done, by the entry at this index.
    DoneAt(LogIndex),
    /// It is refused.
    Expired,
}

/// The clients, who wrote least recently first.
#[derive(Debug, Default)]
pub(super) struct SessionTable {
    limits: SessionLimits,
    remembered: Vec<Client>,
    forgotten: Vec<String>,
}

#[derive(Debug)]
struct Client {
    name: String,
    /// Numbers, where they were done, and how many bytes of a value they keep; in the order of the
    /// numbers.
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

    /// A new write was done.
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
