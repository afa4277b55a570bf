//! What the benches share: real parts on loopback, catalogs, an account of what processes took, and figures.

pub mod account;
pub mod budgets;
pub mod catalogs;
pub mod chart;
pub mod client;
#[path = "../tests/e2e/cluster.rs"]
#[expect(clippy::unwrap_used, reason = "the tests, too, fail where they are")]
pub mod cluster;
pub mod expected;
pub mod figures;
pub mod installation;
pub mod servers;
pub mod support;
pub mod watches;
pub mod yardsticks;
