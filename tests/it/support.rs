//! Helpers that the test modules share. None of them keeps state between tests, except for the process's panic hook
//! ([`quiet`]) and its logger ([`LogCapture`]), which are installed once and then act for the calling thread alone.
#![allow(
    dead_code,
    reason = "each test module uses some of these, not all of them"
)]

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io::{self, Write as _};
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::pin::Pin;
use std::process::{Command, Output};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, ThreadId};

use mainstay::{ContextKind, ExceptionContext, Executor, LocalHandle, Stats};

// ---------------------------------------------------------------------------------------------------------------------
// Panics and errors to fail with
// ---------------------------------------------------------------------------------------------------------------------

/// A panic payload that is not a string: `panic_any(Boom("why"))`. [`quiet`] keeps the process's hook silent about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Boom(pub(crate) &'static str);

/// An ordinary error whose `Display` is its text and whose `Debug` is `Fault("text")`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault(pub(crate) &'static str);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Error for Fault {}

/// A panic payload whose destructor panics with another of its kind, for ever: `panic_any(EndlessPayload)`.
#[derive(Debug)]
pub(crate) struct EndlessPayload;

impl Drop for EndlessPayload {
    fn drop(&mut self) {
        if !thread::panicking() {
            std::panic::panic_any(Self);
        }
    }
}

/// Silences the process's panic hook for panics that tests provoke on purpose: those whose payload is a [`Boom`], a
/// [`Guard`], an [`EndlessPayload`] or a string that begins with `boom`. Others go to the hook that was there before.
///
/// Installed once per process, so every test that panics on purpose calls it first. Call it *before*
/// `mainstay::install_panic_hook()`, because it does not chain to the earlier hook for the panics that it silences.
pub(crate) fn quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let earlier = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let payload = info.payload();
            let text = payload
                .downcast_ref::<&'static str>()
                .copied()
                .or_else(|| payload.downcast_ref::<String>().map(String::as_str));
            let meant = payload.is::<Boom>()
                || payload.is::<Guard>()
                || payload.is::<EndlessPayload>()
                || text.is_some_and(|text| text.starts_with("boom"));
            if !meant {
                earlier(info);
                heed_assertion(text, info.location());
            }
        }));
    });
}

/// Ends the process where an assertion of a test fails inside of a task or callback: the executor contains that panic, as
/// it does every other, and the test would pass. It is known by its text, so that an `assert!` with words of its own is not.
fn heed_assertion(text: Option<&str>, location: Option<&Location<'_>>) {
    let asserted = text.is_some_and(|text| {
        text.starts_with("assertion") || text.starts_with("internal error: entered unreachable")
    });
    if asserted && LocalHandle::try_current().is_some() {
        let current = thread::current();
        let test = current.name().unwrap_or("a test");
        let place = location.map_or_else(String::new, |location| format!(" at {location}"));
        let told = writeln!(
            io::stderr(),
            "{test}: {}{place}, in a running executor, which would contain it",
            text.unwrap_or_default()
        );
        drop(told);
        std::process::exit(101);
    }
}

/// Calls `f`, which must panic with a string, and gives that string.
#[track_caller]
pub(crate) fn panic_message<R>(f: impl FnOnce() -> R) -> String {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(_) => panic!("expected a panic, but there was none"),
        Err(payload) => match payload.downcast::<&'static str>() {
            Ok(text) => (*text).to_owned(),
            Err(payload) => match payload.downcast::<String>() {
                Ok(text) => *text,
                Err(_) => panic!("expected a panic with a string, but it carried something else"),
            },
        },
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// The executor's books
// ---------------------------------------------------------------------------------------------------------------------

