//! What is appended: operations that each say what they expect to find.

use std::collections::HashSet;

use super::{Fence, Key, Object, ResourceVersion, StoreError};

/// The most operations a batch can hold, whatever a store is configured for: each needs an index of its own
/// within the revision.
pub const MAX_BATCH_OPERATIONS: usize = ResourceVersion::MAX_INDEX as usize;

/// What an operation requires of its key at the moment of the commit.
///
/// Every operation has one, so that every operation changes something: the events of a revision and the
/// operations of its batch are then the same list, and a lost answer cannot lead to a doubled write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Nothing is there.
    Absent,
    /// The object that was written by this event is there.
    Version(ResourceVersion),
}

/// What an operation does to its key.
#[derive(Clone, Debug)]
pub enum Write {
    /// The object is there afterwards.
    Put(Object),
    /// Nothing is there afterwards.
    Delete,
}

/// One operation of a batch: it becomes one event.
#[derive(Clone, Debug)]
pub struct Operation {
    /// The key it writes.
    pub key: Key,
    /// What it requires.
    pub expect: Expect,
    /// What it does.
    pub write: Write,
}

impl Operation {
    /// Creates an object where there is none.
    pub fn create(key: Key, object: Object) -> Self {
        Operation { key, expect: Expect::Absent, write: Write::Put(object) }
    }

    /// Replaces the object that `version` wrote.
    pub fn replace(key: Key, version: ResourceVersion, object: Object) -> Self {
        Operation { key, expect: Expect::Version(version), write: Write::Put(object) }
    }

    /// Deletes the object that `version` wrote.
    pub fn delete(key: Key, version: ResourceVersion) -> Self {
        Operation { key, expect: Expect::Version(version), write: Write::Delete }
    }

    /// Returns about how many bytes the operation takes in a request.
    pub fn size(&self) -> usize {
        let object = match &self.write {
            Write::Put(object) => object.size(),
            Write::Delete => 0,
        };
        // Twice the key: once in the comparison, once in the operation.
        2 * self.key.as_str().len() + object + PER_OPERATION_OVERHEAD
    }
}

/// Field tags, lengths and envelope of an operation and of its comparison.
const PER_OPERATION_OVERHEAD: usize = 64;

/// Operations that are committed together.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// In the order their events will have.
    pub operations: Vec<Operation>,
    /// The lock that has to be held at the moment of the commit.
    pub fence: Option<Fence>,
}

impl Batch {
    /// A batch of some operations.
    pub fn new(operations: Vec<Operation>) -> Self {
        Batch { operations, fence: None }
    }

    /// A batch of one operation.
    pub fn of(operation: Operation) -> Self {
        Batch::new(vec![operation])
    }

    /// The same batch, to be committed only while a lock is held.
    pub fn fenced(self, fence: Fence) -> Self {
        Batch { fence: Some(fence), ..self }
    }

    /// Checks the rules that hold for every store.
    ///
    /// # Errors
    ///
    /// [`StoreError::Invalid`], saying which rule is broken.
    pub fn check(&self) -> Result<(), StoreError> {
        if self.operations.is_empty() {
            return Err(StoreError::Invalid("no operations"));
        }
        if self.operations.len() > MAX_BATCH_OPERATIONS {
            return Err(StoreError::Invalid("more operations than a revision has indexes"));
        }
        let mut keys = HashSet::new();
        if !self.operations.iter().all(|operation| keys.insert(&operation.key)) {
            return Err(StoreError::Invalid("a key twice"));
        }
        let deletes_nothing = |operation: &Operation| {
            matches!((&operation.write, operation.expect), (Write::Delete, Expect::Absent))
        };
        if self.operations.iter().any(deletes_nothing) {
            return Err(StoreError::Invalid("a deletion of what is absent"));
        }
        Ok(())
    }
}
