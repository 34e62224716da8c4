//! Telling failures: what a handler is given, and how a report finds its way.
//!
//! Every report of the crate goes through [`Reporter::dispatch`]; nothing else logs or prints. The way down, after
//! asyncio's `call_exception_handler`: the executor's own handler; if that panics, the default handler with both; if
//! that fails too, one line on stderr.

use std::any::Any;
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::error::Error;
use std::fmt::{self, Debug, Display, Write as _};
use std::io::Write as _;
use std::panic::Location;
use std::rc::Rc;
use std::sync::{Arc, RwLock};
use std::task::Waker;

use crate::exception::Exception;
use crate::task::TaskInfo;
use crate::unwind::{Panic, bury, catch, catch_drop, guarded};

/// Reports that users make from within a handler nest to this depth; deeper ones go to the default handler.
const MAX_DEPTH: u32 = 8;

/// asyncio's headline for a report without a message.
const NO_MESSAGE: &str = "Unhandled exception in event loop";

/// What a report is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ContextKind {
    /// A task failed ([`ReportPolicy::OnFailure`](crate::ReportPolicy::OnFailure)).
    TaskFailed,
    /// A task had failed and nobody had asked for its outcome
    /// ([`ReportPolicy::IfUnretrieved`](crate::ReportPolicy::IfUnretrieved)).
    NeverRetrieved,
    /// The executor was dropped while the task was pending.
    DestroyedPending,
    /// A callback or a waker panicked.
    Callback,
    /// A destructor panicked where no task could be made to fail for it.
    Destructor,
    /// An exception handler panicked; [`ExceptionContext::original`] is the report that it was given.
    Handler,
    /// A task failed while the executor was being shut down.
    Shutdown,
    /// Anything else, reports of users' own among it.
    Other,
}

/// A report: what an exception handler is given.
///
/// Borrowed from wherever the failure lives; nothing is cloned or boxed for it. `Display` is the text that the default
/// handler logs; it formats each part by itself, so that a part whose own formatting panics does not take the others
/// with it.
pub struct ExceptionContext<'a> {
    kind: ContextKind,
    message: Cow<'a, str>,
    exception: Option<Exception<'a>>,
    task: Option<TaskInfo>,
    /// Where a callback was made.
    location: Option<&'static Location<'static>>,
    handle_held: bool,
    original: Option<&'a ExceptionContext<'a>>,
}

impl<'a> ExceptionContext<'a> {
    /// Starts a report of the user's own, to be given to
    /// [`Executor::call_exception_handler`](crate::Executor::call_exception_handler). Its kind is
    /// [`ContextKind::Other`]. An empty message is replaced by asyncio's "Unhandled exception in event loop".
    ///
    /// ```
    /// use mainstay::{ExceptionContext, Executor};
    ///
    /// let ex = Executor::new();
    /// ex.set_exception_handler(|_, report| {
    ///     assert_eq!(report.message(), "cannot read the settings");
    ///     assert_eq!(report.exception().unwrap().message(), "no such file");
    /// });
    /// let error = std::io::Error::other("no such file");
    /// let report = ExceptionContext::new("cannot read the settings").error(&error).build();
    /// ex.call_exception_handler(&report);
    /// assert_eq!(ex.stats().reports, 1);
    /// ```
    #[expect(clippy::new_ret_no_self, reason = "a report is built in steps")]
    pub fn new(message: impl Into<Cow<'a, str>>) -> ExceptionContextBuilder<'a> {
        ExceptionContextBuilder(ExceptionContext::of(ContextKind::Other, message))
    }

    pub(crate) fn of(kind: ContextKind, message: impl Into<Cow<'a, str>>) -> Self {
        let message = message.into();
        ExceptionContext {
            kind,
            message: if message.is_empty() {
                NO_MESSAGE.into()
            } else {
                message
            },
            exception: None,
            task: None,
            location: None,
            handle_held: false,
            original: None,
        }
    }

    pub(crate) fn with_exception(mut self, exception: Option<Exception<'a>>) -> Self {
        self.exception = exception;
        self
    }

    pub(crate) fn with_task(mut self, task: Option<TaskInfo>) -> Self {
        self.task = task;
        self
    }

    pub(crate) fn with_location(mut self, location: &'static Location<'static>) -> Self {
        self.location = Some(location);
        self
    }

    pub(crate) fn with_handle_held(mut self, held: bool) -> Self {
        self.handle_held = held;
        self
    }

    /// What this report is about.
    pub fn kind(&self) -> ContextKind {
        self.kind
    }

    /// The headline, without the exception's own message.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What went wrong. `None` where nothing did but a fact is told
    /// ([`DestroyedPending`](ContextKind::DestroyedPending)).
    pub fn exception(&self) -> Option<Exception<'a>> {
        self.exception
    }

