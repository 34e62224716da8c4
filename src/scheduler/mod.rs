//! The scheduler: an executor's state, and everything that can be done to it.
//!
//! It knows nothing of handles or of how it is driven; `executor` loops over it, `join` and `context` reach into it. Its
//! parts: `pass` polls, `ending` settles what has ended, `cancelling` destroys, `counters` counts, `watching` looks on for
//! `hooks` and debug mode.
//!
//! No `RefCell` here is ever borrowed across user code (P6): a borrow takes something out and ends.

mod asking;
mod callbacks;
mod cancelling;
mod closing;
pub(crate) mod counters;
pub(crate) mod delivery;
mod ending;
pub(crate) mod hooks;
pub(crate) mod hosting;
mod inheriting;
mod listening;
pub(crate) mod members;
pub(crate) mod messages;
mod pass;
pub(crate) mod policy;
pub(crate) mod shutting;
pub(crate) mod timing;
mod watching;

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::panic::Location;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use crate::arena::afterlife::{self, Refused};
use crate::arena::cell::Judge;
use crate::arena::claim::Claim;
use crate::arena::owner::Gate;
use crate::arena::{Arena, TaskRef};
use crate::completion::{CallbackId, Group};
use crate::exception_context::ContextKind;
use crate::home;
use crate::listeners::Listeners;
use crate::locals;
use crate::remote::inbox::Inbox;
use crate::report::{self, Reporter};
use crate::task::{TaskId, TaskInfo};
use crate::unwind::{Panic, catch_drop};

use callbacks::Calls;
use counters::Counters;
use delivery::Owing;
use ending::Item;
use hooks::Hooks;
use hosting::Hosts;
use inheriting::Note;
use messages::Messages;
use policy::ReportPolicy;
use shutting::SHUT_DOWN;
use timing::Time;
use watching::Debugging;

/// See the module documentation.
pub(crate) struct Scheduler {
    this: Weak<Scheduler>,
    arena: Rc<Arena>,
    name: Option<Box<str>>,
    policy: ReportPolicy,
    pub(crate) counters: Counters,
    pub(crate) reporter: Reporter,
    /// What has ended or gone wrong and is still to be told, in order.
    items: RefCell<VecDeque<Item>>,
    /// `items` is not empty: the one thing that the pass looks at after each poll.
    has_items: Cell<bool>,
    /// What was set where a panic began that is on its way.
    note: RefCell<Option<Note>>,
    /// `items` is being worked off up the stack.
    settling: Cell<bool>,
    /// Tasks to be destroyed by the outermost cancel or drop.
    graveyard: RefCell<VecDeque<TaskRef>>,
    burying: Cell<bool>,
    /// Tasks spawned and callbacks made while the executor took none, to cap destructors that spawn their like.
    afterlife: Cell<usize>,
    /// Cancelled while nobody drove: the next drive destroys them.
    doomed: RefCell<Vec<TaskRef>>,
    /// Done callbacks added to tasks that had finished: they run in the next pass.
    late: RefCell<Vec<Calls>>,
    stopping: Cell<bool>,
    fatal: RefCell<Option<Box<dyn Any + Send>>>,
    phase: Cell<Phase>,
    /// Live tasks that have polled a `cancel_requested`.
    asking: Cell<usize>,
    /// Who waits, outside of any task, for a shutdown.
    outside: RefCell<Listeners>,
    /// How often the executor has been shut down.
    shutdowns: Cell<u64>,
    /// Who waits until no other task is live.
    idlers: RefCell<Listeners>,
    has_idlers: Cell<bool>,
    /// Other threads have sent closures that have not been called.
    has_messages: Cell<bool>,
    /// A park took the token: its message is still to be obeyed.
    pub(super) must_look: Cell<bool>,
    /// The last tick, of one step, went to what was left of the ticks before.
    leftovers_had_it: Cell<bool>,
    next_callback: Cell<u64>,
    inbox: Arc<Messages>,
    /// Failures that were handed over to handles elsewhere, and of which nobody knows yet.
    owed: RefCell<BTreeMap<TaskId, Owing>>,
    hosts: Hosts,
    time: Time,
    /// The state of the generator that orders passes, if they are to be shuffled.
    shuffle: Option<Cell<u64>>,
    debugging: Option<Debugging>,
    hooks: Hooks,
    /// Somebody looks on at every poll.
    watches_polls: bool,
}

