//! `glasshouse serve`: Run the server.

use std::process::ExitCode;

use clap::Args as ClapArgs;

use crate::config::Config;
use crate::error::{Error, Result};

/// Run the server.
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {}

/// To be filled by its owner.
pub(crate) fn run(_args: &Args, _config: Config) -> Result<ExitCode> {
    Err(Error::unsupported("this command is not built yet"))
}
