//! The timer queue against a sorted vector, and corner by corner.

use super::node::{Entry, NONE, Place};
use super::wheel::{CROWD, LEVELS, SLOTS, level, slot};
use super::{LATE, TimerId, Timers};
use std::cmp::Reverse;
use std::time::{Duration, Instant};

const NANO: Duration = Duration::from_nanos(1);
const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// A present with room for a past before it.
fn present() -> Instant {
    Instant::now() + YEAR
}

/// Timers whose wheel has started at `now`.
fn started<T>(now: Instant, value: T) -> Timers<T> {
    let mut timers = Timers::new();
    let id = timers.arm(now + HOUR, value);
    assert!(timers.pop_due(now).is_none());
    timers.disarm(id);
    assert!(timers.wheel.is_some());
    timers
}

fn pop_all<T>(timers: &mut Timers<T>, now: Instant) -> Vec<T> {
    let mut values = Vec::new();
    while let Some((id, deadline, value)) = timers.pop_due(now) {
        assert!(deadline <= now);
        assert!(timers.deadline(id).is_none());
        values.push(value);
    }
    values
}

/// Holds `timers` to the module's rules.
#[track_caller]
fn check<T>(timers: &Timers<T>) {
    let nodes = &timers.nodes;
    let mut seen = vec![0; nodes.len()];

    let mut at = timers.vacant;
    while at != NONE {
        let node = &nodes[at as usize];
        assert!(node.place == Place::Vacant && node.value.is_none() && node.order == 0);
        seen[at as usize] += 1;
        at = node.next;
    }

    let present = timers.wheel.as_ref().map_or(0, |wheel| wheel.present);
    let mut near = |entry: &Entry, place: Place| {
        if entry.is_stale(nodes) {
            return false;
        }
        let node = &nodes[entry.index as usize];
        assert!(node.place == place && node.deadline == entry.deadline);
        if let Some(wheel) = &timers.wheel {
            assert!(wheel.tick(node.deadline) <= present);
        }
        seen[entry.index as usize] += 1;
        true
    };
    assert!(timers.opened.is_sorted_by(|a, b| a > b));
    for (i, entry) in timers.opened.iter().rev().enumerate() {
        assert!(near(entry, Place::Opened) || i > 0);
    }
    let fresh = timers.late.iter().filter(|e| near(&e.0, Place::Late));
    assert_eq!(fresh.count() + timers.stale, timers.late.len());
    assert!(
        timers
            .late
            .peek()
            .is_none_or(|Reverse(e)| !e.is_stale(nodes))
    );
    assert!(timers.stale <= LATE.max(timers.late.len() / 2));

    if let Some(wheel) = &timers.wheel {
        for bucket in 0..u16::try_from(LEVELS * SLOTS).unwrap() {
            let place = &wheel.buckets[bucket as usize];
            let (level, slot) = (level(bucket), slot(bucket));
            assert_eq!(wheel.occupied[level] >> slot & 1 == 1, place.head != NONE);
            let mut earliest: Option<Instant> = None;
            let (mut at, mut prev) = (place.head, NONE);
            while at != NONE {
                let node = &nodes[at as usize];
                assert!(node.place == Place::Bucket(bucket) && node.prev == prev);
                assert!(node.tick > wheel.present && node.tick == wheel.tick(node.deadline));
                let differ = (node.tick ^ wheel.present).ilog2() / 6;
                assert_eq!(level, differ as usize);
                assert_eq!(slot as u64, node.tick >> (6 * differ) & 63);
                earliest = Some(earliest.map_or(node.deadline, |e| e.min(node.deadline)));
                seen[at as usize] += 1;
                (prev, at) = (at, node.next);
            }
            if let Some(earliest) = earliest {
                assert!(place.earliest.get() <= earliest);
                if let Some(first) = nodes.get(place.first.get() as usize) {
                    assert!(first.place == Place::Bucket(bucket));
                    assert_eq!(first.deadline, earliest);
                    assert_eq!(place.earliest.get(), earliest);
                }
            }
        }
        for level in 0..LEVELS {
            assert_eq!(wheel.levels >> level & 1 == 1, wheel.occupied[level] != 0);
        }
    }

    assert!(seen.iter().all(|&times| times == 1));
    let armed = nodes.iter().filter(|n| n.place != Place::Vacant);
    assert_eq!(armed.count(), timers.len());
}

