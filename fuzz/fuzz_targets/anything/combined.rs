//! The combinators, over tasks that are there already and over futures.

use std::rc::Rc;

use mainstay::{
    Executor, JoinHandle, as_completed, gather, gather_settled_with_limit, handles, race, race_ok,
    yield_now,
};

use crate::acts::act;
use crate::bodies::Body;
use crate::canary::Wild;
use crate::choices::{below, maybe_panic};
use crate::contained::{lenient, strict};
use crate::spawning::either;
use crate::world::Loose;

/// One of them, not polled yet. Its result is dropped where it comes out.
pub(crate) fn any(executor: &Rc<Executor<'static>>) -> Loose {
    let tasks: Vec<JoinHandle<Wild>> = (0..below(4))
        .map(|_| strict("spawn", || executor.spawn(Body::new(Wild::new, ()))))
        .collect();
    Loose(match below(6) {
        0 => Box::pin(async { let_go(gather(handles(tasks)).await) }),
        1 => Box::pin(async { let_go(race(handles(tasks)).await) }),
        2 => Box::pin(async {
            let mut ended = as_completed(handles(tasks));
            while let Some(one) = ended.next().await {
                let_go(one);
                act();
            }
        }),
        3 => Box::pin(async {
            let awaited = tasks.into_iter().map(|task| async {
                let_go(task.await);
                Wild::new()
            });
            let_go(gather_settled_with_limit(awaited, 1).await);
        }),
        4 => Box::pin(async {
            let raced = (0..3).map(|_| async {
                act();
                yield_now().await;
                maybe_panic();
                either()
            });
            let_go(race_ok(raced).await);
            drop(tasks);
        }),
        _ => Box::pin(async {
            let bodies = (0..3).map(|_| Body::new(Wild::new, [0_u8; 300]));
            let_go(gather(bodies).await);
            drop(tasks);
        }),
    })
}

fn let_go<T>(value: T) {
    lenient(|| drop(value));
}
