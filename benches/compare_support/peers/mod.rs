//! The executors that are compared, each in a file of its own.

mod async_executor;
mod compio;
mod local_pool;
pub(crate) mod mainstay;
pub(crate) mod root;
mod tokio;

use super::peer::Column;

/// The column that the others are peers of.
pub(crate) const OURS: &str = "mainstay";

/// The peers that build in little time, in the order of the table.
pub(crate) fn columns() -> Vec<Column> {
    vec![
        Column::of::<mainstay::Mainstay>(),
        Column::of::<tokio::TokioLocal>(),
        Column::of::<tokio::TokioLocalRt>(),
        Column::of::<tokio::TokioLocalRtAll>(),
        Column::of::<async_executor::AsyncEx>(),
        Column::of::<async_executor::AsyncExStatic>(),
        Column::of::<local_pool::Pool>(),
        Column::of::<compio::CompioEx>(),
    ]
}
