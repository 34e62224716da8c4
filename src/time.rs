//! Waiting: sleeps, timeouts, intervals.

use std::error::Error;
use std::fmt;
use std::future;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::driving::running;
use crate::scheduler::Scheduler;
use crate::scheduler::timing::Alarm;
use crate::timer::TimerId;

/// Waits for `duration`, by the clock of the running executor; never shorter.
///
/// The time runs from this call, not from the first poll. [`Duration::ZERO`] lets everything else that is ready run once;
/// a duration beyond the clock's end never comes. It is bound to the executor that first polls it.
///
/// # Panics
///
/// Outside of a running executor.
///
/// # Cancel safety
///
/// Dropping the future disarms its timer.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use mainstay::Executor;
///
/// let ex = Executor::builder().virtual_clock().build();
/// ex.block_on(async {
///     let start = mainstay::LocalHandle::current().now();
///     mainstay::sleep(Duration::from_secs(2)).await;
///     assert_eq!(start + Duration::from_secs(2), mainstay::LocalHandle::current().now());
/// });
/// ```
#[track_caller]
pub fn sleep(duration: Duration) -> Sleep {
    // The one clock read of a sleep. A deadline cannot be reckoned from an older reading: it would come early.
    let deadline = running("sleep").now().checked_add(duration);
    Sleep {
        deadline,
        state: State::New,
    }
}

/// Waits until `deadline`, by the clock of the executor that first polls it.
///
/// # Cancel safety
///
/// Dropping the future disarms its timer.
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep {
        deadline: Some(deadline),
        state: State::New,
    }
}

/// A future that is ready when its deadline has come. Made by [`sleep`] and [`sleep_until`].
#[must_use = "a sleep does nothing until it is awaited"]
pub struct Sleep {
    /// `None`: beyond the clock's end.
    deadline: Option<Instant>,
    state: State,
}

enum State {
    New,
    Armed(Weak<Scheduler>, TimerId),
    Done,
}

impl Sleep {
    /// When it is ready. `None`: never, as that is beyond the clock's end.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Whether it has been ready.
    pub fn is_elapsed(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Gives it another deadline, before or after it was ready.
    #[doc(alias = "reschedule")]
    pub fn reset(&mut self, deadline: Instant) {
        self.deadline = Some(deadline);
        if let State::Armed(scheduler, id) = &self.state {
            if scheduler
                .upgrade()
                .is_some_and(|scheduler| scheduler.rearm(*id, deadline))
            {
                return;
            }
        }
        self.state = State::New;
    }

    fn disarm(&mut self) {
        if let State::Armed(scheduler, id) = &self.state {
            if let Some(scheduler) = scheduler.upgrade() {
                scheduler.disarm(*id);
            }
        }
    }
}

impl Future for Sleep {
    type Output = ();

    /// # Panics
    ///
    /// If it is polled for the first time outside of a running executor.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match &self.state {
            State::Done => return Poll::Ready(()),
            State::Armed(scheduler, id) => {
                // An executor that is gone fires no timer any more; neither does it poll anybody.
                let armed = scheduler
                    .upgrade()
                    .is_none_or(|scheduler| scheduler.is_armed(*id, cx.waker()));
                if armed {
                    return Poll::Pending;
                }
                self.state = State::Done;
                return Poll::Ready(());
            }
            State::New => {}
        }
        let scheduler = running("sleep");
        if let Some(deadline) = self.deadline {
            // User code: clone of a foreign waker.
            let id = scheduler.arm(deadline, Alarm::of(cx.waker()));
            self.state = State::Armed(Rc::downgrade(&scheduler), id);
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.disarm();
    }
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sleep")
            .field("deadline", &self.deadline)
            .field("elapsed", &self.is_elapsed())
            .finish()
    }
}

/// The time was up before the future was ready. asyncio's `TimeoutError`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed;

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the time was up before the future was ready")
    }
}

impl Error for Elapsed {}

