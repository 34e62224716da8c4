//! Who belongs to a group, and who of them may run.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use crate::arena::TaskRef;
use crate::completion::Admission;
use crate::task::TaskId;

/// The members of a group that have not ended. A slab: as long as the most members that there were at once.
#[derive(Debug, Default)]
pub(super) struct Roster {
    places: Vec<Place>,
    /// The first vacant place.
    vacant: Option<usize>,
    len: usize,
    /// How many may run at once.
    limit: Option<NonZeroUsize>,
    /// Those that wait for others to end, in spawn order.
    held_back: BTreeMap<TaskId, usize>,
}

#[derive(Debug)]
enum Place {
    Member(TaskRef),
    /// With the next vacant place.
    Vacant(Option<usize>),
}

impl Roster {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Takes a member in.
    pub(super) fn admit(&mut self, task: TaskRef) -> Admission {
        let tag = match self.vacant {
            Some(tag) => {
                if let Place::Vacant(next) = self.places[tag] {
                    self.vacant = next;
                }
                self.places[tag] = Place::Member(task);
                tag
            }
            None => {
                self.places.push(Place::Member(task));
                self.places.len() - 1
            }
        };
        self.len += 1;
        let held_back = self
            .limit
            .is_some_and(|limit| self.len - self.held_back.len() > limit.get());
        if held_back {
            self.held_back.insert(task.id, tag);
        }
        Admission {
            tag,
            held_back,
            requested: false,
        }
    }

    /// Strikes a member off.
    pub(super) fn strike(&mut self, tag: usize) -> Option<TaskRef> {
        let place = std::mem::replace(&mut self.places[tag], Place::Vacant(self.vacant));
        self.vacant = Some(tag);
        self.len -= 1;
        let Place::Member(task) = place else {
            return None;
        };
        // Most have not been held back when they end, and most groups hold nobody back.
        if !self.held_back.is_empty() {
            self.held_back.remove(&task.id);
        }
        Some(task)
    }

    /// Sets how many may run at once; those that run already are left alone.
    pub(super) fn set_limit(&mut self, limit: NonZeroUsize) {
        self.limit = Some(limit);
    }

    /// Whether one more would run at once.
    pub(super) fn has_room(&self) -> bool {
        let limit = self.limit.map_or(usize::MAX, NonZeroUsize::get);
        self.held_back.is_empty() && self.len < limit
    }

    /// The next that may run now, oldest first.
    pub(super) fn next_to_run(&mut self) -> Option<TaskRef> {
        if self.held_back.is_empty() {
            return None;
        }
        let running = self.len - self.held_back.len();
        if self.limit.is_some_and(|limit| running >= limit.get()) {
            return None;
        }
        let (_, tag) = self.held_back.pop_first()?;
        match self.places[tag] {
            Place::Member(task) => Some(task),
            Place::Vacant(_) => None,
        }
    }

    /// The member that was spawned last.
    pub(super) fn newest(&self) -> Option<TaskId> {
        let ids = self.places.iter().filter_map(|place| match place {
            Place::Member(task) => Some(task.id),
            Place::Vacant(_) => None,
        });
        ids.max()
    }

    /// All members, in spawn order.
    pub(super) fn members(&self) -> Vec<TaskRef> {
        let mut members: Vec<TaskRef> = self
            .places
            .iter()
            .filter_map(|place| match place {
                Place::Member(task) => Some(*task),
                Place::Vacant(_) => None,
            })
            .collect();
        members.sort_unstable_by_key(|task| task.id);
        members
    }
}

#[cfg(test)]
mod tests {
    use super::{Roster, TaskId, TaskRef};
    use std::num::NonZeroUsize;

    fn task(id: u64) -> TaskRef {
        TaskRef {
            id: TaskId::new(id),
            index: 0,
        }
    }

    fn limited(limit: usize) -> Roster {
        let mut roster = Roster::default();
        roster.set_limit(NonZeroUsize::new(limit).unwrap());
        roster
    }

    #[test]
    fn places_are_used_again() {
        let mut roster = Roster::default();
        for round in 0..100 {
            let a = roster.admit(task(2 * round)).tag;
            let b = roster.admit(task(2 * round + 1)).tag;
            roster.strike(a);
            roster.strike(b);
        }
        assert_eq!(roster.len(), 0);
        assert_eq!(roster.places.len(), 2, "the peak");
    }

    #[test]
    fn members_come_in_spawn_order() {
        let mut roster = Roster::default();
        let first = roster.admit(task(1)).tag;
        roster.admit(task(2));
        roster.strike(first);
        roster.admit(task(3));
        assert_eq!(roster.members(), [task(2), task(3)]);
    }

    #[test]
    fn those_beyond_the_limit_run_in_spawn_order() {
        let mut roster = limited(2);
        let tags: Vec<_> = (0..5).map(|id| roster.admit(task(id))).collect();
        let held: Vec<_> = tags.iter().map(|admission| admission.held_back).collect();
        assert_eq!(held, [false, false, true, true, true]);
        assert_eq!(roster.next_to_run(), None, "two run");
        roster.strike(tags[0].tag);
        assert_eq!(roster.next_to_run(), Some(task(2)));
        assert_eq!(roster.next_to_run(), None);
        roster.strike(tags[3].tag); // held back, and cancelled
        assert_eq!(roster.next_to_run(), None);
        roster.strike(tags[1].tag);
        assert_eq!(roster.next_to_run(), Some(task(4)));
        assert!(roster.held_back.is_empty());
    }

    #[test]
    fn a_raised_limit_lets_more_run() {
        let mut roster = limited(1);
        for id in 0..3 {
            roster.admit(task(id));
        }
        roster.set_limit(NonZeroUsize::MAX);
        assert_eq!(roster.next_to_run(), Some(task(1)));
        assert_eq!(roster.next_to_run(), Some(task(2)));
        assert_eq!(roster.next_to_run(), None);
    }
}
