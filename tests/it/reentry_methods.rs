//! Every public method, from every place where the executor calls user code (P6): the matrix of [`reentry`](crate::reentry)'s
//! places and of what is written here, a function for each type. `every_public_method_is_called` reads the sources, so that
//! none is forgotten.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs;
use std::future::{Future, pending, ready};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use mainstay::{
    Builder, ExceptionContext, Executor, JoinSet, LocalHandle, ReportPolicy, RestartPolicy,
    Supervisor, TaskGroup, TaskInfo, as_completed, as_completed_with_limit, cancel_requested,
    current_task, gather, gather_settled, gather_settled_with_limit, gather_with_limit, handles,
    interval, race, race_ok, race_ok_with_limit, race_with_limit, sleep, sleep_until, timeout,
    timeout_at, try_gather, try_gather_with_limit, yield_now,
};

use crate::reentry::{PLACES, at_every_place};
use crate::support::{Fault, counts, panic_message, quiet};
use crate::table::{missing_tests, read};

mainstay::task_local! { static NUMBER: u32; }

const SOON: Duration = Duration::ZERO;
const LATER: Duration = Duration::from_secs(3600);

/// Polls once, and drops it.
fn look<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// What a method that drives says on an executor that is being driven.
#[track_caller]
fn refused<R>(drive: impl FnOnce() -> R) {
    let message = panic_message(drive);
    assert!(message.contains("is being driven already"), "{message}");
}

async fn fine() -> Result<u32, Fault> {
    Ok(1)
}

// ---------------------------------------------------------------------------------------------------------------------
// The types
// ---------------------------------------------------------------------------------------------------------------------

