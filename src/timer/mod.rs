//! The timers of the loop, ordered by (deadline, arming).
//!
//! [`Timers`] owns what each timer carries until it is disarmed or due. It never reads the clock: deadlines and the
//! present are given to it, so whoever drives it owns time. It calls no user code: values move in and out, and only
//! dropping the whole of it drops those that are left.
//!
//! # Structure
//!
//! Timers live in a slab (`nodes`); the node vacated last is let first. Time is cut into *ticks* of 2^20 ns, about a
//! millisecond. A timer whose tick is still to come waits in a *bucket* of the [`Wheel`]: 8 levels of 64 buckets,
//! each an unordered list through the slab; a bucket of level n is 64^n ticks wide. A timer whose tick has come is
//! *near*: it has an [`Entry`] in one of two places where order is exact, so that ticks make no timer early or late.
//!
//! ```text
//!             1 place                2 open                 4 pop_due
//!  (vacant) ──────────► Bucket ───────────────────► Opened ───────────► (vacant)
//!      │                 │  ▲                                              ▲
//!      │ 3 place         └──┘ 2 open                                       │
//!      │                                                4 pop_due          │
//!      └───────────────────────────────────────────► Late ─────────────────┘
//! ```
//!
//! 1. The tick is still to come. 2. The bucket has begun: what is near joins `opened`, which is then sorted, once;
//!    what is not goes to a lower level. 3. The tick has come or passed: `late` is a heap. 4. It is the earlier one
//!    of `opened`'s last and `late`'s first. From any place, `disarm` leads to vacant and `rearm` to 1 or 3.
//!
//! # Rules
//!
//! - **T1** The tick of a near timer is at most `present`, that of a timer in a bucket is greater. So near ones come
//!   first, and the first occupied bucket, which two bit scans find, holds the earliest of the others.
//! - **T2** An entry is *stale* when its order is not its node's: the timer was disarmed or armed anew. The last
//!   entry of `opened` and the first of `late` never are, so looking is exact; nor are more than 64 and more than
//!   half of `late`'s, so what was disarmed leaves nothing behind.
//! - **T3** A bucket knows its earliest timer until that one leaves. Whoever then asks walks the list; if that was
//!   long, the bucket is opened before anything else changes. So a timer is walked past in a crowd at most once a
//!   level.
//! - **T4** By T3 `present` may run ahead of the time. What is armed before it goes to `late`, and is as exact there;
//!   when most timers are late, the wheel starts again at the time it is told.
//!
//! # Complexity
//!
//! Arming, disarming and arming anew are O(1), or O(log n) in the number of late timers; asking for the next deadline
//! is O(1), amortised by T3. A timer that comes due has been moved down a level at a time, at most (of those that
//! sleep for less than 67 ms, half not at all), and sorted once among those of its tick. Nothing is done for ticks
//! that pass, however many. Nothing is allocated beyond the peak of what is armed at once, but for 12 KiB of buckets
//! when the first timer has to wait.

// Why a wheel: CPU time in ns / instructions per operation, the smallest of many runs on a busy 2-core x86-64 machine
// (1 MiB of L2 a core), the measuring loop's 30 to 60 instructions included; `T` is a `u64`. "4-ary heap" has
// back-pointers into the slab and removes at once. "Lazy heap" is std's `BinaryHeap` with stale entries, as `late`.
//
//                                                                   4-ary heap    lazy heap     this
//   arm and disarm 10 ms, among             0 sleeps of 1-100 ms     11 /  165      9 /  174    10 / 278
//                                       1,000                        23 /  558     11 /  250    10 / 275
//                                     100,000                        20 /  377     13 /  249    10 / 276
//   arm, ask, disarm 10 ms, ask, among  1,000 timeouts of 30-60 s    38 / 1048     47 /  771    12 / 348
//                                     100,000                        61 / 1772     76 / 1166    12 / 348
//   reset the oldest, asking twice, of  1,000 timeouts of 30 s       80 /  946     59 /  611    25 / 617
//                                     100,000                        71 / 1411     76 /  839    37 / 773
//   arm and pop                         1,000 sleeps of 1-100 ms     80 /  803     52 /  484    38 / 536
//                                     100,000                       127 / 1255     97 /  696    65 / 712
//                                   1,000,000                       402 / 1495    442 /  808   470 / 815
//   arm anew when due,                100,000 sleeps of 1-100 ms    140 / 1379    114 /  776    63 / 754
//   arm all, disarm all in order,     100,000 timeouts of 30 s       66 / 1256     67 /  763    11 / 280
//
// The lazy heap takes fewer instructions where few are armed, and loses by its cache misses and mispredicted branches
// where many are. A million that all expire cost a few misses each in any of them. Also tried: all near timers in
// `late`, which makes what comes due 35 to 50 ns dearer than sorting each tick once; ticks of 2^18 to 2^24 ns, and
// crowds of 4 to 64, which differ by less than the noise.

