//! A real cluster without nodes: etcd, kube-apiserver, kube-controller-manager, as processes on loopback.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use packageserver::tls::authority::{Authority, Signed, Validity};
use rcgen::{KeyPair, SigningKey};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::support::eventually;
use super::support::kubectl::Kubectl;
use super::support::process::{Process, free_port};

/// Who signs tokens of service accounts, and whom they are for.
const ISSUER: &str = "https://kubernetes.default.svc";

fn day() -> Validity {
    Validity::from_now(Duration::from_secs(24 * 60 * 60))
}

/// A cluster of one test.
pub struct Cluster {
    pub port: u16,
    pub etcd_port: u16,
    pub etcd: Process,
    pub apiserver: Process,
    authority: Authority,
    front_proxy: Authority,
    controllers: Process,
    /// Last, because logs are shown when a test fails.
    pub directory: TempDir,
}

impl Cluster {
    /// Starts a cluster and waits until it is ready. Its etcd does not wait for the disk.
    pub async fn start() -> Self {
        Self::start_with(&["--unsafe-no-fsync"]).await
    }

    /// As [`Self::start`], with arguments for etcd.
    pub async fn start_with(etcd_arguments: &[&str]) -> Self {
        packageserver::tls::install_crypto();
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let write = |name: &str, content: &str| std::fs::write(path(name), content).unwrap();
        let (authority, ca) = Authority::generate("kubernetes", day()).unwrap();
        let (front_proxy, proxy_ca) = Authority::generate("front-proxy", day()).unwrap();
        write("ca.crt", &ca.certificate);
        write("ca.key", &ca.key);
        write("front-proxy-ca.crt", &proxy_ca.certificate);
        let signed = |name: &str, signed: &Signed| {
            write(&format!("{name}.crt"), &signed.certificate);
            write(&format!("{name}.key"), &signed.key);
        };
        let names = ["localhost", "kubernetes.default.svc"].map(str::to_owned);
        signed(
            "apiserver",
            &authority
                .server(&names, &["127.0.0.1".parse().unwrap(), "10.0.0.1".parse().unwrap()], day())
                .unwrap(),
        );
        signed("proxy-client", &front_proxy.client("front-proxy-client", &[], day()).unwrap());
        let accounts = rcgen::KeyPair::generate().unwrap();
        write("service-accounts.key", &accounts.serialize_pem());
        write("service-accounts.pub", &accounts.public_key_pem());

        let etcd_port = free_port();
        let etcd = Process::start(
            Command::new(tool("etcd"))
                .arg("--data-dir")
                .arg(path("etcd"))
                .args(["--listen-client-urls", &format!("http://127.0.0.1:{etcd_port}")])
                .args(["--advertise-client-urls", &format!("http://127.0.0.1:{etcd_port}")])
                .args(["--listen-peer-urls", &format!("http://127.0.0.1:{}", free_port())])
                .args(etcd_arguments),
            &path("etcd.log"),
        );
        let port = free_port();
        let file = |name: &str| path(name).display().to_string();
        let apiserver = Process::start(
            Command::new(tool("kube-apiserver")).args(
                [
                    format!("--etcd-servers=http://127.0.0.1:{etcd_port}"),
                    "--bind-address=127.0.0.1".to_owned(),
                    format!("--secure-port={port}"),
                    format!("--tls-cert-file={}", file("apiserver.crt")),
                    format!("--tls-private-key-file={}", file("apiserver.key")),
                    format!("--client-ca-file={}", file("ca.crt")),
                    "--authorization-mode=RBAC".to_owned(),
                    "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
                    format!("--service-account-issuer={ISSUER}"),
                    format!("--service-account-key-file={}", file("service-accounts.pub")),
                    format!("--service-account-signing-key-file={}", file("service-accounts.key")),
                    "--disable-admission-plugins=ServiceAccount".to_owned(),
                    "--enable-aggregator-routing=false".to_owned(),
                    format!("--requestheader-client-ca-file={}", file("front-proxy-ca.crt")),
                    "--requestheader-allowed-names=front-proxy-client".to_owned(),
                    "--requestheader-username-headers=X-Remote-User".to_owned(),
                    "--requestheader-group-headers=X-Remote-Group".to_owned(),
                    "--requestheader-extra-headers-prefix=X-Remote-Extra-".to_owned(),
                    format!("--proxy-client-cert-file={}", file("proxy-client.crt")),
                    format!("--proxy-client-key-file={}", file("proxy-client.key")),
                ]
                .iter(),
            ),
            &path("kube-apiserver.log"),
        );
        let manager = kubeconfig(
            port,
            &ca.certificate,
            &authority.client("admin", &["system:masters"], day()).unwrap(),
        );
        write("kubeconfig", &manager);
        let kubectl = Kubectl::new(path("kubeconfig"));
        eventually("the kube-apiserver", || {
            let ready = kubectl.try_run("get --raw /readyz", "").success;
            async move { ready.then_some(()) }
        })
        .await;
        let controllers = Process::start(
            Command::new(tool("kube-controller-manager")).args(
                [
                    format!("--kubeconfig={}", file("kubeconfig")),
                    "--controllers=clusterrole-aggregation-controller,garbage-collector-controller,namespace-controller".to_owned(),
                    "--leader-elect=false".to_owned(),
                    format!("--secure-port={}", free_port()),
                    "--bind-address=127.0.0.1".to_owned(),
                ]
                .iter(),
            ),
            &path("kube-controller-manager.log"),
        );
        let cluster =
            Cluster { port, etcd_port, etcd, apiserver, authority, front_proxy, controllers, directory };
        let kubectl = cluster.kubectl();
        eventually("the namespace default", || {
            let there = kubectl.try_run("get namespace default", "").success;
            async move { there.then_some(()) }
        })
        .await;
        cluster
    }