/// The task counters of [`Stats`], comparable and with a default of all zeros: `assert_eq!(counts(&ex), Counts { .. })`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Tasks spawned.
    pub(crate) spawned: u64,
    /// Tasks that have not ended.
    pub(crate) live: u64,
    /// Tasks that ended with a value.
    pub(crate) returned: u64,
    /// Tasks that ended by a panic or a counted `Err`.
    pub(crate) failed: u64,
    /// Tasks that were cancelled.
    pub(crate) cancelled: u64,
    /// Failed tasks told to a handler.
    pub(crate) reported: u64,
    /// Failed tasks read and never told.
    pub(crate) retrieved: u64,
    /// Failed tasks neither told nor read yet.
    pub(crate) unread: u64,
    /// Reports of every kind.
    pub(crate) reports: u64,
}

impl From<&Stats> for Counts {
    fn from(stats: &Stats) -> Self {
        Self {
            spawned: stats.spawned,
            live: stats.live,
            returned: stats.returned,
            failed: stats.failed,
            cancelled: stats.cancelled,
            reported: stats.reported,
            retrieved: stats.retrieved,
            unread: stats.unread,
            reports: stats.reports,
        }
    }
}

/// The counters of `ex`, after checking that they add up (promise P2).
#[track_caller]
pub(crate) fn counts(ex: &Executor<'_>) -> Counts {
    check_stats(&ex.stats())
}

/// Asserts P2 on `ex`: every task spawned is live or ended in exactly one way, and every failure is reported, retrieved or
/// still unread.
#[track_caller]
pub(crate) fn check_accounting(ex: &Executor<'_>) {
    check_stats(&ex.stats());
}

/// Asserts P2 on counters from anywhere, as from `LocalHandle::stats()` inside a handler, and gives them back.
#[track_caller]
pub(crate) fn check_stats(stats: &Stats) -> Counts {
    let counts = Counts::from(stats);
    assert_eq!(
        counts.spawned,
        counts.live + counts.returned + counts.failed + counts.cancelled,
        "P2: spawned = live + returned + failed + cancelled, but {counts:?}"
    );
    assert_eq!(
        counts.failed,
        counts.reported + counts.retrieved + counts.unread,
        "P2: failed = reported + retrieved + unread, but {counts:?}"
    );
    counts
}

// ---------------------------------------------------------------------------------------------------------------------
// The recorder
// ---------------------------------------------------------------------------------------------------------------------

/// What a [`Recorder`] keeps of one report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    /// `context.kind()`.
    pub(crate) kind: ContextKind,
    /// `context.message()`, the headline.
    pub(crate) message: String,
    /// The name of `context.task()`.
    pub(crate) task: Option<String>,
    /// The message of `context.exception()`.
    pub(crate) exception: Option<String>,
    /// Whether the exception is a panic; `None` where there is no exception.
    pub(crate) panic: Option<bool>,
    /// `context.handle_held()`.
    pub(crate) handle_held: bool,
}

/// An exception handler that keeps the owned parts of each report. Clones share one list.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recorder {
    reports: Rc<RefCell<Vec<Report>>>,
}

impl Recorder {
    /// A recorder that is not installed anywhere; see [`Recorder::install`] and [`Recorder::record`].
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// A recorder installed as the exception handler of `ex`.
    pub(crate) fn on(ex: &Executor<'_>) -> Self {
        quiet();
        let recorder = Self::new();
        recorder.install(ex);
        recorder
    }

    /// Makes this the exception handler of `ex`.
    pub(crate) fn install(&self, ex: &Executor<'_>) {
        let recorder = self.clone();
        ex.set_exception_handler(move |_, context| recorder.record(context));
    }

    /// Keeps the owned parts of `context`: for handlers that do something else as well.
    pub(crate) fn record(&self, context: &ExceptionContext<'_>) {
        let exception = context.exception();
        let report = Report {
            kind: context.kind(),
            message: context.message().to_owned(),
            task: context.task().map(|task| task.name().to_owned()),
            exception: exception.map(|exception| exception.message().into_owned()),
            panic: exception.map(|exception| exception.is_panic()),
            handle_held: context.handle_held(),
        };
        self.reports.borrow_mut().push(report);
    }

    /// How many reports there are.
    pub(crate) fn len(&self) -> usize {
        self.reports.borrow().len()
    }

