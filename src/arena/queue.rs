//! The run queue: a ring of slot addresses.
//!
//! Every slot is in it at most once (flag `QUEUED`), and the ring always has room for every slot, so pushing neither
//! checks for room nor allocates: a wake cannot fail. A slot that is vacated while it is queued keeps its entry and is
//! not let again until the entry is gone (*limbo*): so an old entry never polls a new tenant early. When the queue is
//! mostly limbo it is compacted, which keeps spawn-and-cancel in a loop within bounds (P7).

use std::cell::{Cell, UnsafeCell};
use std::collections::TryReserveError;
use std::ptr::{self, NonNull};

use super::slots::Header;

type Place = *mut NonNull<Header>;

pub(super) struct RunQueue {
    // Places, not indices, and a stop before the ring's end: an entry is taken with one comparison and added with one.
    // With indices it was 2 more instructions for each.
    /// Next to be taken. May be `end`, which is the same place as `base` ([`head`](Self::head)).
    head: Cell<Place>,
    /// Where [`pop`](Self::pop) stops, for the loop to look around: at the end of a stretch of the pass, of the pass, or of
    /// the ring; or at once ([`interrupt`](Self::interrupt)).
    stop: Cell<Place>,
    /// Next to be written. Never catches up with `head`: the ring has one place more than there are slots. Never `end`.
    tail: Cell<Place>,
    /// The ring.
    base: Cell<Place>,
    end: Cell<Place>,
    /// Where the present pass ends.
    mark: Cell<Place>,
    limbo: Cell<usize>,
    /// Owns the ring.
    ring: UnsafeCell<Vec<NonNull<Header>>>,
}

impl RunQueue {
    pub(super) const fn new() -> Self {
        RunQueue {
            head: Cell::new(ptr::null_mut()),
            stop: Cell::new(ptr::null_mut()),
            tail: Cell::new(ptr::null_mut()),
            base: Cell::new(ptr::null_mut()),
            end: Cell::new(ptr::null_mut()),
            mark: Cell::new(ptr::null_mut()),
            limbo: Cell::new(0),
            ring: UnsafeCell::new(Vec::new()),
        }
    }

    /// Where the next entry to be taken is.
    #[inline]
    fn head(&self) -> Place {
        let head = self.head.get();
        if head == self.end.get() {
            self.base.get()
        } else {
            head
        }
    }

    /// How many places the ring has.
    fn places(&self) -> usize {
        distance(self.base.get(), self.end.get())
    }

    /// How far on `place` is from the head, around the ring.
    fn offset(&self, place: Place) -> usize {
        let head = self.head();
        if place >= head {
            distance(head, place)
        } else {
            distance(head, self.end.get()) + distance(self.base.get(), place)
        }
    }

    /// The place that is so far on from the head; `offset` is less than the number of places.
    fn place(&self, offset: usize) -> Place {
        let head = self.head();
        let straight = distance(head, self.end.get());
        if offset < straight {
            head.wrapping_add(offset)
        } else {
            self.base.get().wrapping_add(offset - straight)
        }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.head() == self.tail.get()
    }

    /// Entries, limbo included.
    pub(super) fn len(&self) -> usize {
        self.offset(self.tail.get())
    }

    /// Makes room for `slots` entries.
    pub(super) fn reserve(&self, slots: usize) -> Result<(), TryReserveError> {
        if slots < self.places() {
            return Ok(());
        }
        self.resize(slots + 1)
    }

    /// Gives back what is not needed for `slots` entries.
    pub(super) fn shrink(&self, slots: usize) {
        if slots + 1 < self.places() && slots >= self.len() {
            // Failing to get a smaller ring leaves the present one, which is right too.
            let _ = self.resize(slots + 1);
        }
    }

    fn resize(&self, places: usize) -> Result<(), TryReserveError> {
        let mut ring = Vec::new();
        // Grows by half at least, or a million spawns would copy it once per page.
        ring.try_reserve_exact(places.max(if places > self.places() {
            self.places() / 2 * 3
        } else {
            0
        }))?;
        let queued = self.len();
        let to_mark = self.offset(self.mark.get());
        ring.extend(self.iter());
        ring.resize(ring.capacity(), NonNull::dangling());
        let base = ring.as_mut_ptr();
        self.base.set(base);
        self.end.set(base.wrapping_add(ring.len()));
        // SAFETY: `ring` is private and no reference into it is ever kept: the hot path goes through places, which now
        // are those of the new buffer. Moving a `Vec` does not move its buffer.
        let old = unsafe { std::mem::replace(&mut *self.ring.get(), ring) };
        drop(old);
        self.head.set(base);
        self.tail.set(base.wrapping_add(queued));
        self.mark.set(base.wrapping_add(to_mark));
        self.interrupt();
        Ok(())
    }

    #[inline]
    fn at(&self, place: Place) -> NonNull<Header> {
        debug_assert!(place >= self.base.get() && place < self.end.get());
        // SAFETY: places are in the ring (`place` and `next` give no others, and `head` is not `end` where this is called),
        // and all of it is initialised.
        unsafe { place.read() }
    }

