//! `glasshouse demo`: a server on a local folder, a steady stream of call events, and commands to paste.
//!
//! The stream comes in through the web door like anybody's, with one token per tenant. Rates are read from the receipts.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args as ClapArgs;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::call_traffic::{TENANTS, Traffic};
use crate::clock::Clock;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::server::Server;
use crate::telemetry;
use crate::tenancy::{Mint, Scope};

/// How often events are sent; each request carries one tenant's events of this time.
const TICK: Duration = Duration::from_millis(250);
/// How long the printed tokens are valid.
const TOKEN_AGE: Duration = Duration::from_secs(24 * 3_600);
/// The table that the stream goes to.
const TABLE: &str = "call_events";

/// Run a server with live synthetic call events of five tenants.
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// The folder of the lake
    #[arg(long, default_value = "demo-data", value_name = "DIR")]
    data: PathBuf,
    /// Events per second, all tenants together
    #[arg(long, default_value_t = 1_000)]
    rate: u32,
    /// Stop after this many seconds
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<u64>,
}

/// Starts the server and the stream; stops both on a signal, or after `--seconds`.
pub(crate) fn run(args: &Args, mut config: Config) -> Result<ExitCode> {
    std::fs::create_dir_all(&args.data)
        .map_err(|e| Error::invalid(format!("cannot make the folder `{}`: {e}", args.data.display())))?;
    let folder = args.data.canonicalize().map_err(|e| Error::internal("the new folder has no path").with_source(e))?;
    config.lake.url = format!("file://{}", folder.display());
    config.log.level = "warn".into();
    telemetry::start_logging(&config.log)?;
    super::block_on(async {
        let clock = Clock::System;
        let tokens = tokens(&config, &clock)?;
        let server = Server::build(config, clock.clone()).await?;
        let (flight, http) = server.addresses()?;
        let stop = super::serve::stop_on_signal()?;
        print_welcome(&folder.display().to_string(), &flight.to_string(), &http.to_string(), &tokens);

        let mut tasks = JoinSet::new();
        tasks.spawn(stream(format!("http://{http}"), tokens, args.rate, clock, stop.clone()));
        if let Some(seconds) = args.seconds {
            let stop = stop.clone();
            tasks.spawn(async move {
                let _ = stop.run_until_cancelled(tokio::time::sleep(Duration::from_secs(seconds))).await;
                stop.cancel();
                Ok(())
            });
        }
        let served = server.run(stop.clone()).await;
        stop.cancel();
        let streamed = tasks.join_all().await.into_iter().collect::<Result<()>>();
        served.and(streamed)?;
        super::say("stopped; the lake stays in the folder: run the demo again and it goes on");
        Ok(ExitCode::SUCCESS)
    })
}

/// One token per tenant, to read and to ingest.
fn tokens(config: &Config, clock: &Clock) -> Result<Vec<(&'static str, String)>> {
    TENANTS
        .into_iter()
        .map(|(tenant, _)| {
            let mint = Mint {
                issuer: String::new(),
                tenant: Some(tenant.into()),
                subject: format!("demo-{tenant}"),
                scopes: vec![Scope::Read, Scope::Ingest],
                age: TOKEN_AGE,
                claims: serde_json::Map::new(),
            };
            Ok((tenant, mint.sign(&config.auth, clock)?))
        })
        .collect()
}

