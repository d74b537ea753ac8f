//! Senders that never give up: each sends numbered batches over HTTP, and a batch again until it is acknowledged.
//!
//! In: the address of a server, which may vanish and come back elsewhere. Out: how many batches were acknowledged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

/// Events of one batch.
pub(crate) const EVENTS: usize = 100;

/// One sender.
#[derive(Debug, Clone)]
pub(crate) struct Sender {
    /// In front of its ids.
    pub(crate) prefix: String,
    /// The token.
    pub(crate) token: String,
    /// Where the server is; none while there is none.
    pub(crate) address: watch::Receiver<Option<String>>,
    /// Is told of each acknowledgement.
    pub(crate) acknowledged: mpsc::Sender<()>,
    /// Set when no new batch shall be begun.
    pub(crate) stop: Arc<AtomicBool>,
}

impl Sender {
    /// Sends until told to stop and the last batch is acknowledged; returns what was.
    pub(crate) async fn run(mut self) -> Value {
        let client = reqwest::Client::new();
        let mut batch = 0;
        while !self.stop.load(Ordering::Relaxed) {
            self.deliver(&client, batch).await;
            batch += 1;
            // Nobody listens any more at the end, which is fine.
            let _ = self.acknowledged.send(()).await;
        }
        json!({ "prefix": self.prefix, "batches": batch, "events": EVENTS })
    }

    /// Sends one batch until it is acknowledged.
    async fn deliver(&mut self, client: &reqwest::Client, batch: usize) {
        loop {
            let address = self
                .address
                .wait_for(Option::is_some)
                .await
                .expect("the test holds the other end until all senders have ended")
                .clone()
                .expect("it was waited for");
            let url = format!("http://{address}/v1/tables/samples/events");
            let request = client
                .post(url)
                .bearer_auth(&self.token)
                .header("content-type", "application/x-ndjson")
                .body(body(&self.prefix, batch));
            if let Ok(receipt) = receipt(request).await {
                let counted = receipt["accepted"].as_u64().unwrap_or(0) + receipt["duplicate"].as_u64().unwrap_or(0);
                assert_eq!(counted, EVENTS as u64, "{receipt}");
                return;
            }
            // A busy server is asked again at once; a vanished one when it is back, which the address tells.
            tokio::task::yield_now().await;
        }
    }
}

async fn receipt(request: reqwest::RequestBuilder) -> reqwest::Result<Value> {
    request.send().await?.error_for_status()?.json().await
}

/// The events of one batch, the same however often it is sent.
fn body(prefix: &str, batch: usize) -> String {
    (0..EVENTS)
        .map(|index| {
            let second = (batch * EVENTS + index) % 86_400;
            let event = json!({
                "id": format!("{prefix}-{batch}-{index}"),
                "at": 1_704_067_200_000_000_i64 + i64::try_from(second).unwrap() * 1_000_000,
                "small": index,
            });
            format!("{event}\n")
        })
        .collect()
}