/// xorshift64*: the same on every machine.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }
}

#[test]
fn all_can_be_taken_from_wherever_they_wait() {
    let now = present();
    let mut timers = started(now, 0);
    let late = timers.arm(now - HOUR, 1);
    timers.arm(now + MS, 2);
    timers.arm(now + HOUR, 3);
    timers.arm(now, 4);
    timers.disarm(late);
    let mut all: Vec<i32> = timers.take_all().collect();
    all.sort_unstable();
    assert_eq!(all, [2, 3, 4]);
    assert!(timers.is_empty());
    assert_eq!(timers.next_deadline(), None);
}

#[test]
fn timers_are_due_by_deadline_on_every_level() {
    let now = present();
    let mut timers = started(now, 0);
    let delays: Vec<_> = (0..54).map(|bit| Duration::from_nanos(1 << bit)).collect();
    for (i, delay) in delays.iter().enumerate().rev() {
        timers.arm(now + *delay, i);
    }
    check(&timers);
    for (i, delay) in delays.iter().enumerate() {
        let deadline = now + *delay;
        assert_eq!(timers.next_deadline(), Some(deadline));
        assert!(timers.pop_due(deadline - NANO).is_none());
        check(&timers);
        let (_, at, value) = timers.pop_due(deadline).unwrap();
        assert_eq!((at, value), (deadline, i));
        check(&timers);
    }
    assert!(timers.is_empty());
    assert_eq!(timers.next_deadline(), None);
}

#[test]
fn the_first_look_at_the_time_starts_the_wheel() {
    let now = present();
    let mut timers = Timers::new();
    assert!(timers.pop_due(now).is_none());
    for i in 0..1000u32 {
        timers.arm(now + MS * (1000 - i), i);
    }
    check(&timers);
    assert_eq!(timers.next_deadline(), Some(now + MS));
    assert_eq!(pop_all(&mut timers, now + MS), [999]);
    assert!(timers.late.len() < 2, "they moved to the wheel");
    check(&timers);
    let rest: Vec<_> = (0..999).rev().collect();
    assert_eq!(pop_all(&mut timers, now + HOUR), rest);
}

#[test]
fn equal_deadlines_are_due_in_the_order_of_arming() {
    let start = present();
    for delay in [Duration::ZERO, NANO, MS, MS * 100, HOUR, YEAR * 20] {
        let deadline = start + delay;
        let mut timers = started(start, 0);
        let mut now = start;
        // Armed before, while and after the deadline's bucket moves down the levels.
        for i in 0..400 {
            timers.arm(deadline, i);
            timers.arm(deadline + NANO, 1000 + i);
            if i % 40 == 0 && now < deadline {
                now += delay / 10;
                assert!(timers.pop_due(now.min(deadline - NANO)).is_none());
                check(&timers);
            }
        }
        let expected: Vec<_> = (0..400).collect();
        assert_eq!(pop_all(&mut timers, deadline), expected);
        let expected: Vec<_> = (1000..1400).collect();
        assert_eq!(pop_all(&mut timers, deadline + NANO), expected);
    }
}

