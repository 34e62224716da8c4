//! Tasks that borrow: what they may borrow, how they spawn others that do, and that nothing which may borrow is run or
//! dropped once the borrow may have ended.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

use mainstay::{CancelOnDrop, Executor, JoinHandle, LocalHandle, yield_now};

use crate::remote::elsewhere;
use crate::support::{DropLog, Event, Recorder, Trace, check_accounting, counts, holding, yield_n};
use crate::wake::Probe;

/// Leaks an executor or a future as `std::mem::forget` does, in a place where a leak checker finds it again.
pub(crate) fn leak<T>(leaked: T) {
    static LEAKED: Mutex<Vec<usize>> = Mutex::new(Vec::new());
    let address = Box::into_raw(Box::new(leaked)).expose_provenance();
    let mut all = LEAKED.lock().unwrap_or_else(PoisonError::into_inner);
    all.push(address);
}

/// Borrows a counter that its owner may read again once the borrower is gone, and counts polls and drops there.
struct Borrower<'a> {
    polls: &'a Cell<usize>,
    drops: &'a Cell<usize>,
}

impl Future for Borrower<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        self.polls.set(self.polls.get() + 1);
        Poll::Pending
    }
}

impl Drop for Borrower<'_> {
    fn drop(&mut self) {
        self.drops.set(self.drops.get() + 1);
    }
}

/// Borrows a counter, too, and is the output of a task.
struct Output<'a> {
    drops: &'a Cell<usize>,
}

impl Drop for Output<'_> {
    fn drop(&mut self) {
        self.drops.set(self.drops.get() + 1);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// What may be borrowed
// ---------------------------------------------------------------------------------------------------------------------

// api.md on Executor: tasks may borrow from outside.
#[test]
fn tasks_may_borrow_what_outlives_the_executor() {
    let words = vec!["a".to_owned(), "b".to_owned()];
    let total = Cell::new(0);
    let ex = Executor::new();
    for word in &words {
        let total = &total;
        ex.spawn(async move {
            yield_now().await;
            total.set(total.get() + word.len());
        })
        .detach();
    }
    ex.run_until_stalled();
    assert_eq!(total.get(), 2);
}

// api.md on Executor: an exclusive borrow, too, which ends with the executor.
#[test]
fn a_task_may_borrow_exclusively_and_the_owner_gets_it_back() {
    let mut list = vec![1];
    {
        let ex = Executor::new();
        let list = &mut list;
        let handle = ex.spawn(async {
            for i in 2..5 {
                yield_now().await;
                list.push(i);
            }
        });
        ex.block_on(handle).expect("the task returns");
    }
    list.push(5);
    assert_eq!(list, [1, 2, 3, 4, 5]);
}

// api.md on spawn: the output may borrow, too.
#[test]
fn an_output_may_borrow() {
    let text = "one two".to_owned();
    let ex = Executor::new();
    let first = ex.spawn(async { text.split(' ').next().expect("it has a first word") });
    let second = ex.spawn_fallible(async { text.split(' ').nth(1).ok_or("it has one word only") });
    let (first, second) = ex.block_on(async { (first.await, second.await) });
    assert_eq!(first.expect("it returns"), "one");
    assert_eq!(second.expect("it returns"), Ok("two"));
}

// api.md on block_on: the root is neither 'static nor 'env.
#[test]
fn a_root_may_borrow_less_than_the_tasks_do() {
    let outer = Cell::new(1);
    let ex = Executor::new();
    let task = ex.spawn(async {
        yield_now().await;
        outer.get()
    });
    // Younger than the executor, so a task could not borrow it.
    let mut inner = vec![10];
    let borrowed = &mut inner;
    let sum = ex.block_on(async {
        borrowed.push(20);
        let task = task.await.expect("the task returns");
        task + borrowed.iter().sum::<i32>()
    });
    inner.push(sum);
    assert_eq!(inner, [10, 20, 31]);
}

// api.md on LocalHandle: a borrowing task spawns borrowing tasks through it.
#[test]
fn a_borrowing_task_spawns_borrowing_tasks_through_the_handle() {
    let names = ["a".to_owned(), "b".to_owned(), "c".to_owned()];
    let trace = Trace::new();
    let ex = Executor::new();
    let local = ex.handle();
    let names = &names;
    let pushes = &trace;
    let outer = ex.spawn(async move {
        let mut handles = Vec::new();
        for name in names {
            handles.push(local.spawn(async move {
                yield_now().await;
                pushes.push(name.as_str());
                name.len()
            }));
        }
        let named = local.task().name("named").spawn(async { names.len() });
        assert_eq!(named.name(), "named");
        let fallible = local.spawn_fallible(async { names.first().ok_or("no names") });
        let mut sum = 0;
        for handle in handles {
            sum += handle.await.expect("the task returns");
        }
        let first = fallible.await.expect("it is not cancelled");
        (sum, named.await.expect("the task returns"), first)
    });
    let result = ex.block_on(outer).expect("the task returns");
    assert_eq!(result, (3, 3, Ok(&names[0])));
    trace.assert(&["a", "b", "c"]);
}

// api.md on LocalHandle: borrowing tasks that spawn each other, to some depth.
#[test]
fn borrowing_tasks_spawn_each_other_to_any_depth() {
    fn descend<'env>(
        local: LocalHandle<'env>,
        visits: &'env Cell<usize>,
        depth: usize,
    ) -> Pin<Box<dyn Future<Output = ()> + 'env>> {
        Box::pin(async move {
            visits.set(visits.get() + 1);
            if depth > 0 {
                let child = local.spawn(descend(local.clone(), visits, depth - 1));
                child.await.expect("the child returns");
            }
        })
    }
    let visits = Cell::new(0);
    let ex = Executor::new();
    let root = ex.spawn(descend(ex.handle(), &visits, 50));
    ex.block_on(root).expect("the task returns");
    assert_eq!(visits.get(), 51);
}

