//! What has to stay inside stays inside: secrets, files of the machine, the data directory.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus};

use axum::http::StatusCode;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use packageserver::pipeline::discover::{LocalSources, Sources};
use packageserver::pipeline::fetch::{RegistryClient, RegistryOptions};
use packageserver::pipeline::limits::Limits;
use packageserver::store::Store;
use serde_json::{Value, json};

use crate::support::catalog::CatalogBuilder;
use crate::support::eventually;
use crate::support::fake_registry::{Answer, FakeRegistry, json as answer_json, status};
use crate::support::hostile::Victim;
use crate::support::ingest::everything;
use crate::support::process::Process;
use crate::support::server::{Kind, Server};

const PASSWORD: &str = "canary-password-5f1c";
const TOKEN: &str = "canary-token-77ab";
const WRONG: &str = "canary-outdated-90d2";

/// A registry that wants a token of its service, which wants a password.
async fn registry() -> FakeRegistry {
    let registry = FakeRegistry::start().await;
    registry.push("catalog", "v1", &CatalogBuilder::default().package("one", 3).image());
    let realm = format!("http://{}/token", registry.address());
    let (basic, bearer) =
        (format!("Basic {}", STANDARD.encode(format!("me:{PASSWORD}"))), format!("Bearer {TOKEN}"));
    registry.behave(move |asked| match asked.path.as_str() {
        "/token" if asked.header("authorization") == basic => answer_json(&json!({"token": TOKEN})),
        "/token" => {
            // What it is told is what it says, as some do.
            let body = json!({"details": "no", "echo": asked.header("authorization")}).to_string();
            Answer::This(axum::response::IntoResponse::into_response((StatusCode::UNAUTHORIZED, body)))
        }
        _ if asked.header("authorization") == bearer => Answer::Proper,
        _ => {
            let challenge = format!(r#"Bearer realm="{realm}?key={TOKEN}",service="x""#);
            status(StatusCode::UNAUTHORIZED, &[("www-authenticate", &challenge)])
        }
    });
    registry
}

fn manifests(registry: &FakeRegistry) -> String {
    let docker = |password: &str| {
        let config = json!({"auths": {registry.address(): {"username": "me", "password": password}}});
        STANDARD.encode(config.to_string())
    };
    let secret = |name: &str, data: String| {
        json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/dockerconfigjson",
            "metadata": {"name": name, "namespace": "test"}, "data": {".dockerconfigjson": data}})
    };
    let documents = [
        secret("good", docker(PASSWORD)),
        secret("outdated", docker(WRONG)),
        secret("broken", STANDARD.encode(format!("{{\"auths\": {PASSWORD}"))),
    ];
    documents.iter().map(|document| format!("---\n{document}\n")).collect()
}

fn source(registry: &FakeRegistry, secret: &str) -> String {
    json!({"apiVersion": "core.rukpak.io/v1beta1", "kind": "CatalogSource",
        "metadata": {"name": secret, "namespace": "test"},
        "spec": {"image": registry.reference("catalog", "v1"), "pullSecret": secret}})
    .to_string()
}

fn shows(place: &str, bytes: &[u8]) {
    let basic = |password: &str| STANDARD.encode(format!("me:{password}"));
    for canary in [PASSWORD, TOKEN, WRONG, &basic(PASSWORD), &basic(WRONG), &STANDARD.encode(PASSWORD)] {
        let found = memchr::memmem::find(bytes, canary.as_bytes());
        let around = found.map(|at| {
            String::from_utf8_lossy(&bytes[at.saturating_sub(200)..(at + 50).min(bytes.len())]).into_owned()
        });
        assert_eq!(around, None, "{canary} in {place}");
    }
}

/// Returns the bytes of every file under a directory.
fn files(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push((path.display().to_string(), std::fs::read(&path).unwrap())),
        }
    }
    found
}

