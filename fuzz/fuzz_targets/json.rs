//! Builds a table and JSON bodies from the input: the server's decoder must read them as `serde_json` does.

#![no_main]

#[expect(dead_code, reason = "the other target uses the rest")]
#[path = "../../tests/it/oracle/mod.rs"]
mod oracle;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Err(what) = oracle::json(bytes) {
        panic!("{what}");
    }
});
