//! The command `glasshouse completions` writes a completion script for a shell.

use std::io;
use std::process::ExitCode;

use clap::{Args as ClapArgs, CommandFactory};
use clap_complete::Shell;

/// Write a completion script for a shell to standard output.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  glasshouse completions bash > /etc/bash_completion.d/glasshouse
  glasshouse completions zsh  > ~/.zfunc/_glasshouse")]
pub(crate) struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Writes the completion script.
pub(crate) fn run(args: &Args) -> ExitCode {
    // The generator panics if it cannot write its output, so the script is first generated in memory.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::Cli::command(), "glasshouse", &mut script);
    let _ = io::Write::write_all(&mut io::stdout().lock(), &script);
    ExitCode::SUCCESS
}
