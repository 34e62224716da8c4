//! The workloads about panics.

use std::{
    cell::Cell,
    hint::black_box,
    panic::{self, PanicHookInfo},
    thread,
    time::Instant,
};

use super::super::{
    futures::{Bomb, Contained, explode},
    peer::Peer,
    rows::Sample,
    stage::Stage,
};

/// Measures: spawn a task that panics at its first poll, contain the panic, tell a handler that only counts (on
/// peers that have one), await the handle, drop the payload; one after the other.
///
/// The process's panic hook does nothing meanwhile: printing would hide everything else.
pub(crate) fn panic<P: Peer>(ops: usize) -> Sample {
    let (peer, stage) = (P::new(), Stage::leak());
    let reports: &'static Cell<usize> = Box::leak(Box::default());
    let reporting = peer.count_reports(reports);
    let quiet = QuietPanics::begin();
    let (contained, time) = peer.block_on(async {
        let start = Instant::now();
        let mut contained = 0;
        for value in 0..ops {
            let failed = if P::CONTAINS_PANICS {
                P::returned(peer.spawn(Bomb { stage, value }).await).is_none()
            } else {
                P::returned(peer.spawn(Contained(Bomb { stage, value })).await) == Some(None)
            };
            contained += usize::from(failed);
        }
        (contained, start.elapsed())
    });
    drop(quiet);
    assert_eq!(stage.polls(), ops, "each task is polled once");
    assert_eq!(contained, ops, "each panic is contained");
    assert_eq!(
        reports.get(),
        if reporting { ops } else { 0 },
        "each failure is reported, once"
    );
    Sample { ops, time }
}

/// Measures: the same panic raised and caught in the root, without a task: what unwinding itself costs here.
pub(crate) fn bare_catch<P: Peer>(ops: usize) -> Sample {
    let peer = P::new();
    let quiet = QuietPanics::begin();
    let (caught, time) = peer.block_on(async {
        let start = Instant::now();
        let mut caught = 0;
        for value in 0..ops {
            caught += usize::from(panic::catch_unwind(|| explode(black_box(value))).is_err());
        }
        (caught, start.elapsed())
    });
    drop(quiet);
    assert_eq!(caught, ops, "each panic is caught");
    Sample { ops, time }
}

/// The hook of the process that was there before.
type Hook = Box<dyn Fn(&PanicHookInfo<'_>) + Sync + Send + 'static>;

/// While it lives, the panic hook does nothing.
struct QuietPanics {
    before: Option<Hook>,
}

impl QuietPanics {
    fn begin() -> Self {
        let before = panic::take_hook();
        panic::set_hook(Box::new(|_| {}));
        Self {
            before: Some(before),
        }
    }
}

impl Drop for QuietPanics {
    fn drop(&mut self) {
        // The hook cannot be set while unwinding; the process is about to end then.
        if let (false, Some(before)) = (thread::panicking(), self.before.take()) {
            panic::set_hook(before);
        }
    }
}
