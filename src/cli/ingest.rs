//! `glasshouse ingest`: Send events to a running server.

use std::process::ExitCode;

use clap::Args as ClapArgs;

use crate::error::{Error, Result};

/// Send events to a running server.
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {}

/// To be filled by its owner.
pub(crate) fn run(_args: &Args) -> Result<ExitCode> {
    Err(Error::unsupported("this command is not built yet"))
}
