//! Objects as they go over the wire: whole, as a row of a table, or as metadata only.

mod table;

use std::borrow::Cow;
use std::sync::Arc;

use serde::Serialize;
use serde_json::json;

pub(super) use self::table::CellCache;
use super::accept::{Form, MetaVersion};
use super::facts::{metadata_of, metadata_start};
use super::status::ApiError;
use crate::resource::ResourceType;
use crate::store::{ResourceVersion, Store, Stored};

/// What each row of a table carries of its object (C43).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Include {
    /// Nothing.
    None,
    /// Its metadata.
    #[default]
    Metadata,
    /// All of it.
    Object,
}

/// Writes objects of a type in a form.
#[derive(Clone)]
pub(super) struct Encoder {
    /// The type.
    pub(super) resource: &'static ResourceType,
    /// The form.
    pub(super) form: Form,
    /// What rows carry.
    pub(super) include: Include,
    /// The cells of rows that were written before. Only for objects as the store has them: cells are found by the
    /// version that wrote the object.
    pub(super) cells: Option<Arc<CellCache>>,
}

/// The metadata of a list.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListMeta {
    /// The state the list is taken from.
    pub(super) resource_version: String,
    /// Where the next page begins.
    #[serde(rename = "continue", skip_serializing_if = "Option::is_none")]
    pub(super) continue_token: Option<String>,
    /// How many objects are on later pages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) remaining_item_count: Option<u64>,
}

impl Encoder {
    /// Writes the start of a list, up to its first item.
    pub(super) fn begin_list(&self, meta: &ListMeta, out: &mut Vec<u8>) {
        let (kind, api_version) = match self.form {
            Form::Object => (self.resource.list_kind(), self.resource.api_version()),
            Form::Table(version) => ("Table".to_owned(), version.api_version().to_owned()),
            Form::Metadata(version) => {
                ("PartialObjectMetadataList".to_owned(), version.api_version().to_owned())
            }
        };
        out.extend_from_slice(format!("{{\"kind\":{kind:?},\"apiVersion\":{api_version:?},").as_bytes());
        out.extend_from_slice(b"\"metadata\":");
        write_json(meta, out);
        if let Form::Table(_) = self.form {
            out.extend_from_slice(b",\"columnDefinitions\":");
            write_json(&table::column_definitions(self.resource), out);
            out.extend_from_slice(b",\"rows\":[");
        } else {
            out.extend_from_slice(b",\"items\":[");
        }
    }