    /// Whether there is no report.
    pub(crate) fn is_empty(&self) -> bool {
        self.reports.borrow().is_empty()
    }

    /// All reports, in the order in which they were made.
    pub(crate) fn reports(&self) -> Vec<Report> {
        self.reports.borrow().clone()
    }

    /// All reports, which are then forgotten.
    pub(crate) fn take(&self) -> Vec<Report> {
        self.reports.take()
    }

    /// The one report that there is.
    #[track_caller]
    pub(crate) fn only(&self) -> Report {
        let reports = self.reports();
        assert_eq!(reports.len(), 1, "expected one report, got {reports:#?}");
        reports.into_iter().next().expect("checked above")
    }

    /// The kinds of all reports, in order.
    pub(crate) fn kinds(&self) -> Vec<ContextKind> {
        self.reports
            .borrow()
            .iter()
            .map(|report| report.kind)
            .collect()
    }

    /// The names of the tasks reported, in order, `""` for a report without a task.
    pub(crate) fn tasks(&self) -> Vec<String> {
        let reports = self.reports.borrow();
        reports
            .iter()
            .map(|report| report.task.clone().unwrap_or_default())
            .collect()
    }

    /// The exception messages of all reports, in order, `""` for a report without an exception.
    pub(crate) fn exceptions(&self) -> Vec<String> {
        let reports = self.reports.borrow();
        reports
            .iter()
            .map(|report| report.exception.clone().unwrap_or_default())
            .collect()
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Destructors that can be seen
// ---------------------------------------------------------------------------------------------------------------------

/// The list of [`Guard`]s that were dropped, and where. `Send + Sync`; clones share one list.
#[derive(Clone, Debug, Default)]
pub(crate) struct DropLog {
    drops: Arc<Mutex<Vec<(String, ThreadId)>>>,
}

impl DropLog {
    /// An empty log.
    pub(crate) fn new() -> Self {
        quiet();
        Self::default()
    }

    /// A guard that enters `name` here when it is dropped.
    pub(crate) fn guard(&self, name: impl Into<String>) -> Guard {
        Guard {
            name: name.into(),
            log: self.clone(),
            panic: None,
            while_unwinding: false,
        }
    }

    /// The names of the guards dropped so far, in order.
    pub(crate) fn names(&self) -> Vec<String> {
        self.lock().iter().map(|(name, _)| name.clone()).collect()
    }

    /// The threads on which they were dropped, in order.
    pub(crate) fn threads(&self) -> Vec<ThreadId> {
        self.lock().iter().map(|(_, thread)| *thread).collect()
    }

    /// How many guards were dropped.
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    /// How many guards of this name were dropped.
    pub(crate) fn count(&self, name: &str) -> usize {
        self.lock().iter().filter(|(n, _)| n == name).count()
    }

    /// Asserts which guards were dropped, in order, and that each was dropped on the calling thread (P4).
    #[track_caller]
    pub(crate) fn assert(&self, names: &[&str]) {
        assert_eq!(self.names(), names, "the guards dropped, in order");
        self.assert_home();
    }

    /// Asserts that every guard was dropped on the calling thread (P4).
    #[track_caller]
    pub(crate) fn assert_home(&self) {
        let here = thread::current().id();
        assert!(
            self.threads().iter().all(|thread| *thread == here),
            "P4: everything is dropped on the home thread"
        );
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(String, ThreadId)>> {
        self.drops.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Enters its name and the thread in a [`DropLog`] when it is dropped, and then panics if it was told to.
///
/// To have it dropped by the future's *destructor* and not at the end of an async body, hold it with [`holding`].
#[derive(Debug)]
pub(crate) struct Guard {
    name: String,
    log: DropLog,
    panic: Option<String>,
    while_unwinding: bool,
}

impl Guard {
    /// Panics when dropped, with this message as a `String` payload, unless the thread is already unwinding. Let the
    /// message begin with `boom` (see [`quiet`]).
    pub(crate) fn panics(mut self, message: impl Into<String>) -> Self {
        self.panic = Some(message.into());
        self
    }

    /// Panics when dropped, even if the thread is unwinding: only for what is dropped under a `catch_unwind` of its own.
    pub(crate) fn panics_while_unwinding(mut self, message: impl Into<String>) -> Self {
        self.panic = Some(message.into());
        self.while_unwinding = true;
        self
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.log
            .lock()
            .push((self.name.clone(), thread::current().id()));
        if let Some(message) = self.panic.take() {
            if self.while_unwinding || !thread::panicking() {
                panic!("{message}");
            }
        }
    }
}

/// Calls a closure when it is dropped: for destructors that spawn, cancel, wake or look at the counters.
pub(crate) struct OnDrop<F: FnOnce()>(Option<F>);

/// A value that calls `f` when it is dropped.
pub(crate) fn on_drop<F: FnOnce()>(f: F) -> OnDrop<F> {
    OnDrop(Some(f))
}

impl<F: FnOnce()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        if let Some(f) = self.0.take() {
            f();
        }
    }
}

/// A future that holds a value beside another future: the value is dropped by the destructor of the whole, after the
/// inner future, and neither at the end of the body nor by a panic that unwinds through it.
pub(crate) struct Holding<F, G> {
    future: Pin<Box<F>>,
    _held: G,
}

impl<F, G> Unpin for Holding<F, G> {}

/// Lets `future` run as it is, and drops `held` in the destructor of the future returned.
pub(crate) fn holding<F: Future, G>(held: G, future: F) -> Holding<F, G> {
    Holding {
        future: Box::pin(future),
        _held: held,
    }
}

impl<F: Future, G> Future for Holding<F, G> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.future.as_mut().poll(cx)
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Traces
// ---------------------------------------------------------------------------------------------------------------------

/// A list of labels that tasks push to and the test asserts as a whole. Clones share one list.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace {
    labels: Rc<RefCell<Vec<String>>>,
}

impl Trace {
    /// An empty trace.
    pub(crate) fn new() -> Self {
        quiet();
        Self::default()
    }

    /// Adds a label.
    pub(crate) fn push(&self, label: impl Into<String>) {
        self.labels.borrow_mut().push(label.into());
    }

    /// All labels so far.
    pub(crate) fn labels(&self) -> Vec<String> {
        self.labels.borrow().clone()
    }

    /// How many labels there are.
    pub(crate) fn len(&self) -> usize {
        self.labels.borrow().len()
    }

    /// Forgets all labels.
    pub(crate) fn clear(&self) {
        self.labels.take();
    }

    /// Asserts the whole trace, then empties it.
    #[track_caller]
    pub(crate) fn assert(&self, expected: &[&str]) {
        let labels = self.labels.take();
        assert_eq!(labels, expected, "the trace");
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Wakers and futures
// ---------------------------------------------------------------------------------------------------------------------

/// A foreign waker (not one of the executor's) that counts, and panics where it was told to. See [`counting_waker`].
#[derive(Debug, Default)]
pub(crate) struct WakeCount {
    wakes: AtomicUsize,
    panics_on_wake: bool,
    panics_on_drop: bool,
}

impl WakeCount {
    /// How often the waker was called.
    pub(crate) fn wakes(&self) -> usize {
        self.wakes.load(Ordering::SeqCst)
    }

    /// A waker that panics with `boom in wake` when it is called.
    pub(crate) fn panicking_on_wake() -> Arc<Self> {
        Arc::new(Self {
            wakes: AtomicUsize::new(0),
            panics_on_wake: true,
            panics_on_drop: false,
        })
    }

    /// A waker whose last clone panics with `boom in waker drop` when it is dropped.
    pub(crate) fn panicking_on_drop() -> Arc<Self> {
        Arc::new(Self {
            wakes: AtomicUsize::new(0),
            panics_on_wake: false,
            panics_on_drop: true,
        })
    }
}

impl Wake for WakeCount {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.wakes.fetch_add(1, Ordering::SeqCst);
        if self.panics_on_wake {
            panic!("boom in wake");
        }
    }
}

impl Drop for WakeCount {
    fn drop(&mut self) {
        if self.panics_on_drop && !thread::panicking() {
            panic!("boom in waker drop");
        }
    }
}

/// A waker that does nothing but count, and its count.
pub(crate) fn counting_waker() -> (Waker, Arc<WakeCount>) {
    let count = Arc::new(WakeCount::default());
    (Waker::from(Arc::clone(&count)), count)
}

/// Polls once with `waker`.
pub(crate) fn poll_with<F: Future + Unpin>(future: &mut F, waker: &Waker) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(waker))
}

/// Polls once with a waker that does nothing.
pub(crate) fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    poll_with(future, Waker::noop())
}

