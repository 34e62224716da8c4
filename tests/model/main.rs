//! The executor beside a reference: random programs are run by both, and everything that they tell must be the same, in
//! the same order: polls, destructors, callbacks, reports, results of every call, counters (P1, P2, P6, P8, P9).
//!
//! ```text
//! MAINSTAY_MODEL=1000000 cargo test --release --test model      how many programs
//! MAINSTAY_SEED=123 cargo test --test model                     this one alone
//! ```
//!
//! A program that fails is made as short as it gets and printed as Rust, to be kept in `regressions`.
#![allow(
    clippy::print_stdout,
    reason = "a program that fails is printed as it is to be kept"
)]

mod language;
mod real;
mod reference;
mod regressions;
mod shrink;

use std::panic::{self, AssertUnwindSafe, catch_unwind};

use language::{Program, Random, Seed};
use reference::Model;

/// How many programs there are, unless the environment says otherwise.
const PROGRAMS: u64 = 20_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Panics of scripts are meant, and print nothing.
fn quiet() {
    let earlier = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if !info.payload().is::<real::Boom>() {
            earlier(info);
        }
    }));
    real::listen();
}

/// Runs a program on both; where the two differ, says where.
fn compare(program: &Program) -> Result<(), String> {
    let real = catch_unwind(AssertUnwindSafe(|| real::play(program)));
    let real = real.map_err(|_| "the library let a panic out".to_owned())?;
    let model = Model::new(program).play();
    let differs = real
        .iter()
        .zip(&model)
        .position(|(real, model)| real != model);
    let at = match differs {
        Some(at) => at,
        None if real.len() == model.len() => return Ok(()),
        None => real.len().min(model.len()),
    };
    if number("MAINSTAY_LINES").is_some() {
        println!(
            "LIB\n{}\nREF\n{}",
            real[at..].join("\n"),
            model[at..].join("\n")
        );
    }
    let line = |trace: &[String]| trace.get(at).cloned().unwrap_or("(the end)".to_owned());
    Err(format!(
        "{}\n  library:   {}\n  reference: {}",
        real[at.saturating_sub(12)..at].join("\n"),
        line(&real),
        line(&model)
    ))
}

fn check(program: &Program, name: &str) {
    let Err(why) = compare(program) else { return };
    println!("{name} fails:\n{why}\n");
    let short = shrink::shrink(program, |program| compare(program).is_err());
    println!("the shortest that fails:\n{}", short.to_rust());
    let why = compare(&short).expect_err("it was found to fail");
    panic!("{name}: the library and the reference differ:\n{why}");
}

#[test]
fn the_library_does_what_the_reference_does() {
    quiet();
    for (at, program) in regressions::all().iter().enumerate() {
        check(program, &format!("regression {at}"));
    }
    let count = number("MAINSTAY_MODEL").unwrap_or(PROGRAMS);
    let seeds = match number("MAINSTAY_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..count,
    };
    for seed in seeds {
        check(
            &Random(Seed(seed)).program(),
            &format!("MAINSTAY_SEED={seed}"),
        );
    }
}
