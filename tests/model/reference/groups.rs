//! The reference's groups: members, and how a supervisor ends.

use std::collections::VecDeque;

use super::scopes::Scope;
use super::sets::Set;
use super::{ALL, Body, End, Entry, Model, Target};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    /// All were asked to end, and those that come are.
    Ending,
    /// The same, and nobody can come any more.
    Refusing,
    Closed,
    /// Of a task group: a member or the body has failed, it was cancelled, its scope is over.
    Failed,
    Cancelled,
    Over,
}

/// What becomes of a member's failure.
pub(super) enum Custody {
    Policy,
    /// It is told at once.
    Tell,
    /// The group has it.
    Keep,
    /// It stays with the handle, which the group has.
    Note,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Supervisor,
    Scope,
    Set,
}

/// How the members ended since the group is ending.
#[derive(Clone, Copy, Default)]
struct Ends {
    finished: usize,
    failed: usize,
    cancelled: usize,
    dropped: usize,
}

pub(super) struct Group {
    /// Its executor.
    pub(super) home: usize,
    /// Those that are live or still being told of, in spawn order.
    pub(super) members: Vec<usize>,
    limit: usize,
    pub(super) phase: Phase,
    /// What a task group or a set has besides; a supervisor has what follows.
    pub(super) scope: Option<Scope>,
    pub(super) set: Option<Set>,
    pub(super) handler: Option<u8>,
    /// It is where everybody finds it.
    pub(super) at_hand: bool,
    /// How many can still spawn into it: the one at hand, those who use it now, those who wait for its end.
    owners: usize,
    /// How many members ask whether they are to end.
    pub(super) asking: usize,
    looking: bool,
    deadline: Option<u64>,
    alarm: Option<usize>,
    /// How many rounds of newcomers there have been; who is of this one, and how many of these are left.
    rounds: usize,
    newest: Option<usize>,
    left: usize,
    newcomers: bool,
    ends: Ends,
    waiters: Vec<usize>,
}

impl Group {
    /// A supervisor, or the group of a scope that a task is in.
    pub(super) fn new(home: usize, host: Option<usize>) -> Self {
        Group {
            home,
            members: Vec::new(),
            limit: ALL,
            phase: Phase::Open,
            scope: host.map(|host| Scope::new(Some(host))),
            set: None,
            handler: None,
            at_hand: true,
            owners: 1,
            asking: 0,
            looking: false,
            deadline: None,
            alarm: None,
            rounds: 0,
            newest: None,
            left: 0,
            newcomers: false,
            ends: Ends::default(),
            waiters: Vec::new(),
        }
    }

    pub(super) fn set(home: usize) -> Self {
        Group {
            scope: Some(Scope::new(None)),
            set: Some(Set::default()),
            ..Group::new(home, None)
        }
    }

    pub(super) fn kind(&self) -> Kind {
        match (&self.scope, &self.set) {
            (_, Some(_)) => Kind::Set,
            (Some(_), None) => Kind::Scope,
            (None, None) => Kind::Supervisor,
        }
    }

    pub(super) fn size(&self) -> (usize, bool) {
        if let Some(set) = &self.set {
            return (set.len(), set.len() == 0);
        }
        (self.members.len(), self.refuses())
    }

    pub(super) fn refuses(&self) -> bool {
        !matches!(self.phase, Phase::Open | Phase::Ending)
    }

    pub(super) fn custody(&self) -> Custody {
        match (self.kind(), self.phase) {
            (Kind::Supervisor, _) => Custody::Tell,
            (_, Phase::Over) => Custody::Policy,
            (Kind::Scope, _) => Custody::Keep,
            (Kind::Set, _) => Custody::Note,
        }
    }

    /// Whether a task of that executor is in the scope and counts as one that asks, for the members' sake.
    pub(super) fn host_asks(&self, executor: usize) -> bool {
        self.home == executor && self.scope.as_ref().is_some_and(|scope| scope.host_asks)
    }
}

