//! mainstay as the guest of a host loop: calloop owns the thread, waits, and calls back.
//!
//! ```text
//! cargo run --release --example calloop_host
//! ```
//!
//! Three wires join the two, all of them in `Guest`:
//!
//! 1. The executor's `on_wake` hook pings the host, from whichever thread makes work.
//! 2. The ping's callback ticks the executor. If there is more to do, it pings again, so that the host's other sources
//!    have their turn in between.
//! 3. After each tick the host's own timer is set to the executor's next deadline.
//!
//! Nothing here blocks, and no thread is added. The host goes on drawing its frames all the while.

#![expect(clippy::print_stdout, reason = "an example talks to its reader")]

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use calloop::ping::{Ping, make_ping};
use calloop::timer::{TimeoutAction, Timer};
use calloop::{EventLoop, LoopHandle, LoopSignal, RegistrationToken};
use mainstay::{Executor, LocalHandle, sleep};

/// How many polls and callbacks a tick makes at most: the host has its turn after that.
const BUDGET: usize = 64;

/// How often the host draws.
const FRAME: Duration = Duration::from_millis(2);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    quiet_in_tasks();
    let mut host: EventLoop<'static, ()> = EventLoop::try_new()?;
    let guest = Guest::new(&host.handle())?;

    // Work of the host's own: it draws. Its callback is synchronous, and spawns a task when it finds a click.
    let window = Rc::new(Window::default());
    let (shown, handle) = (Rc::clone(&window), guest.executor.handle());
    let draw = move |_, (): &mut (), (): &mut ()| {
        shown.frames.set(shown.frames.get() + 1);
        if let Some(clicked) = shown.click.take() {
            let task = async move {
                println!("a callback of the host has spawned this");
                drop(clicked);
            };
            handle.spawn(task).detach();
        }
        TimeoutAction::ToDuration(FRAME)
    };
    host.handle().insert_source(Timer::immediate(), draw)?;

    guest
        .executor
        .set_exception_handler(|_, report| println!("{report}"));
    let story = story(Rc::downgrade(&guest), window, host.get_signal());
    guest.executor.task().name("story").spawn(story).detach();
    host.run(None, &mut (), |()| {})?;
    println!("{} tasks are left", guest.executor.len());
    Ok(())
}

/// What the host draws, and where the user clicks.
#[derive(Default)]
struct Window {
    frames: Cell<u32>,
    /// Dropped when the click has been dealt with.
    click: Cell<Option<async_channel::Sender<()>>>,
}

// --- the wires ------------------------------------------------------------------------------------------------------

/// An executor in a host loop.
struct Guest {
    executor: Executor<'static>,
    host: LoopHandle<'static, ()>,
    ping: Ping,
    /// The host's timer for the executor's next deadline.
    alarm: RefCell<Option<(Instant, RegistrationToken)>>,
}

impl Guest {
    fn new(host: &LoopHandle<'static, ()>) -> Result<Rc<Self>, Box<dyn std::error::Error>> {
        let (ping, pings) = make_ping()?;
        let guest = Rc::new(Guest {
            executor: Executor::new(),
            host: host.clone(),
            ping: ping.clone(),
            alarm: RefCell::default(),
        });
        guest.executor.on_wake(move || ping.ping());
        let own = Rc::downgrade(&guest);
        host.insert_source(pings, move |(), (), ()| turn(&own))?;
        Ok(guest)
    }

    fn tick(self: &Rc<Self>) {
        let progress = self.executor.tick(BUDGET);
        if progress.more {
            self.ping.ping();
        }
        self.set_alarm(progress.next_deadline);
    }

    fn set_alarm(self: &Rc<Self>, deadline: Option<Instant>) {
        if self.alarm.borrow().as_ref().map(|(at, _)| *at) == deadline {
            return;
        }
        if let Some((_, token)) = self.alarm.take() {
            self.host.remove(token);
        }
        let Some(deadline) = deadline else { return };
        let own = Rc::downgrade(self);
        let ring = move |_, (): &mut (), (): &mut ()| {
            if let Some(guest) = own.upgrade() {
                guest.alarm.replace(None);
            }
            turn(&own);
            TimeoutAction::Drop
        };
        match self
            .host
            .insert_source(Timer::from_deadline(deadline), ring)
        {
            Ok(token) => drop(self.alarm.replace(Some((deadline, token)))),
            // Late, but not lost: the next tick tries again.
            Err(_) => self.ping.ping(),
        }
    }
}

/// The host calls back: a tick, unless the program is going.
fn turn(guest: &Weak<Guest>) {
    if let Some(guest) = guest.upgrade() {
        guest.tick();
    }
}

// --- what the tasks do ----------------------------------------------------------------------------------------------

async fn story(guest: Weak<Guest>, window: Rc<Window>, signal: LoopSignal) {
    println!("== a task sleeps by the host's timer");
    sleep(Duration::from_millis(20)).await;
    println!("and goes on");

    println!("== a callback of the host spawns a task");
    let (click, dealt_with) = async_channel::bounded::<()>(1);
    window.click.set(Some(click));
    assert!(dealt_with.recv().await.is_err(), "nothing is ever sent");

    println!("== a thread hands over work, and waits for what comes of it");
    let spawner = LocalHandle::current().spawner();
    let (sender, receiver) = async_channel::bounded(1);
    let thread = thread::spawn(move || {
        let answer = spawner.spawn(|| async { *Rc::new(42) }).ok()?.join().ok()?;
        sender.send_blocking(answer).ok()
    });
    println!("it got {:?}", receiver.recv().await);
    drop(thread.join());

    println!("== a task that never rests leaves the host its turns");
    let busy = mainstay::spawn(async {
        loop {
            mainstay::yield_now().await;
        }
    });
    let before = window.frames.get();
    while window.frames.get() < before + 3 {
        mainstay::yield_now().await;
    }
    println!("the host has drawn three frames meanwhile");
    busy.cancel();

    println!("== a task fails");
    let fails = async { panic!("the left engine stalled") };
    let failed: Result<(), _> = mainstay::spawn(fails).await;
    println!("its handle says: {}", failed.unwrap_err());

    println!("== a task ticks its own executor");
    let again = async move { turn(&guest) };
    drop(
        LocalHandle::current()
            .task()
            .name("ticks")
            .spawn(again)
            .await,
    );

    println!("== the end");
    signal.stop();
}

/// A contained panic is reported; keep the process's hook from printing it a second time.
fn quiet_in_tasks() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if mainstay::current_task().is_none() {
            before(info);
        }
    }));
}
