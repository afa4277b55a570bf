//! The real kubectl.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::process::Process;

/// kubectl with the kubeconfig of a server.
#[derive(Clone)]
pub struct Kubectl {
    kubeconfig: PathBuf,
    environment: Vec<(&'static str, String)>,
}

/// What a command printed, and whether it succeeded.
#[derive(Debug)]
pub struct Output {
    pub success: bool,
    pub stdout: String,
    pub stderr: String,
}

impl Kubectl {
    pub fn new(kubeconfig: PathBuf) -> Self {
        Kubectl { kubeconfig, environment: Vec::new() }
    }

    /// Sets a variable of the environment, such as which editor to use.
    pub fn with_env(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new("kubectl");
        command
            .env("KUBECONFIG", &self.kubeconfig)
            // Discovery is cached in the home directory; a test has one of its own.
            .env("HOME", self.kubeconfig.parent().expect("a kubeconfig lies in a directory"))
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .args(arguments.split_whitespace());
        command
    }

    /// Runs a command with something on its standard input.
    pub fn try_run(&self, arguments: &str, input: &str) -> Output {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl is installed");
        child
            .stdin
            .take()
            .expect("it is piped")
            .write_all(input.as_bytes())
            .expect("kubectl reads its input");
        let output = child.wait_with_output().expect("kubectl ends");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Output {
            success: output.status.success(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }

    /// Runs a command that has to succeed, and returns what it printed.
    pub fn run(&self, arguments: &str) -> String {
        self.run_with(arguments, "")
    }

    /// As [`Self::run`], with something on its standard input.
    pub fn run_with(&self, arguments: &str, input: &str) -> String {
        let output = self.try_run(arguments, input);
        assert!(output.success, "kubectl {arguments}: {}{}", output.stdout, output.stderr);
        output.stdout
    }

    /// Starts a command that goes on, such as a watch; what it prints goes to a file.
    pub fn start(&self, arguments: &str, log: &Path) -> Process {
        Process::start(&mut self.command(arguments), log)
    }
}
