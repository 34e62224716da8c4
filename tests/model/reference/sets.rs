//! The reference's join sets: outcomes that are taken one by one, in the order of the ends.

use std::collections::VecDeque;

use crate::language::World;

use super::groups::Phase;
use super::{End, Model, Place};

/// What a join set has besides its members.
#[derive(Default)]
pub(super) struct Set {
    /// Tasks whose outcomes have not been taken, in places that are used again, the one that was vacated last first.
    places: Vec<Option<usize>>,
    vacant: Vec<usize>,
    /// Those that have ended.
    done: VecDeque<usize>,
    /// Who polled it first, if that task has yet to be asked to end.
    listens_to: Option<usize>,
    polled: bool,
}

impl Set {
    pub(super) fn len(&self) -> usize {
        self.places.iter().flatten().count()
    }
}

impl Model<'_> {
    fn set(&mut self, group: usize) -> &mut Set {
        let set = self.groups[group].set.as_mut();
        set.expect("it is a set")
    }

    pub(super) fn put_in_set(&mut self, group: usize, task: usize) {
        let refused = self.tasks[task].refused;
        let set = self.set(group);
        match set.vacant.pop() {
            Some(place) => set.places[place] = Some(task),
            None => set.places.push(Some(task)),
        }
        if refused {
            self.set(group).done.push_back(task);
            self.wake_scope(group);
        }
    }

    /// A member has ended. Gives whom to wake.
    pub(super) fn left_set(&mut self, group: usize, task: usize) -> Option<usize> {
        if self.groups[group].phase == Phase::Over {
            return None;
        }
        self.set(group).done.push_back(task);
        self.release(group);
        self.scope(group).awaiter.take()
    }

    /// Takes the outcome of the task that ended first.
    pub(super) fn try_next(&mut self, group: usize) -> Option<(usize, &'static str)> {
        let task = self.set(group).done.pop_front()?;
        if self.tasks[task].pinned {
            // It is being told of, by code up the stack.
            self.set(group).done.push_back(task);
            self.wake_scope(group);
            return None;
        }
        let set = self.set(group);
        let place = set.places.iter().position(|other| *other == Some(task));
        let place = place.expect("its outcome was not taken");
        set.places[place] = None;
        set.vacant.push(place);
        self.tasks[task].refused = false;
        let end = self.tasks[task].end.unwrap_or(End::Cancelled);
        let told = self.word(task, end);
        self.take(task);
        self.tasks[task].place = Place::Gone;
        Some((task, told))
    }

    /// `true`: the task has the next outcome, or there is none, and the set is at hand again.
    pub(super) fn poll_next(&mut self, task: usize, group: usize) -> bool {
        if !std::mem::replace(&mut self.set(group).polled, true) {
            self.scope(group).host = Some(task);
            self.set(group).listens_to = Some(task);
        }
        if let Some(host) = self.set(group).listens_to {
            self.pass_on(group, host, task);
        }
        self.settle_asking(group);
        let mut next = self.try_next(group);
        if next.is_none() && self.set(group).len() > 0 {
            self.scope(group).awaiter = Some(task);
            next = self.try_next(group);
            if next.is_none() {
                return false;
            }
        }
        self.say(format!("{task} next of {group}: {next:?}"));
        self.groups[group].at_hand = true;
        true
    }

    /// If the task that polled first was asked to end, so are all members; else whoever polls now is told.
    fn pass_on(&mut self, group: usize, host: usize, poller: usize) {
        if self.tasks[host].end.is_some() {
            return;
        }
        if self.tasks[host].requested {
            self.set(group).listens_to = None;
            self.tasks[host].listeners.retain(|(set, _)| *set != group);
            self.scope(group).requested = true;
            for member in self.groups[group].members.clone() {
                self.request(member);
            }
        } else if host == poller {
            self.tasks[host].listens = true;
        } else if !self.tasks[host].listeners.contains(&(group, poller)) {
            let listeners = &mut self.tasks[host].listeners;
            listeners.retain(|(set, _)| *set != group);
            listeners.push((group, poller));
        }
    }

    pub(super) fn drop_set(&mut self, group: usize) {
        if self.groups[group].phase != Phase::Over {
            self.groups[group].phase = Phase::Over;
            self.scope(group).awaiter = None;
            self.bury_members(group);
            self.leave_host(group);
        }
        self.drop_handles(group);
    }

    /// The members go on without the set.
    pub(super) fn let_members_go(&mut self, group: usize) {
        self.groups[group].phase = Phase::Over;
        self.scope(group).awaiter = None;
        self.leave_host(group);
        self.set_limit(group, super::ALL);
        self.drop_handles(group);
    }

    fn drop_handles(&mut self, group: usize) {
        if let Some(host) = self.set(group).listens_to.take() {
            self.tasks[host].listeners.retain(|(set, _)| *set != group);
        }
        for task in std::mem::take(&mut self.set(group).places)
            .into_iter()
            .flatten()
        {
            self.give_up(task);
        }
    }
}
