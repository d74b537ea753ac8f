//! Converts errors to gRPC statuses. Only this file chooses the status code for each [`Kind`] of error.
//!
//! A status message is truncated to [`MESSAGE_BYTES_MAX`] bytes, because clients limit the size of trailers.
//!
//! **Invariant:** the status of an internal error contains only an id. The cause of the error appears only in the log.

use tonic::metadata::MetadataValue;
use tonic::{Code, Status};
use tracing::{debug, error};
use uuid::Uuid;

use crate::error::{Error, Kind};

/// The maximum size of a status message. C++ clients read at most 8 KiB of trailers in total, and percent-encoding can
/// triple the size of a message.
const MESSAGE_BYTES_MAX: usize = 2 * 1024;

/// The metadata key for the delay in seconds before a client may retry. HTTP uses a header with the same name.
const RETRY_AFTER: &str = "retry-after";

/// Converts `error` to a status and logs it. No other function logs the errors of RPCs. `rpc` is the name of the RPC
/// for the log.
pub(super) fn status(rpc: &'static str, error: &Error) -> Status {
    let code = code(error.kind());
    if code == Code::Internal {
        let id = Uuid::new_v4();
        error!(%id, rpc, error = ?error, "a call failed with an internal error");
        return Status::internal(format!("internal error: search the server's log for id {id}"));
    }
    debug!(rpc, error = ?error, "a call failed");
    let mut status = Status::new(code, shortened(error.message()));
    if let Some(wait) = error.wait() {
        let seconds = wait.as_secs_f64().ceil().max(1.0);
        status.metadata_mut().insert(RETRY_AFTER, MetadataValue::from(seconds as u64));
    }
    status
}

/// Returns the status code of an error kind.
fn code(kind: Kind) -> Code {
    match kind {
        Kind::Invalid => Code::InvalidArgument,
        Kind::Unauthenticated => Code::Unauthenticated,
        Kind::Forbidden => Code::PermissionDenied,
        Kind::NotFound => Code::NotFound,
        Kind::Conflict => Code::AlreadyExists,
        Kind::Limited => Code::ResourceExhausted,
        Kind::Cancelled => Code::Cancelled,
        Kind::Unavailable => Code::Unavailable,
        Kind::Unsupported => Code::Unimplemented,
        Kind::Internal => Code::Internal,
    }
}

/// Converts a status to an error. The client in `client.rs` gets statuses from the servers that it calls. The server
/// gets a status if the connection of an upload fails.
pub(super) fn from_status(status: Status) -> Error {
    let kind = match status.code() {
        Code::InvalidArgument | Code::OutOfRange | Code::FailedPrecondition => Kind::Invalid,
        Code::Unauthenticated => Kind::Unauthenticated,
        Code::PermissionDenied => Kind::Forbidden,
        Code::NotFound => Kind::NotFound,
        Code::AlreadyExists | Code::Aborted => Kind::Conflict,
        Code::ResourceExhausted => Kind::Limited,
        Code::Cancelled => Kind::Cancelled,
        Code::Unavailable | Code::DeadlineExceeded => Kind::Unavailable,
        Code::Unimplemented => Kind::Unsupported,
        Code::Internal | Code::Unknown | Code::DataLoss | Code::Ok => Kind::Internal,
    };
    Error::new(kind, status.message().to_owned()).with_source(status)
}

/// Converts an error that arrow-flight's metadata builders returned. These builders fail only if the columns do not
/// match the schema, which would be a bug in this server.
pub(super) fn metadata_error(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::internal("cannot build a metadata result").with_source(error)
}

fn shortened(message: &str) -> String {
    if message.len() <= MESSAGE_BYTES_MAX {
        return message.to_owned();
    }
    let end = message.floor_char_boundary(MESSAGE_BYTES_MAX);
    format!("{} …", &message[..end])
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn internal_errors_show_only_an_id() {
        let shown = status("DoGet", &Error::internal("file s3://secret is gone").with_source("cause"));
        assert_eq!(shown.code(), Code::Internal);
        assert!(!shown.message().contains("secret"), "{}", shown.message());
        assert!(shown.message().contains("search the server's log for id "));
    }

    #[test]
    fn limited_errors_say_when_to_retry() {
        let shown = status("DoPut", &Error::limited("the queue is full").retry_after(Duration::from_millis(1200)));
        assert_eq!(shown.code(), Code::ResourceExhausted);
        assert_eq!(shown.metadata().get(RETRY_AFTER).and_then(|value| value.to_str().ok()), Some("2"));
    }

    #[test]
    fn long_messages_are_cut_at_a_character_boundary() {
        let shown = status("DoGet", &Error::invalid("ü".repeat(5_000)));
        assert!(shown.message().len() <= MESSAGE_BYTES_MAX + 4);
        assert!(shown.message().ends_with('…'));
    }
}
