//! Panic fences. A fence is a function that runs code, catches a panic in this code, and returns it as a [`Panic`]
//! value.
//!
//! Fences protect the server from panics in request handlers and in decoders of untrusted bytes. The panic hook records
//! the location of each panic. Outside a fence, the hook also logs the panic. Inside a fence, the code that handles the
//! [`Panic`] logs it.
//!
//! **Invariant:** the message and location of a panic appear only in the log. A client gets an error of kind
//! `Internal`, or, if a decoder panicked, an error that rejects the client's input.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::Cell;
use std::fmt;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, resume_unwind, set_hook};
use std::task::Poll;

use crate::error::{Error, Result};

thread_local! {
    /// The number of nested fences that the current thread is running in.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
    /// The location of the last panic inside a fence. The panic hook stores it here, and the fence moves it into the
    /// [`Panic`].
    static ORIGIN: Cell<Option<Origin>> = const { Cell::new(None) };
}

/// A panic that a fence has caught.
#[derive(Debug)]
pub struct Panic {
    message: String,
    origin: Option<Origin>,
}

/// The location of a panic, as recorded by the panic hook.
#[derive(Debug)]
struct Origin {
    location: String,
    /// The backtrace, if `RUST_BACKTRACE` enables backtraces.
    backtrace: Option<String>,
}

impl Panic {
    /// Resumes the panic. The next enclosing fence catches it, and the panic hook does not run again.
    pub fn resume(self) -> ! {
        resume_unwind(Box::new(self))
    }

    fn new(payload: Box<dyn Any + Send>) -> Self {
        let payload = match payload.downcast::<Self>() {
            Ok(resumed) => return *resumed,
            Err(payload) => payload,
        };
        let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
        Self { message: text.unwrap_or_else(|| "(no text)".to_owned()), origin: ORIGIN.take() }
    }
}

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Some(Origin { location, backtrace: None }) => write!(f, "{} (at {location})", self.message),
            Some(Origin { location, backtrace: Some(backtrace) }) => {
                write!(f, "{} (at {location})\n{backtrace}", self.message)
            }
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for Panic {}

/// Runs `work` inside a fence. After a panic, the caller must not use data that `work` may have left in an inconsistent
/// state.
pub fn catch<T>(work: impl FnOnce() -> T) -> Result<T, Panic> {
    let _inside = Inside::enter();
    catch_unwind(AssertUnwindSafe(work)).map_err(Panic::new)
}

/// Polls `future` inside a fence.
pub fn catch_future<F: Future>(future: F) -> impl Future<Output = Result<F::Output, Panic>> {
    // Without the box, the returned future would be twice as large, because it would store `future` twice.
    let mut future = Box::pin(future);
    poll_fn(move |context| match catch(|| future.as_mut().poll(context)) {
        Ok(polled) => polled.map(Ok),
        Err(panic) => Poll::Ready(Err(panic)),
    })
}

/// Runs CPU-intensive work on the blocking pool. A panic becomes an `Internal` error. The error message starts with
/// `what`, such as "decoding".
pub async fn blocking<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    on_thread(work).await.unwrap_or_else(|panic| Err(Error::internal(format!("{what} panicked")).with_source(panic)))
}

/// Runs `work` on a thread of the blocking pool, inside a fence.
pub async fn on_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Panic> {
    let ended = tokio::task::spawn_blocking(move || catch(work)).await;
    ended.unwrap_or_else(|gone| {
        Err(Panic { message: format!("the blocking pool cancelled the work: {gone}"), origin: None })
    })
}

/// Installs a panic hook that logs panics through `tracing`, with their location and, if enabled, their backtrace. Must
/// be called once, after logging has started.
pub fn install_panic_hook() {
    set_hook(Box::new(|info| {
        let origin = Origin::of(info);
        // Access to the thread-locals fails only while the thread is ending. No fence is active at that time.
        if DEPTH.try_with(Cell::get).unwrap_or(0) > 0 {
            let _ = ORIGIN.try_with(|cell| cell.set(Some(origin)));
            return;
        }
        let Origin { location, backtrace } = origin;
        let message = info.payload_as_str().unwrap_or("(no text)");
        let thread = std::thread::current().name().unwrap_or("(no name)").to_owned();
        tracing::error!(%location, %thread, backtrace, "uncaught panic: {message}");
    }));
}

impl Origin {
    fn of(info: &PanicHookInfo<'_>) -> Self {
        let location = info.location().map_or_else(|| "an unknown location".to_owned(), ToString::to_string);
        let backtrace = Backtrace::capture();
        let is_captured = backtrace.status() == BacktraceStatus::Captured;
        Self { location, backtrace: is_captured.then(|| backtrace.to_string()) }
    }
}

/// A guard that counts one active panic fence in [`DEPTH`] until the guard is dropped.
struct Inside;

impl Inside {
    fn enter() -> Self {
        DEPTH.set(DEPTH.get() + 1);
        Self
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get().saturating_sub(1));
    }
}
