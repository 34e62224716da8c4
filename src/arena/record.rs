//! What can be said of a task from its header, and its side record.

use std::cell::RefCell;
use std::ptr;
use std::rc::Rc;

use crate::completion::{Awaiter, Extras};
use crate::task::{Name, TaskId, TaskInfo, TaskState, Traced};

use super::TaskRef;
use super::slots::{ENDED, EXTRAS, Header, QUEUED, SideRecord};

pub(super) fn reference(header: &Header) -> TaskRef {
    TaskRef {
        id: header.id(),
        index: header.index(),
    }
}

pub(super) fn name_of(header: &Header) -> Name {
    if header.has(EXTRAS) {
        if let Some(name) = &make_extras(header).borrow().name {
            return Name::Given(name.clone());
        }
    }
    Name::counted(header.id())
}

/// What is known of a task. `running`: its future is on the poll stack; `awaiting` is for those who know which other tasks
/// there are.
pub(super) fn info_of(header: &Header, running: bool, awaiting: Option<TaskId>) -> TaskInfo {
    let state = if running || header.has(ENDED) {
        TaskState::Running
    } else if header.has(QUEUED) {
        TaskState::Ready
    } else {
        TaskState::Waiting
    };
    let info = TaskInfo::new(header.id(), name_of(header), header.location.get(), state);
    if !header.has(EXTRAS) {
        return info;
    }
    match &make_extras(header).borrow().notes {
        Some(notes) => info.with_traced(Traced {
            polls: notes.polls,
            parent: notes.parent,
            awaiting,
        }),
        None => info,
    }
}

/// The task whose outcome this one asked for in its latest poll, as far as debug mode noted it.
pub(super) fn awaiting(header: &Header) -> Option<TaskRef> {
    if !header.has(EXTRAS) {
        return None;
    }
    let (id, index) = make_extras(header).borrow().notes.as_ref()?.awaiting?;
    Some(TaskRef { id, index })
}

/// Whether the task with this key may be who waits for the outcome: a foreign waker names nobody.
pub(super) fn is_awaited_by(header: &Header, key: usize) -> bool {
    if !header.has(EXTRAS) {
        return header.awaiter_key() == key;
    }
    match make_extras(header).borrow().awaiter {
        Awaiter::Nobody | Awaiter::Elsewhere(_) => false,
        Awaiter::Key(other) => other == key,
        Awaiter::Foreign(_) => true,
    }
}

/// The side record, made if there is none.
pub(super) fn make_extras(header: &Header) -> SideRecord {
    if !header.has(EXTRAS) {
        let key = header.awaiter_key();
        let record: SideRecord = Rc::new(RefCell::new(Extras::new(key)));
        header.extra.set(Rc::into_raw(record).cast_mut().cast());
        header.set(EXTRAS);
    }
    let record: *const RefCell<Extras> = header.extra.get().cast_const().cast();
    // SAFETY: with EXTRAS, `extra` came from `Rc::into_raw` and the slot owns one count.
    unsafe { Rc::increment_strong_count(record) };
    // SAFETY: the count taken above.
    unsafe { Rc::from_raw(record) }
}

/// Takes the side record out of the slot, if it has one.
pub(super) fn take_extras(header: &Header) -> Option<SideRecord> {
    if !header.has(EXTRAS) {
        return None;
    }
    header.clear(EXTRAS);
    let record: *const RefCell<Extras> = header.extra.replace(ptr::null_mut()).cast_const().cast();
    // SAFETY: with EXTRAS, `extra` came from `Rc::into_raw`; the slot's count passes to the caller.
    Some(unsafe { Rc::from_raw(record) })
}
