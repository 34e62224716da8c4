//! Hostile user code in odd places: memory given back under the feet of what is queued, woken or being dropped; groups and
//! combinators dropped where nothing is driven; handles of one executor in the combinators of another.

use std::cell::RefCell;
use std::future::{Future, pending, poll_fn};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};

use mainstay::{Executor, JoinHandle, JoinSet, gather, handles, race, spawn, yield_now};

use crate::borrowed::leak;
use crate::support::{
    DropLog, check_accounting, counting_waker, holding, on_drop, poll_with, quiet,
};

type Shared = Rc<Executor<'static>>;

/// Larger than any page's cells: the task has an allocation of its own, which goes with it.
const BIG: usize = 20_000;

/// Wakes itself `wakes` times in its first poll, leaves its waker and ends at the second.
fn wakes_itself<const N: usize>(
    wakes: usize,
    stash: &Rc<RefCell<Vec<Waker>>>,
) -> impl Future<Output = u8> + use<N> {
    let (stash, mut first) = (Rc::clone(stash), true);
    let filling = [7_u8; N];
    poll_fn(move |cx| {
        if std::mem::take(&mut first) {
            stash.borrow_mut().push(cx.waker().clone());
            (0..wakes).for_each(|_| cx.waker().wake_by_ref());
            return Poll::Pending;
        }
        Poll::Ready(filling[N - 1])
    })
}

fn wake_all(stash: &Rc<RefCell<Vec<Waker>>>) {
    for waker in stash.borrow().iter() {
        waker.wake_by_ref();
        waker.wake_by_ref();
    }
}

// P5: the task that was woken last is tried first by the next wake, also when its memory has gone back meanwhile.
#[test]
fn wakes_of_tasks_whose_memory_has_gone_back_touch_nothing() {
    let ex: Shared = Rc::new(Executor::new());
    let stash = Rc::default();
    for round in 0..4 {
        let handle = ex.spawn(wakes_itself::<BIG>(round, &stash));
        let small: Vec<_> = (0..100)
            .map(|_| ex.spawn(wakes_itself::<64>(round, &stash)))
            .collect();
        let within = Rc::downgrade(&ex);
        let wakers = Rc::clone(&stash);
        ex.block_on(async move {
            wake_all(&wakers);
            drop(small);
            yield_now().await;
            wake_all(&wakers);
            assert_eq!(handle.await.unwrap(), 7);
            if let Some(ex) = within.upgrade() {
                ex.shrink();
            }
            wake_all(&wakers);
            spawn(async move { wake_all(&wakers) }).await.unwrap();
        });
        ex.shrink();
        wake_all(&stash);
        ex.run_until_stalled();
    }
    check_accounting(&ex);
}

/// What a destructor does to the executor that it finds.
fn upsets(ex: &Weak<Executor<'static>>, log: &DropLog, name: &str) -> impl Drop + use<> {
    let (ex, guard) = (Weak::clone(ex), log.guard(name));
    on_drop(move || {
        let _guard = guard;
        if let Some(ex) = ex.upgrade() {
            ex.shrink();
            ex.spawn(async { yield_now().await }).detach();
            if !ex.is_running() {
                ex.run_until_stalled();
            }
            ex.shrink();
        }
    })
}

fn pending_holding<const N: usize>(
    held: impl Sized + 'static,
) -> Pin<Box<dyn Future<Output = ()>>> {
    Box::pin(holding(held, async {
        let filling = [1_u8; N];
        pending::<()>().await;
        assert_eq!(filling[N - 1], 1);
    }))
}

// P3, P6: a set that is dropped between drives destroys its tasks there and then; their destructors drive, spawn and shrink.
#[test]
fn destructors_between_drives_may_drive_and_shrink() {
    let ex: Shared = Rc::new(Executor::new());
    let (weak, log) = (Rc::downgrade(&ex), DropLog::new());
    for driven_before in [false, true] {
        let mut set = JoinSet::new_in(&ex.handle());
        let _ = set.limit(3);
        for n in 0..8 {
            set.spawn(holding(
                upsets(&weak, &log, &format!("small {n}")),
                pending::<()>(),
            ));
            set.spawn(pending_holding::<BIG>(upsets(
                &weak,
                &log,
                &format!("big {n}"),
            )));
            let held = upsets(&weak, &log, &format!("unboxed {n}"));
            set.spawn(async move {
                let (_held, filling) = (held, [1_u8; BIG]);
                pending::<()>().await;
                std::hint::black_box(filling);
            });
        }
        if driven_before {
            ex.run_until_stalled();
        }
        drop(set);
        assert_eq!(log.len(), if driven_before { 48 } else { 24 });
        ex.run_until_stalled();
        assert!(ex.is_empty());
        check_accounting(&ex);
    }
}

