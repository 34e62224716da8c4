//! Pages: the memory of cells, by size class, and the way from a slot index to its address.
//!
//! Indices come in *frames* of 16. A frame's entry holds a base and a stride, so that the slot's address is
//! `base + index * stride`: one multiplication, no pointer per slot, and the header lies where the future lies.
//!
//! Why not a dense array of slots with a pointer to each cell: the array costs 16 bytes a task and a second cache line
//! on every wake and poll; a frame costs one byte a task.
//!
//! Memory of a class is *type-stable*: once a slot, always a slot, until `shrink` finds its whole page vacant. So a
//! stale key finds a valid header, whose key differs. Frame entries without memory name the arena's one vacant header.

use std::alloc::{Layout, alloc, dealloc};
use std::cell::{Cell, RefCell};
use std::ptr::{self, NonNull};

use crate::key::Key;
use crate::remote::endpoint::Endpoint;

use super::front::Front;
use super::slots::{DEDICATED, Header, QUEUED, ROOT, SHED, VACANT};

const FRAME: usize = 16;
const FRAME_SHIFT: u32 = FRAME.trailing_zeros();

/// Cells up to this size are in steps of 8 bytes, so that a small task wastes nothing.
const FINE_LIMIT: usize = 1024;
const FINE_CLASSES: usize = FINE_LIMIT / 8 + 1;
/// Above, eight classes per doubling, up to this size; larger cells have an allocation of their own.
const COARSE_LIMIT: usize = 16 * 1024;
const COARSE_CLASSES: usize = 8 * (COARSE_LIMIT / FINE_LIMIT).ilog2() as usize;
const CLASSES: usize = FINE_CLASSES + COARSE_CLASSES;
/// The class of cells that have an allocation of their own.
pub(super) const NO_CLASS: usize = CLASSES;
/// Pages are aligned to this, and so are cells whose size is a multiple of it.
const PAGE_ALIGN: usize = 16;

/// The size class of a cell.
pub(super) const fn class_of(layout: Layout) -> usize {
    let (size, align) = (layout.size(), layout.align());
    if align > PAGE_ALIGN || size > COARSE_LIMIT {
        NO_CLASS
    } else if size <= FINE_LIMIT {
        size.div_ceil(8)
    } else {
        // Between 2^n and 2^(n+1), in steps of 2^(n-3).
        let octave = (size - 1).ilog2();
        let step = 1 << (octave - 3);
        let within = (size - (1 << octave)).div_ceil(step);
        FINE_CLASSES + (octave - FINE_LIMIT.ilog2()) as usize * 8 + within - 1
    }
}

/// The size of a class's cells: a multiple of 8, and of 16 where a cell of alignment 16 can be in it.
const fn stride_of(class: usize) -> usize {
    if class < FINE_CLASSES {
        class * 8
    } else {
        let coarse = class - FINE_CLASSES;
        let octave = FINE_LIMIT.ilog2() as usize + coarse / 8;
        (1 << octave) + (coarse % 8 + 1) * (1 << (octave - 3))
    }
}

/// How many frames a page of this class has: about 32 KiB, but at least one frame.
const fn frames_per_page(stride: usize) -> usize {
    if stride <= 512 { 4 } else { 1 }
}

/// The way from the indices of one frame to their slots.
#[derive(Clone, Copy)]
struct Frame {
    /// The address that index 0 would have.
    base: *mut u8,
    /// 0 where all indices of the frame share one header.
    stride: usize,
}

struct Page {
    memory: NonNull<u8>,
    layout: Layout,
    class: usize,
    /// Its frames' numbers; `frames_per_page` of them.
    frames: [u32; 4],
}

impl Page {
    fn headers(&self) -> impl Iterator<Item = &Header> {
        let stride = stride_of(self.class);
        (0..frames_per_page(stride) * FRAME).map(move |n| {
            let header: *const Header = self.memory.as_ptr().wrapping_add(n * stride).cast();
            // SAFETY: a page holds that many headers at multiples of its stride, all initialised in `grow`.
            unsafe { &*header }
        })
    }
}

