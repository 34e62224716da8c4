//! Containing panics: every call into user code goes through [`catch`].
//!
//! What is caught is a [`Panic`]: the payload, and, where the panic hook is installed, where it happened.

use std::any::{Any, TypeId};
use std::backtrace::{Backtrace, BacktraceStatus};
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::{Arc, OnceLock};
use std::thread;

/// How often a payload's destructor may panic with a further payload before the rest is leaked.
const MAX_PAYLOADS: usize = 16;

/// Where a panic happened; known when [`install_panic_hook`](crate::install_panic_hook) was called before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PanicLocation {
    file: Arc<str>,
    line: u32,
    column: u32,
}

impl PanicLocation {
    /// The source file, as the compiler named it.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The line, counted from 1.
    pub fn line(&self) -> u32 {
        self.line
    }

    /// The column, counted from 1.
    pub fn column(&self) -> u32 {
        self.column
    }
}

impl fmt::Display for PanicLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// A caught panic.
pub(crate) struct Panic {
    payload: Box<dyn Any + Send>,
    location: Option<PanicLocation>,
    backtrace: Option<Backtrace>,
    /// A second panic, from a destructor that ran because of the first one. It is reported on its own.
    pub(crate) also: Option<Box<Panic>>,
}

impl Panic {
    #[cold]
    fn new(payload: Box<dyn Any + Send>) -> Box<Self> {
        let noted = NOTED
            .try_with(|noted| noted.borrow_mut().take())
            .ok()
            .flatten();
        // A note of another panic may be lying there: user code may have caught one itself, and `resume_unwind` does
        // not run the hook. The moment and the payload's type and text tell them apart.
        let noted = noted.filter(|note| {
            note.moment == moment()
                && note.payload == (*payload).type_id()
                && note.message.as_deref() == text(&*payload)
        });
        let (location, backtrace) = match noted {
            Some(noted) => (noted.location, noted.backtrace),
            None => (None, None),
        };
        Box::new(Panic {
            payload,
            location,
            backtrace,
            also: None,
        })
    }

    /// Wraps a payload that was caught elsewhere.
    pub(crate) fn from_payload(payload: Box<dyn Any + Send>) -> Box<Self> {
        Panic::new(payload)
    }

    pub(crate) fn payload(&self) -> &(dyn Any + Send) {
        &*self.payload
    }

    pub(crate) fn into_payload(self) -> Box<dyn Any + Send> {
        self.payload
    }

    pub(crate) fn location(&self) -> Option<&PanicLocation> {
        self.location.as_ref()
    }

    pub(crate) fn backtrace(&self) -> Option<&Backtrace> {
        self.backtrace.as_ref()
    }

    pub(crate) fn message(&self) -> Cow<'_, str> {
        message(self.payload())
    }

    /// Whether this is the panic that `mark` was made of: there is no more to go by than what the payload shows.
    pub(crate) fn is(&self, mark: &Mark) -> bool {
        mark.address == (&raw const *self.payload).addr()
            && mark.payload == (*self.payload).type_id()
            && mark.message.as_deref() == text(&*self.payload)
    }

    pub(crate) fn mark(&self) -> Mark {
        Mark {
            address: (&raw const *self.payload).addr(),
            payload: (*self.payload).type_id(),
            message: text(&*self.payload).map(str::to_owned),
        }
    }

    /// Remembers `second` behind this panic and those before it.
    pub(crate) fn push(&mut self, second: Box<Panic>) {
        let mut last = &mut self.also;
        while let Some(next) = last {
            last = &mut next.also;
        }
        *last = Some(second);
    }
}

/// What a panic is known by when it is caught again.
#[derive(Debug)]
pub(crate) struct Mark {
    address: usize,
    payload: TypeId,
    message: Option<String>,
}

impl fmt::Debug for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Panic")
            .field("message", &self.message())
            .field("location", &self.location)
            .finish_non_exhaustive()
    }
}

fn text(payload: &(dyn Any + Send)) -> Option<&str> {
    payload
        .downcast_ref::<&'static str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
}

/// The text of a payload, as far as it has one.
pub(crate) fn message(payload: &(dyn Any + Send)) -> Cow<'_, str> {
    match text(payload) {
        Some(text) => Cow::Borrowed(text),
        None => Cow::Borrowed("a payload that is not a string"),
    }
}

/// Runs user code and contains its panic.
#[inline]
pub(crate) fn catch<R>(user: impl FnOnce() -> R) -> Result<R, Box<Panic>> {
    // AssertUnwindSafe: nothing of ours is borrowed while user code runs (P6), and what of the user's own was left
    // half-done by the panic is theirs to know, as with `std::thread`.
    panic::catch_unwind(AssertUnwindSafe(user)).map_err(Panic::new)
}

/// Drops a user's value and contains its panic.
#[inline]
pub(crate) fn catch_drop<T>(value: T) -> Result<(), Box<Panic>> {
    if std::mem::needs_drop::<T>() {
        catch(move || drop(value))
    } else {
        Ok(())
    }
}

/// Text made by user code, or the reason why there is none.
pub(crate) fn guarded(text: impl FnOnce() -> String) -> String {
    // User code: Display and Debug of the error.
    match catch(text) {
        Ok(text) => text,
        Err(panic) => {
            let why = format!("<formatting it panicked: {}>", panic.message());
            drop(bury(panic));
            why
        }
    }
}

