//! The pass: poll once what was ready when it began.

use std::cell::Cell;
use std::task::Context;

use crate::arena::TaskRef;
use crate::arena::driven::{Driven, Polled, Ready};
use crate::arena::front::with_current;
use crate::exception_context::ContextKind;
use crate::unwind::Panic;
use crate::waker;

use super::Scheduler;

/// Remote wakes are noticed at least this often (P8).
const LOOK_EVERY: usize = 64;

/// One step of SplitMix64.
fn next_random(state: &Cell<u64>) -> u64 {
    let next = state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    state.set(next);
    let z = (next ^ next >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// Wakes whoever awaits the task that has just returned.
// Not inlined: in the loop it costs every poll 17 instructions, by the registers that it takes.
#[inline(never)]
fn wake_awaiter(driven: Driven<'_>, awaiter: usize) {
    if !with_current(|front| front.wake(awaiter)) {
        // Another executor's: its hook and its hosts' wakers are user code.
        let _ = driven.rest();
        waker::wake_key(awaiter);
    }
}

impl Scheduler {
    /// Makes one pass, of at most `budget` polls. Returns how many it made.
    pub(crate) fn pass(&self, driven: Driven<'_>, budget: usize) -> usize {
        if self.watches_polls {
            return self.run::<false, true>(driven, budget);
        }
        self.run::<false, false>(driven, budget)
    }

    /// Makes passes until no task is ready, or whoever drives has to look at something. Returns how many callbacks it has
    /// called meanwhile.
    pub(crate) fn passes(&self, driven: Driven<'_>) -> usize {
        if self.watches_polls {
            return self.run::<true, true>(driven, usize::MAX);
        }
        self.run::<true, false>(driven, usize::MAX)
    }

    /// The loop. With `REPEAT`, it begins the next pass by itself when there is nothing to see to in between: then nobody
    /// can tell where one ends and the next begins, and a pass of one task costs a third of what it costs otherwise. The
    /// polls are taken from the budget without it alone. With `WATCHED`, somebody looks on at every poll.
    fn run<const REPEAT: bool, const WATCHED: bool>(
        &self,
        driven: Driven<'_>,
        budget: usize,
    ) -> usize {
        let mut left = budget;
        let polls = || self.counters.polls.get();
        // Polls at the last look, and at the end of the last stretch.
        let (mut looked, mut counted) = (polls(), polls());
        let since = |then: u64| usize::try_from(polls() - then).unwrap_or(usize::MAX);
        let mut more = if REPEAT && driven.is_calm() {
            driven.begin_pass();
            driven.stretch(LOOK_EVERY)
        } else {
            self.begin_pass(driven, &mut left);
            driven.stretch(self.stretch(0).min(left))
        };
        while more {
            loop {
                // The innermost loop looks at one thing only, the queue's stop: whatever else is to be seen to moves it.
                while let Some(ready) = driven.next_ready() {
                    if WATCHED {
                        self.watched_step(driven, ready);
                    } else {
                        self.step(driven, ready);
                    }
                }
                if !REPEAT || !driven.is_calm() || !driven.go_on(LOOK_EVERY) {
                    break;
                }
            }
            let made = since(counted);
            counted = polls();
            if !REPEAT {
                left -= made;
            }
            if REPEAT && driven.is_pass_over() && !driven.is_attention_asked() {
                // Nothing but a root to see to, or nothing.
                let _ = driven.rest();
                return budget - left;
            }
            if let Some(task) = driven.rest() {
                self.bury(driven, task);
            }
            // Without a poll there were only entries of tasks that have gone: it was nobody's turn.
            if made > 0 && (self.has_items() || since(looked) >= LOOK_EVERY) {
                // Also what ended by the hand of the task that was just polled.
                if self.has_items() {
                    self.settle_within(&mut left);
                }
                self.look_around(driven);
                self.look_at_clock(since(looked));
                looked = polls();
            }
            more = driven.stretch(self.stretch(since(looked)).min(left));
        }
        self.look_at_clock(since(looked));
        if !self.late.borrow().is_empty() {
            self.run_late(&mut left);
        }
        budget - left
    }

    /// What there is to see to before a pass, and its beginning.
    #[inline(never)]
    fn begin_pass(&self, driven: Driven<'_>, left: &mut usize) {
        self.look_around(driven);
        if self.has_items() || self.has_messages.get() {
            self.take_leftovers(left);
        }
        self.look_at_clock(0);
        self.arena.set_attention(self.needs_attention());
        driven.begin_pass();
        if let Some(seed) = &self.shuffle {
            driven.shuffle_pass(|| next_random(seed));
        }
    }

    /// How many tasks are to be polled before the next look, so many polls after the last one.
    fn stretch(&self, since: usize) -> usize {
        // What is still to be told is told after the next poll.
        if self.has_items() {
            1
        } else {
            LOOK_EVERY - since
        }
    }

    /// Whether there is something to be seen to before, between or after passes, besides the token of other threads and the
    /// roots. What makes this true asks for attention.
    fn needs_attention(&self) -> bool {
        self.has_items()
            || self.has_messages.get()
            || self.must_look.get()
            || self.is_stopping()
            || self.is_armed_at_all()
            || self.shuffle.is_some()
            || !self.late.borrow().is_empty()
    }

    /// Polls one task and counts what came of it.
    #[inline]
    fn step<'a>(&self, driven: Driven<'a>, ready: Ready<'a>) {
        let polled = self.poll(driven, ready);
        self.polled(driven, polled);
    }

    /// Counts what came of a poll.
    #[inline]
    pub(super) fn polled(&self, driven: Driven<'_>, polled: Polled<'_>) {
        match polled {
            Polled::Pending => {}
            Polled::Gone => self.returned(driven),
            Polled::Stored(awaiter) => {
                self.returned(driven);
                if awaiter != 0 {
                    wake_awaiter(driven, awaiter);
                }
            }
            Polled::Ended(ended) => self.ended(ended),
        }
    }

    /// Polls one task.
    #[inline]
    pub(super) fn poll<'a>(&self, driven: Driven<'a>, ready: Ready<'a>) -> Polled<'a> {
        self.counters.polls.add(1);
        let waker = waker::borrowed(ready.key());
        let mut cx = Context::from_waker(&waker);
        driven.poll(ready, &mut cx)
    }

    /// Counts a task that has returned like most.
    #[inline]
    fn returned(&self, driven: Driven<'_>) {
        self.counters.live.sub(1);
        self.counters.returned.add(1);
        if self.has_idlers.get() {
            // They may be anybody's wakers.
            let _ = driven.rest();
            self.wake_idlers();
        }
    }

    /// Looks at what other threads, and this one between drives, have left. One flag says whether there is anything.
    #[inline]
    pub(crate) fn look_around(&self, driven: Driven<'_>) {
        // The token is taken before the queues are looked at, so that what comes later sets it again.
        if self.arena.endpoint().parker().take() || self.must_look.get() {
            self.look_closely(driven);
        }
    }

    #[cold]
    fn look_closely(&self, driven: Driven<'_>) {
        self.must_look.set(false);
        self.arena.take_remote_wakes();
        self.take_cancels();
        self.tell_hook_panics();
        let doomed = std::mem::take(&mut *self.doomed.borrow_mut());
        for task in doomed {
            self.bury(driven, task);
        }
        self.take_hints();
        self.look_for_messages();
    }

    /// Carries out the cancels that came from other threads.
    pub(super) fn take_cancels(&self) {
        let endpoint = self.arena.endpoint();
        // As many as there are now: a thread that never stops must not keep us here (P8).
        for _ in 0..endpoint.cancels() {
            let Some(request) = endpoint.next_cancel() else {
                break;
            };
            let task = TaskRef {
                id: crate::task::TaskId::new(request.id),
                index: request.index,
            };
            self.cancel(task, request.reason);
        }
    }

    /// What the last tick's budget did not reach, and what other threads have sent. A tick of one step takes turns between
    /// these and the tasks, so that neither starves.
    #[cold]
    fn take_leftovers(&self, left: &mut usize) {
        let mut share = match *left {
            1 if self.arena.has_ready()
                && self.leftovers_had_it.replace(!self.leftovers_had_it.get()) =>
            {
                0
            }
            1 => 1,
            more => more.saturating_sub(1),
        };
        let kept = *left - share;
        if share > 0 {
            self.settle_within(&mut share);
            self.run_messages(&mut share);
        }
        *left = kept + share;
    }

    /// Reports the panics of the wake hook since the last look.
    pub(crate) fn tell_hook_panics(&self) {
        while let Some(payload) = self.arena.endpoint().next_hook_panic() {
            let panic = Panic::from_payload(payload);
            self.tell(
                ContextKind::Callback,
                "Panic in a host's wake hook or waker",
                Some(panic),
                None,
            );
        }
    }

    /// Whether a pass would find something to do.
    #[inline]
    pub(crate) fn has_work(&self) -> bool {
        self.arena.has_ready()
            || self.has_items() && !self.settling.get()
            || self.has_messages.get()
            || self.must_look.get()
            || self.arena.endpoint().parker().is_notified()
            || !self.late.borrow().is_empty()
    }
}