    #[inline]
    fn put(&self, place: Place, slot: NonNull<Header>) {
        debug_assert!(place >= self.base.get() && place < self.end.get());
        // SAFETY: as in `at`.
        unsafe { place.write(slot) };
    }

    #[inline]
    fn next(&self, place: Place) -> Place {
        let next = place.wrapping_add(1);
        if next == self.end.get() {
            self.base.get()
        } else {
            next
        }
    }

    /// Adds a slot. There is room: `reserve` was called for every slot, and the caller has just set `QUEUED`.
    #[inline]
    pub(super) fn push(&self, slot: NonNull<Header>) {
        let tail = self.tail.get();
        self.put(tail, slot);
        let next = tail.wrapping_add(1);
        // A branch that is nearly never taken is better here than a choice of two values.
        if next == self.end.get() {
            return self.push_wraps();
        }
        debug_assert!(next != self.head.get());
        self.tail.set(next);
    }

    #[cold]
    #[inline(never)]
    fn push_wraps(&self) {
        debug_assert!(self.base.get() != self.head());
        self.tail.set(self.base.get());
    }

    /// Starts a pass: it ends before what is pushed from now on. Nothing is taken before [`stretch`](Self::stretch).
    #[inline]
    pub(super) fn begin_pass(&self) {
        self.mark.set(self.tail.get());
        self.interrupt();
    }

    /// Lets [`pop`](Self::pop) take up to so many of the entries of the present pass. `false`: there are none.
    #[inline]
    pub(super) fn stretch(&self, most: usize) -> bool {
        let (head, mark) = (self.head(), self.mark.get());
        self.stop_after(head, mark, most);
        head != self.stop.get()
    }

    /// Lets [`pop`](Self::pop) go on, in this pass or, if that is over, in a new one. `false`: there are no entries.
    #[inline]
    pub(super) fn go_on(&self, most: usize) -> bool {
        let (head, mark) = (self.head(), self.mark.get());
        if head != mark {
            self.stop_after(head, mark, most);
            return true;
        }
        let tail = self.tail.get();
        self.mark.set(tail);
        self.stop_after(head, tail, most);
        head != tail
    }

    /// Whether all that was there when the pass began has been taken.
    #[inline]
    pub(super) fn is_pass_over(&self) -> bool {
        self.head() == self.mark.get()
    }

    #[inline]
    fn stop_after(&self, head: Place, mark: Place, most: usize) {
        let straight = if mark >= head { mark } else { self.end.get() };
        let bytes = (straight.addr() - head.addr()).min(most * size_of::<NonNull<Header>>());
        self.head.set(head);
        self.stop.set(head.wrapping_byte_add(bytes));
    }

    /// Makes [`pop`](Self::pop) stop now.
    #[inline]
    pub(super) fn interrupt(&self) {
        self.stop.set(self.head.get());
    }

    /// Takes the next entry of the present stretch.
    #[inline]
    pub(super) fn pop(&self) -> Option<NonNull<Header>> {
        let head = self.head.get();
        if head == self.stop.get() {
            return None;
        }
        let slot = self.at(head);
        self.head.set(head.wrapping_add(1));
        Some(slot)
    }

    /// All entries, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = NonNull<Header>> + '_ {
        let mut place = self.head();
        std::iter::from_fn(move || {
            (place != self.tail.get()).then(|| {
                let slot = self.at(place);
                place = self.next(place);
                slot
            })
        })
    }

    /// Turns the entries from the `start`th on (an earlier [`len`](Self::len)) around: a batch that came newest first.
    pub(super) fn reverse_from(&self, start: usize) {
        let count = self.len() - start;
        for i in 0..count / 2 {
            self.swap(start + i, start + count - 1 - i);
        }
    }

    /// Puts the entries of the present pass into another order (Fisher and Yates).
    pub(super) fn shuffle(&self, mut random: impl FnMut() -> u64) {
        for i in (1..self.offset(self.mark.get())).rev() {
            let j = usize::try_from(random() % (i as u64 + 1)).unwrap_or(0);
            self.swap(i, j);
        }
    }

    fn swap(&self, i: usize, j: usize) {
        let (a, b) = (self.place(i), self.place(j));
        let (x, y) = (self.at(a), self.at(b));
        self.put(a, y);
        self.put(b, x);
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
        let head = self.head();
        let (mut from, mut to) = (head, head);
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
        self.head.set(head);
        self.tail.set(to);
        self.mark.set(mark.unwrap_or(to));
        self.interrupt();
    }
}

/// How many places there are from `from` to `to`, which is not before it in the ring's memory.
#[inline]
fn distance(from: Place, to: Place) -> usize {
    debug_assert!(from <= to);
    (to.addr() - from.addr()) / size_of::<NonNull<Header>>()
}

#[cfg(test)]
mod tests {
    use super::{Header, RunQueue};
    use std::ptr::NonNull;

    /// Entries are only compared here, never followed.
    fn slot(n: usize) -> NonNull<Header> {
        NonNull::new(std::ptr::without_provenance_mut(n * 8 + 8)).unwrap()
    }

