//! Standard output as a sink: what would have been stored is printed.

use std::collections::VecDeque;
use std::io;
use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};
use serde_json::Value;

use crate::store::{
    Batch, DICTIONARIES, Key, ListRequest, Object, Page, Range, ResourceVersion, Revision, Store, StoreError,
    Stored, Tail, WatchStream, Write,
};

/// How objects are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum OutputFormat {
    /// One object a line, as JSON.
    #[default]
    Jsonl,
    /// YAML documents.
    Yaml,
    /// Packages with channel and version, in columns.
    Table,
}

/// A store that prints what is appended and is empty otherwise.
///
/// Only what is served is printed, without what differs from one run to the next: uid, creation time and owner.
pub struct OutputStore<W> {
    state: Mutex<State<W>>,
    format: OutputFormat,
}

struct State<W> {
    out: W,
    revision: Revision,
    rows: Vec<[String; 4]>,
    dictionaries: Dictionaries,
}

/// Dictionaries that are kept: more than a package has, whose bundles come right behind them.
const MAX_DICTIONARIES: usize = 8;

/// What bundles are packed with.
#[derive(Default)]
struct Dictionaries {
    /// The newest ones, oldest first.
    newest: VecDeque<(Key, Bytes)>,
}

impl Dictionaries {
    fn add(&mut self, key: &Key, dictionary: &Object) -> io::Result<()> {
        let text = dictionary.tail().unpack().map_err(io::Error::other)?;
        if self.newest.len() == MAX_DICTIONARIES {
            self.newest.pop_front();
        }
        self.newest.push_back((key.clone(), text));
        Ok(())
    }

    /// Returns the text of an object's tail.
    fn unpack(&self, key: &Key, tail: &Tail) -> io::Result<Bytes> {
        let Tail::Referring { dictionary, .. } = tail else { return tail.unpack().map_err(io::Error::other) };
        let dictionary = dictionary.key(key.namespace());
        let found = self.newest.iter().find(|(known, _)| *known == dictionary);
        let missing = || io::Error::other(format!("`{key}` needs `{dictionary}`, which is not there"));
        tail.unpack_with(&found.ok_or_else(missing)?.1).map_err(io::Error::other)
    }
}

const HEADINGS: [&str; 4] = ["NAME", "CHANNEL", "VERSION", "DISPLAY NAME"];

impl<W: io::Write + Send + 'static> OutputStore<W> {
    /// Prints to a writer.
    pub fn new(out: W, format: OutputFormat) -> Self {
        let state =
            State { out, revision: Revision::FIRST, rows: Vec::new(), dictionaries: Dictionaries::default() };
        OutputStore { state: Mutex::new(state), format }
    }

    /// Prints what had to wait for the end.
    ///
    /// # Errors
    ///
    /// When the writer fails.
    pub fn finish(self) -> io::Result<()> {
        let State { mut out, rows, .. } = self.state.into_inner().expect("not poisoned");
        if self.format == OutputFormat::Table {
            let headings = HEADINGS.map(str::to_owned);
            let lines = || std::iter::once(&headings).chain(&rows);
            let width =
                |column: usize| lines().map(|row| row[column].chars().count()).max().unwrap_or_default() + 3;
            let widths = [width(0), width(1), width(2)];
            for [name, channel, version, display] in lines() {
                let [w0, w1, w2] = widths;
                writeln!(out, "{name:w0$}{channel:w1$}{version:w2$}{display}")?;
            }
        }
        out.flush()
    }

    fn print(&self, key: &Key, object: &Object, state: &mut State<W>) -> io::Result<()> {
        match key.resource() {
            "packages" | "bundlemetadata" => {}
            DICTIONARIES => return state.dictionaries.add(key, object),
            _ => return Ok(()),
        }
        let mut summary: Value = serde_json::from_slice(&object.summary())?;
        if self.format == OutputFormat::Table {
            if key.resource() == "packages" {
                state.rows.push(row(&summary));
            }
            return Ok(());
        }
        if let Some(metadata) = summary["metadata"].as_object_mut() {
            metadata.retain(|field, _| !matches!(&**field, "uid" | "creationTimestamp" | "ownerReferences"));
        }
        let mut text = summary.to_string();
        if *object.tail() != Tail::None {
            text.truncate(text.len() - 2);
            text.push_str(&String::from_utf8_lossy(&state.dictionaries.unpack(key, object.tail())?));
        }
        match self.format {
            OutputFormat::Yaml => {
                let value: Value = serde_json::from_str(&text)?;
                let yaml = serde_saphyr::to_string(&value).map_err(io::Error::other)?;
                write!(state.out, "---\n{yaml}")
            }
            _ => writeln!(state.out, "{text}"),
        }
    }
}

fn row(package: &Value) -> [String; 4] {
    let resource = crate::model::RESOURCES.iter().find(|resource| resource.plural == "packages");
    let cell = |name: &str| {
        let column = resource.and_then(|resource| resource.columns.iter().find(|column| column.name == name));
        let value = column.map(|column| (column.cell)(package)).unwrap_or_default();
        value.as_str().unwrap_or_default().to_owned()
    };
    let name = package["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    [name, cell("Channel"), cell("Version"), cell("Display Name")]
}

#[async_trait]
impl<W: io::Write + Send + 'static> Store for OutputStore<W> {
    async fn append(&self, batch: Batch) -> Result<Revision, StoreError> {
        batch.check()?;
        let mut state = self.state.lock().expect("not poisoned");
        for operation in &batch.operations {
            if let Write::Put(object) = &operation.write {
                self.print(&operation.key, object, &mut state)
                    .map_err(|error| StoreError::Unavailable(error.to_string()))?;
            }
        }
        state.revision = state.revision.next();
        Ok(state.revision)
    }

    async fn read(&self, keys: &[Key]) -> Result<Vec<Option<Stored>>, StoreError> {
        Ok(vec![None; keys.len()])
    }

    async fn list(&self, _: ListRequest) -> Result<Page, StoreError> {
        let version = ResourceVersion::end_of(self.state.lock().expect("not poisoned").revision);
        Ok(Page { version, items: Vec::new(), remaining: 0 })
    }

    async fn watch(&self, _: Range, _: ResourceVersion) -> Result<WatchStream, StoreError> {
        Ok(stream::pending().boxed())
    }

    async fn compact(&self, _: Revision) -> Result<(), StoreError> {
        Ok(())
    }
}
