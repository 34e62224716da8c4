//! `TaskGroup`: asyncio's rules (B081-B097), and that no task outlives its group.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending};
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use mainstay::{
    ContextKind, ExceptionError, ExceptionGroup, Executor, JoinError, JoinHandle, JoinSet,
    LocalHandle, Outcome, ReportPolicy, Supervisor, TaskGroup, sleep, spawn, task_local,
};

use crate::support::{
    Boom, Counts, DropLog, Event, Fault, Guard, LogCapture, Recorder, Trace, check_stats,
    counting_waker, counts, holding, on_drop, panic_message, poll_once, poll_with, quiet, yield_n,
};

type Boxed = Pin<Box<dyn Future<Output = ()>>>;

const SECOND: Duration = Duration::from_secs(1);

fn executor() -> (Executor<'static>, Recorder) {
    quiet();
    let ex = Executor::builder().virtual_clock().build();
    let recorder = Recorder::on(&ex);
    (ex, recorder)
}

/// The messages of a group, in order, with the names of the tasks; the body is called `body`.
fn listed(group: &ExceptionGroup) -> Vec<String> {
    group
        .iter()
        .map(|(task, exception)| {
            format!(
                "{}: {}",
                task.map_or("body", |task| task.name()),
                exception.message()
            )
        })
        .collect()
}

/// Asserts that nothing is live and that every failure has been handed on, and gives the counts.
#[track_caller]
fn all_handed_on(ex: &Executor<'_>) -> Counts {
    let counts = counts(ex);
    assert_eq!((counts.live, counts.unread), (0, 0), "{counts:?}");
    assert_eq!(
        (counts.reported, counts.reports),
        (0, 0),
        "told nobody else"
    );
    counts
}

fn reason_of<T: std::fmt::Debug>(result: Result<T, JoinError>) -> String {
    let error = result.expect_err("cancelled");
    assert!(error.is_cancelled());
    error.reason().unwrap_or_default().to_owned()
}

// ---------------------------------------------------------------------------------------------------------------------
// The rules of asyncio
// ---------------------------------------------------------------------------------------------------------------------

/// B081: the exit waits for all children, and their results can be read.
#[test]
fn the_scope_waits_for_its_tasks() {
    let (ex, _) = executor();
    let start = ex.now();
    let (first, second) = ex
        .block_on(TaskGroup::scope(async |g| {
            let first = g.spawn(async {
                sleep(SECOND).await;
                1
            });
            let second = g.spawn(async {
                sleep(3 * SECOND).await;
                2
            });
            (first, second)
        }))
        .unwrap();
    assert_eq!(ex.now() - start, 3 * SECOND);
    assert!(first.is_finished() && second.is_finished());
    assert_eq!(
        ex.block_on(first).unwrap() + ex.block_on(second).unwrap(),
        3
    );
    let end = all_handed_on(&ex);
    assert_eq!((end.spawned, end.returned), (2, 2));
}

/// B082: a child's failure cancels its siblings and the body, and one group error comes out.
#[test]
fn a_failure_cancels_siblings_and_body() {
    let (ex, _) = executor();
    let log = DropLog::new();
    let (body, sibling) = (log.guard("body"), log.guard("sibling"));
    let sibling_handle = RefCell::new(None);
    let failed = ex
        .block_on(TaskGroup::scope(async |g| {
            let _body = body;
            let handle = g.spawn(async move {
                let _sibling = sibling;
                pending::<()>().await;
            });
            sibling_handle.replace(Some(handle));
            g.task()
                .name("bad")
                .spawn(async { panic_any("boom") })
                .detach();
            pending::<()>().await;
        }))
        .unwrap_err();
    assert_eq!(listed(&failed), ["bad: boom"]);
    assert_eq!((failed.len(), failed.is_cancelled()), (1, false));
    log.assert(&["sibling", "body"]);
    let sibling = ex.block_on(sibling_handle.take().unwrap());
    assert_eq!(
        reason_of(sibling),
        "the group is closed: a task of it failed, or its body"
    );
    let end = all_handed_on(&ex);
    assert_eq!((end.failed, end.retrieved, end.cancelled), (1, 1, 1));
}

/// B082, api.md: an `Err` of a fallible task counts like a panic, and keeps its type.
#[test]
fn an_err_of_a_fallible_task_ends_the_group() {
    let (ex, _) = executor();
    let failed = ex
        .block_on(TaskGroup::scope(async |g| {
            g.spawn_fallible(async { Err::<(), _>(Fault("no host")) })
                .detach();
            g.spawn(async { Err::<(), _>(Fault("only a value")) })
                .detach();
        }))
        .unwrap_err();
    let (_, exception) = failed.iter().next().unwrap();
    assert_eq!(exception.downcast_ref::<Fault>(), Some(&Fault("no host")));
    assert_eq!(failed.len(), 1);
    let end = all_handed_on(&ex);
    assert_eq!((end.failed, end.returned), (1, 1));
}

/// api.md: children that fail in the same pass are all listed, in completion order; one that was not polled before the
/// scope's next poll is cancelled.
#[test]
fn all_that_fail_in_one_pass_are_listed() {
    let (ex, _) = executor();
    let failed = ex
        .block_on(TaskGroup::scope(async |g| {
            for n in 0..3 {
                g.task()
                    .name(format!("t{n}"))
                    .spawn_fallible(async move {
                        sleep(SECOND).await;
                        Err::<(), _>(n)
                    })
                    .detach();
            }
            g.spawn(async {
                sleep(2 * SECOND).await;
                panic_any("boom too late")
            })
            .detach();
        }))
        .unwrap_err();
    assert_eq!(listed(&failed), ["t0: 0", "t1: 1", "t2: 2"]);
    let end = all_handed_on(&ex);
    assert_eq!((end.failed, end.retrieved, end.cancelled), (3, 3, 1));
}

/// B083: a child that is cancelled by its own handle is no error, and the others go on.
#[test]
fn a_task_cancelled_by_itself_is_no_error() {
    let (ex, _) = executor();
    let value = ex
        .block_on(TaskGroup::scope(async |g| {
            let one = g.spawn(pending::<()>());
            let other = g.spawn(async {
                sleep(SECOND).await;
                7
            });
            sleep(SECOND / 2).await;
            assert!(one.cancel());
            assert_eq!(g.len(), 1, "it is gone at once");
            other.await.unwrap()
        }))
        .unwrap();
    assert_eq!(value, 7);
    let end = all_handed_on(&ex);
    assert_eq!((end.returned, end.cancelled), (1, 1));
}

/// B084: when the parent is cancelled, the children are gone before that returns, and it ends cancelled.
#[test]
fn cancelling_the_parent_cancels_the_children() {
    let (ex, recorder) = executor();
    let log = DropLog::new();
    let (a, b) = (log.guard("a"), log.guard("b"));
    let parent = ex.spawn(async move {
        TaskGroup::scope(async move |g| {
            g.spawn(holding(a, pending::<()>())).detach();
            g.spawn(holding(b, pending::<()>())).detach();
            pending::<()>().await;
        })
        .await
    });
    ex.block_on(async {
        sleep(SECOND).await;
        assert!(parent.cancel());
        log.assert(&["a", "b"]);
    });
    assert!(parent.is_cancelled());
    assert!(recorder.is_empty());
    let end = all_handed_on(&ex);
    assert_eq!((end.spawned, end.cancelled), (3, 3));
}