    /// The task that it happened in or to, if there is one.
    #[doc(alias = "future")]
    pub fn task(&self) -> Option<&TaskInfo> {
        self.task.as_ref()
    }

    /// Whether somebody holds the task's handle, and may therefore see the failure there too.
    pub fn handle_held(&self) -> bool {
        self.handle_held
    }

    /// The report that a panicking handler was given ([`ContextKind::Handler`]).
    #[doc(alias = "context")]
    pub fn original(&self) -> Option<&ExceptionContext<'a>> {
        self.original
    }

    fn render(&self, out: &mut String, indent: &str) {
        out.push_str(&self.message);
        if let Some(task) = &self.task {
            let _ = write!(
                out,
                "\n{indent}  task: {} (id {}), spawned at {}",
                task.name(),
                task.id(),
                task.location()
            );
        }
        if let Some(location) = self.location {
            let _ = write!(out, "\n{indent}  callback made at {location}");
        }
        if let Some(exception) = self.exception {
            let _ = write!(
                out,
                "\n{indent}  exception: {}",
                guarded(|| exception.to_string())
            );
            let _ = write!(
                out,
                "\n{indent}  debug: {}",
                guarded(|| format!("{exception:?}"))
            );
            if let Some(location) = exception.location() {
                let _ = write!(out, "\n{indent}  at: {location}");
            }
            if let Some(backtrace) = exception.backtrace() {
                let _ = write!(
                    out,
                    "\n{indent}  backtrace:\n{}",
                    guarded(|| backtrace.to_string())
                );
            }
        }
        if let Some(original) = self.original {
            let _ = write!(out, "\n{indent}  while handling: ");
            original.render(out, &format!("{indent}  "));
        }
    }
}

impl Display for ExceptionContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        self.render(&mut text, "");
        f.write_str(&text)
    }
}

impl Debug for ExceptionContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exception = self.exception.map(|e| guarded(|| format!("{e:?}")));
        f.debug_struct("ExceptionContext")
            .field("kind", &self.kind)
            .field("message", &self.message)
            .field("exception", &exception)
            .field("task", &self.task)
            .field("handle_held", &self.handle_held)
            .field("original", &self.original)
            .finish()
    }
}

/// Builds a report of the user's own. See [`ExceptionContext::new`].
#[derive(Debug)]
#[must_use = "finish it with `.build()`"]
pub struct ExceptionContextBuilder<'a>(ExceptionContext<'a>);

impl<'a> ExceptionContextBuilder<'a> {
    /// The error that the report is about.
    pub fn error<E: Display + Debug + 'static>(mut self, error: &'a E) -> Self {
        self.0.exception = Some(Exception::error(error));
        self
    }

    /// The same, for an error whose type is not known.
    pub fn source(mut self, error: &'a (dyn Error + 'static)) -> Self {
        self.0.exception = Some(Exception::source(error));
        self
    }

    /// The payload of a panic that the user caught: `&*payload`, or `&payload` of a box.
    pub fn panic(mut self, payload: &'a (dyn Any + Send)) -> Self {
        // `&payload` of a `Box<dyn Any + Send>` arrives here as the box itself.
        let payload = match payload.downcast_ref::<Box<dyn Any + Send>>() {
            Some(inner) => &**inner,
            None => payload,
        };
        self.0.exception = Some(Exception::payload(payload));
        self
    }

    /// The task that the report is about.
    pub fn task(mut self, task: TaskInfo) -> Self {
        self.0.task = Some(task);
        self
    }

    /// The finished report.
    pub fn build(self) -> ExceptionContext<'a> {
        self.0
    }
}