fn executor(ex: &Executor<'static>) {
    refused(|| ex.block_on(async {}));
    refused(|| ex.try_block_on(async {}));
    refused(|| ex.run_forever());
    refused(|| ex.run_until_stalled());
    refused(|| ex.tick(1));
    refused(|| look(ex.run_until(async {})));
    refused(|| ex.shutdown(SOON));
    ex.on_wake(|| {});
    ex.spawn(yield_now()).detach();
    ex.spawn_fallible(fine()).detach();
    ex.task().spawn(yield_now()).detach();
    let handler = ex.exception_handler();
    assert_eq!(ex.has_exception_handler(), handler.is_some());
    ex.clear_exception_handler();
    ex.set_exception_handler(|_, _| {});
    let report = ExceptionContext::new("a report").build();
    ex.call_exception_handler(&report);
    ex.default_exception_handler(&report);
    match handler {
        Some(handler) => ex.set_exception_handler(move |ex, report| handler(ex, report)),
        None => ex.clear_exception_handler(),
    }
    ex.call_soon(|| {});
    ex.call_later(SOON, || {});
    ex.call_at(ex.now(), || {});
    // On the real clock, it panics and says so.
    drop(catch_unwind(AssertUnwindSafe(|| ex.advance(SOON))));
    assert_eq!(ex.len(), ex.tasks().len());
    assert!(!ex.is_empty() && ex.is_running());
    assert_eq!(ex.stats().live, ex.len() as u64);
    ex.shrink();
    assert!(look(ex.idle()).is_pending());
    drop(ex.handle());
    drop(ex.spawner());
    drop(Executor::<'static>::new());
    drop(Executor::<'static>::builder());
    // `stop` and `stop_with`: see `ELSEWHERE`.
}

fn builder(_: &Executor<'static>) {
    let builder: Builder<'static> = Executor::builder();
    let ex = builder
        .name("inner")
        .report(ReportPolicy::IfUnretrieved)
        .capacity(10)
        .virtual_clock()
        .timer_slack(LATER)
        .shuffle(7)
        .debug(true)
        .slow_poll_threshold(LATER)
        .on_task_spawn(|_| {})
        .on_task_done(|_| {})
        .before_poll(|_| {})
        .after_poll(|_| {})
        .build();
    ex.spawn(yield_now()).detach();
    // Another executor may be driven from here, and ended.
    assert_eq!(ex.block_on(async { 7 }), 7);
    assert_eq!(ex.shutdown(SOON).failed(), 0);
}

fn local_handle(ex: &Executor<'static>) {
    let local = ex.handle();
    assert!(LocalHandle::try_current().is_some());
    drop(LocalHandle::current());
    local.spawn(yield_now()).detach();
    local.spawn_fallible(fine()).detach();
    local.task().spawn(yield_now()).detach();
    assert_eq!(local.tasks().len() as u64, local.stats().live);
    assert!(local.now() <= ex.now());
    assert!(look(local.idle()).is_pending());
    let handler = local.exception_handler();
    assert_eq!(local.has_exception_handler(), handler.is_some());
    local.clear_exception_handler();
    local.set_exception_handler(|_, _| {});
    let report = ExceptionContext::new("a report").build();
    local.call_exception_handler(&report);
    local.default_exception_handler(&report);
    match handler {
        Some(handler) => local.set_exception_handler(move |ex, report| handler(ex, report)),
        None => local.clear_exception_handler(),
    }
    local.call_soon(|| {});
    local.call_later(SOON, || {});
    local.call_at(local.now(), || {});
    drop(local.spawner());
}

fn task_builder(ex: &Executor<'static>) {
    ex.task().name("a").spawn(yield_now()).detach();
    ex.task().background().spawn_fallible(fine()).detach();
}

fn join_handle(ex: &Executor<'static>) {
    let mut handle = ex.spawn(yield_now());
    assert_eq!(handle.name(), format!("Task-{}", handle.id()));
    assert!(!handle.is_finished() && !handle.is_cancelled());
    assert!(handle.result().is_err());
    assert!(handle.exception().is_err());
    let id = handle.add_done_callback(|_| unreachable!("removed"));
    assert!(handle.remove_done_callback(id));
    handle.add_done_callback(|_| {});
    let cancel = handle.cancel_handle();
    assert!(look(&mut handle).is_pending());
    assert!(handle.cancel_with_reason("enough"));
    // Inside of another cancel, which is done first, it takes effect when that returns: asking again is no error.
    assert_eq!(cancel.cancel(), !handle.is_finished());
    assert_eq!(handle.cancel(), !handle.is_cancelled());
    drop(ex.spawn(yield_now()).cancel_on_drop());
    ex.spawn(yield_now()).detach();
}

fn cancel_handle(ex: &Executor<'static>) {
    let handle = ex.spawn(pending::<()>());
    let cancel = handle.cancel_handle();
    assert_eq!(cancel.id(), handle.id());
    assert!(!cancel.is_finished());
    assert!(cancel.cancel());
}

fn cancel_on_drop(ex: &Executor<'static>) {
    let mut owner = ex.spawn(pending::<()>()).cancel_on_drop();
    assert_eq!(owner.id(), owner.handle().id());
    assert!(look(&mut owner).is_pending());
}

fn call_handle(ex: &Executor<'static>) {
    let call = ex.call_later(LATER, || unreachable!("cancelled"));
    assert!(call.when().is_some_and(|when| when > ex.now()));
    assert!(call.cancel());
}

fn spawner(ex: &Executor<'static>) {
    let spawner = ex.spawner();
    assert!(!spawner.is_closed());
    spawner.spawn(yield_now).expect("it is open").detach();
    spawner.spawn_fallible(fine).expect("it is open").detach();
    spawner.call_soon(|_| {}).expect("it is open");
}

fn remote_handle(ex: &Executor<'static>) {
    let spawner = ex.spawner();
    let spawn = || spawner.spawn(yield_now).expect("it is open");
    let mut handle = spawn();
    assert!(ex.tasks().iter().all(|task| task.id() != handle.id()));
    assert!(!handle.is_finished());
    assert!(look(&mut handle).is_pending());
    let home = panic_message(|| spawn().join());
    assert!(home.contains("join"), "{home}");
    panic_message(|| spawn().join_timeout(LATER).is_ok());
    assert!(handle.cancel());
    let other = spawn();
    assert!(other.cancel());
    other.detach();
}

fn task_group(ex: &Executor<'static>) {
    let ended = look(TaskGroup::scope(async |group: &TaskGroup| {
        group.spawn(pending::<()>()).detach();
        group.spawn_fallible(fine()).detach();
        group.task().name("c").spawn(pending::<()>()).detach();
        group.limit(2);
        assert!(look(group.room()).is_pending());
        assert_eq!(group.len(), 3);
        assert!(!group.is_empty() && !group.is_closed());
        assert!(group.cancel());
        pending::<()>().await;
    }));
    drop(ended);
    // One that is left in the middle takes its tasks along.
    let before = ex.len();
    let left = look(TaskGroup::try_scope(async |group: &TaskGroup| {
        group.spawn(pending::<()>()).detach();
        pending::<Result<(), Fault>>().await
    }));
    assert!(left.is_pending());
    assert_eq!(ex.len(), before);
}

fn supervisor(ex: &Executor<'static>) {
    let group = Supervisor::new();
    drop(Supervisor::new_in(&ex.handle()));
    group.spawn(pending::<()>()).detach();
    group.spawn_fallible(fine()).detach();
    group.task().spawn(pending::<()>()).detach();
    group
        .spawn_restarting(|| ready(()), RestartPolicy::on_failure())
        .detach();
    group
        .spawn_restarting_fallible(fine, RestartPolicy::on_failure())
        .detach();
    group.set_exception_handler(|_, _| {});
    group.clear_exception_handler();
    group.limit(3);
    assert!(look(group.room()).is_pending());
    assert!(group.len() >= 3 && !group.is_empty());
    assert!(look(group.shutdown(LATER)).is_pending());
    group.abort();
    assert!(group.is_closed());
    assert!(
        look(Supervisor::scope(async |group: &Supervisor| {
            group.spawn(pending::<()>()).detach();
        }))
        .is_pending()
    );
}

fn join_set(ex: &Executor<'static>) {
    let mut set = JoinSet::new();
    let id = set.spawn(async { Ok::<_, Fault>(1) });
    set.spawn_named("named", async { Ok(2) });
    set.spawn_fallible(async { Ok(3) });
    set.limit(2);
    assert!(set.len() == 3 && !set.is_empty());
    assert!(set.try_join_next().is_none());
    assert!(look(set.join_next()).is_pending());
    let mut cx = Context::from_waker(Waker::noop());
    assert!(set.poll_join_next(&mut cx).is_pending());
    assert!(set.cancel(id));
    set.cancel_all();
    let mut other = JoinSet::new_in(&ex.handle());
    other.spawn(async {});
    other.detach_all();
}

fn as_completed_of(_: &Executor<'static>) {
    let mut all = as_completed([ready(1), ready(2)]);
    assert!(look(all.next()).is_pending());
    let mut some = as_completed_with_limit([ready(1), ready(2)], 1);
    assert!(look(some.next()).is_pending());
}

fn batches(ex: &Executor<'static>) {
    let numbers = || [ready(1), ready(2)];
    let results = || [fine(), fine()];
    assert!(look(gather(numbers())).is_pending());
    assert!(look(gather_with_limit(numbers(), 1)).is_pending());
    assert!(look(gather_settled(numbers())).is_pending());
    assert!(look(gather_settled_with_limit(numbers(), 1)).is_pending());
    assert!(look(try_gather(results())).is_pending());
    assert!(look(try_gather_with_limit(results(), 1)).is_pending());
    assert!(look(race(numbers())).is_pending());
    assert!(look(race_with_limit(numbers(), 1)).is_pending());
    assert!(look(race_ok(results())).is_pending());
    assert!(look(race_ok_with_limit(results(), 1)).is_pending());
    assert!(look(gather(handles([ex.spawn(ready(1))]))).is_pending());
    // And one that runs to its end.
    ex.spawn(async move {
        assert_eq!(gather(numbers()).await.expect("none fails"), [1, 2]);
    })
    .detach();
}

fn sleep_of(ex: &Executor<'static>) {
    let mut nap = Box::pin(sleep(LATER));
    assert!(look(nap.as_mut()).is_pending());
    assert!(!nap.is_elapsed() && nap.deadline().is_some());
    nap.as_mut().get_mut().reset(ex.now());
    assert!(look(nap.as_mut()).is_pending(), "armed anew");
    assert!(look(sleep_until(ex.now())).is_pending());
}

fn interval_of(_: &Executor<'static>) {
    let mut every = interval(LATER);
    assert_eq!(every.period(), LATER);
    assert!(look(every.tick()).is_pending());
}

fn local_key(_: &Executor<'static>) {
    assert!(NUMBER.try_with(|_| ()).is_err());
    assert!(look(NUMBER.scope(7, async { NUMBER.with(|n| *n) })) == Poll::Ready(7));
    NUMBER.sync_scope(8, || assert_eq!(NUMBER.with(|n| *n), 8));
    drop(NUMBER.scope(9, pending::<()>()));
}

/// Functions that belong to no type.
fn free(ex: &Executor<'static>) {
    mainstay::spawn(yield_now()).detach();
    mainstay::spawn_fallible(fine()).detach();
    let task: Option<TaskInfo> = current_task();
    drop(task);
    assert!(look(cancel_requested()).is_pending());
    assert!(look(timeout(LATER, pending::<()>())).is_pending());
    assert!(look(timeout_at(ex.now() + LATER, pending::<()>())).is_pending());
    // On this thread, inside of whatever is driven here.
    assert_eq!(mainstay::run(async { 7 }), 7);
}

type Methods = fn(&Executor<'static>);

/// The functions above by the types that they are of.
const TYPES: [(&str, &str, Methods); 19] = [
    ("Executor", "executor", executor),
    ("Builder", "builder", builder),
    ("LocalHandle", "local_handle", local_handle),
    ("TaskBuilder", "task_builder", task_builder),
    ("JoinHandle", "join_handle", join_handle),
    ("CancelHandle", "cancel_handle", cancel_handle),
    ("CancelOnDrop", "cancel_on_drop", cancel_on_drop),
    ("CallHandle", "call_handle", call_handle),
    ("Spawner", "spawner", spawner),
    ("RemoteHandle", "remote_handle", remote_handle),
    ("TaskGroup", "task_group", task_group),
    ("Supervisor", "supervisor", supervisor),
    ("JoinSet", "join_set", join_set),
    ("AsCompleted", "as_completed_of", as_completed_of),
    ("", "batches", batches),
    ("Sleep", "sleep_of", sleep_of),
    ("Interval", "interval_of", interval_of),
    ("LocalKey", "local_key", local_key),
    ("", "free", free),
];

/// Types that hold what they say, and nothing through which an executor could be reached.
const VALUES: [&str; 14] = [
    "Completion",
    "Exception",
    "ExceptionContext",
    "ExceptionContextBuilder",
    "ExceptionGroup",
    "GaveUp",
    "GroupSummary",
    "JoinError",
    "PanicLocation",
    "RestartPolicy",
    "ShutdownReport",
    "Stopped",
    "TaskId",
    "TaskInfo",
];

/// Methods with tests of their own: they end the drive, or are for the whole process.
const ELSEWHERE: [(&str, &str, &str); 6] = [
    (
        "Executor",
        "stop",
        "`reentry::stop_is_heard_from_every_place`",
    ),
    (
        "Executor",
        "stop_with",
        "`reentry::stop_with_is_heard_from_every_place`",
    ),
    (
        "LocalHandle",
        "stop",
        "`reentry::stop_is_heard_from_every_place`",
    ),
    (
        "LocalHandle",
        "stop_with",
        "`reentry::stop_with_is_heard_from_every_place`",
    ),
    (
        "",
        "set_default_exception_handler",
        "`hostile::a_process_wide_handler_that_calls_back_does_not_overflow_the_stack`",
    ),
    (
        "",
        "install_panic_hook",
        "`failures::the_panic_hook_records_where_a_task_panicked`",
    ),
];

// ---------------------------------------------------------------------------------------------------------------------
// The matrix
// ---------------------------------------------------------------------------------------------------------------------

/// P6: each of them works, and what it began comes to its end; the loop and the bystander do not notice.
#[test]
fn every_public_method_may_be_called_from_every_place() {
    let failed: Rc<RefCell<Vec<String>>> = Rc::default();
    for (_, name, methods) in TYPES {
        let called = Rc::new(Cell::new(0));
        let (count, failures) = (Rc::clone(&called), Rc::clone(&failed));
        at_every_place(move |ex, place| {
            count.set(count.get() + 1);
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| methods(ex))) {
                let why = payload.downcast_ref::<String>().cloned();
                failures
                    .borrow_mut()
                    .push(format!("{name}, from {place:?}: {why:?}"));
            }
        });
        assert_eq!(called.get(), PLACES.len(), "{name}");
    }
    assert!(failed.borrow().is_empty(), "{:#?}", failed.borrow());
}

/// The same in the poll of a root, and in its destructor.
#[test]
fn every_public_method_may_be_called_from_a_root() {
    quiet();
    for (_, name, methods) in TYPES {
        let ex = Rc::new(Executor::new());
        let (in_poll, in_drop) = (Rc::clone(&ex), Rc::clone(&ex));
        let at_end = crate::support::on_drop(move || methods(&in_drop));
        ex.spawn(async { crate::support::yield_n(100).await })
            .detach();
        let root = crate::support::holding(at_end, async move { methods(&in_poll) });
        ex.block_on(root);
        ex.run_until_stalled();
        let counts = counts(&ex);
        assert_eq!(
            (counts.failed, counts.reports),
            (0, counts.reports),
            "{name}"
        );
    }
}

/// The sources and the functions above have the same methods.
#[test]
fn every_public_method_is_called() {
    let source = read("reentry_methods.rs");
    let mut missing = Vec::new();
    for (owner, methods) in public_methods() {
        if VALUES.contains(&owner.as_str()) {
            continue;
        }
        let bodies: String = TYPES
            .iter()
            .filter(|(of, ..)| *of == owner || owner.is_empty())
            .map(|(_, function, _)| body(&source, function))
            .collect();
        for method in methods {
            let elsewhere = ELSEWHERE
                .iter()
                .find(|(of, name, _)| *of == owner && *name == method);
            if let Some((.., test)) = elsewhere {
                assert!(missing_tests(test).is_empty(), "{test}");
            } else if !calls(&bodies, &method) {
                missing.push(format!("{owner}::{method}"));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

/// Whether some code calls something of this name.
fn calls(code: &str, name: &str) -> bool {
    code.match_indices(name).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = &code[at + name.len()..];
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_') && after.starts_with('(')
    })
}

fn body<'a>(source: &'a str, function: &str) -> &'a str {
    let start = source
        .find(&format!("\nfn {function}("))
        .unwrap_or_else(|| panic!("fn {function}"));
    let rest = &source[start + 1..];
    &rest[..rest.find("\n}\n").expect("it ends")]
}

/// The names of the `pub fn`s of the library, by the type whose they are.
fn public_methods() -> BTreeMap<String, Vec<String>> {
    let mut found = BTreeMap::<String, Vec<String>>::new();
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![src];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let source = fs::read_to_string(&path).expect("text");
                methods_of(&source, &mut found);
            }
        }
    }
    found
}

