//! The binary. It only calls the library.

fn main() -> std::process::ExitCode {
    glasshouse::cli::main()
}
