//! What the same bytes cost without the work: unpacked by gzip, unpacked in this process, committed to etcd.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use etcd_client::{Compare, CompareOp, GetOptions, Txn, TxnOp};
use flate2::bufread::MultiGzDecoder;
use futures::{StreamExt, TryStreamExt, stream};
use nix::sys::resource::{UsageWho, getrusage};

use super::account::{self, Spent};
use super::support::etcd::{Etcd, Version};

/// The transactions of an installation: keys and values.
pub type Transactions = Vec<Vec<(Vec<u8>, Vec<u8>)>>;

/// Unpacks a layer with `gzip -dc`.
pub fn gzip(layer: &Path) -> Spent {
    account::measure(UsageWho::RUSAGE_CHILDREN, || {
        let status = Command::new("gzip").arg("-dc").arg(layer).stdout(Stdio::null()).status();
        assert!(status.expect("there is gzip").success());
    })
}

/// Has `opm` make the cache that it serves a catalog from, where `make bench` has built it. Returns the most memory that it
/// took, too: of all children so far, so it is asked for where this is the largest.
pub fn opm(layer: &Path) -> Option<(Spent, f64)> {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("bin/opm");
    if !program.exists() {
        return None;
    }
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let file = BufReader::new(File::open(layer).expect("a layer can be read"));
    tar::Archive::new(MultiGzDecoder::new(file)).unpack(directory.path()).expect("the layer is an archive");
    let spent = account::measure(UsageWho::RUSAGE_CHILDREN, || {
        let status = Command::new(program)
            .arg("serve")
            .arg(directory.path().join("configs"))
            .arg("--cache-dir")
            .arg(directory.path().join("cache"))
            .args(["--cache-only", "--termination-log", ""])
            .env("HOME", directory.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        assert!(status.expect("opm can be started").success());
    });
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("the system keeps account");
    Some((spent, usage.max_rss() as f64 / 1024.0))
}

/// Unpacks a layer in this process, with the same library as the pipeline. Returns how many bytes come of it, too.
pub fn inflate(layer: &Path) -> (Spent, u64) {
    let mut unpacked = 0;
    let spent = account::measure(UsageWho::RUSAGE_SELF, || {
        let file = File::open(layer).expect("a layer can be read");
        let mut decoder = MultiGzDecoder::new(BufReader::with_capacity(64 << 10, file));
        let mut buffer = vec![0; 64 << 10];
        loop {
            let read = io::Read::read(&mut decoder, &mut buffer).expect("the layer is sound");
            unpacked += read as u64;
            if read == 0 {
                break;
            }
        }
    });
    (spent, unpacked)
}

/// Returns what is in an etcd, by the transaction that put it there.
pub async fn transactions(etcd: &Etcd) -> Transactions {
    let client = etcd.client().await;
    let mut kv = client.kv_client().max_decoding_message_size(i32::MAX as usize);
    let mut found = kv.get("/", Some(GetOptions::new().with_prefix())).await.expect("etcd answers");
    let mut items = found.take_kvs();
    items.sort_by_key(|item| item.mod_revision());
    let same = |a: &etcd_client::KeyValue, b: &etcd_client::KeyValue| a.mod_revision() == b.mod_revision();
    let of_one = |items: &[etcd_client::KeyValue]| {
        items.iter().map(|item| (item.key().to_vec(), item.value().to_vec())).collect()
    };
    items.chunk_by(same).map(of_one).collect()
}

/// Commits transactions to an empty etcd, so many of them at a time.
pub async fn commit(transactions: &Transactions, at_a_time: usize) -> Spent {
    let etcd = Etcd::start(Version::Built).await;
    let process = account::child("etcd");
    let client = etcd.client().await;
    let before = account::cpu_of(process);
    let start = Instant::now();
    let txn = |items: &Vec<(Vec<u8>, Vec<u8>)>| {
        let absent = items.iter().map(|(key, _)| Compare::mod_revision(key.clone(), CompareOp::Equal, 0));
        let puts = items.iter().map(|(key, value)| TxnOp::put(key.clone(), value.clone(), None));
        let txn = Txn::new().when(absent.collect::<Vec<_>>()).and_then(puts.collect::<Vec<_>>());
        let mut kv = client.kv_client();
        async move { kv.txn(txn).await }
    };
    let committed = stream::iter(transactions).map(txn).buffered(at_a_time);
    let responses: Vec<_> = committed.try_collect().await.expect("etcd commits");
    assert!(responses.iter().all(etcd_client::TxnResponse::succeeded));
    Spent { wall: start.elapsed().as_secs_f64(), cpu: account::cpu_of(process) - before }
}
