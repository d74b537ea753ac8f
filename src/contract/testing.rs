//! Test support: contracts, decode parameters and bodies for the tests of this module.

use std::path::Path;

use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use serde_json::Value;

use super::{Contract, DecodeOptions, Decoded, Format, Owner, TenantId, decode};
use crate::config::{ColumnConfig, TableConfig, TimeUnit};

/// The test time 2026-01-01T00:00:00Z, in milliseconds.
pub(super) const NOW_MS: u64 = 1_767_225_600_000;

/// Returns the demo's declaration of the table `call_events`.
pub(super) fn voice_config() -> TableConfig {
    TableConfig {
        proto: Some("proto/glasshouse/voice/v1/call_event.proto".into()),
        message: Some("glasshouse.voice.v1.CallEvent".into()),
        flatten: strings(&["signaling.pdd", "signaling.call_state", "quality", "dimensions"]),
        tenant: "account_id".into(),
        time: "event_time".into(),
        id: "event_id".into(),
        times: strings(&["logged_event_time"]),
        time_unit: TimeUnit::Millis,
        dimensions_map: "other".into(),
        dimensions: strings(&["event_type", "direction", "carrier", "country", "region", "codec", "edge"]),
        metrics: strings(&["duration_ms", "pdd_ms", "jitter_ms", "packet_loss_ratio", "mos", "round_trip_ms"]),
        ..TableConfig::default()
    }
}

pub(super) fn voice() -> Contract {
    Contract::new("call_events", &voice_config(), Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// Returns the declaration of a table that has a column of each kind other than `map`. If `map` is not empty, the table
/// also has a map column with this name.
pub(super) fn plain_config(map: &str) -> TableConfig {
    let columns = [
        ("who", "text"),
        ("at", "timestamp"),
        ("key", "text"),
        ("flag", "bool"),
        ("small", "int32"),
        ("large", "int64"),
        ("single", "float32"),
        ("double", "float64"),
        ("day", "date"),
        ("data", "bytes"),
    ];
    let column =
        |(name, kind): (&str, &str)| ColumnConfig { name: name.into(), kind: kind.into(), ..Default::default() };
    TableConfig {
        columns: columns.into_iter().map(column).collect(),
        tenant: "who".into(),
        time: "at".into(),
        time_unit: TimeUnit::Seconds,
        id: "key".into(),
        dimensions_map: map.into(),
        ..TableConfig::default()
    }
}

pub(super) fn plain(map: &str) -> Contract {
    Contract::new("plain", &plain_config(map), Path::new("")).unwrap()
}

pub(super) fn acme() -> DecodeOptions {
    options(Owner::Tenant(TenantId::parse("acme").unwrap()))
}

pub(super) fn operator() -> DecodeOptions {
    options(Owner::PerEvent)
}

fn options(owner: Owner) -> DecodeOptions {
    let received = NOW_MS as i64 * 1_000;
    DecodeOptions { received, owner, time_max: received + 3_600_000_000, event_bytes_max: 4_096, dimensions_max: 4 }
}

pub(super) fn json(contract: &Contract, body: impl AsRef<[u8]>, options: &DecodeOptions) -> Decoded {
    decode_plain(contract, Format::Json, body, options)
}

pub(super) fn protobuf(contract: &Contract, body: impl AsRef<[u8]>, options: &DecodeOptions) -> Decoded {
    decode_plain(contract, Format::Protobuf, body, options)
}

/// Decodes a body, and then decodes the dictionaries of the resulting columns.
fn decode_plain(contract: &Contract, format: Format, body: impl AsRef<[u8]>, options: &DecodeOptions) -> Decoded {
    let decoded = decode(contract, format, &Bytes::copy_from_slice(body.as_ref()), options).unwrap();
    Decoded { batch: super::EventBatch::unchecked(decoded.batch.to_plain().unwrap()), ..decoded }
}

/// Returns the accepted rows as JSON objects. Nulls are omitted.
pub(super) fn rows(batch: &RecordBatch) -> Vec<Value> {
    let mut lines = Vec::new();
    let mut writer = arrow::json::LineDelimitedWriter::new(&mut lines);
    writer.write(batch).unwrap();
    writer.finish().unwrap();
    drop(writer);
    serde_json::Deserializer::from_slice(&lines).into_iter().map(Result::unwrap).collect()
}

/// Returns the index and the reason of each reject.
pub(super) fn reasons(decoded: &Decoded) -> Vec<(u64, &'static str)> {
    decoded.rejects.iter().map(|reject| (reject.index, reject.reason.as_str())).collect()
}

/// Encodes a protobuf varint field.
pub(super) fn varint(number: u64, value: u64) -> Vec<u8> {
    [leb(number << 3), leb(value)].concat()
}

pub(super) fn bytes(number: u64, value: impl AsRef<[u8]>) -> Vec<u8> {
    let value = value.as_ref();
    [leb(number << 3 | 2), leb(value.len() as u64), value.to_vec()].concat()
}

pub(super) fn double(number: u64, value: f64) -> Vec<u8> {
    [leb(number << 3 | 1), value.to_le_bytes().to_vec()].concat()
}

/// Encodes a message with its length prefix.
pub(super) fn delimited(fields: &[Vec<u8>]) -> Vec<u8> {
    let message = fields.concat();
    [leb(message.len() as u64), message].concat()
}

fn leb(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// Writes batches as an Arrow IPC stream.
pub(super) fn ipc(batches: &[RecordBatch]) -> Vec<u8> {
    let mut writer = arrow::ipc::writer::StreamWriter::try_new(Vec::new(), &batches[0].schema()).unwrap();
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.into_inner().unwrap()
}

/// Decodes an Arrow batch.
pub(super) fn arrow_rows(contract: &Contract, batch: &RecordBatch, options: &DecodeOptions) -> Decoded {
    super::decode_arrow(contract, batch, 0, options).unwrap()
}