#[test]
fn no_timer_is_due_early_and_none_late() {
    let start = present();
    let mut timers = started(start, start);
    let mut rng = Rng(11);
    for _ in 0..2000 {
        let deadline = start + Duration::from_nanos(rng.next() % 5_000_000_000);
        timers.arm(deadline, deadline);
    }
    let mut now = start;
    let mut last = start;
    while !timers.is_empty() {
        now += Duration::from_nanos(rng.next() % 4_000_000);
        while let Some((_, deadline, value)) = timers.pop_due(now) {
            assert_eq!(deadline, value);
            assert!(last <= deadline && deadline <= now);
            last = deadline;
        }
        assert!(timers.next_deadline().is_none_or(|next| next > now));
    }
}

#[test]
fn deadlines_that_have_passed_are_due_at_once_in_their_order() {
    let now = present();
    let mut timers = started(now, 0);
    timers.arm(now + MS, 5);
    timers.arm(now - MS, 3);
    timers.arm(now - HOUR, 1);
    timers.arm(now, 4);
    timers.arm(now - HOUR, 2);
    timers.arm(now - HOUR - NANO, 0);
    check(&timers);
    assert_eq!(timers.next_deadline(), Some(now - HOUR - NANO));
    assert_eq!(pop_all(&mut timers, now), [0, 1, 2, 3, 4]);
    assert_eq!(timers.next_deadline(), Some(now + MS));
    timers.arm(now, 6);
    assert_eq!(pop_all(&mut timers, now + MS), [6, 5]);
}

#[test]
fn the_first_the_middle_and_the_last_of_a_list_can_be_disarmed() {
    let now = present();
    for place in ["bucket", "opened", "late"] {
        for victims in [&[0][..], &[1], &[2], &[0, 1], &[2, 1], &[0, 2, 1]] {
            let mut timers = started(now, 9);
            let arm = |timers: &mut Timers<u32>, i| timers.arm(now + HOUR + NANO * i, i);
            let mut ids: Vec<_> = (0..3).map(|i| arm(&mut timers, i)).collect();
            match place {
                "opened" => assert!(timers.pop_due(now + HOUR - NANO).is_none()),
                "late" => {
                    let wheel = timers.wheel.as_mut().unwrap();
                    wheel.present = wheel.tick(now + HOUR);
                    while let Some(bucket) = wheel.first() {
                        wheel.take(bucket);
                    }
                    for id in &ids {
                        timers.place(id.index);
                    }
                    check(&timers);
                    ids.truncate(3);
                }
                _ => {}
            }
            for &victim in victims {
                let id = ids[usize::try_from(victim).unwrap()];
                assert_eq!(timers.disarm(id), Some(victim));
                assert_eq!(timers.disarm(id), None);
                check(&timers);
            }
            let rest: Vec<_> = (0..3).filter(|i| !victims.contains(i)).collect();
            let first = rest.first().map(|&i| now + HOUR + NANO * i);
            assert_eq!(timers.next_deadline(), first);
            assert_eq!(pop_all(&mut timers, now + HOUR * 2), rest);
        }
    }
}

#[test]
fn a_stale_id_never_hits_a_later_tenant() {
    let now = present();
    let mut timers = started(now, 0);
    let disarmed = timers.arm(now + MS, 1);
    timers.disarm(disarmed);
    let expired = timers.arm(now + MS, 2);
    assert_eq!(disarmed.index, expired.index);
    assert_eq!(pop_all(&mut timers, now + MS), [2]);
    let tenant = timers.arm(now + HOUR, 3);
    for id in [disarmed, expired] {
        assert_ne!(id, tenant);
        assert_eq!(timers.disarm(id), None);
        assert!(!timers.rearm(id, now));
        assert_eq!(timers.get_mut(id), None);
        assert_eq!(timers.deadline(id), None);
    }
    timers.disarm(tenant);
    timers.shrink();
    assert_eq!(timers.disarm(tenant), None);
    let again = timers.arm(now + HOUR, 4);
    assert_eq!(timers.disarm(tenant), None);
    assert_eq!(timers.disarm(again), Some(4));
}