/// Yields `n` times: pending, having woken itself, at each of the first `n` polls.
pub(crate) fn yield_n(n: usize) -> YieldN {
    YieldN(n)
}

/// The future of [`yield_n`].
#[derive(Debug)]
pub(crate) struct YieldN(usize);

impl Future for YieldN {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.0 == 0 {
            return Poll::Ready(());
        }
        self.0 -= 1;
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// A latch on which tasks park until the test (or another task) sets it. Single-threaded; clones are the same latch.
#[derive(Clone, Debug, Default)]
pub(crate) struct Event {
    inner: Rc<EventInner>,
}

#[derive(Debug, Default)]
struct EventInner {
    set: Cell<bool>,
    wakers: RefCell<VecDeque<Waker>>,
}

impl Event {
    /// An event that is not set.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Waits until the event is set. Several may wait; each is woken in the order in which it began to.
    pub(crate) fn wait(&self) -> EventWait {
        EventWait(self.clone())
    }

    /// Sets the event for good and wakes those who wait.
    pub(crate) fn set(&self) {
        self.inner.set.set(true);
        self.pulse();
    }

    /// Wakes those who wait without setting the event: a spurious wake.
    pub(crate) fn pulse(&self) {
        let wakers = self.inner.wakers.take();
        for waker in wakers {
            waker.wake();
        }
    }

