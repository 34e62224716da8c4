//! Futures of every size and alignment whose polls and destructors do anything.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use mainstay::{cancel_requested, sleep, yield_now};

use crate::acts::act;
use crate::canary::Wild;
use crate::choices::{below, maybe_panic, once_in};
use crate::handles::BoxHandle;
use crate::wakers::with_foreign;
use crate::world::{self, Loose};

/// For what a body is aligned to, and for its size.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Line;

/// Ends after some polls, unless nobody wakes it.
pub(crate) struct Body<P, O> {
    wild: Wild,
    steps: usize,
    at: usize,
    handles: Vec<BoxHandle>,
    loose: Vec<Loose>,
    output: fn() -> O,
    _padding: P,
}

impl<P, O> Body<P, O> {
    pub(crate) fn new(output: fn() -> O, padding: P) -> Self {
        Body {
            wild: Wild::new(),
            steps: below(4),
            at: 0,
            handles: Vec::new(),
            loose: Vec::new(),
            output,
            _padding: padding,
        }
    }

    /// Takes in what others wait for, and waits for it too: with its own waker or with a foreign one.
    fn poll_others(&mut self, cx: &mut Context<'_>) {
        if once_in(3) {
            self.handles.extend(world::take(|world| &mut world.handles));
        }
        if once_in(5) {
            self.loose.extend(world::take(|world| &mut world.loose));
        }
        if once_in(8) {
            self.loose.push(Loose(Box::pin(cancel_requested())));
        }
        if once_in(8) {
            let time = Duration::from_millis(below(4) as u64);
            self.loose.push(Loose(Box::pin(sleep(time))));
        }
        self.handles.retain_mut(|handle| {
            !if once_in(3) {
                with_foreign(|cx| handle.poll(cx))
            } else {
                handle.poll(cx)
            }
        });
        self.loose.retain_mut(|future| {
            !if once_in(3) {
                with_foreign(|cx| future.poll(cx))
            } else {
                future.poll(cx)
            }
        });
    }
}

impl<P: Unpin, O> Future for Body<P, O> {
    type Output = O;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<O> {
        let here = std::ptr::from_ref(&*self).addr();
        if self.at != 0 && self.at != here {
            eprintln!("a future was moved");
            std::process::abort();
        }
        self.at = here;
        self.wild.run();
        if once_in(3) {
            let waker = cx.waker().clone();
            world::with(|world| world.wakers.push(waker));
        }
        self.poll_others(cx);
        self.wild.run();
        if self.steps == 0 {
            return Poll::Ready((self.output)());
        }
        self.steps -= 1;
        if !once_in(2) {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

/// What `block_on` and `run_until` are given. It never waits for anybody, so that `block_on` returns.
pub(crate) async fn root() {
    let wild = Wild::new();
    for _ in 0..below(3) {
        act();
        yield_now().await;
        maybe_panic();
    }
    drop(wild);
}

/// Keeps a value across its waits.
pub(crate) async fn guarded() {
    let wild = Wild::new();
    yield_now().await;
    wild.run();
    yield_now().await;
    drop(wild);
}
