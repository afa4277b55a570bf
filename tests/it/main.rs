//! Everything through the front door, in one binary: real registry, real kubectl, real stores.
//!
//! Names of modules say what is shown; `support` is what they share.

#![expect(unreachable_pub, reason = "a binary: nothing in it is reached from outside")]
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a test that fails says so, and says where")]

mod support;

mod manifests;

mod cache_faults;
mod store_contract;
mod store_faults;

mod invalid_packages;

mod refresh_faults;
mod refresh_layers;
mod refresh_writes;

mod registry_access;
mod registry_faults;
mod registry_images;
mod registry_mirrors;
mod registry_trust;

mod pipeline_against_opm;
mod pipeline_limits;
mod pipeline_properties;
mod pipeline_refusals;

mod hostile_archives;
mod hostile_documents;
mod hostile_registries;

mod api_audit;
mod api_connections;
mod api_discovery;
mod api_errors;
mod api_forms;
mod api_heads;
mod api_limits;
mod api_on_etcd;
mod api_properties;
mod api_reads;
mod api_selectors;
mod api_transport;
mod api_watch_times;
mod api_watches;
mod api_writes;
mod apply_properties;
mod patch_properties;

mod judges;

mod kubectl_reads;
mod kubectl_writes;

mod clock_steps;
mod controller_endpoint;
mod end_to_end;
mod faults;
mod history;
mod large_catalog;
mod many_catalogs;
mod named_steps;
mod polls;
mod shared_names;

mod doors;
mod machine_faults;

mod soak;
