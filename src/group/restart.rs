//! Restarting: a task that is made anew when it has ended.

use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::future::{self, Future};
use std::panic::Location;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::arena::cell::Judge;
use crate::driving;
use crate::error::JoinError;
use crate::request::CancelRequested;
use crate::time::sleep;
use crate::unwind::{catch, catch_drop, resume};

use super::crew::Crew;

/// When a task is made anew, after how long, and how often. For
/// [`Supervisor::spawn_restarting`](crate::Supervisor::spawn_restarting).
///
/// Unless said otherwise, the first restart comes after 100 ms, each further one after twice as long, up to 10 s, and there
/// is no limit.
///
/// ```
/// use std::time::Duration;
/// use mainstay::RestartPolicy;
///
/// let policy = RestartPolicy::on_failure()
///     .backoff(Duration::from_millis(10), Duration::from_secs(1))
///     .limit(5, Duration::from_secs(60))
///     .name("poller");
/// # let _ = policy;
/// ```
#[derive(Clone, Debug)]
#[must_use = "a policy does nothing by itself: give it to `spawn_restarting`"]
pub struct RestartPolicy {
    always: bool,
    shortest: Duration,
    longest: Duration,
    limit: Option<(usize, Duration)>,
    pub(super) name: Option<Arc<str>>,
}

impl RestartPolicy {
    /// Restarts the task whenever it has ended, also when it has returned.
    pub fn always() -> Self {
        RestartPolicy {
            always: true,
            shortest: Duration::from_millis(100),
            longest: Duration::from_secs(10),
            limit: None,
            name: None,
        }
    }

    /// Restarts the task when it has failed.
    pub fn on_failure() -> Self {
        RestartPolicy {
            always: false,
            ..RestartPolicy::always()
        }
    }

    /// How long to wait before a restart: `shortest`, and twice as long each time, up to `longest`. One that ran for at
    /// least `longest` begins with `shortest` again.
    ///
    /// # Panics
    ///
    /// If `shortest` is longer than `longest`.
    #[track_caller]
    pub fn backoff(mut self, shortest: Duration, longest: Duration) -> Self {
        assert!(
            shortest <= longest,
            "mainstay: a backoff goes from a shorter time to a longer one, not from {shortest:?} to {longest:?}"
        );
        (self.shortest, self.longest) = (shortest, longest);
        self
    }

    /// Gives up when the task has ended after `restarts` restarts within `per`.
    pub fn limit(mut self, restarts: usize, per: Duration) -> Self {
        self.limit = Some((restarts, per));
        self
    }

    /// Names the task; the name is in its reports.
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = Some(name.into());
        self
    }
}

/// A task was restarted as often as its [`RestartPolicy`] allows, and ended again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GaveUp {
    restarts: usize,
    per: Duration,
}

impl GaveUp {
    /// How often it was restarted within [`per`](Self::per).
    pub fn restarts(&self) -> usize {
        self.restarts
    }

    /// The time of the policy's limit.
    pub fn per(&self) -> Duration {
        self.per
    }
}

impl fmt::Display for GaveUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let GaveUp { restarts, per } = self;
        match restarts {
            1 => write!(f, "gave up after 1 restart within {per:?}"),
            _ => write!(f, "gave up after {restarts} restarts within {per:?}"),
        }
    }
}

impl Error for GaveUp {}

/// Calls the factory, and lets go of it: for the last time, if it has ended whoever runs it. What it has made is not left to
/// the end of a block in which a destructor panics: the compiler would leak it.
fn make_by<F>(factory: Rc<impl Fn() -> F>) -> F {
    // User code: the factory.
    let made = catch(|| factory());
    // User code: Drop of the factory's captures.
    if let Err(panic) = catch_drop(factory) {
        driving::tell_destructor(panic, None);
    }
    made.unwrap_or_else(|panic| resume(*panic))
}

/// Runs what `factory` makes as one task after the other, until one need not be restarted. `J` judges their outputs.
pub(super) async fn oversee<J, F>(
    crew: Rc<Crew>,
    factory: impl Fn() -> F + 'static,
    policy: RestartPolicy,
    location: &'static Location<'static>,
) -> Result<(), GaveUp>
where
    F: Future + 'static,
    F::Output: 'static,
    J: Judge<F::Output>,
{
    let factory = Rc::new(factory);
    let mut request = CancelRequested::listening();
    let mut restarts = VecDeque::new();
    let mut delay = policy.shortest;
    loop {
        let started = now();
        let make = Rc::clone(&factory);
        let make = move || make_by(make);
        let mut builder = crew.builder();
        if let Some(name) = &policy.name {
            builder = builder.name(Arc::clone(name));
        }
        // The factory is called in the task, so that its panic is the task's.
        let attempt = builder.insert::<_, J>(driving::await_made(make), location);
        let outcome = attempt.cancel_on_drop().await;
        let restart = is_to_restart::<F::Output, J>(&outcome, &policy);
        // User code: Drop of the output, or of the panic's payload.
        if let Err(panic) = catch_drop(outcome) {
            crew.members.tell_destructor(panic);
        }
        if !restart || is_ready(&mut request).await {
            return Ok(());
        }
        if now().saturating_duration_since(started) >= policy.longest {
            delay = policy.shortest;
        }
        if let Some((most, per)) = policy.limit {
            forget_old(&mut restarts, per);
            if restarts.len() >= most {
                let restarts = restarts.len();
                return Err(GaveUp { restarts, per });
            }
            restarts.push_back(now());
        }
        if asked_before(delay, &mut request).await {
            return Ok(());
        }
        delay = delay.saturating_mul(2).min(policy.longest);
    }
}

fn is_to_restart<T, J: Judge<T>>(outcome: &Result<T, JoinError>, policy: &RestartPolicy) -> bool {
    match outcome {
        Ok(value) => policy.always || J::failure(value).is_some(),
        Err(error) => !error.is_cancelled(),
    }
}

fn now() -> Instant {
    driving::running("Supervisor::spawn_restarting").now()
}

/// Forgets restarts that are longer ago than `per`.
fn forget_old(restarts: &mut VecDeque<Instant>, per: Duration) {
    let now = now();
    while restarts
        .front()
        .is_some_and(|restart| now.saturating_duration_since(*restart) >= per)
    {
        restarts.pop_front();
    }
}

/// Whether the request has come.
async fn is_ready(request: &mut CancelRequested) -> bool {
    future::poll_fn(|cx| Poll::Ready(Pin::new(&mut *request).poll(cx).is_ready())).await
}

/// Waits for `delay`, or for the request.
async fn asked_before(delay: Duration, request: &mut CancelRequested) -> bool {
    let mut sleep = sleep(delay);
    future::poll_fn(|cx| {
        if Pin::new(&mut *request).poll(cx).is_ready() {
            return Poll::Ready(true);
        }
        Pin::new(&mut sleep).poll(cx).map(|()| false)
    })
    .await
}
