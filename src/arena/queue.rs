//! The run queue: a ring of slot addresses.
//!
//! Every slot is in it at most once (flag `QUEUED`), and the ring always has room for every slot, so pushing neither
//! checks for room nor allocates: a wake cannot fail. A slot that is vacated while it is queued keeps its entry and is
//! not let again until the entry is gone (*limbo*): so an old entry never polls a new tenant early. When the queue is
//! mostly limbo it is compacted, which keeps spawn-and-cancel in a loop within bounds (P7).

use std::cell::{Cell, UnsafeCell};
use std::collections::TryReserveError;
use std::ptr::NonNull;

use super::slots::Header;

pub(super) struct RunQueue {
    ring: UnsafeCell<Vec<NonNull<Header>>>,
    /// `ring`'s address and length, where the hot path reads them.
    base: Cell<*mut NonNull<Header>>,
    len: Cell<usize>,
    /// Next to be taken.
    head: Cell<usize>,
    /// Next to be written. Never catches up with `head`: the ring has one place more than there are slots.
    tail: Cell<usize>,
    /// Where the present pass ends.
    mark: Cell<usize>,
    limbo: Cell<usize>,
}

impl RunQueue {
    pub(super) fn new() -> Self {
        RunQueue {
            ring: UnsafeCell::new(Vec::new()),
            base: Cell::new(std::ptr::null_mut()),
            len: Cell::new(0),
            head: Cell::new(0),
            tail: Cell::new(0),
            mark: Cell::new(0),
            limbo: Cell::new(0),
        }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.head.get() == self.tail.get()
    }

    /// Entries, limbo included.
    pub(super) fn len(&self) -> usize {
        let (head, tail) = (self.head.get(), self.tail.get());
        if tail >= head {
            tail - head
        } else {
            tail + self.len.get() - head
        }
    }

    /// Makes room for `slots` entries.
    pub(super) fn reserve(&self, slots: usize) -> Result<(), TryReserveError> {
        if slots < self.len.get() {
            return Ok(());
        }
        self.resize(slots + 1)
    }

    /// Gives back what is not needed for `slots` entries.
    pub(super) fn shrink(&self, slots: usize) {
        if slots + 1 < self.len.get() && slots >= self.len() {
            // Failing to get a smaller ring leaves the present one, which is right too.
            let _ = self.resize(slots + 1);
        }
    }

    fn resize(&self, places: usize) -> Result<(), TryReserveError> {
        let mut ring = Vec::new();
        // Grows by half at least, or a million spawns would copy it once per page.
        ring.try_reserve_exact(places.max(if places > self.len.get() {
            self.len.get() / 2 * 3
        } else {
            0
        }))?;
        let queued = self.len();
        let to_mark = distance(self.head.get(), self.mark.get(), self.len.get());
        ring.extend(self.iter());
        ring.resize(ring.capacity(), NonNull::dangling());
        self.len.set(ring.len());
        self.base.set(ring.as_mut_ptr());
        // SAFETY: `ring` is private and no reference into it is ever kept: the hot path goes through `base`, which now
        // names the new buffer. Moving a `Vec` does not move its buffer.
        let old = unsafe { std::mem::replace(&mut *self.ring.get(), ring) };
        drop(old);
        self.head.set(0);
        self.tail.set(queued);
        self.mark.set(to_mark);
        Ok(())
    }

    #[inline]
    fn at(&self, position: usize) -> NonNull<Header> {
        debug_assert!(position < self.len.get());
        // SAFETY: positions are below `len` (they only ever come from `next`), and all places are initialised.
        unsafe { self.base.get().wrapping_add(position).read() }
    }

    #[inline]
    fn put(&self, position: usize, slot: NonNull<Header>) {
        debug_assert!(position < self.len.get());
        // SAFETY: as in `at`.
        unsafe { self.base.get().wrapping_add(position).write(slot) };
    }

    #[inline]
    fn next(&self, position: usize) -> usize {
        let next = position + 1;
        if next == self.len.get() { 0 } else { next }
    }

    /// Adds a slot. There is room: `reserve` was called for every slot, and the caller has just set `QUEUED`.
    #[inline]
    pub(super) fn push(&self, slot: NonNull<Header>) {
        let tail = self.tail.get();
        self.put(tail, slot);
        let next = self.next(tail);
        debug_assert_ne!(next, self.head.get());
        self.tail.set(next);
    }

    /// Starts a pass: it ends before what is pushed from now on.
    #[inline]
    pub(super) fn begin_pass(&self) {
        self.mark.set(self.tail.get());
    }

    /// Takes the next entry of the present pass.
    #[inline]
    pub(super) fn pop(&self) -> Option<NonNull<Header>> {
        let head = self.head.get();
        if head == self.mark.get() {
            return None;
        }
        let slot = self.at(head);
        self.head.set(self.next(head));
        Some(slot)
    }

