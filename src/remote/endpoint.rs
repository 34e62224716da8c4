//! One executor's mailbox for other threads: wakes, cancels, and the token that makes the loop look.
//!
//! # The protocol of a remote wake
//!
//! Every slot index has a *link*: one `u32` that holds the woken bit (top) and the next link of an intrusive list
//! (the rest). A wake turns the bit on; whoever turned it on links the index in and notifies. The home thread takes the
//! whole list with one swap. So a wake never allocates, never blocks, never waits for another thread's progress, and a
//! task that is woken a million times occupies one entry (P7).
//!
//! - **R1** A wake sets the bit with a read-modify-write, *never* after looking at it with a plain load. The home thread
//!   may have cleared the bit a moment ago without the load seeing it, and the duplicate's data must be published by
//!   the very operation that the home thread's clearing reads.
//! - **R2** The bit is cleared, with acquire, at *every* dequeue, whoever lives in that slot now, and before the wake is
//!   applied. Otherwise a wake that arrives while the task runs would be taken for a duplicate.
//! - **R3** The list carries slot *indices*. A dequeued index wakes whoever lives there now: were it a whole key, a
//!   stale waker's key could occupy the bit and swallow the wake of the living tenant.
//!
//! All stores to a link after its bit is on are read-modify-writes, so that they continue the release sequence of the
//! duplicates (`fetch_or`) before them.

use crossbeam_queue::SegQueue;
use std::any::Any;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicPtr, Ordering as StdOrdering};
use std::task::Waker;

use crate::park::Parker;
use crate::sync::{AtomicU32, OnceLock, Ordering, RwLock};
use crate::wide::Wide;

/// The woken bit of a link.
const WOKEN: u32 = 1 << 31;
/// The end of the list. Entries are slot index + 1.
const END: u32 = 0;

/// Links of the first chunk; chunk `n` holds `FIRST << n` of them.
const FIRST: usize = 64;
const CHUNKS: usize = 21;

/// A cancellation that came from another thread, to be carried out at home.
#[derive(Debug)]
pub(crate) struct CancelRequest {
    pub(crate) index: u32,
    /// The `TaskId`, never reused: a stale request hits nobody.
    pub(crate) id: u64,
    pub(crate) reason: Option<Box<str>>,
}

