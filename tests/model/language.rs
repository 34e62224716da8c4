//! The language of the random programs: what a task, a callback, a handler or a destructor does, as data.
//!
//! The same words are spoken to the library (`real`) and to the reference (`reference`); both tell what happens as lines
//! of text, which must be the same.

use std::fmt::Write as _;

/// One thing that user code does. Numbers name what was made before: tasks, callbacks, calls, in the order of making.
/// One that names nothing does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    // From anywhere.
    Spawn {
        script: u8,
        fallible: bool,
    },
    Cancel(u8),
    DropHandle(u8),
    Wake(u8),
    /// `result()`.
    Read(u8),
    /// `exception()`.
    Look(u8),
    AddCallback {
        task: u8,
        script: u8,
    },
    RemoveCallback(u8),
    CallSoon(u8),
    CallLater {
        ms: u8,
        script: u8,
    },
    CancelCall(u8),
    SetHandler(u8),
    ClearHandler,
    Report,
    Stop,
    Panic,
    // From a task; elsewhere they do nothing.
    Yield,
    Wait,
    Sleep(u8),
    Await(u8),
    /// Until it is asked to end.
    Listen,
    /// Ends a fallible task with an `Err`, another one with its value.
    Fail,
    // Supervisors and task groups, from anywhere.
    Supervise,
    SpawnIn {
        group: u8,
        script: u8,
        fallible: bool,
    },
    Abort(u8),
    DropGroup(u8),
    GroupHandler {
        group: u8,
        script: Option<u8>,
    },
    /// How many members it has, and whether it is closed.
    Size(u8),
    Limit {
        group: u8,
        tasks: u8,
    },
    /// From a task: asks all members to end, and waits for that.
    End {
        group: u8,
        ms: u8,
    },
    /// From a task: a task group's scope, whose body is the script.
    Scope(u8),
    // Where there are two executors, from anywhere.
    /// What follows in the script is done to the other one.
    Swap,
    /// Drives, by a tick of so many steps; 0: until it is stalled.
    Drive(u8),
    DropExecutor,
    // Join sets, from anywhere.
    OpenSet,
    /// `try_join_next`.
    TakeNext(u8),
    /// `detach_all`.
    LetGo(u8),
    /// From a task: waits for the next outcome.
    Next(u8),
}

/// How many scopes a task is in at once, at most.
pub(crate) const DEPTH: usize = 4;

/// What one piece of user code does, and what the destructor does if it is a task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Script {
    pub(crate) ops: Vec<Op>,
    pub(crate) on_drop: Vec<Op>,
}

/// What the owner of the executor does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Does what the script says, between two drives.
    Do(u8),
    Tick(u8),
    UntilStalled,
    /// `block_on` a sleep of so many ms.
    BlockOn(u8),
    Advance(u8),
    /// With so many ms of grace.
    Shutdown(u8),
    /// What follows is done to the other executor.
    Swap,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) if_unretrieved: bool,
    /// There are two executors.
    pub(crate) two: bool,
    pub(crate) scripts: Vec<Script>,
    pub(crate) steps: Vec<Step>,
}

impl Program {
    pub(crate) fn script(&self, n: u8) -> &Script {
        &self.scripts[usize::from(n) % self.scripts.len()]
    }

    /// The program as Rust, to be kept as a regression.
    pub(crate) fn to_rust(&self) -> String {
        let mut out = String::new();
        let of = if self.two { "two_executors" } else { "program" };
        let _ = writeln!(out, "{of}({}, &[", self.if_unretrieved);
        for script in &self.scripts {
            let _ = writeln!(out, "    (&{:?}, &{:?}),", script.ops, script.on_drop);
        }
        let _ = writeln!(out, "], &{:?})", self.steps);
        out
    }
}

/// How many ops one program does at most, so that none goes on for ever.
pub(crate) const FUEL: u32 = 300;
/// How many ops are left at most when a shutdown begins: fewer than the rounds after which it refuses tasks. And when an
/// executor is dropped, on which destructors that spawn their like nest.
pub(crate) const LAST_FUEL: u32 = 60;

/// Who acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Owner,
    Task(usize),
    Destructor(usize),
    Callback(usize),
    Call(usize),
    Handler,
}

/// Where a run of ops has led.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// The script is over.
    Over,
    Panic,
    Fail,
    Yield,
    Wait,
    Sleep(u8),
    Await(usize),
    Listen,
    End(usize, u8),
    Scope(u8),
    Next(usize),
}

