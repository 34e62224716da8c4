//! The library, made to speak the language.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::panic::panic_any;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use mainstay::{
    CallHandle, CallbackId, ContextKind, ExceptionContext, ExceptionError, ExceptionGroup,
    Executor, InvalidState, JoinError, JoinHandle, JoinSet, LocalHandle, Outcome, Progress,
    ReportPolicy, ShutdownReport, Sleep, Stats, Supervisor, TaskGroup, TaskId,
};

use super::language::{DEPTH, FUEL, Flow, LAST_FUEL, Op, Program, Step, Who, World, run};

/// What a script panics with.
pub(crate) struct Boom;

#[derive(Debug)]
struct Failed;

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("failed")
    }
}

/// A handle of either type.
enum Handle {
    Plain(JoinHandle<()>),
    Fallible(JoinHandle<Result<(), Failed>>),
}

macro_rules! either {
    ($handle:expr, $inner:ident => $body:expr) => {
        match $handle {
            Handle::Plain($inner) => $body,
            Handle::Fallible($inner) => $body,
        }
    };
}

impl Handle {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<&'static str> {
        match self {
            Handle::Plain(handle) => Pin::new(handle).poll(cx).map(|outcome| match outcome {
                Ok(()) => "returned",
                Err(error) => word(&error),
            }),
            Handle::Fallible(handle) => Pin::new(handle).poll(cx).map(|outcome| match outcome {
                Ok(Ok(())) => "returned",
                Ok(Err(Failed)) => "failed",
                Err(error) => word(&error),
            }),
        }
    }

    fn read(&mut self) -> &'static str {
        let outcome = match self {
            Handle::Plain(handle) => handle.result().map(|outcome| outcome.map(Ok)),
            Handle::Fallible(handle) => handle.result(),
        };
        match outcome {
            Err(InvalidState::Pending) => "pending",
            Err(_) => "taken",
            Ok(Ok(Ok(()))) => "returned",
            Ok(Ok(Err(Failed))) => "failed",
            Ok(Err(error)) => word(&error),
        }
    }
}

fn word(error: &JoinError) -> &'static str {
    if error.is_cancelled() {
        "cancelled"
    } else if error.is_panic() {
        "failed"
    } else if error.in_group() {
        "in group"
    } else {
        "own"
    }
}

enum Group {
    Supervisor(Supervisor),
    Scope(TaskGroup),
    Set(JoinSet<Result<(), Failed>>),
}

type Ended = (TaskId, Result<Result<(), Failed>, JoinError>);

/// Everything that a program has made. No borrow of it is held while the library is called.
struct Table {
    program: Program,
    trace: RefCell<Vec<String>>,
    fuel: Cell<u32>,
    executors: RefCell<Vec<Option<Rc<Executor<'static>>>>>,
    locals: Vec<LocalHandle<'static>>,
    starts: Vec<Instant>,
    /// The executor that things are done to.
    at: Cell<usize>,
    /// Which are driven.
    driven: RefCell<Vec<bool>>,
    /// The executors of the tasks.
    homes: RefCell<Vec<usize>>,
    handles: RefCell<Vec<Option<Handle>>>,
    taken: RefCell<Vec<bool>>,
    wakers: RefCell<Vec<Option<Waker>>>,
    woken: RefCell<Vec<bool>>,
    gone: RefCell<Vec<bool>>,
    ids: RefCell<HashMap<TaskId, usize>>,
    callbacks: RefCell<Vec<(usize, Option<CallbackId>)>>,
    calls: RefCell<Vec<CallHandle>>,
    groups: RefCell<Vec<Option<Group>>>,
    group_homes: RefCell<Vec<usize>>,
}

thread_local! {
    static TABLE: RefCell<Option<Rc<Table>>> = const { RefCell::new(None) };
}

/// The table of the program on this thread, as the world that ops act on.
struct Real(Rc<Table>);

fn real() -> Real {
    let table = TABLE.with(|table| table.borrow().clone());
    Real(table.expect("a program runs on this thread"))
}

fn say(line: String) {
    if let Some(table) = TABLE.with(|table| table.borrow().clone()) {
        table.trace.borrow_mut().push(line);
    }
}

/// While it is there, things are done to an executor.
struct At(usize);

impl At {
    fn new(executor: usize) -> Self {
        At(real().0.at.replace(executor))
    }
}

