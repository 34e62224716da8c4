//! Making a failing program short enough to read.

use super::language::Program;

/// Leaves out what can be left out for as long as `fails` says so.
pub(crate) fn shrink(program: &Program, fails: impl Fn(&Program) -> bool) -> Program {
    let mut best = program.clone();
    loop {
        let shorter = shorter(&best).into_iter().find(|program| fails(program));
        match shorter {
            Some(program) => best = program,
            None => return best,
        }
    }
}

/// All programs with one thing less.
fn shorter(program: &Program) -> Vec<Program> {
    let mut all = Vec::new();
    for at in 0..program.steps.len() {
        let mut less = program.clone();
        less.steps.remove(at);
        all.push(less);
    }
    for script in 0..program.scripts.len() {
        for at in 0..program.scripts[script].ops.len() {
            let mut less = program.clone();
            less.scripts[script].ops.remove(at);
            all.push(less);
        }
        for at in 0..program.scripts[script].on_drop.len() {
            let mut less = program.clone();
            less.scripts[script].on_drop.remove(at);
            all.push(less);
        }
    }
    // The last script can go only if nothing changes its meaning: numbers are taken modulo how many there are.
    if program.scripts.len() > 1 {
        let mut less = program.clone();
        less.scripts.pop();
        all.push(less);
    }
    all
}