/// B085: when a child fails while it is cancelled, that is an error of the group, not lost in the cancellation; if the
/// parent is there to have it. Else it is reported.
#[test]
fn a_failing_clean_up_is_an_error_of_the_group() {
    let (ex, recorder) = executor();
    let log = DropLog::new();
    let bad = || log.guard("bad").panics("boom in clean-up");
    let (first, second) = (bad(), bad());
    let failed = ex
        .block_on(TaskGroup::scope(async |g| {
            g.task()
                .name("bad")
                .spawn(holding(first, pending::<()>()))
                .detach();
            yield_n(1).await;
            g.cancel();
            pending::<()>().await;
        }))
        .unwrap_err();
    assert_eq!(listed(&failed), ["bad: boom in clean-up"]);
    assert!(failed.is_cancelled());
    assert_eq!(all_handed_on(&ex).retrieved, 1);

    let parent = ex.spawn(TaskGroup::scope(async move |g| {
        g.task()
            .name("bad")
            .spawn(holding(second, pending::<()>()))
            .detach();
        pending::<()>().await;
    }));
    ex.block_on(yield_n(3));
    ex.block_on(async { parent.cancel() });
    ex.run_until_stalled();
    let report = recorder.only();
    assert_eq!(report.kind, ContextKind::TaskFailed);
    assert_eq!(report.exception.as_deref(), Some("boom in clean-up"));
    let end = counts(&ex);
    assert_eq!(
        (end.failed, end.reported, end.retrieved, end.unread),
        (2, 1, 1, 0)
    );
}

/// B086: the body's `Err` cancels the children and is the last of the group, without a task.
#[test]
fn an_err_of_the_body_ends_the_group() {
    let (ex, _) = executor();
    let log = DropLog::new();
    let (quiet_one, loud) = (log.guard("quiet"), log.guard("loud").panics("boom in drop"));
    let failed = ex
        .block_on(TaskGroup::try_scope(async |g| {
            g.spawn(holding(quiet_one, pending::<()>())).detach();
            g.task()
                .name("loud")
                .spawn(holding(loud, pending::<()>()))
                .detach();
            yield_n(1).await;
            Err::<(), _>(Fault("the body's"))?;
            unreachable!();
            #[expect(unreachable_code, reason = "says what the body would give")]
            Ok::<(), Fault>(())
        }))
        .unwrap_err();
    assert_eq!(listed(&failed), ["loud: boom in drop", "body: the body's"]);
    let (task, exception) = failed.iter().last().unwrap();
    assert!(task.is_none() && exception.downcast_ref::<Fault>().is_some());
    log.assert(&["quiet", "loud"]);
    let end = all_handed_on(&ex);
    assert_eq!((end.failed, end.retrieved, end.cancelled), (1, 1, 1));
}

/// B088: the inner group's error is inside the outer group's.
#[test]
fn an_inner_groups_error_is_inside_the_outer_groups() {
    let (ex, _) = executor();
    let failed = ex
        .block_on(TaskGroup::scope(async |outer| {
            outer
                .task()
                .name("inner")
                .spawn_fallible(TaskGroup::scope(async |inner| {
                    inner
                        .task()
                        .name("deep")
                        .spawn_fallible(async { Err::<(), _>(Fault("deep down")) })
                        .detach();
                }))
                .detach();
        }))
        .unwrap_err();
    let (task, exception) = failed.iter().next().unwrap();
    assert_eq!(task.unwrap().name(), "inner");
    let inner = exception.downcast_ref::<ExceptionGroup>().unwrap();
    assert_eq!(listed(inner), ["deep: deep down"]);
    assert_eq!(
        failed.to_string(),
        "1 failure in a group: inner: 1 failure in a group: deep: deep down"
    );
    let end = all_handed_on(&ex);
    assert_eq!((end.failed, end.retrieved), (2, 2));
}

/// B088: a failure in the outer group cancels the inner group and its children.
#[test]
fn an_outer_failure_cancels_the_inner_group() {
    let (ex, _) = executor();
    let log = DropLog::new();
    let guard = log.guard("deep");
    let failed = ex
        .block_on(TaskGroup::scope(async |outer| {
            let inner = TaskGroup::scope(async move |inner| {
                inner.spawn(holding(guard, pending::<()>())).detach();
                pending::<()>().await;
            });
            outer.spawn(inner).detach();
            sleep(SECOND).await;
            outer
                .spawn_fallible(async { Err::<(), _>("outer") })
                .detach();
            pending::<()>().await;
        }))
        .unwrap_err();
    assert_eq!(failed.len(), 1);
    log.assert(&["deep"]);
    let end = all_handed_on(&ex);
    assert_eq!((end.failed, end.cancelled), (1, 2));
}

/// B094: children that spawn their like for ever, and one failure: the group ends.
#[test]
fn endless_respawners_and_one_failure_end() {
    fn respawn(g: TaskGroup, spawned: Rc<Cell<usize>>) -> Boxed {
        Box::pin(async move {
            spawned.set(spawned.get() + 1);
            let on_drop = on_drop({
                let (g, spawned) = (g.clone(), Rc::clone(&spawned));
                move || g.spawn(respawn(g.clone(), spawned)).detach()
            });
            sleep(SECOND).await;
            g.spawn(respawn(g.clone(), spawned)).detach();
            drop(on_drop);
        })
    }
    let (ex, _) = executor();
    let spawned = Rc::new(Cell::new(0));
    let failed = ex
        .block_on(TaskGroup::scope(async |g| {
            g.spawn(respawn(g.clone(), Rc::clone(&spawned))).detach();
            g.spawn_fallible(async {
                // While they sleep, so that their destructors spawn too.
                sleep(4 * SECOND + SECOND / 2).await;
                Err::<(), _>("enough")
            })
            .detach();
        }))
        .unwrap_err();
    assert_eq!(failed.len(), 1);
    assert!(
        spawned.get() > 8,
        "it doubled every second: {}",
        spawned.get()
    );
    let end = all_handed_on(&ex);
    assert_eq!(end.failed, 1);
}

/// B095: a group is there for its scope; what comes later is dropped unpolled, with a reason. (It cannot be entered twice:
/// only a scope makes one.)
#[test]
fn a_group_refuses_what_comes_too_late() {
    let (ex, _) = executor();
    let log = DropLog::new();
    let (early, late) = (log.guard("early"), log.guard("late"));
    let polled = Rc::new(Cell::new(false));
    let kept = ex
        .block_on(TaskGroup::scope(async |g| {
            assert!(!g.is_closed() && g.is_empty());
            g.clone()
        }))
        .unwrap();
    assert!(kept.is_closed());
    let mark = Rc::clone(&polled);
    let handle = kept.task().name("late").spawn(holding(late, async move {
        mark.set(true);
    }));
    log.assert(&["late"]);
    assert!(handle.is_finished() && handle.is_cancelled());
    assert_eq!(handle.name(), "late");
    assert_eq!(
        reason_of(ex.block_on(handle)),
        "the group is closed: it has ended"
    );
    assert!(!kept.cancel(), "it is over");
    // While it is aborting:
    let refused = RefCell::new(None);
    ex.block_on(TaskGroup::scope(async |g| {
        let again = g.clone();
        let slot = &refused;
        let failing = g.spawn_fallible(async { Err::<(), _>("first") });
        let _early = early;
        while !g.is_closed() {
            yield_n(1).await;
        }
        let _keep = failing;
        slot.replace(Some(again.spawn(async { unreachable!("refused") })));
        pending::<()>().await;
    }))
    .unwrap_err();
    // The body was dropped before it could look: the failure takes effect at the scope's next poll.
    assert!(refused.take().is_none());
    assert!(!polled.get());
    assert_eq!(
        all_handed_on(&ex).spawned,
        1,
        "what was refused was never spawned"
    );
}

