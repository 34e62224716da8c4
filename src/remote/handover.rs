//! The place where a task's outcome passes from its executor's thread to a handle on any other.
//!
//! There are two parties. *Home* delivers once; the *handle* takes once, or is dropped. `O` is an outcome, whatever that is.
//!
//! ```text
//!             1 deliver                  4 take
//!   Pending ─────────────► Ready ──────────────────► Taken
//!      │                   │ ▲ │
//!      │            3 look │ │ │ 2 abandon, owed
//!      │ 2 abandon         ▼ │ ▼
//!      │               Shown │ Left ───┐
//!      │                 │     ▲       │ 3 look
//!      │       2 abandon │     │ 1 deliver, owed
//!      ▼                 ▼     │       ▼
//!      └───────────► Abandoned ┘ ◄─────┘
//! ```
//!
//! 1 [`deliver`](Handover::deliver) · 2 [`abandon`](Handover::abandon) · 3 [`look`](Handover::look),
//! [`put_back`](Handover::put_back) · 4 [`take`](Handover::take), [`take_or_wait`](Handover::take_or_wait).
//!
//! A failure that nobody has been told of or has read is *owed*: somebody must get to know of it. Whoever moves it out of
//! `Ready` or `Left` has it, and there is one such move (P2).
//!
//! - **H1** Each step is one critical section, in which values are moved and nothing else is done. What is user code (a
//!   waker's clone, wake and drop, an outcome's destructor) is handed to the caller, and happens outside (P6). So nobody
//!   holds the lock for longer than it takes to move an outcome.
//! - **H2** A waker is registered and the outcome looked for in one critical section, so that none is delivered in between.
//! - **H3** The cancel of a task that has yet to begin is a bit that its beginning reads; both are read-modify-writes of one
//!   word, so that one of the two sees the other.

use std::task::Waker;

use crate::sync::{AtomicU32, Mutex, Ordering};

/// The task has begun: its slot index is known.
const BEGUN: u32 = 1;
/// Its cancel was asked for.
const ASKED: u32 = 2;
/// Its outcome was delivered.
const FINISHED: u32 = 4;

/// See the module documentation.
pub(crate) struct Handover<O> {
    flags: AtomicU32,
    /// The task's slot index, valid with `BEGUN`.
    index: AtomicU32,
    state: Mutex<State<O>>,
}

enum State<O> {
    /// Not delivered. Who waits, if somebody does.
    Pending(Option<Waker>),
    /// To be taken.
    Ready { outcome: O, owed: bool },
    /// Home has the outcome in hand, to show it to a handler, and puts it back.
    Shown(Option<Waker>),
    /// The handle has taken it.
    Taken,
    /// The handle is gone, and left a failure that is owed.
    Left(O),
    /// The handle is gone.
    Abandoned,
}

/// What came of a delivery.
#[must_use = "the waker is to be woken, or the outcome dropped"]
pub(crate) enum Delivered<O> {
    /// It can be taken; this is who waits for it.
    Accepted(Option<Waker>),
    /// The handle is gone, and the failure is owed: [`Handover::look`] gives it.
    Left,
    /// The handle is gone.
    Refused(O),
}

/// What a handle finds.
pub(crate) enum Take<O> {
    NotYet,
    Outcome {
        outcome: O,
        /// Home is to be hinted at it.
        owed: bool,
    },
    /// It was taken before.
    Spent,
}

/// What a handle leaves to be dropped, and to be done.
pub(crate) struct Leftover<O> {
    pub(crate) outcome: Option<O>,
    pub(crate) waker: Option<Waker>,
    /// Home is to be hinted at what was left.
    pub(crate) owed: bool,
}

/// What home finds where it is owed something.
pub(crate) enum Look<O> {
    /// The handle still has it, unread.
    Held,
    /// The handle has read it.
    Read,
    /// The handle is gone: home has it now.
    Left(O),
    /// The handle is there; home is to [put it back](Handover::put_back).
    Shown(O),
}

/// What came of a wish to cancel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// There is nothing left to cancel.
    Finished,
    /// Nothing is to be done: it was asked for before, or the task's beginning will see to it.
    Noted,
    /// The task in this slot is to be told.
    Tell(u32),
}

impl<O> Handover<O> {
    pub(crate) fn new() -> Self {
        Handover {
            flags: AtomicU32::new(0),
            index: AtomicU32::new(0),
            state: Mutex::new(State::Pending(None)),
        }
    }

    /// One step (H1). What it takes out is dropped by the caller, outside.
    fn step<R>(&self, step: impl FnOnce(&mut State<O>) -> R) -> R {
        step(&mut self.state.lock().unwrap_or_else(|e| e.into_inner()))
    }

    // --- cancelling -------------------------------------------------------------------------------------------------

    /// The task lives in slot `index` from now on. Whether its cancel was asked for. Home thread, once.
    #[must_use]
    pub(crate) fn begin(&self, index: u32) -> bool {
        self.index.store(index, Ordering::Relaxed);
        self.flags.fetch_or(BEGUN, Ordering::AcqRel) & ASKED != 0
    }

