//! `doctor`: what is wrong with an installation, and what to do.

use std::io::{self, Write};
use std::process::ExitCode;

use super::backend::etcd_config;
use crate::args::{DoctorArgs, EtcdArgs, ReportFormat};
use crate::cluster::doctor::{Finding, Severity, examine};
use crate::cluster::find;
use crate::cluster::serving::Place;
use crate::model::{GROUP, VERSION};
use crate::sink::{EtcdHealth, EtcdStore};
use crate::store::{ResourceVersion, Store};

/// The service accounts of an installation.
const ACCOUNTS: [&str; 2] = ["packageserver-apiserver", "packageserver-controller"];

/// Returns 0 when all is well, 1 when there are warnings, 2 when something does not work.
pub(super) async fn doctor(args: DoctorArgs) -> anyhow::Result<ExitCode> {
    let DoctorArgs { kubeconfig, namespace, service, serving_secret, output, etcd, etcd_args } = args;
    let client = find(kubeconfig.as_deref()).await?;
    let place =
        Place { namespace, secret: serving_secret, service, api_service: format!("{VERSION}.{GROUP}") };
    let mut findings = examine(client, &place, &ACCOUNTS.map(str::to_owned)).await;
    if etcd {
        findings.push(look_at_etcd(&etcd_args).await);
    }
    let worst = findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Ok);
    print(&findings, output)?;
    Ok(match worst {
        Severity::Ok => ExitCode::SUCCESS,
        Severity::Warning => ExitCode::from(1),
        Severity::Error => ExitCode::from(2),
    })
}

/// Asks etcd whether it can be written to, and says what to do where it cannot.
async fn look_at_etcd(args: &EtcdArgs) -> Finding {
    const CHECK: &str = "etcd";
    let examine = async || -> anyhow::Result<(ResourceVersion, EtcdHealth)> {
        let store = EtcdStore::new(etcd_config(args)?)?;
        Ok((store.current().await?, store.health().await?))
    };
    let (version, health) = match examine().await {
        Ok(found) => found,
        Err(error) => {
            let mend = "look at the log of the etcd pods: is there a leader, are the certificates good? check the \
                        --etcd-… arguments";
            return Finding::error(CHECK, format!("{error:#}"), mend);
        }
    };
    let size = format!("{} MiB", health.database_bytes >> 20);
    if health.is_corrupt {
        let mend = "replace the member that `etcdctl alarm list` names, from the others";
        return Finding::error(CHECK, "the data of a member differ from those of the others", mend);
    }
    if health.is_out_of_space {
        let mend = "make room (`etcdctl compact`, `etcdctl defrag`) or raise --quota-backend-bytes, then `etcdctl alarm disarm`";
        let message = format!("etcd is out of space, at {size}: reads go on, nothing is written");
        return Finding::error(CHECK, message, mend);
    }
    Finding::ok(CHECK, format!("etcd answers, at revision {}, with {size}", version.revision()))
}

fn print(findings: &[Finding], output: ReportFormat) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if output == ReportFormat::Json {
        serde_json::to_writer_pretty(&mut out, findings)?;
        return writeln!(out);
    }
    for Finding { severity, check, message, mend } in findings {
        let mark = match severity {
            Severity::Ok => "ok",
            Severity::Warning => "warning",
            Severity::Error => "ERROR",
        };
        writeln!(out, "{mark:8} {check}: {message}")?;
        if !mend.is_empty() {
            writeln!(out, "{:8} → {mend}", "")?;
        }
    }
    out.flush()
}
