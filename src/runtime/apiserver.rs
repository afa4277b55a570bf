//! `apiserver`: the half that serves, on etcd.

use std::net::SocketAddr;

use anyhow::Context;
use tokio::net::TcpListener;

use super::backend::Backend;
use super::data_dir::DataDir;
use super::front::Front;
use super::halves::{Ending, ServingHalf, told_to_stop};
use crate::args::ApiserverArgs;
use crate::model::set_min_polling_interval;
use crate::telemetry::metrics::Metrics;

pub(super) async fn apiserver(args: ApiserverArgs) -> anyhow::Result<()> {
    let ApiserverArgs {
        standalone,
        data_dir,
        bind_address,
        secure_port,
        history,
        min_polling_interval,
        audit,
        room,
        etcd,
        cluster,
    } = args;
    set_min_polling_interval(min_polling_interval);
    let metrics = Metrics::new();
    let backend = Backend::etcd(&etcd)?.measured(metrics.registry())?;
    let address = SocketAddr::new(bind_address, secure_port);
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    let ending = Ending::default();
    let front = match standalone {
        true => Front::standalone(&DataDir::open(&data_dir)?.identify(listener.local_addr()?)?)?,
        false => Front::of_cluster(&cluster, &ending.stopping).await?,
    };
    let serving = ServingHalf::new(&backend, &front, history, &audit, room, metrics, &ending).await?;
    let serving = tokio::spawn(serving.run(listener));

    told_to_stop().await?;
    ending.stopping.cancel();
    ending.draining.cancel();
    serving.await?
}
