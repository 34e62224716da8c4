//! How the reference's tasks end: destructors, reports, callbacks, handles.

use std::collections::VecDeque;

use crate::language::{Who, World};

use super::groups::Custody;
use super::{ALL, Body, Calls, End, Entry, Item, Mode, Model, Place, Target, word};

impl Model<'_> {
    /// The future is dropped. `true`: its destructor panicked.
    pub(super) fn destructor(&mut self, task: usize) -> bool {
        self.at_home(task, |this| {
            let panicked = this.drop_frame(task, 0);
            this.disarm(Target::Task(task));
            panicked
        })
    }

    /// A frame is dropped, with those above. `true`: a destructor panicked.
    pub(super) fn drop_frame(&mut self, task: usize, frame: usize) -> bool {
        self.say(format!("drop {}", self.frame_name(task, frame)));
        if frame == 0 {
            self.tasks[task].gone = true;
        }
        let own = &self.tasks[task].frames[frame];
        let (script, mode) = (own.script, own.mode);
        let panicked = match mode {
            Mode::Awaiting(other) => {
                self.give_up(other);
                false
            }
            Mode::Ending(group) => {
                self.stop_waiting(group, task);
                false
            }
            Mode::Sleeping => {
                self.disarm(Target::Task(task));
                false
            }
            Mode::Scoped(group) => self.drop_scope(task, frame, group),
            Mode::Joining(group) => {
                self.let_go(group);
                false
            }
            Mode::Go | Mode::Yielded | Mode::Waiting | Mode::Listening => false,
        };
        let program = self.program;
        // A panic on the way leaves the rest out.
        let panicked =
            panicked || self.act_ops(Who::Destructor(task), &program.script(script).on_drop);
        self.tasks[task].frames.truncate(frame);
        panicked
    }

    /// `false`: it has ended.
    pub(super) fn ask_cancel(&mut self, task: usize) -> bool {
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

    pub(super) fn bury(&mut self, entry: Entry) {
        self.graveyard.push_back(entry);
        if std::mem::replace(&mut self.burying, true) {
            return;
        }
        self.bury_all();
    }

    pub(super) fn bury_all(&mut self) {
        while let Some(entry) = self.graveyard.pop_front() {
            match entry {
                Entry::Task(task) => self.destroy(task),
                Entry::Call(call) => {
                    let c = &mut self.calls[call];
                    if c.running || std::mem::replace(&mut c.over, true) {
                        continue;
                    }
                    if let Body::Look(group) = self.calls[call].body {
                        self.look(group);
                    }
                }
            }
        }
        self.burying = false;
    }

    /// Drops a task's future, unless it has ended or is running.
    pub(super) fn destroy(&mut self, task: usize) {
        if self.tasks[task].end.is_some() || self.tasks[task].running {
            return;
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

    pub(super) fn ended(&mut self, task: usize, end: End, also: bool) {
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
                let left = self.leave(task);
                self.publish(task);
                self.wake_left(left);
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
            End::Returned if !aside => {
                let left = self.leave(task);
                self.publish(task);
                self.wake_left(left);
            }
            End::Returned => self.items.push_back(Item::Ended(task, also)),
            End::Failed => {
                let woken = self.member_failed(task);
                self.items.push_back(Item::Ended(task, also));
                self.wake_left(woken);
            }
        }
    }

    pub(super) fn settle(&mut self) {
        if !self.items.is_empty() {
            self.settle_within(&mut { ALL });
        }
    }

    pub(super) fn settle_all(&mut self) {
        for _ in 0..1_000 {
            if self.items.is_empty() {
                break;
            }
            self.settle();
        }
    }

    pub(super) fn settle_within(&mut self, left: &mut usize) {
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
                Item::Kept(task) => self.tell_kept(task),
            }
        }
        self.settling = false;
    }

    pub(super) fn settle_reports(&mut self) {
        if std::mem::replace(&mut self.settling, true) {
            return;
        }
        while let Some(at) = self
            .items
            .iter()
            .position(|item| matches!(item, Item::Unread(_) | Item::Notice(..) | Item::Kept(_)))
        {
            match self.items.remove(at) {
                Some(Item::Unread(task)) => self.conclude(task, false),
                Some(Item::Notice(kind, task)) => self.dispatch(kind, task),
                Some(Item::Kept(task)) => self.tell_kept(task),
                _ => unreachable!("just found"),
            }
        }
        self.settling = false;
    }

    pub(super) fn finish(&mut self, task: usize, also: bool) -> Option<Calls> {
        let end = self.tasks[task].end.expect("it has ended");
        if end == End::Failed {
            let group = self.tasks[task].group;
            match group.map(|group| self.groups[group].custody()) {
                None | Some(Custody::Policy) => {
                    if let Some(kind) = self.kind_at_failure() {
                        self.report_task(task, kind);
                    }
                }
                Some(Custody::Tell) => {
                    let kind = self.kind_at_failure().unwrap_or("TaskFailed");
                    self.report_task_to(group, task, kind);
                }
                Some(Custody::Keep | Custody::Note) => {}
            }
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

    /// What an ordinary failure is reported as at once, if it is.
    pub(super) fn kind_at_failure(&self) -> Option<&'static str> {
        match (self.shutting, self.program.if_unretrieved) {
            (true, _) => Some("Shutdown"),
            (false, false) => Some("TaskFailed"),
            (false, true) => None,
        }
    }

    pub(super) fn run_calls(&mut self, mut calls: Calls, left: &mut usize) -> Option<Calls> {
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
            if self.at_home(task, |this| this.act_ops(Who::Callback(id), ops)) {
                self.tell("Callback", Some(task));
            }
        }
        if calls.pinned {
            self.conclude(calls.task, calls.also);
        }
        None
    }

    pub(super) fn conclude(&mut self, task: usize, also: bool) {
        self.pass_failure(task);
        let left = self.leave(task);
        let t = &self.tasks[task];
        let untold = t.end == Some(End::Failed) && !t.told && !t.read;
        if untold && !t.claimed {
            self.report_task(task, "NeverRetrieved");
        }
        if also {
            self.tell("Destructor", Some(task));
        }
        self.publish(task);
        self.wake_left(left);
    }

    fn wake_left(&mut self, left: Option<usize>) {
        if let Some(task) = left {
            self.wake_and_prod(task);
        }
    }

    pub(super) fn publish(&mut self, task: usize) {
        if self.tasks[task].late {
            if let Some(late) = self.late.iter_mut().find(|late| late.task == task) {
                late.pinned = true;
                return;
            }
            self.tasks[task].late = false;
        }
        self.tasks[task].pinned = false;
        if let Some(awaiter) = self.tasks[task].awaiter.take() {
            self.wake_and_prod(awaiter);
        }
    }

    pub(super) fn report_task(&mut self, task: usize, kind: &'static str) {
        self.report_task_to(None, task, kind);
    }

    /// To a group's own handler, if it has one.
    pub(super) fn report_task_to(&mut self, group: Option<usize>, task: usize, kind: &'static str) {
        self.tasks[task].told = true;
        self.counts.unread -= 1;
        self.counts.reported += 1;
        let handler = group.and_then(|group| Some((group, self.groups[group].handler?)));
        let what = self.what(kind, Some(task));
        match handler {
            Some((group, script)) => self.dispatch_to(group, script, what),
            None => self.dispatch_what(what),
        }
    }

    pub(super) fn mark_read(&mut self, task: usize) {
        let t = &mut self.tasks[task];
        if !t.told && !t.read {
            t.read = true;
            let counts = &mut self.executors[self.tasks[task].home].counts;
            counts.unread -= 1;
            counts.retrieved += 1;
        }
    }

    pub(super) fn tell(&mut self, kind: &'static str, task: Option<usize>) {
        self.items.push_back(Item::Notice(kind, task));
        if !self.driven {
            self.settle_reports();
        }
    }

    pub(super) fn dispatch(&mut self, kind: &'static str, task: Option<usize>) {
        let what = self.what(kind, task);
        self.dispatch_what(what);
    }

    fn what(&self, kind: &str, task: Option<usize>) -> String {
        match task {
            None => format!("{kind} -"),
            Some(task) if self.tasks[task].known => format!("{kind} {task}"),
            Some(_) => format!("{kind} ?"),
        }
    }

    fn dispatch_what(&mut self, what: String) {
        self.counts.reports += 1;
        match self.handler {
            Some(script) if self.depth < 8 => {
                self.say(format!("handler: {what}"));
                if self.act_handler(script) {
                    self.counts.reports += 1;
                    self.say(format!("default: Handler of {what}"));
                }
            }
            _ => self.say(format!("default: {what}")),
        }
    }

    /// To a group's own handler; if that panics, the executor's is told.
    fn dispatch_to(&mut self, group: usize, script: u8, what: String) {
        self.counts.reports += 1;
        if self.depth >= 8 {
            return self.say(format!("default: {what}"));
        }
        self.say(format!("handler of {group}: {what}"));
        if self.act_handler(script) {
            self.dispatch_what(format!("Handler of {what}"));
        }
    }

    fn act_handler(&mut self, script: u8) -> bool {
        self.depth += 1;
        let program = self.program;
        let panicked = self.act_ops(Who::Handler, &program.script(script).ops);
        self.depth -= 1;
        panicked
    }

    fn tell_kept(&mut self, task: Option<usize>) {
        match task {
            Some(task) if std::mem::take(&mut self.tasks[task].owed) => {
                self.counts.unread -= 1;
                self.counts.reported += 1;
                self.dispatch("NeverRetrieved", Some(task));
            }
            Some(_) => {}
            None => self.dispatch("Other", None),
        }
    }

    // --- handles ----------------------------------------------------------------------------------------------------

    /// How it ended, if its outcome can be taken.
    pub(super) fn takeable(&self, task: usize) -> Option<End> {
        let t = &self.tasks[task];
        if t.pinned { None } else { t.end }
    }

    /// How it ended, as its handle says.
    pub(super) fn word(&self, task: usize, end: End) -> &'static str {
        if self.tasks[task].kept {
            "in group"
        } else {
            word(end)
        }
    }

    pub(super) fn take(&mut self, task: usize) {
        if self.tasks[task].end == Some(End::Failed) {
            self.mark_read(task);
        }
        self.tasks[task].taken = true;
        self.tasks[task].claimed = false;
    }

    /// A handle is dropped.
    pub(super) fn give_up(&mut self, task: usize) {
        self.tasks[task].place = Place::Gone;
        self.tasks[task].awaiter = None;
        if !std::mem::take(&mut self.tasks[task].claimed) || self.takeable(task).is_none() {
            return;
        }
        let t = &self.tasks[task];
        if t.end == Some(End::Failed) && !t.told && !t.read {
            self.tasks[task].pinned = true;
            self.at_home(task, |this| {
                this.items.push_back(Item::Unread(task));
                this.settle_reports();
            });
        }
    }
}
