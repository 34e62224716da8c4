//! Shutting down: everybody is asked to end, and what is left is dropped. How long there is in between is the driver's to
//! say.
//!
//! Who is spawned meanwhile is asked at once, and has a pass to ask in its turn. So that this ends, spawns are counted in
//! *rounds*: a round is over when all that were live at its start have ended, or when it went on for newcomers alone.
//! After [`MAX_ROUNDS`] the next are cancelled by their spawn, and of those, in turn, only so many (`bury_late`).

use crate::arena::TaskRef;
use crate::arena::driven::Driven;

use super::{Phase, Scheduler};

/// What came of the tasks in a shutdown.
///
/// The sum is the number of tasks that were live when it began or were spawned during it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShutdownReport {
    pub(crate) finished: usize,
    pub(crate) failed: usize,
    pub(crate) cancelled: usize,
    pub(crate) dropped: usize,
}

impl ShutdownReport {
    /// Tasks that returned in time.
    pub fn finished(&self) -> usize {
        self.finished
    }

    /// Tasks that failed, also by a destructor when they were dropped.
    pub fn failed(&self) -> usize {
        self.failed
    }

    /// Tasks that were cancelled before the grace was over.
    pub fn cancelled(&self) -> usize {
        self.cancelled
    }

    /// Tasks that were dropped because the grace was over, or because nobody asked for any.
    pub fn dropped(&self) -> usize {
        self.dropped
    }
}

/// After how many rounds of tasks that were spawned meanwhile the next are refused.
const MAX_ROUNDS: usize = 100;

/// Why a task was dropped by a shutdown, or never began.
pub(super) const SHUT_DOWN: &str = "the executor is being shut down";

/// A shutdown that is under way. Its end opens the executor again.
#[must_use = "the shutdown is over when this is dropped"]
pub(crate) struct Shutdown<'a> {
    scheduler: &'a Scheduler,
    /// Those of the present round that may be live.
    round: Vec<TaskRef>,
    rounds: usize,
    /// What had been spawned when the last whole pass began.
    polled: u64,
    /// What the counters said when it began.
    before: Counts,
}

#[derive(Clone, Copy)]
struct Counts {
    returned: u64,
    failed: u64,
    cancelled: u64,
}

impl Scheduler {
    /// Asks every task to end, and from now on each that is spawned.
    pub(crate) fn begin_shutdown(&self) -> Shutdown<'_> {
        let before = self.ends();
        // What failed before did not fail by this.
        self.settle_all();
        self.set_phase(Phase::ShuttingDown);
        self.shutdowns.set(self.shutdowns.get() + 1);
        let shutdown = Shutdown {
            scheduler: self,
            round: self.arena.live(),
            rounds: 0,
            polled: 0,
            before,
        };
        self.wake_listeners(&self.outside);
        for task in &shutdown.round {
            self.request_cancel(*task);
        }
        shutdown
    }

    /// Whether a failure is one of a shutdown.
    pub(super) fn is_shutting_down(&self) -> bool {
        matches!(self.phase.get(), Phase::ShuttingDown | Phase::Refusing)
    }

    fn ends(&self) -> Counts {
        Counts {
            returned: self.counters.returned.get(),
            failed: self.counters.failed.get(),
            cancelled: self.counters.cancelled.get(),
        }
    }
}

impl Shutdown<'_> {
    /// Notes that all that is live now will have had a pass to ask.
    pub(crate) fn begin_whole_pass(&mut self) {
        self.polled = self.scheduler.counters.spawned.get();
    }

    /// To be called after each pass: whether there is to be another, for those who ask or for newcomers who have had no
    /// chance to.
    pub(crate) fn goes_on(&mut self) -> bool {
        let scheduler = self.scheduler;
        let asking = scheduler.is_anybody_asking();
        let newcomers = scheduler.phase.get() == Phase::ShuttingDown
            && scheduler.counters.spawned.get() != self.polled;
        let arena = &scheduler.arena;
        while self.round.last().is_some_and(|task| arena.has_ended(*task)) {
            self.round.pop();
        }
        if self.round.is_empty() {
            self.round = arena.live();
            self.next_round();
        } else if newcomers && !asking {
            self.next_round();
        }
        asking || newcomers
    }

    fn next_round(&mut self) {
        self.rounds += 1;
        if self.rounds == MAX_ROUNDS {
            self.scheduler.set_phase(Phase::Refusing);
        }
    }

    /// Drops every task that is left, in spawn order, and every callback.
    pub(crate) fn drop_rest(mut self, _: Driven<'_>) -> ShutdownReport {
        let scheduler = self.scheduler;
        let in_time = scheduler.ends();
        loop {
            for task in scheduler.arena.destroyable() {
                let held = scheduler.is_held(task);
                scheduler.cancel(task, held.then(|| Box::from(SHUT_DOWN)));
                scheduler.settle_all();
            }
            scheduler.disarm_calls();
            for call in scheduler.arena.calls() {
                scheduler.cancel(call, None);
            }
            scheduler.settle_all();
            scheduler.run_all_late();
            if scheduler.arena.destroyable().is_empty() && scheduler.arena.calls().is_empty() {
                break;
            }
            self.next_round();
        }
        let (before, after) = (self.before, scheduler.ends());
        let count = |from: u64, to: u64| usize::try_from(to - from).unwrap_or(usize::MAX);
        ShutdownReport {
            finished: count(before.returned, after.returned),
            failed: count(before.failed, after.failed),
            cancelled: count(before.cancelled, in_time.cancelled),
            dropped: count(in_time.cancelled, after.cancelled),
        }
    }
}

impl Drop for Shutdown<'_> {
    fn drop(&mut self) {
        self.scheduler.set_phase(Phase::Open);
        self.scheduler.afterlife.set(0);
    }
}
