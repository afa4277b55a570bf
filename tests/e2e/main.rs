//! On a real cluster without nodes: aggregated behind a real kube-apiserver, with its users, its garbage collector and its
//! namespaces.
//!
//! `make e2e` builds what is needed in `bin/`. The server runs as processes on loopback; the kube-apiserver reaches it
//! through a Service of type ExternalName.

#![expect(unreachable_pub, reason = "a binary: nothing in it is reached from outside")]
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a test that fails says so, and says where")]

// The same files as those of the other tests, by links.
#[expect(dead_code, reason = "the other tests use more of it")]
mod support;

mod cluster;
mod installation;

mod access;
mod availability;
mod commands;
mod differential;
mod lifecycle;
mod manifests;
mod quickstart;
mod references;
mod rotation;
