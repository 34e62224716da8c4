//! A program with windows and a subprocess: callbacks that must return at once, writes that may wait.
//!
//! ```text
//! cargo run --release --example gtk_style
//! ```
//!
//! This is the program of the forum thread on spawning tasks: its user interface is GTK's, "which means that any
//! user-triggered actions come in via callback functions"; they are not async, and they write to a subprocess's stdin, which
//! "could potentially take a bit of time (if the other end has stalled or something)". So each callback spawns a task and
//! returns. What was asked for there: that no task is lost, and that one knows what went wrong.
//!
//! `toolkit` stands in for GTK's main loop, in some sixty lines, so that the example runs anywhere; `wire_up` is what a
//! program with the real one does too, with `MainContext::invoke` and `timeout_add_local_once`. The subprocess and its
//! pipes are async-process's, which brings a reactor thread of its own.

#![expect(clippy::print_stdout, reason = "an example talks to its reader")]

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use async_process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use futures_lite::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use futures_util::lock::Mutex;
use mainstay::{Executor, LocalHandle, sleep};

use toolkit::MainLoop;

fn main() -> io::Result<()> {
    quiet_in_tasks();
    let ui = MainLoop::new();
    let ex = Rc::new(Executor::new());
    ex.set_exception_handler(|_, report| println!("{report}"));
    wire_up(&ui, &ex);

    // The window is redrawn all the while: the loop never blocks.
    let redraws = Rc::new(Cell::new(0));
    let drawn = Rc::clone(&redraws);
    ui.every(Duration::from_millis(2), move || drawn.set(drawn.get() + 1));

    let window = Window {
        tasks: ex.handle(),
        ui: ui.clone(),
        redraws,
    };
    // The user, who clicks one button after the other. A click calls the button's callback, as GTK does.
    ex.task()
        .name("user")
        .spawn_fallible(window.user())
        .detach();
    ui.run();
    println!("Unfinished tasks: {:?}", ex.tasks());
    Ok(())
}

/// Lets the executor run in the main loop: told of work by the hook, of time by the next deadline.
fn wire_up(ui: &MainLoop, ex: &Rc<Executor<'static>>) {
    let remote = ui.remote();
    ex.on_wake(move || remote.invoke(toolkit::Event::Tick));
    let (own, again, timers) = (Rc::downgrade(ex), ui.remote(), ui.clone());
    let (armed, said) = (Cell::new(None), Cell::new(false));
    ui.on_tick(move || {
        let Some(ex) = own.upgrade() else { return };
        if ex.is_running() {
            // In `a_dialog_in_a_task`. To tick all the same would panic there, and say so.
            if !said.replace(true) {
                println!("no tick within a tick: the tasks go on when the dialog is closed");
            }
            return;
        }
        let progress = ex.tick(64);
        if progress.more {
            again.invoke(toolkit::Event::Tick);
        }
        if progress.next_deadline != armed.get() {
            armed.set(progress.next_deadline);
            if let Some(deadline) = progress.next_deadline {
                let again = again.clone();
                timers.at(deadline, move || again.invoke(toolkit::Event::Tick));
            }
        }
    });
}

/// What the callbacks share.
#[derive(Clone)]
struct Window {
    tasks: LocalHandle<'static>,
    ui: MainLoop,
    redraws: Rc<Cell<u32>>,
}

