//! Programs of `tests/model`, run by the library and by the reference: both must tell the same.
#![no_main]

mod bytes;
#[path = "../../tests/model/language.rs"]
mod language;
#[path = "../../tests/model/real.rs"]
mod real;
#[path = "../../tests/model/reference.rs"]
mod reference;

use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use bytes::Bytes;
use language::{Choices, Random};
use libfuzzer_sys::fuzz_target;
use reference::Model;

impl Choices for Bytes<'_> {
    fn below(&mut self, n: u8) -> u8 {
        self.byte() % n
    }
}

/// The fuzzer aborts at every panic; those of scripts are meant, and caught.
fn quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let abort = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !info.payload().is::<real::Boom>() {
                abort(info);
            }
        }));
        real::listen();
    });
}

fuzz_target!(|data: &[u8]| {
    quiet();
    let program = Random(Bytes(data)).program();
    let told = catch_unwind(AssertUnwindSafe(|| real::play(&program)));
    let told = told.unwrap_or_else(|_| panic!("a panic was let out:\n{}", program.to_rust()));
    let expected = Model::new(&program).play();
    if told != expected {
        let at = told.iter().zip(&expected).position(|(a, b)| a != b);
        let at = at.unwrap_or(told.len().min(expected.len()));
        panic!(
            "line {at}: {:?}, expected {:?}; the program:\n{}",
            told.get(at),
            expected.get(at),
            program.to_rust()
        );
    }
});