    /// Whether anybody waits here (has polled and was not woken since).
    pub(crate) fn is_awaited(&self) -> bool {
        !self.inner.wakers.borrow().is_empty()
    }

    /// A clone of the waker of the first one who waits, which stays registered.
    pub(crate) fn waker(&self) -> Option<Waker> {
        self.inner.wakers.borrow().front().cloned()
    }

    /// Drops the wakers without calling them: whoever waits is never woken by this event.
    pub(crate) fn forget_wakers(&self) {
        drop(self.inner.wakers.take());
    }
}

/// The future of [`Event::wait`].
#[derive(Debug)]
pub(crate) struct EventWait(Event);

impl Future for EventWait {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let inner = &self.0.inner;
        if inner.set.get() {
            return Poll::Ready(());
        }
        let known = inner
            .wakers
            .borrow()
            .iter()
            .any(|waker| waker.will_wake(cx.waker()));
        if !known {
            let waker = cx.waker().clone();
            inner.wakers.borrow_mut().push_back(waker);
        }
        Poll::Pending
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// The log
// ---------------------------------------------------------------------------------------------------------------------

/// One record that reached the process's logger on this thread.
#[derive(Clone, Debug)]
pub(crate) struct LogRecord {
    /// `Error` for reports.
    pub(crate) level: log::Level,
    /// `mainstay` for reports.
    pub(crate) target: String,
    /// The whole text, several lines for a report.
    pub(crate) text: String,
}

struct ThreadLogger;

#[derive(Default)]
struct ThreadLog {
    records: Vec<LogRecord>,
    panics: bool,
}

thread_local! {
    static LOG: RefCell<Option<ThreadLog>> = const { RefCell::new(None) };
    static NEXT_RECORD: Cell<Option<fn()>> = const { Cell::new(None) };
}

/// Has the logger call `f` when the calling thread logs next: a logger that is user code.
pub(crate) fn on_next_record(f: fn()) {
    install_logger();
    NEXT_RECORD.set(Some(f));
}

fn install_logger() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&ThreadLogger).expect("nobody else installs a logger in this binary");
        log::set_max_level(log::LevelFilter::Trace);
    });
}

