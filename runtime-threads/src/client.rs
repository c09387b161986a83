//! Asking a cluster of this process, without TCP.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, sync_channel};

use coracle_core::host::Question;
use coracle_core::kv::{Command, Key, Outcome, Page, Scan, Session, Value};
use coracle_core::proxy::{Failure, NodeReport};
use coracle_core::raft::{LogIndex, NodeId};

use crate::inputs::ProxyEvent;

/// A way to ask the cluster. Cheap to clone; any number may be used at once.
///
/// What one client, or a clone of it, has seen it sees again: its reads may be behind others'
/// writes, but never behind its own, and never go back in time. What is asked at the same time may
/// take effect in any order.
///
/// Every method fails with a [`Failure`], which says whether a write may still take effect.
#[derive(Clone, Debug)]
pub struct Client {
    proxy: Sender<ProxyEvent>,
    seen: Arc<AtomicU64>,
}

impl Client {
    pub(crate) fn new(proxy: Sender<ProxyEvent>) -> Self {
        Self { proxy, seen: Arc::default() }
    }

    /// Sets `key` to `value`. Linearizable: when it returns, a majority has it on disk and it is
    /// applied.
    pub fn put(&self, key: Key, value: Value) -> Result<(), Failure> {
        self.ask(Question::put(key, value))
    }

    /// Removes `key`; returns whether it was there. Linearizable.
    pub fn delete(&self, key: Key) -> Result<bool, Failure> {
        self.ask(Question::delete(key))
    }

    /// Sets `key` to `value` if it has the value `expect` now (`None`: if it is absent);
    /// [`Outcome::Mismatch`] tells the actual value. Linearizable.
    pub fn cas(&self, key: Key, expect: Option<Value>, value: Value) -> Result<Outcome, Failure> {
        self.write(Command::Cas { key, expect, value }, None)
    }

    /// Carries out a command. Linearizable.
    ///
    /// With a session, a write whose outcome did not become known may be sent again with the same
    /// session, as often as it takes: it is done once, and its first outcome is given again.
    /// [`Outcome::SessionExpired`]: too much was forgotten to tell whether it was done before, and
    /// it was not done now. Then take a new name.
    pub fn write(&self, command: Command, session: Option<Session>) -> Result<Outcome, Failure> {
        self.ask(Question::write(command, session))
    }

    /// The value of `key` as a random follower sees it: it may be behind what others wrote.
    pub fn get(&self, key: Key) -> Result<Option<Value>, Failure> {
        self.ask(Question::get(key, self.seen()))
    }

    /// The value of `key`, at least as new as everything that anybody had an answer to when this
    /// was asked: linearizable.
    pub fn get_linearizable(&self, key: Key) -> Result<Option<Value>, Failure> {
        self.ask(Question::get_linearizable(key))
    }

    /// Some keys and their values as a random follower sees them: they may be behind what others
    /// wrote.
    pub fn scan(&self, scan: Scan) -> Result<Page, Failure> {
        self.ask(Question::scan(scan, self.seen()))
    }

    /// Lets `node` lead. Meanwhile writes and linearizable reads wait.
    pub fn transfer_leadership(&self, node: NodeId) -> Result<(), Failure> {
        self.ask(Question::transfer(node))
    }

    /// How every node is doing, ascending by id.
    pub fn status(&self) -> Result<Vec<NodeReport>, Failure> {
        self.ask(Question::status())
    }

    fn seen(&self) -> LogIndex {
        LogIndex(self.seen.load(Ordering::Acquire))
    }

    fn ask<T>(&self, question: Question<T>) -> Result<T, Failure> {
        let (reply_to, reply) = sync_channel(1);
        if self.proxy.send(ProxyEvent::Called(question.request, reply_to)).is_err() {
            return Err(Failure::ShuttingDown);
        }
        // A proxy that ends with the request unanswered cannot say what became of it.
        let (index, answer) = (question.read)(reply.recv().unwrap_or(Err(Failure::Timeout))?);
        self.seen.fetch_max(index.0, Ordering::AcqRel);
        Ok(answer)
    }
}
