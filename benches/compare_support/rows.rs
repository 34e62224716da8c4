//! The rows: their names, sizes and meanings, and which workload is behind each.

use std::time::Duration;

use super::{peer::Peer, workloads};

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
#[derive(Clone, Copy)]
pub(crate) enum Row {
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
    TimerSleep,
    TimerCreateDrop,
    RingAsyncChannel,
    Panic,
    BareCatch,
}

impl Row {
    /// All of them, in the order of the table. The one with a million tasks is last, because what it leaves of the
    /// heap is unlike what the others find.
    pub(crate) const ALL: &[Self] = &[
        Self::LoopOnly,
        Self::Spawn,
        Self::Spawn2K,
        Self::Join,
        Self::Join1000,
        Self::Yield(1),
        Self::Yield(100),
        Self::Yield(10_000),
        Self::PingPong,
        Self::FanOut,
        Self::WakerCloneDrop,
        Self::WakerWakeQueued,
        Self::RemoteRoundTrip,
        Self::RemoteWakes,
        Self::RemotePolls,
        Self::TimerSleep,
        Self::TimerCreateDrop,
        Self::RingAsyncChannel,
        Self::Panic,
        Self::BareCatch,
        Self::Yield(1_000_000),
    ];

    /// Its name: a group, or a group and a parameter.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::LoopOnly => "loop_only",
            Self::Spawn => "spawn",
            Self::Spawn2K => "spawn_2k",
            Self::Join => "join",
            Self::Join1000 => "join_1000",
            Self::Yield(1) => "yield/1",
            Self::Yield(100) => "yield/100",
            Self::Yield(10_000) => "yield/10000",
            Self::Yield(_) => "yield_1m",
            Self::PingPong => "ping_pong",
            Self::FanOut => "fan_out",
            Self::WakerCloneDrop => "waker/clone_drop",
            Self::WakerWakeQueued => "waker/wake_queued",
            Self::RemoteRoundTrip => "remote/round_trip",
            Self::RemoteWakes => "remote/wakes",
            Self::RemotePolls => "remote/polls",
            Self::TimerSleep => "timer/sleep",
            Self::TimerCreateDrop => "timer/create_drop",
            Self::RingAsyncChannel => "ring/async_channel",
            Self::Panic => "panic",
            Self::BareCatch => "bare_catch",
        }
    }

    /// What an operation is.
    pub(crate) fn what(self) -> &'static str {
        match self {
            Self::LoopOnly => {
                "no work: one turn of a counting loop in the root, the harness's own overhead"
            }
            Self::Spawn => "spawn and complete a detached 16-byte future, in batches of 1,000",
            Self::Spawn2K => "the same with 2 KiB futures, most of it room not yet filled",
            Self::Join => "spawn one task and await it, from the root",
            Self::Join1000 => "spawn 1,000 tasks, then await them in order, per task",
            Self::Yield(1) => "one poll of the only task, which wakes itself each time",
            Self::Yield(100) => "one poll of one of 100 tasks that wake themselves each time",
            Self::Yield(10_000) => "one poll of one of 10,000 such tasks",
            Self::Yield(_) => "one poll of one of 1,000,000 such tasks",
            Self::PingPong => {
                "a round trip between two tasks that wake each other: two wakes, two polls"
            }
            Self::FanOut => {
                "one wake and one poll of 10,000 parked tasks that one task wakes together"
            }
            Self::WakerCloneDrop => "clone a task's waker and drop the clone",
            Self::WakerWakeQueued => "wake by reference a task that is already queued",
            Self::RemoteRoundTrip => {
                "another thread wakes a task of the parked executor and waits, parked, for its answer"
            }
            Self::RemoteWakes => {
                "one wake by another thread, which wakes 1,000 tasks in turn as fast as it can; needs two idle cores"
            }
            Self::RemotePolls => {
                "one poll in that storm, from its first wake until all is done: what gets through"
            }
            Self::TimerSleep => {
                "CPU time of one of 100,000 tasks that each sleep once for 1 to 100 ms, spawn included"
            }
            Self::TimerCreateDrop => "create a sleep of a second, poll it once, drop it",
            Self::RingAsyncChannel => {
                "one hop of a token around 1,000 tasks with an `async-channel` between each two"
            }
            Self::Panic => {
                "spawn a task that panics, contain that, tell a no-op handler if there is one, await it"
            }
            Self::BareCatch => {
                "raise and catch the same panic with no executor: what unwinding itself costs"
            }
        }
    }

    /// The operations of a full sample: some ten milliseconds for most peers.
    pub(crate) fn ops(self) -> usize {
        match self {
            Self::LoopOnly => 20_000_000,
            Self::Spawn => 200_000,
            Self::Spawn2K => 50_000,
            Self::Join | Self::Join1000 => 100_000,
            Self::Yield(1_000_000) => 8_000_000,
            Self::Yield(_) | Self::FanOut => 1_000_000,
            Self::PingPong => 300_000,
            Self::WakerCloneDrop | Self::WakerWakeQueued => 5_000_000,
            Self::RemoteRoundTrip => 1_000,
            Self::RemoteWakes | Self::RemotePolls => 5_000_000,
            Self::TimerSleep => 100_000,
            Self::TimerCreateDrop | Self::RingAsyncChannel => 200_000,
            Self::Panic | Self::BareCatch => 10_000,
        }
    }

    /// More rounds than this would take too long.
    pub(crate) fn rounds_at_most(self) -> usize {
        match self {
            Self::Yield(1_000_000) => 5,
            _ => usize::MAX,
        }
    }

    /// Runs this row on a fresh executor, with `ops` rounded up to what the workload can divide; `None` if the peer,
    /// or this system, has not what the row needs.
    ///
    /// # Panics
    ///
    /// If the workload's counts are not what they should be.
    pub(crate) fn sample<P: Peer>(self, ops: usize) -> Option<Sample> {
        let sample = match self {
            Self::LoopOnly => workloads::loop_only::<P>(ops),
            Self::Spawn => workloads::spawn::spawn::<P>(ops),
            Self::Spawn2K => workloads::spawn::spawn_2k::<P>(ops),
            Self::Join => workloads::spawn::join::<P>(ops),
            Self::Join1000 => workloads::spawn::join_1000::<P>(ops),
            Self::Yield(tasks) => workloads::wake::yields::<P>(tasks, ops),
            Self::PingPong => workloads::wake::ping_pong::<P>(ops),
            Self::FanOut => workloads::wake::fan_out::<P>(ops),
            Self::WakerCloneDrop => workloads::wake::waker_clone_drop::<P>(ops),
            Self::WakerWakeQueued => workloads::wake::waker_wake_queued::<P>(ops),
            Self::RemoteRoundTrip => workloads::remote::round_trip::<P>(ops),
            Self::RemoteWakes => workloads::remote::wakes::<P>(ops),
            Self::RemotePolls => workloads::remote::polls::<P>(ops),
            Self::TimerSleep => workloads::timer::sleep::<P>(ops)?,
            Self::TimerCreateDrop => workloads::timer::create_drop::<P>(ops)?,
            Self::RingAsyncChannel => workloads::ring::ring_async_channel::<P>(ops),
            Self::Panic => workloads::panic::panic::<P>(ops),
            Self::BareCatch => workloads::panic::bare_catch::<P>(ops),
        };
        Some(sample)
    }
}