// Design section 7: a handle that is not driven only stores.
#[test]
fn a_handle_spawns_between_drives_and_polls_nothing() {
    let polls = Cell::new(0);
    let drops = Cell::new(0);
    let ex = Executor::new();
    let local = ex.handle();
    ex.set_exception_handler(|_, _| {});
    let handle = local.spawn(Borrower {
        polls: &polls,
        drops: &drops,
    });
    assert_eq!((polls.get(), drops.get()), (0, 0));
    assert_eq!(ex.len(), 1);
    ex.run_until_stalled();
    assert_eq!((polls.get(), drops.get()), (1, 0));
    drop(ex);
    assert_eq!((polls.get(), drops.get()), (1, 1));
    assert!(handle.is_cancelled());
}

// api.md on Executor: the end of the executor ends the borrows.
#[test]
fn the_executor_drops_what_borrows_before_the_borrow_ends() {
    let log = DropLog::new();
    let owner = log.guard("owner");
    {
        let ex = Executor::new();
        let owner = &owner;
        ex.task()
            .background()
            .spawn(holding(log.guard("task"), async move {
                let _borrow = owner;
                pending::<()>().await;
            }))
            .detach();
        ex.run_until_stalled();
    }
    log.assert(&["task"]);
    drop(owner);
    log.assert(&["task", "owner"]);
}

// Design section 7: an output that borrows is guarded by the type of its handle, and stays with it.
#[test]
fn an_output_that_borrows_outlives_the_executor_in_its_handle() {
    let text = "borrowed".to_owned();
    let mut handle;
    {
        let ex = Executor::new();
        handle = ex.spawn(async { text.as_str() });
        ex.run_until_stalled();
    }
    let output = handle.result().expect("it has ended").expect("well");
    assert_eq!(output, "borrowed");
}

// Design section 7: the same where the output's destructor uses the borrow.
#[test]
fn an_unread_output_that_borrows_is_dropped_with_its_handle() {
    let drops = Cell::new(0);
    let handle: JoinHandle<Output<'_>>;
    {
        let ex = Executor::new();
        let output = Output { drops: &drops };
        handle = ex.spawn(async move { output });
        ex.run_until_stalled();
    }
    assert_eq!(drops.get(), 0);
    drop(handle);
    assert_eq!(drops.get(), 1);
}

// P4, design section 7: borrowing tasks talk to each other through what they borrow.
#[test]
fn borrowing_tasks_share_state_without_reference_counts() {
    let queue = RefCell::new(Vec::new());
    let event = Event::new();
    let received = RefCell::new(Vec::new());
    let ex = Executor::new();
    let consumer = ex.spawn(async {
        event.wait().await;
        received.borrow_mut().append(&mut queue.borrow_mut());
    });
    let producer = ex.spawn(async {
        for i in 0..3 {
            queue.borrow_mut().push(i);
            yield_now().await;
        }
        event.set();
    });
    ex.block_on(async {
        producer.await.expect("the task returns");
        consumer.await.expect("the task returns");
    });
    assert_eq!(*received.borrow(), [0, 1, 2]);
}

// ---------------------------------------------------------------------------------------------------------------------
// Cancels that wait
// ---------------------------------------------------------------------------------------------------------------------

