//! A batch as one transaction of etcd: pure functions from the one to the other, and back from the answer.

use std::collections::{BTreeMap, BTreeSet};

use etcd_client::{Compare, CompareOp, GetOptions, KeyValue, Txn, TxnOp, TxnOpResponse, TxnResponse};

use super::keys::Keys;
use super::tip;
use crate::store::{Batch, Envelope, Expect, Fence, Operation, StoreError, Write};

/// A revision that nothing has.
const NEVER: i64 = -1;

/// Returns how many of the operations of a transaction are its own.
pub(super) fn overhead(batch: &Batch) -> usize {
    let resources: BTreeSet<_> = batch.operations.iter().map(|operation| operation.key.resource()).collect();
    // A tip for each resource, or, on the other side, the comparison of the fence.
    resources.len().max(1)
}

/// Returns the transaction that commits a batch. Of the operations at `mismatched` it is known that their expectation does
/// not hold, for a reason that etcd cannot compare.
pub(super) fn build(keys: &Keys, batch: &Batch, mismatched: &BTreeSet<usize>) -> Txn {
    let mut compares = Vec::with_capacity(batch.operations.len() + 1);
    let mut writes = Vec::with_capacity(batch.operations.len() + 1);
    let mut looks = Vec::with_capacity(batch.operations.len() + 1);
    let mut tips: BTreeMap<&str, Vec<_>> = BTreeMap::new();
    if let Some(Fence { lock, holding }) = &batch.fence {
        let lock = keys.lock(lock);
        compares.push(Compare::create_revision(lock.clone(), CompareOp::Equal, *holding as i64));
        looks.push(look(lock));
    }
    for (position, operation) in batch.operations.iter().enumerate() {
        let key = keys.object(&operation.key);
        let index = position as u16 + 1;
        let revision = match mismatched.contains(&position) {
            true => NEVER,
            false => expected_revision(operation),
        };
        compares.push(Compare::mod_revision(key.clone(), CompareOp::Equal, revision));
        looks.push(look(key.clone()));
        writes.push(match &operation.write {
            Write::Put(object) => TxnOp::put(key, Envelope::encode_put(index, object), None),
            Write::Delete => TxnOp::delete(key, None),
        });
        tips.entry(operation.key.resource()).or_default().push((index, &operation.key));
    }
    for (resource, events) in tips {
        writes.push(TxnOp::put(keys.tip(resource), tip::encode(events), None));
    }
    Txn::new().when(compares).and_then(writes).or_else(looks)
}

/// Returns why a transaction was not committed.
pub(super) fn refusal(batch: &Batch, mismatched: &BTreeSet<usize>, response: &TxnResponse) -> StoreError {
    let responses = response.op_responses();
    let mut found = responses.iter().map(|response| match response {
        TxnOpResponse::Get(found) => found.kvs().first(),
        _ => None,
    });
    if let Some(Fence { lock, holding }) = &batch.fence {
        let held = found.next().flatten().map(KeyValue::create_revision);
        if held != Some(*holding as i64) {
            return StoreError::Deposed { lock: lock.clone() };
        }
    }
    for (position, (operation, found)) in batch.operations.iter().zip(found).enumerate() {
        let revision = found.map_or(0, KeyValue::mod_revision);
        if mismatched.contains(&position) || revision != expected_revision(operation) {
            return StoreError::Conflict { key: operation.key.clone() };
        }
    }
    StoreError::Unavailable("etcd refused a transaction, and every comparison holds".to_owned())
}

/// Returns what an operation expects, as far as etcd can compare it: it knows revisions, not the indexes within.
fn expected_revision(operation: &Operation) -> i64 {
    match operation.expect {
        Expect::Absent => 0,
        Expect::Version(version) => i64::try_from(version.revision().get()).unwrap_or(NEVER),
    }
}

/// Reads where a key stands, without its value.
fn look(key: Vec<u8>) -> TxnOp {
    TxnOp::get(key, Some(GetOptions::new().with_keys_only()))
}
