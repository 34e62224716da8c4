//! Groups: tasks that belong together.
//!
//! A group has a list of its [members](members) and is their [`Group`](crate::completion::Group): the scheduler tells it of
//! their ends. Members are `'static` and are owned by the arena like all tasks; a group only names them.

mod body;
mod crew;
pub(crate) mod exception_group;
mod members;
pub(crate) mod restart;
mod roster;
mod scope;
pub(crate) mod supervisor;
pub(crate) mod task_group;
