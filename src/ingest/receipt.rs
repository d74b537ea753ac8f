//! Receipts. A receipt contains the numbers of stored, duplicate and rejected events of a request.

use crate::contract::Reason;

/// The result of a request whose events are committed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Receipt {
    /// The number of events that this request stored.
    pub accepted: u64,
    /// The number of events that were already stored, or that appeared earlier in this request.
    pub duplicate: u64,
    /// The number of duplicates whose content is known to differ from the stored event.
    pub conflict: u64,
    /// The number of events that were written to the quarantine.
    pub rejected: u64,
    /// The first rejected events, at most `receipt_rejects_max`, in the order of the request.
    pub rejects: Vec<RejectNote>,
    /// The table version that contains the events, or 0 if nothing had to be committed.
    pub version: u64,
}

/// The result of a request whose events are queued but not committed yet.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Promise {
    /// The number of events that were decoded and queued. These events will be stored unless they are duplicates.
    pub received: u64,
    /// The number of events that were queued for the quarantine.
    pub rejected: u64,
    /// The first rejected events, at most `receipt_rejects_max`, in the order of the request.
    pub rejects: Vec<RejectNote>,
}

/// A rejected event in a receipt.
#[derive(Debug, Clone, PartialEq)]
pub struct RejectNote {
    /// The index of the event in the request, counted from 0.
    pub index: u64,
    /// The reason for the rejection.
    pub reason: Reason,
    /// A sentence that explains the reason.
    pub detail: String,
}
