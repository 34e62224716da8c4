//! The comparison of `benches/compare.rs` with the peers that are long to build, or that not every system runs.

// One harness for both: what is measured, and how, is the same.
#[path = "../compare_support/mod.rs"]
mod compare_support;

mod async_io;
mod compio_rt;
mod embassy;
mod glommio;
mod monoio;

use std::process::ExitCode;

use compare_support::{peer::Column, peers};

fn main() -> ExitCode {
    let mut columns = peers::columns();
    columns.extend([
        Column::of::<async_io::AsyncExIo>(),
        Column::of::<compio_rt::CompioRt>(),
        Column::of::<monoio::MonoioLegacy>(),
        Column::of::<monoio::MonoioUring>(),
        Column::of::<glommio::Glommio>(),
        Column::of::<embassy::Embassy>(),
    ]);
    compare_support::main("compare-all", columns)
}
