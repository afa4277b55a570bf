//! Objects of the past, for whoever knows that they were there.

use super::{At, Key, ListRequest, Range, ResourceVersion, Store, StoreError, Stored};

/// How often the beginning of history may move on while one object is read.
const TRIES: usize = 3;

/// Reads single objects of a store's past.
pub(crate) struct Past<'a, S: ?Sized> {
    store: &'a S,
    /// Where history begins, as far as is known.
    oldest: ResourceVersion,
}

impl<'a, S: Store + ?Sized> Past<'a, S> {
    /// Reads the past of a store.
    pub(crate) fn of(store: &'a S) -> Self {
        Past { store, oldest: ResourceVersion::default() }
    }

    /// Returns what was under a key in a state, or, where history begins later, at the beginning of history; and the version
    /// it was read at. Both are the same for an object of that state that is also one of a state that can be read.
    ///
    /// # Errors
    ///
    /// As [`Store::list`].
    pub(crate) async fn read(
        &mut self,
        key: &Key,
        at: ResourceVersion,
    ) -> Result<(Option<Stored>, ResourceVersion), StoreError> {
        let mut tries = TRIES;
        loop {
            let at = at.max(self.oldest);
            let request =
                ListRequest { range: Range::single(key), at: At::Exactly(at), after: None, limit: 1 };
            tries -= 1;
            match self.store.list(request).await {
                Ok(page) => return Ok((page.items.into_iter().next(), at)),
                Err(StoreError::Compacted { oldest, .. }) if oldest > at && tries > 0 => self.oldest = oldest,
                Err(error) => return Err(error),
            }
        }
    }
}
