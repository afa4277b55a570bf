//! A real registry: Debian's docker-registry, on loopback.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use packageserver::pipeline::fetch::Digest;
use packageserver::tls::authority::{Authority, Validity};
use reqwest::StatusCode;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, LOCATION};
use tempfile::TempDir;

use super::eventually;
use super::image::Image;
use super::process::{Process, free_port};

/// A docker-registry of one test.
pub struct Registry {
    process: Process,
    address: String,
    scheme: &'static str,
    http: reqwest::Client,
    /// The certificate of the authority that signed the registry's, where it has one.
    authority: String,
    _directory: TempDir,
}

/// Who may use a registry that asks for that, and the hash of the password as htpasswd makes it.
pub const USER: &str = "me";
pub const PASSWORD: &str = "correct horse";
const HASH: &str = "$2y$05$abcdefghijklmnopqrstuuHNbAKRhpaujgo33bRWs.NLUTJO3lOy2";

/// How a registry is protected.
#[derive(Clone, Copy, Debug, Default)]
pub struct Protection {
    /// With a certificate that an authority of the test's own has signed.
    pub tls: bool,
    /// With a user and a password.
    pub users: bool,
}

impl Registry {
    /// Starts an empty registry.
    pub async fn start() -> Self {
        Self::start_with(Protection::default()).await
    }

    /// Starts an empty registry that is protected.
    pub async fn start_with(protection: Protection) -> Self {
        packageserver::tls::install_crypto();
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let write = |name: &str, content: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, content).expect("a file can be written");
            path.display().to_string()
        };
        let (mut more, mut authority) = (String::new(), String::new());
        if protection.tls {
            let (signer, _) =
                Authority::generate("test", Validity::days(1)).expect("an authority can be made");
            authority = signer.certificate().to_owned();
            let names = ["localhost".to_owned(), "registry.test".to_owned()];
            let signed = signer.server(&names, &[Ipv4Addr::LOCALHOST.into()], Validity::days(1));
            let signed = signed.expect("a certificate can be signed");
            let (certificate, key) = (write("tls.crt", &signed.certificate), write("tls.key", &signed.key));
            more = format!("  tls:\n    certificate: {certificate}\n    key: {key}\n");
        }
        let mut headers = HeaderMap::new();
        if protection.users {
            let path = write("htpasswd", &format!("{USER}:{HASH}\n"));
            more += &format!("auth:\n  htpasswd:\n    realm: test\n    path: {path}\n");
            let basic = format!("Basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}")));
            headers.insert(AUTHORIZATION, basic.parse().expect("a header"));
        }
        let scheme = if protection.tls { "https" } else { "http" };
        let address = format!("127.0.0.1:{}", free_port());
        let mut config = String::new();
        let storage = directory.path().join("storage");
        write!(
            config,
            "version: 0.1\nlog:\n  level: info\n  formatter: json\nstorage:\n  filesystem:\n    rootdirectory: {}\n  \
             delete:\n    enabled: true\nhttp:\n  addr: {address}\n{more}",
            storage.display()
        )
        .expect("strings can be written to");
        let config_path = directory.path().join("config.yml");
        std::fs::write(&config_path, config).expect("the configuration can be written");
        let process = Process::start(
            Command::new("docker-registry").arg("serve").arg(&config_path),
            &directory.path().join("registry.log"),
        );
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(60))
            .no_proxy()
            .tls_danger_accept_invalid_certs(true)
            .default_headers(headers)
            .build()
            .expect("a client can be made");
        let registry = Registry { process, address, scheme, http, authority, _directory: directory };
        let ping = format!("{scheme}://{}/v2/", registry.address);
        eventually("the registry", || {
            let request = registry.http.get(&ping).send();
            async { request.await.ok().map(drop) }
        })
        .await;
        registry
    }

    /// Returns the reference of a tag in this registry.
    pub fn reference(&self, repository: &str, tag: &str) -> String {
        format!("{}/{repository}:{tag}", self.address)
    }

    /// Returns host and port.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Returns the certificate of the authority that signed the registry's.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Returns the requests the registry has answered so far, as `METHOD path status`.
    pub fn requests(&self) -> Vec<String> {
        let line = |line: &str| {
            let entry: serde_json::Value = serde_json::from_str(line).ok()?;
            // Of those that went wrong it says "with error" behind that.
            if !entry["msg"].as_str()?.starts_with("response completed") {
                return None;
            }
            let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
            let status = &entry["http.response.status"];
            Some(format!("{} {} {status}", text("http.request.method"), text("http.request.uri")))
        };
        self.process.log().lines().filter_map(line).collect()
    }

    /// Pushes an image under a tag and returns its digest.
    pub async fn push(&self, repository: &str, tag: &str, image: &Image) -> Digest {
        let base = format!("{}://{}/v2/{repository}", self.scheme, self.address);
        for blob in image.blobs() {
            let digest = Digest::sha256(blob);
            let exists =
                self.http.head(format!("{base}/blobs/{digest}")).send().await.expect("the registry answers");
            if exists.status().is_success() {
                continue;
            }
            let begun =
                self.http.post(format!("{base}/blobs/uploads/")).send().await.expect("the registry answers");
            assert_eq!(begun.status(), StatusCode::ACCEPTED);
            let location = begun.headers()[LOCATION].to_str().expect("a location is text").to_owned();
            let location = if location.starts_with('/') {
                format!("{}://{}{location}", self.scheme, self.address)
            } else {
                location
            };
            let separator = if location.contains('?') { '&' } else { '?' };
            let done = self
                .http
                .put(format!("{location}{separator}digest={digest}"))
                .header(CONTENT_TYPE, "application/octet-stream")
                .body(blob.clone())
                .send()
                .await
                .expect("the registry answers");
            assert_eq!(done.status(), StatusCode::CREATED, "{}", done.text().await.unwrap_or_default());
        }
        let done = self
            .http
            .put(format!("{base}/manifests/{tag}"))
            .header(CONTENT_TYPE, image.manifest_type())
            .body(image.manifest().to_vec())
            .send()
            .await
            .expect("the registry answers");
        assert_eq!(done.status(), StatusCode::CREATED, "{}", done.text().await.unwrap_or_default());
        Digest::sha256(image.manifest())
    }
}
