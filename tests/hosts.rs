//! Runs the example with a host loop and asserts all that it prints, in order.

mod example_output;

use example_output::assert_prints;

#[test]
fn calloop_host_runs_every_task_and_keeps_drawing() {
    assert_prints(
        "calloop_host",
        "\
== a task sleeps by the host's timer
and goes on
== a callback of the host spawns a task
a callback of the host has spawned this
== a thread hands over work, and waits for what comes of it
it got Ok(42)
== a task that never rests leaves the host its turns
the host has drawn three frames meanwhile
== a task fails
Task panicked
  task: Task-4 (id 4), spawned at examples/calloop_host.rs:_
  exception: the left engine stalled
  debug: panic \"the left engine stalled\"
its handle says: task Task-4 panicked: the left engine stalled
== a task ticks its own executor
Task panicked
  task: ticks (id 5), spawned at examples/calloop_host.rs:_
  exception: mainstay: `tick` was called on an executor that is being driven already, from inside one of its own tasks, callbacks or handlers; await there instead of blocking
  debug: panic \"mainstay: `tick` was called on an executor that is being driven already, from inside one of its own tasks, callbacks or handlers; await there instead of blocking\"
== the end
0 tasks are left
",
    );
}
