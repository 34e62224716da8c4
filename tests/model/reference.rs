//! The reference: what the executor is to do, said with vectors and nothing else. It polls no future, owns no memory by
//! hand, and has one thread; what it tells, the library is to tell word for word.

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};

use groups::{Group, Kind};

use super::language::{FUEL, Flow, LAST_FUEL, Op, Program, Step, Who, World, run};

// Said in full: the fuzzer includes this file by its path.
#[path = "reference/driving.rs"]
mod driving;
#[path = "reference/ending.rs"]
mod ending;
#[path = "reference/groups.rs"]
mod groups;
#[path = "reference/scopes.rs"]
mod scopes;
#[path = "reference/sets.rs"]
mod sets;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Returned,
    Failed,
    Cancelled,
}

/// What a task does at its next poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Go,
    Yielded,
    Waiting,
    Sleeping,
    Awaiting(usize),
    Listening,
    /// For the end of a group.
    Ending(usize),
    /// In the scope of a task group. While there is a body, its frame is the next one.
    Scoped(usize),
    /// For the next outcome of a set.
    Joining(usize),
}

/// A script that a task runs: its own, or the body of a scope that it is in.
struct Frame {
    script: u8,
    pc: usize,
    mode: Mode,
    /// Whose body it is.
    scope: Option<usize>,
}

impl Frame {
    fn new(script: u8, scope: Option<usize>) -> Self {
        Frame {
            script,
            pc: 0,
            mode: Mode::Go,
            scope,
        }
    }
}

/// Where a task's handle is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Where everybody finds it.
    Table,
    /// With somebody who uses it.
    Out,
    Gone,
}

struct Task {
    /// Its executor.
    home: usize,
    /// Outermost first.
    frames: Vec<Frame>,
    fallible: bool,
    queued: bool,
    running: bool,
    gone: bool,
    end: Option<End>,
    /// Told to the handler and callbacks; nobody may take the outcome.
    pinned: bool,
    /// A handle may still ask for the outcome.
    claimed: bool,
    taken: bool,
    cancel: bool,
    /// It was asked to end.
    requested: bool,
    /// It has wanted to know whether it is.
    asks: bool,
    /// It is woken when it is.
    listens: bool,
    /// So are those who poll these sets: the set, and who polled it last.
    listeners: Vec<(usize, usize)>,
    told: bool,
    read: bool,
    /// It has callbacks, or a reason: it is settled when the loop settles.
    aside: bool,
    late: bool,
    callbacks: Vec<usize>,
    awaiter: Option<usize>,
    place: Place,
    /// Somebody has its waker.
    stored: bool,
    woken: bool,
    /// Its id is known: the spawn has returned.
    known: bool,
    /// It was refused, and nobody has been told so.
    refused: bool,
    group: Option<usize>,
    /// How many its group counts that ask: itself, and each group whose scope it is in.
    asking: usize,
    /// Its group has the failure, which nobody has been told of (`owed`) or somebody has read before.
    kept: bool,
    owed: bool,
    /// Its group has too many running.
    held: bool,
}

struct Callback {
    task: usize,
    script: u8,
    done: bool,
}

/// What a callback does.
#[derive(Clone, Copy)]
enum Body {
    /// The script, as the call of this number.
    Script(usize, u8),
    /// Looks whether a group has ended.
    Look(usize),
}

