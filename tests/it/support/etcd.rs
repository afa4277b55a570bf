//! Real etcd: Debian's, and the one that `make tools` builds; one member or several, on loopback.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use packageserver::sink::{EtcdConfig, EtcdStore};
use tempfile::TempDir;

use super::eventually;
use super::process::{Process, free_port};

/// Which etcd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Debian's etcd-server, 3.4.
    Debian,
    /// 3.6, from `bin/`.
    Built,
}

impl Version {
    fn program(self) -> PathBuf {
        match self {
            Version::Debian => "etcd".into(),
            Version::Built => {
                let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("bin/etcd");
                assert!(path.exists(), "there is no `{}`; `make tools` builds it", path.display());
                path
            }
        }
    }
}

/// A cluster of one test, with data that outlives its processes.
pub struct Etcd {
    members: Vec<Member>,
    directory: TempDir,
}

struct Member {
    process: Process,
    command: Vec<String>,
    program: PathBuf,
    endpoint: String,
}

impl Etcd {
    /// Starts a cluster of one.
    pub async fn start(version: Version) -> Self {
        Self::start_with(version, 1, &[]).await
    }

    /// Starts a cluster of one that speaks TLS, and only with those who show a certificate of the same authority.
    pub async fn start_secure(authority: &str, certificate: &str, key: &str) -> Self {
        let arguments = [
            format!("--trusted-ca-file={authority}"),
            format!("--cert-file={certificate}"),
            format!("--key-file={key}"),
            "--client-cert-auth".to_owned(),
        ];
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        Self::launch(Version::Built, 1, &arguments, "https")
    }

    /// Starts a cluster with more arguments for each member.
    pub async fn start_with(version: Version, size: usize, arguments: &[&str]) -> Self {
        let etcd = Self::launch(version, size, arguments, "http");
        for number in 0..size {
            etcd.is_healthy(number).await;
        }
        etcd
    }

    fn launch(version: Version, size: usize, arguments: &[&str], scheme: &str) -> Self {
        packageserver::tls::install_crypto();
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let ports: Vec<_> = (0..size).map(|_| (free_port(), free_port())).collect();
        let peers = ports.iter().enumerate();
        let peers: Vec<_> = peers.map(|(n, (_, peer))| format!("m{n}=http://127.0.0.1:{peer}")).collect();
        let member = |(number, (client, peer)): (usize, &(u16, u16))| {
            let (client, peer) =
                (format!("{scheme}://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
            let data = directory.path().join(format!("m{number}"));
            let options = [
                ("name", format!("m{number}")),
                ("data-dir", data.display().to_string()),
                ("listen-client-urls", client.clone()),
                ("advertise-client-urls", client.clone()),
                ("listen-peer-urls", peer.clone()),
                ("initial-advertise-peer-urls", peer),
                ("initial-cluster", peers.join(",")),
                ("initial-cluster-state", "new".to_owned()),
                // Elections within half a second, as on a network of one machine they can be.
                ("heartbeat-interval", "50".to_owned()),
                ("election-timeout", "500".to_owned()),
                ("logger", "zap".to_owned()),
                ("log-level", "warn".to_owned()),
            ];
            let mut command: Vec<_> =
                options.into_iter().map(|(name, value)| format!("--{name}={value}")).collect();
            command.extend(arguments.iter().map(|&argument| argument.to_owned()));
            let program = version.program();
            let process = spawn(&program, &command, directory.path(), number);
            Member { process, command, program, endpoint: client }
        };
        let members = ports.iter().enumerate().map(member).collect();
        Etcd { members, directory }
    }

    /// Returns the URLs of the members.
    pub fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(|member| member.endpoint.clone()).collect()
    }

    /// Returns what a store on this cluster is configured with.
    pub fn config(&self) -> EtcdConfig {
        EtcdConfig {
            endpoints: self.endpoints(),
            lease_duration: Duration::from_secs(2),
            ..EtcdConfig::default()
        }
    }

    /// Returns a store on this cluster.
    pub fn store(&self) -> EtcdStore {
        EtcdStore::new(self.config()).expect("the configuration is good")
    }

    /// Kills a member as a power cut would.
    pub fn kill(&mut self, number: usize) {
        self.members[number].process.kill();
    }

    /// Sends a signal to a member.
    pub fn signal(&self, number: usize, name: &str) {
        self.members[number].process.signal(name);
    }

    /// Starts a member again that was killed.
    pub async fn restart(&mut self, number: usize) {
        let directory = self.directory.path().to_owned();
        let member = &mut self.members[number];
        member.process.kill();
        member.process = spawn(&member.program, &member.command, &directory, number);
        self.is_healthy(number).await;
    }

    /// Returns which member leads.
    pub async fn leader(&self) -> usize {
        eventually("a leader", || async {
            for (number, endpoint) in self.endpoints().into_iter().enumerate() {
                let Ok(mut client) = etcd_client::Client::connect([endpoint], None).await else { continue };
                let status = tokio::time::timeout(Duration::from_secs(1), client.status()).await;
                let Ok(Ok(status)) = status else { continue };
                let own = status.header().map(|header| header.member_id());
                if status.leader() != 0 && own == Some(status.leader()) {
                    return Some(number);
                }
            }
            None
        })
        .await
    }

    /// Returns a client for what a store has no need of.
    pub async fn client(&self) -> etcd_client::Client {
        etcd_client::Client::connect(self.endpoints(), None).await.expect("etcd is there")
    }

    /// Replaces an argument of all members, for when they are started again.
    pub fn replace_argument(&mut self, old: &str, new: &str) {
        for argument in self.members.iter_mut().flat_map(|member| &mut member.command) {
            if argument == old {
                new.clone_into(argument);
            }
        }
    }

    /// Turns off every alarm, as an administrator does who has seen to its cause.
    pub async fn clear_alarms(&self) {
        use etcd_client::{AlarmAction, AlarmOptions, AlarmType};
        let mut client = self.client().await;
        let alarms = client.alarm(AlarmAction::Get, AlarmType::None, None).await.expect("etcd answers");
        for alarm in alarms.alarms() {
            let mut options = AlarmOptions::new();
            options.with_member(alarm.member_id());
            let off = client.alarm(AlarmAction::Deactivate, alarm.alarm(), Some(options)).await;
            off.expect("etcd answers");
        }
    }

    async fn is_healthy(&self, number: usize) {
        let endpoint = &self.members[number].endpoint;
        eventually("etcd to have a leader", || async {
            let mut client = etcd_client::Client::connect([endpoint], None).await.ok()?;
            let status = tokio::time::timeout(Duration::from_secs(1), client.status()).await.ok()?.ok()?;
            (status.leader() != 0).then_some(())
        })
        .await;
    }
}

fn spawn(program: &Path, arguments: &[String], directory: &Path, number: usize) -> Process {
    let mut command = Command::new(program);
    command.args(arguments);
    Process::start(&mut command, &directory.join(format!("m{number}.log")))
}