/// B095, api.md: from the failure on, new children are refused, also by a sibling in the same pass.
#[test]
fn siblings_cannot_spawn_after_a_failure() {
    let (ex, _) = executor();
    let refused = Rc::new(RefCell::new(None));
    let slot = Rc::clone(&refused);
    let failed = ex.block_on(TaskGroup::scope(async |g| {
        g.spawn_fallible(async { Err::<(), _>("first") }).detach();
        let again = g.clone();
        g.spawn(async move {
            assert!(again.is_closed());
            let handle = again.spawn(async { unreachable!("refused") });
            *slot.borrow_mut() = Some(handle.await.unwrap_err().to_string());
        })
        .detach();
    }));
    assert_eq!(failed.unwrap_err().len(), 1);
    let text = refused.take().unwrap();
    assert!(
        text.ends_with("the group is closed: a task of it failed, or its body"),
        "{text}"
    );
    let end = all_handed_on(&ex);
    assert_eq!((end.spawned, end.returned), (2, 1));
}

/// B096: a fatal signal in a child comes out bare, the siblings are gone by then, and other errors are not lost.
#[test]
fn a_fatal_signal_comes_out_bare() {
    let (ex, recorder) = executor();
    let log = DropLog::new();
    let guard = log.guard("sibling");
    let unwound = catch_unwind(AssertUnwindSafe(|| {
        ex.block_on(TaskGroup::scope(async |g| {
            g.spawn(holding(guard, pending::<()>())).detach();
            g.task()
                .name("other")
                .spawn_fallible(async { Err::<(), _>("other") })
                .detach();
            g.spawn(async { LocalHandle::current().stop_with(Box::new(Boom("fatal"))) })
                .detach();
            pending::<()>().await;
        }))
    }));
    let payload = unwound.unwrap_err();
    assert_eq!(payload.downcast_ref::<Boom>(), Some(&Boom("fatal")));
    log.assert(&["sibling"]);
    let report = recorder.only();
    assert_eq!(report.exception.as_deref(), Some("other"));
    assert_eq!(report.task.as_deref(), Some("other"));
    let end = counts(&ex);
    assert_eq!((end.live, end.reported, end.cancelled), (0, 1, 1));
}

/// B097: a child's name is that of its reports.
#[test]
fn a_childs_name_is_in_its_failure() {
    let (ex, _) = executor();
    let failed = ex
        .block_on(TaskGroup::scope(async |g| {
            let handle = g.task().name("fetch").spawn(async { panic_any("boom") });
            assert_eq!(handle.name(), "fetch");
            g.spawn(async {}).detach();
        }))
        .unwrap_err();
    let (task, _) = failed.iter().next().unwrap();
    assert_eq!(task.unwrap().name(), "fetch");
    assert_eq!(task.unwrap().location().file(), file!());
    all_handed_on(&ex);
}

// ---------------------------------------------------------------------------------------------------------------------
// Whose failure it is
// ---------------------------------------------------------------------------------------------------------------------

/// api.md: the failed child's own handle gives a `JoinError` that says so, with the message.
#[test]
fn the_childs_own_handle_says_that_the_group_has_it() {
    let (ex, _) = executor();
    let handles = RefCell::new(Vec::new());
    let failed = ex.block_on(TaskGroup::scope(async |g| {
        let both = [
            g.spawn_fallible(async { Err::<(), _>(Fault("no host")) }),
            g.spawn_fallible(async { panic_any("boom") }),
        ];
        handles.borrow_mut().extend(both);
    }));
    let expected = [
        "failed, which its group has to tell: no host",
        "failed, which its group has to tell: boom",
    ];
    for (handle, text) in handles.take().into_iter().zip(expected) {
        assert_eq!(
            handle.exception().map(|_| ()),
            Err(ExceptionError::Taken),
            "it is not there"
        );
        let error = ex.block_on(handle).unwrap_err();
        assert!(error.in_group() && !error.is_panic() && !error.is_cancelled());
        assert!(error.to_string().ends_with(text), "{error}");
        assert!(error.try_into_panic().is_err());
    }
    assert_eq!(failed.unwrap_err().len(), 2);
    assert_eq!(all_handed_on(&ex).retrieved, 2);
}

/// A `Display` that panics takes nothing with it: the group has the error, and the handle says what happened.
#[test]
fn an_error_that_cannot_be_shown_is_still_the_groups() {
    #[derive(Debug)]
    struct Mute;
    impl std::fmt::Display for Mute {
        fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            panic_any("boom in Display")
        }
    }
    let (ex, _) = executor();
    let handle = RefCell::new(None);
    let failed = ex
        .block_on(TaskGroup::scope(async |g| {
            handle.replace(Some(g.spawn_fallible(async { Err::<(), _>(Mute) })));
        }))
        .unwrap_err();
    assert!(
        failed
            .iter()
            .next()
            .unwrap()
            .1
            .downcast_ref::<Mute>()
            .is_some()
    );
    let error = ex.block_on(handle.take().unwrap()).unwrap_err();
    assert!(error.to_string().contains("formatting it panicked: boom"));
    let summary = failed.into_summary();
    assert!(summary.to_string().contains("formatting it panicked: boom"));
    all_handed_on(&ex);
}

/// P2: a kept failure is unread until the group hands it on; a done callback that reads it counts once.
#[test]
fn a_kept_failure_counts_once() {
    for policy in [ReportPolicy::OnFailure, ReportPolicy::IfUnretrieved] {
        for reads in [false, true] {
            quiet();
            let ex = Executor::builder().report(policy).build();
            let recorder = Recorder::on(&ex);
            let seen = Rc::new(Cell::new(false));
            let failed = ex.block_on(TaskGroup::scope(async |g| {
                let handle = g.spawn(async { panic_any("boom") });
                let seen = Rc::clone(&seen);
                handle.add_done_callback(move |done| {
                    let stats = LocalHandle::current().stats();
                    assert_eq!((stats.failed, stats.unread), (1, 1), "before anybody looks");
                    if reads {
                        assert!(
                            matches!(done.outcome(), Outcome::Failed(e) if e.message() == "boom")
                        );
                        let stats = LocalHandle::current().stats();
                        assert_eq!((stats.retrieved, stats.unread), (1, 0));
                    }
                    seen.set(true);
                });
            }));
            assert!(seen.get());
            assert_eq!(failed.unwrap_err().len(), 1);
            let end = all_handed_on(&ex);
            assert_eq!((end.failed, end.retrieved), (1, 1), "{policy:?}, {reads}");
            drop(ex);
            assert!(recorder.is_empty());
        }
    }
}

