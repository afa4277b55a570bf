//! Rows of tables: the cells that columns read from an object, written once for as long as it stays as it is (C44, C45).

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use serde_json::{Value, json};

use super::write_json;
use crate::api::age::age;
use crate::api::status::ApiError;
use crate::resource::{ColumnKind, ResourceType};
use crate::store::{Object, ResourceVersion, Stored};

/// Bytes of cells that are kept: those of some 20,000 objects.
const CACHE_BYTES: u64 = 8 << 20;

/// Bytes of a row's cells, as a guess to begin with.
const TYPICAL_BYTES: usize = 400;

/// The cells of one object, as JSON without the brackets. Ages are filled in when they are written.
pub(super) struct Cells {
    text: Vec<u8>,
    /// Where in the text an age belongs, and since when it is counted.
    ages: Vec<(usize, Option<Timestamp>)>,
}

/// The cells of objects as the store has them, by the version that wrote the object.
pub(in crate::api) struct CellCache(Cache<ResourceVersion, Arc<Cells>, Weight>);

#[derive(Clone)]
struct Weight;

impl Weighter<ResourceVersion, Arc<Cells>> for Weight {
    fn weight(&self, _: &ResourceVersion, cells: &Arc<Cells>) -> u64 {
        (size_of::<Cells>() + cells.text.len() + cells.ages.len() * size_of::<(usize, Option<Timestamp>)>())
            as u64
    }
}

impl CellCache {
    pub(in crate::api) fn new() -> Self {
        CellCache(Cache::with_weighter(CACHE_BYTES as usize / TYPICAL_BYTES, CACHE_BYTES, Weight))
    }

    /// Returns the cells of an object.
    ///
    /// # Errors
    ///
    /// When the object is damaged.
    pub(super) fn of(&self, resource: &ResourceType, stored: &Stored) -> Result<Arc<Cells>, ApiError> {
        self.0.get_or_insert_with(&stored.version, || Ok(Arc::new(Cells::of(resource, &stored.object)?)))
    }
}

impl Cells {
    /// Reads the cells of an object.
    ///
    /// # Errors
    ///
    /// When the object is damaged.
    pub(super) fn of(resource: &ResourceType, object: &Object) -> Result<Self, ApiError> {
        let summary: Value = serde_json::from_slice(&object.summary()).map_err(ApiError::internal)?;
        let mut cells = Cells { text: Vec::new(), ages: Vec::new() };
        write_json(&summary["metadata"]["name"], &mut cells.text);
        for column in resource.columns {
            cells.text.push(b',');
            match (column.kind, (column.cell)(&summary)) {
                (ColumnKind::Date, value) => {
                    let since = value.as_str().and_then(|text| text.parse().ok());
                    cells.ages.push((cells.text.len(), since));
                }
                (ColumnKind::String, Value::Null) => cells.text.extend_from_slice(b"\"\""),
                (_, value) => write_json(&value, &mut cells.text),
            }
        }
        cells.text.shrink_to_fit();
        Ok(cells)
    }

    /// Writes the cells as they are now.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let mut start = 0;
        for (at, since) in &self.ages {
            out.extend_from_slice(&self.text[start..*at]);
            match since {
                Some(since) => write_json(&age(*since, Timestamp::now()), out),
                None => out.extend_from_slice(b"\"<unknown>\""),
            }
            start = *at;
        }
        out.extend_from_slice(&self.text[start..]);
    }
}

/// Returns what is said of the columns of a type.
pub(super) fn column_definitions(resource: &ResourceType) -> Value {
    let name = json!({
        "name": "Name", "type": "string", "format": "name", "priority": 0,
        "description": "Name must be unique within a namespace.",
    });
    let columns = resource.columns.iter().map(|column| {
        let kind = match column.kind {
            ColumnKind::String => "string",
            ColumnKind::Integer => "integer",
            ColumnKind::Date => "date",
        };
        json!({
            "name": column.name, "type": kind, "format": "", "priority": column.priority,
            "description": column.description,
        })
    });
    std::iter::once(name).chain(columns).collect()
}
