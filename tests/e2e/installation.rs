//! The server in a cluster: the manifests that make sense without nodes, and processes in place of pods.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::cluster::{Cluster, kubeconfig_with_token, tool};
use crate::support::eventually;
use crate::support::kubectl::Kubectl;
use crate::support::process::{Process, free_port};

pub const NAMESPACE: &str = "packageserver-system";
pub const API_SERVICE: &str = "v1beta1.core.rukpak.io";

/// Which installation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `apiserver` and `controller`, on an etcd.
    Full,
    /// `up --in-cluster`, on a database file.
    Small,
}

/// A server in a cluster.
pub struct Installation {
    pub cluster: Cluster,
    pub kind: Kind,
    port: u16,
    arguments: Vec<String>,
    /// The process that serves.
    serving: Option<Process>,
    /// The process that ingests, where that is another one.
    ingesting: Option<Process>,
    /// The server's own etcd, if it has one.
    etcd: Option<Process>,
    etcd_port: u16,
}

impl Installation {
    /// Installs a server and waits until its API is available.
    pub async fn start(kind: Kind) -> Self {
        Self::start_with(kind, &[]).await
    }

    /// As [`Self::start`], with more arguments for the process that serves.
    pub async fn start_with(kind: Kind, arguments: &[&str]) -> Self {
        let cluster = Cluster::start().await;
        let kubectl = cluster.kubectl();
        let config = |path: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(path);
        let apply = |path: PathBuf| kubectl.run(&format!("apply -f {}", path.display()));
        // As the quickstart has it: the definitions first.
        apply(config("crd/bases"));
        let port = free_port();
        for file in ["00_namespace.yaml", "rbac.yaml", "apiservice.yaml"] {
            apply(config(file));
        }
        if kind == Kind::Small {
            let text = std::fs::read_to_string(config("small/packageserver.yaml")).unwrap();
            let binding =
                text.split("\n---\n").find(|text| text.contains("kind: ClusterRoleBinding")).unwrap();
            kubectl.run_with("apply -f -", binding);
        }
        // There are no pods to select, so the Service leads to this machine.
        kubectl.run(&format!("delete service packageserver -n {NAMESPACE}"));
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "packageserver", "namespace": NAMESPACE},
            "spec": {"type": "ExternalName", "externalName": "localhost"},
        });
        kubectl.run_with("apply -f -", &service.to_string());
        let patch = json!({"spec": {"service": {"port": port}}}).to_string();
        kubectl.run(&format!("patch apiservice {API_SERVICE} --type=merge -p {patch}"));

        let mut installation = Installation {
            cluster,
            kind,
            port,
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
            serving: None,
            ingesting: None,
            etcd: None,
            etcd_port: free_port(),
        };
        if kind == Kind::Full {
            installation.start_etcd();
        }
        installation.start_serving();
        installation.start_ingesting();
        installation.available().await;
        installation
    }

    pub fn kubectl(&self) -> Kubectl {
        self.cluster.kubectl()
    }

    /// Returns the port of the process that serves.
    pub fn port(&self) -> u16 {
        self.port
    }

    fn path(&self, name: &str) -> PathBuf {
        self.cluster.directory.path().join(name)
    }

    pub fn start_etcd(&mut self) {
        let url = format!("http://127.0.0.1:{}", self.etcd_port);
        let mut command = Command::new(tool("etcd"));
        command
            .arg("--data-dir")
            .arg(self.path("own-etcd"))
            .args(["--listen-client-urls", &url, "--advertise-client-urls", &url, "--unsafe-no-fsync"])
            .args(["--listen-peer-urls", &format!("http://127.0.0.1:{}", free_port())]);
        self.etcd = Some(Process::start(&mut command, &self.path("own-etcd.log")));
    }

    pub fn stop_etcd(&mut self) {
        self.etcd = None;
    }

    pub fn start_serving(&mut self) {
        let mut command = self.program();
        match self.kind {
            Kind::Full => {
                command
                    .arg("apiserver")
                    .arg(format!("--secure-port={}", self.port))
                    .arg(format!("--etcd-servers=http://127.0.0.1:{}", self.etcd_port));
            }
            Kind::Small => {
                command
                    .args(["up", "--in-cluster"])
                    .arg(format!("--listen=127.0.0.1:{}", self.port))
                    .arg(format!("--data-dir={}", self.path("small").display()));
            }
        }
        command.arg(format!("--kubeconfig={}", self.account("packageserver-apiserver").display()));
        command.args(&self.arguments);
        self.serving = Some(Process::start(&mut command, &self.path("serving.log")));
    }

    fn start_ingesting(&mut self) {
        if self.kind == Kind::Full {
            let mut command = self.program();
            command
                .arg("controller")
                .arg("--metrics-bind-address=127.0.0.1:0")
                .arg(format!("--etcd-servers=http://127.0.0.1:{}", self.etcd_port))
                .arg(format!("--kubeconfig={}", self.account("packageserver-controller").display()));
            self.ingesting = Some(Process::start(&mut command, &self.path("ingesting.log")));
        }
    }

    pub fn stop_serving(&mut self) {
        self.serving = None;
    }

    fn program(&self) -> Command {
        Command::new(env!("CARGO_BIN_EXE_packageserver"))
    }

    /// Returns a kubeconfig with a token of a service account, which is what a pod would have.
    fn account(&self, name: &str) -> PathBuf {
        let token = self.kubectl().run(&format!("create token {name} -n {NAMESPACE} --duration=24h"));
        let authority = self.cluster.authority().certificate();
        self.cluster
            .write_kubeconfig(name, &kubeconfig_with_token(self.cluster.port, authority, token.trim()))
    }

    /// Waits until the kube-apiserver finds the API available.
    pub async fn available(&self) {
        self.wait_for_api_service("True").await;
    }

    /// Waits until the kube-apiserver has read what the API says of its types. It asks for that by itself: a second after
    /// it learned of the APIService, and a minute after it asked in vain, whether the APIService is available or not.
    pub async fn described(&self) {
        let kubectl = self.kubectl();
        eventually("the kube-apiserver to know the API's types", || {
            let explained = kubectl.try_run("explain package.spec", "");
            async move { explained.success.then_some(()) }
        })
        .await;
    }

    /// Waits until the kube-apiserver finds the API gone.
    pub async fn unavailable(&self) {
        self.wait_for_api_service("False").await;
    }

    async fn wait_for_api_service(&self, status: &str) {
        let kubectl = self.kubectl();
        let path = "{.status.conditions[?(@.type=='Available')].status}{.spec.service.name}";
        eventually(&format!("the APIService to be available: {status}"), || {
            let found =
                kubectl.try_run(&format!("get apiservice {API_SERVICE} -o jsonpath={path}"), "").stdout;
            async move { (found == format!("{status}packageserver")).then_some(()) }
        })
        .await;
    }

    /// Returns everything the server's processes logged.
    pub fn logs(&self) -> String {
        let processes = [&self.serving, &self.ingesting];
        processes.into_iter().flatten().map(Process::log).collect()
    }

    /// Returns what etcd holds under a prefix, by key; nothing for an installation without etcd.
    pub async fn keys_in_etcd(&self, prefix: &str) -> Vec<String> {
        if self.kind == Kind::Small {
            return Vec::new();
        }
        let url = format!("http://127.0.0.1:{}", self.etcd_port);
        let mut client = etcd_client::Client::connect([url], None).await.unwrap();
        let options = etcd_client::GetOptions::new().with_prefix().with_keys_only();
        let answer = client.get(prefix, Some(options)).await.unwrap();
        answer.kvs().iter().map(|pair| pair.key_str().unwrap().to_owned()).collect()
    }
}

/// Returns the manifest of a CatalogSource.
pub fn catalog_source(namespace: &str, name: &str, image: &str) -> String {
    json!({
        "apiVersion": "core.rukpak.io/v1beta1", "kind": "CatalogSource",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"image": image},
    })
    .to_string()
}