    /// Writes the end of a list.
    pub(super) fn end_list(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"]}");
    }

    /// Returns a list whose items are all there.
    ///
    /// # Errors
    ///
    /// As [`Self::single`].
    pub(super) async fn list(
        &self,
        store: &dyn Store,
        meta: &ListMeta,
        items: &[Stored],
    ) -> Result<Vec<u8>, ApiError> {
        let mut out = Vec::new();
        self.begin_list(meta, &mut out);
        for (index, stored) in items.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            self.item(&*self.whole(store, stored).await?, &mut out)?;
        }
        self.end_list(&mut out);
        Ok(out)
    }

    /// Returns about how many bytes items take, rather more than less; nothing where only a part of each is written, which is
    /// little.
    pub(super) fn length(&self, items: &[Stored]) -> usize {
        let length = |stored: &Stored| match self.is_whole() {
            true => {
                let tail = stored.object.tail().length().unwrap_or_default();
                stored.object.head().len() + tail + VERSION_ROOM
            }
            false => 0,
        };
        items.iter().map(length).sum()
    }

    /// Returns whether all of an object is written.
    fn is_whole(&self) -> bool {
        match (self.form, self.include) {
            (Form::Object, _) | (Form::Table(_), Include::Object) => true,
            (Form::Table(_) | Form::Metadata(_), _) => false,
        }
    }

    /// Fetches what is missing of objects, all of it at once, where this encoder writes it.
    ///
    /// # Errors
    ///
    /// As [`Store::complete`].
    pub(super) async fn complete(&self, store: &dyn Store, items: &mut [Stored]) -> Result<(), ApiError> {
        let is_whole = self.is_whole();
        let lacks_some = |stored: &&mut Stored| is_whole && !stored.object.tail().is_here();
        let mut lacking: Vec<_> = items.iter_mut().filter(lacks_some).collect();
        if lacking.is_empty() {
            return Ok(());
        }
        let wanted: Vec<_> = lacking.iter().map(|stored| (**stored).clone()).collect();
        let completed = store.complete_all(&wanted).await?;
        for (stored, object) in lacking.iter_mut().zip(completed) {
            stored.object = object;
        }
        Ok(())
    }

    /// Returns an object with what is missing of it, where this encoder writes it.
    async fn whole<'a>(&self, store: &dyn Store, stored: &'a Stored) -> Result<Cow<'a, Stored>, ApiError> {
        if !self.is_whole() || stored.object.tail().is_here() {
            return Ok(Cow::Borrowed(stored));
        }
        let object = store.complete(stored).await?;
        Ok(Cow::Owned(Stored { object, ..stored.clone() }))
    }

    /// Writes an item of a list, of which nothing is missing: see [`Self::complete`].
    ///
    /// # Errors
    ///
    /// When the object is damaged.
    pub(super) fn item(&self, stored: &Stored, out: &mut Vec<u8>) -> Result<(), ApiError> {
        match self.form {
            Form::Object => write_object(stored, out),
            Form::Metadata(version) => write_metadata(stored, version, out),
            Form::Table(version) => self.row(stored, version, out),
        }
    }

    /// Writes an object by itself.
    ///
    /// # Errors
    ///
    /// When the store cannot give the rest of the object, or it is damaged.
    pub(super) async fn single(
        &self,
        store: &dyn Store,
        stored: &Stored,
        out: &mut Vec<u8>,
    ) -> Result<(), ApiError> {
        self.framed(store, stored, true, out).await
    }

    /// Writes an object of a watch; the columns of a table are in its first event only (C47).
    ///
    /// # Errors
    ///
    /// As [`Self::single`].
    pub(super) async fn framed(
        &self,
        store: &dyn Store,
        stored: &Stored,
        with_columns: bool,
        out: &mut Vec<u8>,
    ) -> Result<(), ApiError> {
        let stored = self.whole(store, stored).await?;
        let Form::Table(version) = self.form else { return self.item(&stored, out) };
        self.begin_table(version, stored.version, with_columns, out);
        self.row(&stored, version, out)?;
        self.end_list(out);
        Ok(())
    }

    /// Writes the object of a bookmark: nothing but a version (C97).
    pub(super) fn bookmark(
        &self,
        version: ResourceVersion,
        ends_initial_events: bool,
        with_columns: bool,
        out: &mut Vec<u8>,
    ) {
        let mut metadata = json!({"resourceVersion": version.to_string()});
        if ends_initial_events {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let own = (self.resource.kind, self.resource.api_version());
        let partial = |version: MetaVersion| ("PartialObjectMetadata", version.api_version().to_owned());
        let (kind, api_version) = match (self.form, self.include) {
            (Form::Table(version), Include::Metadata) | (Form::Metadata(version), _) => partial(version),
            (Form::Object | Form::Table(_), _) => own,
        };
        let object = json!({"kind": kind, "apiVersion": api_version, "metadata": metadata});
        let Form::Table(table) = self.form else { return write_json(&object, out) };
        self.begin_table(table, version, with_columns, out);
        let cells = vec![""; 1 + self.resource.columns.len()];
        // Whoever wants no objects still has to be told the version (C47).
        write_json(&json!({"cells": cells, "object": object}), out);
        self.end_list(out);
    }

    fn begin_table(
        &self,
        table: MetaVersion,
        version: ResourceVersion,
        with_columns: bool,
        out: &mut Vec<u8>,
    ) {
        let api_version = table.api_version();
        out.extend_from_slice(
            format!(
                "{{\"kind\":\"Table\",\"apiVersion\":{api_version:?},\
                 \"metadata\":{{\"resourceVersion\":\"{version}\"}},\"columnDefinitions\":"
            )
            .as_bytes(),
        );
        if with_columns {
            write_json(&table::column_definitions(self.resource), out);
        } else {
            out.extend_from_slice(b"null");
        }
        out.extend_from_slice(b",\"rows\":[");
    }

    fn row(&self, stored: &Stored, version: MetaVersion, out: &mut Vec<u8>) -> Result<(), ApiError> {
        out.extend_from_slice(b"{\"cells\":[");
        match &self.cells {
            Some(cells) => cells.of(self.resource, stored)?.write(out),
            None => table::Cells::of(self.resource, &stored.object)?.write(out),
        }
        out.extend_from_slice(b"],\"object\":");
        match self.include {
            Include::None => out.extend_from_slice(b"null"),
            Include::Metadata => write_metadata(stored, version, out)?,
            Include::Object => write_object(stored, out)?,
        }
        out.push(b'}');
        Ok(())
    }
}

/// Writes a whole object with its version.
fn write_object(stored: &Stored, out: &mut Vec<u8>) -> Result<(), ApiError> {
    let object = &stored.object;
    let start = metadata_start(object.head())?;
    let (before, metadata) = object.head().split_at(start);
    out.reserve(object.head().len() + VERSION_ROOM);
    out.extend_from_slice(before);
    write_versioned(metadata, stored.version, out);
    object.tail().unpack_into(out).map_err(ApiError::internal)
}

fn write_metadata(stored: &Stored, version: MetaVersion, out: &mut Vec<u8>) -> Result<(), ApiError> {
    out.extend_from_slice(b"{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"");
    out.extend_from_slice(version.api_version().as_bytes());
    out.extend_from_slice(b"\",\"metadata\":");
    write_versioned(metadata_of(&stored.object)?.as_bytes(), stored.version, out);
    out.push(b'}');
    Ok(())
}

/// About how many bytes [`write_versioned`] adds.
const VERSION_ROOM: usize = 48;

/// Copies text that begins with the metadata of an object, and puts the version in as their first field.
fn write_versioned(metadata: &[u8], version: ResourceVersion, out: &mut Vec<u8>) {
    let fields = metadata.strip_prefix(b"{").unwrap_or(metadata);
    // An object without a version was not stored: what a dry run would have created (C200).
    if version == ResourceVersion::default() {
        out.push(b'{');
    } else {
        out.extend_from_slice(format!("{{\"resourceVersion\":\"{version}\"").as_bytes());
        if fields.first() != Some(&b'}') {
            out.push(b',');
        }
    }
    out.extend_from_slice(fields);
}

fn write_json<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("plain data can be written");
}