#[test]
fn arming_anew_counts_as_arming_and_keeps_the_id() {
    let now = present();
    let mut timers = started(now, 0);
    let at = now + MS * 50;
    let ids = [1, 2, 3].map(|i| timers.arm(at, i));
    assert!(timers.rearm(ids[0], at));
    check(&timers);
    assert_eq!(timers.deadline(ids[0]), Some(at));
    // To and fro between what is near and what is not.
    for deadline in [now - MS, now + HOUR, now, now + YEAR, at] {
        assert!(timers.rearm(ids[1], deadline));
        assert_eq!(timers.deadline(ids[1]), Some(deadline));
        assert_eq!(timers.next_deadline(), Some(deadline.min(at)));
        check(&timers);
    }
    // Also while they are about to be due.
    assert!(timers.pop_due(at - NANO).is_none());
    assert!(timers.rearm(ids[2], at));
    assert_eq!(pop_all(&mut timers, at), [1, 2, 3]);
    assert!(!timers.rearm(ids[0], at));
}

#[test]
fn what_a_timer_carries_can_be_reached_while_it_is_armed() {
    let now = present();
    let mut timers = started(now, "");
    let id = timers.arm(now + MS, "a");
    *timers.get_mut(id).unwrap() = "b";
    assert_eq!(timers.deadline(id), Some(now + MS));
    assert_eq!(timers.pop_due(now + MS), Some((id, now + MS, "b")));
    assert_eq!(timers.get_mut(id), None);
}

#[test]
fn far_deadlines_are_exact() {
    let now = present();
    let mut timers = started(now, 0);
    let years = [
        10_000, 1000, 1000, 585, 584, 583, 300, 293, 292, 291, 150, 10, 1,
    ];
    let mut expected = Vec::new();
    for (i, years) in years.into_iter().enumerate() {
        for nanos in [2, 0, 1] {
            let deadline = now + YEAR * years + NANO * nanos;
            timers.arm(deadline, i * 3 + nanos as usize);
            expected.push((deadline, i * 3 + nanos as usize));
        }
    }
    expected.sort();
    check(&timers);
    for (deadline, value) in expected {
        assert_eq!(timers.next_deadline(), Some(deadline));
        assert!(timers.pop_due(deadline - NANO).is_none());
        check(&timers);
        let (_, at, got) = timers.pop_due(deadline).unwrap();
        assert_eq!((at, got), (deadline, value));
        // The wheel serves what is armed by then as it did at first.
        let id = timers.arm(deadline + HOUR, 0);
        assert!(matches!(
            timers.nodes[id.index as usize].place,
            Place::Bucket(_)
        ));
        timers.disarm(id);
        check(&timers);
    }
}

#[test]
fn a_jump_of_years_does_not_visit_the_ticks_between() {
    let mut now = present();
    let mut timers = started(now, 0);
    // 3 x 10^13 ticks: a visit to each would take days.
    for i in 0..100 {
        timers.arm(now + YEAR * 10, i);
        now += YEAR * 5;
        assert!(timers.pop_due(now).is_none());
        now += YEAR * 5;
        assert_eq!(pop_all(&mut timers, now), [i]);
    }
}

#[test]
fn a_jump_over_everything_keeps_the_order() {
    let now = present();
    let mut timers = started(now, (now, 0));
    let mut rng = Rng(5);
    let mut expected = Vec::new();
    for i in 0..3000 {
        let range = 1 << (rng.next() % 60);
        let deadline = now + Duration::from_nanos(rng.next() % range);
        timers.arm(deadline, (deadline, i));
        expected.push((deadline, i));
    }
    expected.sort();
    assert_eq!(pop_all(&mut timers, now + YEAR * 100), expected);
}

