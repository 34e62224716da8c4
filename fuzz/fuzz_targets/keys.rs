//! The packing of keys, for both word widths: what goes in comes out, fields do not touch each other.
#![no_main]

mod bytes;
#[allow(dead_code, reason = "parts of it are the library's alone")]
#[path = "../../src/key.rs"]
mod key;

use bytes::Bytes;
use key::{Key, Word};
use libfuzzer_sys::fuzz_target;

fn check<W: Word + std::fmt::Debug>(bytes: &mut Bytes<'_>) {
    let executor = (bytes.word() % (u64::from(Key::<W>::MAX_EXECUTOR) + 1)) as u32;
    let generation = bytes.word();
    let index = (bytes.word() % (u64::from(Key::<W>::MAX_INDEX) + 1)) as u32;
    let key = Key::<W>::new(executor, generation, index);
    let again = Key::from_word(key.word());
    assert_eq!(again.executor(), executor);
    assert_eq!(again.generation(), generation & Key::<W>::GENERATION_MASK);
    assert_eq!(again.index(), index);
    let vacant = Key::<W>::vacant(index);
    assert_eq!((vacant.executor(), vacant.index()), (0, index));
    assert!(executor == 0 || vacant.word() != key.word());
    // Another tenant of the slot has another key.
    let next = Key::<W>::new(executor, generation.wrapping_add(1), index);
    assert!(next.word() != key.word());
}

fuzz_target!(|data: &[u8]| {
    let mut bytes = Bytes(data);
    check::<u64>(&mut bytes);
    check::<u32>(&mut bytes);
    check::<usize>(&mut bytes);
});