/// The report of a chain of destructors that does not end.
pub(crate) const ENDLESS: &str =
    "Destructors go on spawning tasks on an executor that takes none; the rest is leaked";

/// Why a task of an executor that is gone never began.
pub(crate) const GONE: &str = "the executor was dropped";

/// Whether an executor takes tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// Whoever is spawned is asked to end at once.
    ShuttingDown,
    /// There were too many rounds of those: whoever is spawned is cancelled at once.
    Refusing,
    /// The executor goes, or is gone.
    Closed,
}

/// What an executor is made with.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    pub(crate) name: Option<Box<str>>,
    pub(crate) policy: ReportPolicy,
    pub(crate) capacity: usize,
    pub(crate) virtual_clock: bool,
    pub(crate) slack: Duration,
    pub(crate) shuffle: Option<u64>,
    /// `None`: as the environment says.
    pub(crate) debug: Option<bool>,
    pub(crate) slow: Option<Duration>,
    pub(crate) hooks: Hooks,
}

impl Scheduler {
    pub(crate) fn new(arena: Rc<Arena>, settings: Settings) -> Rc<Self> {
        let inbox = Arc::new(Inbox::new(arena.endpoint(), home::here()));
        let debugging = Debugging::new(settings.debug, settings.slow);
        let hooks = settings.hooks;
        let watches_polls = debugging.is_some() || hooks.watch_polls();
        let scheduler = Rc::new_cyclic(|this| Scheduler {
            this: Weak::clone(this),
            arena,
            name: settings.name,
            policy: settings.policy,
            counters: Counters::default(),
            reporter: Reporter::default(),
            items: RefCell::default(),
            has_items: Cell::new(false),
            note: RefCell::default(),
            settling: Cell::new(false),
            graveyard: RefCell::default(),
            burying: Cell::new(false),
            afterlife: Cell::new(0),
            doomed: RefCell::default(),
            late: RefCell::default(),
            stopping: Cell::new(false),
            fatal: RefCell::new(None),
            phase: Cell::new(Phase::Open),
            asking: Cell::new(0),
            outside: RefCell::default(),
            shutdowns: Cell::new(0),
            idlers: RefCell::default(),
            has_idlers: Cell::new(false),
            has_messages: Cell::new(false),
            must_look: Cell::new(false),
            leftovers_had_it: Cell::new(false),
            next_callback: Cell::new(0),
            inbox,
            owed: RefCell::default(),
            hosts: Hosts::default(),
            time: Time::new(settings.virtual_clock, settings.slack),
            shuffle: settings.shuffle.map(Cell::new),
            debugging,
            hooks,
            watches_polls,
        });
        scheduler.set_phase(Phase::Open);
        let host: Weak<dyn Any> = scheduler.this.clone();
        scheduler.arena.set_host(host);
        scheduler
    }

    #[inline]
    pub(crate) fn arena(&self) -> &Rc<Arena> {
        &self.arena
    }

    pub(crate) fn weak(&self) -> Weak<Scheduler> {
        self.this.clone()
    }

    pub(crate) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    pub(crate) fn inbox(&self) -> &Arc<Messages> {
        &self.inbox
    }