/// What is touched only when pages come and go.
struct Store {
    frames: Vec<Frame>,
    pages: Vec<Page>,
    /// Numbers of frames that are nobody's.
    idle: Vec<u32>,
    /// By `Box::leak`: a box that is moved, with these pages, claims to be the only way to what is in it.
    vacant: NonNull<Header>,
}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: made in `Pages::new`, and dropped with the pages, as all that leads to it.
        drop(unsafe { Box::from_raw(self.vacant.as_ptr()) });
    }
}

impl Store {
    fn vacant_frame(&self) -> Frame {
        Frame {
            base: self.vacant.as_ptr().cast(),
            stride: 0,
        }
    }
}

/// The frames, as wakes see them: those of the pages' own table, which publish it here after every change.
pub(super) struct Table {
    frames: Cell<*const Frame>,
    len: Cell<usize>,
}

impl Table {
    pub(super) const fn new() -> Self {
        Table {
            frames: Cell::new(ptr::null()),
            len: Cell::new(0),
        }
    }

    /// The header at an index: that of the slot, or a vacant one where there is no slot. `None` beyond the last frame.
    #[inline(always)]
    pub(super) fn slot(&self, index: u32) -> Option<NonNull<Header>> {
        let frame = index as usize >> FRAME_SHIFT;
        if frame >= self.len.get() {
            return None;
        }
        // SAFETY: `frames` names a table of `len` entries (`publish`).
        let frame = unsafe { self.frames.get().wrapping_add(frame).read() };
        // The base may lie outside of the page (or before address 0): only the sum is a place in it.
        let header = frame.base.wrapping_add(index as usize * frame.stride);
        // SAFETY: every frame leads to headers, which are not at address 0.
        Some(unsafe { NonNull::new_unchecked(header.cast()) })
    }

    /// How many slot indices there are, lived in or not.
    pub(super) fn slots(&self) -> usize {
        self.len.get() * FRAME
    }

    /// # Safety
    ///
    /// The frames stay where they are until this is called again or the table is no longer used, and each leads to
    /// headers that live as long.
    // No slice: its pointer would be good for nothing after the next change of a frame in place.
    unsafe fn publish(&self, frames: *const Frame, len: usize) {
        self.frames.set(frames);
        self.len.set(len);
    }
}

pub(super) struct Pages {
    free: [Cell<*mut Header>; CLASSES],
    store: RefCell<Store>,
}

impl Pages {
    pub(super) fn new() -> Self {
        Pages {
            free: [const { Cell::new(ptr::null_mut()) }; CLASSES],
            store: RefCell::new(Store {
                frames: Vec::new(),
                pages: Vec::new(),
                idle: Vec::new(),
                vacant: NonNull::from(Box::leak(Box::new(Header::vacant(0, 0)))),
            }),
        }
    }

    /// A vacant header, which lives as long as these pages.
    pub(super) fn nowhere(&self) -> NonNull<Header> {
        self.store.borrow().vacant
    }

    /// Takes a vacant slot of a class.
    #[inline]
    #[track_caller]
    pub(super) fn take(
        &self,
        class: usize,
        layout: Layout,
        front: &Front,
        endpoint: &Endpoint,
    ) -> NonNull<Header> {
        if class == NO_CLASS {
            return self.dedicated(layout, front, endpoint);
        }
        if let Some(header) = NonNull::new(self.free[class].get()) {
            // SAFETY: slots on a free list are slots of live pages (`shrink` takes them off first).
            let next = unsafe { header.as_ref() }.extra.get();
            self.free[class].set(next.cast());
            return header;
        }
        self.grow(class, front, endpoint)
    }

    /// Gives a vacated slot back.
    ///
    /// # Safety
    ///
    /// `header` is a vacant slot of these pages, neither queued nor on a free list, and of this class.
    #[inline]
    pub(super) unsafe fn give(
        &self,
        header: NonNull<Header>,
        class: usize,
        layout: Layout,
        front: &Front,
    ) {
        if class == NO_CLASS {
            // SAFETY: passed on.
            unsafe { self.free_dedicated(header, layout, front) };
            return;
        }
        // SAFETY: as for this function, and it is not `NO_CLASS`.
        unsafe { self.give_paged(header, class) };
    }

