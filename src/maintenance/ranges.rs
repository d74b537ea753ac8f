//! The ranges of tenants into which the files of a day are cut.
//!
//! A *boundary* is the first tenant of a range. Boundaries are not stored: they are read from the bounds of live files.
//! A tenant is a boundary if a file begins with it and no file contains both this tenant and a smaller one.

use std::sync::Arc;

use crate::lake::DataFile;

/// The smallest and the largest tenant of files that overlap, directly or through other files.
type Bounds = (Arc<str>, Arc<str>);

/// Returns the bounds of each group of overlapping files, in order. Returns `None` if the bounds of a file are unknown.
fn groups_of(files: &[&Arc<DataFile>]) -> Option<Vec<Bounds>> {
    let mut bounds: Vec<&Bounds> = files.iter().map(|file| file.tenants.as_ref()).collect::<Option<_>>()?;
    bounds.sort_unstable();
    let mut groups: Vec<Bounds> = Vec::new();
    for (least, most) in bounds {
        match groups.last_mut() {
            Some(group) if *least <= group.1 => group.1 = Arc::clone((&group.1).max(most)),
            _ => groups.push((Arc::clone(least), Arc::clone(most))),
        }
    }
    Some(groups)
}

/// Returns the boundaries of `files`, in order.
pub(super) fn boundaries_of(files: &[&Arc<DataFile>]) -> Vec<Arc<str>> {
    groups_of(files).into_iter().flatten().skip(1).map(|(least, _)| least).collect()
}

/// Returns the boundaries of `files`, and those of `inherited` that cut none of them.
pub(super) fn with_inherited(files: &[&Arc<DataFile>], inherited: Vec<Arc<str>>) -> Vec<Arc<str>> {
    let groups = match groups_of(files) {
        Some(groups) => groups,
        None => return Vec::new(),
    };
    let is_clean = |boundary: &Arc<str>| {
        let group = groups.partition_point(|(least, _)| least < boundary).checked_sub(1);
        group.is_none_or(|group| groups[group].1 < *boundary)
    };
    let mut boundaries: Vec<Arc<str>> = inherited.into_iter().filter(is_clean).collect();
    boundaries.extend(groups.iter().skip(1).map(|(least, _)| Arc::clone(least)));
    boundaries.sort_unstable();
    boundaries.dedup();
    boundaries
}

/// Returns those boundaries of `files` that separate ranges of at least `range_bytes` bytes.
pub(super) fn sized_boundaries(files: &[&Arc<DataFile>], range_bytes: u64) -> Vec<Arc<str>> {
    let boundaries = boundaries_of(files);
    let mut sizes = vec![0_u64; boundaries.len() + 1];
    for file in files {
        sizes[range_of(file, &boundaries)] += file.size;
    }
    let mut collected = 0;
    let is_full = |size: &u64| {
        collected += size;
        let is_full = collected >= range_bytes;
        if is_full {
            collected = 0;
        }
        is_full
    };
    // The boundary at index `i` follows the range at index `i`.
    let full: Vec<bool> = sizes.iter().map(is_full).collect();
    boundaries.into_iter().zip(full).filter(|(_, is_full)| *is_full).map(|(boundary, _)| boundary).collect()
}

/// Returns the range in which a file begins.
fn range_of(file: &DataFile, boundaries: &[Arc<str>]) -> usize {
    file.tenants.as_ref().map_or(0, |(least, _)| boundaries.partition_point(|boundary| boundary <= least))
}

/// Returns the files of each range that has files.
pub(super) fn ranges_of<'a>(files: &[&'a Arc<DataFile>], boundaries: &[Arc<str>]) -> Vec<Vec<&'a Arc<DataFile>>> {
    let mut ranges = vec![Vec::new(); boundaries.len() + 1];
    for file in files {
        ranges[range_of(file, boundaries)].push(*file);
    }
    ranges.retain(|range| !range.is_empty());
    ranges
}

/// Returns true if no boundary cuts the file, so that all its tenants are in one range.
pub(super) fn is_within(file: &DataFile, boundaries: &[Arc<str>]) -> bool {
    file.tenants.as_ref().is_some_and(|(least, most)| {
        let range = |tenant: &Arc<str>| boundaries.partition_point(|boundary| boundary <= tenant);
        range(least) == range(most)
    })
}

/// Returns true if the file may have tenants of one of the groups of overlapping files.
pub(super) fn overlaps_any(file: &DataFile, files: &[&Arc<DataFile>]) -> bool {
    let (Some((least, most)), Some(groups)) = (&file.tenants, groups_of(files)) else { return true };
    let group = groups.partition_point(|(first, _)| first <= most).checked_sub(1);
    group.is_some_and(|group| groups[group].1 >= *least)
}