struct Call {
    home: usize,
    body: Body,
    queued: bool,
    running: bool,
    cancel: bool,
    over: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Entry {
    Task(usize),
    Call(usize),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    Task(usize),
    Call(usize),
    Root,
}

struct Calls {
    task: usize,
    end: End,
    pinned: bool,
    /// A destructor's panic beside the failure.
    also: bool,
    queue: VecDeque<usize>,
}

enum Item {
    Ended(usize, bool),
    CallFailed,
    Calls(Calls),
    Unread(usize),
    Notice(&'static str, Option<usize>),
    /// A failure that a group had and could not hand on; `None`: its body's.
    Kept(Option<usize>),
}

#[derive(Default)]
struct Counts {
    spawned: u64,
    live: u64,
    returned: u64,
    failed: u64,
    cancelled: u64,
    reported: u64,
    retrieved: u64,
    unread: u64,
    reports: u64,
    polls: u64,
}

/// One executor.
#[derive(Default)]
pub(crate) struct Executor {
    queue: VecDeque<Entry>,
    /// Cancelled between drives.
    doomed: Vec<Entry>,
    token: bool,
    driven: bool,
    closed: bool,
    shutting: bool,
    stopping: bool,
    settling: bool,
    burying: bool,
    graveyard: VecDeque<Entry>,
    items: VecDeque<Item>,
    late: Vec<Calls>,
    leftovers_had_it: bool,
    handler: Option<u8>,
    depth: u32,
    now: u64,
    armed: u64,
    timers: Vec<(u64, u64, Target)>,
    root_woken: bool,
    counts: Counts,
}

pub(crate) struct Model<'a> {
    program: &'a Program,
    pub(crate) trace: Vec<String>,
    fuel: u32,
    tasks: Vec<Task>,
    callbacks: Vec<Callback>,
    calls: Vec<Call>,
    /// Those that can be named.
    named_calls: Vec<usize>,
    groups: Vec<Group>,
    /// While one is dropped that a group did not take: those that are to follow.
    turned_away: Option<VecDeque<usize>>,
    executors: Vec<Executor>,
    /// The one that acts, or that things are done to.
    at: usize,
    /// The current one, and those that were current when it began to be driven or to drop members of a group.
    current: Vec<usize>,
}

/// What is said of `self` and is no field of it is said of the executor that acts.
impl Deref for Model<'_> {
    type Target = Executor;

    fn deref(&self) -> &Executor {
        &self.executors[self.at]
    }
}

impl DerefMut for Model<'_> {
    fn deref_mut(&mut self) -> &mut Executor {
        &mut self.executors[self.at]
    }
}

const ALL: usize = usize::MAX;