    /// [`give`](Self::give) for a slot in a page.
    ///
    /// # Safety
    ///
    /// As for `give`, and the class is that of a page.
    #[inline]
    pub(super) unsafe fn give_paged(&self, header: NonNull<Header>, class: usize) {
        debug_assert!(class < CLASSES);
        // SAFETY: the caller gives the class of a page.
        let first = unsafe { self.free.get_unchecked(class) };
        // SAFETY: the caller gives a slot of a live page.
        unsafe { header.as_ref() }.extra.set(first.get().cast());
        first.set(header.as_ptr());
    }

    /// Makes a page for a class and takes its first slot.
    #[cold]
    #[track_caller]
    fn grow(&self, class: usize, front: &Front, endpoint: &Endpoint) -> NonNull<Header> {
        let stride = stride_of(class);
        let count = frames_per_page(stride);
        let layout = page_layout(stride, count);
        let mut numbers = [0; 4];
        self.reserve_frames(count, front, endpoint);
        let memory = allocate(layout);
        let mut store = self.store.borrow_mut();
        for (n, number) in numbers.iter_mut().enumerate().take(count) {
            *number = store
                .idle
                .pop()
                .unwrap_or_else(|| unreachable!("reserved above"));
            let first = *number as usize * FRAME;
            let start = memory.as_ptr().wrapping_add(n * FRAME * stride);
            store.frames[*number as usize] = Frame {
                base: start.wrapping_sub(first * stride),
                stride,
            };
        }
        store.pages.push(Page {
            memory,
            layout,
            class,
            frames: numbers,
        });
        drop(store);
        // The last first, so that slots are let in the order of their addresses.
        let mut next = self.free[class].get();
        for (n, number) in numbers.iter().enumerate().take(count).rev() {
            for i in (0..FRAME).rev() {
                let header: *mut Header = memory
                    .as_ptr()
                    .wrapping_add((n * FRAME + i) * stride)
                    .cast();
                let index = index_of(*number, i);
                let vacant = Header::vacant(index, 0);
                vacant.extra.set(next.cast());
                // SAFETY: the page has room for `count * FRAME` cells of `stride` bytes, which is at least a header,
                // at multiples of `stride`, which keep a header's alignment.
                unsafe { header.write(vacant) };
                next = header;
            }
        }
        self.free[class].set(next);
        self.take(class, layout, front, endpoint)
    }

    /// Makes sure that `count` frames are idle, and that queue and endpoint have room for their slots.
    #[track_caller]
    fn reserve_frames(&self, count: usize, front: &Front, endpoint: &Endpoint) {
        let mut store = self.store.borrow_mut();
        let missing = count.saturating_sub(store.idle.len());
        let len = store.frames.len().saturating_add(missing);
        let slots = len.saturating_mul(FRAME);
        let bound = match u32::try_from(slots) {
            Ok(bound) if bound <= <Key>::MAX_INDEX + 1 => bound,
            _ => {
                // User code may run in a panic hook: nothing stays borrowed.
                drop(store);
                no_slots()
            }
        };
        // For every frame, so that giving one back, which destructors do, allocates nothing.
        let room = len - store.idle.len();
        let idle = store.idle.try_reserve(room).is_ok() && store.pages.try_reserve(1).is_ok();
        let frames = store.frames.try_reserve(missing).is_ok();
        // The table may have moved, whatever fails next.
        Self::publish(&store, front);
        if !idle || !frames || front.queue.reserve(slots).is_err() {
            drop(store);
            no_memory();
        }
        if missing == 0 {
            return;
        }
        if !endpoint.reserve(bound) {
            drop(store);
            no_memory();
        }
        let vacant = store.vacant_frame();
        for number in (store.frames.len()..len).rev() {
            store.idle.push(u32::try_from(number).unwrap_or(u32::MAX));
        }
        store.frames.resize(len, vacant);
        Self::publish(&store, front);
    }

