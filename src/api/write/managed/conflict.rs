//! Fields that an apply would change although others own them (C178).

use std::collections::BTreeMap;

use super::{Manager, Operation};
use crate::api::write::fields::{Element, display};

/// A field that another manager owns with another value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Conflict {
    /// Who owns it.
    pub(in super::super) manager: Manager,
    /// Where it is.
    pub(in super::super) path: Vec<Element>,
}

impl Conflict {
    /// Returns the field as people read it.
    pub(in super::super) fn field(&self) -> String {
        display(&self.path)
    }
}

impl Manager {
    /// Returns the manager as a message names it.
    pub(in super::super) fn describe(&self, api_version: &str) -> String {
        let mut text = format!("{:?}", self.name);
        if !self.subresource.is_empty() {
            text = format!("{text} with subresource {:?}", self.subresource);
        }
        match self.operation {
            Operation::Apply => text,
            Operation::Update => format!("{text} using {api_version}"),
        }
    }
}

/// Returns the message for conflicts, of which there is at least one.
pub(in super::super) fn message(conflicts: &[Conflict], api_version: &str) -> String {
    if let [only] = conflicts {
        let (manager, field) = (only.manager.describe(api_version), only.field());
        return format!("Apply failed with 1 conflict: conflict with {manager}: {field}");
    }
    let mut by_manager: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for conflict in conflicts {
        let manager = (&conflict.manager.name, conflict.manager.operation, &conflict.manager.subresource);
        by_manager.entry(manager).or_default().push(conflict);
    }
    let mut lines = Vec::new();
    for conflicts in by_manager.into_values() {
        lines.push(format!("conflicts with {}:", conflicts[0].manager.describe(api_version)));
        lines.extend(conflicts.iter().map(|conflict| format!("- {}", conflict.field())));
    }
    format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
}
