//! Errors for values of a lookup that cannot be read. They name the row or the line, the column, and its type.
//!
//! The errors of the engine's readers contain the value, and often the whole row. A lookup can contain the rows of many
//! tenants, so those errors must be neither returned nor logged.
//!
//! **Invariant:** an error of this file contains no value of a lookup, neither in its message nor in its source.

use std::io::Cursor;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::json;
use serde_json::value::RawValue;

use crate::contract::ColumnKind;
use crate::error::{Error, Result};

/// Casts a column. If a value cannot be cast, the error names its row. `rows_before` is the number of rows of the lookup
/// before this column's first row.
pub(super) fn cast(name: &str, column: &ArrayRef, to: &DataType, rows_before: usize) -> Result<ArrayRef> {
    let (exact, safe) = (CastOptions { safe: false, ..CastOptions::default() }, CastOptions::default());
    cast_with_options(column, to, &exact).map_err(|_| {
        let nulls = cast_with_options(column, to, &safe).ok();
        let lost = nulls.and_then(|cast| (0..cast.len()).find(|row| column.is_valid(*row) && cast.is_null(*row)));
        let (from, to) = (type_name(column.data_type()), type_name(to));
        match lost {
            Some(row) => value_error(&row_place(rows_before + row), name, &to),
            None => Error::invalid(format!("column `{name}`: values of the type {from} cannot be converted to {to}")),
        }
    })
}

/// Describes the row with this index. Rows are counted from 1, and the header of a CSV file is not counted.
pub(super) fn row_place(index: usize) -> String {
    format!("row {}", index + 1)
}

/// Returns the error for a CSV file that cannot be read with this schema.
pub(super) fn csv_error(error: &ArrowError, schema: Option<&Schema>) -> Error {
    // Errors of this type describe the structure of the file, and contain only numbers of lines and fields.
    if let ArrowError::CsvError(text) = error {
        return Error::invalid(format!("not valid CSV: {text}"));
    }
    let place = csv_place(&error.to_string());
    match place.and_then(|(row, column)| Some((row, schema?.fields().get(column)?))) {
        Some((row, field)) => {
            value_error(&format!("not valid CSV: row {row}"), field.name(), &type_name(field.data_type()))
        }
        None => Error::invalid("not valid CSV: a value does not have the type of its column"),
    }
}

/// Returns the row and the index of the column that an error of the CSV reader names. If a value imitates the text of
/// the error, the numbers are wrong, but they are still only numbers.
fn csv_place(text: &str) -> Option<(usize, usize)> {
    let (_, rest) = text.split_once(" for column ").or_else(|| text.split_once("Error parsing column "))?;
    let (column, rest) = rest.split_once(" at line ")?;
    let row = rest.split(|digit: char| !digit.is_ascii_digit()).next()?;
    Some((row.parse().ok()?, column.parse().ok()?))
}

/// Returns the error for a JSON file that cannot be read with this schema, or whose columns cannot be inferred. Reads the
/// file again to find the line.
pub(super) fn json_error(body: &[u8], schema: Option<&SchemaRef>) -> Error {
    let mut records = Vec::new();
    let mut values = serde_json::Deserializer::from_slice(body).into_iter::<&RawValue>();
    while let Some(value) = values.next() {
        let end = values.byte_offset();
        match value {
            Ok(record) if record.get().starts_with('{') => records.push(end - record.get().len()..end),
            Ok(_) => return Error::invalid(format!("not valid JSON: {} is not an object", line_of(body, end))),
            // An error of the parser names a line and a column, and contains no value.
            Err(error) => return Error::invalid(format!("not valid JSON: {error}")),
        }
    }
    let Some(schema) = schema else {
        return Error::invalid("not valid JSON: write one object per line, and the same type of values in each column");
    };
    let record = first_unreadable(body, schema, records);
    let field = record
        .clone()
        .and_then(|record| schema.fields().iter().find(|field| !is_readable(&body[record.clone()], &only(field))));
    match record.zip(field) {
        Some((record, field)) => {
            let place = format!("not valid JSON: {}", line_of(body, record.start));
            value_error(&place, field.name(), &type_name(field.data_type()))
        }
        None => Error::invalid("not valid JSON: a value does not have the type of its column"),
    }
}

/// Returns the first record that cannot be read, by reading halves of the records.
fn first_unreadable(body: &[u8], schema: &SchemaRef, mut records: Vec<Range<usize>>) -> Option<Range<usize>> {
    while records.len() > 1 {
        let second = records.split_off(records.len() / 2);
        let (start, end) = (records.first()?.start, records.last()?.end);
        if is_readable(&body[start..end], schema) {
            records = second;
        }
    }
    records.pop()
}

fn is_readable(records: &[u8], schema: &SchemaRef) -> bool {
    let reader = json::ReaderBuilder::new(Arc::clone(schema)).with_coerce_primitive(true).build(Cursor::new(records));
    reader.is_ok_and(|mut batches| batches.all(|batch| batch.is_ok()))
}

fn only(field: &Arc<Field>) -> SchemaRef {
    Arc::new(Schema::new(vec![Arc::clone(field)]))
}

/// Describes the line of a byte. Lines are counted from 1.
fn line_of(body: &[u8], offset: usize) -> String {
    format!("line {}", body[..offset].iter().filter(|byte| **byte == b'\n').count() + 1)
}

fn value_error(place: &str, column: &str, kind: &str) -> Error {
    Error::invalid(format!(
        "{place}: the value of column `{column}` is not {kind}; correct it, or declare another type"
    ))
}

/// Returns the name of a type in the configuration, or the engine's name if a column cannot be declared with this type.
fn type_name(data_type: &DataType) -> String {
    ColumnKind::of_data_type(data_type).map_or_else(|| data_type.to_string(), |kind| kind.to_string())
}
