//! The workloads of the rows about another thread, in the manner of the other [workloads](super).

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    task::Waker,
    thread,
    time::{Duration, Instant},
};

use super::{
    super::{
        cpu::time_without_core,
        futures::{Answering, Hailed},
        peer::Peer,
        rows::Sample,
        stage::Stage,
    },
    sum_below,
};

/// Tasks that the hot thread wakes.
const TASKS: usize = 1_000;

/// When the hot thread stops, however many wakes are left: peers differ by a factor of fifty.
const STORM_AT_MOST: Duration = Duration::from_millis(50);

/// How often a storm is raised anew because its two threads had to share a core, which other programs may cause: it
/// would tell nothing of an executor that polls while another thread wakes.
const TRIES: usize = 5;

/// What the two threads of [`round_trip`] tell each other: the number of the latest question, and of the latest
/// answer.
#[derive(Default)]
pub(crate) struct Exchange {
    pub(crate) asked: AtomicUsize,
    pub(crate) answered: AtomicUsize,
}

/// Measures: another thread wakes a task, by reference, and parks; the task stores an answer and unparks it.
///
/// The executor has nothing else to do, so it is parked when most wakes come: the figure is two wake-ups of a thread,
/// and the executor's way into its own park is hidden in the other thread's way out. Not measured: spinning.
pub(crate) fn round_trip<P: Peer>(ops: usize) -> Sample {
    let (peer, stage) = (P::new(), Stage::leak());
    let exchange: &'static Exchange = Box::leak(Box::default());
    stage.wakers.replace(vec![Waker::noop().clone()]);
    let (last, asker) = peer.block_on(async {
        stage.expect(1);
        let (tell, told) = std::sync::mpsc::channel();
        let asker = thread::spawn(move || {
            let waker: Waker = told.recv().expect("the executor sends the task's waker");
            ask(exchange, &waker, 1);
            let start = Instant::now();
            for question in 2..=ops + 1 {
                ask(exchange, &waker, question);
            }
            start.elapsed()
        });
        let task = peer.spawn(Answering {
            stage,
            exchange,
            asker: asker.thread().clone(),
            last: ops + 1,
            registered: false,
        });
        stage.reached().await;
        let [waker] = &stage.wakers.take()[..] else {
            panic!("one task has registered")
        };
        tell.send(waker.clone()).expect("the asker is there");
        (P::returned(task.await), asker)
    });
    let time = asker.join().expect("the asker does not panic");
    assert_eq!(last, Some(ops + 1), "each question is answered");
    assert_eq!(stage.polls(), ops + 2, "each wake is one poll");
    Sample { ops, time }
}

fn ask(exchange: &Exchange, waker: &Waker, question: usize) {
    exchange.asked.store(question, Ordering::Release);
    waker.wake_by_ref();
    while exchange.answered.load(Ordering::Acquire) != question {
        thread::park();
    }
}

/// Measures: a wake by reference from a thread that does nothing but wake 1,000 tasks in turn, as fast as it can,
/// while the executor polls them; per wake that it issues.
///
/// Most wakes find their task queued. See [`polls`] for the executor's side.
pub(crate) fn wakes<P: Peer>(ops: usize) -> Sample {
    let storm = undisturbed_storm::<P>(ops);
    Sample {
        ops: storm.wakes,
        time: storm.issued - storm.started,
    }
}

/// Measures: the same, from the first wake to the end of the last poll, per poll.
///
/// An executor that is slower than the thread sees several wakes as one, so it has fewer polls to do, not more time
/// for each.
pub(crate) fn polls<P: Peer>(ops: usize) -> Sample {
    let storm = undisturbed_storm::<P>(ops);
    Sample {
        ops: storm.polls,
        time: storm.finished - storm.started,
    }
}

struct Storm {
    /// Those that are timed.
    wakes: usize,
    /// Those after the first wake.
    polls: usize,
    started: Instant,
    /// When the last of the timed wakes had been issued.
    issued: Instant,
    /// When all tasks had returned.
    finished: Instant,
    /// How long the two threads were ready to run and could not.
    without_core: Duration,
}

impl Storm {
    fn share_without_core(&self) -> f64 {
        self.without_core.as_secs_f64() / (self.finished - self.started).as_secs_f64()
    }
}

/// The first storm whose threads had a core each nearly all the time, or the one that came nearest to it.
fn undisturbed_storm<P: Peer>(ops: usize) -> Storm {
    let mut best = storm::<P>(ops);
    for _ in 1..TRIES {
        if best.share_without_core() < 0.1 {
            break;
        }
        let storm = storm::<P>(ops);
        if storm.share_without_core() < best.share_without_core() {
            best = storm;
        }
    }
    best
}

/// After the timed wakes, the tasks are told to return, and each gets one more.
fn storm<P: Peer>(ops: usize) -> Storm {
    let (peer, stage) = (P::new(), Stage::leak());
    let over: &'static AtomicBool = Box::leak(Box::default());
    stage.wakers.replace(vec![Waker::noop().clone(); TASKS]);
    let (sum, thread, finished, waited) = peer.block_on(async {
        stage.expect(TASKS);
        let hailed: Vec<_> = (0..TASKS)
            .map(|index| {
                peer.spawn(Hailed {
                    stage,
                    over,
                    index,
                    registered: false,
                })
            })
            .collect();
        stage.reached().await;
        let wakers = stage.wakers.take();
        let waited = time_without_core();
        let thread = thread::spawn(move || {
            let waited = time_without_core();
            let started = Instant::now();
            let (mut wakes, mut issued) = (0, started);
            while wakes < ops && issued - started < STORM_AT_MOST {
                wakers.iter().for_each(Waker::wake_by_ref);
                wakes += TASKS;
                issued = Instant::now();
            }
            over.store(true, Ordering::Release);
            wakers.iter().for_each(Waker::wake_by_ref);
            (wakes, started, issued, time_without_core() - waited)
        });
        let mut sum = 0;
        for handle in hailed {
            sum += P::returned(handle.await).expect("no task panics");
        }
        let finished = Instant::now();
        (sum, thread, finished, time_without_core() - waited)
    });
    let (wakes, started, issued, hot_waited) =
        thread.join().expect("the hot thread does not panic");
    let polls = stage.polls() - TASKS;
    assert_eq!(sum, sum_below(TASKS), "each task has returned its index");
    assert!(
        (TASKS..=wakes + TASKS).contains(&polls),
        "{polls} polls for {wakes} wakes and {TASKS} last ones"
    );
    Storm {
        wakes,
        polls,
        started,
        issued,
        finished,
        without_core: waited + hot_waited,
    }
}
