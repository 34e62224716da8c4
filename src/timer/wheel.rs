//! The wheel: timers that wait, by the tick of their deadline.

use std::cell::Cell;
use std::time::Instant;

use super::node::{Entry, NONE, Node, Place};

/// A tick is 2^20 ns.
pub(super) const TICK_BITS: u32 = 20;
/// 64 buckets a level: one word says which are occupied.
pub(super) const LEVEL_BITS: u32 = 6;
pub(super) const SLOTS: usize = 1 << LEVEL_BITS;
/// Enough for every tick of a 64-bit number of nanoseconds.
pub(super) const LEVELS: usize = 8;
/// Where the wheel starts again: 292 years after its base, half of what it can tell apart.
pub(super) const HORIZON: u64 = u64::MAX >> (TICK_BITS + 1);
/// How many timers of a bucket are walked past before it is opened (rule T3).
pub(super) const CROWD: usize = 16;

/// The timers whose tick is still to come.
///
/// A timer is on the level of the highest group of 6 bits in which its tick differs from `present`, in the bucket
/// which that group of its tick names. So buckets that have begun are empty, all of a level come before those of the
/// next, and `present` may move up to the first occupied bucket, however far that is, without touching another.
pub(super) struct Wheel {
    /// Where tick 0 begins.
    pub(super) base: Instant,
    /// The tick up to which timers are near.
    pub(super) present: u64,
    /// A crowd was walked past in the first bucket (rule T3).
    pub(super) crowded: Cell<bool>,
    /// Which levels have occupied buckets.
    pub(super) levels: u8,
    /// Which buckets of each level are occupied.
    pub(super) occupied: [u64; LEVELS],
    pub(super) buckets: Box<[Bucket]>,
}

pub(super) struct Bucket {
    pub(super) head: u32,
    /// The timer with the earliest deadline, `NONE` where it has to be looked for.
    pub(super) first: Cell<u32>,
    /// Its deadline; after it left, still not after any other.
    pub(super) earliest: Cell<Instant>,
}

impl Wheel {
    pub(super) fn new(base: Instant) -> Self {
        let bucket = || Bucket {
            head: NONE,
            first: Cell::new(NONE),
            earliest: Cell::new(base),
        };
        Wheel {
            base,
            present: 0,
            crowded: Cell::new(false),
            levels: 0,
            occupied: [0; LEVELS],
            buckets: std::iter::repeat_with(bucket)
                .take(LEVELS * SLOTS)
                .collect(),
        }
    }

    /// The tick of an instant. 0 before `base`; the last one from 584 years after it.
    #[inline]
    pub(super) fn tick(&self, instant: Instant) -> u64 {
        let nanos = instant.saturating_duration_since(self.base).as_nanos();
        u64::try_from(nanos).unwrap_or(u64::MAX) >> TICK_BITS
    }

    /// The first occupied bucket.
    #[inline]
    pub(super) fn first(&self) -> Option<u16> {
        if self.levels == 0 {
            return None;
        }
        let level = self.levels.trailing_zeros();
        let slot = self.occupied[level as usize].trailing_zeros();
        Some(bucket_of(level, slot.into()))
    }

    /// The tick at which an occupied bucket begins.
    pub(super) fn start(&self, bucket: u16) -> u64 {
        let width = width(bucket);
        let level_start = self.present & !(width * SLOTS as u64 - 1);
        level_start + slot(bucket) as u64 * width
    }

    /// Adds a timer whose tick is after `present`.
    #[inline]
    pub(super) fn link<T>(&mut self, nodes: &mut [Node<T>], index: u32) {
        let node = &mut nodes[index as usize];
        let level = (node.tick ^ self.present).ilog2() / LEVEL_BITS;
        let slot = node.tick >> (LEVEL_BITS * level) & (SLOTS as u64 - 1);
        let bucket = bucket_of(level, slot);
        self.levels |= 1 << level;
        self.occupied[level as usize] |= 1 << slot;

        let place = &mut self.buckets[bucket as usize];
        let head = std::mem::replace(&mut place.head, index);
        node.place = Place::Bucket(bucket);
        node.next = head;
        node.prev = NONE;
        if head == NONE || node.deadline < place.earliest.get() {
            place.first.set(index);
            place.earliest.set(node.deadline);
        }
        if head != NONE {
            nodes[head as usize].prev = index;
        }
    }

    /// Removes a timer from its bucket.
    #[inline]
    pub(super) fn unlink<T>(&mut self, nodes: &mut [Node<T>], index: u32, bucket: u16) {
        let Node { next, prev, .. } = nodes[index as usize];
        if next != NONE {
            nodes[next as usize].prev = prev;
        }
        let place = &mut self.buckets[bucket as usize];
        if place.first.get() == index {
            place.first.set(NONE);
        }
        if prev != NONE {
            nodes[prev as usize].next = next;
        } else {
            place.head = next;
            if next == NONE {
                self.mark_empty(bucket);
            }
        }
    }

    /// Empties a bucket, and returns the first of its list.
    pub(super) fn take(&mut self, bucket: u16) -> u32 {
        self.mark_empty(bucket);
        self.crowded.set(false);
        std::mem::replace(&mut self.buckets[bucket as usize].head, NONE)
    }

    pub(super) fn mark_empty(&mut self, bucket: u16) {
        let level = level(bucket);
        self.occupied[level] &= !(1 << slot(bucket));
        if self.occupied[level] == 0 {
            self.levels &= !(1 << level);
        }
    }

    /// Empties the first bucket, where `present` is now: into lower levels, and into `opened`, out of order.
    pub(super) fn open<T>(&mut self, bucket: u16, nodes: &mut [Node<T>], opened: &mut Vec<Entry>) {
        let mut at = self.take(bucket);
        while at != NONE {
            let node = &mut nodes[at as usize];
            let next = node.next;
            if node.tick > self.present {
                self.link(nodes, at);
            } else {
                node.place = Place::Opened;
                opened.push(Entry {
                    deadline: node.deadline,
                    order: node.order,
                    index: at,
                });
            }
            at = next;
        }
    }

    /// The earliest deadline of all.
    #[inline]
    pub(super) fn earliest<T>(&self, nodes: &[Node<T>]) -> Option<Instant> {
        let place = &self.buckets[self.first()? as usize];
        if place.first.get() == NONE {
            self.find_earliest(place, nodes);
        }
        Some(place.earliest.get())
    }

    /// Walks the first bucket.
    #[cold]
    pub(super) fn find_earliest<T>(&self, place: &Bucket, nodes: &[Node<T>]) {
        let mut at = place.head;
        let mut walked = 0;
        while at != NONE {
            let node = &nodes[at as usize];
            if walked == 0 || node.deadline < place.earliest.get() {
                place.first.set(at);
                place.earliest.set(node.deadline);
            }
            walked += 1;
            at = node.next;
        }
        self.crowded.set(walked > CROWD);
    }
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "8 levels of 64 slots")]
pub(super) fn bucket_of(level: u32, slot: u64) -> u16 {
    (level << LEVEL_BITS) as u16 + slot as u16
}

pub(super) fn level(bucket: u16) -> usize {
    usize::from(bucket) / SLOTS % LEVELS
}

pub(super) fn slot(bucket: u16) -> usize {
    usize::from(bucket) % SLOTS
}

/// How many ticks wide a bucket is.
pub(super) fn width(bucket: u16) -> u64 {
    1 << (LEVEL_BITS as usize * level(bucket))
}
