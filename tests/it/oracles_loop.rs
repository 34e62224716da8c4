//! Oracles (see `oracles.md`): the loop, its last look before it parks, and the loop around it.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::panic::panic_any;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::thread::{self, ThreadId};
use std::time::Duration;

use mainstay::{ContextKind, Executor, JoinHandle, LocalHandle, sleep};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::remote::without_hanging;
use crate::support::{
    Boom, Event, Fault, Recorder, check_accounting, counts, holding, on_drop, quiet,
};

// ---------------------------------------------------------------------------------------------------------------------
// Before it parks
// ---------------------------------------------------------------------------------------------------------------------

/// What user code does where it runs last, so that the root goes on.
type Act = Rc<dyn Fn()>;

/// A foreign waker that acts. It stays on its thread, which it checks.
struct Acts(ThreadId);

thread_local! {
    static FOREIGN_ACT: Cell<Option<Act>> = const { Cell::new(None) };
}

impl Wake for Acts {
    fn wake(self: Arc<Self>) {
        assert_eq!(self.0, thread::current().id());
        if let Some(act) = FOREIGN_ACT.take() {
            act();
        }
    }
}

fn acting_waker(act: Act) -> Waker {
    FOREIGN_ACT.set(Some(act));
    Waker::from(Arc::new(Acts(thread::current().id())))
}

