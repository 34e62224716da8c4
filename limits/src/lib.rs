//! Nothing: see `tests/limits.rs`.