impl Window {
    async fn user(self) -> io::Result<()> {
        println!("== clicks write to a subprocess");
        let mut cat = Subprocess::start("exec cat")?;
        for line in ["one", "two", "three"] {
            self.click_send(&cat, line).detach();
        }
        println!("the callbacks have returned");
        for _ in 0..3 {
            println!("the subprocess got: {}", cat.line().await?);
        }

        println!("== one that stalls makes its task wait, and not the window");
        let slow = Subprocess::start("exec cat >/dev/null")?;
        slow.signal("STOP").await?;
        let before = self.redraws.get();
        let written = self.click_send_much(&slow);
        while self.redraws.get() < before + 5 {
            sleep(Duration::from_millis(1)).await;
        }
        println!("the window was redrawn; written: {}", written.is_finished());
        slow.signal("CONT").await?;
        println!(
            "the other end reads again; written: {}",
            written.await.is_ok()
        );

        println!("== a dialog, opened by a callback, has a main loop of its own");
        drop(self.click_about().await);

        println!("== and one that is opened by a task");
        drop(self.a_dialog_in_a_task().await);

        println!("== errors are seen");
        drop(self.click_with_a_typo().await);
        cat.child.kill()?;
        cat.child.status().await?;
        drop(self.click_send(&cat, "anybody there?").await);

        println!("== the window is closed");
        self.ui.quit();
        Ok(())
    }

    // --- callbacks: each does its work and returns, and none of them is async --------------------------------------

    fn click_send(
        &self,
        to: &Subprocess,
        line: &'static str,
    ) -> mainstay::JoinHandle<io::Result<()>> {
        let stdin = Rc::clone(&to.stdin);
        let write = async move {
            let mut stdin = stdin.lock().await;
            stdin.write_all(format!("{line}\n").as_bytes()).await?;
            stdin.flush().await
        };
        self.tasks
            .task()
            .name(format!("send {line:?}"))
            .spawn_fallible(write)
    }

    fn click_send_much(&self, to: &Subprocess) -> mainstay::JoinHandle<io::Result<()>> {
        let stdin = Rc::clone(&to.stdin);
        self.tasks.spawn_fallible(async move {
            // More than a pipe holds: this waits until the other end reads.
            let mut stdin = stdin.lock().await;
            stdin.write_all(&[b'x'; 1 << 20]).await
        })
    }

    fn click_with_a_typo(&self) -> mainstay::JoinHandle<()> {
        self.tasks.task().name("typo").spawn(async {
            let names = ["sleep"];
            let index = names.iter().position(|name| *name == "slep");
            println!(
                "calling {}",
                names[index.expect("there is no function `slep`")]
            );
        })
    }

    /// A callback that opens a dialog runs the main loop within itself until the dialog is closed. The tasks go on.
    fn click_about(&self) -> mainstay::JoinHandle<()> {
        let (ui, tasks) = (self.ui.clone(), self.tasks.clone());
        let (closed, waits) = async_channel::bounded::<()>(1);
        self.ui.soon(move || {
            let dialog = ui.clone();
            tasks
                .spawn(async move {
                    println!("a task runs while the dialog is open");
                    dialog.quit();
                })
                .detach();
            ui.run();
            println!("the dialog is closed");
            drop(closed);
        });
        self.tasks.spawn(async move {
            let nothing_is_sent = waits.recv().await;
            debug_assert!(nothing_is_sent.is_err());
        })
    }

    /// Here the main loop would run within a task, and with it the executor within itself: it says so, and does not.
    fn a_dialog_in_a_task(&self) -> mainstay::JoinHandle<()> {
        let ui = self.ui.clone();
        self.tasks.spawn(async move {
            let (dialog, tick) = (ui.clone(), ui.remote());
            tick.invoke(toolkit::Event::Tick);
            ui.soon(move || dialog.quit());
            ui.run();
        })
    }
}

/// A program that we write to.
struct Subprocess {
    child: Child,
    stdin: Rc<Mutex<ChildStdin>>,
    stdout: BufReader<ChildStdout>,
}

impl Subprocess {
    fn start(script: &str) -> io::Result<Self> {
        let mut child = Command::new("sh")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let missing = || io::Error::other("a pipe that was asked for");
        Ok(Subprocess {
            stdin: Rc::new(Mutex::new(child.stdin.take().ok_or_else(missing)?)),
            stdout: BufReader::new(child.stdout.take().ok_or_else(missing)?),
            child,
        })
    }

