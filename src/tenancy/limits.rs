//! Limits per tenant: how many queries run at once, and how many may wait how long.

use std::time::Duration;

use crate::contract::TenantId;
use crate::error::Result;

/// The slots of all tenants.
#[derive(Debug)]
pub struct Slots {}

/// One taken slot; dropping it gives it back.
#[derive(Debug)]
pub struct Slot {}

impl Slots {
    /// `running_max` at once per tenant, `waiting_max` more may wait for at most `wait_max`.
    pub fn new(running_max: usize, waiting_max: usize, wait_max: Duration) -> Self {
        let _ = (running_max, waiting_max, wait_max);
        todo!()
    }

    /// Takes a slot, or says `Limited` with a retry time. Tenants without taken slots cost no memory.
    pub async fn take(&self, tenant: &TenantId) -> Result<Slot> {
        let _ = tenant;
        todo!()
    }
}
