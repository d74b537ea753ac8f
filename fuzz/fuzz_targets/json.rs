//! Builds a table and JSON bodies from the input, and checks that the server's decoder reads them as `serde_json` does.

#![no_main]

#[expect(dead_code, reason = "this target uses only a part of the module")]
#[path = "../../tests/it/oracle/mod.rs"]
mod oracle;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Err(what) = oracle::json(bytes) {
        panic!("{what}");
    }
});
