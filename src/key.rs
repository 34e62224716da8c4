//! Keys: what a waker is.
//!
//! A key packs `executor id | slot generation | slot index` into one machine word. It owns nothing and points at
//! nothing, so it can be copied, kept and compared for ever. Executor id 0 is never handed out: a word whose executor
//! field is 0 is no key at all, which is how vacant slots are marked.

use std::fmt;

/// How a word of some width is divided into the three fields of a key.
pub(crate) trait Word: Copy + Eq {
    /// Bits of the slot index (low).
    const INDEX_BITS: u32;
    /// Bits of the slot generation (middle).
    const GENERATION_BITS: u32;
    /// Bits of the executor id (high).
    const EXECUTOR_BITS: u32;

    fn pack(high: u64) -> Self;
    fn unpack(self) -> u64;
}

macro_rules! word {
    ($type:ty, $executor:literal, $generation:literal, $index:literal) => {
        impl Word for $type {
            const INDEX_BITS: u32 = $index;
            const GENERATION_BITS: u32 = $generation;
            const EXECUTOR_BITS: u32 = $executor;

            #[inline]
            #[allow(
                clippy::cast_possible_truncation,
                reason = "the three fields fill the word exactly, see the const assertion"
            )]
            fn pack(bits: u64) -> Self {
                bits as $type
            }

            #[inline]
            #[allow(clippy::unnecessary_cast, reason = "u64 is one of the widths")]
            fn unpack(self) -> u64 {
                self as u64
            }
        }
        const _: () = assert!($executor + $generation + $index == <$type>::BITS);
    };
}

// 67 million slots, 16,383 executors alive at once, and 2^24 spawns before a generation comes round again.
word!(u64, 14, 24, 26);
// The same fields for 32-bit targets: 262,144 slots, 31 executors.
word!(u32, 5, 9, 18);
#[cfg(target_pointer_width = "64")]
word!(usize, 14, 24, 26);
#[cfg(target_pointer_width = "32")]
word!(usize, 5, 9, 18);

/// The limits are low, so that tests can go beyond them (`limits/`).
const SMALL: bool = cfg!(mainstay_small);
/// How many different high parts the ids of tasks may have, beside their low one, which is a key's generation.
pub(crate) const ID_ROUNDS: u64 = if SMALL { 1 << 13 } else { (1 << 32) - 1 };

/// A waker's whole content: which executor, which slot, which tenant of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key<W: Word = usize>(W);

impl<W: Word> Key<W> {
    const EXECUTOR_SHIFT: u32 = W::INDEX_BITS + W::GENERATION_BITS;
    pub(crate) const INDEX_MASK: u64 = (1 << W::INDEX_BITS) - 1;
    pub(crate) const GENERATION_MASK: u64 = if SMALL {
        0b111
    } else {
        (1 << W::GENERATION_BITS) - 1
    };
    /// Executor ids run from 1 to this.
    pub(crate) const MAX_EXECUTOR: u32 = if SMALL {
        3
    } else {
        (1 << W::EXECUTOR_BITS) - 1
    };
    /// Slot indices run from 0 to this.
    pub(crate) const MAX_INDEX: u32 = if SMALL {
        1023
    } else {
        (1 << W::INDEX_BITS) - 1
    };

    #[inline]
    pub(crate) fn new(executor: u32, generation: u64, index: u32) -> Self {
        debug_assert!(executor <= Self::MAX_EXECUTOR && index <= Self::MAX_INDEX);
        let generation = generation & Self::GENERATION_MASK;
        Key(W::pack(
            u64::from(executor) << Self::EXECUTOR_SHIFT
                | generation << W::INDEX_BITS
                | u64::from(index),
        ))
    }

    #[inline]
    pub(crate) fn from_word(word: W) -> Self {
        Key(word)
    }

    #[inline]
    pub(crate) fn word(self) -> W {
        self.0
    }

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "at most 14 bits remain")]
    pub(crate) fn executor(self) -> u32 {
        (self.0.unpack() >> Self::EXECUTOR_SHIFT) as u32
    }

    #[inline]
    pub(crate) fn generation(self) -> u64 {
        self.0.unpack() >> W::INDEX_BITS & Self::GENERATION_MASK
    }

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "masked to at most 26 bits")]
    pub(crate) fn index(self) -> u32 {
        (self.0.unpack() & Self::INDEX_MASK) as u32
    }
}

impl Key<usize> {
    /// From a key of one generation to that of the next.
    pub(crate) const GENERATION_STEP: usize = 1 << <usize as Word>::INDEX_BITS;

    /// A word with a slot index and no executor: what a vacant slot carries. It equals no key.
    #[inline]
    pub(crate) const fn vacant(index: u32) -> usize {
        index as usize
    }
}

impl<W: Word> fmt::Debug for Key<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}v{}@{}",
            self.index(),
            self.generation(),
            self.executor()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::{Key, Word};

    /// Every field survives at both ends of its range, whatever its neighbours hold.
    fn fields_do_not_overlap<W: Word>() {
        let generations = [0, 1, Key::<W>::GENERATION_MASK];
        for executor in [1, 2, Key::<W>::MAX_EXECUTOR] {
            for generation in generations {
                for index in [0, 1, Key::<W>::MAX_INDEX] {
                    let key = Key::<W>::new(executor, generation, index);
                    assert_eq!(key.executor(), executor);
                    assert_eq!(key.generation(), generation);
                    assert_eq!(key.index(), index);
                    assert!(Key::from_word(key.word()) == key);
                    let vacant = Key(W::pack(u64::from(index)));
                    assert!(key != vacant, "a vacant slot answers to no key");
                }
            }
        }
    }

    #[test]
    fn fields_do_not_overlap_in_64_bits() {
        fields_do_not_overlap::<u64>();
    }

    #[test]
    fn fields_do_not_overlap_in_32_bits() {
        fields_do_not_overlap::<u32>();
    }

    #[test]
    fn a_generation_wraps_within_its_field() {
        fn check<W: Word>() {
            let key = Key::<W>::new(1, Key::<W>::GENERATION_MASK + 1, 3);
            assert_eq!(
                (key.executor(), key.generation(), key.index()),
                (1, 0, 3),
                "the carry must not reach the executor id"
            );
        }
        check::<u64>();
        check::<u32>();
    }

    #[test]
    fn debug_names_slot_generation_and_executor() {
        assert_eq!(format!("{:?}", Key::<u64>::new(5, 1, 3)), "3v1@5");
    }
}
