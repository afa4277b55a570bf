//! The queue between the thread that cuts and the threads that parse, bounded in bytes.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// A queue whose content has a size. One that is larger than the bound is let in when nothing else is there.
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    /// Rings for one reader when there is an item, and for all when there will be none.
    filled: Condvar,
    /// Rings for writers when there is room.
    drained: Condvar,
    max_bytes: usize,
}

struct State<T> {
    items: VecDeque<(T, usize)>,
    bytes: usize,
    closed: bool,
}

/// Closes the queue when it goes.
pub(super) struct CloseOnDrop<'a, T>(&'a Queue<T>);

impl<T> Queue<T> {
    pub(super) fn new(max_bytes: usize) -> Self {
        let state = State { items: VecDeque::new(), bytes: 0, closed: false };
        Queue { state: Mutex::new(state), filled: Condvar::new(), drained: Condvar::new(), max_bytes }
    }

    /// Adds an item as soon as there is room.
    pub(super) fn push(&self, item: T, bytes: usize) {
        let is_full = |state: &mut State<T>| {
            !state.items.is_empty() && state.bytes.saturating_add(bytes) > self.max_bytes
        };
        let mut state = self.drained.wait_while(self.lock(), is_full).unwrap_or_else(PoisonError::into_inner);
        state.items.push_back((item, bytes));
        state.bytes += bytes;
        drop(state);
        self.filled.notify_one();
    }

    /// Takes the oldest item as soon as there is one; none when the queue is closed and empty.
    pub(super) fn pop(&self) -> Option<T> {
        let is_idle = |state: &mut State<T>| state.items.is_empty() && !state.closed;
        let mut state = self.filled.wait_while(self.lock(), is_idle).unwrap_or_else(PoisonError::into_inner);
        let (item, bytes) = state.items.pop_front()?;
        state.bytes -= bytes;
        drop(state);
        self.drained.notify_one();
        Some(item)
    }

    /// Returns a guard whose end lets the readers end too, when they have taken what is left.
    pub(super) fn close_on_drop(&self) -> CloseOnDrop<'_, T> {
        CloseOnDrop(self)
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Drop for CloseOnDrop<'_, T> {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.filled.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_is_pushed_is_popped_once_within_the_bound() {
        let queue = Queue::new(10);
        let mut seen: Vec<u32> = std::thread::scope(|scope| {
            let readers: Vec<_> = (0..3)
                .map(|_| {
                    scope.spawn(|| {
                        let mut taken = Vec::new();
                        while let Some(item) = queue.pop() {
                            assert!(queue.lock().bytes <= 25);
                            taken.push(item);
                        }
                        taken
                    })
                })
                .collect();
            let close = queue.close_on_drop();
            for item in 0..100 {
                queue.push(item, if item % 10 == 0 { 25 } else { 3 });
            }
            drop(close);
            readers.into_iter().flat_map(|reader| reader.join().unwrap()).collect()
        });
        seen.sort_unstable();
        assert_eq!(seen, (0..100).collect::<Vec<_>>());
    }
}
