//! Programs on which the library and the reference once differed, each as short as it got.

use super::language::{Op, Program, Script, Step};

fn program(if_unretrieved: bool, scripts: &[(&[Op], &[Op])], steps: &[Step]) -> Program {
    Program {
        if_unretrieved,
        two: false,
        scripts: scripts
            .iter()
            .map(|(ops, on_drop)| Script {
                ops: ops.to_vec(),
                on_drop: on_drop.to_vec(),
            })
            .collect(),
        steps: steps.to_vec(),
    }
}

fn two_executors(if_unretrieved: bool, scripts: &[(&[Op], &[Op])], steps: &[Step]) -> Program {
    Program {
        two: true,
        ..program(if_unretrieved, scripts, steps)
    }
}

pub(crate) fn all() -> Vec<Program> {
    vec![
        // A handler of a failed task removes its callback: too late, though it has yet to be called.
        program(
            false,
            &[
                (&[Op::RemoveCallback(0)], &[]),
                (&[Op::AddCallback { task: 0, script: 3 }, Op::Panic], &[]),
                (
                    &[
                        Op::Spawn {
                            script: 1,
                            fallible: true,
                        },
                        Op::SetHandler(0),
                    ],
                    &[],
                ),
                (&[], &[]),
            ],
            &[Step::Do(2), Step::UntilStalled],
        ),
        // What is still to be told when a tick's budget is used up is told after the next poll, also if a task that was
        // cancelled was to be polled before it.
        program(
            false,
            &[
                (
                    &[Op::Spawn {
                        script: 1,
                        fallible: true,
                    }],
                    &[],
                ),
                (
                    &[
                        Op::Spawn {
                            script: 4,
                            fallible: true,
                        },
                        Op::Spawn {
                            script: 2,
                            fallible: true,
                        },
                        Op::AddCallback { task: 1, script: 3 },
                        Op::Cancel(1),
                    ],
                    &[],
                ),
                (&[], &[]),
                (&[Op::Panic], &[]),
                (&[], &[]),
            ],
            &[Step::Do(0), Step::Tick(1), Step::Tick(2)],
        ),
        // Who was woken between drives has its turn before those whom a shutdown wakes.
        program(
            false,
            &[
                (&[], &[]),
                (&[Op::Listen], &[]),
                (&[Op::Wait], &[]),
                (
                    &[
                        Op::Spawn {
                            script: 1,
                            fallible: true,
                        },
                        Op::Spawn {
                            script: 2,
                            fallible: false,
                        },
                    ],
                    &[],
                ),
                (&[Op::Wake(1)], &[]),
            ],
            &[
                Step::Do(3),
                Step::BlockOn(4),
                Step::Do(4),
                Step::Shutdown(6),
            ],
        ),
        // A scope that is dropped by one of its own members, from inside of that one's poll, counts for none that asks: the
        // shutdown after it takes no grace.
        program(
            false,
            &[
                (&[], &[]),
                (
                    &[
                        Op::SpawnIn {
                            group: 5,
                            script: 3,
                            fallible: true,
                        },
                        Op::Cancel(6),
                    ],
                    &[],
                ),
                (&[Op::Listen], &[]),
                (
                    &[
                        Op::CallLater { ms: 11, script: 11 },
                        Op::Scope(9),
                        Op::Scope(1),
                    ],
                    &[],
                ),
                (
                    &[
                        Op::Spawn {
                            script: 1,
                            fallible: true,
                        },
                        Op::Spawn {
                            script: 10,
                            fallible: true,
                        },
                    ],
                    &[],
                ),
                (&[], &[]),
                (&[], &[]),
            ],
            &[Step::Do(4), Step::Shutdown(6)],
        ),
        // A supervisor is ended by a task of another executor, which a member of it drives: the member, which asks, keeps its
        // time.
        two_executors(
            false,
            &[
                (
                    &[
                        Op::Supervise,
                        Op::SpawnIn {
                            group: 0,
                            script: 1,
                            fallible: false,
                        },
                        Op::Swap,
                        Op::Spawn {
                            script: 2,
                            fallible: false,
                        },
                    ],
                    &[],
                ),
                (&[Op::Scope(3), Op::Swap, Op::Drive(0), Op::Sleep(0)], &[]),
                (&[Op::End { group: 0, ms: 7 }], &[]),
                (&[Op::Listen], &[]),
                (&[Op::Abort(1)], &[]),
            ],
            &[
                Step::Do(0),
                Step::UntilStalled,
                Step::Do(4),
                Step::UntilStalled,
                Step::BlockOn(3),
            ],
        ),
        // A supervisor is aborted between drives, and the destructor of its first member drives: the other, which is to go
        // too, is polled no more.
        two_executors(
            false,
            &[
                (
                    &[
                        Op::Supervise,
                        Op::SpawnIn {
                            group: 0,
                            script: 1,
                            fallible: false,
                        },
                        Op::SpawnIn {
                            group: 0,
                            script: 2,
                            fallible: false,
                        },
                        Op::Spawn {
                            script: 2,
                            fallible: false,
                        },
                        Op::Abort(0),
                    ],
                    &[],
                ),
                (&[Op::Wait], &[Op::Drive(0)]),
                (&[Op::Wait], &[]),
            ],
            &[Step::Do(0)],
        ),
    ]
}