impl Model<'_> {
    /// Somebody uses it.
    pub(super) fn hold(&mut self, group: usize) {
        self.groups[group].owners += 1;
    }

    /// One less has it; the last aborts it.
    pub(super) fn let_go(&mut self, group: usize) {
        self.groups[group].owners -= 1;
        if self.groups[group].owners > 0 {
            return;
        }
        self.on(self.groups[group].home, |this| {
            match this.groups[group].kind() {
                Kind::Supervisor => this.abort_group(group),
                Kind::Set => this.drop_set(group),
                Kind::Scope => {}
            }
        });
    }

    /// Drops a future that the group does not take. What its destructor spawns likewise goes after it.
    pub(super) fn turn_away(&mut self, task: usize) {
        if let Some(waiting) = &mut self.turned_away {
            return waiting.push_back(task);
        }
        self.turned_away = Some(VecDeque::from([task]));
        while let Some(task) = self.turned_away.as_mut().and_then(VecDeque::pop_front) {
            if self.destructor(task) {
                self.tell("Destructor", None);
            }
        }
        self.turned_away = None;
    }

    pub(super) fn admit(&mut self, group: usize, task: usize) {
        let running = self.running(group) + 1;
        let g = &mut self.groups[group];
        g.members.push(task);
        g.newcomers |= g.phase != Phase::Open;
        let held = running > g.limit;
        let asked = g.phase != Phase::Open || g.scope.as_ref().is_some_and(|scope| scope.requested);
        self.tasks[task].held = held;
        self.tasks[task].requested |= asked;
    }

    fn running(&self, group: usize) -> usize {
        let members = &self.groups[group].members;
        members.iter().filter(|n| !self.tasks[**n].held).count()
    }

    pub(super) fn set_limit(&mut self, group: usize, limit: usize) {
        self.groups[group].limit = limit;
        self.release(group);
    }

    /// As many run as may.
    pub(super) fn release(&mut self, group: usize) {
        while self.running(group) < self.groups[group].limit {
            let members = &self.groups[group].members;
            let Some(next) = members.iter().copied().find(|n| self.tasks[*n].held) else {
                break;
            };
            self.tasks[next].held = false;
            self.wake_task(next);
        }
    }

    /// A member has ended, and its callbacks have run unless it was cancelled. Gives whom to wake when its outcome can be
    /// taken.
    pub(super) fn leave(&mut self, task: usize) -> Option<usize> {
        let group = self.tasks[task].group.take()?;
        if std::mem::take(&mut self.tasks[task].asking) > 0 {
            self.count_asking(group, false);
        }
        self.groups[group].members.retain(|member| *member != task);
        match self.groups[group].kind() {
            Kind::Supervisor => {}
            Kind::Scope => return self.left_scope(group),
            Kind::Set => return self.left_set(group, task),
        }
        self.release(group);
        self.left_supervisor(group, task);
        None
    }

    fn left_supervisor(&mut self, group: usize, task: usize) {
        let end = self.tasks[task].end;
        let g = &mut self.groups[group];
        match (end, g.phase) {
            (_, Phase::Open) => return,
            (Some(End::Returned), _) => g.ends.finished += 1,
            (Some(End::Failed), _) => g.ends.failed += 1,
            (_, Phase::Closed) => g.ends.dropped += 1,
            (_, _) => g.ends.cancelled += 1,
        }
        if Some(task) <= g.newest {
            g.left -= 1;
            if g.left == 0 {
                self.begin_round(group, self.groups[group].rounds + 1);
            }
        }
        if self.groups[group].members.is_empty() {
            self.look_soon(group);
        }
    }

    fn begin_round(&mut self, group: usize, round: usize) {
        let g = &mut self.groups[group];
        g.rounds = round;
        g.newest = g.members.last().copied();
        g.left = g.members.len();
        if round == 100 && g.phase == Phase::Ending {
            g.phase = Phase::Refusing;
        }
    }

    /// A task wants to know whether it is to end.
    pub(super) fn note_asks(&mut self, task: usize) {
        if !std::mem::replace(&mut self.tasks[task].asks, true) {
            self.count_asker(task, true);
        }
    }

    /// One more asks on behalf of a task, or (`false`) one less: the task itself, or a group whose scope it is in.
    pub(super) fn count_asker(&mut self, task: usize, asks: bool) {
        let Some(group) = self.tasks[task].group else {
            return;
        };
        let asking = &mut self.tasks[task].asking;
        let changed = match asks {
            true => *asking == 0,
            false => *asking == 1,
        };
        *asking = if asks {
            *asking + 1
        } else {
            asking.saturating_sub(1)
        };
        if changed {
            self.count_asking(group, asks);
        }
    }

    /// One more member asks, or (`false`) one less.
    fn count_asking(&mut self, group: usize, asks: bool) {
        let asking = &mut self.groups[group].asking;
        if asks {
            *asking += 1;
            return self.host_begins_to_ask(group);
        }
        *asking -= 1;
        if *asking > 0 {
            return;
        }
        match self.groups[group].scope {
            Some(_) if self.groups[group].host_asks(self.at) => self.wake_scope(group),
            Some(_) => {}
            None if self.groups[group].phase != Phase::Open => self.look_soon(group),
            None => {}
        }
    }

    /// Asks a task to end by itself.
    pub(super) fn request(&mut self, task: usize) {
        let t = &mut self.tasks[task];
        if t.end.is_some() || std::mem::replace(&mut t.requested, true) {
            return;
        }
        let listeners = std::mem::take(&mut t.listeners);
        if t.listens {
            self.wake_and_prod(task);
        }
        for (_, listener) in listeners {
            self.wake_and_prod(listener);
        }
    }

    // --- its end ----------------------------------------------------------------------------------------------------

    /// A task begins to wait for the group's end, which it brings about.
    pub(super) fn begin_end(&mut self, group: usize, caller: usize, grace: u8) {
        self.on(self.groups[group].home, |this| {
            this.begin_end_here(group, caller, grace);
        });
    }

    fn begin_end_here(&mut self, group: usize, caller: usize, grace: u8) {
        if self.tasks[caller].group == Some(group)
            && std::mem::take(&mut self.tasks[caller].asking) > 0
        {
            // Whoever waits for the end does not keep it from coming.
            self.count_asking(group, false);
        }
        match self.groups[group].phase {
            Phase::Closed => return,
            Phase::Open => {
                self.groups[group].phase = Phase::Ending;
                self.begin_round(group, 0);
                for member in self.groups[group].members.clone() {
                    self.request(member);
                }
                self.look_soon(group);
            }
            _ => {}
        }
        let deadline = self.now + u64::from(grace);
        if self.groups[group].deadline.is_none_or(|at| deadline < at) {
            self.groups[group].deadline = Some(deadline);
            self.stop_alarm(group);
            self.groups[group].alarm = self.call_look(group, Some(deadline));
        }
    }

    /// How the members ended, when all have and no more can come; until then the task waits.
    pub(super) fn poll_end(&mut self, group: usize, task: usize) -> Option<String> {
        let g = &mut self.groups[group];
        if g.phase == Phase::Open || !g.members.is_empty() {
            if !g.waiters.contains(&task) {
                g.waiters.push(task);
            }
            return None;
        }
        let ends = g.ends;
        self.stop_waiting(group, task);
        Some(format!(
            "finished {} failed {} cancelled {} dropped {}",
            ends.finished, ends.failed, ends.cancelled, ends.dropped
        ))
    }

    pub(super) fn stop_waiting(&mut self, group: usize, task: usize) {
        self.groups[group].waiters.retain(|waiter| *waiter != task);
        self.let_go(group);
    }

    pub(super) fn abort_group(&mut self, group: usize) {
        let before = std::mem::replace(&mut self.groups[group].phase, Phase::Closed);
        if before == Phase::Closed && self.groups[group].members.is_empty() {
            return;
        }
        self.stop_alarm(group);
        self.bury_members(group);
        if self.groups[group].members.is_empty() {
            self.gone(group);
        }
    }

    /// All members go now, but for those that are running.
    pub(super) fn bury_members(&mut self, group: usize) {
        let members = self.groups[group].members.clone();
        if members.is_empty() {
            return;
        }
        for member in &members {
            self.tasks[*member].cancel = true;
        }
        let between = !self.driven;
        if between {
            self.current.push(self.at);
        }
        let outermost = self.driven && !std::mem::replace(&mut self.burying, true);
        for member in members {
            self.destroy(member);
        }
        if outermost {
            self.bury_all();
        }
        if self.closed && !self.driven {
            self.settle_all();
        }
        if between {
            self.current.pop();
        }
        self.prod();
    }

    fn gone(&mut self, group: usize) {
        for waiter in std::mem::take(&mut self.groups[group].waiters) {
            self.wake_and_prod(waiter);
        }
        self.groups[group].handler = None;
    }

    fn stop_alarm(&mut self, group: usize) {
        if let Some(alarm) = self.groups[group].alarm.take() {
            self.cancel_any_call(alarm);
        }
    }

    /// A callback of the loop looks how far the end is, when those that are ready now have had their turn.
    fn look_soon(&mut self, group: usize) {
        if !std::mem::replace(&mut self.groups[group].looking, true) {
            self.call_look(group, None);
        }
    }

    fn call_look(&mut self, group: usize, at: Option<u64>) -> Option<usize> {
        if self.closed && !self.driven {
            self.look(group);
            return None;
        }
        let call = self.make_call(Body::Look(group));
        if self.closed {
            self.bury(Entry::Call(call));
            return None;
        }
        match at {
            Some(at) => self.arm_at(at, Target::Call(call)),
            None => self.ready_call(call),
        }
        Some(call)
    }

    /// Called by that callback, or when it is dropped.
    pub(super) fn look(&mut self, group: usize) {
        let now = self.now;
        let g = &mut self.groups[group];
        g.looking = false;
        let over = g.members.is_empty();
        match g.phase {
            Phase::Open => return,
            Phase::Closed => {}
            Phase::Ending | Phase::Refusing if over => {
                g.phase = Phase::Closed;
                self.stop_alarm(group);
            }
            Phase::Ending | Phase::Refusing if g.deadline.is_some_and(|at| at <= now) => {
                return self.abort_group(group);
            }
            Phase::Ending | Phase::Refusing if g.asking > 0 => return,
            Phase::Ending if std::mem::take(&mut g.newcomers) => {
                self.begin_round(group, self.groups[group].rounds + 1);
                return self.look_soon(group);
            }
            Phase::Ending | Phase::Refusing => return self.abort_group(group),
            Phase::Failed | Phase::Cancelled | Phase::Over => unreachable!("it is no scope's"),
        }
        if self.groups[group].members.is_empty() {
            self.gone(group);
        }
    }
}
