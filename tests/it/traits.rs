//! Which thread may hold what, and that everything can be shown.

use std::cell::Cell;
use std::error::Error;
use std::fmt::{Debug, Display};
use std::future::Ready;
use std::time::Duration;

use mainstay::{
    AccessError, AsCompleted, Builder, CallHandle, CallbackId, CancelHandle, CancelOnDrop, Closed,
    Completion, ContextKind, Elapsed, Exception, ExceptionContext, ExceptionError, ExceptionGroup,
    Executor, GaveUp, GroupSummary, Handles, Interval, InvalidState, JoinError, JoinHandle,
    JoinSet, LocalHandle, LocalKey, Outcome, PanicLocation, Progress, Raced, RemoteHandle,
    ReportPolicy, RestartPolicy, ShutdownReport, Sleep, Spawner, Stats, Stopped, Supervisor,
    TaskBuilder, TaskError, TaskGroup, TaskId, TaskInfo, TaskLocalFuture, TaskState,
};

fn send_and_sync<T: Send + Sync + 'static>() {}
fn shown<T: Debug>() {}
fn an_error<T: Error + Send + Sync + 'static>() {}

// P4: what may cross threads can; the executor, its handles and its futures' outputs cannot (doc tests show that).
#[test]
fn what_may_cross_threads_is_send_and_sync() {
    send_and_sync::<Spawner>();
    send_and_sync::<CancelHandle>();
    send_and_sync::<RemoteHandle<u8>>();
    // Where the output is `Send`, whatever it is besides.
    send_and_sync::<RemoteHandle<Cell<u8>>>();
    send_and_sync::<JoinError>();
    send_and_sync::<Stopped>();
    send_and_sync::<TaskId>();
    send_and_sync::<TaskInfo>();
    send_and_sync::<TaskState>();
    send_and_sync::<Stats>();
    send_and_sync::<Progress>();
    send_and_sync::<ShutdownReport>();
    send_and_sync::<PanicLocation>();
    send_and_sync::<Closed<u8>>();
    send_and_sync::<Elapsed>();
    send_and_sync::<CallbackId>();
    send_and_sync::<GroupSummary>();
    send_and_sync::<RestartPolicy>();
    send_and_sync::<GaveUp>();
    send_and_sync::<AccessError>();
    // A key is a static: it is both, whatever its values are.
    send_and_sync::<LocalKey<std::rc::Rc<u8>>>();
}

#[test]
fn every_error_is_an_error() {
    an_error::<JoinError>();
    an_error::<TaskError<String>>();
    an_error::<Stopped>();
    an_error::<InvalidState>();
    an_error::<ExceptionError>();
    an_error::<Elapsed>();
    an_error::<Closed<u8>>();
    an_error::<GroupSummary>();
    an_error::<GaveUp>();
    // Its errors may be ones that stay on their thread.
    fn an_error_at_home<T: Error + 'static>() {}
    an_error_at_home::<ExceptionGroup>();
    an_error::<AccessError>();
}

#[test]
fn everything_public_can_be_shown() {
    shown::<Executor<'_>>();
    shown::<Builder<'_>>();
    shown::<LocalHandle<'_>>();
    shown::<TaskBuilder<'_, '_>>();
    shown::<JoinHandle<Executor<'_>>>();
    shown::<CancelOnDrop<Executor<'_>>>();
    shown::<CallHandle>();
    shown::<Completion<'_>>();
    shown::<Outcome<'_>>();
    shown::<Exception<'_>>();
    shown::<ExceptionContext<'_>>();
    shown::<ContextKind>();
    shown::<ReportPolicy>();
    shown::<RemoteHandle<Cell<u8>>>();
    shown::<ShutdownReport>();
    shown::<Sleep>();
    shown::<Interval>();
    shown::<TaskGroup>();
    shown::<Supervisor>();
    shown::<ExceptionGroup>();
    shown::<JoinSet<Cell<u8>>>();
    shown::<AsCompleted<Vec<Ready<Cell<u8>>>>>();
    shown::<Handles<std::vec::IntoIter<JoinHandle<Cell<u8>>>>>();
    shown::<TaskError<String>>();
    shown::<Raced<Cell<u8>>>();
    shown::<LocalKey<Executor<'static>>>();
    shown::<TaskLocalFuture<Executor<'static>, std::future::Pending<Executor<'static>>>>();
}

