//! What a sender is told of its events.

use crate::contract::Reason;

/// What became of a request's events.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Receipt {
    /// Stored now.
    pub accepted: u64,
    /// Stored before, or twice in this request.
    pub duplicate: u64,
    /// Of the duplicates, those with another content than the event that was stored first, as far as that is remembered.
    pub conflict: u64,
    /// In quarantine.
    pub rejected: u64,
    /// The first rejected ones, in order: at most `receipt_rejects_max`.
    pub rejects: Vec<RejectNote>,
    /// The table's version that holds them (0 when nothing had to be committed).
    pub version: u64,
}

/// What is known of a request's events before they are stored.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Promise {
    /// Decoded and in the queue: to be stored, unless they were before.
    pub received: u64,
    /// On their way to the quarantine.
    pub rejected: u64,
    /// The first rejected ones, in order: at most `receipt_rejects_max`.
    pub rejects: Vec<RejectNote>,
}

/// One rejected event in a receipt.
#[derive(Debug, Clone, PartialEq)]
pub struct RejectNote {
    /// Its place in the request, from 0.
    pub index: u64,
    /// Why.
    pub reason: Reason,
    /// For a person.
    pub detail: String,
}