/// See the module documentation.
pub(crate) struct Endpoint {
    id: u32,
    parker: Parker,
    head: AtomicU32,
    chunks: [OnceLock<Box<[AtomicU32]>>; CHUNKS],
    cancels: SegQueue<CancelRequest>,
    /// Panics of what is the host's (its wake hook, its waker), which runs on whichever thread wakes; told at home.
    hook_panics: SegQueue<Box<dyn Any + Send>>,
    /// The arena that owns this endpoint, for the home thread's own use. Never followed here.
    owner: AtomicPtr<()>,
    /// The number of the owner's thread.
    home: Wide,
    /// What to wake besides the parker: a host loop's hook. Always a waker of our own making, so that cloning it runs
    /// no user code.
    host: RwLock<Option<Waker>>,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Endpoint {
    pub(crate) fn new(id: u32) -> Self {
        Endpoint {
            id,
            parker: Parker::new(),
            head: AtomicU32::new(END),
            chunks: [const { OnceLock::new() }; CHUNKS],
            cancels: SegQueue::new(),
            hook_panics: SegQueue::new(),
            owner: AtomicPtr::new(std::ptr::null_mut()),
            home: Wide::new(0),
            host: RwLock::new(None),
        }
    }

    #[inline]
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// The arena that owns this endpoint. Only its own thread may follow the pointer, while the arena lives.
    #[inline]
    pub(crate) fn owner(&self) -> *mut () {
        self.owner.load(StdOrdering::Relaxed)
    }

    /// The arena that owns this endpoint, if the calling thread, whose number is `here`, is its own. Any thread.
    ///
    /// A thread that reads another's owner reads, by the acquire, that owner's home too, or a later one's; and a later one's
    /// that is its own it would have stored itself.
    #[inline]
    pub(crate) fn owner_at_home(&self, here: u64) -> Option<NonNull<()>> {
        let owner = NonNull::new(self.owner.load(StdOrdering::Acquire))?;
        (self.home.load() == here).then_some(owner)
    }

    /// Gives the endpoint to an arena, on that arena's thread.
    pub(crate) fn set_owner(&self, owner: *mut (), home: u64) {
        self.home.store(home);
        self.owner.store(owner, StdOrdering::Release);
    }

    /// The owner goes. Home thread.
    pub(crate) fn forget_owner(&self) {
        self.owner.store(std::ptr::null_mut(), StdOrdering::Relaxed);
    }

    #[inline]
    pub(crate) fn parker(&self) -> &Parker {
        &self.parker
    }

    /// Forgets what came too late for the owner before. Home thread of the new owner, before it hands out a key.
    pub(crate) fn clear(&self) {
        self.parker.take();
        self.drain_wakes(|_| {});
        while self.cancels.pop().is_some() {}
    }

    /// Makes links for the slot indices below `slots`. Home thread, before a key with such an index is handed out.
    /// `false`: out of memory; what was made stays, and there is no key to it.
    #[must_use]
    pub(crate) fn reserve(&self, slots: u32) -> bool {
        if slots == 0 {
            return true;
        }
        let (last, _) = place(slots - 1);
        for (n, chunk) in self.chunks.iter().enumerate().take(last + 1) {
            if chunk.get().is_some() {
                continue;
            }
            let mut links = Vec::new();
            if links.try_reserve_exact(FIRST << n).is_err() {
                return false;
            }
            links.resize_with(FIRST << n, || AtomicU32::new(0));
            chunk.get_or_init(|| links.into_boxed_slice());
        }
        true
    }

    #[inline]
    fn link(&self, index: u32) -> Option<&AtomicU32> {
        let (chunk, offset) = place(index);
        self.chunks.get(chunk)?.get()?.get(offset)
    }

    /// Wakes whoever lives in slot `index`. Any thread, any time.
    pub(crate) fn wake(&self, index: u32) {
        let Some(link) = self.link(index) else { return };
        // R1. A duplicate ends here: the entry that is already linked stands for this wake too, and the home thread's
        // clearing of the bit reads from this operation or a later one.
        if link.fetch_or(WOKEN, Ordering::AcqRel) & WOKEN != 0 {
            return;
        }
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            link.swap(WOKEN | head, Ordering::AcqRel);
            match self.head.compare_exchange_weak(
                head,
                index + 1,
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => break,
                Err(now) => head = now,
            }
        }
        // Every pusher notifies, not only the one that found the list empty: that one may be preempted here.
        self.notify();
    }

    /// Takes all wakes that are there now and gives their slot indices to `apply`, the newest first. Home thread.
    pub(crate) fn drain_wakes(&self, mut apply: impl FnMut(u32)) {
        if self.head.load(Ordering::Relaxed) == END {
            // The token was taken with acquire before; a wake that is not visible yet sets it again.
            return;
        }
        let mut next = self.head.swap(END, Ordering::AcqRel);
        while next != END {
            let index = next - 1;
            let Some(link) = self.link(index) else {
                unreachable!("only indices with a link are linked in")
            };
            // R2: this both reads the next entry and clears the bit. From here on the index may be linked in again.
            next = link.swap(0, Ordering::AcqRel) & !WOKEN;
            apply(index);
        }
    }

    /// Hands a cancellation to the home thread. Any thread.
    pub(crate) fn cancel(&self, request: CancelRequest) {
        self.cancels.push(request);
        self.notify();
    }

    /// The next cancellation that came from another thread. Home thread.
    pub(crate) fn next_cancel(&self) -> Option<CancelRequest> {
        self.cancels.pop()
    }

    /// How many cancellations are waiting: what one drain may take.
    pub(crate) fn cancels(&self) -> usize {
        self.cancels.len()
    }

