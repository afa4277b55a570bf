//! The stores behind the seam.

mod embedded;
mod output;

pub use self::embedded::{EmbeddedStore, OpenError};
pub use self::output::{OutputFormat, OutputStore};
