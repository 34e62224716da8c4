//! Programs in which every piece of user code (polls, destructors, wakers, callbacks, handlers, hooks, the logger, `Display`,
//! the end of the thread) does anything at all with the public API, and panics where it likes. What must not panic does not,
//! the books of every executor add up, every value is dropped once, and the sanitizers are silent.
#![no_main]

mod acts;
mod bodies;
mod canary;
mod choices;
mod combined;
mod contained;
mod executors;
mod handles;
mod spawning;
mod wakers;
mod world;

use std::panic;
use std::sync::Once;
use std::thread;

use canary::Canary;
use libfuzzer_sys::fuzz_target;

/// A logger is user code too.
struct Logger;

impl log::Log for Logger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        acts::act();
        choices::maybe_panic();
        contained::lenient(|| record.args().to_string());
    }

    fn flush(&self) {}
}

/// The fuzzer aborts at every panic. Of ours, and of those that are documented, `contained` judges where they come out.
fn prepare() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Logger).expect("there is no other");
        log::set_max_level(log::LevelFilter::Trace);
        let abort = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let payload = info.payload();
            let meant = payload.is::<choices::Boom>() || payload.is::<canary::Payload>();
            let text = contained::text(payload);
            if !meant && !DOCUMENTED.iter().any(|known| text.contains(known)) {
                abort(info);
            }
        }));
    });
}

/// What a call that is a mistake of the program's says.
const DOCUMENTED: [&str; 3] = [
    "mainstay: ",
    "polled after its outcome had been taken",
    "polled after completion",
];

/// Lets go of everything, first in an order and with panics that the bytes choose, then tamely.
fn finish() {
    world::empty();
    choices::end();
    world::empty();
    world::end_circles();
}

struct AtTheEndOfTheThread;

impl Drop for AtTheEndOfTheThread {
    fn drop(&mut self) {
        finish();
    }
}

thread_local! {
    static END: AtTheEndOfTheThread = const { AtTheEndOfTheThread };
}

/// How a program ends.
#[derive(Clone, Copy, PartialEq)]
enum Ending {
    Here,
    /// With the thread, after the library's own thread locals have gone, or before them.
    WithThread {
        first: bool,
    },
}

fn run(data: &[u8], panics: bool, ending: Ending) {
    if ending == (Ending::WithThread { first: true }) {
        END.with(|_| ());
    }
    choices::begin(data, panics);
    executors::make();
    // The rest is for the end.
    while choices::left() > data.len() / 5 {
        acts::one();
        if choices::once_in(2) {
            executors::drive();
        }
    }
    match ending {
        Ending::Here => finish(),
        Ending::WithThread { .. } => END.with(|_| ()),
    }
}

fuzz_target!(|data: &[u8]| {
    prepare();
    let Some((how, data)) = data.split_first() else {
        return;
    };
    let panics = how & 1 == 1;
    let ending = match how >> 1 & 7 {
        0 => Ending::WithThread { first: true },
        1 => Ending::WithThread { first: false },
        _ => Ending::Here,
    };
    if ending == Ending::Here {
        run(data, panics, ending);
    } else {
        let ran = thread::scope(|scope| scope.spawn(|| run(data, panics, ending)).join());
        assert!(ran.is_ok(), "a panic came out of the program");
    }
    assert_eq!(Canary::count(), 0, "not everything was dropped");
});