impl Drop for At {
    fn drop(&mut self) {
        real().0.at.set(self.0);
    }
}

/// A script that is run by a task: the task's own, or the body of a scope that it is in.
struct Frame {
    task: usize,
    /// Whose body it is.
    scope: Option<usize>,
    depth: usize,
    script: u8,
    pc: usize,
    mode: Mode,
}

enum Mode {
    Go,
    Yielded,
    Waiting,
    Sleeping(Pin<Box<Sleep>>),
    Awaiting(usize, Handle),
    Listening(Pin<Box<dyn Future<Output = ()>>>),
    Ending(usize, Pin<Box<dyn Future<Output = ShutdownReport>>>),
    Scoped(
        usize,
        Pin<Box<dyn Future<Output = Result<(), ExceptionGroup>>>>,
    ),
    Joining(usize, Group),
}

impl Frame {
    fn name(&self) -> String {
        match self.scope {
            None => self.task.to_string(),
            Some(scope) => format!("body of {scope}"),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        let mut world = real();
        let number = self.task;
        let home = world.0.homes.borrow()[number];
        let _at = At::new(home);
        world.say(format!("poll {}", self.name()));
        loop {
            match &mut self.mode {
                Mode::Go | Mode::Yielded => {}
                Mode::Waiting => {
                    if !std::mem::take(&mut world.0.woken.borrow_mut()[number]) {
                        return Poll::Pending;
                    }
                }
                Mode::Sleeping(sleep) => {
                    if sleep.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                }
                Mode::Listening(request) => {
                    if request.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                }
                Mode::Awaiting(other, handle) => {
                    let other = *other;
                    let Poll::Ready(told) = handle.poll(cx) else {
                        return Poll::Pending;
                    };
                    if told != "own" {
                        world.0.taken.borrow_mut()[other] = true;
                    }
                    world.say(format!("{number} awaited {other}: {told}"));
                }
                Mode::Ending(group, end) => {
                    let group = *group;
                    let Poll::Ready(report) = end.as_mut().poll(cx) else {
                        return Poll::Pending;
                    };
                    world.say(format!("{number} ended {group}: {}", in_words(&report)));
                }
                Mode::Scoped(group, scope) => {
                    let group = *group;
                    let Poll::Ready(result) = scope.as_mut().poll(cx) else {
                        return Poll::Pending;
                    };
                    let result = match &result {
                        Ok(()) => "ok".to_owned(),
                        Err(failures) => world.failures(failures),
                    };
                    world.say(format!("{number} left {group}: {result}"));
                }
                Mode::Joining(group, set) => {
                    let group = *group;
                    let Group::Set(joined) = set else {
                        unreachable!("only a set is joined");
                    };
                    let Poll::Ready(next) = joined.poll_join_next(cx) else {
                        return Poll::Pending;
                    };
                    let next = next.map(|ended| world.ended(&ended));
                    world.say(format!("{number} next of {group}: {next:?}"));
                    if let Mode::Joining(_, set) = std::mem::replace(&mut self.mode, Mode::Go) {
                        world.0.groups.borrow_mut()[group] = Some(set);
                    }
                }
            }
            drop(std::mem::replace(&mut self.mode, Mode::Go));
            let script = world.0.program.script(self.script).clone();
            match run(&mut world, Who::Task(number), &script.ops, &mut self.pc) {
                Flow::Over => return Poll::Ready(Ok(())),
                Flow::Fail => return Poll::Ready(Err(Failed)),
                Flow::Panic => panic_any(Boom),
                Flow::Yield => {
                    self.mode = Mode::Yielded;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Flow::Wait => {
                    self.mode = Mode::Waiting;
                    world.0.woken.borrow_mut()[number] = false;
                    world.0.wakers.borrow_mut()[number] = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                Flow::Sleep(ms) => {
                    let sleep = mainstay::sleep(Duration::from_millis(ms.into()));
                    self.mode = Mode::Sleeping(Box::pin(sleep));
                }
                Flow::Listen => {
                    self.mode = Mode::Listening(Box::pin(mainstay::cancel_requested()));
                }
                Flow::Await(other) => {
                    let handle = world.0.handles.borrow_mut()[other].take();
                    self.mode = Mode::Awaiting(other, handle.expect("it can be awaited"));
                }
                Flow::End(group, ms) => {
                    let end = world.with_group(group, |_, group| match group {
                        Group::Supervisor(supervisor) => {
                            supervisor.shutdown(Duration::from_millis(ms.into()))
                        }
                        Group::Scope(_) | Group::Set(_) => unreachable!("it can be ended"),
                    });
                    let end = end.expect("it can be ended");
                    self.mode = Mode::Ending(group, Box::pin(end));
                }
                Flow::Next(group) => {
                    let set = world.0.groups.borrow_mut()[group].take();
                    self.mode = Mode::Joining(group, set.expect("it can be joined"));
                }
                Flow::Scope(_) if self.depth == DEPTH => {}
                Flow::Scope(script) => {
                    let group = world.groups();
                    world.0.groups.borrow_mut().push(None);
                    world.0.group_homes.borrow_mut().push(home);
                    let body = Frame {
                        task: number,
                        scope: Some(group),
                        depth: self.depth + 1,
                        script,
                        pc: 0,
                        mode: Mode::Go,
                    };
                    let scope = TaskGroup::try_scope(move |scope: &TaskGroup| {
                        real().0.groups.borrow_mut()[group] = Some(Group::Scope(scope.clone()));
                        Fallible(body)
                    });
                    self.mode = Mode::Scoped(group, Box::pin(scope));
                }
            }
        }
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        let mut world = real();
        let number = self.task;
        let home = world.0.homes.borrow()[number];
        let _at = At::new(home);
        world.say(format!("drop {}", self.name()));
        if self.scope.is_none() {
            world.0.gone.borrow_mut()[number] = true;
        }
        drop(std::mem::replace(&mut self.mode, Mode::Go));
        let script = world.0.program.script(self.script).clone();
        act(&mut world, Who::Destructor(number), &script.on_drop);
    }
}

fn act(world: &mut Real, who: Who, ops: &[Op]) {
    if run(world, who, ops, &mut 0) == Flow::Panic {
        panic_any(Boom);
    }
}

fn act_script(who: Who, home: usize, script: u8) {
    let _at = At::new(home);
    let mut world = real();
    let script = world.0.program.script(script).clone();
    act(&mut world, who, &script.ops);
}

struct Plain(Frame);

impl Future for Plain {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.poll(cx).map(drop)
    }
}

/// What it returns is not looked into.
struct Unjudged(Frame);

impl Future for Unjudged {
    type Output = Result<(), Failed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll(cx).map(|_| Ok(()))
    }
}

struct Fallible(Frame);

impl Future for Fallible {
    type Output = Result<(), Failed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll(cx)
    }
}

