//! The server's binary, which only calls the library.

fn main() -> std::process::ExitCode {
    glasshouse::cli::main()
}