/// An executor's handler: how to call it, and what the user gave.
#[derive(Clone)]
pub(crate) struct Installed {
    pub(crate) call: Rc<dyn Fn(&ExceptionContext<'_>)>,
    pub(crate) original: Rc<dyn Any>,
}

/// Where an executor's reports go.
#[derive(Default)]
pub(crate) struct Reporter {
    handler: RefCell<Option<Installed>>,
    /// Handlers on the stack.
    depth: Cell<u32>,
    /// Reports made, of every kind.
    count: Cell<u64>,
}

impl Reporter {
    pub(crate) fn count(&self) -> u64 {
        self.count.get()
    }

    pub(crate) fn handler(&self) -> Option<Installed> {
        self.handler.borrow().clone()
    }

    /// Sets or clears the handler; gives the panic that dropping the old one started.
    pub(crate) fn set_handler(&self, handler: Option<Installed>) -> Result<(), Box<Panic>> {
        let old = self.handler.replace(handler);
        // User code: Drop of the old handler's captures.
        catch_drop(old)
    }

    /// Makes one report.
    pub(crate) fn dispatch(&self, context: &ExceptionContext<'_>) {
        self.count_one();
        let handler = self.handler();
        let Some(handler) = handler else {
            return default(context);
        };
        if self.depth.get() >= MAX_DEPTH {
            return default(context);
        }
        self.depth.set(self.depth.get() + 1);
        // User code: the exception handler.
        let told = catch(|| (handler.call)(context));
        self.depth.set(self.depth.get() - 1);
        if let Err(panic) = told {
            self.handler_panicked(&panic, context);
            if let Some(buried) = bury(panic) {
                self.payload_panicked(&buried.messages, buried.leaked);
            }
        }
        // It may have replaced itself, and then this is its last owner.
        // User code: Drop of the handler's captures.
        if let Err(panic) = catch_drop(handler) {
            self.count_one();
            default(
                &ExceptionContext::of(
                    ContextKind::Destructor,
                    "Panic in the destructor of an exception handler",
                )
                .with_exception(Some(Exception::panic(&panic))),
            );
            drop(bury(panic));
        }
    }

    /// Makes one report to a group's own handler. If that panics, the executor's handler is told, with the report.
    pub(crate) fn dispatch_to(&self, own: &Installed, context: &ExceptionContext<'_>) {
        self.count_one();
        if self.depth.get() >= MAX_DEPTH {
            return default(context);
        }
        self.depth.set(self.depth.get() + 1);
        // User code: a group's exception handler.
        let told = catch(|| (own.call)(context));
        self.depth.set(self.depth.get() - 1);
        if let Err(panic) = told {
            let mut both = ExceptionContext::of(
                ContextKind::Handler,
                "Unhandled error in the exception handler of a group",
            )
            .with_exception(Some(Exception::panic(&panic)));
            both.original = Some(context);
            self.dispatch(&both);
            if let Some(buried) = bury(panic) {
                self.payload_panicked(&buried.messages, buried.leaked);
            }
        }
    }

    /// A report that bypasses the handler: it is about the handler.
    fn handler_panicked(&self, panic: &Panic, context: &ExceptionContext<'_>) {
        self.count_one();
        let mut both =
            ExceptionContext::of(ContextKind::Handler, "Unhandled error in exception handler")
                .with_exception(Some(Exception::panic(panic)));
        both.original = Some(context);
        default(&both);
    }

    fn payload_panicked(&self, messages: &[String], leaked: bool) {
        for message in messages {
            self.count_one();
            default(&ExceptionContext::of(
                ContextKind::Destructor,
                format!("Panic in the destructor of a panic payload: {message}"),
            ));
        }
        if leaked {
            self.count_one();
            default(&ExceptionContext::of(
                ContextKind::Destructor,
                "A panic payload whose destructor panics for ever was leaked",
            ));
        }
    }

    /// Counts a report that is told together with others.
    pub(crate) fn count_one(&self) {
        self.count.set(self.count.get() + 1);
    }
}

impl Debug for Reporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reporter")
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}