fn tell(to: &str, context: &ExceptionContext<'_>) {
    say(format!("{to}: {}", what(context)));
}

fn what(context: &ExceptionContext<'_>) -> String {
    if let (ContextKind::Handler, Some(original)) = (context.kind(), context.original()) {
        return format!("Handler of {}", what(original));
    }
    let about = match context.task() {
        None => "-".to_owned(),
        Some(task) => match real().0.ids.borrow().get(&task.id()) {
            Some(number) => number.to_string(),
            None => "?".to_owned(),
        },
    };
    format!("{:?} {about}", context.kind())
}

/// Sets the process-wide handler that speaks for executors without one.
pub(crate) fn listen() {
    mainstay::set_default_exception_handler(|context| tell("default", context));
}

impl Real {
    fn local(&self) -> LocalHandle<'static> {
        self.0.locals[self.0.at.get()].clone()
    }

    /// Takes a handle off the table while it is used: what is called meanwhile finds none.
    fn with<R>(&self, task: usize, f: impl FnOnce(&mut Handle) -> R) -> Option<R> {
        let mut handle = self.0.handles.borrow_mut()[task].take()?;
        let result = f(&mut handle);
        self.0.handles.borrow_mut()[task] = Some(handle);
        Some(result)
    }

    /// Drives the executor at hand, if it is there and is not driven.
    fn with_driven(&self, f: impl FnOnce(&Table, &Executor<'static>)) -> Option<()> {
        let at = self.0.at.get();
        if self.0.driven.borrow()[at] {
            return None;
        }
        let executor = self.0.executors.borrow()[at].clone()?;
        self.0.driven.borrow_mut()[at] = true;
        f(&self.0, &executor);
        self.0.driven.borrow_mut()[at] = false;
        Some(())
    }

    fn failures(&self, failures: &ExceptionGroup) -> String {
        let numbers: Vec<String> = failures
            .iter()
            .map(|(task, _)| match task {
                Some(task) => self.0.ids.borrow()[&task.id()].to_string(),
                None => "body".to_owned(),
            })
            .collect();
        format!("{numbers:?} cancelled {}", failures.is_cancelled())
    }

    fn spawn_as(&mut self, script: u8, fallible: bool, group: Option<(&mut Group, usize)>) {
        let number = self.tasks();
        self.say(format!("spawn {number}"));
        let table = &self.0;
        table.handles.borrow_mut().push(None);
        table.taken.borrow_mut().push(false);
        table.wakers.borrow_mut().push(None);
        table.woken.borrow_mut().push(false);
        table.gone.borrow_mut().push(false);
        let home = group.as_ref().map_or(table.at.get(), |(_, home)| *home);
        table.homes.borrow_mut().push(home);
        let task = Frame {
            task: number,
            scope: None,
            depth: 0,
            script,
            pc: 0,
            mode: Mode::Go,
        };
        let handle = match (group.map(|(group, _)| group), fallible) {
            (None, true) => Handle::Fallible(self.local().spawn_fallible(Fallible(task))),
            (None, false) => Handle::Plain(self.local().spawn(Plain(task))),
            (Some(Group::Supervisor(group)), true) => {
                Handle::Fallible(group.spawn_fallible(Fallible(task)))
            }
            (Some(Group::Supervisor(group)), false) => Handle::Plain(group.spawn(Plain(task))),
            (Some(Group::Scope(group)), true) => {
                Handle::Fallible(group.spawn_fallible(Fallible(task)))
            }
            (Some(Group::Scope(group)), false) => Handle::Plain(group.spawn(Plain(task))),
            (Some(Group::Set(set)), fallible) => {
                let id = if fallible {
                    set.spawn_fallible(Fallible(task))
                } else {
                    set.spawn(Unjudged(task))
                };
                table.ids.borrow_mut().insert(id, number);
                return;
            }
        };
        let id = either!(&handle, handle => handle.id());
        table.ids.borrow_mut().insert(id, number);
        table.handles.borrow_mut()[number] = Some(handle);
    }

    /// Uses a group: a clone of it, so that it does not go meanwhile, or a set, which nobody else finds meanwhile.
    fn with_group<R>(
        &mut self,
        group: usize,
        f: impl FnOnce(&mut Self, &mut Group) -> R,
    ) -> Option<R> {
        let mut used = {
            let mut groups = self.0.groups.borrow_mut();
            match &groups[group] {
                None => return None,
                Some(Group::Supervisor(supervisor)) => Group::Supervisor(supervisor.clone()),
                Some(Group::Scope(scope)) => Group::Scope(scope.clone()),
                Some(Group::Set(_)) => groups[group].take()?,
            }
        };
        let result = f(self, &mut used);
        if matches!(used, Group::Set(_)) {
            self.0.groups.borrow_mut()[group] = Some(used);
        }
        Some(result)
    }

    fn ended(&self, (task, outcome): &Ended) -> (usize, &'static str) {
        let word = match outcome {
            Ok(Ok(())) => "returned",
            Ok(Err(Failed)) => "failed",
            Err(error) => word(error),
        };
        (self.0.ids.borrow()[task], word)
    }
}