async fn secrets_are_seen_nowhere(kind: Kind) {
    let registry = registry().await;
    let directory = tempfile::tempdir().unwrap();
    let manifest = directory.path().join("secrets.yaml");
    std::fs::write(&manifest, manifests(&registry)).unwrap();
    let file = format!("--filename={}", manifest.display());
    let mut server = Server::start_as(kind, &[&file, "--log-level=trace"]).await;
    for name in ["good", "outdated", "broken"] {
        server.kubectl().run_with("apply -f -", &source(&registry, name));
    }
    let path = "/apis/core.rukpak.io/v1beta1/namespaces/test/catalogsources";
    let sources = eventually("every source to be tried", || async {
        let list = server.get(path).await;
        let items = list["items"].as_array().unwrap().clone();
        let is_over = |item: &Value| {
            let conditions = item["status"]["conditions"].as_array();
            conditions.is_some_and(|conditions| {
                let is =
                    |kind: &str| conditions.iter().any(|one| one["type"] == kind && one["status"] == "True");
                if item["metadata"]["name"] == "good" { is("Ready") } else { is("Degraded") }
            })
        };
        (items.len() == 3 && items.iter().all(is_over)).then_some(list)
    })
    .await;
    shows("status", sources.to_string().as_bytes());
    let client = server.client().await;
    for path in ["/metrics", "/readyz?verbose", "/apis/core.rukpak.io/v1beta1/packages", "/openapi/v2"] {
        let request = http::Request::get(path).body(Vec::new()).unwrap();
        shows(path, client.request_text(request).await.unwrap().as_bytes());
    }
    let mut traces = 0;
    for process in server.processes() {
        let log = process.log();
        traces += usize::from(log.contains("TRACE"));
        shows("the log", log.as_bytes());
        let command = std::fs::read(format!("/proc/{}/cmdline", process.id())).unwrap();
        shows("the command line", &command);
    }
    assert_eq!(traces, 1, "the log of whoever reads registries is as long as it can be");
    match kind {
        Kind::Up => {
            let data = server.kubeconfig().parent().unwrap().to_owned();
            let kept = files(&data);
            assert!(kept.iter().any(|(name, _)| name.ends_with(".redb")));
            kept.iter().for_each(|(name, bytes)| shows(name, bytes));
        }
        _ => {
            let store = server.etcd().store();
            let stored = everything(&store).await;
            assert!(stored.len() > 5);
            for one in stored {
                // What can be read whole is; the rest has no more than what is here.
                let read = store.read(std::slice::from_ref(&one.key)).await.unwrap().remove(0);
                let object = read.map_or(one.object, |read| read.object);
                shows(&one.key.to_string(), object.head());
                if let Ok(whole) = object.json() {
                    shows(&one.key.to_string(), &whole);
                }
            }
        }
    }
}

#[tokio::test]
async fn secrets_are_in_no_log_status_metric_or_file() {
    secrets_are_seen_nowhere(Kind::Up).await;
}

#[tokio::test]
async fn secrets_are_in_no_log_status_metric_or_etcd() {
    secrets_are_seen_nowhere(Kind::OnEtcd).await;
}

#[tokio::test]
async fn local_sources_stay_under_the_directory_that_is_allowed() {
    let directory = tempfile::tempdir().unwrap();
    let (allowed, outside) = (directory.path().join("allowed"), directory.path().join("outside"));
    CatalogBuilder::default().package("one", 1).image().write_layout(&outside);
    std::fs::create_dir(&allowed).unwrap();
    symlink(&outside, allowed.join("link")).unwrap();
    symlink("/", allowed.join("root")).unwrap();
    let sources =
        |local| Sources::new(RegistryClient::new(RegistryOptions::default()), local, Limits::default());
    let discover = async |local: LocalSources, source: &str| {
        sources(local).discover(&source.parse().unwrap()).await.err().map(|error| error.to_string())
    };
    let under = || LocalSources::Under(allowed.clone());
    for source in [
        "oci:link".to_owned(),
        "oci:../outside".to_owned(),
        format!("oci:{}", outside.display()),
        "oci:link/../../outside".to_owned(),
        "fbc:root/etc".to_owned(),
        "fbc:/etc".to_owned(),
        "oci-archive:root/etc/passwd".to_owned(),
        "fbc:../nothing".to_owned(),
        "fbc:/no/such/thing".to_owned(),
    ] {
        let said = discover(under(), &source).await.unwrap();
        assert!(
            said.contains("is not under the directory that --allow-local-sources names"),
            "{source}: {said}"
        );
        let said = discover(LocalSources::Denied, &source).await.unwrap();
        assert!(said.contains("local sources are not allowed"), "{said}");
    }
}

