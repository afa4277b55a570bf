//! tmp
pub mod args;
pub mod event;
pub mod model;
pub mod pipeline;
pub mod resource;
pub mod runtime;
pub mod sink;
pub mod store;
pub mod telemetry;
pub mod tls;