/// Puts an act into a place where user code runs.
type Place = fn(&Executor<'static>, Act);

/// All places that can be the last one in a pass, or come after it, just before parking.
const PLACES: &[(&str, Place)] = &[
    ("a poll", |ex, act| ex.spawn(async move { act() }).detach()),
    ("a future's destructor", |ex, act| {
        let guard = on_drop(move || act());
        ex.spawn(holding(guard, async {})).detach();
    }),
    ("an output's destructor", |ex, act| {
        ex.spawn(async move { on_drop(move || act()) }).detach();
    }),
    ("a payload's destructor", |ex, act| {
        // A payload is `Send`; this one leaves the act behind.
        struct Payload;
        impl Drop for Payload {
            fn drop(&mut self) {
                if let Some(act) = FOREIGN_ACT.take() {
                    act();
                }
            }
        }
        FOREIGN_ACT.set(Some(act));
        ex.spawn(async { std::panic::resume_unwind(Box::new(Payload)) })
            .detach();
    }),
    ("the destructor of what is cancelled", |ex, act| {
        let guard = on_drop(move || act());
        let victim = ex.spawn(holding(guard, std::future::pending::<()>()));
        ex.spawn(async move { victim.cancel() }).detach();
    }),
    ("the handler, told of a panic", |ex, act| {
        ex.set_exception_handler(move |_, _| act());
        ex.spawn(async { panic_any(Boom("in a task")) }).detach();
    }),
    ("the handler, told of an error", |ex, act| {
        ex.set_exception_handler(move |_, _| act());
        ex.spawn_fallible(async { Err::<(), _>(Fault("of a task")) })
            .detach();
    }),
    ("a done callback", |ex, act| {
        let handle = ex.spawn(async {});
        handle.add_done_callback(move |_| act());
        handle.detach();
    }),
    ("a late done callback", |ex, act| {
        let handle = ex.spawn(async {});
        ex.run_until_stalled();
        handle.add_done_callback(move |_| act());
        handle.detach();
    }),
    ("the captures of a done callback", |ex, act| {
        let handle = ex.spawn(async {});
        let guard = on_drop(move || act());
        handle.add_done_callback(move |_| {
            let _held = &guard;
        });
        handle.detach();
    }),
    ("a callback", |ex, act| drop(ex.call_soon(move || act()))),
    ("a callback whose time has come", |ex, act| {
        drop(ex.call_later(Duration::ZERO, move || act()));
    }),
    ("a callback whose time comes", |ex, act| {
        drop(ex.call_later(Duration::from_millis(1), move || act()));
    }),
    ("a closure from another thread", |ex, act| {
        FOREIGN_ACT.set(Some(act));
        let sent = ex.spawner().call_soon(|_| {
            if let Some(act) = FOREIGN_ACT.take() {
                act();
            }
        });
        assert!(sent.is_ok());
    }),
    ("a foreign waker that awaits a task", |ex, act| {
        let waker = acting_waker(act);
        let mut handle: JoinHandle<()> = ex.spawn(async {});
        let polled = Pin::new(&mut handle).poll(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
        // Kept: a handle that is dropped wakes nobody.
        ex.task()
            .background()
            .spawn(holding(handle, std::future::pending::<()>()))
            .detach();
    }),
    ("a foreign waker that waits for a time", |ex, act| {
        let waker = acting_waker(act);
        let mut nap = Box::pin(None);
        ex.task()
            .background()
            .spawn(poll_fn(move |_| {
                let nap = nap.get_or_insert_with(|| sleep(Duration::from_millis(1)));
                // Polled by somebody else, who is to be woken.
                Pin::new(nap)
                    .poll(&mut Context::from_waker(&waker))
                    .map(|()| unreachable!("polled once"))
            }))
            .detach();
    }),
];

// tokio rt_common_before_park::{before_park_wakes_block_on_task, before_park_spawns_task}: there is no hook before parking
// here; what runs last may be any of these, and may wake the root or spawn.
#[test]
fn what_user_code_does_last_keeps_the_loop_from_parking() {
    quiet();
    without_hanging(|| {
        for (name, place) in PLACES {
            for spawns in [false, true] {
                let ex = Executor::<'static>::new();
                ex.set_exception_handler(|_, _| {});
                let event = Event::new();
                let woken = event.clone();
                let handle = ex.handle();
                let act: Act = Rc::new(move || match spawns {
                    false => woken.set(),
                    true => {
                        let woken = woken.clone();
                        handle.spawn(async move { woken.set() }).detach();
                    }
                });
                place(&ex, act);
                ex.block_on(event.wait());
                assert!(!event.is_awaited(), "{name}");
                check_accounting(&ex);
            }
        }
    });
}

// ---------------------------------------------------------------------------------------------------------------------
// Inside another loop
// ---------------------------------------------------------------------------------------------------------------------

// tokio task_local_set::local_tasks_are_polled_after_tick (1899, 1900): what the outer runtime wakes is polled, although the
// loop inside had just been made to stop.
#[test]
fn tasks_that_an_outer_runtime_wakes_are_polled_in_a_later_tick_1899() {
    quiet();
    without_hanging(|| {
        const TASKS: usize = 500;
        let outer = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime without drivers");
        outer.block_on(async {
            let ex = Executor::<'static>::new();
            let recorder = Recorder::on(&ex);
            let look = Arc::new(Notify::new());
            let hook = Arc::clone(&look);
            ex.on_wake(move || hook.notify_one());

            let (to_tasks, mut tasks) = mpsc::unbounded_channel::<oneshot::Receiver<usize>>();
            let sender = tokio::spawn(async move {
                tokio::task::yield_now().await;
                let mut senders = Vec::new();
                for _ in 0..TASKS {
                    let (sender, receiver) = oneshot::channel();
                    to_tasks.send(receiver).expect("the task inside lives");
                    senders.push(sender);
                }
                for (n, sender) in senders.into_iter().enumerate() {
                    if n % 100 == 0 {
                        tokio::task::yield_now().await;
                    }
                    sender.send(n).expect("the task inside lives");
                }
            });
            ex.spawn(async move {
                while let Some(number) = tasks.recv().await {
                    let task = async move {
                        match number.await.expect("all are sent") {
                            n if n % 10 == 3 => panic!("boom"),
                            n if n % 10 == 7 => Err(Fault("boom")),
                            n => Ok(n),
                        }
                    };
                    mainstay::spawn_fallible(task).detach();
                }
            })
            .detach();

            while !ex.is_empty() {
                if ex.tick(61).more {
                    tokio::task::yield_now().await;
                } else {
                    look.notified().await;
                }
            }
            sender.await.expect("it has sent all");
            assert_eq!(recorder.kinds(), [ContextKind::TaskFailed; TASKS / 5]);
            let counts = counts(&ex);
            assert_eq!((counts.returned, counts.failed), (401, 100));
        });
    });
}

// ---------------------------------------------------------------------------------------------------------------------
// Until nobody is left
// ---------------------------------------------------------------------------------------------------------------------

// tokio-util task_tracker::close_during_exit: the wait may begin at any moment of the others' going.
#[test]
fn a_wait_for_all_may_begin_while_they_go() {
    const TASKS: usize = 5;
    quiet();
    for begins in 0..=TASKS {
        let ex = Executor::<'static>::new();
        ex.set_exception_handler(|_, _| {});
        let events: Vec<Event> = (0..TASKS).map(|_| Event::new()).collect();
        for (n, event) in events.iter().enumerate() {
            let wait = event.wait();
            ex.spawn_fallible(async move {
                wait.await;
                match n % 3 {
                    0 => Ok(()),
                    1 => Err(Fault("boom")),
                    _ => panic!("boom"),
                }
            })
            .detach();
        }
        ex.run_until_stalled();
        let is_over = Rc::new(Cell::new(false));
        for n in 0..=TASKS {
            if n == begins {
                let (over, handle) = (Rc::clone(&is_over), ex.handle());
                ex.task()
                    .background()
                    .spawn(async move {
                        handle.idle().await;
                        over.set(true);
                    })
                    .detach();
            }
            ex.run_until_stalled();
            assert_eq!(is_over.get(), n == TASKS);
            if let Some(event) = events.get(n) {
                event.set();
            }
        }
    }
}

// tokio-util task_tracker::notify_on_last_task_respawn: there a closed tracker's wait is over once nobody was left, here it
// is over when nobody is left: what the last task's end brings about is waited for as well.
#[test]
fn a_wait_for_all_includes_who_comes_as_the_last_one_goes() {
    quiet();
    let places: [Place; 4] = [
        |ex, act| {
            let handle = ex.spawn(async {});
            handle.add_done_callback(move |_| act());
        },
        |ex, act| {
            ex.spawn(holding(on_drop(move || act()), async {})).detach();
        },
        |ex, act| {
            ex.set_exception_handler(move |_, _| act());
            ex.spawn(async { panic!("boom") }).detach();
        },
        |ex, act| {
            ex.set_exception_handler(move |_, _| act());
            ex.spawn_fallible(async { Err::<(), _>(Fault("boom")) })
                .detach();
        },
    ];
    for place in places {
        let ex = Executor::<'static>::new();
        let heirs = Rc::new(Cell::new(0));
        let ended = Rc::clone(&heirs);
        place(
            &ex,
            Rc::new(move || {
                let ended = Rc::clone(&ended);
                LocalHandle::current()
                    .spawn(async move {
                        mainstay::yield_now().await;
                        ended.set(ended.get() + 1);
                    })
                    .detach();
            }),
        );
        ex.block_on(ex.idle());
        assert_eq!((heirs.get(), ex.len()), (1, 0));
    }
}