// P3: the destructor of a set's task, run between drives, ends the executor of which the set is.
#[test]
fn a_destructor_between_drives_may_end_the_executor() {
    let log = DropLog::new();
    let place: Rc<RefCell<Option<Executor<'static>>>> = Rc::default();
    let ex = Executor::new();
    let mut set = JoinSet::new_in(&ex.handle());
    let mut handles_of_others = Vec::new();
    for n in 0..6 {
        let (place, guard) = (Rc::clone(&place), log.guard(n.to_string()));
        let ends = on_drop(move || {
            let _guard = guard;
            let ex = place.borrow_mut().take();
            drop(ex);
        });
        set.spawn(async move {
            let (_ends, filling) = (ends, [0_u8; BIG]);
            pending::<()>().await;
            std::hint::black_box(filling);
        });
        handles_of_others.push(ex.spawn(holding(log.guard("other"), pending::<()>())));
    }
    ex.run_until_stalled();
    place.replace(Some(ex));
    drop(set);
    assert_eq!((log.len(), log.count("other")), (12, 6));
    for mut handle in handles_of_others {
        assert!(handle.result().unwrap().unwrap_err().is_cancelled());
    }
}

// P4, section 7: a leaked executor's borrowing task is named by a handle in a group of another executor. Cancelling it there
// must neither run nor drop it.
#[test]
fn handles_of_a_leaked_executor_in_anothers_combinators_touch_nothing() {
    let log = DropLog::new();
    let mut held: Vec<JoinHandle<()>> = Vec::new();
    {
        let lent = Box::new(log.guard("lent"));
        let ex: Executor<'_> = Executor::new();
        for _ in 0..3 {
            let (lent, guard) = (&lent, log.guard("borrower"));
            held.push(ex.spawn(async move {
                let _guard = guard;
                pending::<()>().await;
                let _ = &lent;
            }));
        }
        ex.run_until_stalled();
        leak(ex);
    }
    log.assert(&["lent"]);
    let other: Executor<'static> = Executor::new();
    let (a, rest) = (held.pop().unwrap(), held);
    let mut set = JoinSet::new_in(&other.handle());
    set.spawn(async move {
        drop(gather(handles(rest)).await);
    });
    other.block_on(async {
        let won = race([
            Box::pin(async move {
                drop(race(handles([a])).await);
            }) as Pin<Box<dyn Future<Output = ()>>>,
            Box::pin(yield_now()),
        ])
        .await;
        won.unwrap();
    });
    other.run_until_stalled();
    drop(set);
    other.run_until_stalled();
    assert!(other.is_empty());
    drop(other);
    log.assert(&["lent"]);
}

// P5: a combinator over handles of two executors, one driven inside of the other, loses no wake.
#[test]
fn a_gather_over_tasks_of_a_nested_executor_is_woken() {
    let outer: Shared = Rc::new(Executor::new());
    let inner: Shared = Rc::new(Executor::new());
    let within = Rc::clone(&inner);
    let all = inner.spawn(async {
        yield_now().await;
        1
    });
    let fails = inner.spawn(async { 2 });
    let drives = outer.spawn(async move {
        for _ in 0..5 {
            within.tick(1);
            within.shrink();
            yield_now().await;
        }
        3
    });
    let sum: i32 = outer
        .block_on(gather(handles([all, drives, fails])))
        .unwrap()
        .into_iter()
        .sum();
    assert_eq!(sum, 6);
    check_accounting(&outer);
    check_accounting(&inner);
}