impl World for Model<'_> {
    fn say(&mut self, line: String) {
        self.trace.push(line);
    }

    fn burn(&mut self) -> bool {
        let some = self.fuel > 0;
        self.fuel = self.fuel.saturating_sub(1);
        some
    }

    fn tasks(&self) -> usize {
        self.tasks.len()
    }

    fn callbacks(&self) -> usize {
        self.callbacks.len()
    }

    fn calls(&self) -> usize {
        self.named_calls.len()
    }

    fn spawn(&mut self, script: u8, fallible: bool) {
        self.spawn_as(script, fallible, None);
    }

    fn cancel(&mut self, task: usize) -> Option<bool> {
        if self.tasks[task].place != Place::Table {
            return None;
        }
        self.tasks[task].place = Place::Out;
        let done =
            self.tasks[task].end.is_none() && self.at_home(task, |this| this.ask_cancel(task));
        self.tasks[task].place = Place::Table;
        Some(done)
    }

    fn drop_handle(&mut self, task: usize) -> Option<()> {
        if self.tasks[task].place != Place::Table {
            return None;
        }
        self.give_up(task);
        Some(())
    }

    fn wake(&mut self, task: usize) -> Option<()> {
        let driven = self.executors[self.tasks[task].home].driven;
        if !self.tasks[task].stored || !driven && self.tasks[task].gone {
            return None;
        }
        self.tasks[task].woken = true;
        self.at_home(task, |this| {
            this.wake_task(task);
            this.prod();
        });
        Some(())
    }

    fn read(&mut self, task: usize) -> Option<&'static str> {
        if self.tasks[task].place != Place::Table {
            return None;
        }
        if self.tasks[task].refused {
            self.tasks[task].refused = false;
            return Some("cancelled");
        }
        if self.tasks[task].taken {
            return Some("taken");
        }
        match self.takeable(task) {
            None => Some("pending"),
            Some(end) => {
                self.take(task);
                Some(self.word(task, end))
            }
        }
    }

    fn look(&mut self, task: usize) -> Option<&'static str> {
        if self.tasks[task].place != Place::Table {
            return None;
        }
        if self.tasks[task].taken {
            return Some(match self.tasks[task].end {
                Some(End::Cancelled) => "cancelled",
                Some(End::Returned) => "returned",
                _ => "taken",
            });
        }
        match self.takeable(task) {
            None => Some("pending"),
            Some(End::Failed) if self.tasks[task].kept => Some("taken"),
            Some(End::Failed) => {
                self.mark_read(task);
                Some("failed")
            }
            Some(end) => Some(word(end)),
        }
    }

    fn add_callback(&mut self, task: usize, script: u8) -> Option<()> {
        if self.tasks[task].place != Place::Table {
            return None;
        }
        let id = self.callbacks.len();
        self.callbacks.push(Callback {
            task,
            script,
            done: false,
        });
        match self.way_to(task) {
            Some(executor) => self.on(executor, |this| this.add_callback_here(task, id)),
            // Nobody will ever call it.
            None => self.callbacks[id].done = true,
        }
        Some(())
    }

    fn remove_callback(&mut self, callback: usize) -> Option<bool> {
        let task = self.callbacks[callback].task;
        let t = &self.tasks[task];
        if t.place != Place::Table || t.taken && !t.refused {
            return None;
        }
        match self.way_to(task) {
            Some(executor) => self.on(executor, |this| {
                Some(this.remove_callback_here(task, callback))
            }),
            None => Some(false),
        }
    }

    fn call_soon(&mut self, script: u8) {
        let call = self.name_call(script);
        if !self.closed {
            self.ready_call(call);
        }
    }

    fn call_later(&mut self, ms: u8, script: u8) {
        let call = self.name_call(script);
        if !self.closed {
            self.arm(ms, Target::Call(call));
        }
    }

    fn cancel_call(&mut self, call: usize) -> bool {
        let call = self.named_calls[call];
        self.on(self.calls[call].home, |this| this.cancel_any_call(call))
    }

    fn set_handler(&mut self, script: Option<u8>) {
        self.handler = script;
    }

    fn report(&mut self) {
        if std::mem::replace(&mut self.settling, true) {
            return self.dispatch("Other", None);
        }
        self.dispatch("Other", None);
        self.settling = false;
        if !self.items.is_empty() {
            self.settle_reports();
        }
    }

    fn stop(&mut self) {
        self.stopping = true;
        self.prod();
    }

    fn can_await(&mut self, task: usize) -> bool {
        let task = &self.tasks[task];
        task.place == Place::Table && (!task.taken || task.refused)
    }

    fn groups(&self) -> usize {
        self.groups.len()
    }

    fn supervise(&mut self) {
        self.groups.push(Group::new(self.at, None));
    }

    fn spawn_in(&mut self, group: usize, script: u8, fallible: bool) -> Option<()> {
        self.with_group(group, |this| this.spawn_as(script, fallible, Some(group)))
    }

    fn abort(&mut self, group: usize) -> Option<bool> {
        self.with_group(group, |this| match this.groups[group].kind() {
            Kind::Scope => this.cancel_scope(group),
            Kind::Set => {
                this.bury_members(group);
                true
            }
            Kind::Supervisor => {
                this.abort_group(group);
                true
            }
        })
    }

    fn drop_group(&mut self, group: usize) -> Option<()> {
        let at_hand = std::mem::take(&mut self.groups[group].at_hand);
        at_hand.then(|| self.let_go(group))
    }

    fn group_handler(&mut self, group: usize, script: Option<u8>) -> Option<()> {
        if self.groups[group].kind() != Kind::Supervisor {
            return None;
        }
        self.with_group(group, |this| this.groups[group].handler = script)
    }

    fn size(&mut self, group: usize) -> Option<(usize, bool)> {
        self.with_group(group, |this| this.groups[group].size())
    }

    fn limit(&mut self, group: usize, tasks: u8) -> Option<()> {
        self.with_group(group, |this| this.set_limit(group, tasks.into()))
    }

    fn can_end(&mut self, group: usize) -> bool {
        self.groups[group].at_hand && self.groups[group].kind() == Kind::Supervisor
    }

    fn open_set(&mut self) {
        self.groups.push(Group::set(self.at));
    }

    fn take_next(&mut self, group: usize) -> Option<Option<(usize, &'static str)>> {
        if self.groups[group].kind() != Kind::Set {
            return None;
        }
        self.with_group(group, |this| this.try_next(group))
    }

    fn let_set_go(&mut self, group: usize) -> Option<()> {
        if self.groups[group].kind() != Kind::Set || !self.groups[group].at_hand {
            return None;
        }
        self.groups[group].at_hand = false;
        self.on(self.groups[group].home, |this| this.let_members_go(group));
        Some(())
    }

    fn can_next(&mut self, group: usize) -> bool {
        let group = &self.groups[group];
        group.kind() == Kind::Set && group.at_hand && group.home == self.at
    }

    fn at(&self) -> usize {
        self.at
    }

    fn go_to(&mut self, executor: usize) {
        if executor < self.executors.len() {
            self.at = executor;
        }
    }

    fn drive(&mut self, steps: u8) -> Option<()> {
        let can = !self.driven && !self.closed;
        can.then(|| self.drive_once(steps))
    }

    fn drop_executor(&mut self) -> Option<()> {
        let can = !self.driven && !self.closed;
        can.then(|| {
            self.fuel = self.fuel.min(LAST_FUEL);
            self.close();
        })
    }
}

