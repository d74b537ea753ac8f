//! The command `glasshouse demo` runs a server on a local folder, sends it a steady stream of call events, and prints
//! commands to try.
//!
//! The demo sends its events to the HTTP endpoint like any other client, with one token per tenant. The rate that the
//! demo prints is computed from the receipts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args as ClapArgs;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::client;
use super::demo_events::{EventGenerator, TENANTS};
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::error::{Error, Result};
use crate::http_client::{Client, Request, Retry};
use crate::server::Server;
use crate::tenancy::{DevelopmentToken, Scope};
use crate::{supervise, telemetry};

/// The interval between requests. Each request contains the events of one tenant and one interval.
const TICK: Duration = Duration::from_millis(250);
/// The lifetime of the printed tokens.
const TOKEN_AGE: Duration = Duration::from_secs(24 * 3_600);
/// The table that receives the events.
const TABLE: &str = "call_events";
/// The SQL statement in the printed commands.
const SQL: &str = "select carrier, count(*) as events, avg(jitter_ms) as jitter_ms from call_events group by carrier \
                   order by jitter_ms desc nulls last";

/// Run a server with synthetic call events of five tenants.
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// The folder that stores the lake
    #[arg(long, default_value = "demo-data", value_name = "DIR")]
    data: PathBuf,
    /// The number of events per second, across all tenants
    #[arg(long, default_value_t = 1_000)]
    rate: u32,
    /// Stop after this many seconds
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<u64>,
}

/// Runs the server and sends events until the process receives a signal or `--seconds` have passed.
pub(crate) fn run(args: &Args, mut config: Config) -> Result<ExitCode> {
    std::fs::create_dir_all(&args.data)
        .map_err(|e| Error::invalid(format!("cannot create the folder `{}`: {e}", args.data.display())))?;
    let folder = args
        .data
        .canonicalize()
        .map_err(|e| Error::internal("cannot resolve the path of the demo's folder").with_source(e))?;
    config.lake.url = format!("file://{}", folder.display());
    config.log.level = "warn".into();
    config.http.home_tables = true;
    let flight_tls = config.flight.tls_cert.is_some();
    telemetry::start_logging(&config.log)?;
    supervise::install_panic_hook();
    super::create_missing_secrets(&config)?.iter().for_each(|line| super::write_stderr(line));
    super::block_on(async {
        let clock = Clock::System;
        let tokens = tokens(&config, &clock)?;
        let server = Server::build(config, clock.clone()).await?;
        let (flight, http) = server.addresses()?;
        let stop = super::serve::stop_on_signal()?;
        let welcome = Welcome {
            program: &config::program(),
            folder: &folder.display().to_string(),
            flight,
            flight_tls,
            http,
            large: &tokens[0],
            small: &tokens[tokens.len() - 1],
        };
        super::write_stdout(&welcome.text());

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
        super::write_stdout("stopped; run the demo again to continue with the lake in the same folder");
        Ok(ExitCode::SUCCESS)
    })
}

