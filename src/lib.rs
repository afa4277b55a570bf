//! Serves the content of operator catalogs as native Kubernetes objects, kept fresh by a streaming ingestion pipeline.
//!
//! Data runs one way, and the modules stand in its order:
//!
//! ```text
//!   image reference
//!       │  discover    tag → digest: one request, and nothing to do if that digest is stored
//!       │  fetch       manifest → layer byte streams, hashed as they pass, verdict at the end
//!       │  inflate     gzip, zstd → tar → overlay → files under the catalog root
//!       │  parse       bytes → one meta at a time; parsed only if it changed
//!       │  reconcile   metas of a package → objects → difference from what is stored → events
//!       ▼  submit      events → batches bounded by operations and bytes
//!   ══ Store::append ══ Store::list ══ Store::watch ══                                     the only seam
//!       │
//!       ▼  api         discovery, list, get, watch, write
//!   kubectl · informers · kube-rs
//! ```
//!
//! `pipeline` and `api` never name each other; `make lint` checks that. Where each half ends, [`store`] begins.

// What flows.
pub mod event;
pub mod model;
pub mod resource;

// What writes.
pub mod controller;
pub mod pipeline;

// The seam, and what is behind it.
pub mod sink;
pub mod store;

// What reads.
pub mod api;

// What a cluster gives to both.
pub mod cluster;

// What puts it together.
pub mod args;
pub mod runtime;
pub mod telemetry;
pub mod tls;