mod node;
#[cfg(test)]
mod tests;
mod wheel;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::num::NonZeroU64;
use std::time::Instant;

use node::{Entry, NONE, Node, Place};
use wheel::{HORIZON, Wheel, width};

/// How long `late` must be before it is tidied (rules T2 and T4).
const LATE: usize = 64;
/// The armed timers, each with a `T`.
pub(crate) struct Timers<T> {
    nodes: Vec<Node<T>>,
    /// The first vacant node; the others follow by `next`.
    vacant: u32,
    len: usize,
    /// The number given last: to a timer as its generation, to an arming as its order.
    numbers: NonZeroU64,
    /// Near timers that came out of buckets: the next one last.
    opened: Vec<Entry>,
    /// Near timers that never were in a bucket.
    late: BinaryHeap<Reverse<Entry>>,
    /// Entries of `late` that are stale.
    stale: usize,
    /// `None` until a timer has to wait: it starts at the first present that it is told.
    wheel: Option<Wheel>,
}

/// Names an armed timer. Never names another one later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TimerId {
    index: u32,
    /// Counts timers, not reuses of a node: 64 bits do not run out.
    generation: NonZeroU64,
}

impl<T> Timers<T> {
    pub(crate) fn new() -> Self {
        Timers {
            nodes: Vec::new(),
            vacant: NONE,
            len: 0,
            numbers: NonZeroU64::MIN,
            opened: Vec::new(),
            late: BinaryHeap::new(),
            stale: 0,
            wheel: None,
        }
    }

    /// How many are armed.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Arms a timer. The deadline may have passed: then it is due at once, in its order.
    #[inline]
    pub(crate) fn arm(&mut self, deadline: Instant, value: T) -> TimerId {
        self.settle();
        let generation = self.number();
        let index = self.vacant;
        let index = if let Some(node) = self.nodes.get_mut(index as usize) {
            self.vacant = node.next;
            node.value = Some(value);
            node.deadline = deadline;
            node.generation = generation;
            node.order = generation.get();
            index
        } else {
            self.add(deadline, value, generation)
        };
        self.len += 1;
        self.place(index);
        TimerId { index, generation }
    }

    /// Takes an armed timer back. `None` if it is no longer armed.
    #[inline]
    pub(crate) fn disarm(&mut self, id: TimerId) -> Option<T> {
        self.node(id)?;
        self.settle();
        let was_near = self.unplace(id.index);
        let value = self.vacate(id.index);
        if was_near {
            self.purge();
        }
        value
    }

    /// Gives an armed timer another deadline, as if it were armed only now. Returns whether it is still armed.
    pub(crate) fn rearm(&mut self, id: TimerId, deadline: Instant) -> bool {
        if self.node(id).is_none() {
            return false;
        }
        self.settle();
        let was_near = self.unplace(id.index);
        let order = self.number().get();
        let node = &mut self.nodes[id.index as usize];
        node.deadline = deadline;
        node.order = order;
        self.place(id.index);
        if was_near {
            self.purge();
        }
        true
    }

    /// Takes back every armed timer that `which` says; in proportion to the nodes there are.
    pub(crate) fn disarm_if(&mut self, which: impl Fn(&T) -> bool) -> Vec<T> {
        let mut ids = Vec::new();
        for (index, node) in (0..).zip(&self.nodes) {
            if node.value.as_ref().is_some_and(&which) {
                let generation = node.generation;
                ids.push(TimerId { index, generation });
            }
        }
        ids.into_iter().filter_map(|id| self.disarm(id)).collect()
    }

    /// Takes back every armed timer, at the end of it all.
    // Not `disarm_if` of all: with two callers more, `disarm` is no longer inlined where sleeps are dropped (39 instructions).
    pub(crate) fn take_all(&mut self) -> impl Iterator<Item = T> + use<T> {
        let all = std::mem::replace(self, Timers::new());
        all.nodes.into_iter().filter_map(|node| node.value)
    }

