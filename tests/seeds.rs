//! Runs the examples that follow the project's source documents and asserts all that they print, in order.

mod example_output;

use example_output::assert_prints;

#[test]
fn log_exceptions_tells_late_unless_a_callback_asks() {
    assert_prints(
        "log_exceptions",
        "\
== a failure that nobody asks for
[INFO  log_exceptions] Main is starting
[INFO  log_exceptions] Task is starting
[INFO  log_exceptions] Main is done
[ERROR mainstay] Task exception was never retrieved
      task: Task-1 (id 1), spawned at examples/log_exceptions.rs:_
      exception: Something bad happened
      debug: Something bad happened
== a done callback logs it
[INFO  log_exceptions] Main is starting
[INFO  log_exceptions] Task is starting
[ERROR log_exceptions] Task-2, spawned at examples/log_exceptions.rs:_, failed with exception Something bad happened
[INFO  log_exceptions] Main is done
== a helper spawns and adds the callback
[INFO  log_exceptions] Main is starting
[INFO  log_exceptions] Task is starting
[ERROR log_exceptions] Task-3, spawned at examples/log_exceptions.rs:_, failed with exception Something bad happened
[INFO  log_exceptions] Main is done
== nobody asks, and the handle is kept
[INFO  log_exceptions] Main is starting
[INFO  log_exceptions] Task is starting
[INFO  log_exceptions] Main is done
[INFO  log_exceptions] The executor goes
[ERROR mainstay] Task exception was never retrieved
      task: Task-4 (id 4), spawned at examples/log_exceptions.rs:_
      exception: Something bad happened
      debug: Something bad happened
[INFO  log_exceptions] Task-4 is still in hand
",
    );
}

#[test]
fn exception_handling_answers_every_question_with_a_value() {
    assert_prints(
        "exception_handling",
        "\
== the exception of a task that did not fail
main coroutine started
executing the task
exception: None
main coroutine done
== the exception of a task that failed
main coroutine started
executing the task
exception: Something bad happened
main coroutine done
== the exception of a task that is running
main coroutine started
executing the task
ExceptionError::Pending: the task has not finished yet; await the handle, or ask `is_finished()` first
main coroutine done
== the exception of a task that was cancelled
main coroutine started
executing the task
ExceptionError::Cancelled: the task was cancelled, so that it has no exception
main coroutine done
== a failure handled at `await`
main coroutine started
executing the task
Failed with: Something bad happened
main coroutine done
== a failure handled at `result()`
main coroutine started
executing the task
Failed with: Something bad happened
main coroutine done
== the accounts
3 failed = 3 retrieved + 0 reported
",
    );
}

#[test]
fn spawn_and_forget_prints_each_failure_once_and_leaves_no_task() {
    assert_prints(
        "spawn_and_forget",
        "\
== the idiom
blah blah stuff goes here
Starting task 1
Starting task 2
Task-2 failed: there is no function `slep`
Ending task 1
Shutting down
Unfinished tasks: []
== in mainstay's own words
blah blah stuff goes here
Starting task 1
Starting task 2
Task exception was never retrieved
  task: Task-4 (id 4), spawned at examples/spawn_and_forget.rs:_
  exception: there is no function `slep`
  debug: there is no function `slep`
Ending task 1
Shutting down
Unfinished tasks: []
",
    );
}

// P1, P2: the subprocess dies, and the write that comes too late is told. (Its text is Linux's.)
#[cfg(target_os = "linux")]
#[test]
fn gtk_style_keeps_the_window_alive_and_tells_every_error() {
    assert_prints(
        "gtk_style",
        "\
== clicks write to a subprocess
the callbacks have returned
the subprocess got: one
the subprocess got: two
the subprocess got: three
== one that stalls makes its task wait, and not the window
the window was redrawn; written: false
the other end reads again; written: true
== a dialog, opened by a callback, has a main loop of its own
a task runs while the dialog is open
the dialog is closed
== and one that is opened by a task
no tick within a tick: the tasks go on when the dialog is closed
== errors are seen
Task panicked
  task: typo (id 9), spawned at examples/gtk_style.rs:_
  exception: there is no function `slep`
  debug: panic \"there is no function `slep`\"
Task returned an error
  task: send \"anybody there?\" (id 10), spawned at examples/gtk_style.rs:_
  exception: Broken pipe (os error 32)
  debug: Os { code: 32, kind: BrokenPipe, message: \"Broken pipe\" }
== the window is closed
Unfinished tasks: []
",
    );
}