// Design section 7: while nobody drives the executor, a cancel marks; the next pass drops.
#[test]
fn a_cancel_between_two_drives_waits_for_the_next_pass() {
    let (polls, drops) = (Cell::new(0), Cell::new(0));
    let ex = Executor::new();
    let borrower = || Borrower {
        polls: &polls,
        drops: &drops,
    };
    let by_handle = ex.spawn(borrower());
    let by_cancel_handle = ex.spawn(borrower());
    let by_drop = ex.spawn(borrower()).cancel_on_drop();
    ex.run_until_stalled();
    assert_eq!(polls.get(), 3);
    assert!(by_handle.cancel());
    assert!(by_cancel_handle.cancel_handle().cancel());
    drop(by_drop);
    assert_eq!(drops.get(), 0, "the futures are still there");
    assert!(!by_handle.is_finished());
    assert!(by_handle.cancel(), "true for as long as it is not finished");
    ex.run_until_stalled();
    assert_eq!((polls.get(), drops.get()), (3, 3), "dropped without a poll");
    assert!(by_handle.is_cancelled() && by_cancel_handle.is_cancelled());
    assert!(!by_handle.cancel());
    assert_eq!(counts(&ex).cancelled, 3);
}

// api.md on cancel, design section 7: while the executor is driven, the future is gone before `cancel` returns.
#[test]
fn a_cancel_in_a_drive_takes_effect_at_once() {
    let (polls, drops) = (Cell::new(0), Cell::new(0));
    let ex = Executor::new();
    let handle = ex.spawn(Borrower {
        polls: &polls,
        drops: &drops,
    });
    ex.block_on(async {
        yield_n(2).await;
        assert_eq!((polls.get(), drops.get()), (1, 0));
        assert!(handle.cancel());
        assert_eq!(drops.get(), 1);
        assert!(handle.is_cancelled());
    });
}

// Design section 7: driving another executor does not count.
#[test]
fn a_cancel_while_another_executor_is_driven_waits() {
    let (polls, drops) = (Cell::new(0), Cell::new(0));
    let ex = Executor::new();
    let handle = ex.spawn(Borrower {
        polls: &polls,
        drops: &drops,
    });
    ex.run_until_stalled();
    Executor::new().block_on(async {
        assert!(handle.cancel());
        assert_eq!(drops.get(), 0);
    });
    ex.run_until_stalled();
    assert_eq!(drops.get(), 1);
}

// Design section 7: marked, and then the executor ends before any other pass.
#[test]
fn a_cancel_that_waits_is_done_by_the_end_of_the_executor() {
    let (polls, drops) = (Cell::new(0), Cell::new(0));
    let ex = Executor::new();
    let recorder = Recorder::on(&ex);
    let handle = ex.spawn(Borrower {
        polls: &polls,
        drops: &drops,
    });
    assert!(handle.cancel());
    drop(ex);
    assert_eq!((polls.get(), drops.get()), (0, 1));
    assert!(handle.is_cancelled());
    assert!(recorder.is_empty(), "it was cancelled, not destroyed");
}

// ---------------------------------------------------------------------------------------------------------------------
// Leaked executors
// ---------------------------------------------------------------------------------------------------------------------

/// The handles of a task whose borrow has ended, on an executor that was leaked.
struct Survivors {
    pending: JoinHandle<()>,
    never_polled: JoinHandle<()>,
    guarded: CancelOnDrop<()>,
    ran: Rc<Cell<usize>>,
    probe: Probe,
}

/// Says when it is polled or dropped, through something that it owns: the borrow beside it may be gone by then.
struct Sensitive<'a> {
    _borrow: &'a String,
    ran: Rc<Cell<usize>>,
    probe: crate::wake::ProbeTask,
}

impl Future for Sensitive<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.ran.set(self.ran.get() + 1);
        Pin::new(&mut self.probe).poll(cx)
    }
}

impl Drop for Sensitive<'_> {
    fn drop(&mut self) {
        self.ran.set(self.ran.get() + 1_000);
    }
}

fn survivors() -> Survivors {
    let ran = Rc::new(Cell::new(0));
    let probe = Probe::new();
    let borrowed = "gone at the end of this function".to_owned();
    let ex = Executor::new();
    let sensitive = || Sensitive {
        _borrow: &borrowed,
        ran: Rc::clone(&ran),
        probe: probe.task(),
    };
    let pending = ex.spawn(sensitive());
    let guarded = ex.spawn(sensitive()).cancel_on_drop();
    ex.run_until_stalled();
    let never_polled = ex.spawn(sensitive());
    leak(ex);
    assert_eq!(ran.get(), 2);
    Survivors {
        pending,
        never_polled,
        guarded,
        ran,
        probe,
    }
}