    async fn signal(&self, name: &str) -> io::Result<()> {
        let kill = format!("kill -{name} {}", self.child.id());
        Command::new("sh").args(["-c", &kill]).status().await?;
        Ok(())
    }

    async fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.stdout.read_line(&mut line).await?;
        Ok(line.trim().to_owned())
    }
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

/// What stands in for GTK: a main loop on one thread, which calls callbacks, and messages to it from any thread.
mod toolkit {
    use std::cell::{Cell, RefCell};
    use std::collections::VecDeque;
    use std::rc::Rc;
    use std::sync::mpsc::{self, Receiver, Sender};
    use std::time::{Duration, Instant};

    type Callback = Box<dyn FnOnce()>;

    /// A message from elsewhere.
    pub(crate) enum Event {
        Tick,
    }

    /// Reaches the main loop from any thread.
    #[derive(Clone)]
    pub(crate) struct Remote(Sender<Event>);

    impl Remote {
        pub(crate) fn invoke(&self, event: Event) {
            // Nobody is there to be told when the loop is gone.
            drop(self.0.send(event));
        }
    }

    #[derive(Clone)]
    pub(crate) struct MainLoop(Rc<Inner>);

    struct Inner {
        sender: Sender<Event>,
        events: Receiver<Event>,
        soon: RefCell<VecDeque<Callback>>,
        timers: RefCell<Vec<(Instant, Callback)>>,
        on_tick: RefCell<Option<Rc<dyn Fn()>>>,
        quits: Cell<bool>,
    }

    impl MainLoop {
        pub(crate) fn new() -> Self {
            let (sender, events) = mpsc::channel();
            MainLoop(Rc::new(Inner {
                sender,
                events,
                soon: RefCell::default(),
                timers: RefCell::default(),
                on_tick: RefCell::default(),
                quits: Cell::new(false),
            }))
        }

        pub(crate) fn remote(&self) -> Remote {
            Remote(self.0.sender.clone())
        }

        pub(crate) fn on_tick(&self, callback: impl Fn() + 'static) {
            self.0.on_tick.replace(Some(Rc::new(callback)));
        }

        pub(crate) fn soon(&self, callback: impl FnOnce() + 'static) {
            self.0.soon.borrow_mut().push_back(Box::new(callback));
        }

        pub(crate) fn at(&self, when: Instant, callback: impl FnOnce() + 'static) {
            let mut timers = self.0.timers.borrow_mut();
            timers.push((when, Box::new(callback)));
            timers.sort_by_key(|(when, _)| *when);
        }

        pub(crate) fn every(&self, period: Duration, callback: impl Fn() + 'static) {
            let again = self.clone();
            self.at(Instant::now() + period, move || {
                callback();
                again.every(period, callback);
            });
        }

        /// Ends the innermost run.
        pub(crate) fn quit(&self) {
            self.0.quits.set(true);
        }

        /// Calls back until somebody quits. A callback may run it again, as a dialog does.
        pub(crate) fn run(&self) {
            while !self.0.quits.replace(false) {
                // Messages first, then timers, then what can wait, as in GTK.
                if let Ok(event) = self.0.events.try_recv() {
                    self.handle(event);
                    continue;
                }
                let now = Instant::now();
                let next = self.0.timers.borrow().first().map(|(when, _)| *when);
                let wait = next.map_or(Duration::MAX, |when| when.saturating_duration_since(now));
                if wait.is_zero() {
                    let (_, callback) = self.0.timers.borrow_mut().remove(0);
                    callback();
                    continue;
                }
                let soon = self.0.soon.borrow_mut().pop_front();
                match soon {
                    Some(callback) => callback(),
                    None => {
                        if let Ok(event) = self.0.events.recv_timeout(wait) {
                            self.handle(event);
                        }
                    }
                }
            }
        }

        fn handle(&self, Event::Tick: Event) {
            let tick = self.0.on_tick.borrow().clone();
            if let Some(tick) = tick {
                tick();
            }
        }
    }
}
