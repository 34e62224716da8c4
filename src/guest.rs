//! Running inside another runtime: `run_until`, a drive in turns.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::arena::roots::Root;
use crate::driving;
use crate::exception::Exception;
use crate::exception_context::{ContextKind, ExceptionContext};
use crate::executor::Executor;
use crate::key::Key;
use crate::locals;
use crate::rooted::{Driving, Rooted};
use crate::scheduler::hosting::Guest;
use crate::waker;

/// What this is called in messages.
const WHAT: &str = "run_until";

/// How many polls and callbacks a turn makes at most. Then the host has its own.
const TURN: usize = 256;

impl Executor<'_> {
    /// Runs `root` to its end, and every task in turn, inside whatever polls the future that this gives: another runtime's
    /// `block_on`, on this thread. So tasks of this executor can use that runtime's sockets, timers and threads.
    ///
    /// The rules are those of [`block_on`](Self::block_on), but that nothing is parked: when there is nothing to do, the host has
    /// its turn, until something wakes a task or the root, on whichever thread. A turn makes at most 256 polls, then the
    /// host has one too. The executor is being driven only while a turn is on the stack: between two, tasks stand still, and
    /// other drives are possible. Several of these may be at work on one executor, in one host or in several on the
    /// thread, and beside a host loop that [ticks](Self::tick): any of them runs the tasks of all, and each gets its own
    /// root's value.
    ///
    /// # Time
    ///
    /// [`sleep`](crate::sleep) and its kin go by this executor's clock, as ever. A host that is an executor of this crate
    /// wakes for its guest's deadlines by its own timers. Other hosts know nothing of them: while one waits and timers are
    /// armed, a thread does that for all of the process. It is started when it is first needed, and ends when it has had
    /// nothing to wait for during ten seconds. (The timers of the host do without it, in tasks of this executor too.) A
    /// virtual clock jumps when nothing is ready here, whatever the host waits for.
    ///
    /// # Stopping
    ///
    /// [`stop`](Self::stop) ends the one that has its turn next, like every drive.
    ///
    /// # Panics
    ///
    /// When polled: with the root's own panic, after the root was dropped; if [`stop`](Self::stop) came before the root had
    /// finished, or with the payload of [`stop_with`](Self::stop_with); if this executor is being driven already, as it is
    /// in its own tasks.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the root, as in a drive: what its destructor cancels goes at once, and a panic is reported.
    /// Tasks stay, and go on at the next drive. One that is leaked costs a slot.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::rc::Rc;
    /// use mainstay::Executor;
    ///
    /// let ex = Executor::new();
    /// let tokio = tokio::runtime::Builder::new_current_thread().build().unwrap();
    /// let answer = tokio.block_on(ex.run_until(async {
    ///     let shared = Rc::new(20); // tasks here need not be `Send`
    ///     let other = mainstay::spawn(async move {
    ///         // tokio's own: its pool for what blocks.
    ///         *shared + tokio::task::spawn_blocking(|| 22).await.unwrap()
    ///     });
    ///     other.await.unwrap()
    /// }));
    /// assert_eq!(answer, 42);
    /// ```
    #[doc(alias = "LocalSet")]
    #[doc(alias = "run")]
    pub async fn run_until<F: Future>(&self, root: F) -> F::Output {
        let mut root = pin!(Some(root));
        let slot = self.root();
        let mut visit = Visit {
            executor: self,
            guest: self.scheduler().welcome(&slot),
            slot: &slot,
            root: root.as_mut(),
        };
        let ended = poll_fn(|cx| visit.turn(cx)).await;
        // The root is dropped and all is settled before the host goes on.
        drop(visit);
        ended.into_value(self.scheduler())
    }
}

/// A `run_until` under way.
struct Visit<'a, 'env, F: Future> {
    executor: &'a Executor<'env>,
    guest: Rc<Guest>,
    slot: &'a Root<'a>,
    root: Pin<&'a mut Option<F>>,
}

impl<F: Future> Visit<'_, '_, F> {
    /// One poll by the host.
    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<Driving<F::Output>> {
        let (executor, guest, slot) = (self.executor, &self.guest, self.slot);
        let host = cx.waker();
        // Before the turn looks at anything (O1).
        guest.set_outer(host);
        // The root is part of the code that polls it, and sees what is set there.
        let mut root = Rooted::new(
            executor.scheduler(),
            WHAT,
            slot,
            self.root.as_mut(),
            locals::current(),
        );
        let turn = executor.drive(WHAT, |driven| {
            let mut left = TURN;
            loop {
                let round = root.round(driven, Some(left));
                if let Poll::Ready(ended) = round.ended {
                    root.drop_within();
                    return Turn::Ended(ended);
                }
                if root.is_last() {
                    continue;
                }
                left = left.saturating_sub(round.polls.max(1));
                if executor.is_idle(Some(slot)) && !executor.scheduler().jump() {
                    return Turn::Idle(set_alarm(executor, host));
                }
                if left == 0 {
                    return Turn::Over;
                }
            }
        });
        match turn {
            Turn::Ended(ended) => return Poll::Ready(ended),
            Turn::Idle(Ok(())) => {}
            Turn::Idle(Err(error)) => {
                // Nothing is lost, but it costs the processor's time.
                executor.scheduler().report(
                    &ExceptionContext::of(ContextKind::Other, NO_TIMER_THREAD)
                        .with_exception(Some(Exception::error(&error))),
                );
                guest.tell();
            }
            // This one too, and not it alone: it may never be polled again.
            Turn::Over => executor.scheduler().tell_hosts(),
        }
        Poll::Pending
    }
}

/// Sees to it that the host polls again at the next deadline.
fn set_alarm(executor: &Executor<'_>, host: &Waker) -> io::Result<()> {
    let scheduler = executor.scheduler();
    // By a virtual clock, time passes in a turn only.
    if scheduler.has_virtual_clock() {
        return Ok(());
    }
    // The host, if it is an executor of ours: its own waker, not one that only leads there, says that it is the one that
    // waits.
    let ours = waker::key_of(host).map(|key| Key::<usize>::from_word(key).executor());
    ours.and_then(|ours| {
        driving::with(ours, |host| {
            (!host.has_virtual_clock()).then(|| scheduler.set_alarm(Some(host)))
        })
    })
    .flatten()
    .unwrap_or_else(|| scheduler.set_alarm(None))
}

const NO_TIMER_THREAD: &str = "The timer thread could not be started: until there is no deadline any more, the host polls all the time";

impl<F: Future> Drop for Visit<'_, '_, F> {
    fn drop(&mut self) {
        let executor = self.executor;
        if self.root.is_some() {
            let set = locals::current();
            let root = Rooted::new(
                executor.scheduler(),
                WHAT,
                self.slot,
                self.root.as_mut(),
                set,
            );
            if executor.is_running() {
                // In one of its own tasks, say.
                root.drop_within();
            } else {
                executor.drive(WHAT, |_| root.drop_within());
            }
        }
        executor.scheduler().see_off(&self.guest);
    }
}

/// How a turn ended.
enum Turn<T> {
    Ended(Driving<T>),
    /// There is nothing to do.
    Idle(io::Result<()>),
    /// There is more to do.
    Over,
}