/// P2: what a group had when its future was dropped is reported, under both policies, each once; what was read is not.
#[test]
fn failures_of_a_dropped_group_are_reported() {
    for policy in [ReportPolicy::OnFailure, ReportPolicy::IfUnretrieved] {
        for held in [false, true] {
            quiet();
            let ex = Executor::builder().report(policy).build();
            let recorder = Recorder::on(&ex);
            let handles = Rc::new(RefCell::new(Vec::new()));
            let kept = Rc::clone(&handles);
            let mut scope = Box::pin(TaskGroup::scope(async move |g| {
                let read = g.task().name("read").spawn(async { panic_any("boom") });
                read.add_done_callback(|done| {
                    assert!(matches!(done.outcome(), Outcome::Failed(_)))
                });
                let unread = g.task().name("unread").spawn(async { panic_any("boom") });
                if held {
                    kept.borrow_mut().extend([read, unread]);
                }
                pending::<()>().await;
            }));
            let (waker, _) = counting_waker();
            ex.block_on(async {
                assert!(poll_with(&mut scope, &waker).is_pending());
                yield_n(3).await;
                assert_eq!(LocalHandle::current().stats().unread, 1);
                drop(scope);
            });
            let report = recorder.only();
            assert_eq!(report.kind, ContextKind::NeverRetrieved);
            assert_eq!(
                report.message,
                "Task failed in a group whose caller was gone"
            );
            assert_eq!(report.task.as_deref(), Some("unread"));
            let end = counts(&ex);
            assert_eq!((end.failed, end.reported, end.retrieved), (2, 1, 1));
            for handle in handles.take() {
                assert!(ex.block_on(handle).unwrap_err().in_group());
            }
        }
    }
}

task_local! {
    static KEPT: Guard;
}

/// A group that is left when its executor is gone tells the default handler what it kept, and contains what that does when it
/// is dropped: the payload, and the values that were set where the task panicked.
#[test]
fn failures_of_a_group_that_outlives_its_executor_go_to_the_default_handler() {
    let (ex, recorder) = executor();
    let log = DropLog::new();
    let payload = log.guard("payload").panics("boom in the payload");
    let value = log.guard("value").panics("boom in the value");
    let mut scope = Box::pin(TaskGroup::scope(async |g| {
        g.spawn(KEPT.scope(value, async { panic_any(payload) }))
            .detach();
        pending::<()>().await;
    }));
    ex.block_on(async {
        assert!(poll_once(&mut scope).is_pending());
        yield_n(3).await;
    });
    drop(ex);
    assert!(recorder.is_empty() && log.len() == 0, "it is the group's");
    let capture = LogCapture::start();
    drop(scope);
    log.assert(&["value", "payload"]);
    let texts: Vec<_> = capture.records().into_iter().map(|r| r.text).collect();
    assert_eq!(texts.len(), 3, "{texts:#?}");
    assert!(texts[0].starts_with("Task failed in a group whose caller was gone"));
    assert!(texts[1].contains("boom in the value"), "{}", texts[1]);
    assert!(texts[2].contains("boom in the payload"), "{}", texts[2]);
}

/// A group that is left between drives tells what it kept there and then.
#[test]
fn failures_of_a_group_that_is_left_between_drives_are_told_at_once() {
    let (ex, recorder) = executor();
    let mut scope = Box::pin(TaskGroup::scope(async |g| {
        g.spawn(async { panic_any("boom kept") }).detach();
        pending::<()>().await;
    }));
    ex.block_on(async {
        assert!(poll_once(&mut scope).is_pending());
        yield_n(3).await;
    });
    assert!(recorder.is_empty());
    drop(scope);
    assert_eq!(recorder.exceptions(), ["boom kept"]);
    assert_eq!(counts(&ex).reported, 1);
}

/// P3: the same where what they failed by panics when it is dropped: that is told too.
#[test]
fn what_an_abandoned_group_kept_may_panic_when_it_is_dropped() {
    #[derive(Debug)]
    struct Loud(#[expect(dead_code, reason = "it is dropped")] Guard);
    impl std::fmt::Display for Loud {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an error")
        }
    }
    let (ex, recorder) = executor();
    let log = DropLog::new();
    let (error, payload) = (
        log.guard("error").panics("boom in error"),
        log.guard("payload").panics("boom in payload"),
    );
    let mut scope: Boxed = Box::pin(async {
        drop(
            TaskGroup::scope(async move |g| {
                g.spawn_fallible(async move { Err::<(), _>(Loud(error)) })
                    .detach();
                g.spawn(async move { panic_any(payload) }).detach();
                pending::<()>().await;
            })
            .await,
        );
    });
    let (waker, _) = counting_waker();
    ex.block_on(async {
        assert!(poll_with(&mut scope, &waker).is_pending());
        yield_n(3).await;
        drop(scope);
    });
    ex.run_until_stalled();
    log.assert(&["error", "payload"]);
    let told: Vec<_> = recorder
        .reports()
        .into_iter()
        .filter(|report| report.kind == ContextKind::Destructor)
        .map(|report| report.exception.unwrap_or(report.message))
        .collect();
    assert_eq!(
        told,
        [
            "boom in error",
            "Panic in the destructor of a panic payload: boom in payload"
        ]
    );
    assert_eq!(counts(&ex).reported, 2);
}

/// P3: the errors of a group that nobody looks at are dropped one by one, whatever their destructors do.
#[test]
fn the_destructors_of_a_groups_errors_are_contained_and_told() {
    let (ex, recorder) = executor();
    let log = DropLog::new();
    let guards = ["first", "second", "third"].map(|n| log.guard(n).panics(format!("boom in {n}")));
    let group = ex
        .block_on(TaskGroup::scope(async move |g| {
            for guard in guards {
                g.spawn(async move { panic_any(guard) }).detach();
            }
        }))
        .expect_err("they fail");
    assert_eq!((group.len(), group.is_empty()), (3, false));
    ex.block_on(async { drop(group) });
    log.assert(&["first", "second", "third"]);
    assert_eq!(
        recorder.exceptions(),
        ["boom in first", "boom in second", "boom in third"]
    );
}

/// api.md: what a summary says of its group.
#[test]
fn a_summary_counts_as_its_group_does() {
    let (ex, _) = executor();
    let failed = ex.block_on(TaskGroup::scope(async |g| {
        assert!(g.is_empty());
        g.spawn(async { panic_any("boom") }).detach();
        g.spawn(async { panic_any("boom") }).detach();
        assert!(!g.is_empty());
        pending::<()>().await;
    }));
    let failed = failed.expect_err("two failed").into_summary();
    assert_eq!(
        (failed.len(), failed.is_empty(), failed.is_cancelled()),
        (2, false, false)
    );
    let cancelled = ex.block_on(TaskGroup::scope(async |g| {
        g.cancel();
        pending::<()>().await;
    }));
    let cancelled = cancelled.expect_err("it was cancelled").into_summary();
    assert_eq!(
        (
            cancelled.len(),
            cancelled.is_empty(),
            cancelled.is_cancelled()
        ),
        (0, true, true)
    );
}

/// P3, B094: a group that takes nobody any more drops what it is given there and then, contained.
#[test]
fn the_destructor_of_what_a_group_refuses_is_contained_and_told() {
    let (ex, recorder) = executor();
    let log = DropLog::new();
    let late = log.guard("late").panics("boom in late");
    let refused = ex.block_on(TaskGroup::scope(async |g| {
        g.cancel();
        g.spawn(holding(late, async {})).is_cancelled()
    }));
    assert!(refused.expect("the body returned"));
    log.assert(&["late"]);
    let report = recorder.only();
    assert_eq!(report.kind, ContextKind::Destructor);
    assert_eq!(report.exception.as_deref(), Some("boom in late"));
}

