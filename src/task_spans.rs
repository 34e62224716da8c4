//! A `tracing` span for every task (feature `tracing`): hooks of our own, so that a subscriber is user code like any hook's.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use tracing::subscriber::NoSubscriber;
use tracing::{Level, Span, dispatcher, event, span};

use crate::completion::{Completion, Outcome};
use crate::scheduler::hooks::Hooks;
use crate::task::{TaskId, TaskInfo};
use crate::unwind::guarded;

/// The spans of the tasks that have not ended. Never borrowed while the subscriber is called.
#[derive(Default)]
struct Spans(RefCell<HashMap<TaskId, Span>>);

impl Spans {
    /// The task's span. Made when it is first asked for: a task that a hook spawned is not told to that hook.
    fn of(&self, task: &TaskInfo) -> Span {
        let known = self.0.borrow().get(&task.id()).cloned();
        known.unwrap_or_else(|| {
            // User code: the subscriber.
            let span = span!(
                target: "mainstay",
                Level::INFO,
                "task",
                id = task.id().get(),
                name = task.name(),
                location = %task.location(),
            );
            let old = self.0.borrow_mut().insert(task.id(), span.clone());
            drop(old);
            span
        })
    }

    fn take(&self, task: &TaskInfo) -> Option<Span> {
        self.0.borrow_mut().remove(&task.id())
    }
}

/// Adds the hooks, if anybody subscribes by now.
pub(crate) fn add(hooks: &mut Hooks) {
    if dispatcher::get_default(|subscriber| subscriber.is::<NoSubscriber>()) {
        return;
    }
    let spans = Rc::new(Spans::default());
    let all = Rc::clone(&spans);
    hooks.spawn.add(Rc::new(move |task| drop(all.of(task))));
    let all = Rc::clone(&spans);
    hooks.before.add(Rc::new(move |task| {
        // User code: the subscriber.
        all.of(task)
            .with_subscriber(|(id, subscriber)| subscriber.enter(id));
    }));
    let all = Rc::clone(&spans);
    hooks.after.add(Rc::new(move |task| {
        let span = all.0.borrow().get(&task.id()).cloned();
        if let Some(span) = span {
            // User code: the subscriber.
            span.with_subscriber(|(id, subscriber)| subscriber.exit(id));
        }
    }));
    hooks
        .done
        .add(Rc::new(move |completion| ended(&spans, completion)));
}

fn ended(spans: &Spans, completion: &Completion<'_>) {
    let span = spans.take(completion.task()).unwrap_or_else(Span::none);
    // User code: the subscriber.
    match completion.peek() {
        Outcome::Failed(exception) => {
            let message = guarded(|| exception.message().into_owned());
            let panicked = exception.is_panic();
            event!(target: "mainstay", parent: &span, Level::ERROR, panicked, "task failed: {message}");
        }
        Outcome::Cancelled => {
            event!(target: "mainstay", parent: &span, Level::DEBUG, "task cancelled");
        }
        Outcome::Returned => {
            event!(target: "mainstay", parent: &span, Level::TRACE, "task returned");
        }
    }
}
