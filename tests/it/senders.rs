//! Senders that retry without limit. A sender sends numbered batches over HTTP, and repeats a batch until it is
//! acknowledged.
//!
//! The server may stop and restart at another address. Each sender returns the number of its acknowledged batches. A
//! [`Load`] consists of several senders for several tenants.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::server::Server;

/// The number of events in a batch.
pub(crate) const EVENTS: usize = 100;
/// The time limit for the acknowledgement of a batch, and for all other requests.
const RESPONSE_TIME_MAX: Duration = Duration::from_secs(300);

/// The state of one sender.
#[derive(Debug, Clone)]
pub(crate) struct Sender {
    /// The prefix of the event ids.
    pub(crate) prefix: String,
    /// Returns the events of a batch, such as [`body`].
    pub(crate) body: fn(&str, usize) -> String,
    /// The token that the sender uses.
    pub(crate) token: String,
    /// The address of the server. `None` while no server is running.
    pub(crate) address: watch::Receiver<Option<String>>,
    /// Receives one message for each acknowledged batch.
    pub(crate) acknowledged: mpsc::Sender<()>,
    /// True if the sender must not start another batch.
    pub(crate) stop: Arc<AtomicBool>,
}

impl Sender {
    /// Sends batches until `stop` is set and the last batch is acknowledged. Returns the prefix of the event ids, and
    /// the number of acknowledged batches.
    pub(crate) async fn run(mut self) -> Value {
        let client = reqwest::Client::new();
        let mut batch = 0;
        while !self.stop.load(Ordering::Relaxed) {
            self.deliver(&client, batch).await;
            batch += 1;
            // An error is ignored, because the receiver may already be dropped at the end of a test.
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
                .expect("`wait_for` returns only `Some`");
            let url = format!("http://{address}/v1/tables/samples/events");
            let request = client
                .post(url)
                .bearer_auth(&self.token)
                .header("content-type", "application/x-ndjson")
                .body((self.body)(&self.prefix, batch));
            if let Ok(receipt) = receipt(request).await {
                let counted = receipt["accepted"].as_u64().unwrap_or(0) + receipt["duplicate"].as_u64().unwrap_or(0);
                assert_eq!(counted, EVENTS as u64, "{receipt}");
                return;
            }
            // Retry immediately. If the server has stopped, the next call to `wait_for` waits until a server is
            // running.
            tokio::task::yield_now().await;
        }
    }
}

/// A group of senders that continuously send events for several tenants.
pub(crate) struct Load {
    announce: watch::Sender<Option<String>>,
    acknowledged: watch::Receiver<u64>,
    stop: Arc<AtomicBool>,
    senders: JoinSet<Value>,
    counting: JoinSet<()>,
}

impl Load {
    /// Starts `each` senders for each tenant.
    pub(crate) fn start(server: &Server, tenants: &[&str], each: usize) -> Self {
        let (announce, address) = watch::channel(Some(server.http.clone()));
        let (sender, mut acknowledgements) = mpsc::channel(1);
        let (count, acknowledged) = watch::channel(0);
        let (stop, mut senders, mut counting) = (Arc::<AtomicBool>::default(), JoinSet::new(), JoinSet::new());
        for tenant in tenants {
            for number in 0..each {
                let task = Sender {
                    prefix: format!("{tenant}-{number}"),
                    body,
                    token: server.token(tenant),
                    address: address.clone(),
                    acknowledged: sender.clone(),
                    stop: stop.clone(),
                };
                senders.spawn(task.run());
            }
        }
        counting.spawn(async move {
            while acknowledgements.recv().await.is_some() {
                count.send_modify(|count| *count += 1);
            }
        });
        Self { announce, acknowledged, stop, senders, counting }
    }

    /// Sets the server that receives the events. The senders wait while `server` is `None`.
    pub(crate) fn set_server(&self, server: Option<&Server>) {
        self.announce.send_replace(server.map(|server| server.http.clone()));
    }

    /// Returns the number of batches acknowledged so far.
    pub(crate) fn acknowledged(&self) -> u64 {
        *self.acknowledged.borrow()
    }

    /// Waits until `batches` more batches are acknowledged.
    pub(crate) async fn wait_for_batches(&mut self, batches: u64) {
        let goal = self.acknowledged() + batches;
        let waiting = self.acknowledged.wait_for(|count| *count >= goal);
        tokio::time::timeout(RESPONSE_TIME_MAX, waiting)
            .await
            .expect("no acknowledgement in time")
            .expect("the senders are running");
    }

    /// Stops the senders, and waits until the last batch of each sender is acknowledged. Returns the acknowledged
    /// batches of each sender.
    pub(crate) async fn end(mut self) -> Vec<Value> {
        self.stop.store(true, Ordering::Relaxed);
        let sent = std::mem::take(&mut self.senders).join_all().await;
        self.counting.join_all().await;
        sent
    }
}

/// Sends a body once. Returns the status, the `retry-after` header, and the response.
pub(crate) async fn post(server: &Server, tenant: &str, body: String) -> (u16, Option<String>, Value) {
    let url = format!("http://{}/v1/tables/samples/events", server.http);
    let request = reqwest::Client::new().post(url).bearer_auth(server.token(tenant)).timeout(RESPONSE_TIME_MAX);
    let answer = request.header("content-type", "application/x-ndjson").body(body).send().await.unwrap();
    let wait = answer.headers().get("retry-after").map(|wait| wait.to_str().unwrap().to_owned());
    (answer.status().as_u16(), wait, answer.json().await.unwrap())
}

async fn receipt(request: reqwest::RequestBuilder) -> reqwest::Result<Value> {
    request.send().await?.error_for_status()?.json().await
}

/// Returns the events of one batch. The events are identical each time the batch is sent. The times of the events are
/// on two days, so each batch is stored in two files.
pub(crate) fn body(prefix: &str, batch: usize) -> String {
    (0..EVENTS).map(|index| format!("{}\n", event(prefix, batch, index))).collect()
}

/// Like [`body`], but the events also have the columns [`TYPED_COLUMNS`]. Their values follow from `id` and `small`, so
/// `once_suite.py` can check them.
pub(crate) fn typed_body(prefix: &str, batch: usize) -> String {
    let typed = |index| {
        let mut event = event(prefix, batch, index);
        event["amount"] = format!("{index}.25").into();
        event["names"] = json!([event["id"], null]);
        event["ref"] = format!("00000000-0000-4000-8000-{index:012X}").into();
        event["clock"] = format!("12:{:02}", index % 60).into();
        event["doc"] = json!({ "n": index });
        format!("{event}\n")
    };
    (0..EVENTS).map(typed).collect()
}

/// The columns that [`typed_body`] needs in addition to those of the table `samples`.
pub(crate) const TYPED_COLUMNS: &str =
    "amount = \"decimal(9, 2)\"\nnames = \"list<text>\"\nref = \"uuid\"\nclock = \"time\"\ndoc = \"json\"\n";

fn event(prefix: &str, batch: usize, index: usize) -> Value {
    let second = (batch * EVENTS + index) % 86_400 + index % 2 * 86_400;
    json!({
        "id": format!("{prefix}-{batch}-{index}"),
        "at": 1_704_067_200_000_000_i64 + i64::try_from(second).unwrap() * 1_000_000,
        "small": index,
    })
}