/// What ops can do. One implementation is the library, the other the reference.
pub(crate) trait World {
    fn say(&mut self, line: String);
    /// Burns a unit of fuel; `false`: there is none left.
    fn burn(&mut self) -> bool;
    fn tasks(&self) -> usize;
    fn callbacks(&self) -> usize;
    fn calls(&self) -> usize;
    fn spawn(&mut self, script: u8, fallible: bool);
    /// `None`: the handle is not at hand.
    fn cancel(&mut self, task: usize) -> Option<bool>;
    fn drop_handle(&mut self, task: usize) -> Option<()>;
    fn wake(&mut self, task: usize) -> Option<()>;
    fn read(&mut self, task: usize) -> Option<&'static str>;
    fn look(&mut self, task: usize) -> Option<&'static str>;
    fn add_callback(&mut self, task: usize, script: u8) -> Option<()>;
    fn remove_callback(&mut self, callback: usize) -> Option<bool>;
    fn call_soon(&mut self, script: u8);
    fn call_later(&mut self, ms: u8, script: u8);
    fn cancel_call(&mut self, call: usize) -> bool;
    fn set_handler(&mut self, script: Option<u8>);
    fn report(&mut self);
    fn stop(&mut self);
    /// Whether the handle can be awaited: it is at hand, and its outcome was not taken.
    fn can_await(&mut self, task: usize) -> bool;
    fn groups(&self) -> usize;
    fn supervise(&mut self);
    /// `None`, here and below: nobody has the group any more.
    fn spawn_in(&mut self, group: usize, script: u8, fallible: bool) -> Option<()>;
    fn abort(&mut self, group: usize) -> Option<bool>;
    fn drop_group(&mut self, group: usize) -> Option<()>;
    fn group_handler(&mut self, group: usize, script: Option<u8>) -> Option<()>;
    fn size(&mut self, group: usize) -> Option<(usize, bool)>;
    fn limit(&mut self, group: usize, tasks: u8) -> Option<()>;
    fn can_end(&mut self, group: usize) -> bool;
    fn open_set(&mut self);
    /// The next task that has ended, and how.
    fn take_next(&mut self, group: usize) -> Option<Option<(usize, &'static str)>>;
    fn let_set_go(&mut self, group: usize) -> Option<()>;
    /// Whether it is a set at hand, and of the executor that things are done to.
    fn can_next(&mut self, group: usize) -> bool;
    /// The executor that things are done to.
    fn at(&self) -> usize;
    /// Goes to another executor, if there is one.
    fn go_to(&mut self, executor: usize);
    /// `None`, here and below: it is driven already, or gone.
    fn drive(&mut self, steps: u8) -> Option<()>;
    fn drop_executor(&mut self) -> Option<()>;
}

/// Runs `ops` from `pc` on, until one of them leads elsewhere.
pub(crate) fn run(world: &mut dyn World, who: Who, ops: &[Op], pc: &mut usize) -> Flow {
    let home = world.at();
    let flow = run_from(world, who, ops, pc);
    world.go_to(home);
    flow
}

fn run_from(world: &mut dyn World, who: Who, ops: &[Op], pc: &mut usize) -> Flow {
    let in_task = matches!(who, Who::Task(_));
    while let Some(op) = ops.get(*pc) {
        *pc += 1;
        if !world.burn() {
            return Flow::Over;
        }
        let named = |n: u8, of: usize| (of > 0).then(|| usize::from(n) % of);
        match *op {
            Op::Spawn { script, fallible } => world.spawn(script, fallible),
            Op::Cancel(n) => {
                if let Some(task) = named(n, world.tasks()) {
                    let done = world.cancel(task);
                    world.say(format!("{who:?} cancel {task}: {done:?}"));
                }
            }
            Op::DropHandle(n) => {
                if let Some(task) = named(n, world.tasks()) {
                    let done = world.drop_handle(task);
                    world.say(format!("{who:?} drop handle {task}: {done:?}"));
                }
            }
            Op::Wake(n) => {
                if let Some(task) = named(n, world.tasks()) {
                    let done = world.wake(task);
                    world.say(format!("{who:?} wake {task}: {done:?}"));
                }
            }
            Op::Read(n) => {
                if let Some(task) = named(n, world.tasks()) {
                    let read = world.read(task);
                    world.say(format!("{who:?} read {task}: {read:?}"));
                }
            }
            Op::Look(n) => {
                if let Some(task) = named(n, world.tasks()) {
                    let seen = world.look(task);
                    world.say(format!("{who:?} look {task}: {seen:?}"));
                }
            }
            Op::AddCallback { task, script } => {
                if let Some(task) = named(task, world.tasks()) {
                    let done = world.add_callback(task, script);
                    world.say(format!("{who:?} add callback to {task}: {done:?}"));
                }
            }
            Op::RemoveCallback(n) => {
                if let Some(callback) = named(n, world.callbacks()) {
                    let done = world.remove_callback(callback);
                    world.say(format!("{who:?} remove callback {callback}: {done:?}"));
                }
            }
            Op::CallSoon(script) => world.call_soon(script),
            Op::CallLater { ms, script } => world.call_later(ms % 8 + 1, script),
            Op::CancelCall(n) => {
                if let Some(call) = named(n, world.calls()) {
                    let done = world.cancel_call(call);
                    world.say(format!("{who:?} cancel call {call}: {done}"));
                }
            }
            Op::SetHandler(script) => world.set_handler(Some(script)),
            Op::ClearHandler => world.set_handler(None),
            Op::Report => world.report(),
            Op::Stop => world.stop(),
            Op::Panic => return Flow::Panic,
            Op::Yield if in_task => return Flow::Yield,
            Op::Wait if in_task => return Flow::Wait,
            Op::Sleep(ms) if in_task => return Flow::Sleep(ms % 8 + 1),
            Op::Await(n) if in_task => {
                if let Some(task) = named(n, world.tasks()) {
                    if world.can_await(task) {
                        return Flow::Await(task);
                    }
                }
            }
            Op::Listen if in_task => return Flow::Listen,
            Op::Fail if in_task => return Flow::Fail,
            Op::Supervise => world.supervise(),
            Op::SpawnIn {
                group,
                script,
                fallible,
            } => {
                if let Some(group) = named(group, world.groups()) {
                    let done = world.spawn_in(group, script, fallible);
                    world.say(format!("{who:?} spawn in {group}: {done:?}"));
                }
            }
            Op::Abort(n) => {
                if let Some(group) = named(n, world.groups()) {
                    let done = world.abort(group);
                    world.say(format!("{who:?} abort {group}: {done:?}"));
                }
            }
            Op::DropGroup(n) => {
                if let Some(group) = named(n, world.groups()) {
                    let done = world.drop_group(group);
                    world.say(format!("{who:?} drop group {group}: {done:?}"));
                }
            }
            Op::GroupHandler { group, script } => {
                if let Some(group) = named(group, world.groups()) {
                    let done = world.group_handler(group, script);
                    world.say(format!("{who:?} set handler of {group}: {done:?}"));
                }
            }
            Op::Size(n) => {
                if let Some(group) = named(n, world.groups()) {
                    let size = world.size(group);
                    world.say(format!("{who:?} size of {group}: {size:?}"));
                }
            }
            Op::Limit { group, tasks } => {
                if let Some(group) = named(group, world.groups()) {
                    let done = world.limit(group, tasks % 3 + 1);
                    world.say(format!("{who:?} limit {group}: {done:?}"));
                }
            }
            Op::End { group, ms } if in_task => {
                if let Some(group) = named(group, world.groups()) {
                    if world.can_end(group) {
                        return Flow::End(group, ms % 8 + 1);
                    }
                }
            }
            Op::OpenSet => world.open_set(),
            Op::TakeNext(n) => {
                if let Some(group) = named(n, world.groups()) {
                    let taken = world.take_next(group);
                    world.say(format!("{who:?} take next of {group}: {taken:?}"));
                }
            }
            Op::LetGo(n) => {
                if let Some(group) = named(n, world.groups()) {
                    let done = world.let_set_go(group);
                    world.say(format!("{who:?} let go {group}: {done:?}"));
                }
            }
            Op::Next(n) if in_task => {
                if let Some(group) = named(n, world.groups()) {
                    if world.can_next(group) {
                        return Flow::Next(group);
                    }
                }
            }
            Op::Swap => world.go_to(1 - world.at()),
            Op::Drive(steps) => {
                let done = world.drive(steps % 4);
                world.say(format!("{who:?} drive: {done:?}"));
            }
            Op::DropExecutor => {
                let done = world.drop_executor();
                world.say(format!("{who:?} drop executor: {done:?}"));
            }
            Op::Scope(script) if in_task => return Flow::Scope(script),
            Op::Scope(_)
            | Op::Listen
            | Op::Yield
            | Op::Wait
            | Op::Sleep(_)
            | Op::Await(_)
            | Op::Fail
            | Op::Next(_)
            | Op::End { .. } => {}
        }
    }
    Flow::Over
}

/// Where a program's choices come from.
pub(crate) trait Choices {
    /// A number below `n`.
    fn below(&mut self, n: u8) -> u8;
}

/// Choices by SplitMix64.
#[allow(dead_code, reason = "the fuzzer brings choices of its own")]
#[derive(Debug)]
pub(crate) struct Seed(pub(crate) u64);

impl Choices for Seed {
    fn below(&mut self, n: u8) -> u8 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u8::try_from((z ^ (z >> 31)) % u64::from(n)).unwrap_or(0)
    }
}

