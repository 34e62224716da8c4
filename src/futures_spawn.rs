//! The spawn traits of futures, for our handles (feature `futures`).

use futures_task::{FutureObj, LocalFutureObj, LocalSpawn, Spawn, SpawnError};

use crate::context::LocalHandle;
use crate::spawner::Spawner;

/// Spawns detached tasks: their failures are reported, by the executor's policy.
///
/// ```
/// use futures_task::LocalSpawn;
/// use mainstay::Executor;
///
/// let ex = Executor::new();
/// ex.handle().spawn_local_obj(Box::new(async { /* `!Send` is fine */ }).into()).unwrap();
/// ex.run_until_stalled();
/// assert_eq!(ex.stats().returned, 1);
/// ```
impl LocalSpawn for LocalHandle<'static> {
    /// # Errors
    ///
    /// [`SpawnError::shutdown`], with the future dropped unpolled, if the executor is gone.
    #[track_caller]
    fn spawn_local_obj(&self, future: LocalFutureObj<'static, ()>) -> Result<(), SpawnError> {
        self.status_local()?;
        self.spawn(future).detach();
        Ok(())
    }

    fn status_local(&self) -> Result<(), SpawnError> {
        if self.spawner().is_closed() {
            Err(SpawnError::shutdown())
        } else {
            Ok(())
        }
    }
}

impl Spawn for LocalHandle<'static> {
    /// As [`LocalSpawn::spawn_local_obj`].
    #[track_caller]
    fn spawn_obj(&self, future: FutureObj<'static, ()>) -> Result<(), SpawnError> {
        self.spawn_local_obj(future.into())
    }

    fn status(&self) -> Result<(), SpawnError> {
        self.status_local()
    }
}

/// Spawns detached tasks from any thread: the future is sent to the executor's, and polled there.
///
/// ```
/// use futures_task::Spawn;
/// use mainstay::Executor;
///
/// let ex = Executor::new();
/// let spawner = ex.spawner();
/// std::thread::spawn(move || spawner.spawn_obj(Box::new(async {}).into())).join().unwrap().unwrap();
/// ex.run_until_stalled();
/// assert_eq!(ex.stats().returned, 1);
/// ```
impl Spawn for Spawner {
    /// # Errors
    ///
    /// [`SpawnError::shutdown`], with the future dropped unpolled, if the executor is gone.
    #[track_caller]
    fn spawn_obj(&self, future: FutureObj<'static, ()>) -> Result<(), SpawnError> {
        match self.spawn(move || future) {
            Ok(handle) => {
                drop(handle);
                Ok(())
            }
            Err(_) => Err(SpawnError::shutdown()),
        }
    }

    fn status(&self) -> Result<(), SpawnError> {
        if self.is_closed() {
            Err(SpawnError::shutdown())
        } else {
            Ok(())
        }
    }
}
