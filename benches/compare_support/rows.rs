//! The rows: their names, sizes and meanings, and which workload is behind each.

use std::time::Duration;

use super::{
    peer::Peer,
    workloads::{self, panic, remote, ring, spawn, threads, timer, wake},
};

/// What one run of a workload gave, its counts already checked.
pub(crate) struct Sample {
    /// The operations in `time`.
    pub(crate) ops: usize,
    pub(crate) time: Duration,
}

impl Sample {
    pub(crate) fn ns_per_op(&self) -> f64 {
        self.time.as_secs_f64() * 1e9 / self.ops as f64
    }
}

/// A timed row of the table.
pub(crate) struct Row {
    /// A group, or a group and a parameter.
    pub(crate) name: &'static str,
    /// The row, or the group, that it is like in what it takes of a peer: mostly itself.
    pub(crate) like: &'static str,
    /// What an operation is.
    pub(crate) what: &'static str,
    pub(crate) size: Size,
    pub(crate) rounds_at_most: usize,
    pub(crate) aims: Aims,
    work: Work,
}

/// The operations of a full sample.
#[derive(Clone, Copy)]
pub(crate) enum Size {
    /// Some ten milliseconds for the fastest; slower peers do fewer.
    UpTo(usize),
    /// The number belongs to the workload, or the workload has a limit of its own.
    Exactly(usize),
}

/// What mainstay's ratios are meant to reach, where that was laid down.
#[derive(Clone, Copy)]
pub(crate) struct Aims {
    /// To the best peer.
    pub(crate) best: Option<f64>,
    /// To tokio.
    pub(crate) tokio: Option<f64>,
}

impl Aims {
    pub(crate) const NONE: Self = Self {
        best: None,
        tokio: None,
    };

    pub(crate) const fn of(best: f64, tokio: f64) -> Self {
        Self {
            best: Some(best),
            tokio: Some(tokio),
        }
    }
}

enum Work {
    LoopOnly,
    Spawn,
    Spawn2K,
    Join,
    Join1000,
    /// With so many tasks.
    Yield(usize),
    PingPong,
    FanOut,
    WakerCloneDrop,
    WakerWakeQueued,
    RemoteRoundTrip,
    RemoteWakes,
    RemotePolls,
    /// So many.
    Threads(usize),
    TimerSleep,
    TimerCreateDrop,
    /// Beside so many sleeping tasks.
    TimerArmed(usize),
    /// Among so many.
    Parked(usize),
    /// Beside so many.
    SpawnBeside(usize),
    RingAsyncChannel,
    RingMpsc,
    Panic,
    BareCatch,
}