    /// Spawns a task. On a closed executor its future is dropped unpolled.
    #[inline]
    #[track_caller]
    pub(crate) fn spawn<'env, F, J>(
        &self,
        gate: Gate<'env>,
        future: F,
        location: &'static Location<'static>,
    ) -> Claim<F::Output>
    where
        F: Future + 'env,
        J: Judge<F::Output>,
    {
        self.spawn_prepared::<F, J>(gate, None, future, location, |_| {})
    }

    /// [`spawn`](Self::spawn), into a group if there is one, with something to be done to the task before any user code can
    /// know of it. `prepare` calls none.
    #[inline]
    #[track_caller]
    pub(crate) fn spawn_prepared<'env, F, J>(
        &self,
        gate: Gate<'env>,
        group: Option<Rc<dyn Group>>,
        future: F,
        location: &'static Location<'static>,
        prepare: impl FnOnce(&Claim<F::Output>),
    ) -> Claim<F::Output>
    where
        F: Future + 'env,
        J: Judge<F::Output>,
    {
        self.spawn_in::<F, J>(&self.arena, gate, group, future, location, prepare)
    }

    /// [`spawn_prepared`](Self::spawn_prepared), for whoever has this scheduler's arena at hand: the compiler sees then that
    /// the gate is of that arena.
    // The insertion stands here once for each kind of task, not again behind a cold call for what is out of the ordinary: a
    // future that is passed on is one that is made somewhere else first and copied.
    #[inline]
    #[track_caller]
    pub(crate) fn spawn_in<'env, F, J>(
        &self,
        arena: &Arena,
        gate: Gate<'env>,
        group: Option<Rc<dyn Group>>,
        future: F,
        location: &'static Location<'static>,
        prepare: impl FnOnce(&Claim<F::Output>),
    ) -> Claim<F::Output>
    where
        F: Future + 'env,
        J: Judge<F::Output>,
    {
        if locals::is_set() {
            let mut prepare = Some(prepare);
            return self.spawn_inheriting::<_, J>(
                gate,
                group,
                Box::pin(future),
                location,
                &mut |claim| {
                    if let Some(prepare) = prepare.take() {
                        prepare(claim);
                    }
                },
            );
        }
        let Some(opened) = arena.open(gate, || self.prepare_aside()) else {
            return self.refuse(gate, future);
        };
        let claim = match group {
            None => opened.insert::<F, J>(future, location),
            Some(group) => opened.insert_member::<F, J>(group, future, location),
        };
        self.counters.spawned.add(1);
        self.counters.live.add(1);
        prepare(&claim);
        // As before: nothing of the above opens or closes.
        if !arena.is_open() {
            let unseen = if J::LOOKS {
                ""
            } else {
                std::any::type_name::<F::Output>()
            };
            self.spawned_aside(claim.task(), unseen);
        }
        claim
    }

    /// A spawn outside of the ordinary: between drives, or on an executor that is closing. `false`: it is refused.
    #[cold]
    #[inline(never)]
    fn prepare_aside(&self) -> bool {
        let takes = !self.takes_no_more();
        if takes {
            self.arena.take_remote_wakes_between_drives();
        }
        takes
    }

    fn set_phase(&self, phase: Phase) {
        self.phase.set(phase);
        self.arena
            .set_accepting(phase == Phase::Open && !self.watches_spawns());
    }

    /// Whether the executor has been dropped, and only handles keep its remains.
    #[cold]
    pub(super) fn is_gone(&self) -> bool {
        self.phase.get() == Phase::Closed && !self.arena.is_driven()
    }

    /// Whether not even a slot is let any more, to what would be cancelled at once.
    #[cold]
    pub(super) fn takes_no_more(&self) -> bool {
        self.is_gone() || self.is_ending() && self.is_afterlife_over()
    }

    /// Whether what comes is cancelled at once.
    pub(super) fn is_ending(&self) -> bool {
        matches!(self.phase.get(), Phase::Refusing | Phase::Closed)
    }

    /// Nothing will ever run this future: it is dropped here, and its handle reads as cancelled.
    #[cold]
    fn refuse<'env, F: Future + 'env>(&self, gate: Gate<'env>, future: F) -> Claim<F::Output> {
        self.drop_refused(gate, future);
        Claim::cancelled(None, self.why_refused())
    }

    /// Drops a future or a callback that came too late.
    #[cold]
    pub(super) fn drop_refused<'env, T: 'env>(&self, gate: Gate<'env>, refused: T) {
        if !self.is_gone() {
            #[expect(
                clippy::mem_forget,
                reason = "a chain of destructors without end can only be leaked, and this was reported (`bury_late`)"
            )]
            return std::mem::forget(refused);
        }
        self.drop_unpolled(gate, refused);
    }

    fn drop_unpolled<'env, T: 'env>(&self, gate: Gate<'env>, refused: T) {
        let refused = afterlife::refuse(gate, refused, &|panic| self.tell_destructor(panic, None));
        if matches!(refused, Refused::Leaked) {
            self.tell(ContextKind::Destructor, ENDLESS, None, None);
        }
    }

    /// Drops a future that its group does not take: its handle reads as cancelled.
    #[cold]
    pub(crate) fn turn_away<'env, F: Future + 'env>(
        &self,
        gate: Gate<'env>,
        future: F,
        why: &'static str,
    ) -> Claim<F::Output> {
        self.drop_unpolled(gate, future);
        Claim::cancelled(None, why)
    }

    fn why_refused(&self) -> &'static str {
        match self.phase.get() {
            Phase::Closed => GONE,
            Phase::Open | Phase::ShuttingDown | Phase::Refusing => SHUT_DOWN,
        }
    }

    /// What follows a spawn outside of the ordinary: between drives, or on an executor that is closing, or watched.
    #[cold]
    fn spawned_aside(&self, task: Option<TaskRef>, unseen: &str) {
        if let Some(task) = task {
            self.spawned_watched(task, unseen);
        }
        self.spawned_late(task);
    }

    /// What a spawn has to do where the executor is not open and driven.
    pub(super) fn spawned_late(&self, task: Option<TaskRef>) {
        match (self.phase.get(), task) {
            (Phase::Open, _) => self.prod(),
            (Phase::ShuttingDown, Some(task)) => {
                self.request_cancel(task);
            }
            (Phase::Refusing | Phase::Closed, Some(task)) => {
                self.bury_late(task, Some(self.why_refused()));
            }
            (_, None) => {}
        }
    }

    /// Something was done between drives: whoever drives is to look.
    pub(crate) fn prod(&self) {
        if !self.arena.is_driven() {
            self.arena.endpoint().notify();
        }
    }

    /// A snapshot of all tasks that have not ended, in spawn order.
    pub(crate) fn tasks(&self) -> Vec<TaskInfo> {
        self.arena
            .live()
            .into_iter()
            .filter_map(|task| self.arena.info(task))
            .collect()
    }

    pub(crate) fn new_callback_id(&self) -> CallbackId {
        let id = self.next_callback.get();
        self.next_callback.set(id + 1);
        CallbackId(id)
    }

    // --- stopping ---------------------------------------------------------------------------------------------------

    pub(crate) fn stop(&self) {
        self.stopping.set(true);
        self.arena.ask_attention();
        self.prod();
    }

    pub(crate) fn stop_with(&self, payload: Box<dyn Any + Send>) {
        let refused = {
            let mut fatal = self.fatal.borrow_mut();
            match &*fatal {
                None => {
                    *fatal = Some(payload);
                    None
                }
                Some(_) => Some(payload),
            }
        };
        self.stopping.set(true);
        self.arena.ask_attention();
        self.prod();
        if let Some(payload) = refused {
            self.tell(
                ContextKind::Other,
                "A second payload was given to stop_with",
                Some(Panic::from_payload(payload)),
                None,
            );
        }
    }

    #[inline]
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    /// Ends a stop: what there is to unwind with.
    pub(crate) fn take_stop(&self) -> Option<Box<dyn Any + Send>> {
        self.stopping.set(false);
        self.fatal.take()
    }

    /// Ends a stop that nobody will obey: the root's own panic, or the executor's end, came first. A payload is reported.
    pub(crate) fn drop_stop(&self) {
        if let Some(payload) = self.take_stop() {
            self.tell(
                ContextKind::Other,
                "A payload given to stop_with came too late to end anything",
                Some(Panic::from_payload(payload)),
                None,
            );
        }
    }

    pub(crate) fn has_fatal(&self) -> bool {
        self.stopping.get() && self.fatal.borrow().is_some()
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        // The last handle of a dropped executor may bring us here, from anywhere: what users gave is dropped contained.
        let late = std::mem::take(self.late.get_mut());
        let idlers = std::mem::take(self.idlers.get_mut()).into_wakers();
        let outside = std::mem::take(self.outside.get_mut()).into_wakers();
        let fatal = self.fatal.take();
        let note = self.note.take();
        let items = std::mem::take(self.items.get_mut());
        let alarms = self.drop_alarms();
        // One by one: two that panic in one drop would abort.
        // User code: Drop of the handler's and callbacks' captures, of foreign wakers, of a payload that nobody collected, of
        // task-local values.
        let dropped = [self.reporter.set_handler(None), catch_drop(fatal)]
            .into_iter()
            .chain(items.into_iter().map(catch_drop))
            .chain(alarms)
            .chain(note.map(Note::release))
            .chain(late.into_iter().flat_map(Calls::drop_each))
            .chain(idlers.chain(outside).map(catch_drop));
        for panic in dropped.filter_map(Result::err) {
            report::default_destructor(panic, None);
        }
    }
}

impl std::fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scheduler")
            .field("name", &self.name)
            .field("live", &self.counters.live.get())
            .finish_non_exhaustive()
    }
}
