//! Roots: the futures that drive, woken by key like tasks but polled by whoever drives.
//!
//! A root has a slot and a key, and no future in it: that lies on the driver's stack. The slot counts as ended, so that a
//! wake does not queue it but notes that it was woken.

use std::alloc::Layout;
use std::panic::Location;
use std::ptr::NonNull;

use crate::key::Key;

use super::Arena;
use super::cell::vacant_vtable;
use super::pages::class_of;
use super::slots::{ENDED, Header, Identity, MAX_ID, ROOT, WOKEN};

/// One driver's root. A forgotten one costs its slot.
pub(crate) struct Root<'a> {
    arena: &'a Arena,
    slot: NonNull<Header>,
}

impl<'a> Root<'a> {
    const LAYOUT: Layout = Layout::new::<Header>();

    /// Makes a root, already woken: it has not been polled yet.
    #[track_caller]
    pub(super) fn new(arena: &'a Arena) -> Self {
        let slot = arena.pages.take(
            class_of(Self::LAYOUT),
            Self::LAYOUT,
            &arena.front,
            arena.endpoint,
        );
        let generation = arena.roots.get() + 1;
        arena.roots.set(generation);
        // No task has this id, so that a key is all that leads here.
        let id = MAX_ID + 1 + (generation & Key::<usize>::GENERATION_MASK);
        let root = Root { arena, slot };
        root.header().occupy(
            Identity::new(arena.executor(), id),
            ROOT | ENDED | WOKEN,
            vacant_vtable(),
            Location::caller(),
        );
        root
    }

    fn header(&self) -> &Header {
        // SAFETY: `take` gave a slot, which this root keeps and the arena, which is borrowed, owns.
        unsafe { self.slot.as_ref() }
    }

    /// What its waker carries.
    #[inline]
    pub(crate) fn key(&self) -> usize {
        self.header().key.get()
    }

    /// Whether it was woken since the last time that this was asked.
    #[inline]
    pub(crate) fn take_woken(&self) -> bool {
        let woken = self.is_woken();
        self.arena.front.answer_hail();
        self.header().clear(WOKEN);
        woken
    }

    #[inline]
    pub(crate) fn is_woken(&self) -> bool {
        self.header().has(WOKEN)
    }
}

impl Drop for Root<'_> {
    fn drop(&mut self) {
        self.header().leave(0);
        // SAFETY: vacant, of this class, and never queued.
        unsafe {
            self.arena.pages.give(
                self.slot,
                class_of(Self::LAYOUT),
                Self::LAYOUT,
                &self.arena.front,
            )
        };
    }
}