impl World for Real {
    fn say(&mut self, line: String) {
        self.0.trace.borrow_mut().push(line);
    }

    fn burn(&mut self) -> bool {
        let left = self.0.fuel.get();
        self.0.fuel.set(left.saturating_sub(1));
        left > 0
    }

    fn tasks(&self) -> usize {
        self.0.handles.borrow().len()
    }

    fn callbacks(&self) -> usize {
        self.0.callbacks.borrow().len()
    }

    fn calls(&self) -> usize {
        self.0.calls.borrow().len()
    }

    fn spawn(&mut self, script: u8, fallible: bool) {
        self.spawn_as(script, fallible, None);
    }

    fn cancel(&mut self, task: usize) -> Option<bool> {
        self.with(task, |handle| either!(handle, handle => handle.cancel()))
    }

    fn drop_handle(&mut self, task: usize) -> Option<()> {
        let handle = self.0.handles.borrow_mut()[task].take();
        handle.map(drop)
    }

    fn wake(&mut self, task: usize) -> Option<()> {
        let waker = self.0.wakers.borrow()[task].clone()?;
        // Between drives a wake carries the slot's index alone: a stale one may poll somebody else once.
        if !self.0.driven.borrow()[self.0.homes.borrow()[task]] && self.0.gone.borrow()[task] {
            return None;
        }
        self.0.woken.borrow_mut()[task] = true;
        waker.wake();
        Some(())
    }

