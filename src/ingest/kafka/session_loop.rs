//! Runs the sessions of a Kafka source one after another.
//!
//! If a session fails, the next session starts after a pause and continues from the offsets in the table.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::client::connect;
use super::session::KafkaSession;
use super::source::Source;
use crate::ingest::source::SourceWriter;
use crate::ingest::writer::Writer;
use crate::supervise::on_thread;
use crate::telemetry::SourceTrouble;

/// The initial pause between two sessions. Each session that ends soon after its start doubles the pause, up to
/// [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(500);
/// The longest pause between two sessions.
const PAUSE_MAX: Duration = Duration::from_secs(10);

impl Source {
    /// Reads and stores messages until `stop` is cancelled. First waits until the lookup tables of the source's
    /// transform are loaded. If a session fails, a new session starts after a pause and reads the unstored messages
    /// again. If a session panics, the panic propagates to the caller. The caller may then call this function again.
    pub async fn run(self: Arc<Self>, writer: Arc<Writer>, stop: CancellationToken) {
        let source = self;
        if let Some(transform) = &source.route.transform
            && !transform.ready(&stop).await
        {
            return;
        }
        // Dropping this future does not end the session's thread. The guard therefore cancels the session's stop token,
        // and the session ends soon afterwards.
        let stop = stop.child_token();
        let _stop_on_drop = stop.clone().drop_guard();
        let mut pause = PAUSE_MIN;
        while !stop.is_cancelled() {
            let (source, session_stop) = (source.clone(), stop.clone());
            let writer = SourceWriter::new(writer.clone(), source.route.clone());
            let (name, monitor, runtime) = (source.route.source.clone(), source.monitor.clone(), Handle::current());
            let started = Instant::now();
            let session = move || {
                let client = connect(&source, runtime.clone(), session_stop.clone())?;
                KafkaSession::new(&source, &writer, &client, runtime, session_stop)?.run()
            };
            match on_thread(session).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::error!(source = %name, ?error, "a source failed and will be restarted");
                    monitor.failed(SourceTrouble::Other, format!("{error:?}"));
                }
                Err(panic) => {
                    monitor.failed(SourceTrouble::Other, "the source panicked; the log shows the cause");
                    panic.resume();
                }
            }
            pause = if started.elapsed() > PAUSE_MAX { PAUSE_MIN } else { pause };
            let _stopped = stop.run_until_cancelled(tokio::time::sleep(pause)).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}
