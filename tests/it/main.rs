//! The integration tests, in one binary (it links once), a module per hazard.

mod support;

mod accounting;
mod borrowed;
mod callbacks;
mod cancel;
mod capture;
mod containment;
mod driving;
mod failures;
mod groups_combinators;
mod groups_join_set;
mod groups_supervisor;
mod groups_task_group;
mod hostile;
mod memory;
mod oracles;
mod oracles_case;
mod oracles_combinations;
mod oracles_loop;
mod oracles_outcomes;
mod oracles_tasks;
mod oracles_time;
mod order;
mod reentry;
mod remote;
mod remote_handle;
mod retention;
mod shutdown;
mod spawner;
mod structure;
mod teardown;
mod time;
mod traits;
mod wake;
