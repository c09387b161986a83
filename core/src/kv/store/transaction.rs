//! Executes a transaction on the map.
//!
//! Everything that can prevent the transaction is known before its first operation changes the map:
//! each branch writes a key at most once, so an increment finds the number that the key has now.
//! Therefore nothing has to be undone.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Store;
use crate::kv::counter;
use crate::kv::outcome::{Applied, Outcome, TxnOutcome, TxnResult};
use crate::kv::revision::{KeyMeta, Revision, Stamp};
use crate::kv::text::{Key, Value};
use crate::kv::txn::{Condition, TXN_FOUND_BYTES_MAX, Txn, TxnOperation};
use crate::mutant::{self, Mutant};

impl Store {
    pub(super) fn transact(&mut self, txn: &Txn, at: Revision) -> Applied {
        let succeeded = txn.conditions().iter().all(|condition| self.holds(condition));
        let operations = txn.branch(succeeded ^ other_branch_by_mutant());
        if let Err(outcome) = unchecked_by_mutant().unwrap_or_else(|| self.check(operations)) {
            return outcome.without_meta();
        }
        let results = operations.iter().map(|operation| self.execute(operation, at)).collect();
        let meta = self.known(Stamp::created_at(at));
        let outcome = Outcome::Txn(Arc::new(TxnOutcome { succeeded, results }));
        outcome.with_meta(KeyMeta { created: Revision::NONE, ..meta })
    }

    fn holds(&self, condition: &Condition) -> bool {
        self.is_as_expected(&condition.key, &condition.expected)
    }

    /// Checks that every increment has a sum, and that the values to read fit an answer.
    fn check(&self, operations: &[TxnOperation]) -> Result<(), Outcome> {
        let mut found_bytes: usize = 0;
        // The values that operations of the transaction have written before.
        let mut written: BTreeMap<&Key, Option<Value>> = BTreeMap::new();
        for operation in operations {
            let key = operation.key();
            match operation {
                TxnOperation::Put { value, .. } => drop(written.insert(key, Some(value.clone()))),
                TxnOperation::Delete { .. } => drop(written.insert(key, None)),
                TxnOperation::Incr { by, .. } => {
                    let sum = counter::sum(self.value_of(key), *by)?;
                    written.insert(key, Some(counter::value_of(sum)));
                }
                TxnOperation::Get { .. } => {
                    let own = written.get(key).map(Option::as_ref);
                    let value = own.unwrap_or_else(|| self.value_of(key));
                    found_bytes += value.map_or(0, |value| value.as_json().len());
                }
            }
        }
        if found_bytes > TXN_FOUND_BYTES_MAX { Err(Outcome::TooLarge) } else { Ok(()) }
    }

    fn execute(&mut self, operation: &TxnOperation, at: Revision) -> TxnResult {
        let applied = match operation {
            TxnOperation::Put { key, value, ttl: None } => self.set(key, value, at),
            TxnOperation::Put { key, value, ttl: Some(ttl) } => self.set_expiring(key, value, *ttl, at),
            TxnOperation::Delete { key } => self.remove(key, at),
            TxnOperation::Incr { key, by } => self.add(key, *by, at),
            TxnOperation::Get { key } => return TxnResult::Found(self.value_of(key).cloned()),
        };
        match applied.outcome {
            Outcome::Sum(sum) => TxnResult::Sum(sum),
            Outcome::NotFound => TxnResult::NotFound,
            _ => TxnResult::Done,
        }
    }
}

/// Deliberate bug: the operations of the other branch are executed.
fn other_branch_by_mutant() -> bool {
    mutant::is_active(Mutant::ElseForThen)
}

/// Deliberate bug: a transaction is executed although one of its increments fails.
fn unchecked_by_mutant() -> Option<Result<(), Outcome>> {
    mutant::is_active(Mutant::TxnUnchecked).then_some(Ok(()))
}