    /// Makes room in the tables for `tasks` slots.
    #[track_caller]
    pub(super) fn reserve(&self, tasks: usize, front: &Front, endpoint: &Endpoint) {
        self.reserve_frames(tasks.div_ceil(FRAME), front, endpoint);
    }

    fn publish(store: &Store, front: &Front) {
        // SAFETY: the frames belong to `store` and lead to headers of its pages; whenever they move or are more or fewer this is
        // called before anybody looks, and the arena drops its pages and its front together.
        unsafe {
            front
                .table
                .publish(store.frames.as_ptr(), store.frames.len())
        };
    }

    /// A slot with an allocation of its own, for what is huge or oddly aligned. All 16 indices of its frame lead to it;
    /// only the first is in its key.
    #[cold]
    #[track_caller]
    fn dedicated(&self, layout: Layout, front: &Front, endpoint: &Endpoint) -> NonNull<Header> {
        self.reserve_frames(1, front, endpoint);
        let memory = allocate(layout);
        let header: NonNull<Header> = memory.cast();
        let mut store = self.store.borrow_mut();
        let number = store
            .idle
            .pop()
            .unwrap_or_else(|| unreachable!("reserved above"));
        // SAFETY: a cell starts with its header, so that the allocation has room and alignment for one.
        unsafe { header.write(Header::vacant(index_of(number, 0), DEDICATED)) };
        store.frames[number as usize] = Frame {
            base: memory.as_ptr(),
            stride: 0,
        };
        header
    }

    /// # Safety
    ///
    /// `header` came from [`dedicated`](Self::dedicated) with this layout and nothing refers to it.
    #[cold]
    unsafe fn free_dedicated(&self, header: NonNull<Header>, layout: Layout, front: &Front) {
        front.forget_vacant(self.nowhere());
        // SAFETY: still allocated.
        let number = unsafe { header.as_ref() }.index() >> FRAME_SHIFT;
        let mut store = self.store.borrow_mut();
        store.frames[number as usize] = store.vacant_frame();
        store.idle.push(number);
        drop(store);
        // SAFETY: the caller's contract: allocated with this layout, and the frame no longer leads to it.
        unsafe { dealloc(header.as_ptr().cast(), layout) };
    }

    /// All slots that tasks and callbacks live in.
    pub(super) fn occupied(&self, front: &Front) -> Vec<NonNull<Header>> {
        let mut out = Vec::new();
        for index in 0..u32::try_from(front.table.slots()).unwrap_or(u32::MAX) {
            let Some(header) = front.table.slot(index) else {
                break;
            };
            // SAFETY: every frame leads to live headers.
            let h = unsafe { header.as_ref() };
            // A dedicated slot answers at 16 indices, and the vacant header at any.
            if !h.has(VACANT | ROOT) && h.index() == index {
                out.push(header);
            }
        }
        out
    }

    /// Gives pages back in which nobody lives, and what queue and table have too much.
    pub(super) fn shrink(&self, front: &Front) {
        front.forget_vacant(self.nowhere());
        let mut store = self.store.borrow_mut();
        let store = &mut *store;
        let vacant = store.vacant_frame();
        let (frames, idle) = (&mut store.frames, &mut store.idle);
        let mut classes = Vec::new();
        for page in &store.pages {
            if page
                .headers()
                .all(|header| header.flags.get() & (VACANT | QUEUED) == VACANT)
            {
                page.headers().for_each(|header| header.set(SHED));
                classes.push(page.class);
            }
        }
        // One walk over each free list, however many of its pages go.
        classes.sort_unstable();
        classes.dedup();
        for class in classes {
            self.unlink_shed(class);
        }
        store.pages.retain(|page| {
            if !page.headers().any(|header| header.has(SHED)) {
                return true;
            }
            for number in &page.frames[..frames_per_page(stride_of(page.class))] {
                frames[*number as usize] = vacant;
                idle.push(*number);
            }
            // SAFETY: allocated with this layout in `grow`; no frame and no free list leads to it any more.
            unsafe { dealloc(page.memory.as_ptr(), page.layout) };
            false
        });
        // Frames at the end of the table that are nobody's go too, highest first.
        idle.sort_unstable_by(|a, b| b.cmp(a));
        let mut gone = 0;
        while gone < idle.len() && idle[gone] as usize + 1 == frames.len() {
            frames.pop();
            gone += 1;
        }
        idle.drain(..gone);
        idle.shrink_to(frames.len());
        frames.shrink_to_fit();
        store.pages.shrink_to_fit();
        Self::publish(store, front);
        front.queue.shrink(front.table.slots());
    }

