//! The stores behind the seam.

mod cached;
mod catalog_cache;
mod embedded;
mod etcd;
mod measured;
mod output;

pub use self::cached::{CachedResource, CachedStore};
pub use self::catalog_cache::CatalogCacheStore;
pub use self::embedded::{EmbeddedStore, OpenError};
pub use self::etcd::{EtcdConfig, EtcdHealth, EtcdStore, EtcdTls, transaction};
pub use self::measured::MeasuredStore;
pub use self::output::{OutputFormat, OutputStore};