/// Makes programs of choices.
pub(crate) struct Random<C>(pub(crate) C);

impl<C: Choices> Random<C> {
    fn below(&mut self, n: u8) -> u8 {
        self.0.below(n)
    }

    fn byte(&mut self) -> u8 {
        self.below(12)
    }

    /// One of the first so many ops.
    fn op(&mut self, of: u8) -> Op {
        match self.below(of) {
            0..=7 => Op::Spawn {
                script: self.byte(),
                fallible: self.below(2) == 0,
            },
            8 | 9 => Op::Cancel(self.byte()),
            10..=12 => Op::DropHandle(self.byte()),
            13..=15 => Op::Wake(self.byte()),
            16 => Op::Read(self.byte()),
            17 => Op::Look(self.byte()),
            18..=20 => Op::AddCallback {
                task: self.byte(),
                script: self.byte(),
            },
            21 => Op::RemoveCallback(self.byte()),
            22 => Op::CallSoon(self.byte()),
            23 => Op::CallLater {
                ms: self.byte(),
                script: self.byte(),
            },
            24 => Op::CancelCall(self.byte()),
            25 => Op::SetHandler(self.byte()),
            26 => {
                if self.below(3) == 0 {
                    Op::ClearHandler
                } else {
                    Op::Report
                }
            }
            27 => {
                if self.below(3) == 0 {
                    Op::Stop
                } else {
                    Op::Panic
                }
            }
            28 | 29 => Op::Panic,
            30..=32 => Op::Yield,
            33 | 34 => Op::Wait,
            35 => Op::Sleep(self.byte()),
            36 | 37 => Op::Await(self.byte()),
            38 => Op::Listen,
            39 => Op::Fail,
            40 | 41 => Op::Supervise,
            42..=49 => Op::SpawnIn {
                group: self.byte(),
                script: self.byte(),
                fallible: self.below(2) == 0,
            },
            50 | 51 => Op::Abort(self.byte()),
            52 => Op::DropGroup(self.byte()),
            53 | 54 => Op::GroupHandler {
                group: self.byte(),
                script: Some(self.byte()),
            },
            55 => {
                if self.below(2) == 0 {
                    Op::Size(self.byte())
                } else {
                    Op::GroupHandler {
                        group: self.byte(),
                        script: None,
                    }
                }
            }
            56 => Op::Limit {
                group: self.byte(),
                tasks: self.byte(),
            },
            57..=59 => Op::End {
                group: self.byte(),
                ms: self.byte(),
            },
            60..=65 => Op::Scope(self.byte()),
            66..=71 => Op::Swap,
            72..=75 => Op::Drive(self.byte()),
            76 => Op::DropExecutor,
            77 | 78 => Op::OpenSet,
            79 | 80 => Op::TakeNext(self.byte()),
            81 => Op::LetGo(self.byte()),
            _ => Op::Next(self.byte()),
        }
    }

