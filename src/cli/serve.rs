//! The command `glasshouse serve` runs the server until a signal arrives, and then stops it without losing events.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args as ClapArgs;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::server::Server;
use crate::{supervise, telemetry};

/// Run the server.
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// Write the addresses of the endpoints as JSON to this file once the server is listening:
    /// {"flight":"127.0.0.1:1234","http":"…"}
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

/// Serves requests until SIGINT or SIGTERM, and then stops within `shutdown.time_max`. A second signal ends the process
/// immediately. After a second signal, only events that were acknowledged before their commit (`ack=received`) can be
/// lost.
pub(crate) fn run(args: &Args, config: Config) -> Result<ExitCode> {
    telemetry::start_logging(&config.log)?;
    supervise::install_panic_hook();
    super::create_missing_secrets(&config)?.iter().for_each(|line| tracing::info!("{line}"));
    super::block_on(async {
        let server = Server::build(config, Clock::System).await?;
        let (flight, http) = server.addresses()?;
        tracing::info!(%flight, %http, "glasshouse is ready");
        if let Some(path) = &args.ready_file {
            announce(path, &serde_json::json!({ "flight": flight.to_string(), "http": http.to_string() }))?;
        }
        server.run(stop_on_signal()?).await?;
        tracing::info!("glasshouse stopped; all accepted events are committed");
        Ok(ExitCode::SUCCESS)
    })
}

/// Writes the file atomically, so a reader never sees an incomplete file.
fn announce(path: &Path, addresses: &serde_json::Value) -> Result<()> {
    let draft = path.with_extension("draft");
    std::fs::write(&draft, addresses.to_string())
        .and_then(|()| std::fs::rename(&draft, path))
        .map_err(|e| Error::invalid(format!("cannot write --ready-file {}: {e}", path.display())).with_source(e))
}

/// Returns a cancellation token that the first SIGINT or SIGTERM cancels.
pub(crate) fn stop_on_signal() -> Result<CancellationToken> {
    let listen = |kind| signal(kind).map_err(|e| Error::internal("cannot listen for signals").with_source(e));
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    let stop = CancellationToken::new();
    let signalled = stop.clone();
    std::thread::Builder::new()
        .name("signals".into())
        .spawn({
            let runtime = tokio::runtime::Handle::current();
            move || {
                runtime.block_on(async {
                    for count in 0..2 {
                        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
                        if count == 0 {
                            tracing::info!(
                                "stopping: finishing running requests and committing accepted events; a second signal ends the process immediately"
                            );
                            signalled.cancel();
                        }
                    }
                    std::process::exit(130);
                });
            }
        })
        .map_err(|e| Error::internal("cannot start the signal thread").with_source(e))?;
    Ok(stop)
}