    fn read(&mut self, task: usize) -> Option<&'static str> {
        let read = self.with(task, Handle::read)?;
        if !matches!(read, "pending" | "taken") {
            self.0.taken.borrow_mut()[task] = true;
        }
        Some(read)
    }

    fn look(&mut self, task: usize) -> Option<&'static str> {
        self.with(task, |handle| {
            either!(handle, handle => match handle.exception() {
                Ok(None) => "returned",
                Ok(Some(_)) => "failed",
                Err(ExceptionError::Cancelled) => "cancelled",
                Err(ExceptionError::Pending) => "pending",
                Err(_) => "taken",
            })
        })
    }

    fn add_callback(&mut self, task: usize, script: u8) -> Option<()> {
        self.0.handles.borrow()[task].as_ref()?;
        let number = self.callbacks();
        let home = self.0.homes.borrow()[task];
        self.0.callbacks.borrow_mut().push((task, None));
        let id = self.with(task, |handle| {
            either!(handle, handle => handle.add_done_callback(move |completion| {
                // Every second one asks for the outcome.
                let Real(table) = real();
                let about = table.ids.borrow().get(&completion.task().id()).copied();
                drop(table);
                let end = if number % 2 == 1 {
                    match completion.outcome() {
                        Outcome::Returned => "returned",
                        Outcome::Failed(_) => "failed",
                        _ => "cancelled",
                    }
                } else {
                    let shown = format!("{completion:?}");
                    if shown.contains("outcome: Returned") {
                        "returned"
                    } else if shown.contains("outcome: Cancelled") {
                        "cancelled"
                    } else {
                        "failed"
                    }
                };
                say(format!("callback {number} of {}: {end}", about.expect("it is known")));
                act_script(Who::Callback(number), home, script);
            }))
        });
        self.0.callbacks.borrow_mut()[number].1 = id;
        Some(())
    }

    fn remove_callback(&mut self, callback: usize) -> Option<bool> {
        let (task, id) = self.0.callbacks.borrow()[callback];
        let id = id?;
        if self.0.taken.borrow()[task] {
            return None;
        }
        self.with(
            task,
            |handle| either!(handle, handle => handle.remove_done_callback(id)),
        )
    }

    fn call_soon(&mut self, script: u8) {
        let number = self.calls();
        let home = self.0.at.get();
        let call = self.local().call_soon(move || {
            say(format!("call {number}"));
            act_script(Who::Call(number), home, script);
        });
        self.0.calls.borrow_mut().push(call);
    }

    fn call_later(&mut self, ms: u8, script: u8) {
        let number = self.calls();
        let home = self.0.at.get();
        let delay = Duration::from_millis(ms.into());
        let call = self.local().call_later(delay, move || {
            say(format!("call {number}"));
            act_script(Who::Call(number), home, script);
        });
        self.0.calls.borrow_mut().push(call);
    }

    fn cancel_call(&mut self, call: usize) -> bool {
        let call = self.0.calls.borrow()[call].clone();
        call.cancel()
    }

    fn set_handler(&mut self, script: Option<u8>) {
        let local = self.local();
        let home = self.0.at.get();
        match script {
            Some(script) => local.set_exception_handler(move |_, context| {
                tell("handler", context);
                act_script(Who::Handler, home, script);
            }),
            None => local.clear_exception_handler(),
        }
    }

    fn report(&mut self) {
        let context = ExceptionContext::new("the user's own").build();
        self.local().call_exception_handler(&context);
    }

    fn stop(&mut self) {
        self.local().stop();
    }

    fn can_await(&mut self, task: usize) -> bool {
        self.0.handles.borrow()[task].is_some() && !self.0.taken.borrow()[task]
    }

    fn groups(&self) -> usize {
        self.0.groups.borrow().len()
    }

    fn supervise(&mut self) {
        let group = Supervisor::new_in(&self.local());
        let group = Group::Supervisor(group);
        self.0.groups.borrow_mut().push(Some(group));
        self.0.group_homes.borrow_mut().push(self.0.at.get());
    }

    fn spawn_in(&mut self, group: usize, script: u8, fallible: bool) -> Option<()> {
        let home = self.0.group_homes.borrow()[group];
        self.with_group(group, |this, group| {
            this.spawn_as(script, fallible, Some((group, home)));
        })
    }

    fn abort(&mut self, group: usize) -> Option<bool> {
        self.with_group(group, |_, group| match group {
            Group::Supervisor(group) => {
                group.abort();
                true
            }
            Group::Scope(group) => group.cancel(),
            Group::Set(set) => {
                set.cancel_all();
                true
            }
        })
    }

    fn drop_group(&mut self, group: usize) -> Option<()> {
        let group = self.0.groups.borrow_mut()[group].take();
        group.map(drop)
    }

    fn group_handler(&mut self, group: usize, script: Option<u8>) -> Option<()> {
        let home = self.0.group_homes.borrow()[group];
        self.with_group(group, |_, used| {
            let Group::Supervisor(supervisor) = used else {
                return None;
            };
            match script {
                Some(script) => supervisor.set_exception_handler(move |_, context| {
                    tell(&format!("handler of {group}"), context);
                    act_script(Who::Handler, home, script);
                }),
                None => supervisor.clear_exception_handler(),
            }
            Some(())
        })?
    }

    fn size(&mut self, group: usize) -> Option<(usize, bool)> {
        self.with_group(group, |_, group| match group {
            Group::Supervisor(group) => (group.len(), group.is_closed()),
            Group::Scope(group) => (group.len(), group.is_closed()),
            Group::Set(set) => (set.len(), set.is_empty()),
        })
    }

    fn limit(&mut self, group: usize, tasks: u8) -> Option<()> {
        self.with_group(group, |_, group| match group {
            Group::Supervisor(group) => {
                group.limit(tasks.into());
            }
            Group::Scope(group) => {
                group.limit(tasks.into());
            }
            Group::Set(set) => {
                set.limit(tasks.into());
            }
        })
    }

    fn can_end(&mut self, group: usize) -> bool {
        matches!(self.0.groups.borrow()[group], Some(Group::Supervisor(_)))
    }

    fn open_set(&mut self) {
        let set = JoinSet::new_in(&self.local());
        self.0.groups.borrow_mut().push(Some(Group::Set(set)));
        self.0.group_homes.borrow_mut().push(self.0.at.get());
    }

    fn take_next(&mut self, group: usize) -> Option<Option<(usize, &'static str)>> {
        self.with_group(group, |this, group| {
            let Group::Set(set) = group else { return None };
            let next = set.try_join_next();
            Some(next.map(|ended| this.ended(&ended)))
        })?
    }

    fn let_set_go(&mut self, group: usize) -> Option<()> {
        if !matches!(self.0.groups.borrow()[group], Some(Group::Set(_))) {
            return None;
        }
        let set = self.0.groups.borrow_mut()[group].take();
        if let Some(Group::Set(set)) = set {
            set.detach_all();
        }
        Some(())
    }

    fn can_next(&mut self, group: usize) -> bool {
        self.0.group_homes.borrow()[group] == self.0.at.get()
            && matches!(self.0.groups.borrow()[group], Some(Group::Set(_)))
    }

    fn at(&self) -> usize {
        self.0.at.get()
    }

    fn go_to(&mut self, executor: usize) {
        if executor < self.0.locals.len() {
            self.0.at.set(executor);
        }
    }

    fn drive(&mut self, steps: u8) -> Option<()> {
        self.with_driven(|table, executor| {
            let progress = match steps {
                0 => executor.run_until_stalled(),
                steps => executor.tick(steps.into()),
            };
            say_progress(table, &progress);
        })
    }

    fn drop_executor(&mut self) -> Option<()> {
        let at = self.0.at.get();
        if self.0.driven.borrow()[at] {
            return None;
        }
        let executor = self.0.executors.borrow_mut()[at].take()?;
        self.0.fuel.set(self.0.fuel.get().min(LAST_FUEL));
        self.0.driven.borrow_mut()[at] = true;
        drop(executor);
        self.0.driven.borrow_mut()[at] = false;
        Some(())
    }
}