    /// What an armed timer carries.
    pub(crate) fn get_mut(&mut self, id: TimerId) -> Option<&mut T> {
        self.node(id)?;
        self.nodes[id.index as usize].value.as_mut()
    }

    /// When an armed timer will be due.
    #[cfg(test)]
    pub(crate) fn deadline(&self, id: TimerId) -> Option<Instant> {
        self.node(id).map(|node| node.deadline)
    }

    /// The earliest deadline of all, exactly.
    #[inline]
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        match self.next_near() {
            Some((entry, _)) => Some(entry.deadline),
            None => self.wheel.as_ref()?.earliest(&self.nodes),
        }
    }

    /// Takes the next timer whose deadline is not after `now`: the earliest one, and of equal ones the first armed.
    ///
    /// A caller that arms timers between two calls, with deadlines that have passed, may never see the end.
    #[inline]
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<(TimerId, Instant, T)> {
        if self.opened.is_empty() && self.late.is_empty() {
            if self.wheel.as_ref()?.earliest(&self.nodes)? > now {
                return None;
            }
            self.advance(now);
        }
        let (entry, place) = self.next_near()?;
        if entry.deadline > now {
            self.restart_if_late(now);
            return None;
        }
        if place == Place::Opened {
            self.opened.pop();
        } else {
            self.late.pop();
        }
        let id = TimerId {
            index: entry.index,
            generation: self.nodes[entry.index as usize].generation,
        };
        let value = self.vacate(entry.index)?;
        self.purge();
        Some((id, entry.deadline, value))
    }

    /// Gives back the memory that is not needed for what is armed now.
    ///
    /// Nodes do not move, so those before the last armed one stay.
    pub(crate) fn shrink(&mut self) {
        // Entries that are stale go first: their nodes may.
        let nodes = &self.nodes;
        self.opened.retain(|entry| !entry.is_stale(nodes));
        self.opened.shrink_to_fit();
        self.late.retain(|Reverse(entry)| !entry.is_stale(nodes));
        self.late.shrink_to_fit();
        self.stale = 0;
        if self.len == 0 {
            self.wheel = None;
        }

        let last = nodes.iter().rposition(|n| n.place != Place::Vacant);
        self.nodes.truncate(last.map_or(0, |last| last + 1));
        self.nodes.shrink_to_fit();
        // The lowest are let first, so that the next time more can go.
        self.vacant = NONE;
        for index in (0..u32::try_from(self.nodes.len()).unwrap_or(NONE)).rev() {
            let node = &mut self.nodes[index as usize];
            if node.place == Place::Vacant {
                node.next = self.vacant;
                self.vacant = index;
            }
        }
    }

    fn node(&self, id: TimerId) -> Option<&Node<T>> {
        let node = self.nodes.get(id.index as usize)?;
        (node.generation == id.generation && node.place != Place::Vacant).then_some(node)
    }

    fn number(&mut self) -> NonZeroU64 {
        self.numbers = self.numbers.saturating_add(1);
        self.numbers
    }

    /// Adds a node to the slab, for a timer that has still to be placed.
    #[cold]
    fn add(&mut self, deadline: Instant, value: T, generation: NonZeroU64) -> u32 {
        let index = u32::try_from(self.nodes.len())
            .ok()
            .filter(|&index| index != NONE)
            .expect("fewer than four billion timers are armed");
        self.nodes.push(Node {
            value: Some(value),
            deadline,
            generation,
            order: generation.get(),
            tick: 0,
            place: Place::Vacant,
            next: NONE,
            prev: NONE,
        });
        index
    }

    fn vacate(&mut self, index: u32) -> Option<T> {
        let node = &mut self.nodes[index as usize];
        node.place = Place::Vacant;
        node.order = 0;
        node.next = self.vacant;
        self.vacant = index;
        self.len -= 1;
        node.value.take()
    }

    /// Puts a timer where its deadline belongs (rule T1).
    #[inline]
    fn place(&mut self, index: u32) {
        let node = &mut self.nodes[index as usize];
        if let Some(wheel) = &mut self.wheel {
            let tick = wheel.tick(node.deadline);
            if tick > wheel.present {
                node.tick = tick;
                wheel.link(&mut self.nodes, index);
                return;
            }
        }
        node.place = Place::Late;
        self.late.push(Reverse(Entry {
            deadline: node.deadline,
            order: node.order,
            index,
        }));
    }

    /// Undoes `place`, but for the entry of a near timer, which the caller makes stale. Returns whether there is one.
    fn unplace(&mut self, index: u32) -> bool {
        let place = self.nodes[index as usize].place;
        if let Place::Bucket(bucket) = place {
            if let Some(wheel) = &mut self.wheel {
                wheel.unlink(&mut self.nodes, index, bucket);
            }
            return false;
        }
        self.stale += usize::from(place == Place::Late);
        true
    }

    /// The next near timer, and where its entry is.
    #[inline]
    fn next_near(&self) -> Option<(Entry, Place)> {
        match (self.opened.last(), self.late.peek()) {
            (Some(opened), Some(Reverse(late))) if late < opened => Some((*late, Place::Late)),
            (Some(opened), _) => Some((*opened, Place::Opened)),
            (None, Some(Reverse(late))) => Some((*late, Place::Late)),
            (None, None) => None,
        }
    }

    /// Restores rule T2.
    #[inline]
    fn purge(&mut self) {
        while self.opened.last().is_some_and(|e| e.is_stale(&self.nodes)) {
            self.opened.pop();
        }
        if self.stale > 0 {
            self.purge_late();
        }
    }

    fn purge_late(&mut self) {
        let nodes = &self.nodes;
        if self.stale > LATE && self.stale > self.late.len() / 2 {
            self.late.retain(|Reverse(entry)| !entry.is_stale(nodes));
            self.stale = 0;
        }
        while self.late.peek().is_some_and(|e| e.0.is_stale(nodes)) {
            self.late.pop();
            self.stale -= 1;
        }
    }

    /// Opens the bucket of which a crowd was walked past (rule T3), before anything can change.
    #[inline]
    fn settle(&mut self) {
        if self.wheel.as_ref().is_some_and(|w| w.crowded.get()) {
            self.open_first();
        }
    }

    #[cold]
    fn open_first(&mut self) {
        let Some(wheel) = &mut self.wheel else { return };
        if let Some(bucket) = wheel.first() {
            wheel.present = wheel.start(bucket);
            wheel.open(bucket, &mut self.nodes, &mut self.opened);
            self.sort_opened();
        }
    }

    /// Opens the buckets that have begun by `now`. Only while nothing is near.
    fn advance(&mut self, now: Instant) {
        let Some(wheel) = &mut self.wheel else { return };
        let tick = wheel.tick(now);
        if tick > HORIZON {
            self.restart(now);
            return;
        }
        while let Some(bucket) = wheel.first() {
            let start = wheel.start(bucket);
            if start > tick {
                break;
            }
            wheel.present = tick.min(start + (width(bucket) - 1));
            wheel.open(bucket, &mut self.nodes, &mut self.opened);
        }
        wheel.present = wheel.present.max(tick);
        self.sort_opened();
    }

    fn sort_opened(&mut self) {
        self.opened.sort_unstable_by(|a, b| b.cmp(a));
    }

    /// Starts the wheel when there is none, and anew when most timers are late because it ran ahead (rule T4).
    fn restart_if_late(&mut self, now: Instant) {
        let restart = match &self.wheel {
            None => true,
            Some(wheel) => {
                self.late.len() > LATE.max(self.len / 2) && wheel.present > wheel.tick(now)
            }
        };
        if restart {
            self.restart(now);
        }
    }

    /// Starts the wheel at `now`, and places every timer anew.
    #[cold]
    fn restart(&mut self, now: Instant) {
        let nodes = &mut self.nodes;
        let mut all = NONE;
        let mut add = |nodes: &mut [Node<T>], index: u32| {
            nodes[index as usize].next = all;
            all = index;
        };
        let late = self.late.drain().map(|Reverse(entry)| entry);
        for entry in self.opened.drain(..).chain(late) {
            if !entry.is_stale(nodes) {
                add(nodes, entry.index);
            }
        }
        self.stale = 0;
        let mut wheel = self.wheel.take().unwrap_or_else(|| Wheel::new(now));
        while let Some(bucket) = wheel.first() {
            let mut at = wheel.take(bucket);
            while at != NONE {
                let next = nodes[at as usize].next;
                add(nodes, at);
                at = next;
            }
        }
        wheel.base = now;
        wheel.present = 0;
        self.wheel = Some(wheel);
        while all != NONE {
            let next = self.nodes[all as usize].next;
            self.place(all);
            all = next;
        }
    }
}