/// Goes on unwinding with a panic that was caught. Where it happened is not forgotten.
pub(crate) fn resume(panic: Panic) -> ! {
    let Panic {
        payload,
        location,
        backtrace,
        ..
    } = panic;
    if location.is_some() {
        let note = Note {
            moment: moment(),
            payload: (*payload).type_id(),
            message: text(&*payload).map(str::to_owned),
            location,
            backtrace,
        };
        // Past the thread-local's end there is nobody left to report to.
        let _ = NOTED.try_with(|noted| noted.replace(Some(note)).map(drop));
    }
    panic::resume_unwind(payload)
}

/// Unwinds with the first of a chain of panics, and tells the others.
#[cold]
pub(crate) fn unwind(mut panic: Panic, tell: impl Fn(Box<Panic>)) -> ! {
    if let Some(also) = panic.also.take() {
        tell(also);
    }
    resume(panic)
}

/// Ends a destructor of ours in which those of the user have panicked. Where the thread is unwinding already, they are all
/// told.
#[inline]
pub(crate) fn end_drop(dropped: Result<(), Box<Panic>>, tell: impl Fn(Box<Panic>)) {
    match dropped {
        Ok(()) => {}
        Err(panic) if thread::panicking() => tell(panic),
        Err(panic) => unwind(*panic, tell),
    }
}

/// Drops a caught panic, with the panics that its payload's destructor may start in turn. Returns what has to be told
/// of them: `None` when nothing happened.
pub(crate) fn bury(panic: Box<Panic>) -> Option<Buried> {
    let mut next = Some(panic);
    let mut messages: Vec<String> = Vec::new();
    let mut rounds = 0;
    while let Some(mut panic) = next.take() {
        if let Some(also) = panic.also.take() {
            // Only reached when a report was made of the first alone; the second dies with it.
            next = Some(also);
        }
        if rounds == MAX_PAYLOADS {
            #[expect(
                clippy::mem_forget,
                reason = "a payload whose destructor panics for ever can only be leaked, and this is reported"
            )]
            std::mem::forget(panic.into_payload());
            return Some(Buried {
                messages,
                leaked: true,
            });
        }
        // User code: Drop of the panic payload.
        if let Err(further) = catch_drop(panic.into_payload()) {
            rounds += 1;
            messages.push(further.message().into_owned());
            match &mut next {
                Some(next) => next.push(further),
                none => *none = Some(further),
            }
        }
    }
    (!messages.is_empty()).then_some(Buried {
        messages,
        leaked: false,
    })
}

/// What happened while a panic was dropped: its payload's destructor panicked.
#[derive(Debug)]
pub(crate) struct Buried {
    /// The message of each further panic, in order.
    pub(crate) messages: Vec<String>,
    /// The chain did not end and its last payload was leaked.
    pub(crate) leaked: bool,
}

struct Note {
    moment: u64,
    payload: TypeId,
    message: Option<String>,
    location: Option<PanicLocation>,
    backtrace: Option<Backtrace>,
}

thread_local! {
    /// Counts the drive frames of this thread: the hook takes notes only inside them.
    static WATCHED: Cell<usize> = const { Cell::new(0) };
    static NOTED: RefCell<Option<Note>> = const { RefCell::new(None) };
}

/// While this lives, the installed hook notes where panics on this thread happen.
#[derive(Debug)]
pub(crate) struct Watch(());

impl Watch {
    pub(crate) fn new() -> Self {
        // `WATCHED` has no destructor, so it can be reached as long as the thread runs.
        WATCHED.with(|depth| depth.set(depth.get() + 1));
        Watch(())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        WATCHED.with(|depth| depth.set(depth.get() - 1));
    }
}

/// Tells the moments of one thread apart, as finely as polls do.
static MOMENT: OnceLock<fn() -> u64> = OnceLock::new();

fn moment() -> u64 {
    MOMENT.get().map_or(0, |moment| moment())
}

/// Installs the hook that takes notes. See `install_panic_hook`.
pub(crate) fn install(moment: fn() -> u64) {
    if MOMENT.set(moment).is_ok() {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            note(info);
            before(info);
        }));
    }
}

fn note(info: &PanicHookInfo<'_>) {
    if WATCHED.with(Cell::get) == 0 {
        return;
    }
    let payload = info.payload();
    let message = payload
        .downcast_ref::<&'static str>()
        .map(|s| (*s).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned());
    let backtrace = Backtrace::capture();
    let note = Note {
        moment: moment(),
        payload: payload.type_id(),
        message,
        location: info.location().map(|l| PanicLocation {
            file: l.file().into(),
            line: l.line(),
            column: l.column(),
        }),
        backtrace: (backtrace.status() == BacktraceStatus::Captured).then_some(backtrace),
    };
    // Past the thread-local's end there is nobody left to report to.
    let _ = NOTED.try_with(|noted| noted.replace(Some(note)).map(drop));
}

#[cfg(test)]
mod tests {
    use super::{MAX_PAYLOADS, bury, catch};
    use std::panic::resume_unwind;

    struct Endless;

    impl Drop for Endless {
        fn drop(&mut self) {
            resume_unwind(Box::new(Endless));
        }
    }

    #[test]
    fn a_payload_that_panics_for_ever_is_capped_and_leaked() {
        let panic = catch(|| resume_unwind(Box::new(Endless))).unwrap_err();
        let buried = bury(panic).expect("the chain is told");
        assert!(buried.leaked);
        assert_eq!(buried.messages.len(), MAX_PAYLOADS);
    }

    #[test]
    fn a_harmless_payload_is_dropped_in_silence() {
        let panic = catch(|| resume_unwind(Box::new("text"))).unwrap_err();
        assert_eq!(panic.message(), "text");
        assert!(bury(panic).is_none());
    }
}