/// P2: a group that ends between its child's failure and the end of that child's callbacks does not take the failure with
/// it: it is told by the policy, once, at once, whoever holds the handle.
#[test]
fn a_failure_whose_group_ends_meanwhile_is_told_like_any_other() {
    for policy in [ReportPolicy::OnFailure, ReportPolicy::IfUnretrieved] {
        for while_formatting in [false, true] {
            quiet();
            let ex = Executor::builder().report(policy).build();
            let recorder = Recorder::on(&ex);
            let scope: Rc<RefCell<Option<Boxed>>> = Rc::default();
            let ends = Rc::clone(&scope);
            let kept: Rc<RefCell<Option<Child>>> = Rc::default();
            let keep = Rc::clone(&kept);
            scope.replace(Some(Box::pin(async move {
                drop(
                    TaskGroup::scope(async move |g| {
                        let error = EndsGroup(while_formatting.then(|| Rc::clone(&ends)));
                        let handle = g.spawn_fallible(async { Err::<(), _>(error) });
                        if !while_formatting {
                            handle.add_done_callback(move |_| drop(ends.take()));
                        }
                        keep.replace(Some(handle));
                        pending::<()>().await;
                    })
                    .await,
                );
            })));
            ex.block_on(async {
                let mut polled = scope.take().expect("stored");
                let (waker, _) = counting_waker();
                assert!(poll_with(&mut polled, &waker).is_pending());
                scope.replace(Some(polled));
                yield_n(3).await;
            });
            assert!(scope.borrow().is_none(), "the group has ended");
            let handle = kept.take().expect("stored");
            let told_at_once = policy == ReportPolicy::OnFailure;
            let end = counts(&ex);
            assert_eq!(
                (end.failed, end.reported, end.unread),
                (1, u64::from(told_at_once), u64::from(!told_at_once)),
                "while formatting: {while_formatting}"
            );
            drop(handle);
            let expected = if told_at_once {
                ContextKind::TaskFailed
            } else {
                ContextKind::NeverRetrieved
            };
            assert_eq!(recorder.only().kind, expected);
        }
    }
}

type Child = JoinHandle<Result<(), EndsGroup>>;

/// An error whose display ends a group.
struct EndsGroup(Option<Rc<RefCell<Option<Boxed>>>>);

impl std::fmt::Debug for EndsGroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EndsGroup")
    }
}

impl std::fmt::Display for EndsGroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(ends) = &self.0 {
            drop(ends.take());
        }
        f.write_str("an error that ends its group")
    }
}

/// Design section 5: what a member's destructor cancels is gone when the group's drop returns, in a drive.
#[test]
fn what_a_members_destructor_cancels_goes_with_the_group() {
    let (ex, _) = executor();
    let log = DropLog::new();
    let other = ex.spawn(holding(log.guard("other"), pending::<()>()));
    let cancels = on_drop(move || {
        other.cancel();
    });
    let mut scope: Boxed = Box::pin(async {
        drop(
            TaskGroup::scope(async move |g| {
                g.spawn(holding(cancels, pending::<()>())).detach();
                pending::<()>().await;
            })
            .await,
        );
    });
    let (waker, _) = counting_waker();
    ex.block_on(async {
        assert!(poll_with(&mut scope, &waker).is_pending());
        yield_n(2).await;
        drop(scope);
        log.assert(&["other"]);
    });
}

/// api.md: a panic of the body is the caller's own; the children go first, and their failures are reported.
#[test]
fn a_panic_of_the_body_goes_on_unwinding() {
    let (ex, recorder) = executor();
    let log = DropLog::new();
    let (child, local) = (log.guard("child"), log.guard("local"));
    let unwound = catch_unwind(AssertUnwindSafe(|| {
        ex.block_on(TaskGroup::scope(async |g| {
            let _local = local;
            g.spawn(holding(child, pending::<()>())).detach();
            g.task()
                .name("other")
                .spawn_fallible(async { Err::<(), _>("other") })
                .detach();
            // Polled again by this wake in the pass in which the other fails, before the group has looked.
            yield_n(1).await;
            panic_any(Boom("body"))
        }))
    }));
    // The failure came first, so the body is gone before it can panic.
    assert!(unwound.is_ok());
    drop(unwound);
    assert!(recorder.is_empty());

    let log = DropLog::new();
    let (child, local) = (log.guard("child"), log.guard("local"));
    let unwound = catch_unwind(AssertUnwindSafe(|| {
        ex.block_on(TaskGroup::scope(async |g| {
            let _local = local;
            g.spawn(holding(child.panics("boom in child"), pending::<()>()))
                .detach();
            yield_n(1).await;
            panic_any(Boom("body"))
        }))
    }));
    assert_eq!(
        unwound.unwrap_err().downcast_ref::<Boom>(),
        Some(&Boom("body"))
    );
    log.assert(&["local", "child"]);
    assert_eq!(recorder.only().exception.as_deref(), Some("boom in child"));
    let end = counts(&ex);
    assert_eq!((end.live, end.reported, end.unread), (0, 1, 0));
}

/// A body that has returned, or panicked, and then panics in its destructor: the first is what the caller gets, and what comes
/// after it is told.
#[test]
fn a_body_may_panic_when_it_is_dropped() {
    let log = DropLog::new();
    let body = |result: Result<u32, Fault>| {
        let guard = log.guard("body").panics("boom in the body's drop");
        move |_: &TaskGroup| holding(guard, async move { result })
    };
    // By itself it is the body's panic.
    let (ex, recorder) = executor();
    let fine = body(Ok(1));
    let text = panic_message(|| drop(ex.block_on(TaskGroup::try_scope(fine))));
    assert_eq!(text, "boom in the body's drop");
    assert!(recorder.is_empty());
    // After an error it is told.
    let failed = ex.block_on(TaskGroup::try_scope(body(Err(Fault("no")))));
    assert_eq!(listed(&failed.unwrap_err()), ["body: no"]);
    assert_eq!(recorder.only().kind, ContextKind::Destructor);
    recorder.take();
    // So it is after a panic, in supervisors' scopes too.
    let guard = log.guard("body").panics("boom in the body's drop");
    let panics = move |_: &TaskGroup| holding(guard, async { panic_any("boom first") });
    let text = panic_message(|| drop(ex.block_on(TaskGroup::scope(panics))));
    assert_eq!(text, "boom first");
    assert_eq!(recorder.take().len(), 1);
    let guard = log.guard("body").panics("boom in the body's drop");
    let panics = move |_: &Supervisor| holding(guard, async { panic_any("boom first") });
    let text = panic_message(|| ex.block_on(Supervisor::scope(panics)));
    assert_eq!(text, "boom first");
    assert_eq!(recorder.take().len(), 1);
    assert_eq!(log.len(), 4);
}

/// The value of a body whose group fails afterwards is dropped contained.
#[test]
fn the_bodys_value_may_panic_when_its_group_has_failed() {
    let (ex, recorder) = executor();
    let log = DropLog::new();
    let value = log.guard("value").panics("boom in the value");
    let failed = ex.block_on(TaskGroup::scope(async |g| {
        g.spawn(async {
            yield_n(2).await;
            panic_any("boom in the task")
        })
        .detach();
        value
    }));
    assert_eq!(failed.unwrap_err().len(), 1);
    assert_eq!(recorder.only().kind, ContextKind::Destructor);
    log.assert(&["value"]);
}

/// A panic in the destructor of a body that the group cancels is the body's own failure, the last of the group.
#[test]
fn a_panicking_destructor_of_the_body_is_its_failure() {
    let (ex, recorder) = executor();
    let log = DropLog::new();
    let guard = log.guard("body").panics("boom in body");
    let failed = ex
        .block_on(TaskGroup::scope(async |g| {
            let _guard = guard;
            g.task()
                .name("bad")
                .spawn_fallible(async { Err::<(), _>("bad") })
                .detach();
            pending::<()>().await;
        }))
        .unwrap_err();
    assert_eq!(listed(&failed), ["bad: bad", "body: boom in body"]);
    assert!(recorder.is_empty());
    assert_eq!(
        failed
            .into_first_panic()
            .unwrap()
            .downcast_ref::<String>()
            .unwrap(),
        "boom in body"
    );
    all_handed_on(&ex);
}

