//! Answers that are remembered for a short time.

use std::hash::Hash;
use std::num::NonZero;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lru::LruCache;
use tokio::time::Instant;

/// A bounded number of answers, each for a time; the one that was not asked for longest goes first.
pub(super) struct Expiring<K: Hash + Eq, V> {
    entries: Mutex<LruCache<K, (Instant, V)>>,
    lifetime: Duration,
}

impl<K: Hash + Eq, V: Clone> Expiring<K, V> {
    pub(super) fn new(capacity: usize, lifetime: Duration) -> Self {
        let capacity = NonZero::new(capacity).unwrap_or(NonZero::<usize>::MIN);
        Expiring { entries: Mutex::new(LruCache::new(capacity)), lifetime }
    }

    /// Returns an answer that is not too old.
    pub(super) fn get(&self, key: &K) -> Option<V> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, value) = entries.get(key)?;
        if since.elapsed() < self.lifetime {
            return Some(value.clone());
        }
        entries.pop(key);
        None
    }

    /// Remembers an answer.
    pub(super) fn put(&self, key: K, value: V) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.put(key, (Instant::now(), value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn answers_are_forgotten_after_their_time_and_when_there_are_too_many() {
        let cache = Expiring::new(2, Duration::from_secs(10));
        cache.put("a", 1);
        tokio::time::advance(Duration::from_secs(9)).await;
        assert_eq!(cache.get(&"a"), Some(1));
        cache.put("b", 2);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!((cache.get(&"a"), cache.get(&"b")), (None, Some(2)));
        cache.put("c", 3);
        cache.put("d", 4);
        assert_eq!((cache.get(&"b"), cache.get(&"c"), cache.get(&"d")), (None, Some(3), Some(4)));
    }
}
