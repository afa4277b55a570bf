//! packageserver, as its users start it: `up` in one process, or `apiserver` and `controller` on etcd.

use std::path::{Path, PathBuf};
use std::process::Command;

use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::Value;
use tempfile::TempDir;

use super::clock::Clock;
use super::etcd::{Etcd, Version};
use super::eventually;
use super::kubectl::Kubectl;
use super::process::{Process, free_port};

/// What is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `up`.
    Up,
    /// One `apiserver` and one `controller` on one member of etcd.
    OnEtcd,
    /// Two of each on three members.
    Replicated,
}

/// A server of one test, with data that outlives its processes.
pub struct Server {
    programs: Vec<Program>,
    etcd: Option<Etcd>,
    directory: TempDir,
}

/// A process of ours, and how to start it again.
struct Program {
    process: Process,
    command: Vec<String>,
    log: PathBuf,
    /// Where its kubeconfig is, if it serves.
    kubeconfig: Option<PathBuf>,
    /// Its clock, if it is another one than everybody's.
    clock: Option<Clock>,
}

/// The time that a controller is waited for before another takes over, in tests.
pub const LEASE: &str = "2s";

impl Server {
    /// Starts `up` and waits until it is ready.
    pub async fn start(arguments: &[&str]) -> Self {
        Self::start_as(Kind::Up, arguments).await
    }

    /// Starts a server and waits until it is ready. Arguments are those of the ingesting side.
    pub async fn start_as(kind: Kind, arguments: &[&str]) -> Self {
        let etcd = match kind {
            Kind::Up => None,
            Kind::OnEtcd => Some(Etcd::start(Version::Built).await),
            Kind::Replicated => Some(Etcd::start_with(Version::Built, 3, &[]).await),
        };
        let replicas = if kind == Kind::Replicated { 2 } else { 1 };
        Self::start_on(etcd, replicas, arguments).await
    }

    /// Starts so many of each on an etcd, or `up` where there is none.
    pub async fn start_on(etcd: Option<Etcd>, replicas: usize, arguments: &[&str]) -> Self {
        packageserver::tls::install_crypto();
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let mut server = Server { programs: Vec::new(), etcd, directory };
        match &server.etcd {
            None => server.add("up", None, arguments),
            Some(etcd) => {
                let endpoints = etcd.endpoints();
                for _ in 0..replicas {
                    server.add_apiserver(&endpoints, &[]);
                    server.add_controller(&endpoints, arguments);
                }
            }
        }
        server.ready().await;
        server
    }

    /// Starts another `apiserver`; returns its number.
    pub fn add_apiserver(&mut self, endpoints: &[String], arguments: &[&str]) -> usize {
        self.add("apiserver", Some(endpoints), arguments);
        self.programs.len() - 1
    }

    /// Starts another `controller`; returns its number.
    pub fn add_controller(&mut self, endpoints: &[String], arguments: &[&str]) -> usize {
        self.add("controller", Some(endpoints), arguments);
        self.programs.len() - 1
    }

    fn add(&mut self, name: &str, endpoints: Option<&[String]>, arguments: &[&str]) {
        let number = self.programs.len();
        let data = self.directory.path().join(format!("data-{number}"));
        let mut command = vec![name.to_owned()];
        let mut option = |name: &str, value: String| command.push(format!("--{name}={value}"));
        if let Some(endpoints) = endpoints {
            option("etcd-servers", endpoints.join(","));
            if !arguments.iter().any(|argument| argument.starts_with("--lease-duration")) {
                option("lease-duration", LEASE.to_owned());
            }
        }
        if name != "controller" {
            option("data-dir", data.display().to_string());
        }
        match name {
            "up" => option("listen", format!("127.0.0.1:{}", free_port())),
            "apiserver" => option("secure-port", free_port().to_string()),
            _ => option("metrics-bind-address", format!("127.0.0.1:{}", free_port())),
        }
        if endpoints.is_some() {
            command.push("--standalone".to_owned());
        }
        command.extend(arguments.iter().map(|&argument| argument.to_owned()));
        let log = self.directory.path().join(format!("{name}-{number}.log"));
        let process = spawn(&command, &log, None);
        let kubeconfig = (name != "controller").then(|| data.join("kubeconfig"));
        self.programs.push(Program { process, command, log, kubeconfig, clock: None });
    }

