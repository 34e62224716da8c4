//! What the programs of this package share.
//!
//! Each program is a plain `main` that lets other threads at an executor and asserts counts. What ThreadSanitizer watches
//! are plain, unsynchronised memory accesses: a [`Handed`] is written on one thread and read on another, and only the
//! executor's own protocol may order the two.
//!
//! The prebuilt standard library is not built with the sanitizer, so that what its own compiled code synchronises by is not
//! seen. The library gets other locks therefore (`sync`), and the programs use none and no channel: they hand
//! things to a thread by spawning it, take them back by joining it, and keep what is counted by an `Arc` alive until then.

pub mod sync;

use std::cell::{Cell, UnsafeCell};
use std::future::poll_fn;
use std::ptr;
use std::rc::Rc;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::task::{Poll, Waker};
use std::thread;

use mainstay::{Executor, JoinHandle};

/// A value that one thread leaves for another, with nothing in it that orders the two.
#[derive(Debug, Default)]
pub struct Handed<T>(UnsafeCell<T>);

// SAFETY: `put` and `get` are unsafe: their callers see to it that the two are ordered, and that `T` may travel.
unsafe impl<T: Send> Sync for Handed<T> {}

impl<T: Copy> Handed<T> {
    /// A place with this in it.
    pub fn new(value: T) -> Self {
        Handed(UnsafeCell::new(value))
    }

    /// Leaves a value: a plain write.
    ///
    /// # Safety
    ///
    /// Nobody looks at the same time.
    pub unsafe fn put(&self, value: T) {
        // SAFETY: the caller's contract: this is the only access now.
        unsafe { *self.0.get() = value }
    }

    /// Takes a look: a plain read.
    ///
    /// # Safety
    ///
    /// Nobody writes at the same time.
    pub unsafe fn get(&self) -> T {
        // SAFETY: the caller's contract: nobody writes now.
        unsafe { *self.0.get() }
    }
}

/// A place where one thread publishes something, once, for all to look at.
#[derive(Debug)]
pub struct Published<T>(AtomicPtr<T>);

impl<T: Send + Sync + 'static> Published<T> {
    /// A place with nothing in it.
    pub fn new() -> Self {
        Published(AtomicPtr::new(ptr::null_mut()))
    }

    /// Publishes `value`, for as long as the process lives.
    pub fn set(&self, value: T) {
        let old = self.0.swap(Box::leak(Box::new(value)), Ordering::Release);
        assert!(old.is_null(), "published once");
    }

    /// What was published, if anything was.
    pub fn get(&self) -> Option<&'static T> {
        // SAFETY: null, or a box that was leaked, and never changed after that.
        unsafe { self.0.load(Ordering::Acquire).as_ref() }
    }
}

impl<T: Send + Sync + 'static> Default for Published<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// A task that has parked, for the first and only time.
#[derive(Debug)]
pub struct Parked<T> {
    /// Wakes the task, from anywhere.
    pub waker: Waker,
    /// Its handle.
    pub handle: JoinHandle<T>,
}

/// Spawns a task on `ex` and drives it until it has parked. Polled again, it returns what `then` gives.
///
/// Nobody else has its waker, so the second poll follows a wake by somebody who was given it.
pub fn parked<'env, T: 'env>(ex: &Executor<'env>, then: impl FnOnce() -> T + 'env) -> Parked<T> {
    let first = Rc::new(Cell::new(None));
    let seen = Rc::clone(&first);
    let mut then = Some(then);
    let mut has_parked = false;
    let handle = ex.spawn(poll_fn(move |cx| {
        if !has_parked {
            has_parked = true;
            seen.set(Some(cx.waker().clone()));
            return Poll::Pending;
        }
        let then = then
            .take()
            .expect("a task is not polled after it was ready");
        Poll::Ready(then())
    }));
    ex.run_until_stalled();
    let waker = first.take().expect("it was polled");
    Parked { waker, handle }
}

/// Waits for threads and gives what they gave.
pub fn join<R>(threads: impl IntoIterator<Item = thread::JoinHandle<R>>) -> Vec<R> {
    threads
        .into_iter()
        .map(|thread| thread.join().expect("the thread ends well"))
        .collect()
}

/// Waits, without ordering anything, until `count` has come to `enough`.
pub fn wait_for(count: &AtomicUsize, enough: usize) {
    while count.load(Ordering::Relaxed) < enough {
        thread::yield_now();
    }
}

/// Makes the process's first executor: the tables that all executors share are then made on this thread, before there is
/// any other.
pub fn first_executor() {
    drop(Executor::new());
}

/// Counts its drop, in memory of the home thread's.
#[derive(Debug)]
pub struct Count(pub Rc<Cell<usize>>);

impl Drop for Count {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}