// `Debug` of everything at hand, inside and outside of a drive: it neither panics nor blocks, and errors say what to do.
#[test]
fn showing_is_harmless_at_any_time() {
    let ex = Executor::default();
    let handle = ex.task().name("shown").spawn(std::future::pending::<()>());
    let call = ex.call_later(Duration::MAX, || {});
    let show = || {
        format!(
            "{ex:?} {handle:?} {call:?} {:?} {:?} {:?}",
            ex.handle(),
            ex.spawner(),
            ex.stats()
        )
    };
    assert!(show().contains("shown"));
    ex.block_on(async { assert!(show().contains("shown")) });
    mainstay::task_local! { static UNSET: u8; }
    let unset = UNSET.try_with(|_| ()).unwrap_err();
    let texts: [&dyn Display; 5] = [
        &unset,
        &InvalidState::Pending,
        &InvalidState::Taken,
        &ExceptionError::Cancelled,
        &Elapsed,
    ];
    for text in texts {
        let text = text.to_string();
        assert!(!text.is_empty() && !text.ends_with('.') && text.starts_with(char::is_lowercase));
    }
    handle.cancel();
}

// What `Debug` says is for whoever debugs: the name of the thing, and what there is to know of it.
#[test]
fn what_is_shown_says_what_there_is_to_know() {
    #[track_caller]
    fn says(shown: &dyn Debug, all: &[&str]) {
        let text = format!("{shown:?}");
        for part in all {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
    crate::support::quiet();
    let ex = Executor::builder().virtual_clock().build();
    let (local, spawner) = (ex.handle(), ex.spawner());
    says(&local, &["LocalHandle", "alive: true"]);
    says(&spawner, &["Spawner", "closed: false"]);
    let call = ex.call_later(Duration::from_secs(1), || ());
    says(&call, &["CallHandle", "when: Some"]);
    let builder = ex.task().name("named").background();
    says(&builder, &["TaskBuilder", "\"named\"", "background: true"]);
    let task = builder.spawn(std::future::pending::<()>());
    says(&task.id(), &[&format!("TaskId({})", task.id())]);
    task.cancel_with_reason("because");
    let error = ex.block_on(task).unwrap_err();
    says(&error, &["JoinError", "id", "named", "because"]);
    let text = error.to_string();
    let error = TaskError::<&str>::Join(error);
    says(&error, &["because"]);
    assert_eq!(error.to_string(), text);
    assert_eq!(TaskError::Failed("at last").to_string(), "at last");

    ex.block_on(async {
        let soon = || std::future::ready(1);
        says(&mainstay::sleep(Duration::ZERO), &["Sleep", "elapsed"]);
        says(&mainstay::handles([mainstay::spawn(soon())]), &["Handles"]);

        let mut set = JoinSet::new();
        set.spawn(soon());
        set.spawn(soon());
        set.join_next().await;
        says(&set, &["JoinSet", "len: 1"]);
        let mut batch = Box::pin(mainstay::as_completed([soon(), soon(), soon()]));
        futures_util::StreamExt::next(&mut batch).await;
        says(&batch, &["AsCompleted", "started: 3", "running: 2"]);

        let failed = TaskGroup::scope(async |group| {
            group.spawn(async { panic!("boom") }).detach();
            says(group, &["TaskGroup", "len: 1", "Open"]);
        });
        let failures = failed.await.unwrap_err();
        says(&failures, &["ExceptionGroup", "cancelled: false", "boom"]);
    });
    drop(call);
    drop(ex);
    says(&local, &["alive: false"]);
    says(&spawner, &["closed: true"]);
    says(&spawner.call_soon(|_| ()).unwrap_err(), &["Closed"]);
}