fn word(end: End) -> &'static str {
    match end {
        End::Returned => "returned",
        End::Failed => "failed",
        End::Cancelled => "cancelled",
    }
}

impl<'a> Model<'a> {
    pub(crate) fn new(program: &'a Program) -> Self {
        Model {
            program,
            trace: Vec::new(),
            fuel: FUEL,
            tasks: Vec::new(),
            callbacks: Vec::new(),
            calls: Vec::new(),
            named_calls: Vec::new(),
            groups: Vec::new(),
            turned_away: None,
            executors: match program.two {
                true => vec![Executor::default(), Executor::default()],
                false => vec![Executor::default()],
            },
            at: 0,
            current: Vec::new(),
        }
    }

    /// Runs the whole program.
    pub(crate) fn play(mut self) -> Vec<String> {
        for step in &self.program.steps {
            self.say(format!("{step:?}"));
            self.step_once(*step);
            self.say_counts();
        }
        for at in 0..self.executors.len() {
            self.say(format!("close {at}"));
            self.at = at;
            let _ = self.drop_executor();
            self.say_counts();
        }
        for task in 0..self.tasks.len() {
            if self.tasks[task].place == Place::Table {
                self.give_up(task);
            }
        }
        for group in 0..self.groups.len() {
            self.drop_group(group);
        }
        self.say_counts();
        self.trace
    }

    fn step_once(&mut self, step: Step) {
        let program = self.program;
        match step {
            Step::Do(script) => {
                self.act_ops(Who::Owner, &program.script(script).ops);
            }
            Step::Swap => self.go_to(1 - self.at),
            _ if self.closed => self.say("it is gone".to_owned()),
            Step::Tick(budget) => self.drive_once(budget),
            Step::UntilStalled => self.drive_once(0),
            Step::BlockOn(ms) => self.block_on(ms),
            Step::Shutdown(ms) => self.shutdown(ms),
            Step::Advance(ms) => {
                self.now += u64::from(ms);
                self.prod();
            }
        }
    }

    /// Does something to an executor.
    fn on<R>(&mut self, executor: usize, f: impl FnOnce(&mut Self) -> R) -> R {
        let before = std::mem::replace(&mut self.at, executor);
        let result = f(self);
        self.at = before;
        result
    }

    fn at_home<R>(&mut self, task: usize, f: impl FnOnce(&mut Self) -> R) -> R {
        self.on(self.tasks[task].home, f)
    }

    /// The executor that a handle leads to: when the outcome was taken, that is the current one, if there is one.
    fn way_to(&self, task: usize) -> Option<usize> {
        if self.tasks[task].taken {
            return self.current.last().copied();
        }
        Some(self.tasks[task].home)
    }