#[test]
fn a_million_armed_and_cancelled_leave_nothing_behind() {
    let count = if cfg!(miri) { 2_000 } else { 1_000_000 };
    let now = present();
    let mut timers = started(now, 0);
    // The first of those that have passed: the others do not leave from the top.
    let kept = timers.arm(now - HOUR, 7);
    // One after another, far, near and passed.
    for i in 0..count {
        let id = timers.arm(now + MS * (i % 500), i);
        let late = timers.arm(now - NANO * i, i);
        if i % 3 == 0 {
            assert!(timers.rearm(late, now - MS * i));
        }
        assert_eq!(timers.disarm(id), Some(i));
        assert_eq!(timers.disarm(late), Some(i));
    }
    check(&timers);
    assert!(timers.nodes.capacity() <= 8);
    assert!(timers.late.capacity() <= 4 * LATE);
    // All at once: what they took can be given back.
    let ids: Vec<TimerId> = (0..count)
        .map(|i| timers.arm(now + HOUR + MS * (i / 10), i))
        .collect();
    assert_eq!(timers.len(), ids.len() + 1);
    for id in ids {
        assert!(timers.disarm(id).is_some());
    }
    check(&timers);
    assert_eq!(timers.len(), 1);
    timers.shrink();
    check(&timers);
    assert!(timers.nodes.capacity() <= 8);
    assert!(timers.opened.capacity() + timers.late.capacity() <= 8);
    assert_eq!(timers.disarm(kept), Some(7));
    timers.shrink();
    assert!(timers.wheel.is_none());
    assert_eq!(timers.nodes.capacity(), 0);
}

#[test]
fn a_million_can_be_armed_and_the_next_million_takes_no_more_memory() {
    let count: u32 = if cfg!(miri) { 1_000 } else { 1_000_000 };
    let mut now = present();
    let mut timers = started(now, 0);
    let mut capacity = 0;
    for round in 0..2 {
        for i in 0..count {
            timers.arm(
                now + NANO * (i.wrapping_mul(2_654_435_761) % 100_000_000),
                i,
            );
        }
        assert_eq!(timers.len(), count as usize);
        assert!(round == 0 || timers.nodes.capacity() == capacity);
        capacity = timers.nodes.capacity();
        now += MS * 100;
        assert_eq!(pop_all(&mut timers, now).len(), count as usize);
    }
    check(&timers);
}

#[test]
fn entries_of_disarmed_timers_do_not_pile_up() {
    let now = present();
    let mut timers = started(now, 0);
    // It is next, so that the entries behind it are not simply taken off.
    timers.arm(now - HOUR, 1);
    for n in 0..1_000 {
        let id = timers.arm(now - MS, n);
        timers.disarm(id);
        check(&timers);
        assert!(
            timers.late.len() <= LATE + 2,
            "{} entries",
            timers.late.len()
        );
    }
    timers.shrink();
    check(&timers);
    assert_eq!((timers.late.len(), timers.stale), (1, 0));
    assert_eq!(pop_all(&mut timers, now), [1]);

    // The same of those that came out of a bucket.
    let ids = [1, 2, 3].map(|n| timers.arm(now + HOUR + n * NANO, n));
    let first = timers.pop_due(now + HOUR + NANO).expect("it is due");
    assert_eq!((first.0, first.2), (ids[0], 1));
    assert!(timers.disarm(ids[2]).is_some());
    assert_eq!(timers.opened.len(), 2);
    timers.shrink();
    check(&timers);
    assert_eq!(timers.opened.len(), 1);
    assert_eq!(pop_all(&mut timers, now + 2 * HOUR), [2]);
}

#[test]
fn a_shrunk_slab_still_lets_the_nodes_between() {
    let now = present();
    let mut timers = started(now, 0);
    let ids: Vec<_> = (0..100).map(|i| timers.arm(now + MS * i, i)).collect();
    for (i, id) in ids.iter().enumerate() {
        if i != 20 && i != 50 {
            timers.disarm(*id);
        }
    }
    timers.shrink();
    check(&timers);
    let nodes = timers.nodes.len();
    assert_eq!(nodes, ids[50].index as usize + 1);
    for i in 0..49 {
        timers.arm(now + HOUR, i);
    }
    check(&timers);
    assert_eq!(timers.nodes.len(), nodes);
    assert_eq!(pop_all(&mut timers, now + MS * 100), [20, 50]);
}

