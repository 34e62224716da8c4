//! Random faults: many small random programs on executors with a virtual clock, in which everything that is user code
//! may panic, and everything that is user code may call back into the executor.
//!
//! Each program comes from one seed. What it broke is printed with that seed:
//!
//! ```text
//! MAINSTAY_FAULTS=100000 cargo test --test faults        how many programs
//! MAINSTAY_SEED=123 cargo test --test faults             this one alone
//! ```
//!
//! A few programs let other threads wake and cancel; these alone are not quite repeatable. A table says how often each
//! kind of fault hit each place that calls user code (promise P3), another what befell groups, and a minimum of each is
//! asserted.
//!
//! No destructor here panics while the thread is unwinding, because Rust aborts there (see the crate's documentation).
#![allow(
    clippy::print_stdout,
    reason = "the table of what was hit is this test's second result"
)]

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::env;
use std::fmt;
use std::future::{Future, pending};
use std::panic::{self, AssertUnwindSafe, catch_unwind, panic_any};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, JoinHandle as Thread};
use std::time::{Duration, Instant};

use mainstay::{
    CallHandle, CallbackId, CancelHandle, Completion, ContextKind, ExceptionContext,
    ExceptionGroup, Executor, JoinError, JoinHandle, LocalHandle, Outcome, ReportPolicy, Spawner,
    Stats, Supervisor, TaskBuilder, TaskGroup, TaskId,
};

/// How many programs there are, unless the environment says otherwise.
const PROGRAMS: u64 = 10_000;

// ---------------------------------------------------------------------------------------------------------------------
// Where and how things go wrong
// ---------------------------------------------------------------------------------------------------------------------

macro_rules! places {
    ($name:ident, $names:ident: $($place:ident = $text:literal),+ $(,)?) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        enum $name { $($place),+ }
        const $names: &[&str] = &[$($text),+];
    };
}

places!(Point, POINTS:
    Poll = "future: poll",
    DropReturned = "future: drop after its end",
    DropCancelled = "future: drop by cancel",
    DropClosed = "future: drop by the executor's end",
    DropOutput = "output: drop",
    DropPayload = "panic payload: drop",
    Callback = "done callback: body",
    CallbackDrop = "done callback: captures",
    Handler = "handler: body",
    HandlerDrop = "handler: captures",
    Display = "error: Display",
    Wake = "foreign waker: wake",
    WakerDrop = "foreign waker: drop",
    Call = "call_soon, call_later: body",
    CallDrop = "call_soon, call_later: captures",
    Remote = "closure from a thread",
    Hook = "wake hook",
    Root = "root: poll",
    Body = "group body: poll",
    BodyDrop = "group body: drop",
);

/// An `Err` is a fault of the first point only.
const KINDS: &[&str] = &["&str", "String", "payload", "bad payload", "Err"];

places!(Place, PLACES:
    Outside = "between drives",
    Task = "task",
    Destructor = "destructor",
    Callback = "done callback",
    Handler = "handler",
    Call = "call_soon",
    Waker = "foreign waker",
    Root = "root",
);

places!(Act, ACTS:
    Spawn = "spawn",
    Wake = "wake",
    Cancel = "cancel",
    DropHandle = "drop handle",
    Read = "read outcome",
    AddCallback = "add callback",
    RemoveCallback = "remove callback",
    AddCall = "add call",
    CancelCall = "cancel call",
    Stop = "stop",
    SetHandler = "set handler",
    UserReport = "report",
    PollForeign = "poll by a foreign waker",
    Drive = "drive another",
    DropExecutor = "drop another executor",
    SpawnMember = "spawn into group",
    OpenScope = "open scope",
    PollScope = "poll scope",
    DropScope = "drop scope",
    EndGroup = "end group",
    Supervise = "make, drop supervisor",
);

const N_ACTS: usize = 21;

places!(Shape, SHAPES:
    Nested = "scope inside of a task of another group",
    Midway = "scope dropped with tasks in it",
    HostDropped = "scope dropped with the task that runs it",
    DroppedByOwn = "group dropped while a task of it is on the stack",
    Destructor = "destructor that panics at the end of its group",
    EndedByOwn = "group ended by a task of it",
    EndedByDestructor = "group ended by a destructor of a task of it",
    AwaitedByOwn = "shutdown that a task of the group waits for",
    AwaitedByOther = "shutdown that another task waits for",
);

const N_SHAPES: usize = 9;

#[derive(Default)]
struct Tally {
    faults: [[u64; 5]; 20],
    acts: [[u64; N_ACTS]; 8],
    seen: [u64; 4],
    members: u64,
    groups: u64,
    shapes: [u64; N_SHAPES],
    handed: u64,
    late: u64,
    threads: u64,
    tasks: u64,
    reports: u64,
}

thread_local! {
    /// The program that runs on this thread.
    static WORLD: RefCell<Option<Rc<World>>> = const { RefCell::new(None) };
    static TALLY: RefCell<Tally> = RefCell::default();
}

/// Guards that were dropped, and reports that were made, on threads that run no program.
static STRAYS: AtomicUsize = AtomicUsize::new(0);

fn world() -> Option<Rc<World>> {
    WORLD
        .try_with(|world| world.borrow().clone())
        .ok()
        .flatten()
}

fn tally(f: impl FnOnce(&mut Tally)) {
    TALLY.with(|tally| f(&mut tally.borrow_mut()));
}

fn note_shape(shape: Shape) {
    tally(|tally| tally.shapes[shape as usize] += 1);
}

// ---------------------------------------------------------------------------------------------------------------------
// The world of one program
// ---------------------------------------------------------------------------------------------------------------------

/// What the test knows of one task.
struct Rec {
    ex: usize,
    id: Cell<Option<TaskId>>,
    /// The executor had gone when it was spawned.
    refused: bool,
    /// Its future is gone.
    gone: Cell<bool>,
    must_fail: Cell<bool>,
    cancelled: Cell<bool>,
    read: Cell<bool>,
    /// It is being polled or dropped.
    busy: Cell<u32>,
    group: Option<Rc<Group>>,
    waiting: RefCell<Option<Arc<AtomicBool>>>,
    sleeping: Cell<Option<Instant>>,
    awaiting: RefCell<Option<Rc<Rec>>>,
}

/// What the test knows of one done callback or call.
#[derive(Default)]
struct Called {
    ex: usize,
    at: Option<Instant>,
    count: Cell<u32>,
    removed: Cell<bool>,
    /// Nothing will ever call it.
    void: Cell<bool>,
}

/// What the test knows of a group.
struct Group {
    ex: Cell<usize>,
    /// It keeps its members' failures, to hand them on; else it has them told.
    keeps: bool,
    members: RefCell<Vec<Rc<Rec>>>,
    /// The task that runs its scope; `None`: whoever finds it polls it.
    host: Option<Rc<Rec>>,
    body_ended: Cell<bool>,
    /// Its scope has ended or was dropped.
    over: Cell<bool>,
    /// It is being ended or dropped, up the stack.
    ending: Cell<bool>,
}

impl Group {
    /// Whoever leaves a group leaves nobody behind who is not on the stack at this moment.
    fn check_gone(&self, world: &World, when: &str) {
        let left = |rec: &&Rc<Rec>| !rec.gone.get() && rec.busy.get() == 0;
        if let Some(rec) = self.members.borrow().iter().find(left) {
            let id = rec.id.get();
            world.wrong(format!("{id:?} outlives its group, which was {when}"));
        }
    }

    fn while_ending<R>(&self, end: impl FnOnce() -> R) -> R {
        let before = self.ending.replace(true);
        let ended = end();
        self.ending.set(before);
        ended
    }

    /// Whether a task of it is being polled or dropped up the stack.
    fn is_on_stack(&self) -> bool {
        self.members.borrow().iter().any(|rec| rec.busy.get() > 0)
    }

    fn has_tasks(&self) -> bool {
        let members = self.members.borrow();
        members.iter().any(|rec| !rec.gone.get() && !rec.refused)
    }

    /// What must hold when the executor has nothing more to do.
    fn check_stalled(&self, world: &World) {
        let host = self.host.as_ref();
        if self.over.get() || host.is_none_or(|host| host.gone.get()) {
            return;
        }
        let members = self.members.borrow();
        if members.iter().any(|rec| rec.busy.get() > 0) {
            // Its destructor, which runs between two drives, drives: the group waits for it.
            return;
        }
        if self.body_ended.get() && members.iter().all(|rec| rec.gone.get()) {
            world.wrong("P1: a scope has nobody to wait for and goes on waiting");
        }
        let failed = |rec: &Rc<Rec>| rec.gone.get() && rec.must_fail.get() && !rec.refused;
        if self.keeps && members.iter().any(failed) {
            world.wrong("a task of a group failed, and the group goes on");
        }
    }
}