/// Sends events until `stop`, and shows what became of them.
async fn stream(
    url: String,
    tokens: Vec<(&'static str, String)>,
    rate: u32,
    clock: Clock,
    stop: CancellationToken,
) -> Result<()> {
    let client = reqwest::Client::new();
    let mut traffic = Traffic::new(1, clock.now_seconds().unsigned_abs());
    let style =
        ProgressStyle::with_template("{spinner} {elapsed} {msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
    let line = ProgressBar::new_spinner().with_style(style);
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut stored, mut refused) = (0_u64, 0_u64);
    let started = clock.now();
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let events = u128::from(rate) * TICK.as_millis() / 1_000;
        let mut bodies = vec![String::new(); tokens.len()];
        for _ in 0..events {
            let event = traffic.next_event(clock.now());
            let at = TENANTS.iter().position(|(tenant, _)| *tenant == event.tenant).unwrap_or(0);
            bodies[at].push_str(&event.json.to_string());
            bodies[at].push('\n');
        }
        let sends = tokens.iter().zip(bodies).filter(|(_, body)| !body.is_empty()).map(|((_, token), body)| {
            let url = format!("{url}/v1/tables/{TABLE}/events");
            send(&client, url, token, body)
        });
        for receipt in futures::future::join_all(sends).await {
            match receipt {
                Some(receipt) => stored += receipt["accepted"].as_u64().unwrap_or(0),
                None => refused += 1,
            }
        }
        let seconds = ((clock.now() - started) as f64 / 1e6).max(0.001);
        line.set_message(format!(
            "{stored} events stored, {:.0} per second{}",
            stored as f64 / seconds,
            if refused == 0 { String::new() } else { format!(", {refused} requests refused") }
        ));
        line.tick();
    }
    line.finish_and_clear();
    super::say(&format!("{stored} events stored, {refused} requests refused"));
    Ok(())
}

/// The receipt, or nothing when the request was refused or lost: a demo does not retry.
async fn send(client: &reqwest::Client, url: String, token: &str, body: String) -> Option<Value> {
    let request = client.post(url).bearer_auth(token).header("content-type", "application/x-ndjson").body(body);
    request.send().await.ok()?.error_for_status().ok()?.json().await.ok()
}

/// What a newcomer can paste into another terminal.
fn print_welcome(folder: &str, flight: &str, http: &str, tokens: &[(&str, String)]) {
    let (large, small) = (&tokens[0], &tokens[tokens.len() - 1]);
    let (port, sql) = (
        flight.rsplit(':').next().unwrap_or("8815"),
        "select carrier, count(*) as events, avg(jitter_ms) as jitter_ms from call_events group by carrier order by jitter_ms desc nulls last",
    );
    super::say(&format!(
        r#"
Glasshouse answers: Flight SQL on grpc://{flight}, HTTP on http://{http}, lake in {folder}
Five tenants send call events. Two of their tokens (a day long), a large tenant's and a small one's:

  export {large_name}={large_token}
  export {small_name}={small_token}

Ask as one, then as the other: the same SQL, other rows.

  glasshouse query --url grpc://{flight} --token "${large_name}" '{sql}'

  # Python, ADBC: pip install adbc-driver-flightsql pyarrow
  import os, adbc_driver_flightsql.dbapi as dbapi, adbc_driver_flightsql as fs
  db = dbapi.connect("grpc://{flight}", db_kwargs={{
      fs.DatabaseOptions.AUTHORIZATION_HEADER.value: "Bearer " + os.environ["{large_name}"]}}, autocommit=True)
  cursor = db.cursor(); cursor.execute("{sql}"); print(cursor.fetch_arrow_table())

  # JDBC (DBeaver, DataGrip, Tableau …): any user name, the token as password; or in the URL:
  jdbc:arrow-flight-sql://127.0.0.1:{port}/?useEncryption=false&token=$TOKEN

  # HTTP: send an event, read the receipt
  curl -s http://{http}/v1/tables/{TABLE}/events -H "Authorization: Bearer ${small_name}" \
       -H 'Content-Type: application/json' \
       -d '{{"event_id":"hello-1","event_time":"2026-01-01T00:00:00Z","route_id":"CA1"}}'

  # DuckDB over the open lake (all tenants: this is the operator's view)
  duckdb -c "select account_id, count(*) from delta_scan('{folder}/{TABLE}') group by 1"
"#,
        large_name = large.0.to_uppercase(),
        large_token = large.1,
        small_name = small.0.to_uppercase(),
        small_token = small.1,
    ));
}