fn methods_of(source: &str, found: &mut BTreeMap<String, Vec<String>>) {
    let mut owner = String::new();
    let mut is_hidden = false;
    for line in source.lines() {
        if let Some(rest) = line.strip_prefix("impl") {
            // `impl<'a> Type<'a> {`, and `impl Trait for Type {`, whose functions are not `pub`.
            let rest = match rest.strip_prefix('<') {
                Some(parameters) => parameters.split_once("> ").map_or("", |(_, rest)| rest),
                None => rest.trim_start(),
            };
            let name = rest.split(|c: char| !c.is_alphanumeric()).next();
            name.unwrap_or_default().clone_into(&mut owner);
        }
        let code = line.trim_start();
        let indented = code.len() < line.len();
        let hidden = std::mem::replace(&mut is_hidden, code.contains("#[doc(hidden)]"));
        let name = ["pub fn ", "pub async fn ", "pub const fn "]
            .iter()
            .find_map(|start| code.strip_prefix(start))
            .and_then(|rest| {
                rest.split(|c: char| !c.is_alphanumeric() && c != '_')
                    .next()
            });
        if let Some(name) = name.filter(|_| !hidden) {
            let owner = if indented {
                owner.clone()
            } else {
                String::new()
            };
            found.entry(owner).or_default().push(name.to_owned());
        }
    }
}

#[test]
fn methods_are_found() {
    let mut found = BTreeMap::new();
    methods_of(
        "pub fn free() {}\nimpl<'a, T: 'static> Type<'a, T> {\n    pub fn one(&self) {}\n    pub async fn two() {}\n    fn three() {}\n    pub(crate) fn four() {}\n}\nimpl Other {\n    pub const fn five() {}\n}\n",
        &mut found,
    );
    let expected = [
        ("", vec!["free"]),
        ("Other", vec!["five"]),
        ("Type", vec!["one", "two"]),
    ];
    assert!(
        found
            .iter()
            .map(|(owner, names)| (owner.as_str(), names.iter().map(String::as_str).collect()))
            .eq(expected),
        "{found:?}"
    );
    assert!(calls("set.spawn(async {})", "spawn") && !calls("respawn(1); spawn_all(2)", "spawn"));
}