    pub(crate) fn program(&mut self) -> Program {
        let scripts = 2 + self.below(6);
        let steps = 3 + self.below(10);
        let kind = self.below(10);
        // The basic ones; those of supervisors and scopes too; those of two executors too; all.
        let two = kind >= 4;
        let ops_of = [40, 66, 77, 77, 86][usize::from(kind / 2)];
        Program {
            if_unretrieved: kind % 2 == 0,
            two,
            scripts: (0..scripts)
                .map(|_| {
                    let ops = self.below(7);
                    let on_drop = if self.below(4) == 0 { self.below(4) } else { 0 };
                    Script {
                        ops: (0..ops).map(|_| self.op(ops_of)).collect(),
                        on_drop: (0..on_drop).map(|_| self.op(ops_of)).collect(),
                    }
                })
                .collect(),
            steps: (0..steps)
                .map(|_| match self.below(if two { 14 } else { 11 }) {
                    0..=3 => Step::Do(self.byte()),
                    4..=6 => Step::Tick(self.below(6) + 1),
                    7 => Step::UntilStalled,
                    8 => Step::BlockOn(self.below(8) + 1),
                    9 => Step::Advance(self.below(8) + 1),
                    10 => Step::Shutdown(self.below(8)),
                    _ => Step::Swap,
                })
                .collect(),
        }
    }
}