    /// Asks for the task's cancel. Any thread.
    pub(crate) fn ask_cancel(&self) -> Asked {
        let flags = self.flags.fetch_or(ASKED, Ordering::AcqRel);
        if flags & FINISHED != 0 {
            Asked::Finished
        } else if flags & ASKED != 0 || flags & BEGUN == 0 {
            Asked::Noted
        } else {
            Asked::Tell(self.index.load(Ordering::Relaxed))
        }
    }

    /// The task's slot index, once it has begun.
    pub(crate) fn index(&self) -> Option<u32> {
        (self.flags.load(Ordering::Acquire) & BEGUN != 0)
            .then(|| self.index.load(Ordering::Relaxed))
    }

    // --- home -------------------------------------------------------------------------------------------------------

    /// Delivers the outcome. Home thread, once.
    pub(crate) fn deliver(&self, outcome: O, owed: bool) -> Delivered<O> {
        let delivered = self.step(|state| match state {
            State::Abandoned if owed => {
                *state = State::Left(outcome);
                Delivered::Left
            }
            State::Pending(_) => match std::mem::replace(state, State::Ready { outcome, owed }) {
                State::Pending(waker) => Delivered::Accepted(waker),
                _ => unreachable!("it was looked at above"),
            },
            _ => Delivered::Refused(outcome),
        });
        self.flags.fetch_or(FINISHED, Ordering::Release);
        delivered
    }

    /// Looks what became of a failure that is owed. With `last`, one that the handle has not read is taken in hand all the
    /// same. Home thread.
    pub(crate) fn look(&self, last: bool) -> Look<O> {
        self.step(|state| match std::mem::replace(state, State::Taken) {
            State::Taken => Look::Read,
            State::Left(outcome) => {
                *state = State::Abandoned;
                Look::Left(outcome)
            }
            State::Ready {
                outcome,
                owed: true,
            } if last => {
                *state = State::Shown(None);
                Look::Shown(outcome)
            }
            other => {
                *state = other;
                Look::Held
            }
        })
    }

    /// Puts back what was shown; it is no longer owed. Gives who waits for it. Home thread.
    ///
    /// # Errors
    ///
    /// The outcome, if the handle is gone meanwhile.
    pub(crate) fn put_back(&self, outcome: O) -> Result<Option<Waker>, O> {
        self.step(|state| match state {
            State::Shown(_) => {
                let ready = State::Ready {
                    outcome,
                    owed: false,
                };
                match std::mem::replace(state, ready) {
                    State::Shown(waker) => Ok(waker),
                    _ => unreachable!("it was looked at above"),
                }
            }
            _ => Err(outcome),
        })
    }

    /// Whether the handle is still there. Home thread.
    pub(crate) fn is_held(&self) -> bool {
        self.step(|state| !matches!(state, State::Left(_) | State::Abandoned))
    }

    // --- the handle -------------------------------------------------------------------------------------------------

    /// Whether the outcome was delivered.
    pub(crate) fn is_finished(&self) -> bool {
        self.flags.load(Ordering::Acquire) & FINISHED != 0
    }

    /// Takes the outcome if it is there.
    pub(crate) fn take(&self) -> Take<O> {
        self.step(State::take)
    }

    /// Takes the outcome if it is there, else has `waker` woken when it is.
    ///
    /// User code: clone of a foreign waker, and drop of the one that it replaces, on the calling thread.
    pub(crate) fn take_or_wait(&self, waker: &Waker) -> Take<O> {
        // `will_wake` compares two words: no user code.
        let (taken, known) = self.step(|state| {
            let known = state
                .waiting()
                .is_some_and(|slot| slot.as_ref().is_some_and(|old| old.will_wake(waker)));
            (state.take(), known)
        });
        if known || !matches!(taken, Take::NotYet) {
            return taken;
        }
        let mut waker = Some(waker.clone());
        let taken = self.step(|state| {
            if let Some(slot) = state.waiting() {
                std::mem::swap(slot, &mut waker);
            }
            state.take()
        });
        // The waker that was there before, or, if the outcome came meanwhile, the new one.
        drop(waker);
        taken
    }

    /// The handle goes.
    pub(crate) fn abandon(&self) -> Leftover<O> {
        let mut leftover = Leftover {
            outcome: None,
            waker: None,
            owed: false,
        };
        self.step(|state| match std::mem::replace(state, State::Abandoned) {
            State::Pending(waker) | State::Shown(waker) => leftover.waker = waker,
            State::Ready {
                outcome,
                owed: false,
            } => leftover.outcome = Some(outcome),
            State::Ready {
                outcome,
                owed: true,
            } => {
                *state = State::Left(outcome);
                leftover.owed = true;
            }
            taken @ (State::Taken | State::Left(_) | State::Abandoned) => *state = taken,
        });
        leftover
    }
}

impl<O> State<O> {
    fn take(&mut self) -> Take<O> {
        match std::mem::replace(self, State::Taken) {
            State::Ready { outcome, owed } => Take::Outcome { outcome, owed },
            State::Taken => Take::Spent,
            other => {
                *self = other;
                Take::NotYet
            }
        }
    }

    /// Where a waker goes, if there is something to wait for.
    fn waiting(&mut self) -> Option<&mut Option<Waker>> {
        match self {
            State::Pending(waker) | State::Shown(waker) => Some(waker),
            _ => None,
        }
    }
}

impl<O> std::fmt::Debug for Handover<O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handover")
            .field("finished", &self.is_finished())
            .finish_non_exhaustive()
    }
}