    /// Leaves the payload of a wake hook's panic for the home thread to report, when it looks next. Any thread.
    ///
    /// It does not set the token: that would be a token of which no host was told, and hide the wakes after it.
    pub(crate) fn hook_panicked(&self, payload: Box<dyn Any + Send>) {
        self.hook_panics.push(payload);
    }

    /// The next unreported panic of the wake hook. Home thread.
    pub(crate) fn next_hook_panic(&self) -> Option<Box<dyn Any + Send>> {
        self.hook_panics.pop()
    }

    /// Makes the home thread look at its queues: ends its park, and wakes its host where it has one. Any thread.
    pub(crate) fn notify(&self) {
        if !self.parker.unpark() {
            // Somebody else turned the token on and has told, or is telling, the host: wakes are coalesced until the
            // home thread takes the token.
            return;
        }
        self.tell_host();
    }

    fn tell_host(&self) {
        // `try_read` fails only while the home thread is changing the hook; it looks at the token itself afterwards.
        let host = match self.host.try_read() {
            Ok(host) => host.clone(),
            Err(_) => None,
        };
        if let Some(host) = host {
            host.wake();
        }
    }

    /// Sets what is woken besides the parker. Home thread.
    pub(crate) fn set_host(&self, host: Option<Waker>) {
        let old = {
            let mut slot = self.host.write().unwrap_or_else(|e| e.into_inner());
            std::mem::replace(&mut *slot, host)
        };
        drop(old);
        // A wake that met the write lock could not tell the host. This look at the token is a read-modify-write, so it
        // either reads that wake's token, or comes before it, and then that wake finds the lock free.
        if self.parker.is_notified_exactly() {
            self.tell_host();
        }
    }
}

/// The chunk and the offset in it of a slot index.
#[inline]
fn place(index: u32) -> (usize, usize) {
    let n = index as usize / FIRST + 1;
    let chunk = n.ilog2() as usize;
    let start = ((1 << chunk) - 1) * FIRST;
    (chunk, index as usize - start)
}

#[cfg(all(test, not(mainstay_loom)))]
mod tests {
    use super::{CHUNKS, Endpoint, FIRST, place};
    use crate::key::Key;

    fn drained(endpoint: &Endpoint) -> Vec<u32> {
        let mut out = Vec::new();
        endpoint.drain_wakes(|index| out.push(index));
        out.reverse();
        out
    }

    #[test]
    fn every_index_has_one_place() {
        let mut next = (0, 0);
        for index in 0..10_000 {
            assert_eq!(place(index), next);
            next.1 += 1;
            if next.1 == FIRST << next.0 {
                next = (next.0 + 1, 0);
            }
        }
        let (chunk, offset) = place(<Key>::MAX_INDEX);
        assert!(chunk < CHUNKS && offset < FIRST << chunk);
    }

    #[test]
    fn wakes_come_out_in_order_and_once() {
        let endpoint = Endpoint::new(1);
        assert!(endpoint.reserve(300));
        for index in [7, 299, 0, 7, 7, 0] {
            endpoint.wake(index);
        }
        assert_eq!(drained(&endpoint), [7, 299, 0]);
        assert_eq!(drained(&endpoint), []);
        endpoint.wake(7);
        assert_eq!(
            drained(&endpoint),
            [7],
            "R2: the bit was cleared at the dequeue"
        );
    }

    #[test]
    fn a_wake_of_a_slot_that_never_was_is_nothing() {
        let endpoint = Endpoint::new(1);
        endpoint.wake(3);
        assert!(endpoint.reserve(1));
        endpoint.wake(<Key>::MAX_INDEX);
        assert_eq!(drained(&endpoint), []);
    }

    #[test]
    fn a_wake_sets_the_token() {
        let endpoint = Endpoint::new(1);
        assert!(endpoint.reserve(1));
        endpoint.wake(0);
        assert!(endpoint.parker().take());
        assert!(!endpoint.parker().take());
    }
}