    fn add_callback_here(&mut self, task: usize, id: usize) {
        match self.tasks[task].end {
            None => {
                self.tasks[task].aside = true;
                self.tasks[task].callbacks.push(id);
            }
            Some(_) if self.closed && !self.driven => self.callbacks[id].done = true,
            Some(end) => {
                let there = !self.tasks[task].taken;
                let known = there && std::mem::replace(&mut self.tasks[task].late, true);
                let pinned = there && !std::mem::replace(&mut self.tasks[task].pinned, true);
                match self.late.iter_mut().find(|late| known && late.task == task) {
                    Some(late) => {
                        late.queue.push_back(id);
                        late.pinned |= pinned;
                    }
                    None => self.late.push(Calls {
                        task,
                        end,
                        pinned,
                        also: false,
                        queue: VecDeque::from([id]),
                    }),
                }
                self.prod();
            }
        }
    }

    fn remove_callback_here(&mut self, task: usize, callback: usize) -> bool {
        // When the task has ended it is too late, also for those that are not queued yet.
        if self.tasks[task].end.is_none() {
            let own = &mut self.tasks[task].callbacks;
            if let Some(at) = own.iter().position(|other| *other == callback) {
                own.remove(at);
                return true;
            }
        }
        for late in &mut self.late {
            if let Some(at) = late.queue.iter().position(|other| *other == callback) {
                late.queue.remove(at);
                return true;
            }
        }
        false
    }

    fn with_group<R>(&mut self, group: usize, f: impl FnOnce(&mut Self) -> R) -> Option<R> {
        if !self.groups[group].at_hand {
            return None;
        }
        let is_set = self.groups[group].kind() == Kind::Set;
        // A set is at nobody else's hand while it is used.
        self.groups[group].at_hand = !is_set;
        self.hold(group);
        let result = self.on(self.groups[group].home, f);
        self.groups[group].at_hand |= is_set;
        self.let_go(group);
        Some(result)
    }

    fn spawn_as(&mut self, script: u8, fallible: bool, group: Option<usize>) {
        let n = self.tasks.len();
        self.say(format!("spawn {n}"));
        let aside = !self.driven || self.closed;
        let turned_away = group.is_some_and(|group| self.groups[group].refuses());
        let refused = turned_away || self.closed && !self.driven;
        self.tasks.push(Task {
            home: self.at,
            frames: vec![Frame::new(script, None)],
            fallible,
            queued: !refused,
            running: false,
            gone: false,
            end: refused.then_some(End::Cancelled),
            pinned: false,
            claimed: !refused,
            taken: refused,
            cancel: false,
            requested: self.shutting,
            asks: false,
            listens: false,
            listeners: Vec::new(),
            told: false,
            read: false,
            aside: false,
            late: false,
            callbacks: Vec::new(),
            awaiter: None,
            place: Place::Out,
            stored: false,
            woken: false,
            known: false,
            refused,
            group: group.filter(|_| !refused),
            asking: 0,
            kept: false,
            owed: false,
            held: false,
        });
        match group {
            Some(_) if refused => self.turn_away(n),
            None if refused => {
                if self.destructor(n) {
                    self.tell("Destructor", None);
                }
            }
            _ => {
                self.queue.push_back(Entry::Task(n));
                self.counts.spawned += 1;
                self.counts.live += 1;
                if let Some(group) = group {
                    self.admit(group, n);
                }
                if self.closed {
                    self.tasks[n].aside = true;
                    self.ask_cancel(n);
                } else if aside {
                    self.prod();
                }
            }
        }
        self.tasks[n].known = true;
        match group.filter(|group| self.groups[*group].kind() == Kind::Set) {
            Some(set) => self.put_in_set(set, n),
            None => self.tasks[n].place = Place::Table,
        }
    }

    fn say_counts(&mut self) {
        for executor in &self.executors {
            let c = &executor.counts;
            let line = format!(
                "spawned {} live {} returned {} failed {} cancelled {} reported {} retrieved {} unread {} reports {} polls {}",
                c.spawned,
                c.live,
                c.returned,
                c.failed,
                c.cancelled,
                c.reported,
                c.retrieved,
                c.unread,
                c.reports,
                c.polls
            );
            self.trace.push(line);
        }
    }

    /// Runs ops that cannot wait. `true`: they panicked.
    fn act_ops(&mut self, who: Who, ops: &[Op]) -> bool {
        run(self, who, ops, &mut 0) == Flow::Panic
    }
}