    /// Returns a token as the cluster signs them for a service account, that expires at a time of choice.
    pub fn token(&self, namespace: &str, name: &str, uid: &str, expires: i64) -> String {
        let key = std::fs::read_to_string(self.directory.path().join("service-accounts.key")).unwrap();
        let account = json!({"name": name, "uid": uid});
        let claims = json!({
            "iss": ISSUER, "aud": [ISSUER], "sub": format!("system:serviceaccount:{namespace}:{name}"),
            "iat": expires - 3600, "nbf": expires - 3600, "exp": expires,
            "kubernetes.io": {"namespace": namespace, "serviceaccount": account},
        });
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(json!({"alg": "ES256", "typ": "JWT"})), part(claims));
        let signature = KeyPair::from_pem(&key).unwrap().sign(signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(raw_signature(&signature)))
    }

    /// Returns kubectl as administrator.
    pub fn kubectl(&self) -> Kubectl {
        Kubectl::new(self.directory.path().join("kubeconfig"))
    }

    /// Returns a kubeconfig for a user with a client certificate of the cluster.
    pub fn user(&self, name: &str, groups: &[&str]) -> PathBuf {
        let certificate = self.authority.client(name, groups, day()).unwrap();
        self.write_kubeconfig(name, &kubeconfig(self.port, self.authority.certificate(), &certificate))
    }

    pub fn write_kubeconfig(&self, name: &str, content: &str) -> PathBuf {
        // kubectl caches discovery in the home directory, which is where the kubeconfig lies.
        let directory = self.directory.path().join(format!("user-{name}"));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("kubeconfig");
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Returns the authority of users.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Returns the authority of front proxies.
    pub fn front_proxy(&self) -> &Authority {
        &self.front_proxy
    }

    /// Stops the garbage collector and whatever else changes objects by itself.
    pub fn stop_controllers(&mut self) {
        self.controllers.kill();
    }

    /// Returns whether every process still runs.
    pub fn is_healthy(&mut self) -> bool {
        self.etcd.is_running() && self.apiserver.is_running() && self.controllers.is_running()
    }
}

/// Returns a program that `make tools` builds.
pub fn tool(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("bin").join(name);
    assert!(path.exists(), "there is no `{}`; `make tools` builds it", path.display());
    path
}

/// Returns a kubeconfig for a client certificate.
pub fn kubeconfig(port: u16, authority: &str, client: &Signed) -> String {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {
            "server": format!("https://127.0.0.1:{port}"),
            "certificate-authority-data": STANDARD.encode(authority),
        }}],
        "users": [{"name": "test", "user": {
            "client-certificate-data": STANDARD.encode(&client.certificate),
            "client-key-data": STANDARD.encode(&client.key),
        }}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    })
    .to_string()
}

/// Returns a kubeconfig for a bearer token.
pub fn kubeconfig_with_token(port: u16, authority: &str, token: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {
            "server": format!("https://127.0.0.1:{port}"),
            "certificate-authority-data": STANDARD.encode(authority),
        }}],
        "users": [{"name": "test", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    })
    .to_string()
}

/// Turns an ECDSA signature from two integers in DER into two numbers of 32 bytes, as tokens have them.
fn raw_signature(der: &[u8]) -> Vec<u8> {
    let mut raw = Vec::new();
    let mut rest = &der[2..];
    for _ in 0..2 {
        let (number, after) = rest[2..].split_at(usize::from(rest[1]));
        let number = number.strip_prefix(&[0]).unwrap_or(number);
        raw.extend(std::iter::repeat_n(0, 32 - number.len()));
        raw.extend_from_slice(number);
        rest = after;
    }
    raw
}
