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
    // Another tenant of the slot has another key.
    let next = Key::<W>::new(executor, generation.wrapping_add(1), index);
    assert!(next.word() != key.word());
}

/// What is in a vacant slot is no key, but for that of executor 0, which there never is.
fn check_vacant(bytes: &mut Bytes<'_>) {
    let index = (bytes.word() % (u64::from(Key::<usize>::MAX_INDEX) + 1)) as u32;
    let executor = bytes.word() % (u64::from(Key::<usize>::MAX_EXECUTOR) + 1);
    let vacant = Key::<usize>::from_word(Key::<usize>::vacant(index));
    assert_eq!((vacant.executor(), vacant.index()), (0, index));
    let key = Key::<usize>::new(executor as u32, bytes.word(), index);
    assert!(executor == 0 || vacant.word() != key.word());
}

fuzz_target!(|data: &[u8]| {
    let mut bytes = Bytes(data);
    check_vacant(&mut bytes);
    check::<u64>(&mut bytes);
    check::<u32>(&mut bytes);
    check::<usize>(&mut bytes);
});
