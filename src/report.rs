//! Telling failures: how a report finds its way.
//!
//! Every report of the crate goes through [`Reporter::dispatch`]; nothing else logs or prints. The way down, after
//! asyncio's `call_exception_handler`: the executor's own handler; if that panics, the default handler with both; if
//! that fails too, one line on stderr.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt::{self, Debug};
use std::io::Write as _;
use std::rc::Rc;
use std::sync::{Arc, RwLock};
use std::task::Waker;

use crate::exception::Exception;
use crate::exception_context::{ContextKind, ExceptionContext};
use crate::task::TaskInfo;
use crate::unwind::{Panic, bury, catch, catch_drop};

/// Reports that users make from within a handler nest to this depth; deeper ones go to the default handler.
const MAX_DEPTH: u32 = 8;

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
