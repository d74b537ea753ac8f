//! The command `glasshouse tables` lists the tables and columns that a token can see.

use std::process::ExitCode;

use clap::Args as ClapArgs;
use serde::Deserialize;

use super::client;
use crate::error::{Error, Result};
use crate::http_client::Request;

/// List the tables that a token can see.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Example:
  glasshouse tables --token \"$TOKEN\"")]
pub(crate) struct Args {
    /// The server's HTTP endpoint
    #[arg(long, env = "GLASSHOUSE_URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// List the tables that this token can see
    #[arg(long, env = "GLASSHOUSE_TOKEN", hide_env_values = true)]
    token: String,
    /// Show the files of each table and the state of merges instead of its columns. Requires an operator's token with
    /// the scope `admin`
    #[arg(long)]
    health: bool,
}

#[derive(Debug, Deserialize)]
struct TablesJson {
    tables: Vec<Listed>,
}

#[derive(Debug, Deserialize)]
struct Listed {
    name: String,
    #[serde(default)]
    description: String,
    columns: Vec<ListedColumn>,
    latest: Option<ListedLatest>,
}

/// Properties of a table that shows only the latest version of each row: its key columns, and the name of the table
/// that shows all versions.
#[derive(Debug, Deserialize)]
struct ListedLatest {
    key: Vec<String>,
    changes: String,
}

#[derive(Debug, Deserialize)]
struct ListedColumn {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    unit: String,
    #[serde(default)]
    description: String,
}

/// Prints each table with its columns.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if args.health {
        return health(args);
    }
    let listing: TablesJson = super::block_on(async {
        let request = Request::get(client::address(&args.url, &["v1", "tables"])?).bearer(&args.token);
        let response = client::send(&client::client(client::RETRY)?, &request).await?;
        serde_json::from_slice(&response.body).map_err(client::unreadable)
    })?;
    if listing.tables.is_empty() {
        return Err(Error::not_found(
            "this token cannot see any table: a table is visible only if the configuration has a section [policy.NAME] for it",
        ));
    }
    for table in &listing.tables {
        super::write_stdout(&format!("{}  {}", table.name, table.description));
        if let Some(ListedLatest { key, changes }) = &table.latest {
            super::write_stdout(&format!(
                "  shows the latest version of each key ({}); all versions are in {changes}",
                key.join(", ")
            ));
        }
        let width = table.columns.iter().map(|column| column.name.len()).max().unwrap_or(0);
        for ListedColumn { name, kind, unit, description } in &table.columns {
            super::write_stdout(format!("  {name:width$}  {kind:9}  {unit:6}  {description}").trim_end());
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints the files of each table and the state of merges.
fn health(args: &Args) -> Result<ExitCode> {
    let response = super::block_on(async {
        let request = Request::get(client::address(&args.url, &["v1", "maintenance"])?).bearer(&args.token);
        let response = client::send(&client::client(client::RETRY)?, &request).await?;
        serde_json::from_slice(&response.body).map_err(client::unreadable)
    })?;
    super::maintenance::show(response)?;
    Ok(ExitCode::SUCCESS)
}