    /// Takes all slots that are to be shed off a free list, keeping the order of the rest.
    fn unlink_shed(&self, class: usize) {
        let mut rest = self.free[class].get();
        let mut last: *mut Header = ptr::null_mut();
        self.free[class].set(ptr::null_mut());
        while let Some(header) = NonNull::new(rest) {
            // SAFETY: free lists lead through slots of live pages.
            let slot = unsafe { header.as_ref() };
            rest = slot.extra.get().cast();
            if slot.has(SHED) {
                continue;
            }
            slot.extra.set(ptr::null_mut());
            match NonNull::new(last) {
                None => self.free[class].set(header.as_ptr()),
                // SAFETY: as above.
                Some(last) => unsafe { last.as_ref() }.extra.set(header.as_ptr().cast()),
            }
            last = header.as_ptr();
        }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // Dedicated allocations are freed when they are vacated, and the arena outlives its claims: what is left here is
        // vacant, or was leaked together with its claim.
        for page in &self.store.get_mut().pages {
            // SAFETY: allocated with this layout in `grow`, and these pages end with their owner.
            unsafe { dealloc(page.memory.as_ptr(), page.layout) };
        }
    }
}

fn page_layout(stride: usize, frames: usize) -> Layout {
    match Layout::from_size_align(stride * frames * FRAME, PAGE_ALIGN) {
        Ok(layout) => layout,
        Err(_) => unreachable!("at most 16 KiB times 16"),
    }
}

fn index_of(frame: u32, offset: usize) -> u32 {
    (frame << FRAME_SHIFT) + u32::try_from(offset).unwrap_or(0)
}

#[track_caller]
fn allocate(layout: Layout) -> NonNull<u8> {
    // SAFETY: every layout here has room for a header: its size is not zero.
    match NonNull::new(unsafe { alloc(layout) }) {
        Some(memory) => memory,
        None => no_memory(),
    }
}

#[cold]
#[track_caller]
fn no_memory() -> ! {
    panic!("mainstay: out of memory for a task; the executor is as it was before this spawn")
}

#[cold]
#[track_caller]
fn no_slots() -> ! {
    panic!(
        "mainstay: out of task slots: this executor already has {} of them; the executor is as it was before this spawn",
        <Key>::MAX_INDEX + 1
    )
}

#[cfg(test)]
mod tests {
    use super::{CLASSES, COARSE_LIMIT, NO_CLASS, class_of, stride_of};
    use std::alloc::Layout;

    #[test]
    fn every_size_has_a_class_that_holds_it() {
        let mut last = 0;
        for size in (40..=COARSE_LIMIT).step_by(8) {
            let class = class_of(Layout::from_size_align(size, 8).unwrap());
            assert!(class < CLASSES, "{size}");
            assert!(class >= last);
            last = class;
            let stride = stride_of(class);
            assert!(stride >= size, "{size} in {stride}");
            assert!(
                stride - size <= size / 8,
                "{size} in {stride} wastes too much"
            );
            assert_eq!(stride % 8, 0);
            if size % 16 == 0 {
                assert_eq!(stride % 16, 0, "{size} in {stride}: alignment 16");
            }
        }
        assert_eq!(last, CLASSES - 1, "no class too many");
    }

    #[test]
    fn huge_and_oddly_aligned_cells_have_no_class() {
        assert_eq!(
            class_of(Layout::from_size_align(COARSE_LIMIT + 8, 8).unwrap()),
            NO_CLASS
        );
        assert_eq!(class_of(Layout::from_size_align(64, 32).unwrap()), NO_CLASS);
    }
}