#[test]
fn a_crowd_is_walked_past_once_a_level() {
    let now = present();
    let count = u32::try_from(CROWD).unwrap() * 40;
    // In one bucket, far up.
    let at = now + HOUR;
    for shorter_between in [false, true] {
        let mut timers = started(now, 0);
        let ids: Vec<_> = (0..count).map(|i| timers.arm(at + NANO * i, i)).collect();
        let mut crowds = 0;
        for (i, id) in (0..count - 1).zip(ids) {
            // While another bucket is the first one, this one cannot be opened.
            let before = now + MS * (100 + i);
            let shorter = shorter_between.then(|| timers.arm(before, 0));
            timers.disarm(id);
            if let Some(shorter) = shorter {
                assert_eq!(timers.next_deadline(), Some(before));
                timers.disarm(shorter);
            }
            assert_eq!(timers.next_deadline(), Some(at + NANO * (i + 1)));
            crowds += usize::from(timers.wheel.as_ref().unwrap().crowded.get());
            check(&timers);
        }
        assert!(crowds <= LEVELS, "{crowds}");
    }
}

#[test]
fn late_timers_go_to_the_wheel_when_they_are_many() {
    let now = present();
    let mut timers = started(now, 0);
    let mut far: Vec<_> = (0..200)
        .map(|i| timers.arm(now + HOUR + NANO * i, i))
        .collect();
    while timers.opened.is_empty() {
        timers.disarm(far.remove(0));
        timers.next_deadline();
    }
    // Now the wheel runs ahead, and what is armed is late.
    for i in 0..500 {
        timers.arm(now + MS * (500 - i), i);
    }
    assert_eq!(timers.late.len(), 500);
    check(&timers);
    assert!(timers.pop_due(now).is_none());
    assert!(timers.late.len() < 2 && timers.opened.is_empty());
    check(&timers);
    let expected: Vec<_> = (0..500).rev().collect();
    assert_eq!(pop_all(&mut timers, now + MS * 500), expected);
    assert_eq!(timers.next_deadline(), timers.deadline(far[0]));
}

/// What `Timers` claims to be, by the shortest way.
#[derive(Default)]
struct Model {
    /// Sorted.
    armed: Vec<(Instant, u64, TimerId)>,
    orders: u64,
}

impl Model {
    fn arm(&mut self, deadline: Instant, id: TimerId) {
        self.orders += 1;
        let at = self
            .armed
            .partition_point(|&(d, o, _)| (d, o) < (deadline, self.orders));
        self.armed.insert(at, (deadline, self.orders, id));
    }

    fn remove(&mut self, id: TimerId) -> Option<Instant> {
        let at = self.armed.iter().position(|entry| entry.2 == id)?;
        Some(self.armed.remove(at).0)
    }
}

/// A deadline about `now`: mostly in one of a few ranges, so that there are crowds, and coarse, so that many are
/// equal.
fn some_deadline(rng: &mut Rng, now: Instant) -> Instant {
    let grains = [1, 1, 1_000, 250_000, 1 << 20, 10_000_000, 1_000_000_000];
    let grain = grains[rng.below(grains.len())];
    let nanos = match rng.below(20) {
        0 => return now - Duration::from_nanos(rng.next() % 5 * grain),
        1 => return now,
        2 => rng.next() % 10 * grain,
        3..8 => rng.next() % 5_000_000,
        8..12 => rng.next() % 100_000_000,
        12..14 => 30_000_000_000 + rng.next() % 2_000_000_000,
        14 => 3_600_000_000_000,
        15 => rng.next() % (1 << (rng.next() % 55)),
        16 if rng.below(8) == 0 => {
            return now + YEAR * u32::try_from(rng.below(700)).unwrap();
        }
        _ => rng.next() % 20_000_000,
    };
    now + Duration::from_nanos(nanos / grain * grain)
}