/// All of them, in the order of the table. The one with a million tasks is last, because what it leaves of the heap
/// is unlike what the others find.
pub(crate) const ROWS: &[Row] = &[
    Row::new(
        LOOP_ONLY,
        "no work: one turn of a counting loop in the root, the harness's own overhead",
        Work::LoopOnly,
        Size::UpTo(20_000_000),
    ),
    Row::new(
        "spawn",
        "spawn and complete a detached 16-byte future, in batches of 1,000",
        Work::Spawn,
        Size::UpTo(200_000),
    )
    .aims(Aims::of(0.60, 0.15)),
    Row::new(
        "spawn_2k",
        "spawn and complete a detached 2 KiB future, most of it room not yet filled",
        Work::Spawn2K,
        Size::UpTo(50_000),
    )
    .aims(Aims::of(0.80, 0.30)),
    Row::new(
        "join",
        "spawn one task and await it, from the root",
        Work::Join,
        Size::UpTo(100_000),
    )
    .aims(Aims::of(0.38, 0.17)),
    Row::new(
        "join_1000",
        "spawn 1,000 tasks, then await them in order, per task",
        Work::Join1000,
        Size::UpTo(100_000),
    )
    .aims(Aims::of(0.70, 0.17)),
    Row::new(
        "yield/1",
        "one poll of the only task, which wakes itself each time",
        Work::Yield(1),
        Size::UpTo(1_000_000),
    )
    .aims(Aims::of(0.45, 0.33)),
    Row::new(
        "yield/100",
        "one poll of one of 100 tasks that wake themselves each time",
        Work::Yield(100),
        Size::UpTo(1_000_000),
    )
    .aims(Aims::of(0.45, 0.33)),
    Row::new(
        "yield/10000",
        "one poll of one of 10,000 tasks that wake themselves each time",
        Work::Yield(10_000),
        Size::UpTo(1_000_000),
    )
    .aims(Aims::of(0.45, 0.33)),
    Row::new(
        "ping_pong",
        "a round trip between two tasks that wake each other: two wakes, two polls",
        Work::PingPong,
        Size::UpTo(300_000),
    )
    .aims(Aims::of(0.45, 0.42)),
    Row::new(
        "fan_out",
        "one wake and one poll of 10,000 parked tasks that one task wakes together",
        Work::FanOut,
        Size::UpTo(1_000_000),
    )
    .aims(Aims::of(0.50, 0.25)),
    Row::new(
        "waker/clone_drop",
        "clone a task's waker and drop the clone",
        Work::WakerCloneDrop,
        Size::UpTo(5_000_000),
    )
    .aims(Aims::of(0.75, 0.60)),
    Row::new(
        "waker/wake_queued",
        "wake by reference a task that is already queued",
        Work::WakerWakeQueued,
        Size::UpTo(5_000_000),
    )
    .aims(Aims::of(1.15, 0.65)),
    Row::new(
        "remote/round_trip",
        "another thread wakes a task of the parked executor and waits, parked, for its answer",
        Work::RemoteRoundTrip,
        Size::Exactly(1_000),
    )
    .aims(Aims {
        best: Some(1.05),
        tokio: None,
    }),
    Row::new(
        "remote/wakes",
        "one wake by another thread, which wakes 1,000 tasks in turn as fast as it can; needs two idle cores",
        Work::RemoteWakes,
        Size::Exactly(5_000_000),
    )
    .aims(Aims::of(1.0, 0.25)),
    Row::new(
        "remote/polls",
        "one poll while another thread wakes 1,000 tasks in turn, from the first wake until all is done",
        Work::RemotePolls,
        Size::Exactly(5_000_000),
    )
    .aims(Aims {
        best: Some(1.0),
        tokio: None,
    }),
    Row::new(
        "threads/1",
        "one poll of tasks that after ten polls are sent to an executor anew, on one thread: by a `Spawner`, else by a channel",
        Work::Threads(1),
        Size::UpTo(2_000_000),
    )
    .like("remote"),
    Row::new(
        "threads/2",
        "one poll of tasks that after ten polls are sent to the other of two threads' executors, wall time by the polls of both; needs two idle cores",
        Work::Threads(2),
        Size::UpTo(4_000_000),
    )
    .like("remote"),
    Row::new(
        "timer/sleep",
        "CPU time of one of 100,000 tasks that each sleep once for 1 to 100 ms, spawn included",
        Work::TimerSleep,
        Size::Exactly(100_000),
    )
    .aims(Aims::of(0.55, 0.55)),
    Row::new(
        "timer/create_drop",
        "create a sleep of a second, poll it once, drop it",
        Work::TimerCreateDrop,
        Size::UpTo(200_000),
    )
    .aims(Aims::of(0.50, 0.09)),
    Row::new(
        "ring/async_channel",
        "one hop of a token around 1,000 tasks with an `async-channel` between each two",
        Work::RingAsyncChannel,
        Size::UpTo(200_000),
    )
    .aims(Aims::of(0.90, 0.82)),
    Row::new(
        "ring/mpsc",
        "one hop of a token around 1,000 tasks with an unbounded `futures-channel` mpsc between each two",
        Work::RingMpsc,
        Size::UpTo(200_000),
    )
    .aims(Aims::of(0.70, 0.60)),
    Row::new(
        "panic",
        "spawn a task that panics, contain that, tell a no-op handler if there is one, await it",
        Work::Panic,
        Size::UpTo(10_000),
    )
    .aims(Aims {
        best: None,
        tokio: Some(0.90),
    }),
    Row::new(
        BARE_CATCH,
        "raise and catch the same panic with no executor: what unwinding itself costs",
        Work::BareCatch,
        Size::UpTo(10_000),
    ),
    Row::new(
        "yield_1m",
        "one poll of one of 1,000,000 tasks that wake themselves each time",
        Work::Yield(1_000_000),
        Size::Exactly(8_000_000),
    )
    .rounds_at_most(5)
    .aims(Aims::of(0.70, 0.15)),
];

/// Rows that differ in a number only: how a cost grows with it. They are measured if they are named.
pub(crate) struct Series {
    /// The group of its rows.
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    /// With the number.
    pub(crate) rows: &'static [(usize, Row)],
}

macro_rules! series {
    ($name:literal, $like:literal, $title:literal, $work:path, $size:expr, [$($count:literal),*]) => {
        Series {
            name: concat!("scale/", $name),
            title: $title,
            rows: &[$((
                $count,
                Row::new(
                    concat!("scale/", $name, "/", $count),
                    $title,
                    $work($count),
                    $size($count),
                )
                .like($like)
                .rounds_at_most(if $count < 100_000 { 11 } else { 3 }),
            )),*],
        }
    };
}

/// Enough to measure, whatever the number.
const fn often(_: usize) -> Size {
    Size::Exactly(200_000)
}

/// Each of the tasks some times, and often enough to measure.
const fn each_often(tasks: usize) -> Size {
    Size::Exactly(if tasks < 100_000 { 500_000 } else { 5 * tasks })
}

