//! What the parts take by themselves, in bytes a second: of the catalog, or of what is made of it.
//!
//! `cargo bench --bench parts`. Reached by the same doors as the pipeline itself uses; what has none of its own is measured
//! with what is in front of it: `split and hash` ends before `parse` begins, which ends before `judge` does.

#[expect(dead_code, unreachable_pub, clippy::print_stderr, reason = "other benches use more of it")]
mod harness;

#[path = "parts/answers.rs"]
mod answers;
#[path = "parts/writing.rs"]
mod writing;

use std::io::Read;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use packageserver::event::{FileFacts, MetaHash};
use packageserver::pipeline::inflate::FileContents;
use packageserver::pipeline::limits::Limits;
use packageserver::pipeline::parse::{FileId, Meta, MetaSink, Place, parse_files};
use packageserver::pipeline::progress::Progress;
use packageserver::pipeline::reconcile::{Before, Collector};
use packageserver::store::{Envelope, Object, Tail};

use self::harness::catalogs;

/// Bytes of a catalog that are measured with: enough to be typical, and done in a moment.
const SAMPLE: usize = 32 << 20;

type Files = Vec<(String, Vec<u8>)>;

/// Takes everything and does nothing with it; knows every meta, or none.
struct Nothing {
    knows: bool,
}

impl MetaSink for Nothing {
    fn file(&self, _: FileId, _: &str) {}
    fn file_ends(&self, _: FileId, _: FileFacts) {}
    fn may_know_file(&self, _: &str, _: u64) -> bool {
        false
    }
    fn knows_file(&self, _: FileId, _: &str, _: FileFacts) -> bool {
        false
    }
    fn knows_files(&self, _: &[(&str, FileFacts)]) -> bool {
        false
    }
    fn keep_file(&self, _: FileId, _: &str, _: FileFacts) {}
    fn ignore_file(&self, _: &str, _: &[u8]) {}
    fn knows(&self, _: Place, _: MetaHash) -> bool {
        self.knows
    }
    fn meta(&self, _: Place, _: MetaHash, _: Meta) {}
    fn malformed(&self, _: Place, reason: String, _: Option<String>) {
        panic!("{reason}");
    }
}

fn read(files: &Files, sink: &dyn MetaSink) {
    let (limits, progress) = (Limits::default(), Progress::default());
    let source = |visitor: &mut dyn packageserver::pipeline::inflate::FileVisitor| {
        for (path, content) in files {
            let mut content = content.as_slice();
            let size = content.len() as u64;
            visitor.file(path, &mut FileContents::new(&mut content, size))?;
        }
        Ok::<_, std::io::Error>(())
    };
    parse_files(&limits, &progress, sink, source).expect("memory can be read");
}

fn parts(criterion: &mut Criterion) {
    let large = catalogs::Large::read();
    let json = large.as_ref().map(|large| sample(large.files().to_vec()));
    let yaml = catalogs::files("community-v4.20").map(sample);
    for (format, files) in [("JSON", &json), ("YAML", &yaml)] {
        let Some(files) = files else { continue };
        let bytes = files.iter().map(|(_, content)| content.len() as u64).sum();
        let mut group = criterion.benchmark_group(format);
        group.throughput(Throughput::Bytes(bytes)).sample_size(10);
        group.bench_function("split and hash", |bencher| {
            bencher.iter(|| read(files, &Nothing { knows: true }))
        });
        group.bench_function("parse", |bencher| bencher.iter(|| read(files, &Nothing { knows: false })));
        group.bench_function("judge", |bencher| {
            bencher.iter(|| {
                let (packages, limits) = (Default::default(), Limits::default());
                let presentation = MetaHash::default();
                let before =
                    Before { catalog_source: "bench", packages: &packages, presentation, skips_files: false };
                let collector = Collector::new(before, &limits);
                read(files, &collector);
                let draft = collector.finish(before).expect("it is spooled").expect("it is whole");
                draft.judge(&limits).expect("it is a catalog")
            });
        });
        group.finish();
    }
    if let Some(files) = &json {
        writing::bench(criterion, files);
        answers::bench(criterion, files);
    }
    let Some(large) = large else { return };
    let mut group = criterion.benchmark_group("bytes");
    let text = large.files().iter().map(|(_, content)| content).max_by_key(|content| content.len());
    let text = text.expect("a catalog has files");
    group.throughput(Throughput::Bytes(text.len() as u64)).sample_size(20);
    group.bench_function("hash", |bencher| bencher.iter(|| MetaHash::of(text)));
    group.bench_function("pack a tail", |bencher| bencher.iter(|| Tail::pack(text)));
    let object = Object::cut(Bytes::from_static(b"{\"spec\":{\"a\":1"), Tail::pack(text));
    group.bench_function("envelope, there and back", |bencher| {
        bencher.iter(|| Envelope::decode(&Envelope::encode_put(1, &object)).expect("it was just made"));
    });
    let layer = std::fs::read(large.whole().layer).expect("a layer can be read");
    let unpack = || {
        let mut decoder = flate2::bufread::MultiGzDecoder::new(&*layer);
        let (mut buffer, mut count) = (vec![0; 64 << 10], 0);
        loop {
            match decoder.read(&mut buffer).expect("the layer is sound") {
                0 => break count,
                read => count += read as u64,
            }
        }
    };
    group.throughput(Throughput::Bytes(unpack())).sample_size(10);
    group.bench_function("inflate", |bencher| bencher.iter(unpack));
    group.finish();
}

/// Returns the first files, up to a size.
fn sample(mut files: Files) -> Files {
    let mut left = SAMPLE;
    files.retain(|(_, content)| {
        let fits = content.len() <= left;
        left = left.saturating_sub(content.len());
        fits
    });
    files
}

criterion_group!(benches, parts);
criterion_main!(benches);