    /// All entries, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = NonNull<Header>> + '_ {
        let mut position = self.head.get();
        std::iter::from_fn(move || {
            (position != self.tail.get()).then(|| {
                let slot = self.at(position);
                position = self.next(position);
                slot
            })
        })
    }

    /// Where the next entry will be.
    pub(super) fn tail(&self) -> usize {
        self.tail.get()
    }

    /// Turns the entries from `start` (an earlier [`tail`](Self::tail)) on around: a batch that came newest first.
    pub(super) fn reverse_from(&self, start: usize) {
        let count = distance(start, self.tail.get(), self.len.get());
        let at = |offset: usize| (start + offset) % self.len.get().max(1);
        for i in 0..count / 2 {
            let (a, b) = (at(i), at(count - 1 - i));
            let (x, y) = (self.at(a), self.at(b));
            self.put(a, y);
            self.put(b, x);
        }
    }

    /// Puts the entries of the present pass into another order (Fisher and Yates).
    pub(super) fn shuffle(&self, mut random: impl FnMut() -> u64) {
        let (head, len) = (self.head.get(), self.len.get());
        let count = distance(head, self.mark.get(), len);
        for i in (1..count).rev() {
            let j = usize::try_from(random() % (i as u64 + 1)).unwrap_or(0);
            let (a, b) = ((head + i) % len, (head + j) % len);
            let (x, y) = (self.at(a), self.at(b));
            self.put(a, y);
            self.put(b, x);
        }
    }

    /// Counts a slot that was vacated while queued. Returns whether it is time to compact.
    pub(super) fn add_limbo(&self) -> bool {
        self.limbo.set(self.limbo.get() + 1);
        self.limbo.get() > 64 && self.limbo.get() > self.len() / 2
    }

    /// An entry of a vacated slot came out.
    pub(super) fn remove_limbo(&self) {
        self.limbo.set(self.limbo.get() - 1);
    }

    /// Removes the entries for which `stays` is false, keeping order and the end of the present pass.
    pub(super) fn compact(&self, mut stays: impl FnMut(NonNull<Header>) -> bool) {
        let (mut from, mut to) = (self.head.get(), self.head.get());
        let (tail, old_mark) = (self.tail.get(), self.mark.get());
        let mut mark = None;
        while from != tail {
            if from == old_mark {
                mark = Some(to);
            }
            let slot = self.at(from);
            if stays(slot) {
                self.put(to, slot);
                to = self.next(to);
            } else {
                self.limbo.set(self.limbo.get() - 1);
            }
            from = self.next(from);
        }
        self.tail.set(to);
        self.mark.set(mark.unwrap_or(to));
    }
}

/// How far it is from `from` to `to` in a ring of `len` places.
fn distance(from: usize, to: usize, len: usize) -> usize {
    if to >= from {
        to - from
    } else {
        to + len - from
    }
}

#[cfg(test)]
mod tests {
    use super::{Header, RunQueue};
    use std::ptr::NonNull;

    /// Entries are only compared here, never followed.
    fn slot(n: usize) -> NonNull<Header> {
        NonNull::new(std::ptr::without_provenance_mut(n * 8 + 8)).unwrap()
    }

    fn drain(queue: &RunQueue) -> Vec<usize> {
        queue.begin_pass();
        std::iter::from_fn(|| queue.pop())
            .map(|p| p.addr().get() / 8 - 1)
            .collect()
    }

    #[test]
    fn a_pass_ends_before_what_is_pushed_meanwhile() {
        let queue = RunQueue::new();
        queue.reserve(4).unwrap();
        queue.push(slot(0));
        queue.push(slot(1));
        queue.begin_pass();
        assert_eq!(queue.pop(), Some(slot(0)));
        queue.push(slot(2));
        assert_eq!(queue.pop(), Some(slot(1)));
        assert_eq!(queue.pop(), None);
        assert_eq!(drain(&queue), [2]);
    }

    #[test]
    fn growth_keeps_order_and_the_end_of_the_pass() {
        let queue = RunQueue::new();
        queue.reserve(3).unwrap();
        // Move head and tail around the ring first.
        for n in 0..2 {
            queue.push(slot(n));
        }
        assert_eq!(drain(&queue), [0, 1]);
        for n in 2..4 {
            queue.push(slot(n));
        }
        queue.begin_pass();
        queue.push(slot(4));
        queue.reserve(10).unwrap();
        queue.push(slot(5));
        let pass: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(pass, [slot(2), slot(3)]);
        assert_eq!(drain(&queue), [4, 5]);
    }

    #[test]
    fn a_batch_can_be_turned_around_across_the_end_of_the_ring() {
        let queue = RunQueue::new();
        queue.reserve(4).unwrap();
        for n in 0..3 {
            queue.push(slot(n));
        }
        assert_eq!(drain(&queue), [0, 1, 2]);
        queue.push(slot(9));
        let start = queue.tail();
        for n in [3, 2, 1] {
            queue.push(slot(n));
        }
        queue.reverse_from(start);
        assert_eq!(drain(&queue), [9, 1, 2, 3]);
    }

    #[test]
    fn compaction_keeps_order_and_the_end_of_the_pass() {
        for mark_after in 0..6 {
            let queue = RunQueue::new();
            queue.reserve(6).unwrap();
            for n in 0..6 {
                if n == mark_after {
                    queue.begin_pass();
                }
                queue.push(slot(n));
            }
            for _ in 0..3 {
                queue.add_limbo();
            }
            queue.compact(|s| (s.addr().get() / 8 - 1) % 2 == 0);
            let pass: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
            assert_eq!(
                pass.len(),
                mark_after.div_ceil(2),
                "mark after {mark_after}"
            );
            let rest = drain(&queue);
            assert_eq!(pass.len() + rest.len(), 3);
        }
    }
}
