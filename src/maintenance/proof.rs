//! Proves that a merge neither lost nor changed rows.
//!
//! Adds up the hashes of rows, once over the inputs and once over the encoded outputs. The two sums are equal if both
//! have the same rows, in any order. The hash is keyed with a secret that is different for each merge, so two different
//! sets of rows have the same sum only with a probability of 2⁻⁶⁴.
//!
//! The hash is that of the tenant, the time and the id, or that of the whole row.

use arrow::array::{Array as _, ArrayRef, AsArray as _, StringArray, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, SchemaRef};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use std::sync::Arc;

use crate::contract::plain_column;

/// The number of rows, and the sum of their hashes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct RowSum {
    pub(super) rows: u64,
    pub(super) sum: u64,
}

impl RowSum {
    pub(super) fn add(&mut self, other: Self) {
        self.rows += other.rows;
        self.sum = self.sum.wrapping_add(other.sum);
    }
}

/// Hashes rows.
#[derive(Debug, Clone)]
pub(super) struct RowHasher {
    secret: [u64; 2],
    /// The types with which whole rows are hashed, or `None` if only the keys are hashed.
    whole: Option<Vec<DataType>>,
}

impl RowHasher {
    /// `whole` says whether whole rows are hashed.
    pub(super) fn new(schema: &SchemaRef, whole: bool) -> Self {
        let kinds = || schema.fields().iter().map(|field| without_maps(field.data_type())).collect();
        Self { secret: [rand::random(), rand::random()], whole: whole.then(kinds) }
    }

    /// Returns true if whole rows are hashed.
    pub(super) fn is_whole(&self) -> bool {
        self.whole.is_some()
    }

    /// Returns the sum of rows. `tenant_hash` returns the hash of each row's tenant. `columns` are all columns.
    pub(super) fn sum(
        &self,
        tenant_hash: impl Fn(usize) -> u64,
        times: &TimestampMicrosecondArray,
        ids: &StringArray,
        columns: &[ArrayRef],
    ) -> Result<RowSum, ArrowError> {
        let rows = times.len();
        let sum = match &self.whole {
            Some(kinds) => self.sum_whole(kinds, columns)?,
            None => {
                let hash = |row: usize| self.key(tenant_hash(row), times.value(row), ids.value(row).as_bytes());
                (0..rows).map(hash).fold(0, u64::wrapping_add)
            }
        };
        Ok(RowSum { rows: rows as u64, sum })
    }

    fn sum_whole(&self, kinds: &[DataType], columns: &[ArrayRef]) -> Result<u64, ArrowError> {
        let converted = columns.iter().zip(kinds).map(|(column, kind)| match plain_column(column)? {
            plain if plain.data_type() == kind => Ok(plain),
            plain => list_of_entries(&plain, kind),
        });
        let columns = converted.collect::<Result<Vec<_>, _>>()?;
        let converter = RowConverter::new(kinds.iter().cloned().map(SortField::new).collect())?;
        let rows = converter.convert_columns(&columns)?;
        Ok(rows.iter().map(|row| self.bytes(row.as_ref())).fold(0, u64::wrapping_add))
    }

    /// Returns the hash of a row's key.
    #[inline]
    fn key(&self, tenant: u64, time: i64, id: &[u8]) -> u64 {
        fold(self.bytes(id) ^ time.cast_unsigned(), tenant ^ self.secret[0])
    }

    /// Returns the hash of a string. Reads eight bytes at a time. The last eight bytes may overlap the previous ones,
    /// so the length is part of the hash.
    #[inline]
    pub(super) fn bytes(&self, bytes: &[u8]) -> u64 {
        let mut hash = self.secret[1] ^ bytes.len() as u64;
        let mut rest = bytes;
        while let Some((word, after)) = rest.split_first_chunk::<8>() {
            hash = fold(hash ^ u64::from_le_bytes(*word), self.secret[0]);
            rest = after;
        }
        if !rest.is_empty() {
            let mut word = [0; 8];
            word[..rest.len()].copy_from_slice(rest);
            hash = fold(hash ^ u64::from_le_bytes(word), self.secret[0]);
        }
        fold(hash, self.secret[1] | 1)
    }
}

/// Multiplies two words, and combines the halves of the product.
#[inline]
fn fold(one: u64, other: u64) -> u64 {
    let product = u128::from(one) * u128::from(other | 1);
    (product as u64) ^ (product >> 64) as u64
}

/// Returns the type in which maps are replaced by lists of their entries, because rows cannot contain maps.
fn without_maps(kind: &DataType) -> DataType {
    let inner = |field: &Arc<Field>| Arc::new(field.as_ref().clone().with_data_type(without_maps(field.data_type())));
    match kind {
        DataType::Map(entries, _) | DataType::List(entries) => DataType::List(inner(entries)),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(inner).collect()),
        kind => kind.clone(),
    }
}

fn list_of_entries(values: &ArrayRef, kind: &DataType) -> Result<ArrayRef, ArrowError> {
    match (values.as_map_opt(), kind) {
        (Some(map), DataType::List(entry)) => {
            let entries: ArrayRef = Arc::new(map.entries().clone());
            let entries =
                if entries.data_type() == entry.data_type() { entries } else { cast(&entries, entry.data_type())? };
            let list = arrow::array::ListArray::try_new(
                Arc::clone(entry),
                map.offsets().clone(),
                entries,
                map.nulls().cloned(),
            );
            Ok(Arc::new(list?))
        }
        _ => cast(values, kind),
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Schema;

    use super::*;

    #[test]
    fn every_byte_and_the_length_change_the_hash() {
        let hasher = RowHasher::new(&Arc::new(Schema::empty()), false);
        let text: Vec<u8> = (0..40).collect();
        for length in 0..text.len() {
            let bytes = &text[..length];
            assert_ne!(hasher.bytes(bytes), hasher.bytes(&text[..length + 1]));
            assert_ne!(hasher.bytes(bytes), hasher.bytes(&[bytes, &[0]].concat()));
            for at in 0..length {
                let mut other = bytes.to_vec();
                other[at] ^= 1;
                assert_ne!(hasher.bytes(bytes), hasher.bytes(&other), "{length} {at}");
            }
        }
    }

    #[test]
    fn swapped_parts_of_keys_change_the_sum() {
        let hasher = RowHasher::new(&Arc::new(Schema::empty()), false);
        let sum = |rows: &[(&str, i64, &str)]| {
            let tenants: Vec<u64> = rows.iter().map(|row| hasher.bytes(row.0.as_bytes())).collect();
            let times = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.1));
            let ids = StringArray::from_iter_values(rows.iter().map(|row| row.2));
            hasher.sum(|row| tenants[row], &times, &ids, &[]).unwrap()
        };
        let rows = [("a", 1, "x"), ("b", 2, "y")];
        assert_eq!(sum(&rows), sum(&[rows[1], rows[0]]), "the order does not matter");
        for other in [[("a", 1, "y"), ("b", 2, "x")], [("b", 1, "x"), ("a", 2, "y")], [("a", 1, "x"), ("a", 1, "x")]] {
            assert_ne!(sum(&rows), sum(&other), "{other:?}");
        }
    }
}
