//! A root for the executors that only run tasks.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

struct Woken(AtomicBool);

impl Woken {
    /// Whether there was a wake since the last call.
    fn take(&self) -> bool {
        self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::Acquire)
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

/// Gives `drive` a closure that polls `root` whenever it has been woken, and says when it is ready; `drive` is to call
/// it between its steps until then.
///
/// A wake from another thread is seen at the next call only.
pub(crate) fn poll_between<F: Future>(
    root: F,
    drive: impl FnOnce(&mut dyn FnMut() -> bool),
) -> F::Output {
    let mut root = pin!(root);
    let woken = Arc::new(Woken(AtomicBool::new(true)));
    let waker = Waker::from(Arc::clone(&woken));
    let mut cx = Context::from_waker(&waker);
    let mut output = None;
    drive(&mut || {
        while output.is_none() && woken.take() {
            if let Poll::Ready(value) = root.as_mut().poll(&mut cx) {
                output = Some(value);
            }
        }
        output.is_some()
    });
    output.expect("the executor is driven until the root is ready")
}
