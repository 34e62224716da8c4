//! The memory row: what a parked task keeps resident.

use std::{fmt, fs, task::Waker};

use super::{futures::Parked, peer::Peer, stage::Stage, workloads::sum_below};

/// The name of `--row`; the table has three lines for it.
pub(crate) const NAME: &str = "memory";

pub(crate) const WHAT: &str = "resident bytes per parked task with a 64-byte future, its handle kept in a vector; \
     kept: after all have completed, as far as the system allocator lets go; \
     growth: when as many more are parked after that";

/// The tasks of a full measurement.
pub(crate) const TASKS: usize = 1_000_000;

/// More processes than this for each peer would tell no more.
pub(crate) const ROUNDS: usize = 3;

/// Bytes of resident memory per task.
pub(crate) struct Footprint {
    /// With all tasks parked and all handles held, over the state before the first spawn.
    pub(crate) parked: f64,
    /// With all tasks complete and all handles gone, over the state before the first spawn. The system allocator has
    /// a say in it: one block in use at the top of its heap keeps everything below resident.
    pub(crate) kept: f64,
    /// With as many tasks parked again, over `parked`.
    pub(crate) growth: f64,
}

impl Footprint {
    /// Reads what `Display` writes.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let numbers: Vec<f64> = text
            .split_whitespace()
            .map_while(|word| word.parse().ok())
            .collect();
        match numbers[..] {
            [parked, kept, growth] => Some(Self {
                parked,
                kept,
                growth,
            }),
            _ => None,
        }
    }
}

impl fmt::Display for Footprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.parked, self.kept, self.growth)
    }
}

/// Parks `tasks` tasks, completes them, parks as many again, and looks at this process each time.
///
/// The wakers by which the tasks are completed are in place, as no-ops, before the first look, so they are in no
/// figure. The handles are in the figures. Not measured: memory that is reserved and never touched.
///
/// # Panics
///
/// If the system has no `/proc/self/status`, or the counts are not what they should be.
pub(crate) fn footprint<P: Peer>(tasks: usize) -> Footprint {
    const { assert!(size_of::<Parked<5>>() == 64, "the row promises this size") };
    let (peer, stage) = (P::new(), Stage::leak());
    stage.wakers.replace(vec![Waker::noop().clone(); tasks]);
    let looks = peer.block_on(async {
        let before = look();
        let first = park(&peer, stage, tasks).await;
        let parked = look();
        complete::<P>(stage, first).await;
        let kept = look();
        let second = park(&peer, stage, tasks).await;
        let again = look();
        complete::<P>(stage, second).await;
        [parked - before, kept - before, again - parked]
    });
    assert_eq!(
        stage.polls(),
        4 * tasks,
        "each task is polled when spawned and when woken"
    );
    let [parked, kept, growth] = looks.map(|bytes| bytes / tasks as f64);
    Footprint {
        parked,
        kept,
        growth,
    }
}

/// The resident memory of this process, where the system tells.
pub(crate) fn resident_bytes() -> Option<usize> {
    // `statm` has the same figure in pages, but safe code cannot ask for the size of a page.
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

fn look() -> f64 {
    resident_bytes().expect("/proc/self/status has a VmRSS line") as f64
}

async fn park<P: Peer>(peer: &P, stage: &'static Stage, tasks: usize) -> Vec<P::Handle<usize>> {
    stage.over.set(false);
    stage.expect(tasks);
    let mut handles = Vec::with_capacity(tasks);
    handles.extend((0..tasks).map(|index| peer.spawn(Parked::<5>::new(stage, index))));
    stage.reached().await;
    handles
}

async fn complete<P: Peer>(stage: &'static Stage, handles: Vec<P::Handle<usize>>) {
    let tasks = handles.len();
    stage.over.set(true);
    stage.wakers.borrow().iter().for_each(Waker::wake_by_ref);
    let mut sum = 0;
    for handle in handles {
        sum += P::returned(handle.await).expect("no task panics");
    }
    assert_eq!(sum, sum_below(tasks), "each task has returned its index");
    // Some peers' wakers keep the task's memory. No-ops in their place keep the vector as it was at the first look.
    stage.wakers.borrow_mut().fill(Waker::noop().clone());
}
