//! Ends a stream at its deadline even if the client has stopped reading.
//!
//! The wrapped stream returns an error if it is polled after its deadline, but a client that has stopped reading does
//! not poll it. The query would then keep its plan, its memory and its tenant's query slot until the client
//! disconnects. [`expiring`] therefore adds a task that polls the stream at its deadline.
//!
//! ```text
//!   reader ─► poll ───┐
//!                     ├─► stream (locked during each poll) ─► items ─► reader
//!   deadline ─► poll ─┘               └─► its last error, kept until the reader polls again
//! ```
//!
//! **Invariant:** after the deadline, the stream has been dropped, and only the error that ended it is kept.
//! **Invariant:** a reader that does not get all items gets an error. Unread items are dropped at the deadline, even if
//! the stream would end after them without an error.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::error::{Error, Result};

/// Ends `stream` at `deadline` even if the client does not poll it. If `stream` is polled after `deadline`, it must end
/// soon. If items were dropped and the stream itself returns no error, the reader gets the error `expired`.
pub(super) fn expiring<T: Send + 'static>(
    stream: BoxStream<'static, Result<T>>,
    deadline: Instant,
    expired: impl FnOnce() -> Error + Send + 'static,
) -> BoxStream<'static, Result<T>> {
    let shared = Arc::new(Shared(Mutex::new(State { stream: Some(stream), last: None, reader: None })));
    let mut watch = JoinSet::new();
    // The task holds a weak reference, so the stream is dropped as soon as its reader is dropped.
    let watched = Arc::downgrade(&shared);
    watch.spawn(async move {
        tokio::time::sleep_until(deadline).await;
        let (mut expired, mut has_dropped) = (Some(expired), false);
        std::future::poll_fn(|cx| {
            let Some(shared) = watched.upgrade() else { return Poll::Ready(()) };
            shared.poll_end(cx, &mut has_dropped, &mut expired)
        })
        .await;
    });
    Expiring { shared, _watch: watch }.boxed()
}

struct Expiring<T> {
    shared: Arc<Shared<T>>,
    /// The task that polls the stream at its deadline. Dropping this field aborts the task.
    _watch: JoinSet<()>,
}

struct Shared<T>(Mutex<State<T>>);

struct State<T> {
    /// The wrapped stream, or `None` after it has ended.
    stream: Option<BoxStream<'static, Result<T>>>,
    /// The error with which the stream ended at the deadline. It is kept until the reader takes it.
    last: Option<Error>,
    /// The waker of the reader that waits for the next item.
    reader: Option<Waker>,
}

impl<T> Shared<T> {
    /// Locks the state. The state can be used even if another thread panicked while it held the lock, because the
    /// stream is then still valid and can be polled again.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Polls the stream until it ends, and drops the items that it returns. The reader then gets the error of the
    /// stream. If the stream ends without an error but items were dropped, the reader gets `expired`.
    fn poll_end(
        &self,
        cx: &mut Context<'_>,
        has_dropped: &mut bool,
        expired: &mut Option<impl FnOnce() -> Error>,
    ) -> Poll<()> {
        loop {
            let mut state = self.lock();
            let Some(stream) = &mut state.stream else { return Poll::Ready(()) };
            match ready!(stream.poll_next_unpin(cx)) {
                Some(Ok(_)) => *has_dropped = true,
                end => {
                    state.last = match end {
                        Some(Err(error)) => Some(error),
                        _ if *has_dropped => expired.take().map(|expired| expired()),
                        _ => None,
                    };
                    let (ended, reader) = (state.stream.take(), state.reader.take());
                    drop(state);
                    // The stream is dropped outside the lock, because dropping a plan takes time.
                    drop(ended);
                    reader.into_iter().for_each(Waker::wake);
                    return Poll::Ready(());
                }
            }
        }
    }
}

impl<T> Stream for Expiring<T> {
    type Item = Result<T>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut state = self.shared.lock();
        if let Some(last) = state.last.take() {
            return Poll::Ready(Some(Err(last)));
        }
        let Some(stream) = &mut state.stream else { return Poll::Ready(None) };
        match stream.poll_next_unpin(cx) {
            Poll::Ready(Some(item)) => Poll::Ready(Some(item)),
            Poll::Ready(None) => {
                state.stream = None;
                Poll::Ready(None)
            }
            Poll::Pending => {
                state.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::{FutureExt as _, stream};
    use tokio::sync::oneshot;

    use super::*;
    use crate::error::Kind;

    /// Returns a stream that counts up until `deadline` and then returns an error. Also returns a receiver. The
    /// receiver gets an error as soon as the stream is dropped.
    fn counting(deadline: Instant) -> (BoxStream<'static, Result<u64>>, oneshot::Receiver<()>) {
        let (alive, gone) = oneshot::channel();
        let items = stream::unfold((0, alive), move |(count, alive)| async move {
            let item =
                if Instant::now() < deadline { Ok(count) } else { Err(Error::limited("the time limit is exceeded")) };
            Some((item, (count + 1, alive)))
        });
        (items.boxed(), gone)
    }

    #[tokio::test]
    async fn unread_stream_ends_at_its_deadline() {
        let deadline = Instant::now() + Duration::from_millis(500);
        let (items, gone) = counting(deadline);
        let mut items = expiring(items, deadline, || Error::internal("unused"));
        assert_eq!(items.next().await.unwrap().unwrap(), 0);
        assert!(gone.await.is_err(), "the stream was not dropped at its deadline");
        assert!(Instant::now() >= deadline);
        assert_eq!(items.next().await.unwrap().unwrap_err().kind(), Kind::Limited);
        assert!(items.next().await.is_none());
    }

    #[tokio::test]
    async fn waiting_reader_gets_the_error_at_the_deadline() {
        let deadline = Instant::now() + Duration::from_millis(500);
        let waiting = stream::once(async move {
            tokio::time::sleep_until(deadline).await;
            Err::<u64, _>(Error::limited("the time limit is exceeded"))
        });
        let mut items = expiring(waiting.boxed(), deadline, || Error::internal("unused"));
        assert_eq!(items.next().await.unwrap().unwrap_err().kind(), Kind::Limited);
    }

    #[tokio::test]
    async fn reader_gets_an_error_if_items_are_left_at_the_deadline() {
        let deadline = Instant::now() + Duration::from_millis(500);
        let (alive, gone) = oneshot::channel::<()>();
        let items = stream::iter([1, 2, 3]).map(move |item| {
            _ = &alive;
            Ok(item)
        });
        let mut items = expiring(items.boxed(), deadline, || Error::limited("the time limit is exceeded"));
        assert_eq!(items.next().await.unwrap().unwrap(), 1);
        assert!(gone.await.is_err(), "the stream was not dropped at its deadline");
        assert_eq!(items.next().await.unwrap().unwrap_err().kind(), Kind::Limited);
        assert!(items.next().await.is_none());
    }

    #[tokio::test]
    async fn finished_and_dropped_streams_leave_no_task() {
        let deadline = Instant::now() + Duration::from_secs(300);
        let whole = expiring(stream::iter([Ok(1), Ok(2)]).boxed(), deadline, || Error::internal("unused"));
        assert_eq!(whole.map(Result::unwrap).collect::<Vec<_>>().await, [1, 2]);
        let (items, gone) = counting(deadline);
        drop(expiring(items, deadline, || Error::internal("unused")));
        assert!(gone.now_or_never().is_some_and(|received| received.is_err()));
    }
}
