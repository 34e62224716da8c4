//! A group's members in their executor, and who waits for them.

use std::cell::{Cell, RefCell};
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

use crate::arena::TaskRef;
use crate::arena::owner::Gate;
use crate::completion::{Admission, Awaiter, Group};
use crate::context::{LocalHandle, TaskBuilder};
use crate::driving;
use crate::listeners::Listeners;
use crate::report;
use crate::request::CancelRequested;
use crate::scheduler::Scheduler;
use crate::task::TaskId;
use crate::unwind::{Panic, catch_drop};
use crate::waker;

use super::roster::Roster;

/// The members of a group, and who is woken on its behalf.
pub(super) struct Members {
    scheduler: Weak<Scheduler>,
    gate: Gate<'static>,
    roster: RefCell<Roster>,
    /// Who waits until a task would run at once.
    waiting_for_room: RefCell<Listeners>,
    /// There is somebody.
    room_is_wanted: Cell<bool>,
    /// Who polls the group's scope.
    awaiter: RefCell<Awaiter>,
    /// That waits for the members alone: it is woken by the last.
    waiting: Cell<bool>,
    /// The task that runs the scope.
    host: Cell<Option<TaskRef>>,
    /// That task was asked to end, and so are all members.
    requested: Cell<bool>,
    /// How many members ask whether they are to end, or have members that do.
    asking: Cell<usize>,
    /// For their sake the task that runs the scope counts as one that asks. Until the scope has been polled after the last
    /// of them: it may be about to end.
    host_asks: Cell<bool>,
}

impl Members {
    pub(super) fn new(ex: &LocalHandle<'_>) -> Self {
        Members {
            scheduler: Weak::clone(ex.weak()),
            gate: ex.gate().unbound(),
            roster: RefCell::default(),
            waiting_for_room: RefCell::default(),
            room_is_wanted: Cell::new(false),
            awaiter: RefCell::default(),
            waiting: Cell::new(false),
            host: Cell::new(None),
            requested: Cell::new(false),
            asking: Cell::new(0),
            host_asks: Cell::new(false),
        }
    }

    pub(super) fn scheduler(&self) -> Option<Rc<Scheduler>> {
        self.scheduler.upgrade()
    }

    pub(super) fn weak(&self) -> &Weak<Scheduler> {
        &self.scheduler
    }

