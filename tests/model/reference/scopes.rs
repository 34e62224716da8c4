//! The reference's task groups: the scope that a task is in, its body, its members' failures.

use crate::language::{Flow, World};

use super::groups::{Custody, Kind, Phase};
use super::{End, Item, Mode, Model};

/// What a task group has besides its members.
pub(super) struct Scope {
    /// The task that is in it, or that polled the set first.
    pub(super) host: Option<usize>,
    /// The host was asked to end, and so are all members.
    pub(super) requested: bool,
    pub(super) host_asks: bool,
    /// Who is to be woken.
    pub(super) awaiter: Option<usize>,
    /// For the members alone.
    waits_for_members: bool,
    /// The body has returned, and well.
    value: bool,
    /// The body has failed.
    error: bool,
    failures: Vec<usize>,
    /// The end was carried out.
    aborted: bool,
    /// It was cancelled before the body returned.
    cancelled: bool,
}

/// What came of polling a scope.
pub(super) enum Scoped {
    Waits,
    Over,
    Panicked,
}

impl Scope {
    pub(super) fn new(host: Option<usize>) -> Self {
        Scope {
            host,
            requested: false,
            host_asks: false,
            awaiter: None,
            waits_for_members: false,
            value: false,
            error: false,
            failures: Vec::new(),
            aborted: false,
            cancelled: false,
        }
    }
}