#[derive(Clone)]
enum AnyGroup {
    Failing(TaskGroup),
    Supervised(Supervisor),
}

impl AnyGroup {
    fn is_closed(&self) -> bool {
        match self {
            AnyGroup::Failing(group) => group.is_closed(),
            AnyGroup::Supervised(group) => group.is_closed(),
        }
    }

    fn task(&self) -> TaskBuilder<'_, 'static> {
        match self {
            AnyGroup::Failing(group) => group.task(),
            AnyGroup::Supervised(group) => group.task(),
        }
    }
}

struct Held {
    handle: Box<dyn AnyHandle>,
    rec: Rc<Rec>,
    taken: bool,
    callbacks: Vec<(CallbackId, Rc<Called>)>,
}

struct World {
    rng: Cell<u64>,
    /// Faults, in percent.
    heat: u64,
    /// No more faults: the test itself cleans up.
    calm: Cell<bool>,
    fuel: Cell<u32>,
    depth: Cell<u32>,
    policy: ReportPolicy,
    next_guard: Cell<u64>,
    guards: RefCell<BTreeSet<u64>>,
    local: RefCell<Vec<LocalHandle<'static>>>,
    executors: RefCell<Vec<Option<Rc<Host>>>>,
    closing: [Cell<bool>; 2],
    closed: [Cell<bool>; 2],
    recs: RefCell<Vec<Rc<Rec>>>,
    handles: RefCell<Vec<Held>>,
    on_drop: RefCell<Vec<Box<dyn Any>>>,
    groups: RefCell<Vec<(AnyGroup, Rc<Group>)>>,
    all_groups: RefCell<Vec<Rc<Group>>>,
    supervisors: RefCell<Vec<(Supervisor, Rc<Group>)>>,
    scopes: RefCell<Vec<Scope>>,
    /// Failures that a group handed to its caller.
    handed: RefCell<BTreeSet<TaskId>>,
    cancels: RefCell<Vec<CancelHandle>>,
    wakers: RefCell<Vec<(Waker, Arc<AtomicBool>)>>,
    calls: RefCell<Vec<(CallHandle, Rc<Called>)>>,
    called: RefCell<Vec<Rc<Called>>>,
    callbacks: RefCell<Vec<Rc<Called>>>,
    told: RefCell<BTreeSet<TaskId>>,
    told_count: Cell<u64>,
    reports: Cell<u64>,
    threads: RefCell<Vec<Thread<()>>>,
    /// The last action begun.
    acted: Cell<Option<Act>>,
    wrong: RefCell<Vec<String>>,
}

