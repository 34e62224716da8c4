//! The cases of `oracles_combinations`: their axes, and what each must come to, by the rules in the documentation.

use mainstay::ReportPolicy;

use crate::support::Counts;

// ---------------------------------------------------------------------------------------------------------------------
// The axes
// ---------------------------------------------------------------------------------------------------------------------

/// Where the task panics.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Panics {
    Never,
    InPoll,
    InDrop,
    InBoth,
}

/// What the task gives, if it comes to that. An error is one of `spawn_fallible`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Gives {
    Value,
    ValueThatPanicsOnDrop,
    Error,
    ErrorThatPanicsOnDrop,
}

/// Who polls the handle before the task has run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Interest {
    Nobody,
    /// Somebody with a waker that is not the executor's.
    Foreigner,
    /// A root of the same executor.
    Root,
}

/// When something is done to the task: by itself in its two polls, else from outside.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub(crate) enum When {
    BeforeFirstPoll,
    InFirstPoll,
    WhileWaiting,
    InLastPoll,
    AfterEnd,
    AfterReading,
    /// Of cancelling: not at all. Of the handle: when the executor is gone.
    Never,
}

pub(crate) const WHENS: [When; 7] = [
    When::BeforeFirstPoll,
    When::InFirstPoll,
    When::WhileWaiting,
    When::InLastPoll,
    When::AfterEnd,
    When::AfterReading,
    When::Never,
];

/// Who cancels, and by what.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Source {
    /// The join handle, between two drives.
    JoinHandle,
    /// A cancel handle, between two drives.
    CancelHandle,
    /// A cancel handle, while the executor is driven.
    Driven,
    /// A cancel handle, on another thread.
    Elsewhere,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) panics: Panics,
    pub(crate) gives: Gives,
    pub(crate) interest: Interest,
    pub(crate) handle_dropped: When,
    pub(crate) cancelled: When,
    pub(crate) source: Source,
    pub(crate) policy: ReportPolicy,
    pub(crate) handler: bool,
}

impl Case {
    pub(crate) fn all() -> impl Iterator<Item = Case> {
        use Panics::{InBoth, InDrop, InPoll, Never};
        let mut all = Vec::new();
        for panics in [Never, InPoll, InDrop, InBoth] {
            for gives in [
                Gives::Value,
                Gives::ValueThatPanicsOnDrop,
                Gives::Error,
                Gives::ErrorThatPanicsOnDrop,
            ] {
                for interest in [Interest::Nobody, Interest::Foreigner, Interest::Root] {
                    for handle_dropped in WHENS {
                        for (cancelled, source) in cancels() {
                            for policy in [ReportPolicy::OnFailure, ReportPolicy::IfUnretrieved] {
                                for handler in [true, false] {
                                    all.push(Case {
                                        panics,
                                        gives,
                                        interest,
                                        handle_dropped,
                                        cancelled,
                                        source,
                                        policy,
                                        handler,
                                    });
                                }
                            }
                        }
                    }
                }
            }
        }
        all.into_iter().filter(|case| case.is_possible())
    }

    pub(crate) fn is_possible(self) -> bool {
        // Nobody cancels with a handle that is gone.
        let by_a_dropped_handle = self.source == Source::JoinHandle
            && self.cancelled != When::Never
            && self.handle_dropped < self.cancelled;
        let in_no_poll = match self.handle_dropped {
            When::InFirstPoll => self.cancelled == When::BeforeFirstPoll,
            When::InLastPoll => self.is_cancelled_in_time(),
            _ => false,
        };
        // Nobody reads.
        let unread =
            self.cancelled == When::AfterReading && self.handle_dropped != When::AfterReading;
        !by_a_dropped_handle && !in_no_poll && !unread
    }
}

/// Whom it may be cancelled by, and when. (Not at all needs no source; in a poll, everybody drives.)
fn cancels() -> impl Iterator<Item = (When, Source)> {
    let sources = [
        Source::JoinHandle,
        Source::CancelHandle,
        Source::Driven,
        Source::Elsewhere,
    ];
    WHENS
        .into_iter()
        .flat_map(move |when| sources.map(|source| (when, source)))
        .filter(|(when, source)| match when {
            When::Never => *source == Source::JoinHandle,
            When::InFirstPoll | When::InLastPoll => *source != Source::Driven,
            _ => true,
        })
}

// ---------------------------------------------------------------------------------------------------------------------
// What is to be expected
// ---------------------------------------------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Ending {
    Returned,
    Failed(&'static str),
    Cancelled,
}

pub(crate) const POLL: &str = "boom in poll";
pub(crate) const DROP: &str = "boom in the future's drop";
pub(crate) const OUTPUT: &str = "boom in the output's drop";
pub(crate) const ERR: &str = "the error";

impl Case {
    pub(crate) fn gives_error(self) -> bool {
        matches!(self.gives, Gives::Error | Gives::ErrorThatPanicsOnDrop)
    }

    pub(crate) fn output_panics(self) -> bool {
        matches!(
            self.gives,
            Gives::ValueThatPanicsOnDrop | Gives::ErrorThatPanicsOnDrop
        )
    }

