//! The memory rows: what a parked task keeps resident.

use std::{fmt, fs, task::Waker};

use super::{
    futures::{Nothing, Parked},
    peer::Peer,
    rows::Aims,
    stage::Stage,
    workloads::sum_below,
};

/// The name of `--row`; the table has several lines for it.
pub(crate) const NAME: &str = "memory";

pub(crate) const WHAT: &str = "resident bytes per task, of a million, their handles kept in a vector; 0, 64, 512: parked, with a future of \
     so many bytes; kept: after all have completed (64 bytes), as far as the system allocator lets go; growth: when as \
     many more are parked after that; shrunk: after those have completed, too, and the executor was asked for what it \
     does not need (the others cannot be asked)";

/// The tasks of a full measurement.
pub(crate) const TASKS: usize = 1_000_000;

/// The sizes of the futures, and how often each is measured: more would tell no more.
pub(crate) const SIZES: &[(usize, usize)] = &[(64, 3), (0, 1), (512, 1)];

/// One of the lines that the table has.
pub(crate) struct Line {
    pub(crate) row: &'static str,
    pub(crate) what: &'static str,
    /// Of a footprint with futures of so many bytes.
    pub(crate) size: usize,
    pub(crate) of: fn(&Footprint) -> Option<f64>,
    pub(crate) aims: Aims,
    /// Whether it may be about zero, so that a ratio would say nothing.
    pub(crate) about_zero: bool,
}

pub(crate) const LINES: &[Line] = &[
    Line::parked("memory/0", "bytes per parked task, empty future", 0),
    Line {
        aims: Aims {
            best: None,
            tokio: Some(0.28),
        },
        ..Line::parked(
            "memory/64",
            "bytes per parked task, 64-byte future, handle kept",
            64,
        )
    },
    Line::parked("memory/512", "bytes per parked task, 512-byte future", 512),
    Line::after("memory/kept", |footprint| Some(footprint.kept)),
    Line::after("memory/growth", |footprint| Some(footprint.growth)),
    Line::after("memory/shrunk", |footprint| footprint.shrunk),
];

impl Line {
    const fn parked(row: &'static str, what: &'static str, size: usize) -> Self {
        Self {
            row,
            what,
            size,
            of: |footprint| Some(footprint.parked),
            aims: Aims::NONE,
            about_zero: false,
        }
    }

    const fn after(row: &'static str, of: fn(&Footprint) -> Option<f64>) -> Self {
        Self {
            row,
            what: "",
            size: 64,
            of,
            aims: Aims::NONE,
            about_zero: true,
        }
    }
}

/// Bytes of resident memory per task.
pub(crate) struct Footprint {
    /// With all tasks parked and all handles held, over the state before the first spawn.
    pub(crate) parked: f64,
    /// With all tasks complete and all handles gone, over the state before the first spawn. The system allocator has
    /// a say in it: one block in use at the top of its heap keeps everything below resident.
    pub(crate) kept: f64,
    /// With as many tasks parked again, over `parked`.
    pub(crate) growth: f64,
    /// With those complete too, and after a [`shrink`](Peer::shrink), over the state before the first spawn.
    pub(crate) shrunk: Option<f64>,
}

impl Footprint {
    /// Reads what `Display` writes.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let numbers: Vec<f64> = text
            .split_whitespace()
            .map_while(|word| word.parse().ok())
            .collect();
        match numbers[..] {
            [parked, kept, growth, shrunk] => Some(Self {
                parked,
                kept,
                growth,
                shrunk: (!shrunk.is_nan()).then_some(shrunk),
            }),
            _ => None,
        }
    }
}

impl fmt::Display for Footprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            parked,
            kept,
            growth,
            ..
        } = self;
        write!(
            f,
            "{parked} {kept} {growth} {}",
            self.shrunk.unwrap_or(f64::NAN)
        )
    }
}

/// Parks `tasks` tasks, completes them, parks and completes as many again, and looks at this process each time.
///
/// The wakers by which the tasks are completed are in place, as no-ops, before the first look, so they are in no
/// figure. The handles are in the figures. Not measured: memory that is reserved and never touched.
///
/// Gives nothing if there is no future of that size here.
///
/// # Panics
///
/// If the system has no `/proc/self/status`, or the counts are not what they should be.
pub(crate) fn footprint<P: Peer>(tasks: usize, size: usize) -> Option<Footprint> {
    const { assert!(size_of::<Nothing>() == 0 && size_of::<Parked<5>>() == 64) };
    const {
        assert!(
            size_of::<Parked<61>>() == 512,
            "the rows promise these sizes"
        )
    };
    let stage = Stage::leak();
    stage.wakers.replace(vec![Waker::noop().clone(); tasks]);
    let footprint = match size {
        0 => footprint_of::<P, _>(stage, tasks, |_| Nothing::on(stage), |(): ()| 1, tasks),
        64 => footprint_of::<P, _>(
            stage,
            tasks,
            |index| Parked::<5>::new(stage, index),
            |index| index,
            sum_below(tasks),
        ),
        512 => footprint_of::<P, _>(
            stage,
            tasks,
            |index| Parked::<61>::new(stage, index),
            |index| index,
            sum_below(tasks),
        ),
        _ => return None,
    };
    assert_eq!(
        stage.polls(),
        4 * tasks,
        "each task is polled when spawned and when woken"
    );
    Some(footprint)
}

fn footprint_of<P: Peer, F: Future + 'static>(
    stage: &'static Stage,
    tasks: usize,
    make: impl Fn(usize) -> F,
    value: impl Fn(F::Output) -> usize,
    sum: usize,
) -> Footprint {
    let peer = P::new();
    let park = async || {
        stage.over.set(false);
        stage.expect(tasks);
        let mut handles = Vec::with_capacity(tasks);
        handles.extend((0..tasks).map(|index| peer.spawn(make(index))));
        stage.reached().await;
        handles
    };
    let complete = async |handles: Vec<P::Handle<F::Output>>| {
        stage.over.set(true);
        stage.wakers.borrow().iter().for_each(Waker::wake_by_ref);
        let mut found = 0;
        for handle in handles {
            found += value(P::returned(handle.await).expect("no task panics"));
        }
        assert_eq!(found, sum, "each task has returned what it should");
        // Some peers' wakers keep the task's memory. No-ops in their place keep the vector as it was at the first look.
        stage.wakers.borrow_mut().fill(Waker::noop().clone());
    };
    let per_task = |bytes: f64| bytes / tasks as f64;
    peer.block_on(async {
        let before = look();
        let first = park().await;
        let parked = look();
        complete(first).await;
        let kept = look();
        let second = park().await;
        let again = look();
        complete(second).await;
        Footprint {
            parked: per_task(parked - before),
            kept: per_task(kept - before),
            growth: per_task(again - parked),
            shrunk: peer.shrink().then(|| per_task(look() - before)),
        }
    })
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
