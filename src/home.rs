//! Telling threads apart: an executor knows its own by number.
//!
//! Not `std::thread::current().id()`: that cannot be asked at the very end of a thread, where destructors of
//! thread-locals still wake tasks.

use std::cell::Cell;

use crate::wide::Wide;

static NEXT: Wide = Wide::new(1);

thread_local! {
    /// 0: not asked yet. Without a destructor, hence always there.
    static HERE: Cell<u64> = const { Cell::new(0) };
}

/// This thread's number: never 0, and no other thread's, also later.
#[inline]
pub(crate) fn here() -> u64 {
    match HERE.get() {
        0 => number(),
        here => here,
    }
}

#[cold]
fn number() -> u64 {
    let (Ok(here) | Err(here)) = NEXT.update(|next| Some(next + 1));
    HERE.set(here);
    here
}

#[cfg(test)]
mod tests {
    use super::here;

    #[test]
    fn a_thread_keeps_its_number_and_shares_it_with_no_other() {
        let first = here();
        assert_ne!(first, 0);
        assert_eq!(here(), first);
        let other = std::thread::spawn(here).join().unwrap();
        assert_ne!(other, first);
    }
}