    pub(crate) fn drop_panics(self) -> bool {
        matches!(self.panics, Panics::InDrop | Panics::InBoth)
    }

    pub(crate) fn is_read(self) -> bool {
        self.handle_dropped == When::AfterReading
    }

    /// Whether the cancel comes before the last poll.
    pub(crate) fn is_cancelled_in_time(self) -> bool {
        self.cancelled < When::InLastPoll
    }

    /// Whether the task has cancelled itself in its last poll. (What comes from another thread is looked at after it.)
    pub(crate) fn cancels_itself(self) -> bool {
        self.cancelled == When::InLastPoll && self.source != Source::Elsewhere
    }

    /// Whether somebody holds the handle when the task ends.
    pub(crate) fn is_held_at_the_end(self) -> bool {
        if !self.is_cancelled_in_time() {
            return self.handle_dropped > When::InLastPoll;
        }
        match self.source {
            // The task is gone before the handle is dropped.
            Source::Driven => self.handle_dropped >= self.cancelled,
            // The task goes in the next pass.
            _ => self.handle_dropped > self.cancelled,
        }
    }

    /// Whether the task comes to the point where it gives something.
    pub(crate) fn produces(self) -> bool {
        !self.is_cancelled_in_time() && matches!(self.panics, Panics::Never | Panics::InDrop)
    }

    /// How the task ends, and the messages of the reports of kind `Destructor` that come on top of it.
    pub(crate) fn ending(self) -> (Ending, Vec<&'static str>) {
        if self.is_cancelled_in_time() {
            // A cancelled task has not failed, unless its destructor panicked.
            return match self.drop_panics() {
                true => (Ending::Failed(DROP), vec![]),
                false => (Ending::Cancelled, vec![]),
            };
        }
        match (self.panics, self.gives_error()) {
            (Panics::InPoll, _) => (Ending::Failed(POLL), vec![]),
            // A second panic, from what remains after one in `poll`, is a report of its own.
            (Panics::InBoth, _) => (Ending::Failed(POLL), vec![DROP]),
            // tokio's rule: a panic in the destructor makes it failed, and the value is dropped.
            (Panics::InDrop, false) if self.output_panics() => (Ending::Failed(DROP), vec![OUTPUT]),
            (Panics::InDrop, false) => (Ending::Failed(DROP), vec![]),
            // Reading: the error came first and stays the task's failure, so that neither is lost.
            (Panics::InDrop, true) => (Ending::Failed(ERR), self.in_cell(vec![DROP])),
            (Panics::Never, true) => (Ending::Failed(ERR), self.in_cell(vec![])),
            // A pending cancel beats a value. The value that it beat, and that of a detached task, is dropped at the end of
            // the task, and a panic there is the task's failure.
            (Panics::Never, false) if self.cancels_itself() || !self.is_held_at_the_end() => {
                match (self.output_panics(), self.cancels_itself()) {
                    (true, _) => (Ending::Failed(OUTPUT), vec![]),
                    (false, true) => (Ending::Cancelled, vec![]),
                    (false, false) => (Ending::Returned, vec![]),
                }
            }
            (Panics::Never, false) => (Ending::Returned, self.in_cell(vec![])),
        }
    }

    /// Adds the panic of what lies in the task's cell until the handle lets go of it. Reading: the task has ended by then
    /// and ends once only, so that is a report of its own.
    pub(crate) fn in_cell(self, mut extra: Vec<&'static str>) -> Vec<&'static str> {
        if self.output_panics() && !self.is_read() {
            extra.push(OUTPUT);
        }
        extra
    }

    /// All reports as kind and message, sorted.
    pub(crate) fn reports(self) -> Vec<(&'static str, &'static str)> {
        let (ending, extra) = self.ending();
        let mut reports: Vec<_> = extra
            .iter()
            .map(|message| ("Destructor", *message))
            .collect();
        if let Ending::Failed(message) = ending {
            match self.policy {
                ReportPolicy::OnFailure => reports.push(("TaskFailed", message)),
                _ if self.is_read() => {}
                _ => reports.push(("NeverRetrieved", message)),
            }
        }
        reports.sort_unstable();
        reports
    }

    /// The counters when all has been done but the drop of the executor and, where that comes later, of the handle.
    pub(crate) fn counts(self) -> Counts {
        let (ending, _) = self.ending();
        let outlives = self.handle_dropped == When::Never;
        let mut expected = Counts {
            spawned: 1,
            ..Counts::default()
        };
        match ending {
            Ending::Returned => expected.returned = 1,
            Ending::Cancelled => expected.cancelled = 1,
            Ending::Failed(_) => {
                expected.failed = 1;
                match self.policy {
                    ReportPolicy::OnFailure => expected.reported = 1,
                    _ if self.is_read() => expected.retrieved = 1,
                    _ if outlives => expected.unread = 1,
                    _ => expected.reported = 1,
                }
            }
        }
        let later = self.reports().into_iter().filter(|(kind, message)| {
            let in_cell =
                *kind == "Destructor" && *message == OUTPUT && ending != Ending::Failed(DROP);
            outlives && (in_cell || *kind == "NeverRetrieved")
        });
        expected.reports = (self.reports().len() - later.count()) as u64;
        expected
    }
}