type ProcessHandler = Arc<dyn Fn(&ExceptionContext<'_>) + Send + Sync>;

static PROCESS_WIDE: RwLock<Option<ProcessHandler>> = RwLock::new(None);

/// Sets the process-wide handler: what executors without a handler of their own call instead of logging.
///
/// The counterpart of `sys.excepthook` and `threading.excepthook`. It may be called from several threads at once, each
/// with reports of that thread's executors. If it panics, the report and the panic are logged.
///
/// A later call replaces it. There is no way back to none; a handler that calls [`log::error!`] with the report does
/// what the default does.
#[doc(alias = "excepthook")]
pub fn set_default_exception_handler(
    handler: impl Fn(&ExceptionContext<'_>) + Send + Sync + 'static,
) {
    let old = PROCESS_WIDE
        .write()
        .unwrap_or_else(|e| e.into_inner())
        .replace(Arc::new(handler));
    // User code: Drop of the old handler's captures; a panic is the caller's own.
    drop(old);
}

thread_local! {
    /// Process-wide handlers on this thread's stack. Without a destructor, hence always there.
    static DEFAULTS: Cell<u32> = const { Cell::new(0) };
}

/// Whether there is a process-wide handler.
pub(crate) fn has_process_handler() -> bool {
    PROCESS_WIDE
        .read()
        .unwrap_or_else(|e| e.into_inner())
        .is_some()
}

/// The default handler: the process-wide one if there is one, else one log record.
pub(crate) fn default(context: &ExceptionContext<'_>) {
    let process_wide = PROCESS_WIDE
        .read()
        .unwrap_or_else(|e| e.into_inner())
        .clone();
    let Some(handler) = process_wide else {
        return write_record(&text(context));
    };
    let depth = DEFAULTS.get();
    if depth >= MAX_DEPTH {
        return write_record(&text(context));
    }
    DEFAULTS.set(depth + 1);
    // User code: the process-wide handler, and, if it was replaced meanwhile, Drop of its captures.
    let told = catch(move || handler(context));
    DEFAULTS.set(depth);
    if let Err(panic) = told {
        let mut both = ExceptionContext::of(
            ContextKind::Handler,
            "Unhandled error in default exception handler",
        )
        .with_exception(Some(Exception::panic(&panic)));
        both.original = Some(context);
        write_record(&text(&both));
        drop(bury(panic));
    }
}

/// Wakes where there is no executor to tell of a panic: the default handler is told.
pub(crate) fn wake_or_default(waker: Waker) {
    // User code: a foreign waker.
    if let Err(panic) = catch(|| waker.wake()) {
        let context = ExceptionContext::of(ContextKind::Callback, "Panic in a waker")
            .with_exception(Some(Exception::panic(&panic)));
        default(&context);
        drop(context);
        drop(bury(panic));
    }
}

/// Tells the default handler of a destructor that panicked where there is no executor to tell, and drops the panic.
pub(crate) fn default_destructor(panic: Box<Panic>, task: Option<TaskInfo>) {
    let mut next = Some(panic);
    while let Some(mut panic) = next {
        // What followed it is told by itself.
        next = panic.also.take();
        let context = ExceptionContext::of(ContextKind::Destructor, "Panic in a destructor")
            .with_exception(Some(Exception::panic(&panic)))
            .with_task(task.clone());
        default(&context);
        drop(context);
        drop(bury(panic));
    }
}

fn text(context: &ExceptionContext<'_>) -> String {
    let mut text = String::new();
    context.render(&mut text, "");
    text
}

/// Writes one error record.
pub(crate) fn write_record(text: &str) {
    write(log::Level::Error, text);
}

/// Writes one record of what is no failure: debug mode's.
pub(crate) fn write_warning(text: &str) {
    write(log::Level::Warn, text);
    // User code: the subscriber.
    #[cfg(feature = "tracing")]
    if let Err(panic) = catch(|| tracing::warn!(target: "mainstay", "{text}")) {
        drop(bury(panic));
    }
}

/// Writes one record; one line on stderr if the logger fails.
fn write(level: log::Level, text: &str) {
    // User code: the logger.
    if let Err(panic) = catch(|| log::log!(target: "mainstay", level, "{text}")) {
        // Whether even this fails, nobody is left to be told.
        let written = writeln!(
            std::io::stderr(),
            "mainstay: the logger panicked ({}) on this report: {}",
            panic.message().replace('\n', " "),
            text.replace('\n', ";")
        );
        drop((written, bury(panic)));
    }
}
