//! Maps errors to gRPC statuses: the single table from [`Kind`] to a status code.
//!
//! In: an [`Error`] of any module. Out: a [`Status`] with its message, cut to [`MESSAGE_BYTES_MAX`] so that it fits the
//! trailers of every client. **Invariant:** an internal error shows only an id; its cause is in the log.

use tonic::metadata::MetadataValue;
use tonic::{Code, Status};
use tracing::{debug, error};
use uuid::Uuid;

use crate::error::{Error, Kind};

/// The maximum size of a status message. C++ clients read 8 KiB of trailers in total, and percent-encoding can triple a
/// message.
const MESSAGE_BYTES_MAX: usize = 2 * 1024;

/// The seconds after which a retry makes sense, as in HTTP.
const RETRY_AFTER: &str = "retry-after";

/// The status of `error`, which is logged here and nowhere else; `rpc` names the call in the log.
pub(super) fn status(rpc: &'static str, error: &Error) -> Status {
    let code = code(error.kind());
    if code == Code::Internal {
        let id = Uuid::new_v4();
        error!(%id, rpc, error = ?error, "a call failed with an internal error");
        return Status::internal(format!("internal error, its id in the server's log is {id}"));
    }
    debug!(rpc, error = ?error, "a call was rejected");
    let mut status = Status::new(code, shortened(error.message()));
    if let Some(wait) = error.wait() {
        let seconds = wait.as_secs_f64().ceil().max(1.0);
        status.metadata_mut().insert(RETRY_AFTER, MetadataValue::from(seconds as u64));
    }
    status
}

/// The code of a kind.
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

/// Maps a status to an error: of another server for our own client, or of a broken upload.
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
        assert!(shown.message().contains("its id in the server's log is"));
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
