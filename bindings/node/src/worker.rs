//! A long-lived object on a thread of its own: commands run in order, each settles a promise, and Node's event loop and
//! its thread pool stay free.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};

use napi::bindgen_prelude::{Object, ToNapiValue};
use napi::{Env, Result};

use crate::failure::{ENGINE, failure};

type Job<T> = Box<dyn FnOnce(Option<&mut T>) -> bool + Send>;

/// Commands that may wait: more than a loop ever keeps under way, few enough to bound their memory.
const WAITING: usize = 64;

/// Sends commands to the thread that owns a `T`.
pub struct Worker<T> {
    sender: Option<SyncSender<Job<T>>>,
}

impl<T: Send + 'static> Worker<T> {
    /// Starts the thread.
    pub fn new(name: &str, value: T) -> Result<Worker<T>> {
        let (sender, receiver) = sync_channel::<Job<T>>(WAITING);
        let run = move || {
            let mut value = Some(value);
            for job in receiver {
                // After a panic the value may be half-changed: it is dropped, later commands are refused.
                if !job(value.as_mut()) {
                    value = None;
                }
            }
        };
        let thread = std::thread::Builder::new().name(name.into()).spawn(run);
        thread.map_err(|e| failure(ENGINE, format_args!("cannot start the engine's thread: {e}")))?;
        Ok(Worker { sender: Some(sender) })
    }

    /// Runs `work` on the thread; the promise settles with its result.
    pub fn call<'env, R: ToNapiValue + Send + 'static>(
        &self,
        env: &'env Env,
        work: impl FnOnce(&mut T) -> Result<R> + Send + 'static,
    ) -> Result<Object<'env>> {
        let sender = self.sender.as_ref().ok_or_else(|| failure(ENGINE, "the engine was disposed of"))?;
        let (deferred, promise) = env.create_deferred::<R, _>()?;
        let job: Job<T> = Box::new(move |value| {
            let Some(value) = value else {
                deferred.reject(failure(ENGINE, "the engine stopped after an internal error"));
                return false;
            };
            match catch_unwind(AssertUnwindSafe(|| work(value))) {
                Ok(Ok(result)) => deferred.resolve(move |_| Ok(result)),
                Ok(Err(error)) => deferred.reject(error),
                Err(panic) => {
                    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
                    deferred.reject(failure(ENGINE, format_args!("internal error: {}", text.unwrap_or("unknown"))));
                    return false;
                }
            }
            true
        });
        match sender.try_send(job) {
            Ok(()) => Ok(promise),
            Err(TrySendError::Full(_)) => Err(failure(ENGINE, format_args!("more than {WAITING} commands are waiting"))),
            Err(TrySendError::Disconnected(_)) => Err(failure(ENGINE, "the engine's thread has ended")),
        }
    }

    /// Runs `work` on the thread and waits for it, and for what was sent before: for work that takes no time to speak of.
    pub fn wait<R: Send + 'static>(&self, work: impl FnOnce(&mut T) -> Result<R> + Send + 'static) -> Result<R> {
        let sender = self.sender.as_ref().ok_or_else(|| failure(ENGINE, "the engine was disposed of"))?;
        let (answer, result) = sync_channel(1);
        let job: Job<T> = Box::new(move |value| {
            let Some(value) = value else { return false };
            let done = catch_unwind(AssertUnwindSafe(|| work(value)));
            let fine = done.is_ok();
            // Whoever waits is there until it has an answer; after a panic there is none.
            done.into_iter().for_each(|result| _ = answer.send(result));
            fine
        });
        sender.send(job).map_err(|_| failure(ENGINE, "the engine's thread has ended"))?;
        result.recv().map_err(|_| failure(ENGINE, "the engine stopped after an internal error"))?
    }

    /// Ends the thread after the commands already sent, and frees the value.
    pub fn dispose(&mut self) {
        self.sender = None;
    }
}
