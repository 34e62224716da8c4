//! mainstay: a single-threaded executor in which no task is ever lost and no failure is ever silent.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod key;
mod sync;
mod unwind;

mod exception;
mod park;
mod task;

mod completion;
mod remote;

#[expect(
    unsafe_code,
    reason = "task memory: cells, pages, the run queue; see the rules A1-A7"
)]
mod arena;

mod report;
#[expect(
    unsafe_code,
    reason = "raw wakers and the thread-local that finds the driven arena; see the rules W1-W3"
)]
mod waker;

mod scheduler;

mod driving;
mod error;

mod join;

mod context;
mod spawner;

mod executor;

mod builder;

pub use builder::Builder;
pub use completion::{CallbackId, Completion, Outcome};
pub use context::{
    ExceptionHandler, LocalHandle, TaskBuilder, current_task, spawn, spawn_fallible, yield_now,
};
pub use driving::install_panic_hook;
pub use error::{ExceptionError, InvalidState, JoinError, Stopped};
pub use exception::Exception;
pub use executor::{Executor, Progress};
pub use join::{CancelHandle, CancelOnDrop, JoinHandle};
pub use report::{
    ContextKind, ExceptionContext, ExceptionContextBuilder, set_default_exception_handler,
};
pub use scheduler::counters::Stats;
pub use scheduler::policy::ReportPolicy;
pub use spawner::{Closed, Spawner};
pub use task::{TaskId, TaskInfo, TaskState};
pub use unwind::PanicLocation;
