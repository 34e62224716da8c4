//! The reference: what the executor is to do, said with vectors and nothing else. It polls no future, owns no memory by
//! hand, and has one thread; what it tells, the library is to tell word for word.

use std::collections::VecDeque;

use super::language::{FUEL, Flow, LAST_FUEL, Op, Program, Step, Who, World, run};

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
    script: u8,
    fallible: bool,
    pc: usize,
    mode: Mode,
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
}

struct Callback {
    task: usize,
    script: u8,
    done: bool,
}

struct Call {
    script: u8,
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

pub(crate) struct Model<'a> {
    program: &'a Program,
    pub(crate) trace: Vec<String>,
    fuel: u32,
    tasks: Vec<Task>,
    callbacks: Vec<Callback>,
    calls: Vec<Call>,
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
        self.calls.len()
    }

    fn spawn(&mut self, script: u8, fallible: bool) {
        let n = self.tasks.len();
        self.say(format!("spawn {n}"));
        let aside = !self.driven || self.closed;
        let refused = self.closed && !self.driven;
        self.tasks.push(Task {
            script,
            fallible,
            pc: 0,
            mode: Mode::Go,
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
        });
        if refused {
            if self.destructor(n) {
                self.tell("Destructor", None);
            }
        } else {
            self.queue.push_back(Entry::Task(n));
            self.counts.spawned += 1;
            self.counts.live += 1;
            if aside {
                if self.closed {
                    self.tasks[n].aside = true;
                    self.ask_cancel(n);
                } else {
                    self.prod();
                }
            }
        }
        self.tasks[n].known = true;
        self.tasks[n].place = Place::Table;
    }

    fn cancel(&mut self, task: usize) -> Option<bool> {
        if self.tasks[task].place != Place::Table {
            return None;
        }
        self.tasks[task].place = Place::Out;
        let done = self.tasks[task].end.is_none() && self.ask_cancel(task);
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
        if !self.tasks[task].stored || !self.driven && self.tasks[task].gone {
            return None;
        }
        self.tasks[task].woken = true;
        self.wake_task(task);
        self.prod();
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
                Some(word(end))
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
        let mut callback = Callback {
            task,
            script,
            done: false,
        };
        if self.tasks[task].taken && !self.driven {
            // Nobody will ever call it.
            callback.done = true;
            self.callbacks.push(callback);
            return Some(());
        }
        self.callbacks.push(callback);
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
        Some(())
    }

    fn remove_callback(&mut self, callback: usize) -> Option<bool> {
        let task = self.callbacks[callback].task;
        if self.tasks[task].place != Place::Table || self.tasks[task].taken {
            return None;
        }
        // When the task has ended it is too late, also for those that are not queued yet.
        if self.tasks[task].end.is_none() {
            let own = &mut self.tasks[task].callbacks;
            if let Some(at) = own.iter().position(|other| *other == callback) {
                own.remove(at);
                return Some(true);
            }
        }
        for late in &mut self.late {
            if let Some(at) = late.queue.iter().position(|other| *other == callback) {
                late.queue.remove(at);
                return Some(true);
            }
        }
        Some(false)
    }

    fn call_soon(&mut self, script: u8) {
        self.make_call(script);
        let call = self.calls.len() - 1;
        if !self.closed {
            self.calls[call].queued = true;
            self.queue.push_back(Entry::Call(call));
            self.prod();
        }
    }

    fn call_later(&mut self, ms: u8, script: u8) {
        self.make_call(script);
        if !self.closed {
            self.arm(ms, Target::Call(self.calls.len() - 1));
        }
    }

    fn cancel_call(&mut self, call: usize) -> bool {
        if self.calls[call].running || self.calls[call].over {
            return false;
        }
        self.disarm(Target::Call(call));
        let asked = std::mem::replace(&mut self.calls[call].cancel, true);
        if self.driven {
            if !asked || !self.burying {
                self.bury(Entry::Call(call));
            }
        } else if !asked {
            self.doomed.push(Entry::Call(call));
            self.prod();
        }
        true
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
        self.tasks[task].place == Place::Table && !self.tasks[task].taken
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
            queue: VecDeque::new(),
            doomed: Vec::new(),
            token: false,
            driven: false,
            closed: false,
            shutting: false,
            stopping: false,
            settling: false,
            burying: false,
            graveyard: VecDeque::new(),
            items: VecDeque::new(),
            late: Vec::new(),
            leftovers_had_it: false,
            handler: None,
            depth: 0,
            now: 0,
            armed: 0,
            timers: Vec::new(),
            root_woken: false,
            counts: Counts::default(),
        }
    }

    /// Runs the whole program.
    pub(crate) fn play(mut self) -> Vec<String> {
        for step in &self.program.steps {
            self.say(format!("{step:?}"));
            match *step {
                Step::Do(script) => {
                    let program = self.program;
                    self.act_ops(Who::Owner, &program.script(script).ops);
                }
                Step::Tick(budget) => {
                    self.driven = true;
                    if !self.has_work() {
                        self.look_at_clock();
                    }
                    let polls = self.pass(usize::from(budget));
                    self.look_at_clock();
                    self.end_drive(polls);
                }
                Step::UntilStalled => {
                    self.driven = true;
                    let mut polls = 0;
                    loop {
                        polls += self.pass(ALL);
                        if self.stopping {
                            break;
                        }
                        if !self.has_work() {
                            self.look_at_clock();
                            if !self.has_work() {
                                break;
                            }
                        }
                    }
                    self.end_drive(polls);
                }
                Step::BlockOn(ms) => self.block_on(ms),
                Step::Shutdown(ms) => self.shutdown(ms),
                Step::Advance(ms) => {
                    self.now += u64::from(ms);
                    self.prod();
                }
            }
            self.say_counts();
        }
        self.say("close".to_owned());
        self.close();
        self.say_counts();
        for task in 0..self.tasks.len() {
            if self.tasks[task].place == Place::Table {
                self.give_up(task);
            }
        }
        self.say_counts();
        self.trace
    }

    fn say_counts(&mut self) {
        let c = &self.counts;
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
        self.say(line);
    }

    /// Runs ops that cannot wait. `true`: they panicked.
    fn act_ops(&mut self, who: Who, ops: &[Op]) -> bool {
        run(self, who, ops, &mut 0) == Flow::Panic
    }

    // --- the loop ---------------------------------------------------------------------------------------------------

    fn prod(&mut self) {
        if !self.driven {
            self.token = true;
        }
    }

    fn has_work(&self) -> bool {
        !self.queue.is_empty()
            || !self.items.is_empty() && !self.settling
            || self.token
            || !self.late.is_empty()
    }

    fn end_drive(&mut self, polls: usize) {
        let more = self.has_work();
        let next = self.timers.iter().map(|timer| timer.0).min();
        self.say(format!("polls {polls} more {more} next {next:?}"));
        self.stopping = false;
        self.driven = false;
    }

    fn look_around(&mut self) {
        if std::mem::take(&mut self.token) {
            for entry in std::mem::take(&mut self.doomed) {
                self.bury(entry);
            }
        }
    }

    fn pass(&mut self, budget: usize) -> usize {
        let mut left = budget;
        self.look_around();
        if !self.items.is_empty() {
            self.take_leftovers(&mut left);
        }
        self.look_at_clock();
        let mut now = self.queue.len();
        while left > 0 && now > 0 {
            now -= 1;
            let entry = self.queue.pop_front().expect("counted");
            if !self.step(entry) {
                continue;
            }
            left -= 1;
            if !self.items.is_empty() {
                self.settle_within(&mut left);
            }
        }
        if !self.late.is_empty() {
            for calls in std::mem::take(&mut self.late) {
                self.tasks[calls.task].late = false;
                self.items.push_back(Item::Calls(calls));
            }
            self.settle_within(&mut left);
        }
        budget - left
    }

    fn take_leftovers(&mut self, left: &mut usize) {
        let mut share = match *left {
            1 if !self.queue.is_empty() => {
                let had_it = self.leftovers_had_it;
                self.leftovers_had_it = !had_it;
                usize::from(!had_it)
            }
            1 => 1,
            more => more - 1,
        };
        let kept = *left - share;
        if share > 0 {
            self.settle_within(&mut share);
        }
        *left = kept + share;
    }

    /// `false`: there was nobody to poll.
    fn step(&mut self, entry: Entry) -> bool {
        match entry {
            Entry::Task(task) => {
                self.tasks[task].queued = false;
                if self.tasks[task].end.is_some() {
                    return false;
                }
                self.counts.polls += 1;
                self.poll(task);
            }
            Entry::Call(call) => {
                self.calls[call].queued = false;
                if self.calls[call].over {
                    return false;
                }
                self.counts.polls += 1;
                self.calls[call].running = true;
                self.say(format!("call {call}"));
                let program = self.program;
                let ops = &program.script(self.calls[call].script).ops;
                let panicked = self.act_ops(Who::Call(call), ops);
                self.calls[call].running = false;
                self.calls[call].over = true;
                if panicked {
                    self.items.push_back(Item::CallFailed);
                }
            }
        }
        true
    }

    fn poll(&mut self, task: usize) {
        self.tasks[task].running = true;
        self.say(format!("poll {task}"));
        let ready = match self.tasks[task].mode {
            Mode::Go | Mode::Yielded => true,
            Mode::Waiting => std::mem::take(&mut self.tasks[task].woken),
            Mode::Sleeping => !self
                .timers
                .iter()
                .any(|timer| timer.2 == Target::Task(task)),
            Mode::Awaiting(other) => self.poll_handle(task, other),
            Mode::Listening => self.tasks[task].requested,
        };
        let end = if ready {
            self.tasks[task].mode = Mode::Go;
            self.go(task)
        } else {
            None
        };
        let Some(flow) = end else {
            self.tasks[task].running = false;
            if self.tasks[task].cancel {
                self.bury(Entry::Task(task));
            }
            return;
        };
        let panicked = self.destructor(task);
        let failed = flow == Flow::Panic || flow == Flow::Fail && self.tasks[task].fallible;
        let also = failed && panicked;
        let end = if failed || panicked {
            End::Failed
        } else if self.tasks[task].cancel {
            End::Cancelled
        } else {
            End::Returned
        };
        self.tasks[task].running = false;
        self.ended(task, end, also);
    }

    /// `None`: the task waits.
    fn go(&mut self, task: usize) -> Option<Flow> {
        let program = self.program;
        loop {
            let ops = &program.script(self.tasks[task].script).ops;
            let mut pc = self.tasks[task].pc;
            let flow = run(self, Who::Task(task), ops, &mut pc);
            self.tasks[task].pc = pc;
            match flow {
                Flow::End | Flow::Panic | Flow::Fail => return Some(flow),
                Flow::Yield => {
                    self.tasks[task].mode = Mode::Yielded;
                    self.wake_task(task);
                    return None;
                }
                Flow::Wait => {
                    self.tasks[task].mode = Mode::Waiting;
                    self.tasks[task].woken = false;
                    self.tasks[task].stored = true;
                    return None;
                }
                Flow::Sleep(ms) => {
                    self.tasks[task].mode = Mode::Sleeping;
                    self.arm(ms, Target::Task(task));
                    return None;
                }
                Flow::Listen => {
                    self.tasks[task].asks = true;
                    self.tasks[task].aside = true;
                    if !self.tasks[task].requested {
                        self.tasks[task].mode = Mode::Listening;
                        return None;
                    }
                }
                Flow::Await(other) => {
                    self.tasks[other].place = Place::Out;
                    self.tasks[task].mode = Mode::Awaiting(other);
                    if !self.poll_handle(task, other) {
                        return None;
                    }
                    self.tasks[task].mode = Mode::Go;
                }
            }
        }
    }

    /// A task polls the handle that it awaits. `true`: it is done with it, and has dropped it.
    fn poll_handle(&mut self, task: usize, other: usize) -> bool {
        let told = match self.takeable(other) {
            Some(end) => {
                self.take(other);
                word(end)
            }
            None if task == other => "own",
            None => {
                self.tasks[other].awaiter = Some(task);
                return false;
            }
        };
        self.say(format!("{task} awaited {other}: {told}"));
        self.give_up(other);
        true
    }

    fn block_on(&mut self, ms: u8) {
        self.driven = true;
        self.root_woken = true;
        let mut slept = false;
        let mut last = false;
        let done = loop {
            if std::mem::take(&mut self.root_woken) {
                let ready = slept && !self.timers.iter().any(|timer| timer.2 == Target::Root);
                if !slept {
                    slept = true;
                    self.arm(ms, Target::Root);
                }
                self.settle();
                if ready {
                    self.stopping = false;
                    break true;
                }
            }
            if last {
                self.stopping = false;
                break false;
            }
            self.pass(ALL);
            if self.stopping {
                last = true;
            } else if !self.has_work() && !self.root_woken {
                self.look_at_clock();
                if !self.has_work() && !self.root_woken {
                    // It jumps to the next deadline; there is the root's at least.
                    let next = self.timers.iter().map(|timer| timer.0).min();
                    self.now = self.now.max(next.expect("the root sleeps"));
                }
            }
        };
        self.disarm(Target::Root);
        self.settle_all();
        self.driven = false;
        self.say(format!("root: {}", if done { "done" } else { "stopped" }));
    }

    /// All are asked to end, run on while one that asks is live, and are dropped.
    fn shutdown(&mut self, grace: u8) {
        self.fuel = self.fuel.min(LAST_FUEL);
        self.driven = true;
        let end = self.now + u64::from(grace);
        let ends = |this: &Self| {
            let c = &this.counts;
            (c.returned, c.failed, c.cancelled)
        };
        let before = ends(self);
        self.settle_all();
        self.shutting = true;
        for task in self.live() {
            self.tasks[task].requested = true;
            if self.tasks[task].mode == Mode::Listening {
                self.wake_task(task);
            }
        }
        loop {
            let spawned = self.counts.spawned;
            self.look_at_clock();
            self.pass(ALL);
            let asking = self.live().iter().any(|task| self.tasks[*task].asks);
            let newcomers = self.counts.spawned != spawned;
            if !asking && !newcomers || self.stopping || end <= self.now {
                break;
            }
            if asking && !self.has_work() {
                self.look_at_clock();
                if !self.has_work() {
                    let next = self.timers.iter().map(|timer| timer.0).min();
                    self.now = self.now.max(next.map_or(end, |next| next.min(end)));
                }
            }
        }
        let in_time = ends(self);
        loop {
            for task in self.live() {
                self.ask_cancel(task);
                self.settle_all();
            }
            for call in 0..self.calls.len() {
                self.disarm(Target::Call(call));
            }
            for call in 0..self.calls.len() {
                self.calls[call].over = true;
            }
            self.settle_all();
            self.run_all_late();
            if self.live().is_empty() && self.calls.iter().all(|call| call.over) {
                break;
            }
        }
        let after = ends(self);
        self.shutting = false;
        self.stopping = false;
        self.driven = false;
        self.say(format!(
            "finished {} failed {} cancelled {} dropped {}",
            after.0 - before.0,
            after.1 - before.1,
            in_time.2 - before.2,
            after.2 - in_time.2
        ));
    }

    fn live(&self) -> Vec<usize> {
        (0..self.tasks.len())
            .filter(|task| self.tasks[*task].end.is_none())
            .collect()
    }

    fn run_all_late(&mut self) {
        for _ in 0..1_000 {
            if self.late.is_empty() {
                break;
            }
            for calls in std::mem::take(&mut self.late) {
                self.tasks[calls.task].late = false;
                self.items.push_back(Item::Calls(calls));
            }
            self.settle();
            self.settle_all();
        }
    }

    fn close(&mut self) {
        self.driven = true;
        self.closed = true;
        loop {
            let live: Vec<usize> = (0..self.tasks.len())
                .filter(|task| self.tasks[*task].end.is_none())
                .collect();
            if live.is_empty() {
                break;
            }
            for task in live {
                if self.tasks[task].end.is_some() {
                    continue;
                }
                if !self.tasks[task].cancel {
                    let outer = std::mem::replace(&mut self.settling, true);
                    self.dispatch("DestroyedPending", Some(task));
                    self.settling = outer;
                    if !outer && !self.items.is_empty() {
                        self.settle_reports();
                    }
                }
                self.tasks[task].cancel = true;
                self.bury(Entry::Task(task));
                self.settle_all();
            }
        }
        for call in 0..self.calls.len() {
            self.calls[call].over = true;
        }
        self.stopping = false;
        for _ in 0..1_000 {
            self.settle_all();
            self.run_all_late();
            let unread: Vec<usize> = (0..self.tasks.len())
                .filter(|task| self.is_unread(*task))
                .collect();
            for task in &unread {
                if self.is_kept(*task) && !self.tasks[*task].pinned {
                    self.tasks[*task].pinned = true;
                    if !self.tasks[*task].told && !self.tasks[*task].read {
                        self.report_task(*task, "NeverRetrieved");
                    }
                    self.publish(*task);
                }
            }
            if unread.is_empty() && self.items.is_empty() && self.late.is_empty() {
                break;
            }
        }
        self.driven = false;
    }

    /// Its outcome is still where it came to lie.
    fn is_kept(&self, task: usize) -> bool {
        let task = &self.tasks[task];
        task.end.is_some() && !task.taken && (task.claimed || task.pinned)
    }

    fn is_unread(&self, task: usize) -> bool {
        let t = &self.tasks[task];
        self.is_kept(task) && t.end == Some(End::Failed) && !t.told && !t.read && !t.pinned
    }

    // --- waking and time --------------------------------------------------------------------------------------------

    fn wake_task(&mut self, task: usize) {
        let t = &mut self.tasks[task];
        if !t.queued && t.end.is_none() {
            t.queued = true;
            self.queue.push_back(Entry::Task(task));
        }
    }

    fn arm(&mut self, ms: u8, target: Target) {
        let deadline = self.now + u64::from(ms);
        if self.timers.iter().all(|timer| deadline < timer.0) {
            self.prod();
        }
        self.timers.push((deadline, self.armed, target));
        self.armed += 1;
    }

    fn disarm(&mut self, target: Target) {
        self.timers.retain(|timer| timer.2 != target);
    }

    fn look_at_clock(&mut self) {
        let mut due: Vec<_> = self
            .timers
            .iter()
            .copied()
            .filter(|timer| timer.0 <= self.now)
            .collect();
        self.timers.retain(|timer| timer.0 > self.now);
        due.sort_by_key(|timer| (timer.0, timer.1));
        for (_, _, target) in due {
            match target {
                Target::Task(task) => self.wake_task(task),
                Target::Root => self.root_woken = true,
                Target::Call(call) => {
                    let c = &mut self.calls[call];
                    if !c.queued && !c.over {
                        c.queued = true;
                        self.queue.push_back(Entry::Call(call));
                    }
                }
            }
        }
    }

    fn make_call(&mut self, script: u8) {
        let over = self.closed;
        self.calls.push(Call {
            script,
            queued: false,
            running: false,
            cancel: false,
            over,
        });
    }

    // --- ending -----------------------------------------------------------------------------------------------------

    /// The future is dropped. `true`: its destructor panicked.
    fn destructor(&mut self, task: usize) -> bool {
        self.say(format!("drop {task}"));
        self.tasks[task].gone = true;
        if let Mode::Awaiting(other) = self.tasks[task].mode {
            self.give_up(other);
        }
        self.disarm(Target::Task(task));
        let program = self.program;
        let ops = &program.script(self.tasks[task].script).on_drop;
        self.act_ops(Who::Destructor(task), ops)
    }

    /// `false`: it has ended.
    fn ask_cancel(&mut self, task: usize) -> bool {
        if self.tasks[task].end.is_some() {
            return false;
        }
        let running = self.tasks[task].running;
        let asked = std::mem::replace(&mut self.tasks[task].cancel, true);
        if running {
            return true;
        }
        if self.driven {
            if !asked || !self.burying {
                self.bury(Entry::Task(task));
            }
        } else if !asked {
            self.doomed.push(Entry::Task(task));
            self.prod();
        }
        true
    }

    fn bury(&mut self, entry: Entry) {
        self.graveyard.push_back(entry);
        if std::mem::replace(&mut self.burying, true) {
            return;
        }
        while let Some(entry) = self.graveyard.pop_front() {
            match entry {
                Entry::Call(call) => self.calls[call].over |= !self.calls[call].running,
                Entry::Task(task) => {
                    if self.tasks[task].end.is_some() || self.tasks[task].running {
                        continue;
                    }
                    self.tasks[task].running = true;
                    let panicked = self.destructor(task);
                    self.tasks[task].running = false;
                    let end = if panicked {
                        End::Failed
                    } else {
                        End::Cancelled
                    };
                    self.ended(task, end, false);
                }
            }
        }
        self.burying = false;
    }

    fn ended(&mut self, task: usize, end: End, also: bool) {
        let t = &mut self.tasks[task];
        t.end = Some(end);
        t.pinned = true;
        t.aside |= also;
        self.counts.live -= 1;
        match end {
            End::Returned => self.counts.returned += 1,
            End::Cancelled => self.counts.cancelled += 1,
            End::Failed => {
                self.counts.failed += 1;
                self.counts.unread += 1;
            }
        }
        let aside = self.tasks[task].aside;
        match end {
            End::Cancelled => {
                let queue: VecDeque<usize> = std::mem::take(&mut self.tasks[task].callbacks).into();
                self.publish(task);
                if !queue.is_empty() {
                    self.items.push_back(Item::Calls(Calls {
                        task,
                        end,
                        pinned: false,
                        also: false,
                        queue,
                    }));
                }
            }
            End::Returned if !aside => self.publish(task),
            _ => self.items.push_back(Item::Ended(task, also)),
        }
    }

    fn settle(&mut self) {
        if !self.items.is_empty() {
            self.settle_within(&mut { ALL });
        }
    }

    fn settle_all(&mut self) {
        for _ in 0..1_000 {
            if self.items.is_empty() {
                break;
            }
            self.settle();
        }
    }

    fn settle_within(&mut self, left: &mut usize) {
        if std::mem::replace(&mut self.settling, true) {
            return;
        }
        let mut now = self.items.len();
        while now > 0 {
            let Some(item) = self.items.pop_front() else {
                break;
            };
            now -= 1;
            match item {
                Item::Ended(task, also) => {
                    if let Some(calls) = self.finish(task, also) {
                        self.items.push_front(Item::Calls(calls));
                        now += 1;
                    }
                }
                Item::CallFailed => self.dispatch("Callback", None),
                Item::Calls(calls) => {
                    if let Some(rest) = self.run_calls(calls, left) {
                        self.items.push_front(Item::Calls(rest));
                        break;
                    }
                }
                Item::Unread(task) => self.conclude(task, false),
                Item::Notice(kind, task) => self.dispatch(kind, task),
            }
        }
        self.settling = false;
    }

    fn settle_reports(&mut self) {
        if std::mem::replace(&mut self.settling, true) {
            return;
        }
        while let Some(at) = self
            .items
            .iter()
            .position(|item| matches!(item, Item::Unread(_) | Item::Notice(..)))
        {
            match self.items.remove(at) {
                Some(Item::Unread(task)) => self.conclude(task, false),
                Some(Item::Notice(kind, task)) => self.dispatch(kind, task),
                _ => unreachable!("just found"),
            }
        }
        self.settling = false;
    }

    fn finish(&mut self, task: usize, also: bool) -> Option<Calls> {
        let end = self.tasks[task].end.expect("it has ended");
        if end == End::Failed && self.shutting {
            self.report_task(task, "Shutdown");
        } else if end == End::Failed && !self.program.if_unretrieved {
            self.report_task(task, "TaskFailed");
        }
        let queue: VecDeque<usize> = std::mem::take(&mut self.tasks[task].callbacks).into();
        if queue.is_empty() {
            self.conclude(task, also);
            return None;
        }
        Some(Calls {
            task,
            end,
            pinned: true,
            also,
            queue,
        })
    }

    fn run_calls(&mut self, mut calls: Calls, left: &mut usize) -> Option<Calls> {
        while let Some(id) = calls.queue.pop_front() {
            if *left == 0 {
                calls.queue.push_front(id);
                return Some(calls);
            }
            *left -= 1;
            self.callbacks[id].done = true;
            let task = calls.task;
            self.say(format!("callback {id} of {task}: {}", word(calls.end)));
            // Every second one asks for the outcome.
            if id % 2 == 1 && calls.pinned && calls.end == End::Failed {
                self.mark_read(task);
            }
            let program = self.program;
            let ops = &program.script(self.callbacks[id].script).ops;
            if self.act_ops(Who::Callback(id), ops) {
                self.tell("Callback", Some(task));
            }
        }
        if calls.pinned {
            self.conclude(calls.task, calls.also);
        }
        None
    }

    fn conclude(&mut self, task: usize, also: bool) {
        let t = &self.tasks[task];
        let untold = t.end == Some(End::Failed) && !t.told && !t.read;
        if untold && !t.claimed {
            self.report_task(task, "NeverRetrieved");
        }
        if also {
            self.tell("Destructor", Some(task));
        }
        self.publish(task);
    }

    fn publish(&mut self, task: usize) {
        if self.tasks[task].late {
            if let Some(late) = self.late.iter_mut().find(|late| late.task == task) {
                late.pinned = true;
                return;
            }
            self.tasks[task].late = false;
        }
        self.tasks[task].pinned = false;
        if let Some(awaiter) = self.tasks[task].awaiter.take() {
            self.wake_task(awaiter);
        }
    }

    fn report_task(&mut self, task: usize, kind: &'static str) {
        self.tasks[task].told = true;
        self.counts.unread -= 1;
        self.counts.reported += 1;
        self.dispatch(kind, Some(task));
    }

    fn mark_read(&mut self, task: usize) {
        let t = &mut self.tasks[task];
        if !t.told && !t.read {
            t.read = true;
            self.counts.unread -= 1;
            self.counts.retrieved += 1;
        }
    }

    fn tell(&mut self, kind: &'static str, task: Option<usize>) {
        self.items.push_back(Item::Notice(kind, task));
        if !self.driven {
            self.settle_reports();
        }
    }

    fn dispatch(&mut self, kind: &'static str, task: Option<usize>) {
        self.counts.reports += 1;
        let about = match task {
            None => "-".to_owned(),
            Some(task) if self.tasks[task].known => task.to_string(),
            Some(_) => "?".to_owned(),
        };
        match self.handler {
            Some(script) if self.depth < 8 => {
                self.say(format!("handler: {kind} {about}"));
                self.depth += 1;
                let program = self.program;
                let panicked = self.act_ops(Who::Handler, &program.script(script).ops);
                self.depth -= 1;
                if panicked {
                    self.counts.reports += 1;
                    self.say(format!("default: Handler of {kind} {about}"));
                }
            }
            _ => self.say(format!("default: {kind} {about}")),
        }
    }

    // --- handles ----------------------------------------------------------------------------------------------------

    /// How it ended, if its outcome can be taken.
    fn takeable(&self, task: usize) -> Option<End> {
        let t = &self.tasks[task];
        if t.pinned { None } else { t.end }
    }

    fn take(&mut self, task: usize) {
        if self.tasks[task].end == Some(End::Failed) {
            self.mark_read(task);
        }
        self.tasks[task].taken = true;
        self.tasks[task].claimed = false;
    }

    /// A handle is dropped.
    fn give_up(&mut self, task: usize) {
        self.tasks[task].place = Place::Gone;
        if !std::mem::take(&mut self.tasks[task].claimed) || self.takeable(task).is_none() {
            return;
        }
        let t = &self.tasks[task];
        if t.end == Some(End::Failed) && !t.told && !t.read {
            self.tasks[task].pinned = true;
            self.items.push_back(Item::Unread(task));
            self.settle_reports();
        }
    }
}