/// Waits for `future`, but not longer than `duration`.
///
/// The future is polled first, so that one that is ready wins, also against [`Duration::ZERO`]. When the time is up, it is
/// dropped before this is ready. Time that the future spends without yielding is not interrupted.
///
/// # Errors
///
/// [`Elapsed`], when the time was up.
///
/// # Panics
///
/// Outside of a running executor.
///
/// # Cancel safety
///
/// Dropping this drops the future and disarms the timer.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use mainstay::{Elapsed, Executor};
///
/// let ex = Executor::builder().virtual_clock().build();
/// ex.block_on(async {
///     let second = Duration::from_secs(1);
///     assert_eq!(mainstay::timeout(second, async { 7 }).await, Ok(7));
///     assert_eq!(mainstay::timeout(second, mainstay::sleep(2 * second)).await, Err(Elapsed));
/// });
/// ```
#[doc(alias = "wait_for")]
#[track_caller]
pub fn timeout<F: Future>(
    duration: Duration,
    future: F,
) -> impl Future<Output = Result<F::Output, Elapsed>> {
    limited(sleep(duration), future)
}

/// Waits for `future`, but not beyond `deadline`. See [`timeout`].
///
/// # Errors
///
/// [`Elapsed`], when the time was up.
///
/// # Cancel safety
///
/// Dropping this drops the future and disarms the timer.
pub fn timeout_at<F: Future>(
    deadline: Instant,
    future: F,
) -> impl Future<Output = Result<F::Output, Elapsed>> {
    limited(sleep_until(deadline), future)
}

async fn limited<F: Future>(mut limit: Sleep, future: F) -> Result<F::Output, Elapsed> {
    let mut future = std::pin::pin!(future);
    future::poll_fn(move |cx| {
        if let Poll::Ready(value) = future.as_mut().poll(cx) {
            return Poll::Ready(Ok(value));
        }
        Pin::new(&mut limit).poll(cx).map(|()| Err(Elapsed))
    })
    .await
}

/// Ticks every `period`, for the first time when one period has passed.
///
/// **Missed ticks are skipped.** Where the user of the ticks is late, the next tick is at once, and the one after it at the
/// next multiple of the period from the start: the rhythm is kept, and no burst makes up for what was missed. A period beyond
/// the clock's end never comes.
///
/// # Panics
///
/// Outside of a running executor; if `period` is zero.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use mainstay::Executor;
///
/// let ex = Executor::builder().virtual_clock().build();
/// ex.block_on(async {
///     let second = Duration::from_secs(1);
///     let mut ticks = mainstay::interval(second);
///     let first = ticks.tick().await;
///     mainstay::sleep(5 * second / 2).await; // late: two ticks are missed
///     assert_eq!(ticks.tick().await, first + second);
///     assert_eq!(ticks.tick().await, first + 3 * second);
/// });
/// ```
#[track_caller]
pub fn interval(period: Duration) -> Interval {
    assert!(
        !period.is_zero(),
        "mainstay: an interval's period must not be zero"
    );
    Interval {
        sleep: sleep(period),
        period,
    }
}

/// A source of ticks. Made by [`interval`].
#[derive(Debug)]
pub struct Interval {
    sleep: Sleep,
    period: Duration,
}

impl Interval {
    /// Waits for the next tick, and gives the time at which it was due.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no tick.
    pub async fn tick(&mut self) -> Instant {
        let Some(due) = self.sleep.deadline() else {
            return future::pending().await;
        };
        future::poll_fn(|cx| Pin::new(&mut self.sleep).poll(cx)).await;
        let now = running("Interval::tick").now();
        let missed = now.saturating_duration_since(due).as_nanos() / self.period.as_nanos();
        let next = u32::try_from(missed + 1)
            .ok()
            .and_then(|n| self.period.checked_mul(n))
            .and_then(|ahead| due.checked_add(ahead));
        match next {
            Some(next) => self.sleep.reset(next),
            None => self.sleep.reset(now + self.period),
        }
        due
    }

    /// The time between two ticks.
    pub fn period(&self) -> Duration {
        self.period
    }
}
