//! Messages: what other threads have left for this executor to run.

use std::any::Any;
use std::rc::Rc;

use crate::exception_context::ContextKind;
use crate::remote::inbox::Inbox;
use crate::unwind::catch;

use super::Scheduler;

/// How many messages a pass runs at most. Each may spawn, and what it spawns runs in the same pass: so a million of them
/// are never tasks all at once.
const PER_PASS: usize = 256;

/// Something that another thread has left. It is run, or ended, on the executor's thread.
pub(crate) trait Message: Send {
    fn run(self: Box<Self>, scheduler: &Rc<Scheduler>);

    /// The executor ends before its turn came.
    fn end(self: Box<Self>, scheduler: &Rc<Scheduler>);

    /// Back to what it was, for a sender who came too late.
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
}

/// Shared by an executor, its spawners and their handles.
pub(crate) type Messages = Inbox<Box<dyn Message>>;

impl Scheduler {
    /// Runs what other threads have sent until now, at most `left` messages.
    pub(super) fn run_messages(&self, left: &mut usize) {
        for _ in 0..self.inbox.len().min(*left).min(PER_PASS) {
            let (Some(message), Some(this)) = (self.inbox.take(), self.weak().upgrade()) else {
                break;
            };
            *left -= 1;
            let began = self.begin();
            // User code: a closure from another thread.
            let run = catch(|| message.run(&this));
            self.end(began, || "what another thread has sent".to_owned());
            if let Err(panic) = run {
                self.tell(
                    ContextKind::Callback,
                    "Panic in a callback from another thread",
                    Some(panic),
                    None,
                );
            }
        }
        self.look_for_messages();
    }

    /// Notes whether there is anything for the next pass to run.
    pub(super) fn look_for_messages(&self) {
        let any = self.inbox.len() > 0;
        self.has_messages.set(any);
        if any {
            // They are run when a pass begins.
            self.arena.ask_attention();
        }
    }

    /// Takes no more messages, and ends those that are there.
    pub(super) fn end_messages(&self) {
        self.inbox.close();
        while let (Some(message), Some(this)) = (self.inbox.take(), self.weak().upgrade()) {
            // User code: Drop of a closure's captures.
            if let Err(panic) = catch(|| message.end(&this)) {
                self.tell_destructor(panic, None);
            }
        }
    }
}