    /// Kills all of our processes as a power cut would, and starts them again on the same data and ports.
    pub async fn restart(&mut self) {
        for program in &mut self.programs {
            program.process.kill();
        }
        for number in 0..self.programs.len() {
            self.restart_one(number);
        }
        self.ready().await;
    }

    /// Kills one process, and starts it again.
    pub fn restart_one(&mut self, number: usize) {
        let program = &mut self.programs[number];
        program.process.kill();
        program.process = spawn(&program.command, &program.log, program.clock.as_ref());
    }

    /// Kills one process, and starts it again with a clock of its own.
    pub fn restart_with(&mut self, number: usize, clock: &Clock) {
        self.programs[number].clock = Some(clock.clone());
        self.restart_one(number);
    }

    /// Returns the processes of ours, by number.
    pub fn processes(&mut self) -> impl Iterator<Item = &mut Process> {
        self.programs.iter_mut().map(|program| &mut program.process)
    }

    /// Returns the process that serves.
    pub fn process(&mut self) -> &mut Process {
        &mut self.programs[0].process
    }

    /// Returns the numbers of the processes that run a command.
    pub fn numbers(&self, command: &str) -> Vec<usize> {
        let is_wanted = |(_, program): &(usize, &Program)| program.command[0] == command;
        self.programs.iter().enumerate().filter(is_wanted).map(|(number, _)| number).collect()
    }

    /// Asks a `controller` how it is, and returns the status and the text of the answer.
    pub async fn ask(&self, number: usize, path: &str) -> Option<(u16, String)> {
        let flag = "--metrics-bind-address=";
        let mut arguments = self.programs[number].command.iter();
        let address = arguments.find_map(|argument| argument.strip_prefix(flag)).expect("it is a controller");
        let http = reqwest::Client::builder().no_proxy().build().expect("a client can be made");
        let answer = http.get(format!("http://{address}{path}")).send().await.ok()?;
        Some((answer.status().as_u16(), answer.text().await.ok()?))
    }

    /// Returns the etcd that it runs on.
    pub fn etcd(&mut self) -> &mut Etcd {
        self.etcd.as_mut().expect("it runs on etcd")
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.kubeconfigs().next().expect("something serves")
    }

    /// Returns the kubeconfigs of everything that serves.
    pub fn kubeconfigs(&self) -> impl Iterator<Item = PathBuf> {
        self.programs.iter().filter_map(|program| program.kubeconfig.clone())
    }

    pub fn kubectl(&self) -> Kubectl {
        Kubectl::new(self.kubeconfig())
    }

    /// Returns a client that acts as administrator.
    pub async fn client(&self) -> kube::Client {
        client(&self.kubeconfig()).await
    }

    /// Reads a path and returns the JSON it answers with.
    pub async fn get(&self, path: &str) -> Value {
        get(&self.client().await, path).await
    }

    /// As [`Self::get`]; none where there is nothing.
    pub async fn get_if_there(&self, path: &str) -> Option<Value> {
        let request = http::Request::get(path).body(Vec::new()).expect("a path is a URL");
        let text = self.client().await.request_text(request).await.ok()?;
        Some(serde_json::from_str(&text).expect("answers are JSON"))
    }

    /// Waits until everything that serves is ready.
    pub async fn ready(&self) {
        for kubeconfig in self.kubeconfigs() {
            eventually("the server to be ready", || async {
                if !kubeconfig.exists() {
                    return None;
                }
                let request = http::Request::get("/readyz").body(Vec::new()).expect("a path is a URL");
                client(&kubeconfig).await.request_text(request).await.ok().map(drop)
            })
            .await;
        }
    }
}

fn spawn(command: &[String], log: &Path, clock: Option<&Clock>) -> Process {
    let mut program = Command::new(env!("CARGO_BIN_EXE_packageserver"));
    if let Some(clock) = clock {
        clock.give(&mut program);
    }
    Process::start(program.args(command), log)
}

/// Returns a client for a kubeconfig.
pub async fn client(kubeconfig: &Path) -> kube::Client {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("the kubeconfig can be read");
    let options = KubeConfigOptions::default();
    let config =
        kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.expect("the kubeconfig is good");
    kube::Client::try_from(config).expect("a client can be made")
}

/// Reads a path and returns the JSON it answers with.
pub async fn get(client: &kube::Client, path: &str) -> Value {
    let request = http::Request::get(path).body(Vec::new()).expect("a path is a URL");
    let text = client.request_text(request).await.unwrap_or_else(|error| panic!("GET {path}: {error}"));
    serde_json::from_str(&text).expect("answers are JSON")
}
