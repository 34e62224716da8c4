//! Groups: tasks that belong together.
//!
//! A group has a list of its [members] and is their [`Group`](crate::completion::Group): the scheduler tells it of
//! their ends. Members are `'static` and are owned by the arena like all tasks; a group only names them.

pub(crate) mod as_completed;
pub(crate) mod batch;
mod body;
mod crew;
mod ends;
pub(crate) mod exception_group;
pub(crate) mod gather;
pub(crate) mod join_set;
mod members;
pub(crate) mod race;
pub(crate) mod restart;
mod roster;
mod scope;
pub(crate) mod supervisor;
pub(crate) mod task_group;
mod values;
