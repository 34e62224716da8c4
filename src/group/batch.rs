//! What combinators work on: a row of futures, each run as a task, or of handles to tasks that run already.

use std::any::type_name;
use std::fmt;
use std::future;
use std::marker::PhantomData;
use std::panic::Location;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::arena::cell::Judge;
use crate::context::LocalHandle;
use crate::error::JoinError;
use crate::join::JoinHandle;
use crate::unwind::catch_drop;
use crate::waker;

use super::ends::Ends;

/// What the combinators ([`gather`](crate::gather), [`as_completed`](crate::as_completed), [`race`](crate::race) and their
/// kin) take: anything that can be iterated and gives `'static` futures, or [`handles`] of tasks that run already.
///
/// Each future becomes a task of the executor that first polls the combinator. Futures are taken from the iterator in its
/// order, inside of that poll; if the iterator panics, that is a panic of whoever awaits the combinator.
///
/// This trait cannot be implemented outside of this crate.
pub trait Batch {
    /// What each of them gives.
    type Output;
    #[doc(hidden)]
    type Pull: Pull<Output = Self::Output>;
    #[doc(hidden)]
    fn into_pull(self) -> Self::Pull;
}

/// Makes a batch of tasks that run already, for the combinators.
///
/// The combinator owns them from its first poll on, as it owns those that it spawns itself: it reads their outcomes, and
/// what it cancels is cancelled. A failure of theirs is reported as that of any task, by the executor's
/// [`ReportPolicy`](crate::ReportPolicy); being handed on retrieves it.
///
/// ```
/// use mainstay::{Executor, gather, handles};
///
/// let ex = Executor::new();
/// let sum: u32 = ex.block_on(async {
///     let early = [1, 2, 3].map(|n| mainstay::spawn(async move { n * 10 }));
///     mainstay::yield_now().await; // they have run
///     gather(handles(early)).await.unwrap().into_iter().sum()
/// });
/// assert_eq!(sum, 60);
/// ```
pub fn handles<I, T>(handles: I) -> Handles<I::IntoIter>
where
    I: IntoIterator<Item = JoinHandle<T>>,
{
    Handles(handles.into_iter())
}

/// Tasks that run already, as a [`Batch`]. Made by [`handles`].
#[must_use = "it does nothing until it is given to a combinator"]
pub struct Handles<I>(I);

impl<I> fmt::Debug for Handles<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handles").finish_non_exhaustive()
    }
}

/// A batch that is being taken from.
#[doc(hidden)]
pub trait Pull {
    type Output;
    /// The next task, to be noted by the ends under `slot` when it has ended.
    #[allow(private_bounds, reason = "nobody outside can name this trait")]
    fn pull<J: Judge<Self::Output>>(&mut self, into: &Into<'_>)
    -> Option<JoinHandle<Self::Output>>;
}

/// Where the next task goes.
#[doc(hidden)]
#[allow(missing_debug_implementations, reason = "nobody outside ever has one")]
pub struct Into<'a> {
    ends: &'a Rc<Ends>,
    slot: usize,
    location: &'static Location<'static>,
}

impl<I> Batch for I
where
    I: IntoIterator,
    I::Item: Future + 'static,
{
    type Output = <I::Item as Future>::Output;
    type Pull = Spawning<I::IntoIter>;

    fn into_pull(self) -> Self::Pull {
        Spawning(self.into_iter())
    }
}

#[doc(hidden)]
#[derive(Debug)]
pub struct Spawning<I>(I);

impl<I> Pull for Spawning<I>
where
    I: Iterator,
    I::Item: Future + 'static,
{
    type Output = <I::Item as Future>::Output;

    #[allow(private_bounds, reason = "nobody outside can name this trait")]
    fn pull<J: Judge<Self::Output>>(
        &mut self,
        into: &Into<'_>,
    ) -> Option<JoinHandle<Self::Output>> {
        // User code: the iterator.
        let future = self.0.next()?;
        let builder = into.ends.builder(into.slot);
        let handle = builder.insert::<I::Item, J>(future, into.location);
        if handle.never_began() {
            // Nobody else will note its end.
            into.ends.note(into.slot);
        }
        Some(handle)
    }
}

impl<I, T> Batch for Handles<I>
where
    I: Iterator<Item = JoinHandle<T>>,
{
    type Output = T;
    type Pull = Handles<I>;

    fn into_pull(self) -> Self::Pull {
        self
    }
}

impl<I, T> Pull for Handles<I>
where
    I: Iterator<Item = JoinHandle<T>>,
{
    type Output = T;

    #[allow(private_bounds, reason = "nobody outside can name this trait")]
    fn pull<J: Judge<T>>(&mut self, into: &Into<'_>) -> Option<JoinHandle<T>> {
        // User code: the iterator.
        let handle = self.0.next()?;
        if handle.is_takeable() {
            into.ends.note(into.slot);
        } else {
            let (ends, slot) = (Rc::clone(into.ends), into.slot);
            handle.add_done_callback(move |_| ends.note(slot));
        }
        Some(handle)
    }
}

/// A combinator's tasks: those that run, and those that are still to come.
pub(super) struct Batched<P: Pull, J> {
    pull: Option<P>,
    /// Where the combinator was called, and what it is called.
    location: &'static Location<'static>,
    what: &'static str,
    limit: usize,
    ends: Option<Rc<Ends>>,
    /// A slab: as long as the most tasks that there were at once.
    slots: Vec<Slot<P::Output>>,
    vacant: Vec<usize>,
    /// Slots whose tasks have ended and are still being told of.
    finishing: Vec<usize>,
    taken: usize,
    _judge: PhantomData<J>,
}

struct Slot<T> {
    /// Which of the batch it is.
    order: usize,
    handle: Option<JoinHandle<T>>,
}