impl Model<'_> {
    pub(super) fn scope(&mut self, group: usize) -> &mut Scope {
        let scope = self.groups[group].scope.as_mut();
        scope.expect("it is no supervisor")
    }

    fn has_body(&self, task: usize, frame: usize) -> bool {
        self.tasks[task].frames.len() > frame + 1
    }

    /// Polls the scope that a frame of a task is in.
    pub(super) fn poll_scope(&mut self, task: usize, frame: usize, group: usize) -> Scoped {
        self.scope(group).awaiter = Some(task);
        if !self.scope(group).requested {
            if self.tasks[task].requested {
                self.scope(group).requested = true;
                for member in self.groups[group].members.clone() {
                    self.request(member);
                }
            } else {
                self.tasks[task].listens = true;
            }
        }
        self.abort_if_due(task, frame, group);
        if self.has_body(task, frame) {
            match self.go(task, frame + 1) {
                None => {}
                Some(Flow::Panic) => return self.unwind(task, frame, group),
                Some(flow) => {
                    let panicked = self.drop_frame(task, frame + 1);
                    self.scope(group).waits_for_members = true;
                    if flow == Flow::Fail {
                        self.scope(group).error = true;
                        self.groups[group].phase = Phase::Failed;
                    } else {
                        self.scope(group).value = true;
                    }
                    if panicked && flow == Flow::Fail {
                        self.tell("Destructor", None);
                    } else if panicked {
                        return self.unwind(task, frame, group);
                    }
                }
            }
        }
        self.abort_if_due(task, frame, group);
        if self.has_body(task, frame) || !self.groups[group].members.is_empty() {
            self.settle_asking(group);
            return Scoped::Waits;
        }
        let told = self.finish_scope(group);
        self.say(format!("{task} left {group}: {told}"));
        Scoped::Over
    }

    /// After the first failure, or a cancel: members and body go, once.
    fn abort_if_due(&mut self, task: usize, frame: usize, group: usize) {
        let phase = self.groups[group].phase;
        if phase == Phase::Open || std::mem::replace(&mut self.scope(group).aborted, true) {
            return;
        }
        self.bury_members(group);
        if self.has_body(task, frame) {
            self.scope(group).cancelled = phase == Phase::Cancelled;
            self.scope(group).waits_for_members = true;
            self.scope(group).error |= self.drop_frame(task, frame + 1);
        }
    }

    /// The body has panicked: the host will, by that.
    fn unwind(&mut self, task: usize, frame: usize, group: usize) -> Scoped {
        self.abandon(group);
        if self.has_body(task, frame) && self.drop_frame(task, frame + 1) {
            self.tell("Destructor", None);
        }
        self.tasks[task].frames[frame].mode = Mode::Go;
        Scoped::Panicked
    }

    /// All is over; the host is told what came of it.
    fn finish_scope(&mut self, group: usize) -> String {
        self.groups[group].phase = Phase::Over;
        self.scope(group).awaiter = None;
        self.leave_host(group);
        let failures = std::mem::take(&mut self.scope(group).failures);
        let mut told: Vec<String> = failures.iter().map(usize::to_string).collect();
        if self.scope(group).error {
            told.push("body".to_owned());
        }
        if self.scope(group).value && told.is_empty() {
            return "ok".to_owned();
        }
        for task in failures {
            if std::mem::take(&mut self.tasks[task].owed) {
                self.counts.unread -= 1;
                self.counts.retrieved += 1;
            }
        }
        format!("{told:?} cancelled {}", self.scope(group).cancelled)
    }

    /// The scope is left before its end: nobody will have the failures.
    fn abandon(&mut self, group: usize) {
        if std::mem::replace(&mut self.groups[group].phase, Phase::Over) == Phase::Over {
            return;
        }
        self.scope(group).awaiter = None;
        self.bury_members(group);
        self.leave_host(group);
        for task in std::mem::take(&mut self.scope(group).failures) {
            self.not_handed_on(Some(task));
        }
    }

    fn not_handed_on(&mut self, task: Option<usize>) {
        self.items.push_back(Item::Kept(task));
        if !self.driven {
            self.settle_reports();
        }
    }

    /// The frame that is in the scope is dropped. `true`: the body's destructor panicked.
    pub(super) fn drop_scope(&mut self, task: usize, frame: usize, group: usize) -> bool {
        self.abandon(group);
        if std::mem::take(&mut self.scope(group).error) {
            self.not_handed_on(None);
        }
        self.has_body(task, frame) && self.drop_frame(task, frame + 1)
    }

    pub(super) fn cancel_scope(&mut self, group: usize) -> bool {
        match self.groups[group].phase {
            Phase::Over => return false,
            Phase::Open => self.groups[group].phase = Phase::Cancelled,
            _ => {}
        }
        self.bury_members(group);
        self.wake_scope(group);
        true
    }

    pub(super) fn wake_scope(&mut self, group: usize) {
        if let Some(awaiter) = self.scope(group).awaiter.take() {
            self.wake_and_prod(awaiter);
        }
    }

    // --- members ----------------------------------------------------------------------------------------------------

    /// Gives whom to wake.
    pub(super) fn member_failed(&mut self, task: usize) -> Option<usize> {
        let group = self.tasks[task].group?;
        if self.groups[group].kind() != Kind::Scope {
            return None;
        }
        if self.groups[group].phase == Phase::Open {
            self.groups[group].phase = Phase::Failed;
        }
        self.scope(group).awaiter.take()
    }

    /// A failure that nobody was told of goes to the group; if its scope is over, it is one like any other.
    pub(super) fn pass_failure(&mut self, task: usize) {
        let t = &self.tasks[task];
        let Some(group) = t.group.filter(|_| t.end == Some(End::Failed) && !t.told) else {
            return;
        };
        match self.groups[group].custody() {
            Custody::Tell | Custody::Note => {}
            Custody::Policy => {
                if let (Some(kind), false) = (self.kind_at_failure(), self.tasks[task].read) {
                    self.report_task(task, kind);
                }
            }
            Custody::Keep => {
                let t = &mut self.tasks[task];
                t.kept = true;
                t.owed = !std::mem::replace(&mut t.read, true);
                self.scope(group).failures.push(task);
            }
        }
    }

    pub(super) fn left_scope(&mut self, group: usize) -> Option<usize> {
        if self.groups[group].phase == Phase::Open {
            self.release(group);
        }
        let over = self.groups[group].members.is_empty();
        let scope = self.scope(group);
        scope.awaiter.take_if(|_| scope.waits_for_members && over)
    }

    // --- asking -----------------------------------------------------------------------------------------------------

    pub(super) fn host_begins_to_ask(&mut self, group: usize) {
        let Some(scope) = &mut self.groups[group].scope else {
            return;
        };
        let Some(host) = scope.host else { return };
        if !std::mem::replace(&mut scope.host_asks, true) {
            self.count_asker(host, true);
        }
    }

    /// The scope was polled: if no member asks any more, neither does the host.
    pub(super) fn settle_asking(&mut self, group: usize) {
        if self.groups[group].asking == 0 {
            self.stop_asking(group);
        }
    }

    /// It is over: no task answers for the members any more.
    pub(super) fn leave_host(&mut self, group: usize) {
        self.stop_asking(group);
        self.scope(group).host = None;
    }

    fn stop_asking(&mut self, group: usize) {
        let asks = std::mem::take(&mut self.scope(group).host_asks);
        if let (Some(host), true) = (self.scope(group).host, asks) {
            self.count_asker(host, false);
        }
    }
}
