//! The outcome of an RPC. This module waits for the end of each call, counts the call in the metrics, and converts its
//! error or panic to a [`Status`].
//!
//! **Invariant:** every call is counted once, when it ends. A streaming call ends when its stream ends. A call whose
//! client disconnects early is counted as `CANCELLED`.

use std::sync::Arc;

use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, stream};
use tonic::{Code, Status};

use super::error::status;
use crate::error::{Error, Result};
use crate::supervise::{Panic, catch_future};
use crate::telemetry::Metrics;

/// A stream of response messages.
pub(super) type Messages<T> = BoxStream<'static, Result<T, Status>>;

/// A running call.
pub(super) struct RpcCall {
    rpc: &'static str,
    metrics: Arc<Metrics>,
    /// The status code with which the call ended, or `Cancelled` while it is running.
    code: Code,
}

impl RpcCall {
    /// Creates the state of a new call to the method `rpc`.
    pub(super) fn begin(rpc: &'static str, metrics: &Arc<Metrics>) -> Self {
        Self { rpc, metrics: Arc::clone(metrics), code: Code::Cancelled }
    }

    /// Runs a call that has one response message.
    pub(super) fn unary<T>(mut self, work: impl Future<Output = Result<T>>) -> impl Future<Output = Result<T, Status>> {
        catch_future(work).map(move |outcome| {
            let response = self.check(outcome)?;
            self.succeed();
            Ok(response)
        })
    }

    /// Runs a call that responds with a stream.
    pub(super) fn streaming<T: Send + 'static>(
        mut self,
        opening: impl Future<Output = Result<BoxStream<'static, Result<T>>>>,
    ) -> impl Future<Output = Result<Messages<T>, Status>> {
        catch_future(opening).map(move |outcome| {
            let items = self.check(outcome)?;
            let messages = stream::unfold(Some((self, items)), |running| async move {
                let (mut call, mut items) = running?;
                let item = match catch_future(items.next()).await {
                    Ok(None) => {
                        call.succeed();
                        return None;
                    }
                    Ok(Some(item)) => call.check(Ok(item)),
                    Err(panic) => call.check(Err(panic)),
                };
                let running = item.is_ok().then_some((call, items));
                Some((item, running))
            });
            Ok(messages.boxed())
        })
    }

    /// Counts a call that was refused before it could run, and returns its status.
    pub(super) fn refuse(mut self, error: &Error) -> Status {
        self.failed(error)
    }

    /// If the call failed or panicked, converts the failure to a status and records its code. Otherwise returns the
    /// value.
    fn check<T>(&mut self, outcome: Result<Result<T>, Panic>) -> Result<T, Status> {
        let outcome = outcome.unwrap_or_else(|panic| Err(Error::internal("a call panicked").with_source(panic)));
        outcome.map_err(|error| self.failed(&error))
    }

    fn succeed(&mut self) {
        self.code = Code::Ok;
    }

    fn failed(&mut self, error: &Error) -> Status {
        let status = status(self.rpc, error);
        self.code = status.code();
        status
    }
}

impl Drop for RpcCall {
    fn drop(&mut self) {
        self.metrics.flight_call(self.rpc, code_name(self.code));
    }
}

/// Returns the name that the gRPC specification gives to a status code.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_call_is_counted_once_with_its_status_code() {
        let metrics = Arc::new(Metrics::default());
        let begin = |rpc| RpcCall::begin(rpc, &metrics);
        begin("GetSchema").unary(async { Ok(()) }).await.unwrap();
        let refused = begin("GetSchema").unary(async { Err::<(), _>(Error::limited("too much")) }).await;
        assert_eq!(refused.unwrap_err().code(), Code::ResourceExhausted);
        let panicked = begin("GetSchema").unary(async { panic!("a bug") as Result<()> }).await;
        assert_eq!(panicked.unwrap_err().code(), Code::Internal);

        let items = |items: Vec<Result<u8>>| async { Ok(stream::iter(items).boxed()) };
        let read = |messages: Messages<u8>| messages.map(|item| item.map_err(|status| status.code())).collect();
        let whole: Vec<_> = read(begin("DoGet").streaming(items(vec![Ok(1), Ok(2)])).await.unwrap()).await;
        assert_eq!(whole, [Ok(1), Ok(2)]);
        let broken = items(vec![Ok(1), Err(Error::unavailable("gone")), Ok(3)]);
        let broken: Vec<_> = read(begin("DoGet").streaming(broken).await.unwrap()).await;
        assert_eq!(broken, [Ok(1), Err(Code::Unavailable)], "nothing follows an error");
        drop(begin("DoGet").streaming(items(vec![Ok(1)])).await.unwrap());

        let page = metrics.render();
        let counted: Vec<&str> =
            page.lines().filter(|line| line.starts_with("glasshouse_flight_calls_total")).collect();
        for (rpc, code) in [
            ("GetSchema", "OK"),
            ("GetSchema", "RESOURCE_EXHAUSTED"),
            ("GetSchema", "INTERNAL"),
            ("DoGet", "OK"),
            ("DoGet", "UNAVAILABLE"),
            ("DoGet", "CANCELLED"),
        ] {
            let line = format!("glasshouse_flight_calls_total{{method=\"{rpc}\",code=\"{code}\"}} 1");
            assert!(counted.contains(&line.as_str()), "{line} is not in {counted:?}");
        }
        assert_eq!(counted.len(), 6, "{counted:?}");
    }
}