/// A sleep is an operation, so the number is in the size.
const fn sleeping(_: usize) -> Work {
    Work::TimerSleep
}

const fn each_once(tasks: usize) -> Size {
    Size::Exactly(tasks)
}

/// The group of them all.
pub(crate) const SCALE_GROUP: &str = "scale";

pub(crate) const SCALE: &[Series] = &[
    series!(
        "woken",
        "yield/100",
        "poll of a task, by the number of tasks woken in each pass",
        Work::Yield,
        each_often,
        [10, 100, 1_000, 10_000, 100_000, 1_000_000]
    ),
    series!(
        "parked",
        "fan_out",
        "wake and poll of a parked task, by the number of tasks parked (100 of them woken together, far apart)",
        Work::Parked,
        often,
        [10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000]
    ),
    series!(
        "spawn",
        "spawn",
        "spawn and completion, by the number of other tasks parked meanwhile",
        Work::SpawnBeside,
        often,
        [10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000]
    ),
    series!(
        "armed",
        "timer",
        "create, poll and drop a sleep, by the number of sleeping tasks",
        Work::TimerArmed,
        often,
        [10, 100, 1_000, 10_000, 100_000, 1_000_000]
    ),
    series!(
        "expiring",
        "timer",
        "CPU time of a task that sleeps 1 to 100 ms, by the number of such tasks",
        sleeping,
        each_once,
        [1_000, 10_000, 100_000, 1_000_000]
    ),
];

/// From here on a row of a series needs gigabytes, and is measured with `--huge` only.
pub(crate) const HUGE: usize = 10_000_000;

/// The row of the harness's own overhead.
pub(crate) const LOOP_ONLY: &str = "loop_only";

/// The row of what no executor can go below in `panic`.
pub(crate) const BARE_CATCH: &str = "bare_catch";

impl Row {
    const fn new(name: &'static str, what: &'static str, work: Work, size: Size) -> Self {
        Self {
            name,
            like: name,
            what,
            size,
            rounds_at_most: usize::MAX,
            aims: Aims::NONE,
            work,
        }
    }

    const fn aims(self, aims: Aims) -> Self {
        Self { aims, ..self }
    }

    const fn like(self, like: &'static str) -> Self {
        Self { like, ..self }
    }

    /// More rounds than this would take too long.
    const fn rounds_at_most(self, rounds_at_most: usize) -> Self {
        Self {
            rounds_at_most,
            ..self
        }
    }

    pub(crate) fn ops(&self) -> usize {
        match self.size {
            Size::UpTo(ops) | Size::Exactly(ops) => ops,
        }
    }

    /// Runs this row on a fresh executor, with `ops` rounded up to what the workload can divide; `None` if this
    /// system has not what the row needs.
    ///
    /// # Panics
    ///
    /// If the workload's counts are not what they should be.
    pub(crate) fn sample<P: Peer>(&self, ops: usize) -> Option<Sample> {
        let sample = match self.work {
            Work::LoopOnly => workloads::loop_only::<P>(ops),
            Work::Spawn => spawn::spawn::<P>(ops),
            Work::Spawn2K => spawn::spawn_2k::<P>(ops),
            Work::Join => spawn::join::<P>(ops),
            Work::Join1000 => spawn::join_1000::<P>(ops),
            Work::Yield(tasks) => wake::yields::<P>(tasks, ops),
            Work::PingPong => wake::ping_pong::<P>(ops),
            Work::FanOut => wake::fan_out::<P>(ops),
            Work::WakerCloneDrop => wake::waker_clone_drop::<P>(ops),
            Work::WakerWakeQueued => wake::waker_wake_queued::<P>(ops),
            Work::RemoteRoundTrip => remote::round_trip::<P>(ops),
            Work::RemoteWakes => remote::wakes::<P>(ops),
            Work::RemotePolls => remote::polls::<P>(ops),
            Work::Threads(threads) => threads::relay::<P>(threads, ops),
            Work::TimerSleep => timer::sleep::<P>(ops)?,
            Work::TimerCreateDrop => timer::create_drop::<P>(ops),
            Work::TimerArmed(armed) => timer::armed::<P>(armed, ops),
            Work::Parked(live) => wake::parked::<P>(live, ops),
            Work::SpawnBeside(parked) => spawn::spawn_beside::<P>(parked, ops),
            Work::RingAsyncChannel => ring::async_channel::<P>(ops),
            Work::RingMpsc => ring::mpsc::<P>(ops),
            Work::Panic => panic::panic::<P>(ops),
            Work::BareCatch => panic::bare_catch::<P>(ops),
        };
        Some(sample)
    }
}

/// Whether a row is the one that is named, or in the group that is named.
pub(crate) fn is_in(row: &str, group: &str) -> bool {
    row.strip_prefix(group)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
