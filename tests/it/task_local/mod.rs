//! Task locals: who sees what, for how long values live, and what happens when their code panics.

mod inherited;
mod scopes;
mod told;
mod values;

use std::cell::Cell;

use mainstay::{Completion, Executor, JoinHandle, task_local};

use crate::support::{Guard, Trace, yield_n};

task_local! {
    static USER: &'static str;
    /// Attributes and visibility are the user's.
    #[allow(dead_code, reason = "shows that attributes are passed on")]
    pub(crate) static HITS: Cell<u32>;
    static GUARD: Guard;
    static OTHER: Guard
}

/// Who is set here; `-` for nobody.
fn user() -> &'static str {
    USER.try_with(|user| *user).unwrap_or("-")
}

/// Tells which user each report was made under, `exception@user`.
fn told(ex: &Executor<'_>) -> Trace {
    let trace = Trace::new();
    let seen = trace.clone();
    ex.set_exception_handler(move |_, report| {
        let what = report
            .exception()
            .map_or("-".into(), |exception| exception.message().into_owned());
        seen.push(format!("{what}@{}", user()));
    });
    trace
}

/// A done callback that notes who is set, `done@user`.
fn noting(trace: &Trace) -> impl FnOnce(&Completion<'_>) + 'static {
    let trace = trace.clone();
    move |_| trace.push(format!("done@{}", user()))
}

/// Another task, under another user, that runs all the while: whoever looks at what happens to be set sees this one's.
fn passer_by(ex: &Executor<'_>) -> JoinHandle<()> {
    ex.spawn(USER.scope("passer-by", yield_n(50)))
}
