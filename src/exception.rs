//! What went wrong, borrowed: the view that handlers and callbacks are given.

use std::any::Any;
use std::backtrace::Backtrace;
use std::borrow::Cow;
use std::error::Error;
use std::fmt::{self, Debug, Display};

use crate::unwind::{self, Panic, PanicLocation};

/// What an error must offer to be reported: it can be shown, and it can be asked for its type.
pub(crate) trait AnyError: Display + Debug {
    fn as_any(&self) -> &dyn Any;
}

impl<E: Display + Debug + 'static> AnyError for E {
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A borrowed view of what ended a task or a callback: a panic, or an error value.
///
/// Nothing is cloned or boxed to make one. It borrows from the task's own cell, which stays as it is for as long as the
/// view is reachable, whatever the code that looks at it does with handles to the task.
#[derive(Clone, Copy)]
pub struct Exception<'a>(View<'a>);

#[derive(Clone, Copy)]
enum View<'a> {
    Panic(&'a Panic),
    Payload(&'a (dyn Any + Send)),
    Error(&'a dyn AnyError),
    Source(&'a (dyn Error + 'static)),
}

impl<'a> Exception<'a> {
    pub(crate) fn panic(panic: &'a Panic) -> Self {
        Exception(View::Panic(panic))
    }

    pub(crate) fn payload(payload: &'a (dyn Any + Send)) -> Self {
        Exception(View::Payload(payload))
    }

    pub(crate) fn error(error: &'a dyn AnyError) -> Self {
        Exception(View::Error(error))
    }

    pub(crate) fn source(error: &'a (dyn Error + 'static)) -> Self {
        Exception(View::Source(error))
    }

    /// The panic that it is, if it was caught here.
    pub(crate) fn as_panic(&self) -> Option<&'a Panic> {
        match self.0 {
            View::Panic(panic) => Some(panic),
            _ => None,
        }
    }

    /// Whether this is a panic.
    pub fn is_panic(&self) -> bool {
        matches!(self.0, View::Panic(_) | View::Payload(_))
    }

    /// Whether this is an error value: the `Err` of a task spawned with `spawn_fallible`, or one that a user reported.
    pub fn is_error(&self) -> bool {
        !self.is_panic()
    }

    /// The panic's message, or the error's `Display`.
    ///
    /// A panic whose payload is not a string has a fixed text that says so.
    ///
    /// # Panics
    ///
    /// If the error's `Display` does. Inside an exception handler that is contained like any panic of the handler.
    pub fn message(&self) -> Cow<'a, str> {
        match self.0 {
            View::Panic(panic) => panic.message(),
            View::Payload(payload) => unwind::message(payload),
            View::Error(error) => Cow::Owned(error.to_string()),
            View::Source(error) => Cow::Owned(error.to_string()),
        }
    }

    /// The panic's payload or the error, if it is an `E`.
    pub fn downcast_ref<E: 'static>(&self) -> Option<&'a E> {
        match self.0 {
            View::Panic(panic) => panic.payload().downcast_ref::<E>(),
            View::Payload(payload) => payload.downcast_ref::<E>(),
            View::Error(error) => error.as_any().downcast_ref::<E>(),
            // `dyn Error` can be asked only for types that are errors, which `E` need not be.
            View::Source(_) => None,
        }
    }

    /// Where the panic happened, if [`install_panic_hook`](crate::install_panic_hook) was called before it did.
    pub fn location(&self) -> Option<PanicLocation> {
        match self.0 {
            View::Panic(panic) => panic.location().cloned(),
            _ => None,
        }
    }

    /// The panic's backtrace, if [`install_panic_hook`](crate::install_panic_hook) was called before and
    /// `RUST_BACKTRACE` asks for backtraces.
    pub fn backtrace(&self) -> Option<&'a Backtrace> {
        match self.0 {
            View::Panic(panic) => panic.backtrace(),
            _ => None,
        }
    }
}

/// What a task failed by, out of its cell: an exception that is owned.
pub(crate) enum Owned {
    Panic(Box<Panic>),
    Error(Box<dyn AnyError>),
}

impl Owned {
    pub(crate) fn view(&self) -> Exception<'_> {
        match self {
            Owned::Panic(panic) => Exception::panic(panic),
            Owned::Error(error) => Exception::error(&**error),
        }
    }
}

impl Display for Exception<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            View::Panic(panic) => f.write_str(&panic.message()),
            View::Payload(payload) => f.write_str(&unwind::message(payload)),
            View::Error(error) => Display::fmt(error, f),
            View::Source(error) => Display::fmt(error, f),
        }
    }
}

impl Debug for Exception<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            View::Panic(panic) => write!(f, "panic {:?}", panic.message()),
            View::Payload(payload) => write!(f, "panic {:?}", unwind::message(payload)),
            View::Error(error) => Debug::fmt(error, f),
            View::Source(error) => Debug::fmt(error, f),
        }
    }
}
