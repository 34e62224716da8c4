//! What a handler is given: the context of a report.

use std::any::Any;
use std::borrow::Cow;
use std::error::Error;
use std::fmt::{self, Debug, Display, Write as _};
use std::panic::Location;

use crate::exception::Exception;
use crate::task::TaskInfo;
use crate::unwind::guarded;

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
    pub(crate) original: Option<&'a ExceptionContext<'a>>,
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

    pub(crate) fn render(&self, out: &mut String, indent: &str) {
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
