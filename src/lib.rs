//! A single-threaded executor in which **no task is ever lost and no failure is ever silent**.
//!
//! Every task lives in an arena that the executor owns, so none can vanish, whoever drops its handle. Every poll runs
//! under `catch_unwind`. Every failure, a panic or an `Err`, reaches a configurable exception handler, modelled on
//! asyncio's `loop.set_exception_handler`, or whoever awaits the task.
//!
//! ```
//! use mainstay::Executor;
//!
//! # std::panic::set_hook(Box::new(|_| {}));
//! let ex = Executor::new();
//! ex.set_exception_handler(|_, report| {
//!     // A panic or an `Err`, of any task, told when it happens.
//!     println!("{report}");
//! });
//!
//! let answer = ex.block_on(async {
//!     mainstay::spawn(async { panic!("nobody holds my handle") }).detach();
//!     mainstay::spawn_fallible(async { Err::<(), _>("nor mine") }).detach();
//!     mainstay::spawn(async { 6 * 7 }).await.unwrap()
//! });
//!
//! assert_eq!(answer, 42);
//! assert_eq!(ex.stats().reported, 2); // and the loop went on
//! ```
//!
//! # What it promises
//!
//! - **P1 Retention.** From spawn to end a task is owned by the arena, whatever happens to handles and wakers.
//! - **P2 Accounting.** Every task ends once, as returned, failed or cancelled; every failure is retrieved or reported, and
//!   none is reported twice. [`Executor::stats`] proves it.
//! - **P3 Containment.** No panic in user code other than the root's leaves the loop, and siblings are untouched.
//! - **P4 Home thread.** A future, its output, its panic and its callbacks are touched on the executor's thread only.
//! - **P5 Stale is harmless.** A waker may be kept for ever and called at any time, on any thread, also when the executor
//!   is gone. A stale handle never touches a later task.
//! - **P6 No borrow across user code.** A poll, destructor, waker, callback or handler may call anything here.
//! - **P7 Bounded.** Memory is bounded by the peak number of live tasks and unread outcomes.
//! - **P8 Fairness.** What wakes or queues itself for ever starves nobody; other threads' wakes are noticed within 64
//!   polls.
//! - **P9 Order.** First in, first out; what is woken in one pass runs in the next.
//!
//! # The limit of containment
//!
//! Where a second panic starts inside drop glue that is already unwinding, Rust aborts the process before any executor can
//! act: two panicking destructors in one future; an async body that panics while a local with a panicking destructor is
//! live. It also aborts under `panic = "abort"` and at a stack overflow. These are all.
//!
//! # Failures
//!
//! A task spawned with [`spawn`] or [`Executor::spawn`] fails by panicking; one spawned with [`spawn_fallible`] also by
//! returning an `Err`. Its report goes to the handler set with [`Executor::set_exception_handler`], else to the process-wide
//! one of [`set_default_exception_handler`], else to one [`log`] record, target `mainstay`. [`ReportPolicy`] says when. A
//! contained panic still runs the process's panic hook, as everywhere in Rust, which prints to stderr; see
//! [`install_panic_hook`] for how to quiet that and keep the location.
//!
//! # Driving
//!
//! [`Executor::block_on`], [`Executor::run_forever`] park the thread when there is nothing to do;
//! [`Executor::run_until_stalled`] and [`Executor::tick`] never block, for host loops that are told by
//! [`Executor::on_wake`] when to call; [`Executor::run_until`] runs inside another runtime, in turns. All of them make *passes*: a pass polls once each task that was ready when it began.

//!
//! # Ending
//!
//! [`run`] is an executor, a root, and a shutdown of what the root leaves. [`Executor::shutdown`] asks every task to end, which
//! one that has something to finish first hears by [`cancel_requested`], gives them time, and drops the rest.

//!
//! # Groups
//!
//! Tasks that belong together, and are gone when what holds them is: [`TaskGroup`], in which the first failure ends all, and
//! [`Supervisor`], in which each fails for itself; [`JoinSet`] for outcomes as they come; [`gather`], [`as_completed`],
//! [`race`] and their kin for a batch.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod home;
mod key;
mod sync;
mod unwind;
mod wide;

mod exception;
mod exception_context;
mod listeners;
mod locals;
mod park;
mod task;
mod timer;

mod completion;
mod remote;

#[expect(
    unsafe_code,
    reason = "task memory: cells, pages, the run queue; see the rules A1-A7"
)]
mod arena;

mod report;
#[expect(unsafe_code, reason = "raw wakers; see the rules W1 and W2")]
mod waker;

mod scheduler;

mod driving;
mod error;
#[cfg(feature = "tracing")]
mod task_spans;

mod cancel_handle;
mod join;
mod remote_handle;
mod request;
mod rooted;
mod task_local;

mod call;
mod context;
mod group;
mod spawner;
mod time;

mod executor;

#[cfg(feature = "futures")]
#[cfg_attr(docsrs, doc(cfg(feature = "futures")))]
mod futures_spawn;

mod builder;
mod guest;
mod shutdown;

pub use builder::Builder;
pub use call::CallHandle;
pub use cancel_handle::CancelHandle;
pub use completion::{CallbackId, Completion, Outcome};
pub use context::{
    ExceptionHandler, LocalHandle, TaskBuilder, current_task, spawn, spawn_fallible, yield_now,
};
pub use driving::install_panic_hook;
pub use error::{ExceptionError, InvalidState, JoinError, Stopped, TaskError};
pub use exception::Exception;
pub use exception_context::{ContextKind, ExceptionContext, ExceptionContextBuilder};
pub use executor::{Executor, Progress};
pub use group::as_completed::{AsCompleted, as_completed, as_completed_with_limit};
pub use group::batch::{Batch, Handles, handles};
pub use group::exception_group::{ExceptionGroup, GroupSummary};
pub use group::gather::{
    gather, gather_settled, gather_settled_with_limit, gather_with_limit, try_gather,
    try_gather_with_limit,
};
pub use group::join_set::JoinSet;
pub use group::race::{Raced, race, race_ok, race_ok_with_limit, race_with_limit};
pub use group::restart::{GaveUp, RestartPolicy};
pub use group::supervisor::Supervisor;
pub use group::task_group::TaskGroup;
pub use join::{CancelOnDrop, JoinHandle};
pub use remote_handle::RemoteHandle;
pub use report::set_default_exception_handler;
pub use request::cancel_requested;
pub use scheduler::counters::Stats;
pub use scheduler::policy::ReportPolicy;
pub use scheduler::shutting::ShutdownReport;
pub use shutdown::run;
pub use spawner::{Closed, Spawner};
pub use task::{TaskId, TaskInfo, TaskState};
pub use task_local::{AccessError, LocalKey, TaskLocalFuture};
pub use time::{Elapsed, Interval, Sleep, interval, sleep, sleep_until, timeout, timeout_at};
pub use unwind::PanicLocation;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(doc)]
#[doc = include_str!("../docs/recipes.md")]
pub mod recipes {}

#[cfg(doc)]
#[doc = include_str!("../docs/migrating.md")]
pub mod migrating {}
