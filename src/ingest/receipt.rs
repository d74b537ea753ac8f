//! Receipts: the outcome of a request's events, as reported to the sender.

use crate::contract::Reason;

/// The outcome of a request's events.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Receipt {
    /// Events stored by this request.
    pub accepted: u64,
    /// Events that were already stored, or appear more than once in this request.
    pub duplicate: u64,
    /// Duplicates whose content differs from the event that was stored first, as far as that content is remembered.
    pub conflict: u64,
    /// Events in the quarantine.
    pub rejected: u64,
    /// The first rejected events, in order: at most `receipt_rejects_max`.
    pub rejects: Vec<RejectNote>,
    /// The table version that holds the events (0 if nothing had to be committed).
    pub version: u64,
}

/// The acknowledgement of a request's events before they are stored.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Promise {
    /// Events decoded and queued. They will be stored unless they are duplicates.
    pub received: u64,
    /// Events queued for the quarantine.
    pub rejected: u64,
    /// The first rejected events, in order: at most `receipt_rejects_max`.
    pub rejects: Vec<RejectNote>,
}

/// One rejected event in a receipt.
#[derive(Debug, Clone, PartialEq)]
pub struct RejectNote {
    /// Its index in the request, from 0.
    pub index: u64,
    /// The category of the error.
    pub reason: Reason,
    /// A description for humans.
    pub detail: String,
}
