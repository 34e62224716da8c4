//! Task locals: values that a task, and what it spawns, can reach without being given them.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::ptr;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::thread;

use crate::driving;
use crate::locals::{self, Locals, Which, both};
use crate::unwind::{Panic, catch, catch_drop, end_drop, resume, unwind};

/// Declares task locals: statics of type [`LocalKey`]. asyncio's `ContextVar`.
///
/// Attributes, visibility and several declarations in one call are allowed. There is no initial value: a key is set for a
/// future with [`LocalKey::scope`], or for a closure with [`LocalKey::sync_scope`].
///
/// ```
/// use std::cell::Cell;
/// use mainstay::Executor;
///
/// mainstay::task_local! {
///     /// Whom the request is from.
///     static USER: String;
///     pub static QUERIES: Cell<u32>;
/// }
///
/// async fn query() -> String {
///     QUERIES.with(|n| n.set(n.get() + 1));
///     USER.with(|user| format!("rows of {user}"))
/// }
///
/// let ex = Executor::new();
/// let rows = ex.block_on(USER.scope("ada".into(), QUERIES.scope(Cell::new(0), async {
///     query().await;
///     let rows = mainstay::spawn(query()).await.unwrap(); // inherits both, and shares their values
///     assert_eq!(QUERIES.with(Cell::get), 2);
///     rows
/// })));
/// assert_eq!(rows, "rows of ada");
/// ```
#[macro_export]
macro_rules! task_local {
    () => {};
    ($(#[$attribute:meta])* $visibility:vis static $name:ident: $type:ty $(; $($rest:tt)*)?) => {
        $(#[$attribute])*
        $visibility static $name: $crate::LocalKey<$type> = $crate::LocalKey::new(stringify!($name));
        $($crate::task_local! { $($rest)* })?
    };
}

/// A task local. Declared with [`task_local!`](crate::task_local!).
///
/// A value is set for the time in which a future is polled or dropped ([`scope`](Self::scope)), or in which a closure runs
/// ([`sync_scope`](Self::sync_scope)). A scope within a scope of the same key shadows it. Within a scope, the value is seen
///
/// - by the future itself and all that it calls and awaits,
/// - by **tasks spawned there**, for as long as they live, and callbacks made there (`call_soon`, `call_later`, `call_at`).
///   They share the value, so that it need not be `Clone`; what a task sets for itself afterwards is its own. The destructors
///   of an inheriting task see it too, whoever cancels it;
/// - by the **exception handler** that is told of a failure of such a task or callback, and by the task's **done
///   callbacks**, whatever is set where they happen to run: those see what the task inherited, and, of what it set itself,
///   what was set where it panicked, where it was cancelled, or around its whole future
///   (`spawn(USER.scope(user, work()))`). A callback that is added to a task which has finished sees that only while a
///   failure is still there to be taken, else what is set where it is added.
///
/// Nothing is set in what other threads send to the executor, in foreign wakers, and, where executors are nested, in tasks
/// of the inner executor but those that were spawned within the scope. The root of a `block_on` sees what is set where
/// `block_on` is called.
///
/// The value is dropped when the scope's future has been dropped, and all tasks and callbacks that inherited it have ended
/// and been told of; if a task failed, when its outcome has been taken or its handle dropped. If its destructor panics, that
/// panics where the scope ends, if that was the last to have it, and else is reported
/// ([`ContextKind::Destructor`](crate::ContextKind::Destructor)).
///
/// Where no task local is set, none of this costs anything, but for one look at a thread-local in a spawn. A scope costs two
/// allocations beside that of the future, and a task that inherits two more.
#[doc(alias = "ContextVar")]
#[doc(alias = "contextvars")]
pub struct LocalKey<T: 'static> {
    name: &'static str,
    /// `Sync` whatever `T` is: the key has none.
    _value: PhantomData<fn() -> T>,
}

impl<T: 'static> LocalKey<T> {
    /// For [`task_local!`](crate::task_local!).
    #[doc(hidden)]
    pub const fn new(name: &'static str) -> Self {
        LocalKey {
            name,
            _value: PhantomData,
        }
    }

    /// Sets the value for `future`: whenever it is polled, and when it is dropped.
    ///
    /// The future is moved to the heap. It runs as part of the task that awaits it, not as a task of its own.
    ///
    /// ```
    /// use mainstay::Executor;
    ///
    /// mainstay::task_local! { static DEPTH: u32; }
    ///
    /// Executor::new().block_on(DEPTH.scope(1, async {
    ///     DEPTH.scope(2, async { assert_eq!(DEPTH.with(|d| *d), 2) }).await;
    ///     assert_eq!(DEPTH.with(|d| *d), 1);
    /// }));
    /// assert!(DEPTH.try_with(|_| ()).is_err());
    /// ```
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops `future`, under the value, and then the value.
    pub fn scope<F: Future>(&'static self, value: T, future: F) -> TaskLocalFuture<T, F> {
        TaskLocalFuture {
            scope: Scope::new(self.address(), Rc::new(value)),
            future: Some(Box::pin(future)),
            key: self,
        }
    }

    /// Sets the value while `f` runs, and gives what `f` gives.
    ///
    /// What is spawned in `f`, also on an executor that is not being driven yet, inherits it.
    ///
    /// # Panics
    ///
    /// If `f` does, or the destructor of the value when `f` has left it to nobody.
    ///
    /// ```
    /// use mainstay::Executor;
    ///
    /// mainstay::task_local! { static USER: &'static str; }
    ///
    /// let ex = Executor::new();
    /// let name = USER.sync_scope("ada", || ex.spawn(async { USER.with(|user| user.len()) }));
    /// assert_eq!(ex.block_on(name).unwrap(), 3);
    /// ```
    pub fn sync_scope<R>(&'static self, value: T, f: impl FnOnce() -> R) -> R {
        let mut scope = Scope::new(self.address(), Rc::new(value));
        let result = scope.run(f);
        let ended = scope.end();
        match (result, ended) {
            (Ok(result), Ok(())) => result,
            (Ok(result), Err(mut panic)) => {
                // User code: Drop of what `f` gave.
                if let Err(second) = catch_drop(result) {
                    panic.push(second);
                }
                unwind(*panic, tell)
            }
            (Err(mut panic), ended) => {
                if let Err(second) = ended {
                    panic.push(second);
                }
                unwind(*panic, tell)
            }
        }
    }

    /// Looks at the value that is set here.
    ///
    /// # Panics
    ///
    /// If none is: see [`try_with`](Self::try_with).
    #[doc(alias = "get")]
    #[track_caller]
    pub fn with<R>(&'static self, f: impl FnOnce(&T) -> R) -> R {
        match self.try_with(f) {
            Ok(result) => result,
            Err(error) => panic!("mainstay: {error}"),
        }
    }

    /// Looks at the value that is set here, if there is one.
    ///
    /// # Errors
    ///
    /// [`AccessError`], if none is set; `f` is not called then.
    pub fn try_with<R>(&'static self, f: impl FnOnce(&T) -> R) -> Result<R, AccessError> {
        let missing = AccessError { name: self.name };
        let Some(locals) = locals::current() else {
            return Err(missing);
        };
        let value = locals.get(self.address()).cloned();
        let found = value
            .as_ref()
            .and_then(|value| value.downcast_ref::<T>())
            .ok_or(missing);
        found.map(f)
    }

    fn address(&'static self) -> usize {
        ptr::from_ref(self).addr()
    }
}

