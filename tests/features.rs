//! The optional features: `cargo test --all-features --test features`.

use std::fmt::Debug;
use std::panic;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_task::{FutureObj, LocalSpawn, Spawn};
use mainstay::{Executor, yield_now};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Writes down what it is told.
#[derive(Clone, Default)]
struct Log {
    lines: Arc<Mutex<Vec<String>>>,
    next: Arc<AtomicU64>,
}

impl Log {
    fn push(&self, line: String) {
        self.lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(line);
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.lines.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct Fields(String);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if matches!(field.name(), "name" | "message" | "panicked") {
            self.0.push_str(&format!(" {}={value:?}", field.name()));
        }
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "mainstay"
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut fields = Fields(String::new());
        span.record(&mut fields);
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        self.push(format!("span {id}:{}", fields.0));
        Id::from_u64(id)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields(String::new());
        event.record(&mut fields);
        let parent = event.parent().map_or(0, Id::into_u64);
        self.push(format!(
            "{} in {parent}:{}",
            event.metadata().level(),
            fields.0
        ));
    }

    fn enter(&self, span: &Id) {
        self.push(format!("enter {}", span.into_u64()));
    }

    fn exit(&self, span: &Id) {
        self.push(format!("exit {}", span.into_u64()));
    }
}

#[test]
fn every_task_has_a_span_and_failures_are_events() {
    panic::set_hook(Box::new(|_| {}));
    let log = Log::default();
    let _default = tracing::subscriber::set_default(log.clone());
    let ex = Executor::new();
    ex.set_exception_handler(|_, _| {});
    ex.task().name("fine").spawn(yield_now()).detach();
    ex.task()
        .name("bad")
        .spawn(async { panic!("boom") })
        .detach();
    ex.task()
        .name("worse")
        .spawn_fallible(async { Err::<(), _>("no") })
        .detach();
    let cancelled = ex.task().name("gone").spawn(std::future::pending::<()>());
    let _ = ex.run_until_stalled();
    let _ = cancelled.cancel();
    let _ = ex.run_until_stalled();
    assert_eq!(
        log.take(),
        [
            "span 1: name=\"fine\"",
            "span 2: name=\"bad\"",
            "span 3: name=\"worse\"",
            "span 4: name=\"gone\"",
            "enter 1",
            "exit 1",
            "enter 2",
            "exit 2",
            "ERROR in 2: message=task failed: boom panicked=true",
            "enter 3",
            "exit 3",
            "ERROR in 3: message=task failed: no panicked=false",
            "enter 4",
            "exit 4",
            "enter 1",
            "exit 1",
            "TRACE in 1: message=task returned",
            "DEBUG in 4: message=task cancelled",
        ]
    );
    assert_eq!(ex.stats().reported, 2, "looking is not retrieving");
}

#[test]
fn handles_are_spawners_of_futures() {
    let ex = Executor::new();
    let local = ex.handle();
    let spawner = ex.spawner();
    assert!(local.status_local().is_ok() && local.status().is_ok() && spawner.status().is_ok());
    local
        .spawn_local_obj(Box::new(async {}).into())
        .expect("it is open");
    let future: FutureObj<'static, ()> = Box::new(async {}).into();
    local.spawn_obj(future).expect("it is open");
    let future: FutureObj<'static, ()> = Box::new(async {}).into();
    spawner.spawn_obj(future).expect("it is open");
    let _ = ex.run_until_stalled();
    assert_eq!(ex.stats().returned, 3);
    drop(ex);
    assert!(local.status_local().is_err());
    assert!(local.status().is_err() && spawner.status().is_err());
    let refused = local.spawn_local_obj(Box::new(async {}).into());
    assert!(refused.expect_err("it is gone").is_shutdown());
    let future: FutureObj<'static, ()> = Box::new(async {}).into();
    assert!(spawner.spawn_obj(future).is_err());
}
