//! Reading a range page by page.

use super::{At, Key, ListRequest, Page, Range, Store, StoreError};

/// Reads a range page by page, every page from the state of the first one.
pub struct Pager<'a> {
    store: &'a dyn Store,
    /// The next page; none behind the last.
    next: Option<ListRequest>,
}

impl<'a> Pager<'a> {
    /// Begins before the first page. A page holds at most `limit` objects.
    pub fn new(store: &'a dyn Store, range: Range, at: At, limit: usize) -> Self {
        Pager { store, next: Some(ListRequest { range, at, after: None, limit }) }
    }

    /// Begins behind a key.
    pub fn after(mut self, key: Option<Key>) -> Self {
        if let Some(request) = &mut self.next {
            request.after = key;
        }
        self
    }

    /// Returns the next page; none behind the last. There is at least one page.
    ///
    /// # Errors
    ///
    /// As [`Store::list`].
    pub async fn next(&mut self) -> Result<Option<Page>, StoreError> {
        let Some(mut request) = self.next.take() else { return Ok(None) };
        let page = self.store.list(request.clone()).await?;
        if let Some(last) = page.items.last().filter(|_| page.remaining > 0) {
            request.at = At::Exactly(page.version);
            request.after = Some(last.key.clone());
            self.next = Some(request);
        }
        Ok(Some(page))
    }
}
