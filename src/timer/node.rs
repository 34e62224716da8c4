//! A timer's node in the slab, and its entry where order is exact.

use std::num::NonZeroU64;
use std::time::Instant;

/// The end of a list.
pub(super) const NONE: u32 = u32::MAX;

pub(super) struct Node<T> {
    /// `None` where the node is vacant.
    pub(super) value: Option<T>,
    pub(super) deadline: Instant,
    pub(super) generation: NonZeroU64,
    /// Which arming this is, 0 where the node is vacant.
    pub(super) order: u64,
    /// The deadline's tick, while it is in a bucket.
    pub(super) tick: u64,
    pub(super) place: Place,
    pub(super) next: u32,
    pub(super) prev: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    Vacant,
    Bucket(u16),
    Opened,
    Late,
}

/// A near timer's place in the order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub(super) deadline: Instant,
    pub(super) order: u64,
    pub(super) index: u32,
}

impl Entry {
    pub(super) fn is_stale<T>(&self, nodes: &[Node<T>]) -> bool {
        nodes[self.index as usize].order != self.order
    }
}
