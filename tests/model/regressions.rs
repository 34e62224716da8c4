//! Programs on which the library and the reference once differed, each as short as it got.

use super::language::{Op, Program, Script, Step};

fn program(if_unretrieved: bool, scripts: &[(&[Op], &[Op])], steps: &[Step]) -> Program {
    Program {
        if_unretrieved,
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
    ]
}
