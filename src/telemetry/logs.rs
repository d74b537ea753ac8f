//! Sets up logging to standard error, as text for people or as JSON for log collectors.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::EnvFilter;

use crate::config::{LogConfig, LogFormat};
use crate::error::{Error, Result};

/// Starts logging to standard error. Fails with `Conflict` if logging was already started.
pub fn start_logging(config: &LogConfig) -> Result<()> {
    let filter = EnvFilter::try_new(&config.level).map_err(|error| {
        Error::invalid(format!(
            "log.level `{}` is not a valid filter: {error}; use a filter such as \"info,glasshouse=debug\"",
            config.level
        ))
    })?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    let started = match config.format {
        LogFormat::Text => lines.with_ansi(stderr().is_terminal()).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).try_init(),
    };
    started.map_err(|error| Error::conflict("logging was already started").with_source(error))
}
