//! Tokens against the whole verifier.