    /// What the pass that has begun still takes, in stretches of 2.
    fn rest_of_pass(queue: &RunQueue) -> Vec<NonNull<Header>> {
        let mut rest = Vec::new();
        while queue.stretch(2) {
            rest.extend(std::iter::from_fn(|| queue.pop()));
        }
        rest
    }

    fn drain(queue: &RunQueue) -> Vec<usize> {
        queue.begin_pass();
        rest_of_pass(queue)
            .into_iter()
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
        assert_eq!(queue.pop(), None, "no stretch has begun");
        assert!(queue.stretch(64));
        assert_eq!(queue.pop(), Some(slot(0)));
        queue.push(slot(2));
        assert_eq!(queue.pop(), Some(slot(1)));
        assert_eq!(queue.pop(), None);
        assert_eq!(drain(&queue), [2]);
    }

    #[test]
    fn an_interrupted_stretch_goes_on_where_it_was() {
        let queue = RunQueue::new();
        queue.reserve(3).unwrap();
        for round in 0..9 {
            queue.push(slot(round));
            queue.push(slot(round + 1));
            queue.begin_pass();
            assert!(queue.stretch(64));
            let mut taken = Vec::from_iter(queue.pop());
            queue.interrupt();
            assert_eq!(queue.pop(), None);
            taken.extend(rest_of_pass(&queue));
            assert_eq!(taken, [slot(round), slot(round + 1)]);
            assert!(queue.is_empty() && !queue.stretch(64));
        }
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
        let pass = rest_of_pass(&queue);
        assert_eq!(pass, [slot(2), slot(3)]);
        assert_eq!(drain(&queue), [4, 5]);
    }

    #[test]
    fn nothing_is_taken_between_the_beginning_of_a_pass_and_its_first_stretch() {
        let queue = RunQueue::new();
        queue.reserve(4).unwrap();
        queue.push(slot(0));
        queue.begin_pass();
        assert!(queue.stretch(64));
        queue.begin_pass();
        assert_eq!(queue.pop(), None);
        assert_eq!(drain(&queue), [0]);
    }

    #[test]
    fn a_pass_that_is_over_goes_on_with_what_was_pushed_meanwhile() {
        let queue = RunQueue::new();
        queue.reserve(4).unwrap();
        for n in 0..3 {
            queue.push(slot(n));
        }
        queue.begin_pass();
        assert!(queue.stretch(2));
        assert_eq!((queue.pop(), queue.pop()), (Some(slot(0)), Some(slot(1))));
        queue.push(slot(3));
        assert!(queue.go_on(64), "in the same pass");
        assert_eq!((queue.pop(), queue.pop()), (Some(slot(2)), None));
        assert!(queue.go_on(64), "in a new one");
        assert_eq!((queue.pop(), queue.pop()), (Some(slot(3)), None));
        assert!(!queue.go_on(64), "there is nothing");
        assert_eq!(queue.pop(), None);
    }

    #[test]
    fn the_ring_has_a_place_more_than_was_asked_for_and_grows_by_half() {
        let queue = RunQueue::new();
        let (mut before, mut growths) = (0, 0);
        for slots in 0..10_000 {
            queue.reserve(slots).unwrap();
            let places = queue.places();
            assert!(places > slots, "full must not look like empty");
            assert!(
                places <= (slots + 1).max(before / 2 * 3),
                "{slots}: {places}"
            );
            if places != before {
                growths += 1;
            }
            before = places;
        }
        assert!(growths < 40, "a copy for each of {growths} slots");
        queue.reserve(5).unwrap();
        assert_eq!(queue.places(), before, "what is there already is kept");
    }

    #[test]
    fn shrinking_leaves_what_is_asked_for_and_never_less_than_is_queued() {
        let queue = RunQueue::new();
        queue.reserve(100).unwrap();
        let places = queue.places();
        for n in 0..8 {
            queue.push(slot(n));
        }
        queue.shrink(7);
        assert_eq!(queue.places(), places, "eight are queued");
        queue.shrink(200);
        assert_eq!(queue.places(), places, "it does not grow");
        queue.shrink(8);
        assert_eq!(queue.places(), 9);
        assert_eq!(drain(&queue), [0, 1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn it_is_time_to_compact_when_most_of_more_than_64_entries_are_in_limbo() {
        let queue = RunQueue::new();
        queue.reserve(200).unwrap();
        for n in 0..140 {
            queue.push(slot(n));
        }
        let limbo: Vec<bool> = (0..71).map(|_| queue.add_limbo()).collect();
        assert!(
            limbo[..70].iter().all(|time| !time),
            "half of them are not most"
        );
        assert!(limbo[70]);
        // An entry that comes out by itself, and those that a compaction takes out, are in limbo no more.
        queue.remove_limbo();
        assert!(queue.add_limbo());
        queue.compact(|slot| slot.addr().get() / 8 > 71);
        assert_eq!(queue.len(), 69);
        let few: Vec<bool> = (0..65).map(|_| queue.add_limbo()).collect();
        assert!(few[..64].iter().all(|time| !time), "64 are few");
        assert!(few[64]);
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
        let start = queue.len();
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
            let pass = rest_of_pass(&queue);
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
