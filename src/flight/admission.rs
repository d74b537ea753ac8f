//! Admission control for gRPC calls. It limits the size of a call's headers, the number of concurrent calls, and the
//! time that a request may take to arrive completely. A call that exceeds a limit gets a gRPC status that names the
//! limit.
//!
//! [`AdmissionService`] wraps another service. It forwards admitted HTTP/2 requests to the wrapped service, and refuses
//! all others with the status `RESOURCE_EXHAUSTED`. It also detaches the body of an upload request, so that
//! `message_reader.rs` can read the body.
//!
//! If headers exceed the HTTP/2 library's own limit, the library responds with HTTP status 431 and no gRPC status. gRPC
//! clients report this as an unknown error. Headers are therefore checked here, against a lower limit. The library's
//! limit is four times as high ([`FlightConfig::header_read_bytes_max`]).
//!
//! **Invariant:** at most `flight.streams_max` calls run at the same time, across all connections. A call ends when its
//! response has been sent or its client has disconnected. Health checks do not count, because a server at its limit is
//! still healthy.
//! **Invariant:** if a client does not read its response, at most one message of the response is in memory. A message
//! is sent in pieces, and the next message is encoded only after the connection has accepted the last piece.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use hyper::body::{Body as HttpBody, Frame};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;

use super::message_reader::detach;
use super::rpc_outcome::RpcCall;
use crate::config::FlightConfig;
use crate::error::{Error, Result};
use crate::telemetry::Metrics;

/// The number of bytes that HTTP/2 counts for each header in addition to its name and value (RFC 9113, section 6.5.2).
const HEADER_EXTRA_BYTES: usize = 32;
/// The maximum number of bytes from one message that are passed to the connection at a time.
const PIECE_BYTES: usize = 256 * 1024;
/// The delay after which a client may retry a refused call.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// The request path of an upload.
const DO_PUT: &str = "/arrow.flight.protocol.FlightService/DoPut";
/// The request path of a health check.
const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";
/// The Flight methods that have a label value of their own in the metrics for refused calls.
const METHODS: [&str; 10] = [
    "Handshake",
    "ListFlights",
    "GetFlightInfo",
    "PollFlightInfo",
    "GetSchema",
    "DoGet",
    "DoPut",
    "DoExchange",
    "DoAction",
    "ListActions",
];

/// The limits that all calls share.
#[derive(Debug)]
pub(super) struct Admission {
    calls: Arc<Semaphore>,
    streams_max: usize,
    header_bytes_max: usize,
    request_time_max: Duration,
    metrics: Arc<Metrics>,
}

/// Wraps `service`, and forwards only admitted calls to it.
#[derive(Clone)]
pub(super) struct AdmissionService<S> {
    service: S,
    admission: Arc<Admission>,
}

impl Admission {
    pub(super) fn new(config: &FlightConfig, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            calls: Arc::new(Semaphore::new(config.streams_max.min(Semaphore::MAX_PERMITS))),
            streams_max: config.streams_max,
            header_bytes_max: config.header_bytes_max as usize,
            request_time_max: config.message_in_time_max,
            metrics,
        })
    }

    /// Admits a call, or returns an error that names the exceeded limit. The caller must hold the returned permit until
    /// the response ends. A health check gets no permit, because it does not count as a running call.
    fn admit(&self, request: &http::Request<Body>) -> Result<Option<OwnedSemaphorePermit>> {
        let (bytes, bytes_max) = (header_bytes(request), self.header_bytes_max);
        if bytes > bytes_max {
            self.metrics.limited("flight.header_bytes_max");
            return Err(Error::limited(format!(
                "the call's headers take {bytes} bytes, but at most {bytes_max} are allowed (limit \
                 flight.header_bytes_max): send a shorter token or fewer headers"
            )));
        }
        if request.uri().path() == HEALTH_CHECK {
            return Ok(None);
        }
        Arc::clone(&self.calls).try_acquire_owned().map(Some).map_err(|_| {
            self.metrics.limited("flight.streams_max");
            Error::limited(format!(
                "{} calls are running, and no more are allowed (limit flight.streams_max): retry later",
                self.streams_max
            ))
            .retry_after(RETRY_AFTER)
        })
    }
}

impl<S> AdmissionService<S> {
    pub(super) fn new(service: S, admission: &Arc<Admission>) -> Self {
        Self { service, admission: Arc::clone(admission) }
    }
}

impl<S: NamedService> NamedService for AdmissionService<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for AdmissionService<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible, Future: Send + 'static>,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let permit = match self.admission.admit(&request) {
            Ok(permit) => permit,
            Err(error) => {
                let refused = RpcCall::begin(method(request.uri().path()), &self.admission.metrics).refuse(&error);
                return Box::pin(std::future::ready(Ok(refused.into_http())));
            }
        };
        let request = match request.uri().path() {
            DO_PUT => detach(request),
            _ => request.map(|body| Body::new(TimedBody::new(body, self.admission.request_time_max))),
        };
        let response = self.service.call(request);
        Box::pin(async move {
            Ok(response.await?.map(|body| Body::new(ResponseBody { body, rest: Bytes::new(), _permit: permit })))
        })
    }
}

/// Returns the size of a request's headers. Each header is counted as HTTP/2 prescribes.
fn header_bytes(request: &http::Request<Body>) -> usize {
    let headers = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + HEADER_EXTRA_BYTES);
    let path = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
    headers.fold(path, usize::saturating_add)
}

/// Returns the value of the metrics label for the method in a request path.
fn method(path: &str) -> &'static str {
    let name = path.rsplit('/').next().unwrap_or_default();
    METHODS.into_iter().find(|known| *known == name).unwrap_or("other")
}

/// A request body that returns an error if it does not arrive within the time limit. It is not used for uploads,
/// because they have a time limit for each message instead.
struct TimedBody {
    body: Body,
    time_max: Duration,
    deadline: Pin<Box<Sleep>>,
}

impl TimedBody {
    fn new(body: Body, time_max: Duration) -> Self {
        Self { body, time_max, deadline: Box::pin(tokio::time::sleep(time_max)) }
    }
}

impl HttpBody for TimedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        ready!(self.deadline.as_mut().poll(cx));
        Poll::Ready(Some(Err(Status::resource_exhausted(format!(
            "the request took longer than {} s to arrive (limit flight.message_in_time_max): send it again",
            self.time_max.as_secs_f64()
        )))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

/// A response body that sends messages in pieces. Dropping it releases the call's permit.
struct ResponseBody {
    body: Body,
    /// The part of the current message that has not been sent yet.
    rest: Bytes,
    _permit: Option<OwnedSemaphorePermit>,
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                end => return Poll::Ready(end),
            }
        }
        let bytes = self.rest.len().min(PIECE_BYTES);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(bytes)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }
}
