//! A wall clock that a test sets, for processes; time goes by in them as everywhere else.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use tempfile::TempDir;

/// A clock: Debian's libfaketime reads from a file how far it is off.
#[derive(Clone)]
pub struct Clock {
    directory: Arc<TempDir>,
    library: PathBuf,
}

impl Clock {
    /// A clock that is right.
    pub fn new() -> Self {
        let directory = Arc::new(tempfile::tempdir().expect("a temporary directory can be made"));
        let clock = Clock { directory, library: library() };
        clock.set("+0");
        clock
    }

    /// Sets it so far from what is right: `-3650d`, `+40m`.
    pub fn set(&self, offset: &str) {
        // Nobody reads half of it.
        let (file, aside) = (self.file(), self.directory.path().join("next"));
        std::fs::write(&aside, format!("{offset}\n")).expect("a file can be written");
        std::fs::rename(aside, file).expect("a file can be renamed");
    }

    /// Has a program look at this clock.
    pub fn give(&self, program: &mut Command) {
        program.env("LD_PRELOAD", &self.library);
        program.env("FAKETIME_TIMESTAMP_FILE", self.file());
        program.env("FAKETIME_NO_CACHE", "1");
        program.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("offset")
    }
}

fn library() -> PathBuf {
    let found = std::fs::read_dir("/usr/lib").expect("there are libraries").filter_map(Result::ok).find_map(
        |entry| {
            let library = entry.path().join(Path::new("faketime/libfaketimeMT.so.1"));
            library.exists().then_some(library)
        },
    );
    found.expect("there is no libfaketime; `make test-tools` installs it")
}