/// Creates one token per tenant, with the scopes `read` and `ingest`.
fn tokens(config: &Config, clock: &Clock) -> Result<Vec<(&'static str, String)>> {
    TENANTS
        .into_iter()
        .map(|(tenant, _)| {
            let mint = DevelopmentToken {
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

/// Sends events until `stop` is cancelled, and shows how many were stored.
async fn stream(
    url: String,
    tokens: Vec<(&'static str, String)>,
    rate: u32,
    clock: Clock,
    stop: CancellationToken,
) -> Result<()> {
    // The demo does not retry requests.
    let client = client::client(Retry::NONE)?;
    let url = client::address(&url, &["v1", "tables", TABLE, "events"])?;
    let mut generator = EventGenerator::new(1, clock.now_seconds().unsigned_abs());
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
            let event = generator.next_event(clock.now());
            let index = TENANTS.iter().position(|(tenant, _)| *tenant == event.tenant).unwrap_or(0);
            bodies[index].push_str(&event.json.to_string());
            bodies[index].push('\n');
        }
        let sends = tokens.iter().zip(bodies).filter(|(_, body)| !body.is_empty());
        let sends = sends.map(|((_, token), body)| send(&client, &url, token, body));
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
    super::write_stdout(&format!("{stored} events stored, {refused} requests refused"));
    Ok(())
}

/// Sends events and returns the receipt, or `None` if the request was refused or got no response.
async fn send(client: &Client, url: &Url, token: &str, body: String) -> Option<Value> {
    let request = Request::post(url.clone(), "application/x-ndjson", body).bearer(token);
    serde_json::from_slice(&client::send(client, &request).await.ok()?.body).ok()
}

/// The values in the text that the demo prints when it starts.
struct Welcome<'a> {
    program: &'a str,
    folder: &'a str,
    flight: SocketAddr,
    flight_tls: bool,
    http: SocketAddr,
    large: &'a (&'static str, String),
    small: &'a (&'static str, String),
}

impl Welcome<'_> {
    /// Returns the text that the demo prints: the addresses, two tokens, and commands to paste into another terminal.
    /// The commands do not depend on the current folder of that terminal.
    ///
    /// The commands are not indented, because indentation would break a multi-line Python script. The
    /// explanations are not written as comments, because some interactive shells do not support comments.
    fn text(&self) -> String {
        let Self { program, folder, flight_tls, large: (large, large_token), small: (small, small_token), .. } = self;
        let (flight, http) = (reachable(self.flight), reachable(self.http));
        let (scheme, encryption) = if *flight_tls { ("grpc+tls", "true") } else { ("grpc", "false") };
        let (large, small) = (large.to_uppercase(), small.to_uppercase());
        let lake = quoted(&format!("{folder}/{TABLE}").replace('\'', "''"));
        format!(
            r#"
Glasshouse is running with synthetic call events of five tenants.

  Flight SQL  {scheme}://{flight}
  HTTP        http://{http}   (open it in a browser)
  Lake        {folder}

Open another terminal and paste the tokens of a large and a small tenant. They are valid for one day.

export {large}={large_token}
export {small}={small_token}

Run the same SQL as each of the two tenants. The rows differ.

{program} query --url {scheme}://{flight} --token "${large}" '{SQL}'
{program} query --url {scheme}://{flight} --token "${small}" '{SQL}'

Query from Python over ADBC. This needs two packages.

python3 -m pip install adbc-driver-flightsql pyarrow

python3 -c '
import os, adbc_driver_flightsql as fs, adbc_driver_flightsql.dbapi as dbapi
header = {{fs.DatabaseOptions.AUTHORIZATION_HEADER.value: "Bearer " + os.environ["{large}"]}}
with dbapi.connect("{scheme}://{flight}", db_kwargs=header, autocommit=True) as connection, connection.cursor() as cursor:
    cursor.execute("{SQL}")
    print(cursor.fetch_arrow_table())
'

Send an event over HTTP and read the receipt.

curl -s http://{http}/v1/tables/{TABLE}/events -H "Authorization: Bearer ${small}" -H 'Content-Type: application/json' -d '{{"event_id":"hello-1","event_time":"2026-01-01T00:00:00Z","route_id":"CA1"}}'

Connect DBeaver, DataGrip or Tableau over JDBC (org.apache.arrow:flight-sql-jdbc-driver). This URL connects as {small}.

jdbc:arrow-flight-sql://{flight}/?useEncryption={encryption}&token={small_token}

Read the Delta table with DuckDB. This shows the rows of all tenants.

duckdb -c "select account_id, count(*) from delta_scan('{lake}') group by 1"
"#
        )
    }
}

/// Returns the address at which a client on this host reaches a listener. If the listener is bound to all addresses,
/// returns the loopback address.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Escapes text for use inside double quotes in a POSIX shell.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    for letter in text.chars() {
        if matches!(letter, '\\' | '"' | '$' | '`') {
            quoted.push('\\');
        }
        quoted.push(letter);
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_welcome_text_contains_reachable_addresses_and_valid_commands() {
        let (large, small) = (("aurora", "large.token".to_owned()), ("ember", "small.token".to_owned()));
        let text = |flight: &str, flight_tls: bool, folder: &str| {
            let (flight, http) = (flight.parse().unwrap(), "0.0.0.0:8080".parse().unwrap());
            Welcome { program: "'/a b/glasshouse'", folder, flight, flight_tls, http, large: &large, small: &small }
                .text()
        };
        let plain = text("[::]:8815", false, "/lake");
        for part in [
            "\nexport AURORA=large.token\n",
            "\n'/a b/glasshouse' query --url grpc://[::1]:8815 --token \"$AURORA\" 'select carrier",
            "\ncurl -s http://127.0.0.1:8080/v1/tables/call_events/events -H \"Authorization: Bearer $EMBER\"",
            "\njdbc:arrow-flight-sql://[::1]:8815/?useEncryption=false&token=small.token\n",
            "delta_scan('/lake/call_events')",
        ] {
            assert!(plain.contains(part), "{part}\n{plain}");
        }
        let tls = text("10.0.0.1:8815", true, "/it's $HOME");
        assert!(tls.contains("--url grpc+tls://10.0.0.1:8815") && tls.contains("8815/?useEncryption=true"), "{tls}");
        assert!(tls.contains(r"delta_scan('/it''s \$HOME/call_events')"), "{tls}");
        assert!(
            !SQL.contains(['\'', '"', '\\', '`', '$', '!']),
            "the commands put the statement in shell and Python quotes"
        );
    }
}