// ---------------------------------------------------------------------------------------------------------------------
// Ending it politely
// ---------------------------------------------------------------------------------------------------------------------

/// `cancel` before the body returned: an empty group that says so; the children are gone when it returns; twice is once.
#[test]
fn cancel_ends_the_group_quietly() {
    let (ex, recorder) = executor();
    let log = DropLog::new();
    let (child, body) = (log.guard("child"), log.guard("body"));
    let ended = ex
        .block_on(TaskGroup::scope(async |g| {
            let _body = body;
            g.spawn(holding(child, pending::<()>())).detach();
            yield_n(1).await;
            assert!(g.cancel() && g.cancel());
            log.assert(&["child"]);
            assert!(g.is_closed() && g.is_empty());
            yield_n(1).await;
            unreachable!("the body is cancelled at its next await");
        }))
        .unwrap_err();
    assert!(ended.is_cancelled() && ended.is_empty());
    assert_eq!(ended.to_string(), "the group was cancelled");
    log.assert(&["child", "body"]);
    assert!(recorder.is_empty());
    all_handed_on(&ex);
}

/// Cancelled from elsewhere, a group ends though its body waits and it has no task.
#[test]
fn cancel_from_elsewhere_ends_a_body_that_waits() {
    let (ex, _) = executor();
    let group = Rc::new(RefCell::new(None));
    let out = Rc::clone(&group);
    let mut scope = ex.spawn(TaskGroup::scope(async move |g| {
        *out.borrow_mut() = Some(g.clone());
        pending::<()>().await;
    }));
    ex.run_until_stalled();
    assert!(group.take().unwrap().cancel());
    ex.run_until_stalled();
    let ended = scope.result().unwrap().unwrap().unwrap_err();
    assert!(ended.is_cancelled() && ended.is_empty());
}

/// A group that is cancelled when its body has returned was not ended by that; what its tasks' destructors do is listed.
#[test]
fn cancel_after_the_body_has_returned_ends_only_the_tasks() {
    let (ex, _) = executor();
    let group = Rc::new(RefCell::new(None));
    let out = Rc::clone(&group);
    let log = DropLog::new();
    let guard = log.guard("task").panics("boom in clean-up");
    let mut scope = ex.spawn(TaskGroup::scope(async move |g| {
        g.task()
            .name("bad")
            .spawn(holding(guard, pending::<()>()))
            .detach();
        *out.borrow_mut() = Some(g.clone());
        7
    }));
    ex.run_until_stalled();
    assert!(group.take().unwrap().cancel());
    ex.run_until_stalled();
    let failed = scope.result().unwrap().unwrap().unwrap_err();
    assert!(!failed.is_cancelled());
    assert_eq!(
        failed.to_string(),
        "1 failure in a group: bad: boom in clean-up"
    );
    all_handed_on(&ex);
}

/// What a cancelled group failed with besides is shown.
#[test]
fn a_cancelled_group_shows_its_failures_too() {
    let (ex, _) = executor();
    let log = DropLog::new();
    let guard = log.guard("task").panics("boom in clean-up");
    let ended = ex.block_on(TaskGroup::scope(async |g| {
        g.task()
            .name("bad")
            .spawn(holding(guard, pending::<()>()))
            .detach();
        yield_n(1).await;
        g.cancel();
        pending::<()>().await;
    }));
    assert_eq!(
        ended.unwrap_err().to_string(),
        "the group was cancelled, with 1 failure in a group: bad: boom in clean-up"
    );
    all_handed_on(&ex);
}

/// Those that a limit holds back do not begin when one before them has failed, in whatever order the pass goes.
#[test]
fn who_is_held_back_does_not_begin_after_a_failure() {
    quiet();
    for seed in 0..16 {
        let ex = Executor::builder().shuffle(seed).build();
        let began = Rc::new(Cell::new(false));
        let begin = Rc::clone(&began);
        let scope = ex.spawn(TaskGroup::scope(async move |g| {
            g.limit(1);
            g.spawn(async {
                yield_n(2).await;
                panic_any("boom first")
            })
            .detach();
            g.spawn(async move { begin.set(true) }).detach();
        }));
        let failed = ex.block_on(scope).unwrap().unwrap_err();
        assert_eq!(failed.len(), 1);
        assert!(!began.get(), "seed {seed}");
    }
}

/// A body that returns has its value out, also when it cancels the rest of the group first, or a child does after it.
#[test]
fn cancel_leaves_a_body_that_returns_its_value() {
    let (ex, _) = executor();
    let first = ex.block_on(TaskGroup::scope(async |g| {
        g.spawn(pending::<()>()).detach();
        g.cancel();
        1
    }));
    assert_eq!(first.unwrap(), 1);
    let second = ex.block_on(TaskGroup::scope(async |g| {
        g.spawn(pending::<()>()).detach();
        let group = g.clone();
        g.spawn(async move {
            sleep(SECOND).await;
            assert!(group.cancel(), "it cancels itself too");
        })
        .detach();
        2
    }));
    assert_eq!(second.unwrap(), 2);
    // A task that cancels itself and returns is cancelled, as everywhere.
    let end = all_handed_on(&ex);
    assert_eq!(end.cancelled, 3);
}

// ---------------------------------------------------------------------------------------------------------------------
// No task outlives its group
// ---------------------------------------------------------------------------------------------------------------------

/// A group in a group in a task whose destruction is under way: the innermost are gone before each drop returns.
#[test]
fn nested_groups_end_from_the_inside_while_a_task_is_destroyed() {
    let (ex, _) = executor();
    let trace = Trace::new();
    let (t1, t2, t3) = (trace.clone(), trace.clone(), trace.clone());
    let parent = ex.spawn(async move {
        let outer = Box::pin(TaskGroup::scope(async move |outer| {
            let inner = Box::pin(TaskGroup::scope(async move |inner| {
                inner
                    .spawn(holding(on_drop(move || t3.push("deep")), pending::<()>()))
                    .detach();
                pending::<()>().await;
            }));
            outer
                .spawn(holding(on_drop(move || t2.push("child")), inner))
                .detach();
            pending::<()>().await;
        }));
        let mut outer = Some(outer);
        let dropper = on_drop(move || t1.push("parent"));
        std::future::poll_fn(|cx| {
            let _ = &dropper;
            outer.as_mut().unwrap().as_mut().poll(cx).map(drop)
        })
        .await;
    });
    ex.run_until_stalled();
    assert_eq!(ex.len(), 3);
    ex.block_on(async { parent.cancel() });
    let mut labels = trace.labels();
    assert_eq!(labels.len(), 3);
    labels.retain(|label| label != "parent");
    assert_eq!(
        labels,
        ["deep", "child"],
        "before the child's own drop went on"
    );
    assert_eq!(all_handed_on(&ex).cancelled, 3);
}

