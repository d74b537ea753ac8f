//! `glasshouse completions`: write shell completions.

use std::io;
use std::process::ExitCode;

use clap::{Args as ClapArgs, CommandFactory};
use clap_complete::Shell;

/// Write completions for a shell to standard output.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  glasshouse completions bash > /etc/bash_completion.d/glasshouse
  glasshouse completions zsh  > ~/.zfunc/_glasshouse")]
pub(crate) struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Writes them.
pub(crate) fn run(args: &Args) -> ExitCode {
    // Generate in memory first: the generator panics if its output is closed.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::Cli::command(), "glasshouse", &mut script);
    let _ = io::Write::write_all(&mut io::stdout().lock(), &script);
    ExitCode::SUCCESS
}