fn in_words(report: &ShutdownReport) -> String {
    format!(
        "finished {} failed {} cancelled {} dropped {}",
        report.finished(),
        report.failed(),
        report.cancelled(),
        report.dropped()
    )
}

/// Runs the whole program.
pub(crate) fn play(program: &Program) -> Vec<String> {
    let policy = if program.if_unretrieved {
        ReportPolicy::IfUnretrieved
    } else {
        ReportPolicy::OnFailure
    };
    let count = if program.two { 2 } else { 1 };
    let executors: Vec<Executor<'static>> = (0..count)
        .map(|_| Executor::builder().virtual_clock().report(policy).build())
        .collect();
    // The handle of a task that has ended keeps the books open when the executor is gone.
    let keepers: Vec<_> = executors.iter().map(|ex| ex.spawn(async {})).collect();
    for executor in &executors {
        let _ = executor.run_until_stalled();
    }
    let table = Rc::new(Table {
        program: program.clone(),
        trace: RefCell::default(),
        fuel: Cell::new(FUEL),
        locals: executors.iter().map(Executor::handle).collect(),
        starts: executors.iter().map(Executor::now).collect(),
        executors: RefCell::new(executors.into_iter().map(|ex| Some(Rc::new(ex))).collect()),
        at: Cell::new(0),
        driven: RefCell::new(vec![false; count]),
        homes: RefCell::default(),
        handles: RefCell::default(),
        taken: RefCell::default(),
        wakers: RefCell::default(),
        woken: RefCell::default(),
        gone: RefCell::default(),
        ids: RefCell::default(),
        callbacks: RefCell::default(),
        calls: RefCell::default(),
        groups: RefCell::default(),
        group_homes: RefCell::default(),
    });
    TABLE.with(|slot| slot.replace(Some(Rc::clone(&table))));
    let mut world = real();
    for step in &program.steps {
        world.say(format!("{step:?}"));
        step_once(&mut world, *step);
        say_stats(&table);
    }
    for at in 0..count {
        world.say(format!("close {at}"));
        table.at.set(at);
        let _ = world.drop_executor();
        say_stats(&table);
    }
    for task in 0..world.tasks() {
        let handle = table.handles.borrow_mut()[task].take();
        drop(handle);
    }
    for group in 0..world.groups() {
        let group = table.groups.borrow_mut()[group].take();
        drop(group);
    }
    say_stats(&table);
    drop(keepers);
    TABLE.with(|slot| slot.replace(None));
    let trace = table.trace.take();
    drop(world);
    trace
}