// Design section 7; glommio #335: scoped tasks were unsound with mem::forget.
#[test]
fn cancelling_a_task_of_a_leaked_executor_runs_nothing_that_borrows() {
    let survivors = survivors();
    assert!(survivors.pending.cancel());
    assert!(survivors.pending.cancel_with_reason("again"));
    assert!(survivors.never_polled.cancel_handle().cancel());
    drop(survivors.guarded);
    assert!(!survivors.pending.is_finished() && !survivors.pending.is_cancelled());
    assert_eq!(survivors.ran.get(), 2, "neither polled nor dropped");
}

// Design section 7: nor does dropping the handles.
#[test]
fn dropping_the_handles_of_a_leaked_executor_runs_nothing_that_borrows() {
    let Survivors {
        pending,
        never_polled,
        guarded,
        ran,
        probe,
    } = survivors();
    drop(pending);
    never_polled.detach();
    drop(guarded);
    drop(probe);
    assert_eq!(ran.get(), 2);
}

// Design section 7: nor does waking, from anywhere.
#[test]
fn waking_a_task_of_a_leaked_executor_runs_nothing_that_borrows() {
    let survivors = survivors();
    survivors.probe.complete();
    elsewhere(|| survivors.probe.wake());
    let probe = survivors.probe.clone();
    let ex = Executor::new();
    ex.spawn(async move {
        probe.wake();
        yield_n(3).await;
    })
    .detach();
    ex.run_until_stalled();
    assert_eq!(survivors.ran.get(), 2);
}

// Design section 7: nor does another executor on that thread that is driven meanwhile, with a slot of the same index.
#[test]
fn driving_another_executor_runs_nothing_of_a_leaked_one() {
    let survivors = survivors();
    let ex = Executor::new();
    ex.block_on(async {
        let tasks: Vec<JoinHandle<()>> = (0..4).map(|_| mainstay::spawn(yield_n(2))).collect();
        assert!(survivors.pending.cancel());
        drop(survivors.guarded);
        survivors.probe.complete();
        for task in tasks {
            task.await.expect("the task returns");
        }
    });
    drop(ex);
    let cancel = survivors.never_polled.cancel_handle();
    assert!(elsewhere(|| cancel.cancel()));
    assert_eq!(survivors.ran.get(), 2);
}

// Design section 7: the handle of a leaked executor stores what it is given, and drops nothing of what is there.
#[test]
fn spawning_on_a_leaked_executor_stores_only() {
    let log = DropLog::new();
    let ex = Executor::<'static>::new();
    let local = ex.handle();
    leak(ex);
    let join = local.spawn(holding(log.guard("stored"), async {
        unreachable!("not driven")
    }));
    assert!(!join.is_finished());
    assert!(join.cancel());
    assert_eq!(local.tasks().len(), 1);
    drop(join);
    drop(local);
    assert_eq!(log.len(), 0);
}

// Design section 7: what a handle of a leaked executor guards by its own type, it gives and drops.
#[test]
fn the_outcome_of_a_leaked_executors_task_stays_with_its_handle() {
    let drops = Cell::new(0);
    let output = || Output { drops: &drops };
    let ex = Executor::new();
    let mut read = ex.spawn(async { output() });
    let unread = ex.spawn(async { output() });
    ex.run_until_stalled();
    leak(ex);
    drop(read.result().expect("it has ended").expect("well"));
    assert_eq!(drops.get(), 1);
    drop(unread);
    assert_eq!(drops.get(), 2);
}

// Design section 7: an executor is leaked while it is driven, that is, its drive unwinds out of a leaked box.
#[test]
fn an_executor_that_is_leaked_after_its_root_panicked_is_not_driven_any_more() {
    crate::support::quiet();
    let drops = Cell::new(0);
    let polls = Cell::new(0);
    let handle;
    {
        let ex = Executor::new();
        handle = ex.spawn(Borrower {
            polls: &polls,
            drops: &drops,
        });
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            ex.block_on(async {
                yield_now().await;
                panic!("boom in the root");
            });
        }));
        assert!(result.is_err());
        leak(ex);
    }
    assert!(handle.cancel());
    assert_eq!((polls.get(), drops.get()), (1, 0));
}

// P1, P2: borrowed tasks are counted and kept like any other.
#[test]
fn borrowing_tasks_are_owned_by_the_arena() {
    let hits = Cell::new(0);
    let event = Event::new();
    let ex = Executor::new();
    for _ in 0..10 {
        // The handle is dropped at once; nobody but the event knows the task.
        drop(ex.spawn(async {
            event.wait().await;
            hits.set(hits.get() + 1);
        }));
    }
    ex.run_until_stalled();
    check_accounting(&ex);
    assert_eq!(ex.len(), 10);
    event.set();
    ex.block_on(poll_fn(|cx| {
        if hits.get() == 10 {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }));
    check_accounting(&ex);
    assert!(ex.is_empty());
}
