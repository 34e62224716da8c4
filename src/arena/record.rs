//! What can be said of a task from its header, and its side record.

use std::cell::RefCell;
use std::ptr;
use std::rc::Rc;

use crate::completion::Extras;
use crate::task::{Name, TaskInfo, TaskState};

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

/// `running`: its future is on the poll stack.
pub(super) fn info_of(header: &Header, running: bool) -> TaskInfo {
    let state = if running || header.has(ENDED) {
        TaskState::Running
    } else if header.has(QUEUED) {
        TaskState::Ready
    } else {
        TaskState::Waiting
    };
    TaskInfo::new(header.id(), name_of(header), header.location.get(), state)
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
