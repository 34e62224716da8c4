//! What is set for the code that runs: sets of task-local values, and which set is current on this thread.
//!
//! A set never changes; whoever sets one more value makes a set of their own out of the current one, so that a task which
//! was spawned meanwhile keeps what it inherited. A value that is shadowed is not in the new set: a chain of tasks that
//! spawn one another and set the same key keeps one value, not all of them.
//!
//! Values are users': the last one to let go of a set drops them, and does so through [`Locals::release`], which contains
//! each destructor.

use std::any::Any;
use std::cell::Cell;
use std::fmt;
use std::mem::ManuallyDrop;
use std::rc::Rc;

use crate::unwind::{Panic, bury, catch, catch_drop};

/// A set of values, at least one. Clones are the same set.
#[derive(Clone)]
pub(crate) struct Locals(Rc<Vec<Entry>>);

#[derive(Clone)]
struct Entry {
    /// The address of the key that it was set by.
    key: usize,
    value: Rc<dyn Any>,
}

impl Locals {
    /// What `outer` has, and `value`.
    pub(crate) fn with(outer: Option<&Locals>, key: usize, value: Rc<dyn Any>) -> Self {
        let others = outer.map_or(&[][..], |outer| &outer.0);
        let kept = others.iter().filter(|entry| entry.key != key).cloned();
        Locals(Rc::new(kept.chain([Entry { key, value }]).collect()))
    }

    pub(crate) fn get(&self, key: usize) -> Option<&Rc<dyn Any>> {
        let entry = self.0.iter().find(|entry| entry.key == key)?;
        Some(&entry.value)
    }

    pub(crate) fn is(&self, other: &Locals) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    /// Lets go of the set; the last one to do so drops its values, each under its own guard. Gives the panics of their
    /// destructors, the first with the others behind it.
    pub(crate) fn release(self) -> Result<(), Box<Panic>> {
        // User code: Drop of the values.
        Rc::into_inner(self.0)
            .into_iter()
            .flatten()
            .map(|entry| catch_drop(entry.value))
            .fold(Ok(()), both)
    }
}

/// Both of two panics, where both were.
pub(crate) fn both(
    first: Result<(), Box<Panic>>,
    second: Result<(), Box<Panic>>,
) -> Result<(), Box<Panic>> {
    match (first, second) {
        (Err(mut first), Err(second)) => {
            first.push(second);
            Err(first)
        }
        (first, second) => first.and(second),
    }
}

impl fmt::Debug for Locals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Locals").field(&self.0.len()).finish()
    }
}

/// What a thread keeps. Without a destructor, so that reading it is one load: whoever sets something takes it back.
type Kept<T> = Cell<ManuallyDrop<T>>;

thread_local! {
    /// The set that is current.
    static CURRENT: Kept<Option<Locals>> = const { Cell::new(ManuallyDrop::new(None)) };
    /// Where scopes leave their sets when they are dropped.
    static COLLECTOR: Kept<Collector> = const { Cell::new(ManuallyDrop::new(Collector::Closed)) };
}

/// See [`collect`].
enum Collector {
    Closed,
    Open { which: Which, found: Option<Locals> },
}

/// Which scopes are to leave their sets.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// Those whose futures have returned.
    Returned,
    /// Those whose futures are pending.
    Pending,
}

#[inline]
fn replace<T>(kept: &Kept<T>, value: T) -> T {
    ManuallyDrop::into_inner(kept.replace(ManuallyDrop::new(value)))
}

#[inline]
fn swap(locals: Option<Locals>) -> Option<Locals> {
    CURRENT.with(|current| replace(current, locals))
}

/// Whether anything is set here.
#[inline]
pub(crate) fn is_set() -> bool {
    CURRENT.with(|current| {
        let locals = current.replace(ManuallyDrop::new(None));
        let set = locals.is_some();
        current.set(locals);
        set
    })
}

/// The set that is current.
pub(crate) fn current() -> Option<Locals> {
    CURRENT.with(|current| {
        let locals = current.replace(ManuallyDrop::new(None));
        let clone = (*locals).clone();
        current.set(locals);
        clone
    })
}

/// Makes another set the current one, and that one the other.
#[cold]
#[inline(never)]
pub(crate) fn exchange(other: &mut Option<Locals>) {
    *other = swap(other.take());
}

/// Runs `f` with `locals` as the current set, or with none, and gives it back: the caller may be the last to have it.
#[inline]
pub(crate) fn within<R>(locals: Option<Locals>, f: impl FnOnce() -> R) -> (R, Option<Locals>) {
    let setting = Setting::new(locals);
    let result = f();
    (result, setting.end())
}

/// A set is the current one for as long as this lives.
pub(crate) struct Setting {
    outer: ManuallyDrop<Option<Locals>>,
}

impl Setting {
    #[inline]
    pub(crate) fn new(locals: Option<Locals>) -> Self {
        Setting {
            outer: ManuallyDrop::new(swap(locals)),
        }
    }

    /// Ends it, and gives the set back.
    #[inline]
    pub(crate) fn end(self) -> Option<Locals> {
        let mut this = ManuallyDrop::new(self);
        this.restore()
    }

    #[inline]
    fn restore(&mut self) -> Option<Locals> {
        let outer = std::mem::replace(&mut self.outer, ManuallyDrop::new(None));
        swap(ManuallyDrop::into_inner(outer))
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        // Unwinding: what was current is let go of here. Those who let user code unwind through this have another clone, so
        // that nothing of the user's is dropped.
        if let Some(Err(panic)) = self.restore().map(Locals::release) {
            drop(bury(panic));
        }
    }
}

/// Runs `f` with nothing set and nothing collected, whatever is going on up the stack.
pub(crate) fn aside<R>(f: impl FnOnce() -> R) -> R {
    struct Reopen(ManuallyDrop<Collector>);
    impl Drop for Reopen {
        fn drop(&mut self) {
            let outer = std::mem::replace(&mut self.0, ManuallyDrop::new(Collector::Closed));
            COLLECTOR.with(|collector| collector.set(outer));
        }
    }
    let _reopen = Reopen(ManuallyDrop::new(
        COLLECTOR.with(|collector| replace(collector, Collector::Closed)),
    ));
    within(None, f).0
}

/// Runs `drop`, which drops a future, and gives the set of the outermost scope in it, if it is a scope of that sort.
///
/// This is how a task's end knows what was set in its future, which is gone by the time when anybody is told of it.
pub(crate) fn collect(
    which: Which,
    drop: impl FnOnce(),
) -> (Result<(), Box<Panic>>, Option<Locals>) {
    let open = Collector::Open { which, found: None };
    let outer = COLLECTOR.with(|collector| replace(collector, open));
    // User code: Drop of the future.
    let dropped = catch(drop);
    match COLLECTOR.with(|collector| replace(collector, outer)) {
        Collector::Open { found, .. } => (dropped, found),
        Collector::Closed => (dropped, None),
    }
}

/// Leaves the set of a scope that is being dropped to whoever collects. Only the first is kept, which is the outermost: a
/// future's own destructor runs before those of what it holds.
pub(crate) fn offer(which: Which, locals: &Locals) {
    COLLECTOR.with(|collector| {
        let mut state = replace(collector, Collector::Closed);
        if let Collector::Open {
            which: wanted,
            found: found @ None,
        } = &mut state
        {
            if *wanted == which {
                *found = Some(locals.clone());
            }
        }
        collector.set(ManuallyDrop::new(state));
    });
}
