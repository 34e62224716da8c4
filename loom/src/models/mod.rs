//! The models. Each test's name is the claim; its documentation says what the claim rests on and what it leaves out.

mod guest;
mod handover;
mod host;
mod inbox;
mod messages;
mod park;
mod reuse;
mod wake;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use loom::model::Builder;

use crate::endpoint::Endpoint;

/// For models of three threads: the faults that are planted all show within two preemptions.
const SOME: Option<usize> = Some(4);
/// For models of two threads.
const ANY: Option<usize> = None;

/// Runs `model` in every order of steps that takes no more than this many preemptions; `LOOM_MAX_PREEMPTIONS` overrides
/// the number.
fn check(preemptions: Option<usize>, model: impl Fn() + Send + Sync + 'static) {
    let runs = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&runs);
    let mut builder = Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(preemptions);
    builder.check(move || {
        counter.fetch_add(1, Ordering::Relaxed);
        model();
    });
    // For whoever changes a model: is it still small enough, does it still explore anything?
    println!("{} executions", runs.load(Ordering::Relaxed));
}

/// An endpoint that the threads of a model share. (Its own counts are no part of any model, so that they are std's.)
fn endpoint() -> Arc<Endpoint> {
    Arc::new(Endpoint::new(1))
}

/// One that lives for ever, as the library's do. (A model's own are given back at its end, which these never touch.)
fn leaked_endpoint() -> &'static Endpoint {
    Box::leak(Box::new(Endpoint::new(1)))
}