impl World {
    fn random(&self) -> u64 {
        let next = self.rng.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.rng.set(next);
        let z = (next ^ (next >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&self, n: usize) -> usize {
        usize::try_from(self.random() % n.max(1) as u64).unwrap_or(0)
    }

    fn chance(&self, percent: u64) -> bool {
        self.random() % 100 < percent
    }

    fn wrong(&self, what: impl Into<String>) {
        self.wrong.borrow_mut().push(what.into());
    }

    /// Takes one of `list` out, so that nothing is borrowed while it is used.
    fn pick<T>(&self, list: &RefCell<Vec<T>>) -> Option<T> {
        let mut list = list.borrow_mut();
        if list.is_empty() {
            return None;
        }
        let at = self.below(list.len());
        Some(list.swap_remove(at))
    }

    fn some_local(&self) -> (usize, LocalHandle<'static>) {
        let at = if self.chance(75) {
            0
        } else {
            self.below(self.local.borrow().len())
        };
        (at, self.local.borrow()[at].clone())
    }

    fn stats(&self) -> Vec<Stats> {
        let local: Vec<_> = self.local.borrow().clone();
        local.iter().map(LocalHandle::stats).collect()
    }

    fn check_books(&self, stats: &Stats, place: &str) {
        let ended = stats.live + stats.returned + stats.failed + stats.cancelled;
        if stats.spawned != ended {
            self.wrong(format!("P2, {place}: spawned is not the sum: {stats:?}"));
        }
        if stats.failed != stats.reported + stats.retrieved + stats.unread {
            self.wrong(format!("P2, {place}: failed is not the sum: {stats:?}"));
        }
    }

    /// What must hold whenever no user code of the program runs.
    fn check(&self, place: &str) {
        let stats = self.stats();
        for stats in &stats {
            self.check_books(stats, place);
        }
        let reported: u64 = stats.iter().map(|stats| stats.reported).sum();
        if reported != self.told_count.get() {
            let told = self.told_count.get();
            self.wrong(format!(
                "P2, {place}: {reported} counted as reported, {told} told"
            ));
        }
        let reports: u64 = stats.iter().map(|stats| stats.reports).sum();
        if reports != self.reports.get() {
            let seen = self.reports.get();
            self.wrong(format!("{place}: {reports} reports counted, {seen} made"));
        }
    }

    /// What must hold of an executor that has nothing more to do.
    fn check_stalled(&self, ex: usize, now: Instant) {
        let recs = self.recs.borrow();
        for rec in recs.iter().filter(|rec| rec.ex == ex && !rec.gone.get()) {
            let id = rec.id.get();
            let woken = |flag: &Arc<AtomicBool>| flag.load(Ordering::SeqCst);
            if rec.waiting.borrow().as_ref().is_some_and(woken) {
                self.wrong(format!("P1: {id:?} was woken and is not polled"));
            }
            if rec.sleeping.get().is_some_and(|at| at <= now) {
                self.wrong(format!("{id:?} sleeps on after its time"));
            }
            if rec.cancelled.get() {
                self.wrong(format!("{id:?} was cancelled and lives"));
            }
            let ended = |on: &Rc<Rec>| on.ex == ex && on.gone.get();
            if rec.awaiting.borrow().as_ref().is_some_and(ended) {
                self.wrong(format!("P1: {id:?} awaits a task that has ended"));
            }
        }
        for group in self.all_groups.borrow().iter() {
            if group.ex.get() == ex {
                group.check_stalled(self);
            }
        }
        for call in self.called.borrow().iter() {
            let over = call.count.get() > 0 || call.removed.get() || call.void.get();
            if call.ex == ex && !over && call.at.is_none_or(|at| at <= now) {
                self.wrong("a call is due and not made");
            }
        }
    }
}

/// Counts where things are dropped: exactly once, on the home thread.
struct Guard(u64);

impl Guard {
    fn new(world: &World) -> Self {
        let id = world.next_guard.get();
        world.next_guard.set(id + 1);
        world.guards.borrow_mut().insert(id);
        Guard(id)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        match world() {
            Some(world) => {
                if !world.guards.borrow_mut().remove(&self.0) {
                    world.wrong("a guard was dropped twice");
                }
            }
            None => {
                STRAYS.fetch_add(1, Ordering::SeqCst);
            }
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Faults
// ---------------------------------------------------------------------------------------------------------------------

/// A panic payload that may panic when it is dropped.
struct Bomb {
    _guard: Guard,
    fuse: bool,
}

impl Drop for Bomb {
    fn drop(&mut self) {
        if !self.fuse || thread::panicking() {
            return;
        }
        let Some(world) = world() else { return };
        let kind = world.below(3);
        blow(&world, Point::DropPayload, kind);
    }
}

/// Panics now and then.
fn boom(point: Point) {
    boom_after(point, || ());
}

fn boom_after(point: Point, before: impl FnOnce()) {
    if thread::panicking() {
        return;
    }
    let Some(world) = world() else { return };
    if !world.calm.get() && world.chance(world.heat) {
        before();
        let kind = world.below(4);
        blow(&world, point, kind);
    }
}

fn blow(world: &World, point: Point, kind: usize) -> ! {
    tally(|tally| tally.faults[point as usize][kind] += 1);
    match kind {
        0 => panic!("boom"),
        1 => panic_any(String::from("boom in a String")),
        _ => panic_any(Bomb {
            _guard: Guard::new(world),
            fuse: kind == 3,
        }),
    }
}

/// Drops what the test itself has come to own, whatever its destructor does.
fn drop_quietly<T>(value: T) {
    let mut next = catch_unwind(AssertUnwindSafe(|| drop(value))).err();
    while let Some(payload) = next {
        next = catch_unwind(AssertUnwindSafe(|| drop(payload))).err();
    }
}

/// Captured by a closure: counts, and panics in its destructor.
struct Captured {
    _guard: Guard,
    point: Point,
}

impl Captured {
    fn new(world: &World, point: Point) -> Self {
        Captured {
            _guard: Guard::new(world),
            point,
        }
    }
}

impl Drop for Captured {
    fn drop(&mut self) {
        reenter(Place::Destructor);
        boom(self.point);
    }
}

struct Out {
    _guard: Guard,
    armed: bool,
}

impl Drop for Out {
    fn drop(&mut self) {
        if self.armed {
            reenter(Place::Destructor);
            boom(Point::DropOutput);
        }
    }
}

struct Fail(Out);

impl fmt::Display for Fail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        boom(Point::Display);
        f.write_str("boom returned")
    }
}

impl fmt::Debug for Fail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fail")
    }
}

/// A waker that is none of the executor's.
struct Foreign {
    armed: AtomicBool,
}

impl Wake for Foreign {
    fn wake(self: Arc<Self>) {
        reenter(Place::Waker);
        boom(Point::Wake);
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        if self.armed.load(Ordering::SeqCst) {
            reenter(Place::Destructor);
            boom(Point::WakerDrop);
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Handles of any type
// ---------------------------------------------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Returned,
    Failed,
    Cancelled,
    /// It failed, and its group has what by.
    Kept,
}

/// What a task returns.
trait Value: 'static {
    /// Whether it is an error; dropped without a fault.
    fn look(self) -> Seen;
}

impl Value for Out {
    fn look(mut self) -> Seen {
        self.armed = false;
        Seen::Returned
    }
}

impl Value for Result<Out, Fail> {
    fn look(self) -> Seen {
        match self {
            Ok(out) => out.look(),
            Err(mut fail) => {
                fail.0.armed = false;
                Seen::Failed
            }
        }
    }
}

fn look<T: Value>(outcome: Result<T, JoinError>) -> Seen {
    match outcome {
        Ok(value) => value.look(),
        Err(error) => {
            drop((error.to_string(), error.reason().map(str::len)));
            let (cancelled, kept) = (error.is_cancelled(), error.in_group());
            drop_quietly(error);
            match (cancelled, kept) {
                (true, _) => Seen::Cancelled,
                (false, true) => Seen::Kept,
                (false, false) => Seen::Failed,
            }
        }
    }
}

type DoneCallback = Box<dyn FnOnce(&Completion<'_>)>;

trait AnyHandle {
    fn id(&self) -> TaskId;
    fn is_finished(&self) -> bool;
    fn cancel(&self, reason: bool) -> bool;
    fn cancel_handle(&self) -> CancelHandle;
    fn result(&mut self) -> Option<Seen>;
    fn exception(&self) -> Option<Seen>;
    fn add(&self, call: DoneCallback) -> CallbackId;
    fn remove(&self, id: CallbackId) -> bool;
    fn poll_outcome(&mut self, cx: &mut Context<'_>) -> Poll<Seen>;
    fn into_cancel_on_drop(self: Box<Self>) -> Box<dyn Any>;
}

impl<T: Value> AnyHandle for JoinHandle<T> {
    fn id(&self) -> TaskId {
        JoinHandle::id(self)
    }

    fn is_finished(&self) -> bool {
        JoinHandle::is_finished(self)
    }

    fn cancel(&self, reason: bool) -> bool {
        if reason {
            self.cancel_with_reason("a reason")
        } else {
            JoinHandle::cancel(self)
        }
    }

    fn cancel_handle(&self) -> CancelHandle {
        JoinHandle::cancel_handle(self)
    }

    fn result(&mut self) -> Option<Seen> {
        JoinHandle::result(self).ok().map(look)
    }

    fn exception(&self) -> Option<Seen> {
        match JoinHandle::exception(self) {
            Ok(Some(exception)) => {
                let _ = exception.is_panic();
                Some(Seen::Failed)
            }
            Ok(None) => Some(Seen::Returned),
            Err(mainstay::ExceptionError::Cancelled) => Some(Seen::Cancelled),
            Err(_) => None,
        }
    }

    fn add(&self, call: DoneCallback) -> CallbackId {
        self.add_done_callback(call)
    }

    fn remove(&self, id: CallbackId) -> bool {
        self.remove_done_callback(id)
    }

    fn poll_outcome(&mut self, cx: &mut Context<'_>) -> Poll<Seen> {
        Pin::new(self).poll(cx).map(look)
    }

    fn into_cancel_on_drop(self: Box<Self>) -> Box<dyn Any> {
        Box::new((*self).cancel_on_drop())
    }
}

fn note_seen(world: &World, rec: &Rec, seen: Seen) {
    tally(|tally| tally.seen[seen as usize] += 1);
    if seen == Seen::Failed {
        rec.read.set(true);
    }
    if seen == Seen::Kept && !rec.group.as_ref().is_some_and(|group| group.keeps) {
        world.wrong(format!(
            "{:?} has no group that keeps its failure",
            rec.id.get()
        ));
    }
    if rec.must_fail.get() && !rec.refused && !matches!(seen, Seen::Failed | Seen::Kept) {
        world.wrong(format!("{:?} failed, but reads as {seen:?}", rec.id.get()));
    }
    if rec.cancelled.get() && seen == Seen::Returned {
        world.wrong(format!("{:?} was cancelled and returned", rec.id.get()));
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Tasks
// ---------------------------------------------------------------------------------------------------------------------

enum Now {
    Choosing,
    Waiting(Arc<AtomicBool>),
    Sleeping(Pin<Box<dyn Future<Output = ()>>>, Instant),
    Awaiting(Held),
    Scoped(Scope),
}

/// What a task does: steps, chosen as it goes.
struct Program {
    rec: Rc<Rec>,
    left: usize,
    now: Now,
    done: bool,
    guard: Option<Guard>,
}

impl Program {
    fn step(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(world) = world() else {
            STRAYS.fetch_add(1, Ordering::SeqCst);
            return Poll::Ready(());
        };
        loop {
            let (rec, done) = (&self.rec, &mut self.done);
            boom_after(Point::Poll, || {
                rec.must_fail.set(true);
                *done = true;
            });
            match &mut self.now {
                Now::Choosing => {
                    if self.left == 0 {
                        self.done = true;
                        return Poll::Ready(());
                    }
                    self.left -= 1;
                    self.choose(&world);
                }
                Now::Waiting(flag) => {
                    if !flag.load(Ordering::SeqCst) {
                        return Poll::Pending;
                    }
                    self.rec.waiting.take();
                }
                Now::Sleeping(sleep, at) => {
                    self.rec.sleeping.set(Some(*at));
                    if sleep.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    if LocalHandle::current().now() < *at {
                        world.wrong("a sleep ended early");
                    }
                    self.rec.sleeping.set(None);
                }
                Now::Scoped(scope) => {
                    if Pin::new(scope).poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                }
                Now::Awaiting(held) => {
                    if held.taken {
                        self.now = Now::Choosing;
                        continue;
                    }
                    self.rec.awaiting.replace(Some(Rc::clone(&held.rec)));
                    let Poll::Ready(seen) = held.handle.poll_outcome(cx) else {
                        return Poll::Pending;
                    };
                    held.taken = true;
                    self.rec.awaiting.take();
                    note_seen(&world, &held.rec, seen);
                }
            }
            if !matches!(self.now, Now::Choosing) {
                let over = std::mem::replace(&mut self.now, Now::Choosing);
                if let Now::Awaiting(held) = over {
                    world.handles.borrow_mut().push(held);
                }
            }
            // The others have their turn between two steps, now and then.
            if self.left > 0 && world.chance(30) {
                self.wait(&world, cx, true);
                return Poll::Pending;
            }
            if self.left > 0 {
                self.prepare(&world, cx);
            }
        }
    }

    /// Begins what the next round of the loop polls.
    fn prepare(&mut self, world: &World, cx: &mut Context<'_>) {
        match world.below(9) {
            7 => self.now = Now::Scoped(scope(world, Some(&self.rec))),
            8 => {
                let at = LocalHandle::current().now() + Duration::from_millis(1);
                let asked = Box::pin(async move {
                    let _ = mainstay::timeout_at(at, mainstay::cancel_requested()).await;
                });
                // Ready at any time, and at its own at the latest.
                self.now = Now::Scoped(Scope {
                    inner: Some(asked),
                    group: None,
                });
            }
            0 => self.wait(world, cx, false),
            1 => self.wait(world, cx, true),
            2 | 3 => {
                let after = Duration::from_millis(world.random() % 4);
                let at = LocalHandle::current().now() + after;
                let sleep: Pin<Box<dyn Future<Output = ()>>> = if world.chance(50) {
                    Box::pin(mainstay::sleep_until(at))
                } else {
                    Box::pin(async move {
                        let _ = mainstay::timeout_at(at, pending::<()>()).await;
                    })
                };
                self.now = Now::Sleeping(sleep, at);
            }
            4 => {
                if let Some(held) = world.pick(&world.handles) {
                    if held.taken || Rc::ptr_eq(&held.rec, &self.rec) {
                        world.handles.borrow_mut().push(held);
                    } else {
                        self.now = Now::Awaiting(held);
                    }
                }
            }
            _ => {}
        }
    }

    fn choose(&self, world: &World) {
        let acts = world.below(3);
        for _ in 0..acts {
            act(world, Place::Task);
        }
        if world.chance(8) {
            // Oneself, by whatever handle there is.
            let own = world
                .handles
                .borrow()
                .iter()
                .position(|held| Rc::ptr_eq(&held.rec, &self.rec));
            if let Some(at) = own {
                let held = world.handles.borrow_mut().swap_remove(at);
                cancel(world, &held);
                world.handles.borrow_mut().push(held);
            }
        }
    }

    /// Waits to be woken, by itself at once or by whoever finds the waker.
    fn wait(&mut self, world: &World, cx: &mut Context<'_>, at_once: bool) {
        let flag = Arc::new(AtomicBool::new(at_once));
        self.rec.waiting.replace(Some(Arc::clone(&flag)));
        if at_once {
            cx.waker().wake_by_ref();
        } else {
            let entry = (cx.waker().clone(), Arc::clone(&flag));
            world.wakers.borrow_mut().push(entry);
        }
        self.now = Now::Waiting(flag);
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _busy = Busy::new(&self.rec);
        self.rec.gone.set(true);
        drop(self.guard.take());
        let now = std::mem::replace(&mut self.now, Now::Choosing);
        self.rec.awaiting.take();
        drop_quietly(now);
        reenter(Place::Destructor);
        let Some(world) = world() else { return };
        let ex = self.rec.ex;
        let point = if self.done {
            Point::DropReturned
        } else if world.closing[ex].get() {
            Point::DropClosed
        } else {
            Point::DropCancelled
        };
        boom_after(point, || {
            self.rec.must_fail.set(true);
            let group = self.rec.group.as_ref();
            if !self.done && group.is_some_and(|group| group.ending.get()) {
                note_shape(Shape::Destructor);
            }
        });
    }
}

struct Plain(Program);

/// What a group's body fails by. Without a guard: where a local of the body panics when it is dropped at the return, Rust
/// leaks the value that is being returned.
#[derive(Debug)]
struct Broken;

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        boom(Point::Display);
        f.write_str("boom returned by a body")
    }
}

/// Notes that a task is being polled or dropped.
struct Busy(Rc<Rec>);

impl Busy {
    fn new(rec: &Rc<Rec>) -> Self {
        rec.busy.set(rec.busy.get() + 1);
        Busy(Rc::clone(rec))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.set(self.0.busy.get() - 1);
    }
}

impl Future for Plain {
    type Output = Out;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Out> {
        let _busy = Busy::new(&self.0.rec);
        self.0.step(cx).map(|()| out())
    }
}

struct Fallible(Program);

impl Future for Fallible {
    type Output = Result<Out, Fail>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let _busy = Busy::new(&self.0.rec);
        self.0.step(cx).map(|()| {
            let fails = world().is_some_and(|world| world.chance(40));
            if fails {
                tally(|tally| tally.faults[Point::Poll as usize][4] += 1);
                self.0.rec.must_fail.set(true);
                Err(Fail(out()))
            } else {
                Ok(out())
            }
        })
    }
}

fn out() -> Out {
    let world = world().expect("tasks run at home");
    Out {
        _guard: Guard::new(&world),
        armed: true,
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Groups
// ---------------------------------------------------------------------------------------------------------------------

/// A scope that is being run, or (without a group) something else to wait for.
struct Scope {
    inner: Option<Pin<Box<dyn Future<Output = ()>>>>,
    group: Option<Rc<Group>>,
}

impl Scope {
    /// Drops what is left, and looks whether anybody is left.
    fn end(&mut self, when: &str) {
        let Some(inner) = self.inner.take() else {
            return;
        };
        let Some(group) = &self.group else {
            return drop_quietly(inner);
        };
        if group.has_tasks() {
            note_shape(Shape::Midway);
            if group.host.as_ref().is_some_and(|host| host.gone.get()) {
                note_shape(Shape::HostDropped);
            }
            if group.is_on_stack() {
                note_shape(Shape::DroppedByOwn);
            }
        }
        group.while_ending(|| drop_quietly(inner));
        if let Some(world) = world() {
            group.over.set(true);
            group.check_gone(&world, when);
        }
    }
}

impl Future for Scope {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let Some(inner) = &mut this.inner else {
            return Poll::Ready(());
        };
        match catch_unwind(AssertUnwindSafe(|| inner.as_mut().poll(cx))) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(())) => {
                if let (Some(world), Some(group)) = (world(), &this.group) {
                    group.check_gone(&world, "run to its end");
                }
                this.end("run to its end");
            }
            Err(payload) => {
                if let (Some(world), Some(group)) = (world(), &this.group) {
                    group.check_gone(&world, "left by a panic");
                }
                this.end("left by a panic");
                panic::resume_unwind(payload);
            }
        }
        Poll::Ready(())
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        self.end("dropped");
    }
}

/// A scope of either kind, run by `host` or by whoever finds it.
fn scope(world: &World, host: Option<&Rc<Rec>>) -> Scope {
    tally(|tally| tally.groups += 1);
    let keeps = world.chance(70);
    let group = Rc::new(Group {
        ex: Cell::new(0),
        keeps,
        members: RefCell::default(),
        host: host.cloned(),
        body_ended: Cell::new(false),
        over: Cell::new(false),
        ending: Cell::new(false),
    });
    if host.is_some_and(|host| host.group.is_some()) {
        note_shape(Shape::Nested);
    }
    world.all_groups.borrow_mut().push(Rc::clone(&group));
    let (own, steps) = (Rc::clone(&group), world.below(5));
    let captured = Captured::new(world, Point::BodyDrop);
    let inner: Pin<Box<dyn Future<Output = ()>>> = if keeps {
        Box::pin(async move {
            let scoped = TaskGroup::try_scope(async |g| {
                let _captured = captured;
                body(AnyGroup::Failing(g.clone()), &own, steps).await
            });
            match scoped.await {
                Ok(()) => {}
                Err(failed) => handed_on(failed),
            }
        })
    } else {
        Box::pin(Supervisor::scope(async move |s| {
            let _captured = captured;
            drop(body(AnyGroup::Supervised(s.clone()), &own, steps).await);
        }))
    };
    Scope {
        inner: Some(inner),
        group: Some(group),
    }
}

/// What a group hands to its caller.
fn handed_on(failed: ExceptionGroup) {
    if let Some(world) = world() {
        for (task, _) in failed.iter() {
            let Some(id) = task.map(mainstay::TaskInfo::id) else {
                continue;
            };
            tally(|tally| tally.handed += 1);
            if !world.handed.borrow_mut().insert(id) {
                world.wrong(format!("P2: {id} was handed on twice"));
            }
        }
        let _ = failed
            .iter()
            .filter(|(_, exception)| exception.is_panic())
            .count();
    }
    if catch_unwind(AssertUnwindSafe(|| drop(failed))).is_err() {
        if let Some(world) = world() {
            world.wrong("P3: dropping a group's failures panicked");
        }
    }
}

/// The running executor, which is known by its clock.
fn running(world: &World) -> usize {
    let Some(current) = LocalHandle::try_current() else {
        return 0;
    };
    let now = current.now();
    let local = world.local.borrow().clone();
    local
        .iter()
        .position(|local| local.now() == now)
        .unwrap_or(0)
}

async fn body(any: AnyGroup, group: &Rc<Group>, steps: usize) -> Result<(), Broken> {
    if let Some(world) = world() {
        group.ex.set(running(&world));
        if world.chance(15) {
            match &any {
                AnyGroup::Failing(group) => drop(group.limit(1 + world.below(3))),
                AnyGroup::Supervised(group) => drop(group.limit(1 + world.below(3))),
            }
        }
        if let (AnyGroup::Supervised(s), true) = (&any, world.chance(30)) {
            supervise(&world, s);
        }
        for _ in 0..1 + world.below(4) {
            spawn_member(&world, &any, group);
        }
        world
            .groups
            .borrow_mut()
            .push((any.clone(), Rc::clone(group)));
    }
    for _ in 0..steps {
        let Some(world) = world() else { break };
        act(&world, Place::Task);
        boom_after(Point::Body, || {
            if let Some(host) = &group.host {
                host.must_fail.set(true);
            }
        });
        let rest = world.random() % 6;
        drop(world);
        match rest {
            0..=3 => mainstay::yield_now().await,
            after => mainstay::sleep(Duration::from_millis(after - 3)).await,
        }
    }
    group.body_ended.set(true);
    match world() {
        Some(world) if group.keeps && !world.calm.get() && world.chance(world.heat) => {
            tally(|tally| tally.faults[Point::Body as usize][4] += 1);
            Err(Broken)
        }
        _ => Ok(()),
    }
}

fn spawn_member(world: &World, any: &AnyGroup, group: &Rc<Group>) {
    tally(|tally| tally.members += 1);
    spawn_with(
        world,
        group.ex.get(),
        any.is_closed(),
        Some(group),
        any.task(),
    );
}

/// Gives a supervisor a handler of its own.
fn supervise(world: &World, supervisor: &Supervisor) {
    let captured = Captured::new(world, Point::HandlerDrop);
    supervisor.set_exception_handler(move |local, context| {
        let _captured = &captured;
        handle(local, context);
    });
}

fn end_group(world: &World, place: Place, any: &AnyGroup, group: &Group) {
    if group.has_tasks() && group.is_on_stack() {
        match place {
            Place::Task => note_shape(Shape::EndedByOwn),
            Place::Destructor => note_shape(Shape::EndedByDestructor),
            _ => {}
        }
    }
    match any {
        AnyGroup::Failing(failing) => {
            let was_over = group.over.get();
            if group.while_ending(|| failing.cancel()) {
                group.check_gone(world, "cancelled");
                if was_over {
                    world.wrong("a group that is over could be cancelled");
                }
            }
        }
        AnyGroup::Supervised(supervisor) => match world.below(3) {
            0 => {
                group.while_ending(|| supervisor.abort());
                group.check_gone(world, "aborted");
            }
            1 => {
                let end = supervisor.shutdown(Duration::from_millis(world.random() % 4));
                // From outside, or from one of its own tasks.
                let local = world.local.borrow()[group.ex.get()].clone();
                note_shape(Shape::AwaitedByOther);
                local
                    .spawn(async move {
                        let _ = end.await;
                    })
                    .detach();
            }
            _ => {
                let end = supervisor.shutdown(Duration::from_millis(world.random() % 4));
                note_shape(Shape::AwaitedByOwn);
                supervisor
                    .spawn(async move {
                        let _ = end.await;
                    })
                    .detach();
            }
        },
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Actions
// ---------------------------------------------------------------------------------------------------------------------

/// A few actions from inside of user code.
fn reenter(place: Place) {
    if thread::panicking() {
        return;
    }
    let Some(world) = world() else { return };
    if world.calm.get() || world.depth.get() >= 4 || !world.chance(30) {
        return;
    }
    act(&world, place);
}

fn act(world: &World, place: Place) {
    if world.calm.get() || world.fuel.get() == 0 || world.depth.get() >= 6 {
        return;
    }
    world.fuel.set(world.fuel.get() - 1);
    world.depth.set(world.depth.get() + 1);
    // Nothing that the library offers lets a panic of somebody else's out (P3).
    let done = catch_unwind(AssertUnwindSafe(|| act_now(world, place)));
    world.depth.set(world.depth.get() - 1);
    if let Err(payload) = done {
        let text = payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned());
        world.wrong(format!(
            "P3: a panic escaped into {place:?} at {:?}: {text:?}",
            world.acted.get()
        ));
        drop_quietly(payload);
    }
}

fn act_now(world: &World, place: Place) {
    const WEIGHTS: [(Act, usize); N_ACTS] = [
        (Act::Spawn, 24),
        (Act::Wake, 8),
        (Act::Cancel, 8),
        (Act::DropHandle, 9),
        (Act::Read, 8),
        (Act::AddCallback, 10),
        (Act::RemoveCallback, 2),
        (Act::AddCall, 7),
        (Act::CancelCall, 3),
        (Act::Stop, 1),
        (Act::SetHandler, 4),
        (Act::UserReport, 2),
        (Act::PollForeign, 8),
        (Act::Drive, 4),
        (Act::DropExecutor, 1),
        (Act::SpawnMember, 8),
        (Act::OpenScope, 4),
        (Act::PollScope, 4),
        (Act::DropScope, 3),
        (Act::EndGroup, 3),
        (Act::Supervise, 3),
    ];
    let mut at = world.below(WEIGHTS.iter().map(|(_, weight)| weight).sum());
    let mut act = Act::Spawn;
    for (candidate, weight) in WEIGHTS {
        if at < weight {
            act = candidate;
            break;
        }
        at -= weight;
    }
    tally(|tally| tally.acts[place as usize][act as usize] += 1);
    world.acted.set(Some(act));
    match act {
        Act::Spawn => spawn(world),
        Act::Wake => {
            if let Some((waker, flag)) = world.pick(&world.wakers) {
                flag.store(true, Ordering::SeqCst);
                if world.chance(30) {
                    waker.wake_by_ref();
                    world.wakers.borrow_mut().push((waker, flag));
                } else {
                    waker.wake();
                }
            }
        }
        Act::Cancel => {
            if world.chance(25) {
                if let Some(cancel) = world.pick(&world.cancels) {
                    let _ = cancel.cancel();
                    let _ = cancel.is_finished();
                }
            } else if let Some(held) = world.pick(&world.handles) {
                cancel(world, &held);
                if world.chance(30) {
                    world.cancels.borrow_mut().push(held.handle.cancel_handle());
                }
                world.handles.borrow_mut().push(held);
            }
        }
        Act::DropHandle => {
            if world.chance(20) {
                drop(world.pick(&world.on_drop));
            } else {
                drop(world.pick(&world.handles));
            }
        }
        Act::Read => {
            if let Some(mut held) = world.pick(&world.handles) {
                let seen = if held.taken {
                    None
                } else if world.chance(50) {
                    let seen = held.handle.result();
                    held.taken = seen.is_some();
                    seen
                } else {
                    held.handle.exception()
                };
                if let Some(seen) = seen {
                    note_seen(world, &held.rec, seen);
                }
                world.handles.borrow_mut().push(held);
            }
        }
        Act::AddCallback => {
            if let Some(mut held) = world.pick(&world.handles) {
                add_callback(world, &mut held);
                world.handles.borrow_mut().push(held);
            }
        }
        Act::RemoveCallback => {
            if let Some(mut held) = world.pick(&world.handles) {
                if let Some((id, called)) = held.callbacks.pop() {
                    if held.handle.remove(id) {
                        called.removed.set(true);
                    }
                }
                world.handles.borrow_mut().push(held);
            }
        }
        Act::AddCall => add_call(world),
        Act::CancelCall => {
            if let Some((call, called)) = world.pick(&world.calls) {
                let before = called.count.get();
                if call.cancel() {
                    called.removed.set(true);
                    if before > 0 {
                        world.wrong("a call that was made could be cancelled");
                    }
                }
            }
        }
        Act::Stop => world.some_local().1.stop(),
        Act::SetHandler => {
            let (_, local) = world.some_local();
            match world.below(4) {
                0 => local.clear_exception_handler(),
                1 => {
                    if let Some(old) = local.exception_handler() {
                        local.set_exception_handler(move |local, context| old(local, context));
                    }
                }
                _ => set_handler(world, &local),
            }
        }
        Act::UserReport => {
            let context = ExceptionContext::new("boom of the user's own").build();
            world.some_local().1.call_exception_handler(&context);
        }
        Act::PollForeign => poll_foreign(world),
        Act::Drive => {
            let host = world.executors.borrow().get(1).cloned().flatten();
            if let Some(host) = host {
                if !host.executor().is_running() {
                    drive_briefly(world, &host);
                }
            }
        }
        Act::DropExecutor => {
            let host = match world.executors.borrow_mut().get_mut(1) {
                Some(host) if world.chance(50) => host.take(),
                _ => None,
            };
            drop(host);
        }
        Act::SpawnMember => {
            if let Some((any, group)) = world.pick(&world.groups) {
                spawn_member(world, &any, &group);
                world.groups.borrow_mut().push((any, group));
            }
        }
        Act::OpenScope | Act::PollScope => {
            let scope = if act == Act::OpenScope {
                Some(scope(world, None))
            } else {
                world.pick(&world.scopes)
            };
            if let Some(mut scope) = scope {
                // A scope opens where an executor is being driven.
                let ready = LocalHandle::try_current().is_some() && poll_scope(&mut scope);
                if !ready {
                    world.scopes.borrow_mut().push(scope);
                }
            }
        }
        Act::DropScope => drop(world.pick(&world.scopes)),
        Act::EndGroup => {
            if let Some((any, group)) = world.pick(&world.groups) {
                end_group(world, place, &any, &group);
                if world.chance(50) {
                    world.groups.borrow_mut().push((any, group));
                }
            }
        }
        Act::Supervise => {
            if world.chance(50) {
                let (ex, local) = world.some_local();
                let supervisor = Supervisor::new_in(&local);
                let group = Rc::new(Group {
                    ex: Cell::new(ex),
                    keeps: false,
                    members: RefCell::default(),
                    host: None,
                    body_ended: Cell::new(false),
                    over: Cell::new(false),
                    ending: Cell::new(false),
                });
                tally(|tally| tally.groups += 1);
                if world.chance(50) {
                    supervise(world, &supervisor);
                }
                let any = AnyGroup::Supervised(supervisor.clone());
                world.groups.borrow_mut().push((any, Rc::clone(&group)));
                world.supervisors.borrow_mut().push((supervisor, group));
            } else if let Some((supervisor, group)) = world.pick(&world.supervisors) {
                if group.has_tasks() && group.is_on_stack() {
                    note_shape(Shape::DroppedByOwn);
                }
                drop(supervisor);
            }
        }
    }
}

/// Polls a scope with a waker that is none of the executor's. Whether it has ended.
fn poll_scope(scope: &mut Scope) -> bool {
    let foreign = Arc::new(Foreign {
        armed: AtomicBool::new(false),
    });
    let waker = Waker::from(Arc::clone(&foreign));
    let mut cx = Context::from_waker(&waker);
    let polled = catch_unwind(AssertUnwindSafe(|| Pin::new(scope).poll(&mut cx)));
    drop(waker);
    // It panics where the executor drops it, not here.
    if Arc::strong_count(&foreign) > 1 {
        foreign.armed.store(true, Ordering::SeqCst);
    }
    match polled {
        Ok(polled) => polled.is_ready(),
        Err(payload) => {
            // The body's own panic.
            drop_quietly(payload);
            true
        }
    }
}

fn spawn(world: &World) {
    let (ex, local) = world.some_local();
    spawn_with(world, ex, world.closed[ex].get(), None, local.task());
}

fn spawn_with(
    world: &World,
    ex: usize,
    refused: bool,
    group: Option<&Rc<Group>>,
    mut builder: TaskBuilder<'_, 'static>,
) {
    let rec = Rc::new(Rec {
        ex,
        id: Cell::new(None),
        refused: refused || world.closed[ex].get(),
        gone: Cell::new(false),
        must_fail: Cell::new(false),
        cancelled: Cell::new(false),
        read: Cell::new(false),
        busy: Cell::new(0),
        group: group.cloned(),
        waiting: RefCell::default(),
        sleeping: Cell::new(None),
        awaiting: RefCell::default(),
    });
    let program = Program {
        rec: Rc::clone(&rec),
        left: world.below(5),
        now: Now::Choosing,
        done: false,
        guard: Some(Guard::new(world)),
    };
    world.recs.borrow_mut().push(Rc::clone(&rec));
    if let Some(group) = group {
        group.members.borrow_mut().push(Rc::clone(&rec));
    }
    tally(|tally| tally.tasks += 1);
    if world.chance(10) {
        builder = builder.name("named");
    }
    if world.chance(10) {
        builder = builder.background();
    }
    let handle: Box<dyn AnyHandle> = if world.chance(45) {
        Box::new(builder.spawn_fallible(Fallible(program)))
    } else {
        Box::new(builder.spawn(Plain(program)))
    };
    rec.id.set(Some(handle.id()));
    let mut held = Held {
        handle,
        rec,
        taken: false,
        callbacks: Vec::new(),
    };
    if held.rec.refused {
        held.taken = true;
    }
    if world.chance(30) {
        add_callback(world, &mut held);
    }
    match world.below(10) {
        0..=2 => drop(held),
        3 => {
            let guard = held.handle.into_cancel_on_drop();
            world.on_drop.borrow_mut().push(guard);
        }
        _ => world.handles.borrow_mut().push(held),
    }
}

fn cancel(world: &World, held: &Held) {
    let finished = held.handle.is_finished();
    let done = held.handle.cancel(world.chance(30));
    if done {
        held.rec.cancelled.set(true);
    }
    if done == finished {
        world.wrong(format!(
            "cancel gave {done} for a task with finished = {finished}"
        ));
    }
}

fn add_callback(world: &World, held: &mut Held) {
    // Where the outcome was taken and nothing is driven, nobody is left to call it: it would be dropped at once, in the
    // caller's own frame, and what its captures' destructors do is then the caller's.
    if held.taken && LocalHandle::try_current().is_none() {
        return;
    }
    let ex = held.rec.ex;
    let late = held.handle.is_finished();
    let called = Rc::new(Called {
        ex,
        // Whose outcome was taken, or whose executor is gone, has nobody to call anything.
        void: Cell::new(held.taken || world.closed[ex].get()),
        ..Called::default()
    });
    let captured = Captured::new(world, Point::CallbackDrop);
    let (own, rec) = (Rc::clone(&called), Rc::clone(&held.rec));
    if late {
        tally(|tally| tally.late += 1);
    }
    let id = held.handle.add(Box::new(move |completion| {
        let _captured = captured;
        let Some(world) = crate::world() else {
            STRAYS.fetch_add(1, Ordering::SeqCst);
            return;
        };
        own.count.set(own.count.get() + 1);
        if own.removed.get() {
            world.wrong("a callback was removed and called");
        }
        if Some(completion.task().id()) != rec.id.get() && rec.id.get().is_some() {
            world.wrong("a callback was given another task");
        }
        // Looking at a failure retrieves it.
        if world.chance(50) {
            let seen = match completion.outcome() {
                Outcome::Returned => Seen::Returned,
                Outcome::Failed(_) => Seen::Failed,
                _ => Seen::Cancelled,
            };
            note_seen(&world, &rec, seen);
        }
        reenter(Place::Callback);
        boom(Point::Callback);
    }));
    world.callbacks.borrow_mut().push(Rc::clone(&called));
    held.callbacks.push((id, called));
}

fn add_call(world: &World) {
    let (ex, local) = world.some_local();
    let soon = world.chance(50);
    let after = Duration::from_millis(world.random() % 4);
    let at = (!soon).then(|| local.now() + after);
    let called = Rc::new(Called {
        ex,
        at,
        void: Cell::new(world.closing[ex].get()),
        ..Called::default()
    });
    let captured = Captured::new(world, Point::CallDrop);
    let (own, here) = (Rc::clone(&called), local.clone());
    let call = move || {
        let _captured = captured;
        let Some(world) = crate::world() else {
            STRAYS.fetch_add(1, Ordering::SeqCst);
            return;
        };
        own.count.set(own.count.get() + 1);
        if own.removed.get() {
            world.wrong("a call was cancelled and made");
        }
        if own.at.is_some_and(|at| here.now() < at) {
            world.wrong("a call was made early");
        }
        reenter(Place::Call);
        boom(Point::Call);
    };
    let handle = match at {
        None => local.call_soon(call),
        Some(at) if world.chance(50) => local.call_at(at, call),
        Some(_) => local.call_later(after, call),
    };
    world.called.borrow_mut().push(Rc::clone(&called));
    world.calls.borrow_mut().push((handle, called));
}

fn poll_foreign(world: &World) {
    let Some(mut held) = world.pick(&world.handles) else {
        return;
    };
    if !held.taken {
        let foreign = Arc::new(Foreign {
            armed: AtomicBool::new(false),
        });
        let waker = Waker::from(Arc::clone(&foreign));
        if let Poll::Ready(seen) = held.handle.poll_outcome(&mut Context::from_waker(&waker)) {
            held.taken = true;
            note_seen(world, &held.rec, seen);
        }
        drop(waker);
        // It panics where the executor drops it, not here.
        if Arc::strong_count(&foreign) > 1 {
            foreign.armed.store(true, Ordering::SeqCst);
        }
    }
    world.handles.borrow_mut().push(held);
}

/// Told by a handler or by the process-wide one.
fn note_report(world: &World, context: &ExceptionContext<'_>) {
    world.reports.set(world.reports.get() + 1);
    tally(|tally| tally.reports += 1);
    let own = matches!(
        context.kind(),
        ContextKind::TaskFailed | ContextKind::NeverRetrieved
    );
    if own {
        world.told_count.set(world.told_count.get() + 1);
        let task = context.task().map(mainstay::TaskInfo::id);
        match task {
            Some(id) if !world.told.borrow_mut().insert(id) => {
                world.wrong(format!("P2: {id} was reported twice"));
            }
            Some(_) => {}
            None => world.wrong("a failed task's report names no task"),
        }
    }
    // Parts that panic when they are formatted are left out, and no panic comes out of it.
    if catch_unwind(AssertUnwindSafe(|| context.to_string())).is_err() {
        world.wrong("P3: formatting a report panicked");
    }
}

fn set_handler(world: &World, local: &LocalHandle<'static>) {
    let captured = Captured::new(world, Point::HandlerDrop);
    local.set_exception_handler(move |local, context| {
        let _captured = &captured;
        handle(local, context);
    });
}

fn handle(local: &LocalHandle<'static>, context: &ExceptionContext<'_>) {
    let Some(world) = world() else {
        STRAYS.fetch_add(1, Ordering::SeqCst);
        return;
    };
    note_report(&world, context);
    world.check_books(&local.stats(), "in a handler");
    reenter(Place::Handler);
    boom(Point::Handler);
}

// ---------------------------------------------------------------------------------------------------------------------
// Executors
// ---------------------------------------------------------------------------------------------------------------------

/// An executor of a program.
struct Host {
    executor: Option<Executor<'static>>,
    index: usize,
}

impl Host {
    fn new(world: &World, index: usize) -> Self {
        let mut builder = Executor::builder().virtual_clock().report(world.policy);
        if world.chance(50) {
            builder = builder.shuffle(world.random());
        }
        let executor = builder.build();
        let local = executor.handle();
        if world.chance(75) {
            set_handler(world, &local);
        }
        if world.chance(10) {
            let home = thread::current().id();
            executor.on_wake(move || {
                // A hook is called on any thread.
                if thread::current().id() == home {
                    boom(Point::Hook);
                }
            });
        }
        world.local.borrow_mut().push(local);
        Host {
            executor: Some(executor),
            index,
        }
    }

    fn executor(&self) -> &Executor<'static> {
        self.executor.as_ref().expect("until its drop")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let Some(world) = world() else { return };
        world.closing[self.index].set(true);
        let executor = self.executor.take();
        if catch_unwind(AssertUnwindSafe(|| drop(executor))).is_err() {
            world.wrong("P3: a panic came out of the executor's drop");
        }
        world.closed[self.index].set(true);
    }
}

/// A drive that never blocks.
fn drive_briefly(world: &World, host: &Host) {
    let ex = host.executor();
    let quiet = world.threads.borrow().is_empty();
    let progress = if world.chance(50) {
        ex.tick(1 + world.below(8))
    } else {
        ex.run_until_stalled()
    };
    // After a stop, what is due may be left to the next drive.
    let due = progress.next_deadline.is_some_and(|at| at <= ex.now());
    if quiet && !progress.more && !due && world.threads.borrow().is_empty() {
        world.check_stalled(host.index, ex.now());
    }
}

async fn root(steps: usize, ends_badly: bool) {
    for _ in 0..steps {
        let Some(world) = world() else { return };
        act(&world, Place::Root);
        if ends_badly {
            boom(Point::Root);
        }
        let rest = world.random() % 6;
        drop(world);
        match rest {
            0..=3 => mainstay::yield_now().await,
            after => mainstay::sleep(Duration::from_millis(after - 3)).await,
        }
    }
}

fn drive(world: &World, host: &Host) {
    let ex = host.executor();
    let driven = match world.below(10) {
        0..=5 => catch_unwind(AssertUnwindSafe(|| drive_briefly(world, host))).map_err(|_| false),
        6 => {
            ex.stop();
            catch_unwind(AssertUnwindSafe(|| ex.run_forever())).map_err(|_| false)
        }
        7 => {
            ex.advance(Duration::from_millis(world.random() % 3));
            catch_unwind(AssertUnwindSafe(|| drive_briefly(world, host))).map_err(|_| false)
        }
        _ => {
            let (steps, ends_badly) = (world.below(4), world.chance(40));
            let run = || drop(ex.try_block_on(root(steps, ends_badly)));
            catch_unwind(AssertUnwindSafe(run)).map_err(|payload| {
                let own = payload.is::<Bomb>() || payload.is::<&str>() || payload.is::<String>();
                drop_quietly(payload);
                own && ends_badly
            })
        }
    };
    if driven == Err(false) {
        world.wrong("P3: a panic came out of a drive");
    }
    if ex.is_running() {
        world.wrong("it is driven after the drive");
    }
    world.check("after a drive");
}

fn start_thread(world: &World, spawner: Spawner) {
    tally(|tally| tally.threads += 1);
    let mut wakers = Vec::new();
    while let Some(entry) = world.pick(&world.wakers) {
        wakers.push(entry);
    }
    let cancels: Vec<_> = world.cancels.borrow().clone();
    let panics = world.chance(50);
    if panics {
        tally(|tally| tally.faults[Point::Remote as usize][0] += 1);
    }
    world.threads.borrow_mut().push(thread::spawn(move || {
        for (waker, flag) in wakers {
            flag.store(true, Ordering::SeqCst);
            waker.wake();
        }
        for cancel in cancels {
            let _ = cancel.cancel();
        }
        drop(spawner.call_soon(move |_| {
            reenter(Place::Call);
            if panics {
                panic!("boom from a thread");
            }
        }));
    }));
}

fn join_threads(world: &World) {
    let threads = world.threads.take();
    for thread in threads {
        if thread.join().is_err() {
            world.wrong("P5: a waker panicked on another thread");
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// One program
// ---------------------------------------------------------------------------------------------------------------------

fn run(seed: u64) -> Vec<String> {
    let rng = Cell::new(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x5eed);
    let world = World {
        rng,
        heat: 0,
        calm: Cell::new(false),
        fuel: Cell::new(0),
        depth: Cell::new(0),
        policy: ReportPolicy::OnFailure,
        next_guard: Cell::new(0),
        guards: RefCell::default(),
        local: RefCell::default(),
        executors: RefCell::default(),
        closing: Default::default(),
        closed: Default::default(),
        recs: RefCell::default(),
        handles: RefCell::default(),
        on_drop: RefCell::default(),
        groups: RefCell::default(),
        all_groups: RefCell::default(),
        supervisors: RefCell::default(),
        scopes: RefCell::default(),
        handed: RefCell::default(),
        cancels: RefCell::default(),
        wakers: RefCell::default(),
        calls: RefCell::default(),
        called: RefCell::default(),
        callbacks: RefCell::default(),
        told: RefCell::default(),
        told_count: Cell::new(0),
        reports: Cell::new(0),
        threads: RefCell::default(),
        acted: Cell::new(None),
        wrong: RefCell::default(),
    };
    let heat = [0, 3, 10, 20, 35][world.below(5)];
    let policy = match world.below(2) {
        0 => ReportPolicy::OnFailure,
        _ => ReportPolicy::IfUnretrieved,
    };
    let world = World {
        heat,
        policy,
        ..world
    };
    world
        .fuel
        .set(20 + u32::try_from(world.below(80)).unwrap_or(0));
    let world = Rc::new(world);
    WORLD.with(|slot| slot.replace(Some(Rc::clone(&world))));
    play(&world);
    WORLD.with(|slot| slot.replace(None));
    if Rc::strong_count(&world) != 1 {
        world.wrong("the world is still held");
    }
    world.wrong.take()
}

fn play(world: &World) {
    let hosts = 1 + usize::from(world.chance(30));
    for index in 0..hosts {
        let host = Rc::new(Host::new(world, index));
        world.executors.borrow_mut().push(Some(host));
    }
    // A handle keeps an executor's books open when the executor is gone.
    let keepers: Vec<_> = (0..hosts)
        .map(|at| {
            let local = world.local.borrow()[at].clone();
            local.spawn(async {})
        })
        .collect();
    let threads = world.chance(3);
    let main = world.executors.borrow()[0].clone().expect("just made");
    for _ in 0..2 + world.below(6) {
        for _ in 0..world.below(6) {
            act(world, Place::Outside);
        }
        world.check("between drives");
        if threads && world.chance(50) {
            start_thread(world, main.executor().spawner());
        }
        if world.chance(60) {
            join_threads(world);
        }
        drive(world, &main);
        let live = main.executor().stats().live;
        if live != main.executor().len() as u64 {
            world.wrong("len() is not the number of live tasks");
        }
    }
    join_threads(world);
    // What is left when the executors go: everything, or nothing, or what chance has left.
    if world.chance(30) {
        let _ = main.executor().run_until_stalled();
    }
    drop(main);
    let some = world.chance(50);
    if some {
        give_up_handles(world, 40);
    }
    let hosts = world.executors.take();
    for host in hosts {
        drop(host);
    }
    world.check("after the end");
    // What a group has whose scope is still held somewhere is neither read nor told yet.
    let kept = !world.scopes.borrow().is_empty();
    for stats in world.stats() {
        if stats.spawned == 0 || stats.live != 0 || stats.unread != 0 && !kept {
            world.wrong(format!("P2: left after the end: {stats:?}"));
        }
    }
    // Handles outlive their executors.
    for _ in 0..4 {
        act(world, Place::Outside);
    }
    give_up_handles(world, 100);
    world.calm.set(true);
    give_up_handles(world, 100);
    world.check("after the handles");
    if world.stats().iter().any(|stats| stats.unread != 0) {
        world.wrong("P2: a failure is unread and its handle is gone");
    }
    finish(world);
    drop(keepers);
    world.local.take();
    world.calls.take();
    if !world.guards.borrow().is_empty() {
        let left = world.guards.borrow().len();
        world.wrong(format!("{left} guards were never dropped"));
    }
}

fn give_up_handles(world: &World, percent: u64) {
    // A destructor may bring new ones.
    for _ in 0..200 {
        if world.handles.borrow().is_empty()
            && world.on_drop.borrow().is_empty()
            && world.scopes.borrow().is_empty()
            && world.groups.borrow().is_empty()
            && world.supervisors.borrow().is_empty()
        {
            break;
        }
        if world.chance(percent) {
            drop(world.pick(&world.handles));
            drop(world.pick(&world.on_drop));
            drop(world.pick(&world.scopes));
            drop(world.pick(&world.groups));
            drop(world.pick(&world.supervisors));
        }
    }
}

/// What each task, callback and call must have come to.
fn finish(world: &World) {
    for rec in world.recs.take() {
        let id = rec.id.get();
        if !rec.gone.get() {
            world.wrong(format!("{id:?} was never dropped"));
        }
        if rec.refused || !rec.must_fail.get() {
            continue;
        }
        let told = id.is_some_and(|id| world.told.borrow().contains(&id));
        let handed = id.is_some_and(|id| world.handed.borrow().contains(&id));
        let fine = match (&rec.group, world.policy) {
            (Some(group), _) if group.keeps => told || handed || rec.read.get(),
            (Some(_), _) | (None, ReportPolicy::OnFailure) => told,
            (None, _) => told || rec.read.get(),
        };
        if told && handed {
            world.wrong(format!("P2: {id:?} was told and handed on"));
        }
        if !fine {
            world.wrong(format!("P2: nobody was told that {id:?} failed"));
        }
    }
    for called in world.callbacks.take() {
        let count = called.count.get();
        if count > 1 {
            world.wrong("a done callback was called twice");
        }
        if count == 0 && !called.removed.get() && !called.void.get() {
            world.wrong("a done callback was not called");
        }
    }
    world.called.take();
    world.all_groups.take();
}

// ---------------------------------------------------------------------------------------------------------------------
// All programs
// ---------------------------------------------------------------------------------------------------------------------

fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

fn quiet() {
    let earlier = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let payload = info.payload();
        let text = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let meant = payload.is::<Bomb>() || text.is_some_and(|text| text.starts_with("boom"));
        if !meant {
            earlier(info);
        }
    }));
    mainstay::set_default_exception_handler(|context| match world() {
        Some(world) => note_report(&world, context),
        None => {
            STRAYS.fetch_add(1, Ordering::SeqCst);
        }
    });
}

#[test]
fn random_faults_lose_nothing() {
    quiet();
    let began = Instant::now();
    let one = number("MAINSTAY_SEED");
    let count = number("MAINSTAY_FAULTS").unwrap_or(PROGRAMS);
    let seeds = match one {
        Some(seed) => seed..seed + 1,
        None => 0..count,
    };
    let mut bad = 0;
    for seed in seeds {
        let wrong = run(seed);
        let strays = STRAYS.swap(0, Ordering::SeqCst);
        if wrong.is_empty() && strays == 0 {
            continue;
        }
        bad += 1;
        println!("MAINSTAY_SEED={seed}: {strays} strays");
        for what in wrong.iter().take(8) {
            println!("    {what}");
        }
        if bad == 5 {
            break;
        }
    }
    print_table(began.elapsed());
    assert_eq!(
        bad, 0,
        "programs broke a promise; their seeds are printed above"
    );
    if one.is_none() && count >= PROGRAMS {
        assert_minimum();
    }
}

fn print_table(took: Duration) {
    TALLY.with(|tally| {
        let tally = tally.borrow();
        println!("{:35} {}", "fault", columns(KINDS, 12));
        for (name, row) in POINTS.iter().zip(&tally.faults) {
            println!("{name:35} {}", numbers(row, 12));
        }
        println!();
        println!("{:16} {}", "action from", columns(PLACES, 15));
        for (at, name) in ACTS.iter().enumerate() {
            let row: Vec<u64> = tally.acts.iter().map(|place| place[at]).collect();
            println!("{name:16.16} {}", numbers(&row, 15));
        }
        println!();
        for (name, times) in SHAPES.iter().zip(tally.shapes) {
            println!("{name:55} {times:>12}");
        }
        let [returned, failed, cancelled, kept] = tally.seen;
        println!(
            "\n{} tasks, {} reports, {} late callbacks, {} threads; outcomes read: {returned} returned, {failed} failed, \
             {cancelled} cancelled, {kept} kept by a group; {} groups with {} tasks, {} failures handed on; {took:.1?}",
            tally.tasks, tally.reports, tally.late, tally.threads, tally.groups, tally.members, tally.handed
        );
    });
}

fn columns(names: &[&str], width: usize) -> String {
    names.iter().map(|name| format!("{name:>width$}")).collect()
}

fn numbers(row: &[u64], width: usize) -> String {
    row.iter()
        .map(|number| format!("{number:>width$}"))
        .collect()
}

/// Every fault that there can be has hit every place, and every action was tried from everywhere.
fn assert_minimum() {
    TALLY.with(|tally| {
        let tally = tally.borrow();
        for (at, name) in POINTS.iter().enumerate() {
            for (kind, kind_name) in KINDS.iter().enumerate() {
                let none = if at == Point::DropPayload as usize {
                    // One level: the payload of a payload is a harmless one.
                    kind > 2
                } else if at == Point::Remote as usize {
                    kind > 0
                } else {
                    kind == 4 && at != Point::Poll as usize && at != Point::Body as usize
                };
                let hits = tally.faults[at][kind];
                assert!(
                    none || hits >= 50,
                    "{name}, {kind_name}: hit {hits} times only"
                );
            }
        }
        for (place, row) in PLACES.iter().zip(&tally.acts) {
            for (act, hits) in ACTS.iter().zip(row) {
                assert!(*hits > 0, "{act} from {place}: never");
            }
        }
        for (name, times) in SHAPES.iter().zip(tally.shapes) {
            assert!(times >= 20, "{name}: {times} times only");
        }
        assert!(tally.late >= 50 && tally.threads >= 50);
        assert!(tally.seen.iter().all(|seen| *seen >= 50));
        assert!(tally.groups >= 1_000 && tally.members >= 1_000 && tally.handed >= 500);
    });
}