// P2, P3: a combinator that is first polled in a drive and dropped between drives ends its tasks, and their failures are told.
#[test]
fn a_combinator_dropped_between_drives_tells_what_failed() {
    quiet();
    for panics in [false, true] {
        let ex: Shared = Rc::new(Executor::new());
        let (log, weak) = (DropLog::new(), Rc::downgrade(&ex));
        let (waker, _count) = counting_waker();
        let mut all = Box::pin(gather((0..5).map(|n| {
            let held = upsets(&weak, &log, "member");
            async move {
                let _held = held;
                if n == 3 {
                    yield_now().await;
                    assert!(!panics, "member {n}");
                }
                pending::<()>().await;
            }
        })));
        ex.block_on(async {
            assert!(poll_with(&mut all, &waker).is_pending());
        });
        ex.run_until_stalled();
        drop(all);
        assert_eq!(log.len(), 5);
        ex.run_until_stalled();
        assert!(ex.is_empty());
        check_accounting(&ex);
        assert_eq!(ex.stats().failed, u64::from(panics));
        assert_eq!(ex.stats().unread, 0);
    }
}

type Handles = Vec<JoinHandle<()>>;

/// Drops what it has when its thread ends.
struct AtExit<T>(RefCell<Option<T>>);

thread_local! {
    static SETS: AtExit<(JoinSet<()>, Handles)> = const { AtExit(RefCell::new(None)) };
    static EXECUTOR: AtExit<Shared> = const { AtExit(RefCell::new(None)) };
}

// P1, P4: sets, handles and executor in thread-locals, which go in one order or the other when the thread ends.
#[test]
fn thread_locals_may_drop_sets_and_executors_in_any_order() {
    for sets_first in [false, true] {
        let dropped = std::thread::spawn(move || {
            let touch = [
                || EXECUTOR.with(|ex| drop(ex.0.borrow())),
                || SETS.with(|sets| drop(sets.0.borrow())),
            ];
            touch[usize::from(sets_first)]();
            touch[usize::from(!sets_first)]();
            let ex: Shared = Rc::new(Executor::new());
            let counter = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
            let mut set = JoinSet::new_in(&ex.handle());
            let weak = Rc::downgrade(&ex);
            let mut kept = Vec::new();
            for _ in 0..4 {
                let make = || {
                    let (weak, counter) = (Weak::clone(&weak), counter.clone());
                    on_drop(move || {
                        counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                        if let Some(ex) = weak.upgrade() {
                            ex.shrink();
                            ex.spawn(async {}).detach();
                        }
                        drop(mainstay::LocalHandle::try_current());
                    })
                };
                let held = make();
                set.spawn(async move {
                    let (_held, filling) = (held, [0_u8; BIG]);
                    pending::<()>().await;
                    std::hint::black_box(filling);
                });
                kept.push(ex.spawn(holding(make(), pending::<()>())));
            }
            ex.run_until_stalled();
            SETS.with(|sets| sets.0.replace(Some((set, kept))));
            EXECUTOR.with(|place| place.0.replace(Some(ex)));
            counter
        })
        .join()
        .unwrap();
        assert_eq!(dropped.load(std::sync::atomic::Ordering::SeqCst), 8);
    }
}

// P7: tasks that are held back, queued, cancelled and given back in every order leave an arena that works.
#[test]
fn held_back_tasks_may_go_while_queued() {
    let ex: Shared = Rc::new(Executor::new());
    let stash: Rc<RefCell<Vec<Waker>>> = Rc::default();
    for round in 0..12 {
        let mut set = JoinSet::new_in(&ex.handle());
        let _ = set.limit(1 + round % 3);
        let ids: Vec<_> = (0..90)
            .map(|n| {
                if n % 7 == 0 {
                    set.spawn(async move {
                        let stored = wakes_itself::<BIG>(n % 4, &Rc::default());
                        stored.await;
                    })
                } else {
                    let stash = Rc::clone(&stash);
                    set.spawn(async move {
                        wakes_itself::<32>(n % 4, &stash).await;
                    })
                }
            })
            .collect();
        if round % 2 == 0 {
            ex.tick(5);
        }
        for id in ids.iter().skip(round).step_by(2) {
            set.cancel(*id);
        }
        wake_all(&stash);
        ex.shrink();
        ex.tick(7);
        wake_all(&stash);
        ex.shrink();
        if round % 4 == 3 {
            set.detach_all();
        } else {
            drop(set);
        }
        wake_all(&stash);
        stash.borrow_mut().clear();
        ex.run_until_stalled();
        ex.shrink();
        check_accounting(&ex);
    }
}
