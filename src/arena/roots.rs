//! Roots: the futures that drive, woken by key like tasks but polled by whoever drives.
//!
//! A root has a slot index and a key, and no cell: its future lives on the driver's stack. Its index answers as vacant
//! in the frame table, so that the hot path of a wake knows nothing of roots.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::Rc;

use crate::key::Key;

/// One driver's root.
#[derive(Debug)]
pub(crate) struct Root {
    key: usize,
    woken: Cell<bool>,
}

impl Root {
    /// What its waker carries.
    #[inline]
    pub(crate) fn key(&self) -> usize {
        self.key
    }

    /// Whether it was woken since the last time that this was asked.
    #[inline]
    pub(crate) fn take_woken(&self) -> bool {
        self.woken.replace(false)
    }

    #[inline]
    pub(crate) fn is_woken(&self) -> bool {
        self.woken.get()
    }
}

/// All roots of an arena.
#[derive(Default)]
pub(super) struct Roots {
    open: RefCell<Vec<Rc<Root>>>,
    /// Indices set aside for roots and not in use.
    indices: RefCell<Vec<u32>>,
    generation: Cell<u64>,
}

impl Roots {
    /// Makes a root, already woken: it has not been polled yet.
    #[track_caller]
    pub(super) fn open(&self, executor: u32, more: impl FnOnce() -> Range<u32>) -> Rc<Root> {
        let index = self.indices.borrow_mut().pop();
        let index = match index {
            Some(index) => index,
            None => {
                let range = more();
                let mut indices = self.indices.borrow_mut();
                indices.extend(range.rev());
                indices
                    .pop()
                    .unwrap_or_else(|| unreachable!("16 indices were added"))
            }
        };
        let generation = self.generation.get() + 1;
        self.generation.set(generation);
        let root = Rc::new(Root {
            key: Key::<usize>::new(executor, generation, index).word(),
            woken: Cell::new(true),
        });
        self.open.borrow_mut().push(Rc::clone(&root));
        root
    }

    pub(super) fn close(&self, root: &Rc<Root>) {
        self.open
            .borrow_mut()
            .retain(|open| !Rc::ptr_eq(open, root));
        self.indices
            .borrow_mut()
            .push(Key::<usize>::from_word(root.key).index());
    }

    /// A key that is no task's: is it a root's?
    // Not inlined: it would push the hot half of every wake apart.
    #[cold]
    #[inline(never)]
    pub(super) fn wake(&self, key: usize) {
        for root in self.open.borrow().iter() {
            if root.key == key {
                root.woken.set(true);
            }
        }
    }

    /// A remote wake, which carries the index alone.
    pub(super) fn wake_index(&self, index: u32) {
        for root in self.open.borrow().iter() {
            if Key::<usize>::from_word(root.key).index() == index {
                root.woken.set(true);
            }
        }
    }
}