impl<T> fmt::Debug for LocalKey<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalKey")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// A task local was looked at where it is not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessError {
    name: &'static str,
}

impl fmt::Display for AccessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name;
        write!(
            f,
            "the task local `{name}` is not set here; set it around this with `{name}.scope(value, future)`"
        )
    }
}

impl Error for AccessError {}

/// A future for which a task local is set. Made by [`LocalKey::scope`].
#[must_use = "a future does nothing until it is awaited or spawned"]
pub struct TaskLocalFuture<T: 'static, F: Future> {
    scope: Scope,
    /// `None`: it has returned.
    future: Option<Pin<Box<F>>>,
    key: &'static LocalKey<T>,
}

impl<T: 'static, F: Future> Future for TaskLocalFuture<T, F> {
    type Output = F::Output;

    /// # Panics
    ///
    /// If `future` does, or if it has been ready before.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        let Some(future) = &mut this.future else {
            panic!("a task local's scope was polled after it had been ready");
        };
        // User code: Future::poll.
        let output = match this.scope.run(|| future.as_mut().poll(cx)) {
            Ok(Poll::Ready(output)) => output,
            Ok(Poll::Pending) => return Poll::Pending,
            Err(panic) => resume(*panic),
        };
        let future = this.future.take();
        // User code: Drop of the future.
        if let Err(mut panic) = this.scope.run_drop(Which::Returned, || drop(future)) {
            // User code: Drop of the output.
            if let Err(second) = catch_drop(output) {
                panic.push(second);
            }
            unwind(*panic, tell)
        }
        Poll::Ready(output)
    }
}

