//! Senders that never give up: each sends numbered batches over HTTP, and a batch again until it is acknowledged.
//!
//! In: the address of a server, which may vanish and come back elsewhere. Out: how many batches were acknowledged.
//! A [`Load`] is several of them, of several tenants.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::server::Server;

/// Events of one batch.
pub(crate) const EVENTS: usize = 100;
/// How long it may take until a batch is acknowledged, or anything is answered.
const PASS_MAX: Duration = Duration::from_secs(300);

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

/// Senders of several tenants, who send all the time.
pub(crate) struct Load {
    announce: watch::Sender<Option<String>>,
    acknowledged: watch::Receiver<u64>,
    stop: Arc<AtomicBool>,
    senders: JoinSet<Value>,
    counting: JoinSet<()>,
}

impl Load {
    /// `each` senders of each tenant.
    pub(crate) fn start(server: &Server, tenants: &[&str], each: usize) -> Self {
        let (announce, address) = watch::channel(Some(server.http.clone()));
        let (told, mut acknowledgements) = mpsc::channel(1);
        let (count, acknowledged) = watch::channel(0);
        let (stop, mut senders, mut counting) = (Arc::<AtomicBool>::default(), JoinSet::new(), JoinSet::new());
        for tenant in tenants {
            for number in 0..each {
                let sender = Sender {
                    prefix: format!("{tenant}-{number}"),
                    token: server.token(tenant),
                    address: address.clone(),
                    acknowledged: told.clone(),
                    stop: stop.clone(),
                };
                senders.spawn(sender.run());
            }
        }
        counting.spawn(async move {
            while acknowledgements.recv().await.is_some() {
                count.send_modify(|count| *count += 1);
            }
        });
        Self { announce, acknowledged, stop, senders, counting }
    }

    /// The server is elsewhere from now on, or nowhere.
    pub(crate) fn moves(&self, server: Option<&Server>) {
        self.announce.send_replace(server.map(|server| server.http.clone()));
    }

    /// Batches that were acknowledged so far.
    pub(crate) fn acknowledged(&self) -> u64 {
        *self.acknowledged.borrow()
    }

    /// Waits until so many batches more are acknowledged.
    pub(crate) async fn passes(&mut self, batches: u64) {
        let goal = self.acknowledged() + batches;
        let waiting = self.acknowledged.wait_for(|count| *count >= goal);
        tokio::time::timeout(PASS_MAX, waiting).await.expect("senders are acknowledged").expect("they go on");
    }

    /// Waits until the last batch of each is acknowledged; returns what was.
    pub(crate) async fn end(mut self) -> Vec<Value> {
        self.stop.store(true, Ordering::Relaxed);
        let sent = std::mem::take(&mut self.senders).join_all().await;
        self.counting.join_all().await;
        sent
    }
}

/// Sends a body once: the status, when to come again, and the answer.
pub(crate) async fn post(server: &Server, tenant: &str, body: String) -> (u16, Option<String>, Value) {
    let url = format!("http://{}/v1/tables/samples/events", server.http);
    let request = reqwest::Client::new().post(url).bearer_auth(server.token(tenant)).timeout(PASS_MAX);
    let answer = request.header("content-type", "application/x-ndjson").body(body).send().await.unwrap();
    let wait = answer.headers().get("retry-after").map(|wait| wait.to_str().unwrap().to_owned());
    (answer.status().as_u16(), wait, answer.json().await.unwrap())
}

async fn receipt(request: reqwest::RequestBuilder) -> reqwest::Result<Value> {
    request.send().await?.error_for_status()?.json().await
}

/// The events of one batch, the same however often it is sent. They are of two days, and so of two files.
pub(crate) fn body(prefix: &str, batch: usize) -> String {
    (0..EVENTS)
        .map(|index| {
            let second = (batch * EVENTS + index) % 86_400 + index % 2 * 86_400;
            let event = json!({
                "id": format!("{prefix}-{batch}-{index}"),
                "at": 1_704_067_200_000_000_i64 + i64::try_from(second).unwrap() * 1_000_000,
                "small": index,
            });
            format!("{event}\n")
        })
        .collect()
}