    pub(super) fn gate(&self) -> Gate<'static> {
        self.gate
    }

    /// Starts a spawn into the group whose members these are.
    pub(super) fn builder(&self, group: Rc<dyn Group>) -> TaskBuilder<'static, 'static> {
        TaskBuilder::new(self.scheduler(), self.gate).in_group(group)
    }

    pub(super) fn len(&self) -> usize {
        self.roster.borrow().len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn admit(&self, id: TaskId, index: u32) -> Admission {
        Admission {
            requested: self.requested.get(),
            ..self.roster.borrow_mut().admit(TaskRef { id, index })
        }
    }

    /// The member that was spawned last.
    pub(super) fn newest(&self) -> Option<TaskId> {
        self.roster.borrow().newest()
    }

    /// Strikes a member off that has ended.
    pub(super) fn strike(&self, tag: usize) -> Option<TaskRef> {
        let member = self.roster.borrow_mut().strike(tag);
        if self.room_is_wanted.get() {
            self.offer_room();
        }
        member
    }

    /// Bounds how many run at once.
    #[track_caller]
    pub(super) fn set_limit(&self, tasks: usize) {
        let Some(limit) = NonZeroUsize::new(tasks) else {
            panic!("mainstay: a group with a limit of 0 tasks would never run any")
        };
        self.roster.borrow_mut().set_limit(limit);
        self.release();
        self.offer_room();
    }

    /// Waits until a task would run at once.
    pub(super) fn room(&self) -> Room<'_> {
        Room {
            members: self,
            id: None,
        }
    }

    /// Wakes those who wait for room, if there is any. Each looks for itself whether some is left.
    fn offer_room(&self) {
        if let (true, Some(scheduler)) = (self.roster.borrow().has_room(), self.scheduler()) {
            self.room_is_wanted.set(false);
            scheduler.wake_listeners(&self.waiting_for_room);
        }
    }

    /// Whether a task would run at once; if not, the waker of `cx` is woken when it would.
    fn poll_room(&self, id: &mut Option<u64>, cx: &mut Context<'_>) -> Poll<()> {
        let has_room = || self.roster.borrow().has_room();
        if !has_room() {
            if let Some(scheduler) = self.scheduler() {
                let id = *id.get_or_insert_with(|| scheduler.new_listener());
                // User code: clone of a foreign waker.
                scheduler.set_listener(&self.waiting_for_room, id, cx.waker());
                self.room_is_wanted.set(true);
            }
        }
        // Cloning a foreign waker may do anything.
        if has_room() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// Lets members run that were held back, as many as the limit allows.
    pub(super) fn release(&self) {
        loop {
            let next = self.roster.borrow_mut().next_to_run();
            let Some(task) = next else { break };
            if let Some(scheduler) = self.scheduler() {
                scheduler.arena().release_held(task);
            }
        }
    }

    /// Asks all members to end by themselves.
    pub(super) fn request(&self) {
        let members = self.roster.borrow().members();
        if let Some(scheduler) = self.scheduler() {
            for member in members {
                // User code: foreign wakers of those who listen; contained there.
                scheduler.request_cancel(member);
            }
        }
    }

    /// Sets the task that runs the scope; `None`: a root does.
    pub(super) fn be_hosted_by(&self, host: Option<TaskRef>) {
        self.host.set(host);
    }

    /// Counts one more member that asks whether it is to end, or (`false`) one less. Gives the task that runs the scope, if
    /// that begins to count as one that asks by this.
    pub(super) fn count_asking(&self, asks: bool) -> Option<(TaskId, u32)> {
        let host = self.host.get();
        if asks {
            self.asking.set(self.asking.get() + 1);
            if host.is_some() && !self.host_asks.replace(true) {
                self.note_in_shutdown(true);
                return host.map(|host| (host.id, host.index));
            }
            return None;
        }
        self.asking.set(self.asking.get().saturating_sub(1));
        if self.asking.get() == 0 && self.host_asks.get() {
            self.wake();
        }
        None
    }

    /// The scope was polled: if no member asks any more, neither does the task that runs it.
    pub(super) fn settle_asking(&self) {
        if self.asking.get() == 0 {
            self.stop_asking();
        }
    }

    /// The scope is over. No task answers for the members any more; some may be left, on the poll stack or let go.
    pub(super) fn leave_host(&self) {
        self.stop_asking();
        self.host.set(None);
    }

    fn stop_asking(&self) {
        if !self.host_asks.replace(false) {
            return;
        }
        self.note_in_shutdown(false);
        if let (Some(scheduler), Some(host)) = (self.scheduler(), self.host.get()) {
            scheduler.note_asking(host, false);
        }
    }

    fn note_in_shutdown(&self, asks: bool) {
        if let Some(scheduler) = self.scheduler() {
            scheduler.count_asking(asks);
        }
    }

    pub(super) fn is_anybody_asking(&self) -> bool {
        self.asking.get() > 0
    }

    /// Cancels all members. They are gone when this returns, but for those on the poll stack.
    pub(super) fn bury(&self, reason: &'static str) {
        let members = self.roster.borrow().members();
        let Some(scheduler) = self.scheduler() else {
            return;
        };
        if members.is_empty() {
            return;
        }
        if scheduler.arena().is_driven() {
            scheduler.bury_members(&members, reason);
        } else {
            // Destructors find the executor that they find at any other time.
            driving::enter(&scheduler, || scheduler.bury_members(&members, reason));
        }
    }

    /// Remembers who is to be woken.
    pub(super) fn set_awaiter(&self, waker: &Waker) {
        if self.awaiter.borrow().is_foreign(waker) {
            return;
        }
        // User code: clone of a foreign waker. A panic is that of whoever polls.
        let awaiter = waker::awaiter(waker);
        let old = self.awaiter.replace(awaiter);
        self.drop_awaiter(old);
    }

    /// Takes whoever is to be woken.
    pub(super) fn take_awaiter(&self) -> Awaiter {
        self.awaiter.take()
    }

    /// Notes whether the scope waits for the members alone.
    pub(super) fn wait_for_all(&self, waiting: bool) {
        self.waiting.set(waiting);
    }

    /// Takes whoever is to be woken when the last member has ended.
    pub(super) fn awaiter_if_empty(&self) -> Awaiter {
        if self.waiting.get() && self.is_empty() {
            self.take_awaiter()
        } else {
            Awaiter::Nobody
        }
    }

    /// Wakes whoever is to be woken.
    pub(super) fn wake(&self) {
        match (self.scheduler(), self.take_awaiter()) {
            (Some(scheduler), awaiter) => scheduler.wake(awaiter, None),
            (None, Awaiter::Key(key)) => waker::wake_key(key),
            (None, Awaiter::Foreign(waker)) => report::wake_or_default(waker),
            (None, Awaiter::Nobody | Awaiter::Elsewhere(_)) => {}
        }
    }

    /// Nobody is to be woken any more.
    pub(super) fn forget_awaiter(&self) {
        self.drop_awaiter(self.take_awaiter());
    }

    fn drop_awaiter(&self, awaiter: Awaiter) {
        // User code: Drop of a foreign waker.
        if let Err(panic) = catch_drop(awaiter) {
            self.tell_destructor(panic);
        }
    }

    /// Tells of a destructor that panicked and that no task can be made to fail for.
    pub(super) fn tell_destructor(&self, panic: Box<Panic>) {
        match self.scheduler() {
            Some(scheduler) => scheduler.tell_destructor(panic, None),
            None => report::default_destructor(panic, None),
        }
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        // Forgotten before, where a scope ends; in any case not dropped without a guard.
        self.forget_awaiter();
        if let Some(scheduler) = self.scheduler() {
            scheduler.drop_listeners(&self.waiting_for_room);
        }
    }
}

/// The request to end that the task of a scope may get, to be passed on to the members.
pub(super) struct Request(Option<CancelRequested>);

impl Request {
    pub(super) fn new(members: &Members) -> Self {
        // In a root there is nobody to be asked but the members themselves.
        Request(members.host.get().map(|_| CancelRequested::listening()))
    }

    pub(super) fn pass_on(&mut self, members: &Members, cx: &mut Context<'_>) {
        if let Some(request) = &mut self.0 {
            if Pin::new(request).poll(cx).is_ready() {
                self.0 = None;
                members.requested.set(true);
                members.request();
            }
        }
    }
}

/// Waits until a task of the group would run at once.
pub(super) struct Room<'a> {
    members: &'a Members,
    id: Option<u64>,
}

impl Future for Room<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        this.members.poll_room(&mut this.id, cx)
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        if let (Some(id), Some(scheduler)) = (self.id, self.members.scheduler()) {
            scheduler.remove_listener(&self.members.waiting_for_room, id);
        }
    }
}