#[tokio::test]
async fn no_link_within_a_local_source_leads_out_of_it() {
    let victim = Victim::new().await;
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("secret.json");
    std::fs::write(&secret, r#"{"schemaVersion":"canary"}"#).unwrap();
    let refused = async |source: String| {
        let said = victim.refuses_source(&source).await;
        assert!(!said.contains("canary"), "{said}");
        said
    };
    let image = CatalogBuilder::default().package("one", 1).image();
    for file in ["index.json", "blobs/sha256", "manifest"] {
        let layout = directory.path().join(file.replace('/', "-"));
        image.write_layout(&layout);
        let manifest = packageserver::pipeline::fetch::Digest::sha256(image.manifest());
        let path = match file {
            "manifest" => layout.join("blobs/sha256").join(manifest.parts().1),
            other => layout.join(other),
        };
        let moved = directory.path().join(format!("moved-{}", file.replace('/', "-")));
        std::fs::rename(&path, &moved).unwrap();
        symlink(&moved, &path).unwrap();
        let said = refused(format!("oci:{}", layout.display())).await;
        assert!(said.contains("a link that leads out of the layout"), "{file}: {said}");
    }
    let layout = directory.path().join("quoting");
    image.write_layout(&layout);
    std::fs::remove_file(layout.join("index.json")).unwrap();
    symlink(&secret, layout.join("index.json")).unwrap();
    refused(format!("oci:{}", layout.display())).await;

    let catalog = directory.path().join("catalog");
    CatalogBuilder::default().package("one", 1).write(&catalog);
    for target in [secret.as_path(), Path::new("/etc"), Path::new("/dev/zero")] {
        symlink(target, catalog.join("one/link")).unwrap();
        let said = refused(format!("fbc:{}", catalog.display())).await;
        assert!(said.contains("a link that leads out of the catalog"), "{said}");
        std::fs::remove_file(catalog.join("one/link")).unwrap();
    }
    // Circles end, also those that double what is seen at each turn, and pipes are not waited for.
    for name in ["circle", "another"] {
        symlink("..", catalog.join("one").join(name)).unwrap();
    }
    refused(format!("fbc:{}", catalog.display())).await;
    for name in ["circle", "another"] {
        std::fs::remove_file(catalog.join("one").join(name)).unwrap();
    }
    let pipe = |path: &Path| {
        assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
    };
    pipe(&catalog.join("one/pipe"));
    assert!(refused(format!("fbc:{}", catalog.display())).await.contains("neither a file nor a directory"));
    pipe(&directory.path().join("archive"));
    let said = refused(format!("oci-archive:{}", directory.path().join("archive").display())).await;
    assert!(said.contains("is not a file"), "{said}");
    let layout = directory.path().join("piped");
    image.write_layout(&layout);
    std::fs::remove_file(layout.join("index.json")).unwrap();
    pipe(&layout.join("index.json"));
    assert!(refused(format!("oci:{}", layout.display())).await.contains("is not a file"));
}

#[tokio::test]
async fn the_data_directory_is_for_its_owner() {
    let server = Server::start(&[]).await;
    let kubeconfig = server.kubeconfig();
    let data = kubeconfig.parent().unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(data), 0o700);
    for (name, _) in files(data) {
        let path = Path::new(&name);
        let is_secret =
            path.extension().is_some_and(|extension| extension == "key") || name.ends_with("kubeconfig");
        assert!(!is_secret || mode(path) == 0o600, "{name}: {:o}", mode(path));
    }
}

/// Starts the program with core dumps of any size, in a directory of its own, and has it break down.
async fn breaks_down(signal: &str, arguments: &str) -> (String, ExitStatus, Vec<String>) {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let mut command = Command::new("sh");
    command.current_dir(directory.path());
    command.args([
        "-c",
        "ulimit -c unlimited; exec \"$0\" \"$@\"",
        env!("CARGO_BIN_EXE_packageserver"),
        "up",
    ]);
    command.args(["--listen=127.0.0.1:0", &format!("--data-dir={}", data.display())]);
    command.args(arguments.split_whitespace());
    let mut process = Process::start(&mut command, &directory.path().join("log"));
    eventually("the server to serve", || async { process.log().contains("serving").then_some(()) }).await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", process.id())).unwrap();
    let limit = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
    let limit = limit.split_whitespace().next().unwrap().to_owned();
    // Rust's own handler passes a SIGSEGV on when it comes again, as that of a fault would.
    eventually("the end of the server", || {
        let is_running = process.is_running();
        if is_running {
            process.signal(signal);
        }
        async move { (!is_running).then_some(()) }
    })
    .await;
    let status = process.ended().await;
    let entries = std::fs::read_dir(directory.path()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    (limit, status, names.filter(|name| name.contains("core")).collect())
}

#[tokio::test]
async fn memory_is_in_no_core_dump() {
    for signal in ["ABRT", "SEGV"] {
        let (limit, status, files) = breaks_down(signal, "").await;
        assert_eq!(
            (limit.as_str(), status.core_dumped(), files.len()),
            ("0", false, 0),
            "{signal}: {files:?}"
        );
        assert!(status.signal().is_some(), "{status}");
    }
    // Unless somebody wants it, and the machine has it.
    let (limit, status, _) = breaks_down("ABRT", "--allow-core-dumps").await;
    assert_ne!(limit, "0");
    assert!(status.core_dumped(), "{status}");
}
