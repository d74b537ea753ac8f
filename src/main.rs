//! The entry point of the server's binary. It only calls the library.

fn main() -> std::process::ExitCode {
    glasshouse::cli::main()
}
