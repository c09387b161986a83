//! A client in this process: sends requests to the cluster without TCP.

use std::cell::Cell;
use std::rc::Rc;

use coracle_core::host::Question;
use coracle_core::kv::{Command, Key, Outcome, Page, Scan, Session, Value};
use coracle_core::proxy::{NodeReport, RequestError};
use coracle_core::raft::{LogIndex, NodeId};

use crate::inputs::ProxyEvent;
use crate::mailbox::{Sender, answer_slot};

/// A handle for requests to the cluster. Cloning is cheap, and any number may be used concurrently.
///
/// A client and its clones have read-your-writes and monotonic reads: a read may lag behind other
/// clients' writes, but never behind their own, and never goes back in time. Concurrent requests
/// may take effect in any order.
///
/// Every method fails with a [`RequestError`], which says whether a write may still take effect.
#[derive(Clone, Debug)]
pub struct Client {
    proxy: Sender<ProxyEvent>,
    seen: Rc<Cell<LogIndex>>,
}

impl Client {
    pub(crate) fn new(proxy: Sender<ProxyEvent>) -> Self {
        Self { proxy, seen: Rc::default() }
    }

    /// Sets `key` to `value`. Linearizable: when it returns, a majority has it on disk and it is
    /// applied.
    pub async fn put(&self, key: Key, value: Value) -> Result<(), RequestError> {
        self.ask(Question::put(key, value)).await
    }

    /// Removes `key`; returns whether it was there. Linearizable.
    pub async fn delete(&self, key: Key) -> Result<bool, RequestError> {
        self.ask(Question::delete(key)).await
    }

    /// Sets `key` to `value` if it has the value `expect` now (`None`: if it is absent);
    /// [`Outcome::Mismatch`] holds the actual value. Linearizable.
    pub async fn cas(&self, key: Key, expect: Option<Value>, value: Value) -> Result<Outcome, RequestError> {
        self.write(Command::Cas { key, expect, value }, None).await
    }

    /// Executes a command. Linearizable.
    ///
    /// With a session, a write whose outcome is unknown may be retried with the same session any
    /// number of times: it is applied once, and every retry returns the first outcome.
    /// [`Outcome::SessionExpired`] means that the session table no longer knows whether the write
    /// was applied before, and that it was not applied now; use a new session name then.
    pub async fn write(&self, command: Command, session: Option<Session>) -> Result<Outcome, RequestError> {
        self.ask(Question::write(command, session)).await
    }

    /// Returns the value of `key` from a random follower, which may lag behind other clients'
    /// writes.
    pub async fn get(&self, key: Key) -> Result<Option<Value>, RequestError> {
        self.ask(Question::get(key, self.seen())).await
    }

    /// Returns the value of `key`, which reflects every write that was acknowledged to any client
    /// before this call: linearizable.
    pub async fn get_linearizable(&self, key: Key) -> Result<Option<Value>, RequestError> {
        self.ask(Question::get_linearizable(key)).await
    }

    /// Returns some keys and their values from a random follower, which may lag behind other
    /// clients' writes.
    pub async fn scan(&self, scan: Scan) -> Result<Page, RequestError> {
        self.ask(Question::scan(scan, self.seen())).await
    }

    /// Transfers leadership to `node`. Writes and linearizable reads wait meanwhile.
    pub async fn transfer_leadership(&self, node: NodeId) -> Result<(), RequestError> {
        self.ask(Question::transfer(node)).await
    }

    /// Returns the status of every node, in ascending order of the ids.
    pub async fn status(&self) -> Result<Vec<NodeReport>, RequestError> {
        self.ask(Question::status()).await
    }

    fn seen(&self) -> LogIndex {
        self.seen.get()
    }

    async fn ask<T>(&self, question: Question<T>) -> Result<T, RequestError> {
        let (reply_to, reply) = answer_slot();
        if self.proxy.send(ProxyEvent::Called(question.request, reply_to)).is_err() {
            return Err(RequestError::ShuttingDown);
        }
        // If the proxy ends without an answer, the outcome of the request is unknown.
        let (index, answer) = (question.read)(reply.wait().await.unwrap_or(Err(RequestError::Timeout))?);
        self.seen.set(self.seen.get().max(index));
        Ok(answer)
    }
}
