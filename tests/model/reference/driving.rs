//! How the reference drives: passes, time, a shutdown, the end.

use crate::language::{DEPTH, Flow, LAST_FUEL, Who, World, run};

use super::groups::Group;
use super::scopes::Scoped;
use super::{ALL, Body, Call, End, Entry, Frame, Item, Mode, Model, Place, Target};

impl Model<'_> {
    pub(super) fn prod(&mut self) {
        if !self.driven {
            self.token = true;
        }
    }

    pub(super) fn has_work(&self) -> bool {
        !self.queue.is_empty()
            || !self.items.is_empty() && !self.settling
            || self.token
            || !self.late.is_empty()
    }

    /// Drives. While it does, what there is to tell is told by the loop, whatever is being told up the stack.
    fn driving<R>(&mut self, f: impl FnOnce(&mut Self) -> R) -> R {
        let outer = std::mem::take(&mut self.settling);
        self.driven = true;
        self.current.push(self.at);
        let result = f(self);
        self.current.pop();
        self.driven = false;
        self.settling = outer;
        result
    }

    /// Makes so many steps; 0: until it is stalled.
    pub(super) fn drive_once(&mut self, steps: u8) {
        let told = self.driving(|this| {
            let polls = match steps {
                0 => this.until_stalled(),
                steps => this.tick(steps),
            };
            let more = this.has_work();
            let next = this.timers.iter().map(|timer| timer.0).min();
            this.stopping = false;
            format!("polls {polls} more {more} next {next:?}")
        });
        self.say(told);
    }

    fn tick(&mut self, budget: u8) -> usize {
        if !self.has_work() {
            self.look_at_clock();
        }
        let polls = self.pass(usize::from(budget));
        self.look_at_clock();
        polls
    }

    fn until_stalled(&mut self) -> usize {
        let mut polls = 0;
        loop {
            polls += self.pass(ALL);
            if self.stopping {
                return polls;
            }
            if !self.has_work() {
                self.look_at_clock();
                if !self.has_work() {
                    return polls;
                }
            }
        }
    }

    pub(super) fn look_around(&mut self) {
        if std::mem::take(&mut self.token) {
            for entry in std::mem::take(&mut self.doomed) {
                self.bury(entry);
            }
        }
    }

    pub(super) fn pass(&mut self, budget: usize) -> usize {
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

    pub(super) fn take_leftovers(&mut self, left: &mut usize) {
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
    pub(super) fn step(&mut self, entry: Entry) -> bool {
        match entry {
            Entry::Task(task) => {
                self.tasks[task].queued = false;
                let t = &self.tasks[task];
                if t.end.is_some() || t.held || t.running || t.cancel {
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
                let panicked = match self.calls[call].body {
                    Body::Script(number, script) => {
                        self.say(format!("call {number}"));
                        let program = self.program;
                        self.act_ops(Who::Call(number), &program.script(script).ops)
                    }
                    Body::Look(group) => {
                        self.look(group);
                        false
                    }
                };
                self.calls[call].running = false;
                self.calls[call].over = true;
                if panicked {
                    self.items.push_back(Item::CallFailed);
                }
            }
        }
        true
    }

    pub(super) fn poll(&mut self, task: usize) {
        self.tasks[task].running = true;
        let end = self.go(task, 0);
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

    fn mode(&mut self, task: usize, frame: usize) -> &mut Mode {
        &mut self.tasks[task].frames[frame].mode
    }

    /// Polls a frame. `None`: it waits.
    pub(super) fn go(&mut self, task: usize, frame: usize) -> Option<Flow> {
        self.say(format!("poll {}", self.frame_name(task, frame)));
        let ready = match *self.mode(task, frame) {
            Mode::Go | Mode::Yielded => true,
            Mode::Waiting => std::mem::take(&mut self.tasks[task].woken),
            Mode::Sleeping => !self
                .timers
                .iter()
                .any(|timer| timer.2 == Target::Task(task)),
            Mode::Awaiting(other) => self.poll_handle(task, other),
            Mode::Listening => self.tasks[task].requested,
            Mode::Ending(group) => self.poll_for_end(task, group),
            Mode::Scoped(group) => match self.poll_scope(task, frame, group) {
                Scoped::Waits => false,
                Scoped::Over => true,
                Scoped::Panicked => return Some(Flow::Panic),
            },
            Mode::Joining(group) => self.poll_next(task, group),
        };
        if !ready {
            return None;
        }
        let program = self.program;
        loop {
            *self.mode(task, frame) = Mode::Go;
            let own = &self.tasks[task].frames[frame];
            let (ops, mut pc) = (&program.script(own.script).ops, own.pc);
            let flow = run(self, Who::Task(task), ops, &mut pc);
            self.tasks[task].frames[frame].pc = pc;
            match flow {
                Flow::Over | Flow::Panic | Flow::Fail => return Some(flow),
                Flow::Yield => {
                    *self.mode(task, frame) = Mode::Yielded;
                    self.wake_task(task);
                    return None;
                }
                Flow::Wait => {
                    *self.mode(task, frame) = Mode::Waiting;
                    self.tasks[task].woken = false;
                    self.tasks[task].stored = true;
                    return None;
                }
                Flow::Sleep(ms) => {
                    *self.mode(task, frame) = Mode::Sleeping;
                    self.arm(ms, Target::Task(task));
                    return None;
                }
                Flow::Listen => {
                    self.note_asks(task);
                    self.tasks[task].aside = true;
                    if !self.tasks[task].requested {
                        self.tasks[task].listens = true;
                        *self.mode(task, frame) = Mode::Listening;
                        return None;
                    }
                }
                Flow::Await(other) => {
                    self.tasks[other].place = Place::Out;
                    *self.mode(task, frame) = Mode::Awaiting(other);
                    if !self.poll_handle(task, other) {
                        return None;
                    }
                }
                Flow::End(group, ms) => {
                    self.hold(group);
                    *self.mode(task, frame) = Mode::Ending(group);
                    self.begin_end(group, task, ms);
                    if !self.poll_for_end(task, group) {
                        return None;
                    }
                }
                Flow::Next(group) => {
                    self.groups[group].at_hand = false;
                    *self.mode(task, frame) = Mode::Joining(group);
                    if !self.poll_next(task, group) {
                        return None;
                    }
                }
                Flow::Scope(_) if frame == DEPTH => {}
                Flow::Scope(script) => {
                    let group = self.groups.len();
                    self.groups.push(Group::new(self.at, Some(task)));
                    self.tasks[task]
                        .frames
                        .push(Frame::new(script, Some(group)));
                    *self.mode(task, frame) = Mode::Scoped(group);
                    match self.poll_scope(task, frame, group) {
                        Scoped::Waits => return None,
                        Scoped::Over => {}
                        Scoped::Panicked => return Some(Flow::Panic),
                    }
                }
            }
        }
    }

    pub(super) fn frame_name(&self, task: usize, frame: usize) -> String {
        match self.tasks[task].frames[frame].scope {
            None => task.to_string(),
            Some(scope) => format!("body of {scope}"),
        }
    }

    /// `true`: the group has ended.
    fn poll_for_end(&mut self, task: usize, group: usize) -> bool {
        let Some(told) = self.poll_end(group, task) else {
            return false;
        };
        self.say(format!("{task} ended {group}: {told}"));
        true
    }

    /// A task polls the handle that it awaits. `true`: it is done with it, and has dropped it.
    pub(super) fn poll_handle(&mut self, task: usize, other: usize) -> bool {
        let told = match self.takeable(other) {
            Some(_) if self.tasks[other].refused => {
                self.tasks[other].refused = false;
                "cancelled"
            }
            Some(end) => {
                self.take(other);
                self.word(other, end)
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

    pub(super) fn block_on(&mut self, ms: u8) {
        let done = self.driving(|this| this.run_root(ms));
        self.say(format!("root: {}", if done { "done" } else { "stopped" }));
    }

    fn run_root(&mut self, ms: u8) -> bool {
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
        done
    }

    /// All are asked to end, run on while one that asks is live, and are dropped.
    pub(super) fn shutdown(&mut self, grace: u8) {
        self.fuel = self.fuel.min(LAST_FUEL);
        let told = self.driving(|this| this.shut_down(grace));
        self.say(told);
    }

    fn shut_down(&mut self, grace: u8) -> String {
        let end = self.now + u64::from(grace);
        let ends = |this: &Self| {
            let c = &this.counts;
            (c.returned, c.failed, c.cancelled)
        };
        let before = ends(self);
        self.settle_all();
        self.shutting = true;
        for task in self.live() {
            self.request(task);
        }
        loop {
            let spawned = self.counts.spawned;
            self.look_at_clock();
            self.pass(ALL);
            let asking = self.live().iter().any(|task| self.tasks[*task].asks)
                || self.groups.iter().any(|group| group.host_asks(self.at));
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
            for task in self.destroyable() {
                self.ask_cancel(task);
                self.settle_all();
            }
            for call in 0..self.calls.len() {
                self.disarm(Target::Call(call));
            }
            self.bury_calls();
            self.settle_all();
            self.run_all_late();
            if self.destroyable().is_empty() && self.pending_calls().is_empty() {
                break;
            }
        }
        let after = ends(self);
        self.shutting = false;
        self.stopping = false;
        format!(
            "finished {} failed {} cancelled {} dropped {}",
            after.0 - before.0,
            after.1 - before.1,
            in_time.2 - before.2,
            after.2 - in_time.2
        )
    }

    pub(super) fn live(&self) -> Vec<usize> {
        (0..self.tasks.len())
            .filter(|n| self.tasks[*n].home == self.at && self.tasks[*n].end.is_none())
            .collect()
    }

    /// But for what is on the stack: its destructor may drop its own executor.
    fn destroyable(&self) -> Vec<usize> {
        let mut live = self.live();
        live.retain(|task| !self.tasks[*task].running);
        live
    }

    fn pending_calls(&self) -> Vec<usize> {
        (0..self.calls.len())
            .filter(|n| self.calls[*n].home == self.at && !self.calls[*n].over)
            .collect()
    }

    pub(super) fn run_all_late(&mut self) {
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

    pub(super) fn close(&mut self) {
        self.driving(Self::end_all);
    }

    fn end_all(&mut self) {
        self.closed = true;
        loop {
            let live = self.destroyable();
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
        self.bury_calls();
        self.stopping = false;
        for _ in 0..1_000 {
            self.settle_all();
            self.run_all_late();
            let unread: Vec<usize> = (0..self.tasks.len())
                .filter(|task| self.tasks[*task].home == self.at && self.is_unread(*task))
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
    }

    fn bury_calls(&mut self) {
        for call in self.pending_calls() {
            self.bury(Entry::Call(call));
        }
    }

    /// Its outcome is still where it came to lie.
    pub(super) fn is_kept(&self, task: usize) -> bool {
        let task = &self.tasks[task];
        task.end.is_some() && !task.taken && (task.claimed || task.pinned)
    }

    pub(super) fn is_unread(&self, task: usize) -> bool {
        let t = &self.tasks[task];
        self.is_kept(task) && t.end == Some(End::Failed) && !t.told && !t.read && !t.pinned
    }

    // --- waking and time --------------------------------------------------------------------------------------------

    pub(super) fn wake_task(&mut self, task: usize) {
        let t = &mut self.tasks[task];
        if !t.queued && t.end.is_none() {
            t.queued = true;
            self.queue.push_back(Entry::Task(task));
        }
    }

    /// The same from anywhere, also between drives.
    pub(super) fn wake_and_prod(&mut self, task: usize) {
        if self.tasks[task].end.is_none() {
            self.at_home(task, |this| {
                this.wake_task(task);
                this.prod();
            });
        }
    }

    pub(super) fn arm(&mut self, ms: u8, target: Target) {
        self.arm_at(self.now + u64::from(ms), target);
    }

    pub(super) fn arm_at(&mut self, deadline: u64, target: Target) {
        if self.timers.iter().all(|timer| deadline < timer.0) {
            self.prod();
        }
        let timer = (deadline, self.armed, target);
        self.timers.push(timer);
        self.armed += 1;
    }

    pub(super) fn disarm(&mut self, target: Target) {
        self.timers.retain(|timer| timer.2 != target);
    }

    pub(super) fn look_at_clock(&mut self) {
        let now = self.now;
        let (mut due, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.timers)
            .into_iter()
            .partition(|timer| timer.0 <= now);
        self.timers = later;
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

    pub(super) fn name_call(&mut self, script: u8) -> usize {
        let number = self.named_calls.len();
        let call = self.make_call(Body::Script(number, script));
        self.named_calls.push(call);
        call
    }

    pub(super) fn make_call(&mut self, body: Body) -> usize {
        // A script is dropped at once where it would never be called; a look is to be buried.
        let over = self.closed && matches!(body, Body::Script(..));
        self.calls.push(Call {
            home: self.at,
            body,
            queued: false,
            running: false,
            cancel: false,
            over,
        });
        self.calls.len() - 1
    }

    pub(super) fn ready_call(&mut self, call: usize) {
        self.calls[call].queued = true;
        self.queue.push_back(Entry::Call(call));
        self.prod();
    }

    pub(super) fn cancel_any_call(&mut self, call: usize) -> bool {
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
}