fn some_step(rng: &mut Rng) -> Duration {
    Duration::from_nanos(match rng.below(400) {
        0 => return YEAR * u32::try_from(rng.below(100)).unwrap(),
        1 => rng.next() % 5_000_000_000_000,
        2..10 => rng.next() % 2_000_000_000,
        10..100 => rng.next() % 20_000_000,
        _ => rng.next() % 2_000_000,
    })
}

/// Drives `Timers` and the model with the same random operations.
fn agree(seed: u64, operations: usize) {
    let mut rng = Rng(seed);
    let mut now = present();
    let mut timers = Timers::new();
    let mut model = Model::default();
    let mut stale: Vec<TimerId> = Vec::new();
    let mut most = 50;
    for operation in 0..operations {
        if operation % 2_000 == 0 {
            most = [3, 30, 300, 1000][rng.below(4)];
        }
        let any = (!model.armed.is_empty()).then(|| rng.below(model.armed.len()));
        match (rng.below(100), any) {
            (0..45, _) if model.armed.len() < most => {
                let deadline = some_deadline(&mut rng, now);
                let id = timers.arm(deadline, deadline);
                model.arm(deadline, id);
            }
            (0..60, Some(any)) => {
                // The first more often than by chance: it is the one that matters.
                let at = if rng.below(3) == 0 { 0 } else { any };
                let (deadline, _, id) = model.armed.remove(at);
                assert_eq!(timers.disarm(id), Some(deadline));
                stale.push(id);
            }
            (60..72, Some(any)) => {
                let id = model.armed[any].2;
                let deadline = some_deadline(&mut rng, now);
                *timers.get_mut(id).unwrap() = deadline;
                assert!(timers.rearm(id, deadline));
                assert!(model.remove(id).is_some());
                model.arm(deadline, id);
            }
            (72..75, _) if !stale.is_empty() => {
                let id = stale.swap_remove(rng.below(stale.len()));
                assert_eq!(timers.deadline(id), None);
                assert!(!timers.rearm(id, now));
                assert_eq!(timers.disarm(id), None);
            }
            (75..98, _) => {
                now += match (rng.below(4), model.armed.first()) {
                    (0, Some(first)) => first.0.saturating_duration_since(now),
                    _ => some_step(&mut rng),
                };
                // Sometimes the time is looked at, and not all is taken.
                let mut takes = [usize::MAX, 0, 1, 10][rng.below(4)];
                while takes > 0 {
                    takes -= 1;
                    let due = model.armed.first().filter(|first| first.0 <= now);
                    let expected = due.map(|&(deadline, _, id)| (id, deadline, deadline));
                    assert_eq!(timers.pop_due(now), expected);
                    let Some((id, ..)) = expected else { break };
                    model.armed.remove(0);
                    stale.push(id);
                }
            }
            (98, _) if rng.below(10) == 0 => timers.shrink(),
            _ => {}
        }
        stale.truncate(100);
        assert_eq!(timers.len(), model.armed.len());
        if rng.below(3) > 0 {
            assert_eq!(timers.next_deadline(), model.armed.first().map(|e| e.0));
        }
        if operation % 101 == 0 {
            check(&timers);
            if let Some(&(deadline, _, id)) = model.armed.last() {
                assert_eq!(timers.deadline(id), Some(deadline));
            }
        }
    }
    check(&timers);
}

#[test]
fn random_operations_agree_with_a_sorted_list() {
    let (seeds, operations) = if cfg!(miri) { (2, 1_500) } else { (12, 25_000) };
    for seed in 1..=seeds {
        agree(0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(seed), operations);
    }
}