/// The children are gone when the drop of the group's future returns, also inside of another task's destructor.
#[test]
fn a_group_dropped_in_a_destructor_has_ended_when_that_returns() {
    let (ex, _) = executor();
    let log = DropLog::new();
    let guard = log.guard("child");
    let seen = Rc::new(Cell::new(false));
    let mark = Rc::clone(&seen);
    let look = log.clone();
    ex.block_on(async {
        let mut scope = Box::pin(TaskGroup::scope(async move |g| {
            g.spawn(holding(guard, pending::<()>())).detach();
            pending::<()>().await;
        }));
        assert!(std::future::poll_fn(|cx| Poll::Ready(scope.as_mut().poll(cx).is_pending())).await);
        let bystander = spawn(holding(
            on_drop(move || {
                drop(scope);
                mark.set(look.names() == ["child"]);
            }),
            pending::<()>(),
        ));
        yield_n(1).await;
        bystander.cancel();
    });
    assert!(seen.get(), "the child was gone");
    assert_eq!(all_handed_on(&ex).cancelled, 2);
}

/// Between two drives: the children are gone when the drop returns, at home; what their destructors spawn works.
#[test]
fn a_group_dropped_between_drives_has_ended_when_that_returns() {
    let (ex, recorder) = executor();
    let log = DropLog::new();
    let (plain, loud) = (log.guard("plain"), log.guard("loud").panics("boom in drop"));
    let spawned = Rc::new(Cell::new(false));
    let mark = Rc::clone(&spawned);
    let mut root = Box::pin(TaskGroup::scope(async move |g| {
        g.spawn(holding(plain, pending::<()>())).detach();
        g.task()
            .name("loud")
            .spawn(holding(loud, pending::<()>()))
            .detach();
        let on_drop = on_drop(move || {
            spawn(async move { mark.set(true) }).detach();
        });
        g.spawn(holding(on_drop, pending::<()>())).detach();
        pending::<()>().await;
    }));
    ex.call_later(SECOND, {
        let handle = ex.handle();
        move || handle.stop()
    });
    assert!(ex.try_block_on(root.as_mut()).is_err());
    assert_eq!(counts(&ex).live, 3);
    drop(root);
    log.assert(&["plain", "loud"]);
    assert_eq!(counts(&ex).live, 1, "what the destructor spawned");
    ex.run_until_stalled();
    assert!(spawned.get());
    assert_eq!(recorder.only().task.as_deref(), Some("loud"));
    let end = counts(&ex);
    assert_eq!(
        (end.live, end.failed, end.reported, end.cancelled),
        (0, 1, 1, 2)
    );
}

/// A child that ends its own group from inside of its own poll goes right after that poll; the others before.
#[test]
fn a_child_that_drops_its_own_group_goes_after_its_poll() {
    let (ex, _) = executor();
    let trace = Trace::new();
    let scope: Rc<RefCell<Option<Boxed>>> = Rc::default();
    let (slot, t) = (Rc::clone(&scope), trace.clone());
    let future = TaskGroup::scope(async move |g| {
        let sibling = on_drop({
            let t = t.clone();
            move || t.push("sibling dropped")
        });
        g.spawn(holding(sibling, pending::<()>())).detach();
        g.spawn(async move {
            let own = t.clone();
            let _own = on_drop(move || own.push("killer dropped"));
            t.push("drops its group");
            drop(slot.take());
            t.push("goes on");
            pending::<()>().await;
        })
        .detach();
        pending::<()>().await;
    });
    *scope.borrow_mut() = Some(Box::pin(async { drop(future.await) }));
    ex.block_on(async {
        let polled = std::future::poll_fn(|cx| {
            let mut slot = scope.borrow_mut();
            Poll::Ready(slot.as_mut().unwrap().as_mut().poll(cx))
        });
        assert!(polled.await.is_pending());
        yield_n(2).await;
    });
    trace.assert(&[
        "drops its group",
        "sibling dropped",
        "goes on",
        "killer dropped",
    ]);
    assert_eq!(all_handed_on(&ex).cancelled, 2);
}

/// The executor is dropped with groups in it: everything goes once, in order, and nobody is told twice.
#[test]
fn a_dropped_executor_ends_its_groups() {
    let (ex, recorder) = executor();
    let log = DropLog::new();
    let (a, b) = (log.guard("a"), log.guard("b").panics("boom in b"));
    ex.task()
        .name("parent")
        .spawn(TaskGroup::scope(async move |g| {
            g.task()
                .name("a")
                .spawn(holding(a, pending::<()>()))
                .detach();
            g.task()
                .name("b")
                .spawn(holding(b, pending::<()>()))
                .detach();
            pending::<()>().await;
        }))
        .detach();
    ex.run_until_stalled();
    drop(ex);
    log.assert(&["a", "b"]);
    let told: Vec<_> = recorder.kinds().into_iter().zip(recorder.tasks()).collect();
    assert_eq!(
        told,
        [
            (ContextKind::DestroyedPending, "parent".to_owned()),
            (ContextKind::TaskFailed, "b".to_owned()),
        ],
        "the children were cancelled by their group"
    );
}

/// A scope that is over, or left, lets go of its caller's waker, though somebody holds the group or its tasks go on.
#[test]
fn whoever_is_done_with_a_scope_is_let_go() {
    type Shelf = RefCell<Vec<Box<dyn std::any::Any>>>;
    type Scope = fn(Event, Rc<Shelf>) -> Boxed;
    let scopes: [Scope; 3] = [
        |event, held| {
            Box::pin(async move {
                let scope = TaskGroup::scope(async |g| {
                    held.borrow_mut().push(Box::new(g.clone()));
                    event.wait().await;
                });
                drop(scope.await);
            })
        },
        |event, held| {
            Box::pin(Supervisor::scope(async move |s| {
                held.borrow_mut().push(Box::new(s.clone()));
                event.wait().await;
            }))
        },
        // What combinators keep is held by the callbacks on these handles.
        |event, _| {
            let batch = [spawn(event.wait()), spawn(Event::new().wait())];
            Box::pin(async move { drop(mainstay::race(mainstay::handles(batch)).await) })
        },
    ];
    let (ex, _) = executor();
    let (waker, count) = counting_waker();
    let unheld = Arc::strong_count(&count);
    ex.block_on(async {
        for (number, scope) in scopes.into_iter().enumerate() {
            for over in [false, true] {
                let (event, held) = (Event::new(), Rc::default());
                let mut scope = scope(event.clone(), Rc::clone(&held));
                assert!(poll_with(&mut scope, &waker).is_pending());
                assert!(Arc::strong_count(&count) > unheld);
                yield_n(2).await;
                if over {
                    event.set();
                    yield_n(3).await;
                    assert!(poll_with(&mut scope, &waker).is_ready());
                } else {
                    drop(scope);
                    event.forget_wakers();
                }
                let now = Arc::strong_count(&count);
                assert_eq!(now, unheld, "{number}, over: {over}");
            }
        }
        let mut set = JoinSet::new();
        set.spawn(pending::<()>());
        assert!(poll_with(&mut Box::pin(set.join_next()), &waker).is_pending());
        set.detach_all();
        assert_eq!(Arc::strong_count(&count), unheld, "a set");
    });
}

/// A group polled by a foreign waker is woken by it, and lives with one that panics.
#[test]
fn a_foreign_waker_is_woken() {
    let (ex, _) = executor();
    let (waker, count) = counting_waker();
    let event = Event::new();
    let wait = event.wait();
    let mut scope = Box::pin(TaskGroup::scope(async move |g| {
        g.spawn(wait).detach();
    }));
    ex.block_on(async {
        assert!(poll_with(&mut scope, &waker).is_pending());
        yield_n(2).await;
        assert_eq!(count.wakes(), 0);
        event.set();
        yield_n(2).await;
        assert_eq!(count.wakes(), 1);
        assert!(poll_with(&mut scope, &waker).is_ready());
    });
    all_handed_on(&ex);
}

