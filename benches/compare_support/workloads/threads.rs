//! The workload of several executors, one on each thread.

use std::{
    pin::Pin,
    rc::Rc,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    task::{Context, Poll},
    thread,
    time::Instant,
};

use async_channel::{Receiver, Sender};

use super::super::{peer::Peer, rows::Sample};

/// Tokens that each thread starts with.
const TOKENS: usize = 1_000;

/// Polls of a token's task on each visit.
const STEPS: usize = 10;

/// Starts a task for a token on the executor that it belongs to, from any thread.
pub(crate) type Post = Box<dyn Fn(Token) + Send + Sync>;

/// Goes from thread to thread, and counts its polls.
pub(crate) struct Token {
    relay: Arc<Relay>,
    /// The thread that it visits.
    at: usize,
    /// Visits to come, with this one.
    visits: usize,
    polls: usize,
}

/// What the threads share.
struct Relay {
    stations: Vec<Station>,
    /// Tokens under way.
    left: AtomicUsize,
    polls: AtomicUsize,
    finished: OnceLock<Instant>,
}

struct Station {
    post: Post,
    /// Closed when all is done.
    open: Sender<Token>,
}

/// The task of a token on one thread.
pub(crate) struct Visit {
    token: Option<Token>,
    steps: usize,
}

impl Visit {
    pub(crate) fn of(token: Token) -> Self {
        Self {
            token: Some(token),
            steps: STEPS,
        }
    }
}

impl Future for Visit {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.steps -= 1;
        let last = self.steps == 0;
        if let Some(token) = &mut self.token {
            token.polls += 1;
        }
        if !last {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let Some(token) = self.token.take() {
            token.go_on();
        }
        Poll::Ready(())
    }
}

impl Token {
    fn go_on(mut self) {
        self.visits -= 1;
        let relay = Arc::clone(&self.relay);
        if self.visits > 0 {
            self.at = (self.at + 1) % relay.stations.len();
            (relay.stations[self.at].post)(self);
            return;
        }
        relay.polls.fetch_add(self.polls, Ordering::Relaxed);
        if relay.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            relay.finished.set(Instant::now()).ok();
            for station in &relay.stations {
                station.open.close();
            }
        }
    }
}

/// Measures: polls of tasks that wake themselves ten times and then go on to the executor of the next thread, where a
/// task of its own takes over; 1,000 of them for each thread; the time on the wall by the number of all polls.
///
/// mainstay sends a closure that spawns the task, through a `Spawner`. The others have nothing for that, so a channel
/// (async-channel, unbounded) and a task that receives and spawns do it. With one thread, all go on to that same one.
pub(crate) fn relay<P: Peer>(threads: usize, ops: usize) -> Sample {
    let visits = ops.div_ceil(threads * TOKENS * STEPS);
    let (tell, told) = mpsc::channel();
    let running: Vec<_> = (0..threads)
        .map(|at| {
            let (start, started) = mpsc::channel();
            let tell = tell.clone();
            let thread = thread::spawn(move || {
                let peer = Rc::new(P::new());
                let (open, inbox) = async_channel::unbounded();
                let post = peer.post().unwrap_or_else(|| {
                    let open = open.clone();
                    Box::new(move |token| open.try_send(token).expect("the relay is running"))
                });
                tell.send((at, Station { post, open }))
                    .expect("the main thread waits");
                let relay: Arc<Relay> = started.recv().expect("the main thread starts all");
                host(&peer, inbox, &relay, at, visits);
            });
            (thread, start)
        })
        .collect();
    let mut stations: Vec<_> = (0..threads)
        .map(|_| told.recv().expect("each thread has an executor"))
        .collect();
    stations.sort_by_key(|(at, _)| *at);
    let relay = Arc::new(Relay {
        stations: stations.into_iter().map(|(_, station)| station).collect(),
        left: AtomicUsize::new(threads * TOKENS),
        polls: AtomicUsize::new(0),
        finished: OnceLock::new(),
    });
    let begun = Instant::now();
    let threads_done: Vec<_> = running
        .into_iter()
        .map(|(thread, start)| {
            start.send(Arc::clone(&relay)).expect("the thread waits");
            thread
        })
        .collect();
    for thread in threads_done {
        thread.join().expect("no executor panics");
    }
    let ops = threads * TOKENS * visits * STEPS;
    assert_eq!(
        relay.polls.load(Ordering::Relaxed),
        ops,
        "each wake is one poll"
    );
    let finished = relay
        .finished
        .get()
        .expect("all tokens have come to their end");
    Sample {
        ops,
        time: *finished - begun,
    }
}

/// Runs the executor of one thread until all is done.
fn host<P: Peer>(
    peer: &Rc<P>,
    inbox: Receiver<Token>,
    relay: &Arc<Relay>,
    at: usize,
    visits: usize,
) {
    peer.block_on(async {
        for _ in 0..TOKENS {
            peer.spawn_detached(Visit::of(Token {
                relay: Arc::clone(relay),
                at,
                visits,
                polls: 0,
            }));
        }
        let spawning = Rc::clone(peer);
        let receiving = peer.spawn(async move {
            while let Ok(token) = inbox.recv().await {
                spawning.spawn_detached(Visit::of(token));
            }
        });
        P::returned(receiving.await).expect("receiving does not panic");
    });
}
