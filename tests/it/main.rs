//! The house from outside: whole servers, real clients, and the rules of the source tree.

mod source;
mod tidy;
