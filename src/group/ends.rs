//! The tasks of a combinator or a join set: a group that notes which of its members have ended, in that order.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Waker};

use crate::completion::{Admission, Awaiter, Custody, End, Group, KeptFailure};
use crate::context::{LocalHandle, TaskBuilder};
use crate::driving;
use crate::task::TaskId;

use super::members::{Members, Request};

const OVER: &str = "what it was spawned for has ended";

/// See the module documentation. The outcomes stay in the members' handles, which whoever owns the ends has.
pub(super) struct Ends {
    members: Members,
    over: Cell<bool>,
    /// The slot of the member that is being spawned.
    next: Cell<usize>,
    /// Slots by the members' tags.
    slots: RefCell<Vec<usize>>,
    /// Slots whose tasks have ended, oldest first.
    done: RefCell<VecDeque<usize>>,
    /// That whoever polls this may be asked to end. Made at the first poll.
    request: RefCell<Option<Request>>,
    is_polled: Cell<bool>,
}

impl Ends {
    pub(super) fn new(ex: &LocalHandle<'_>) -> Rc<Self> {
        Rc::new(Ends {
            members: Members::new(ex),
            over: Cell::new(false),
            next: Cell::new(0),
            slots: RefCell::default(),
            done: RefCell::default(),
            request: RefCell::default(),
            is_polled: Cell::new(false),
        })
    }

    /// Begins a poll: if whoever polls was asked to end, so are the members.
    pub(super) fn begin_poll(&self, cx: &mut Context<'_>) {
        if !self.is_polled.replace(true) {
            let host = driving::current().and_then(|scheduler| scheduler.arena().running());
            self.members.be_hosted_by(host);
            self.request.replace(Some(Request::new(&self.members)));
        }
        // Out of its cell while it is used, which may clone a foreign waker.
        if let Some(mut request) = self.request.take() {
            request.pass_on(&self.members, cx);
            self.request.replace(Some(request));
        }
        self.members.settle_asking();
    }

    /// Starts a spawn whose end is noted under `slot`. It is to be finished before the next is started.
    pub(super) fn builder(self: &Rc<Self>, slot: usize) -> TaskBuilder<'static, 'static> {
        self.next.set(slot);
        let group: Rc<dyn Group> = self.clone();
        self.members.builder(group)
    }

    pub(super) fn members(&self) -> &Members {
        &self.members
    }

    /// Bounds how many members run at once.
    #[track_caller]
    pub(super) fn set_limit(&self, tasks: usize) {
        self.members.set_limit(tasks);
    }

    /// Notes an end, and wakes who waits for one.
    pub(super) fn note(&self, slot: usize) {
        if !self.over.get() {
            self.done.borrow_mut().push_back(slot);
            self.members.wake();
        }
    }

    /// The slot of the member that ended first, of those that were not asked for yet.
    pub(super) fn next_done(&self) -> Option<usize> {
        self.done.borrow_mut().pop_front()
    }

    /// Remembers who is to be woken. `false`: a member has ended meanwhile, and is to be asked for first.
    ///
    /// User code: clone of a foreign waker, which may end members before it is there to be woken.
    pub(super) fn set_awaiter(&self, waker: &Waker) -> bool {
        self.members.set_awaiter(waker);
        self.done.borrow().is_empty()
    }

    /// Cancels every member that has not ended: all are gone when this returns, but for those on the poll stack.
    pub(super) fn cancel_members(&self, reason: &'static str) {
        self.members.bury(reason);
    }

    /// Ends it without its members, which go on as tasks like any others.
    pub(super) fn let_go(&self) {
        self.over.set(true);
        self.members.forget_awaiter();
        self.members.leave_host();
        self.members.set_limit(usize::MAX);
    }

    /// Ends it: what fails from here on is reported like any task's failure.
    pub(super) fn close(&self) {
        if self.over.replace(true) {
            return;
        }
        self.members.forget_awaiter();
        self.cancel_members(OVER);
        self.members.leave_host();
    }
}

impl Group for Ends {
    fn refusal(&self) -> Option<&'static str> {
        self.over.get().then_some(OVER)
    }

    fn admit(&self, id: TaskId, index: u32) -> Admission {
        let admission = self.members.admit(id, index);
        let mut slots = self.slots.borrow_mut();
        if slots.len() <= admission.tag {
            slots.resize(admission.tag + 1, 0);
        }
        slots[admission.tag] = self.next.get();
        admission
    }

    fn custody(&self) -> Custody {
        if self.over.get() {
            Custody::Policy
        } else {
            Custody::Note
        }
    }

    fn asks(&self, asks: bool) -> Option<(TaskId, u32)> {
        self.members.count_asking(asks)
    }

    fn concluded(&self, tag: usize, _: End, _: Option<KeptFailure>) -> Awaiter {
        let _ = self.members.strike(tag);
        if self.over.get() {
            return Awaiter::Nobody;
        }
        let slot = self.slots.borrow()[tag];
        self.done.borrow_mut().push_back(slot);
        self.members.release();
        self.members.take_awaiter()
    }
}
