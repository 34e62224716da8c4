//! The timer structure beside a plain list: the same timers are due, in the same order, and the next deadline is exact.
#![no_main]

mod bytes;
#[allow(dead_code, reason = "parts of it are the library's alone")]
#[path = "../../src/timer/mod.rs"]
mod timer;

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use timer::{TimerId, Timers};

struct Armed {
    id: TimerId,
    deadline: Instant,
    order: u64,
    value: u64,
}

/// Somewhere with a past, the same in every run.
fn start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(|| Instant::now() + Duration::from_secs(1 << 20))
}

/// From nothing to hundreds of years, every magnitude as often.
fn delay(bytes: &mut Bytes<'_>) -> Duration {
    let shift = u32::from(bytes.byte() % 60);
    Duration::from_nanos((u64::from(bytes.byte()) << shift) >> 4)
}

fuzz_target!(|data: &[u8]| {
    let mut bytes = Bytes(data);
    let mut now = start();
    let mut timers = Timers::new();
    let mut list: Vec<Armed> = Vec::new();
    let mut order = 0;
    while !bytes.is_empty() {
        order += 1;
        match bytes.byte() % 8 {
            0..=2 => {
                // Past deadlines too.
                let back = Duration::from_nanos(u64::from(bytes.byte() / 64) << 20);
                let deadline = now + delay(&mut bytes) - back;
                let id = timers.arm(deadline, order);
                list.push(Armed {
                    id,
                    deadline,
                    order,
                    value: order,
                });
            }
            3 if !list.is_empty() => {
                let at = usize::from(bytes.byte()) % list.len();
                let armed = list.swap_remove(at);
                assert_eq!(timers.disarm(armed.id), Some(armed.value));
                assert_eq!(timers.disarm(armed.id), None);
            }
            4 if !list.is_empty() => {
                let at = usize::from(bytes.byte()) % list.len();
                let deadline = now + delay(&mut bytes);
                let armed = &mut list[at];
                assert!(timers.rearm(armed.id, deadline));
                (armed.deadline, armed.order) = (deadline, order);
            }
            5 => timers.shrink(),
            _ => {
                now += delay(&mut bytes);
                let mut due: Vec<Armed> = Vec::new();
                let mut at = 0;
                while at < list.len() {
                    if list[at].deadline <= now {
                        due.push(list.swap_remove(at));
                    } else {
                        at += 1;
                    }
                }
                due.sort_by_key(|armed| (armed.deadline, armed.order));
                for armed in due {
                    let (_, deadline, value) = timers.pop_due(now).expect("one is due");
                    assert_eq!((deadline, value), (armed.deadline, armed.value));
                }
                assert!(timers.pop_due(now).is_none());
            }
        }
        let next = list.iter().map(|armed| armed.deadline).min();
        assert_eq!(timers.next_deadline(), next);
        assert_eq!(timers.is_empty(), list.is_empty());
    }
});
