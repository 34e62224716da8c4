//! The planted race: nothing orders the two accesses of this program. ThreadSanitizer must report it, or else its silence
//! about the other programs says nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use mainstay::Executor;
use mainstay_tsan::{Handed, first_executor, join};

fn main() {
    first_executor();
    let ex = Executor::new();
    let cell = Arc::new(Handed::new(0));
    let written = Arc::new(AtomicBool::new(false));
    let writing = {
        let (cell, written) = (Arc::clone(&cell), Arc::clone(&written));
        thread::spawn(move || {
            // SAFETY: none, on purpose.
            unsafe { cell.put(7) };
            // It wakes nobody.
            written.store(true, Ordering::Relaxed);
        })
    };
    let task = ex.spawn(async move {
        while !written.load(Ordering::Relaxed) {
            mainstay::yield_now().await;
        }
        // SAFETY: none, on purpose.
        unsafe { cell.get() }
    });
    let got = ex.block_on(task).expect("it returned");
    join([writing]);
    println!("race: read {got}");
}