impl log::Log for ThreadLogger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        if let Some(call) = NEXT_RECORD.take() {
            call();
        }
        let panics = LOG.with_borrow(|log| log.as_ref().map(|log| log.panics));
        match panics {
            None => return,
            Some(true) => panic!("boom in the logger"),
            Some(false) => {}
        }
        // Formatted outside the borrow, because a `Display` in it is user code.
        let entry = LogRecord {
            level: record.level(),
            target: record.target().to_owned(),
            text: record.args().to_string(),
        };
        LOG.with_borrow_mut(|log| {
            if let Some(log) = log {
                log.records.push(entry);
            }
        });
    }

    fn flush(&self) {}
}

/// Collects what the calling thread logs, for as long as it lives. It is the only code in this binary that may install a
/// logger; records of threads without a capture go nowhere.
#[derive(Debug)]
pub(crate) struct LogCapture(());

impl LogCapture {
    /// Begins to collect the calling thread's records.
    pub(crate) fn start() -> Self {
        install_logger();
        LOG.with_borrow_mut(|log| *log = Some(ThreadLog::default()));
        Self(())
    }

    /// From now on the logger panics with `boom in the logger` on this thread (or no longer does).
    pub(crate) fn panics(&self, panics: bool) {
        LOG.with_borrow_mut(|log| log.as_mut().expect("the capture lives").panics = panics);
    }

    /// The records so far, of the target `mainstay` only.
    pub(crate) fn records(&self) -> Vec<LogRecord> {
        LOG.with_borrow(|log| {
            let records = &log.as_ref().expect("the capture lives").records;
            records
                .iter()
                .filter(|record| record.target == "mainstay")
                .cloned()
                .collect()
        })
    }

    /// The one record that there is of the target `mainstay`.
    #[track_caller]
    pub(crate) fn only(&self) -> LogRecord {
        let records = self.records();
        assert_eq!(records.len(), 1, "expected one record, got {records:#?}");
        records.into_iter().next().expect("checked above")
    }
}

impl Drop for LogCapture {
    fn drop(&mut self) {
        LOG.with_borrow_mut(|log| *log = None);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Processes
// ---------------------------------------------------------------------------------------------------------------------

const CHILD: &str = "MAINSTAY_TEST_CHILD";

/// Runs `body` in a process of its own: for what is process-wide, goes to stderr, or aborts.
///
/// `test` is the calling test's full name as libtest prints it (`failures::some_claim`). The test binary is started again
/// with that one test, in which this function runs `body` and gives `None`. Otherwise it gives the child's output.
pub(crate) fn in_child(test: &str, env: &[(&str, &str)], body: impl FnOnce()) -> Option<Output> {
    if std::env::var_os(CHILD).is_some_and(|name| name == *test) {
        body();
        return None;
    }
    let exe = std::env::current_exe().expect("the path of the test binary");
    let output = Command::new(exe)
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(CHILD, test)
        .envs(env.iter().copied())
        .output()
        .expect("the test binary starts again");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(
        stdout.contains("running 1 test"),
        "no test is called {test}: {stdout}"
    );
    Some(output)
}

/// What a test of something endless needs: it may leak by design, so the leak check is off in its own process.
pub(crate) const LEAKS: [(&str, &str); 2] = [
    ("ASAN_OPTIONS", "detect_leaks=0"),
    ("LSAN_OPTIONS", "detect_leaks=0"),
];

/// As [`in_child`], for a body that ends well: asserts the child's success and gives its stderr.
#[track_caller]
pub(crate) fn in_child_ok(test: &str, env: &[(&str, &str)], body: impl FnOnce()) -> Option<String> {
    let output = in_child(test, env, body)?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success(),
        "{test} failed in its own process\n{stdout}\n{stderr}"
    );
    Some(stderr)
}