/// A task of a batch that has ended: its outcome can be taken at once.
pub(super) struct Done<T> {
    pub(super) order: usize,
    pub(super) handle: JoinHandle<T>,
}

impl<T> Done<T> {
    /// Takes the outcome. A failure counts as retrieved: it is to be handed on at once.
    pub(super) fn take(mut self) -> Result<T, JoinError> {
        match self.handle.result() {
            Ok(outcome) => outcome,
            // It awaits itself: that is the one way in which a handle that never ends comes here.
            Err(_) => Err(self.handle.own_handle_error()),
        }
    }
}

impl<P: Pull, J: Judge<P::Output>> Batched<P, J> {
    #[track_caller]
    pub(super) fn new(
        what: &'static str,
        batch: impl Batch<Pull = P>,
        limit: Option<usize>,
    ) -> Self {
        let limit = limit.unwrap_or(usize::MAX);
        assert!(
            limit > 0,
            "mainstay: `{what}` with a limit of 0 tasks would never run any"
        );
        Batched {
            pull: Some(batch.into_pull()),
            location: Location::caller(),
            what,
            limit,
            ends: None,
            slots: Vec::new(),
            vacant: Vec::new(),
            finishing: Vec::new(),
            taken: 0,
            _judge: PhantomData,
        }
    }

    /// The task that ended first, of those that have not been asked for. `None`: there are no more.
    pub(super) async fn next(&mut self) -> Option<Done<P::Output>> {
        future::poll_fn(|cx| self.poll_next(cx)).await
    }

    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Done<P::Output>>> {
        let ends = self.ends();
        ends.begin_poll(cx);
        self.fill(&ends, cx.waker());
        loop {
            if let Some(at) = self.next_takeable(&ends, cx) {
                return Poll::Ready(Some(self.vacate(at)));
            }
            if self.running() == 0 {
                return Poll::Ready(None);
            }
            if ends.set_awaiter(cx.waker()) {
                return Poll::Pending;
            }
        }
    }

    fn ends(&mut self) -> Rc<Ends> {
        if let Some(ends) = &self.ends {
            return Rc::clone(ends);
        }
        let what = self.what;
        let Some(ex) = LocalHandle::try_current() else {
            panic!(
                "mainstay: `{what}` was polled outside of a running executor; await it in a task or a root"
            )
        };
        let ends = Ends::new(&ex);
        self.ends = Some(Rc::clone(&ends));
        ends
    }

    fn running(&self) -> usize {
        self.slots.len() - self.vacant.len()
    }

    /// Starts as many as may run.
    fn fill(&mut self, ends: &Rc<Ends>, waker: &Waker) {
        while self.running() < self.limit {
            let Some(pull) = &mut self.pull else { break };
            let slot = self.vacant.last().copied().unwrap_or(self.slots.len());
            let into = Into {
                ends,
                slot,
                location: self.location,
            };
            let Some(handle) = pull.pull::<J>(&into) else {
                // User code: Drop of the iterator. A panic is that of whoever polls.
                self.pull = None;
                break;
            };
            if waker::key_of(waker).is_some_and(|key| handle.is_own(key)) {
                ends.note(slot);
            }
            let entry = Slot {
                order: self.taken,
                handle: Some(handle),
            };
            self.taken += 1;
            match self.vacant.pop() {
                Some(slot) => self.slots[slot] = entry,
                None => self.slots.push(entry),
            }
        }
    }

    /// The slot of the next task whose outcome can be taken.
    fn next_takeable(&mut self, ends: &Ends, cx: &mut Context<'_>) -> Option<usize> {
        let is_takeable = |slot: &Slot<P::Output>| {
            slot.handle.as_ref().is_some_and(|handle| {
                handle.is_takeable()
                    || waker::key_of(cx.waker()).is_some_and(|key| handle.is_own(key))
            })
        };
        if let Some(at) =
            (0..self.finishing.len()).find(|at| is_takeable(&self.slots[self.finishing[*at]]))
        {
            return Some(self.finishing.remove(at));
        }
        while let Some(slot) = ends.next_done() {
            if is_takeable(&self.slots[slot]) {
                return Some(slot);
            }
            // More of its callbacks are to be called: whoever publishes the outcome wakes us.
            if let Some(handle) = &mut self.slots[slot].handle {
                handle.wake_when_takeable(cx.waker());
            }
            if is_takeable(&self.slots[slot]) {
                // It was published while a foreign waker was cloned, before that could be woken.
                return Some(slot);
            }
            self.finishing.push(slot);
        }
        None
    }

    fn vacate(&mut self, slot: usize) -> Done<P::Output> {
        self.vacant.push(slot);
        let Slot { order, handle } = &mut self.slots[slot];
        match handle.take() {
            Some(handle) => Done {
                order: *order,
                handle,
            },
            None => unreachable!("a task ends once"),
        }
    }
}

impl<P: Pull, J> Drop for Batched<P, J> {
    fn drop(&mut self) {
        let Some(ends) = &self.ends else { return };
        ends.close();
        for Slot { handle, .. } in &mut self.slots {
            // Those that were spawned are gone already; those that ran before are cancelled here.
            if let Some(handle) = handle.take() {
                let _ = handle.cancel();
                drop(handle);
            }
        }
        // User code: Drop of the iterator and of what it has not given.
        if let Err(panic) = catch_drop(self.pull.take()) {
            ends.members().tell_destructor(panic);
        }
    }
}

impl<P: Pull, J> fmt::Debug for Batched<P, J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batched")
            .field("output", &type_name::<P::Output>())
            .field("started", &self.taken)
            .field("running", &(self.slots.len() - self.vacant.len()))
            .finish_non_exhaustive()
    }
}