fn step_once(world: &mut Real, step: Step) {
    let done = match step {
        Step::Do(script) => {
            let ops = world.0.program.script(script).ops.clone();
            let _ = run(world, Who::Owner, &ops, &mut 0);
            Some(())
        }
        Step::Swap => {
            world.go_to(1 - world.at());
            Some(())
        }
        Step::UntilStalled => world.drive(0),
        Step::Tick(budget) => world.drive(budget),
        Step::BlockOn(ms) => world.with_driven(|_, executor| {
            let done = executor.try_block_on(async move {
                mainstay::sleep(Duration::from_millis(ms.into())).await;
            });
            let word = if done.is_ok() { "done" } else { "stopped" };
            say(format!("root: {word}"));
        }),
        Step::Shutdown(ms) => world.with_driven(|table, executor| {
            table.fuel.set(table.fuel.get().min(LAST_FUEL));
            let report = executor.shutdown(Duration::from_millis(ms.into()));
            say(in_words(&report));
        }),
        Step::Advance(ms) => {
            let executor = world.0.executors.borrow()[world.at()].clone();
            executor.map(|executor| executor.advance(Duration::from_millis(ms.into())))
        }
    };
    if done.is_none() {
        world.say("it is gone".to_owned());
    }
}

/// Without the keeper.
fn say_stats(table: &Table) {
    for books in &table.locals {
        say_books(&books.stats());
    }
}

fn say_books(s: &Stats) {
    say(format!(
        "spawned {} live {} returned {} failed {} cancelled {} reported {} retrieved {} unread {} reports {} polls {}",
        s.spawned - 1,
        s.live,
        s.returned - 1,
        s.failed,
        s.cancelled,
        s.reported,
        s.retrieved,
        s.unread,
        s.reports,
        s.polls - 1
    ));
}

fn say_progress(table: &Table, progress: &Progress) {
    let next = progress.next_deadline.map(|next| {
        next.duration_since(table.starts[table.at.get()])
            .as_millis()
    });
    say(format!(
        "polls {} more {} next {next:?}",
        progress.polls, progress.more
    ));
}
