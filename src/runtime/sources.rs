//! From arguments to where catalogs are read.

use std::fs;

use anyhow::Context;

use crate::args::{ReadArgs, RegistryArgs};
use crate::pipeline::discover::{LocalSources, Sources};
use crate::pipeline::fetch::{AuthFiles, Mirrors, RegistryClient, RegistryOptions};
use crate::pipeline::limits::{Limits, read_bounded};

/// Bytes of a `registries.conf`.
const MAX_CONF_BYTES: u64 = 1 << 20;

/// Returns what opens sources, and how much may be read of them. `is_checked` says whether files that are only needed
/// later are read now, so that what is wrong with them is said at the start.
pub(super) fn sources(
    args: &ReadArgs,
    local: LocalSources,
    is_checked: bool,
) -> anyhow::Result<(Sources, Limits)> {
    let ReadArgs { registries, limits } = args;
    let limits = limits.limits();
    let RegistryArgs { registry_auth_file, registry_ca_dir, registries_conf, registry_timeout } = registries;
    let mirrors = match registries_conf {
        None => Mirrors::default(),
        Some(path) => {
            let read = || -> anyhow::Result<Mirrors> {
                let file = fs::File::open(path)?;
                let text = read_bounded(file, "bytes in a registries.conf", MAX_CONF_BYTES)?;
                Ok(Mirrors::parse(&String::from_utf8(text)?)?)
            };
            read().with_context(|| format!("cannot read `{}`", path.display()))?
        }
    };
    let options = RegistryOptions {
        mirrors,
        authorities: registry_ca_dir.clone(),
        auth_files: registry_auth_file.clone().map_or(AuthFiles::Usual, AuthFiles::Only),
        read_timeout: *registry_timeout,
    };
    if is_checked {
        options.check()?;
    }
    Ok((Sources::new(RegistryClient::new(options), local, limits.clone()), limits))
}