impl<T: 'static, F: Future> Drop for TaskLocalFuture<T, F> {
    fn drop(&mut self) {
        let mut dropped = Ok(());
        match self.future.take() {
            Some(future) => {
                // User code: Drop of the future.
                dropped = self.scope.run_drop(Which::Pending, || drop(future));
                self.scope.offer(Which::Pending);
            }
            None => self.scope.offer(Which::Returned),
        }
        end_drop(both(dropped, self.scope.end()), tell);
    }
}

impl<T, F: Future> fmt::Debug for TaskLocalFuture<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskLocalFuture")
            .field("key", &self.key.name)
            .field("returned", &self.future.is_none())
            .finish_non_exhaustive()
    }
}

/// A value that is set, again and again, for the time in which something runs.
struct Scope {
    key: usize,
    value: Option<Rc<dyn Any>>,
    made: Option<Made>,
    /// The set of a scope within this one, whose future has returned or was dropped: what was set at the end.
    inner: Option<Locals>,
}

/// The set that a scope has made, and what of: it is good for as long as that is the current one.
struct Made {
    outer: Option<Locals>,
    locals: Locals,
}

impl Scope {
    fn new(key: usize, value: Rc<dyn Any>) -> Self {
        Scope {
            key,
            value: Some(value),
            made: None,
            inner: None,
        }
    }

    /// The set with the value in it, made of the current one.
    fn locals(&mut self) -> Option<Locals> {
        let outer = locals::current();
        if let Some(made) = &self.made {
            let same = match (&made.outer, &outer) {
                (Some(made), Some(outer)) => made.is(outer),
                (None, None) => true,
                _ => false,
            };
            if same {
                return Some(made.locals.clone());
            }
        }
        let value = self.value.clone()?;
        let locals = Locals::with(outer.as_ref(), self.key, value);
        let made = Made {
            outer,
            locals: locals.clone(),
        };
        let old = self.made.replace(made);
        if let Err(panic) = release(old.map(Made::release)) {
            tell(panic);
        }
        Some(locals)
    }

    /// Runs user code under the value. A panic that leaves it is noted, so that whoever is told of it sees the value.
    fn run<R>(&mut self, f: impl FnOnce() -> R) -> Result<R, Box<Panic>> {
        // What comes back is not the last: `made` has one.
        let result = locals::within(self.locals(), || catch(f)).0;
        if let Err(panic) = &result {
            self.note(panic);
        }
        result
    }

    #[cold]
    fn note(&self, panic: &Panic) {
        if thread::panicking() {
            // Within a destructor that runs because of another panic, which is the one to be told of.
            return;
        }
        if let (Some(made), Some(scheduler)) = (&self.made, driving::current()) {
            scheduler.note_panic(panic, made.locals.clone());
        }
    }

    /// Runs the destructor of a future under the value, and keeps what was set within it.
    fn run_drop(&mut self, which: Which, drop: impl FnOnce()) -> Result<(), Box<Panic>> {
        // What comes back is not the last: `made` has one.
        let (dropped, found) = locals::within(self.locals(), || locals::collect(which, drop)).0;
        self.inner = found;
        if let Err(panic) = &dropped {
            self.note(panic);
        }
        dropped
    }

    /// Leaves what was set at the end to whoever is to be told of the end.
    fn offer(&self, which: Which) {
        let made = self.made.as_ref().map(|made| &made.locals);
        if let Some(locals) = self.inner.as_ref().or(made) {
            locals::offer(which, locals);
        }
    }

    /// Lets go of everything.
    fn end(&mut self) -> Result<(), Box<Panic>> {
        let inner = release(self.inner.take().map(Locals::release));
        let made = release(self.made.take().map(Made::release));
        // User code: Drop of the value.
        both(both(inner, made), catch_drop(self.value.take()))
    }
}

impl Made {
    fn release(self) -> Result<(), Box<Panic>> {
        both(
            self.locals.release(),
            release(self.outer.map(Locals::release)),
        )
    }
}

fn tell(panic: Box<Panic>) {
    driving::tell_destructor(panic, None);
}

fn release(released: Option<Result<(), Box<Panic>>>) -> Result<(), Box<Panic>> {
    released.unwrap_or(Ok(()))
}
