//! One value that several tasks change, for bookkeeping that nobody waits for.
//!
//! Guarantees: whoever uses it is alone with it for one call of a closure, which cannot wait (it is not asynchronous), so
//! the lock is held for moments and never across an await; a panic in one use does not keep others from it.
//!
//! Locks of the standard library are refused elsewhere: in a sidecar a worker would park in one, and a request with it.
//! Here are no requests, and what is kept (who is connected, how much was logged) is told, not decided by. A
//! `tokio::sync::watch` used for this would be the same lock with a list of listeners that has none.

#![expect(clippy::disallowed_types, reason = "it is the one place for it, see above")]

use std::sync::{Mutex, PoisonError};

/// A value for one user at a time.
#[derive(Debug, Default)]
pub(crate) struct Guarded<T>(Mutex<T>);

impl<T> Guarded<T> {
    /// Guards `value` from now on; it is not handed out again.
    pub(crate) fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    /// Lets `f` look at the value and change it. A panic in `f` leaves the value as it is then.
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use std::{panic::AssertUnwindSafe, thread};

    use super::*;

    #[test]
    fn of_several_users_each_is_alone_with_the_value() {
        let counter = Guarded::new(0_u32);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|_| counter.with(|n| *n += 1)));
            }
        });
        assert_eq!(counter.with(|n| *n), 40_000);
    }

    #[test]
    fn a_panic_does_not_lock_others_out() {
        let value = Guarded::new(1);
        let panicked = std::panic::catch_unwind(AssertUnwindSafe(|| value.with(|_| panic!("on purpose"))));
        panicked.unwrap_err();
        assert_eq!(value.with(|n| *n), 1);
    }
}