// ---------------------------------------------------------------------------------------------------------------------
// The limit
// ---------------------------------------------------------------------------------------------------------------------

/// api.md, `.limit(n)`: no more than that run at once; the others begin in spawn order; one that is cancelled before its
/// turn leaves its place.
#[test]
fn a_limit_bounds_who_runs() {
    let (ex, _) = executor();
    let (running, peak) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let trace = Trace::new();
    ex.block_on(TaskGroup::scope(async |g| {
        g.limit(2);
        let handles: Vec<JoinHandle<()>> = (0..6)
            .map(|n| {
                let (running, peak) = (Rc::clone(&running), Rc::clone(&peak));
                let trace = trace.clone();
                g.spawn(async move {
                    trace.push(format!("{n}"));
                    running.set(running.get() + 1);
                    peak.set(peak.get().max(running.get()));
                    sleep(SECOND).await;
                    running.set(running.get() - 1);
                })
            })
            .collect();
        assert_eq!(g.len(), 6);
        yield_n(1).await;
        assert!(handles[3].cancel(), "before its turn");
    }))
    .unwrap();
    assert_eq!(peak.get(), 2);
    trace.assert(&["0", "1", "2", "4", "5"]);
    let end = all_handed_on(&ex);
    assert_eq!((end.returned, end.cancelled), (5, 1));
}

/// P7: a body that waits for room holds no more futures than run, whatever their number.
#[test]
fn waiting_for_room_keeps_the_number_flat() {
    let (ex, _) = executor();
    let sum = Rc::new(Cell::new(0u64));
    let (peak, live) = (Cell::new(0), sum.clone());
    ex.block_on(TaskGroup::scope(async |g| {
        g.limit(100);
        for n in 0..20_000 {
            g.room().await;
            assert!(g.len() < 100);
            let sum = Rc::clone(&live);
            g.spawn(async move {
                yield_n(n % 3).await;
                sum.set(sum.get() + 1);
            })
            .detach();
            peak.set(peak.get().max(ex.len()));
        }
    }))
    .unwrap();
    assert_eq!((sum.get(), peak.get()), (20_000, 100));
    assert_eq!(all_handed_on(&ex).returned, 20_000);
}

/// Several may wait for room, with wakers of any kind; one that gives up leaves its place; a raised limit makes room.
#[test]
fn several_may_wait_for_room() {
    let (ex, _) = executor();
    let trace = Trace::new();
    ex.block_on(TaskGroup::scope(async |g| {
        g.room().await; // there is no limit yet
        g.limit(1);
        let first = g.spawn(pending::<()>());
        let (waker, count) = counting_waker();
        let mut foreign = Box::pin(g.room());
        assert!(poll_with(&mut foreign, &waker).is_pending());
        let (g1, t1) = (g.clone(), trace.clone());
        let waits = spawn(async move {
            g1.room().await;
            t1.push("task");
        });
        let g2 = g.clone();
        let gives_up = spawn(async move { g2.room().await });
        yield_n(1).await;
        gives_up.cancel();
        assert_eq!((count.wakes(), trace.len()), (0, 0));
        first.cancel();
        waits.await.unwrap();
        assert_eq!(count.wakes(), 1);
        assert!(poll_with(&mut foreign, &waker).is_ready());
        g.spawn(pending::<()>()).detach();
        let mut again = Box::pin(g.room());
        assert!(poll_with(&mut again, &waker).is_pending());
        g.limit(2);
        assert_eq!(count.wakes(), 2);
        assert!(poll_with(&mut again, &waker).is_ready());
        g.cancel();
    }))
    .unwrap();
    trace.assert(&["task"]);
    assert_eq!(all_handed_on(&ex).cancelled, 3);
}

/// A raised limit lets those begin that wait; a limit of nothing is refused.
#[test]
fn a_raised_limit_lets_the_others_begin() {
    let (ex, _) = executor();
    let started = Rc::new(Cell::new(0));
    ex.block_on(TaskGroup::scope(async |g| {
        g.limit(1);
        for _ in 0..5 {
            let started = Rc::clone(&started);
            g.spawn(async move {
                started.set(started.get() + 1);
                sleep(SECOND).await;
            })
            .detach();
        }
        yield_n(2).await;
        assert_eq!(started.get(), 1);
        g.limit(4);
        yield_n(2).await;
        assert_eq!(started.get(), 4);
        g.cancel();
    }))
    .unwrap();
    assert_eq!(all_handed_on(&ex).cancelled, 5);
    let mut refused = pin!(TaskGroup::scope(async |g| {
        g.limit(0);
    }));
    let text = panic_message(|| ex.block_on(refused.as_mut()));
    assert!(text.contains("limit of 0"), "{text}");
}

/// A destructor that runs between two drives, because its group was dropped there, may drive the executor: what is being
/// destroyed is not polled, though it is in the run queue.
#[test]
fn a_destructor_between_drives_may_drive() {
    let (ex, _) = executor();
    let ex = Rc::new(ex);
    let trace = Trace::new();
    let (own, t, polls) = (Rc::clone(&ex), trace.clone(), trace.clone());
    let mut root = Box::pin(TaskGroup::scope(async move |g| {
        let driver = on_drop(move || {
            t.push("drives");
            own.run_until_stalled();
            t.push("has driven");
        });
        let event = Event::new();
        let waits = event.wait();
        g.spawn(holding(driver, async move {
            polls.push("polled");
            waits.await;
            polls.push("polled again");
        }))
        .detach();
        yield_n(1).await;
        event.pulse(); // woken, and not yet polled again
        LocalHandle::current().stop();
        pending::<()>().await;
    }));
    assert!(ex.try_block_on(root.as_mut()).is_err());
    let bystander = trace.clone();
    ex.spawn(async move { bystander.push("bystander") })
        .detach();
    drop(root);
    trace.assert(&["polled", "drives", "bystander", "has driven"]);
    assert_eq!(all_handed_on(&ex).cancelled, 1);
}

/// A destructor that runs between two drives may end the executor itself: nothing hangs, and what failed meanwhile is told.
#[test]
fn a_destructor_between_drives_may_end_the_executor() {
    let (ex, recorder) = executor();
    let log = DropLog::new();
    let (before, after) = (log.guard("before"), log.guard("after").panics("boom after"));
    let keeper = ex.spawn(async {});
    let handle = ex.handle();
    let slot = Rc::new(RefCell::new(None));
    let own = Rc::clone(&slot);
    let mut root = Box::pin(TaskGroup::scope(async move |g| {
        g.spawn(holding(before, pending::<()>())).detach();
        let ender = on_drop(move || drop(own.take()));
        g.spawn(holding(ender, pending::<()>())).detach();
        g.task()
            .name("after")
            .spawn(holding(after, pending::<()>()))
            .detach();
        LocalHandle::current().stop();
        pending::<()>().await;
    }));
    assert!(ex.try_block_on(root.as_mut()).is_err());
    *slot.borrow_mut() = Some(ex);
    drop(root);
    log.assert(&["before", "after"]);
    assert_eq!(recorder.only().task.as_deref(), Some("after"));
    let stats = check_stats(&handle.stats());
    assert_eq!(
        (stats.live, stats.cancelled, stats.failed, stats.unread),
        (0, 2, 1, 0)
    );
    drop(keeper);
}
