//! Hooks: those whom the user wants to be told of every task, as it goes its way.
//!
//! A hook is not called while it is on the stack, so that one that spawns does not call itself without end. One that
//! panics is told of and removed. All are `'static`, so that they can be called at any time on the home thread.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;

use crate::completion::Completion;
use crate::exception_context::ContextKind;
use crate::task::TaskInfo;
use crate::unwind::{catch, catch_drop};

use super::Scheduler;

/// Told of a task.
pub(crate) type TaskHook = dyn Fn(&TaskInfo);
/// Told how a task ended.
pub(crate) type DoneHook = dyn Fn(&Completion<'_>);

/// All hooks of an executor.
#[derive(Debug)]
pub(crate) struct Hooks {
    pub(crate) spawn: List<TaskHook>,
    pub(crate) done: List<DoneHook>,
    pub(crate) before: List<TaskHook>,
    pub(crate) after: List<TaskHook>,
}

/// The hooks of one kind, in the order of adding.
pub(crate) struct List<F: ?Sized> {
    kind: &'static str,
    hooks: Vec<Hook<F>>,
}

struct Hook<F: ?Sized> {
    /// `None`: it has panicked, or the executor has closed.
    call: RefCell<Option<Rc<F>>>,
    /// It is on the stack.
    running: Cell<bool>,
}

impl<F: ?Sized> List<F> {
    fn new(kind: &'static str) -> Self {
        List {
            kind,
            hooks: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, call: Rc<F>) {
        self.hooks.push(Hook {
            call: RefCell::new(Some(call)),
            running: Cell::new(false),
        });
    }

    /// Whether none was ever added.
    pub(super) fn is_empty(&self) -> bool {
        self.hooks.is_empty()
    }

    /// Takes all of them out.
    fn take(&self) -> impl Iterator<Item = Rc<F>> {
        self.hooks.iter().filter_map(|hook| hook.call.take())
    }
}

impl Default for Hooks {
    fn default() -> Self {
        Hooks {
            spawn: List::new("on_task_spawn"),
            done: List::new("on_task_done"),
            before: List::new("before_poll"),
            after: List::new("after_poll"),
        }
    }
}

impl Hooks {
    /// Whether one is to be told of a task's spawn or end.
    pub(super) fn watch_tasks(&self) -> bool {
        !(self.spawn.is_empty() && self.done.is_empty())
    }

    /// Whether one is to be told of polls.
    pub(super) fn watch_polls(&self) -> bool {
        !(self.before.is_empty() && self.after.is_empty())
    }
}

impl Scheduler {
    pub(super) fn tell_spawned(&self, task: &TaskInfo) {
        self.call_each(&self.hooks.spawn, task, |hook| hook(task));
    }

    pub(super) fn tell_done(&self, completion: &Completion<'_>) {
        self.call_each(&self.hooks.done, completion.task(), |hook| hook(completion));
    }

    pub(super) fn tell_before(&self, task: &TaskInfo) {
        self.call_each(&self.hooks.before, task, |hook| hook(task));
    }

    pub(super) fn tell_after(&self, task: &TaskInfo) {
        self.call_each(&self.hooks.after, task, |hook| hook(task));
    }

    fn call_each<F: ?Sized>(&self, list: &List<F>, task: &TaskInfo, call: impl Fn(&F)) {
        for hook in &list.hooks {
            if hook.running.get() {
                continue;
            }
            let Some(held) = hook.call.borrow().clone() else {
                continue;
            };
            hook.running.set(true);
            let began = self.begin();
            // User code: a hook.
            let called = catch(|| call(&held));
            hook.running.set(false);
            self.end(began, || format!("a hook, {}", list.kind));
            let mut removed = None;
            if let Err(panic) = called {
                removed = hook.call.take();
                self.tell(
                    ContextKind::Callback,
                    format!("Panic in a hook, {}, which is removed", list.kind),
                    Some(panic),
                    Some(task.clone()),
                );
            }
            // If it was removed, or the executor closed meanwhile, these are the last.
            // User code: Drop of the hook's captures.
            if let Err(panic) = catch_drop((held, removed)) {
                self.tell_destructor(panic, None);
            }
        }
    }

    /// Drops all hooks: nothing happens any more that they could be told of, and what they hold may hold this executor.
    /// `false`: there are none.
    pub(super) fn drop_hooks(&self) -> bool {
        let Hooks {
            spawn,
            done,
            before,
            after,
        } = &self.hooks;
        let mut any = false;
        for hook in spawn.take().chain(before.take()).chain(after.take()) {
            any = true;
            self.drop_hook(hook);
        }
        for hook in done.take() {
            any = true;
            self.drop_hook(hook);
        }
        any
    }

    fn drop_hook<F: ?Sized>(&self, hook: Rc<F>) {
        // User code: Drop of the hook's captures.
        if let Err(panic) = catch_drop(hook) {
            self.tell_destructor(panic, None);
        }
    }
}

impl<F: ?Sized> fmt::Debug for List<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("List")
            .field("kind", &self.kind)
            .field("hooks", &self.hooks.len())
            .finish()
    }
}
