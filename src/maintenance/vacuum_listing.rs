//! Lists the files in a table's folder, except its log.

use futures::TryStreamExt as _;
use object_store::ObjectMeta;

use crate::error::{Error, Result};
use crate::lake::Table;
use crate::maintenance::file_name::is_data_file;

/// The folders that belong to the table but contain no data files.
const OWN_FOLDERS: [&str; 2] = ["_delta_log", "_maintenance"];
/// The maximum number of foreign names that are reported.
const FOREIGN_NAMES_MAX: usize = 10;

/// The result of [`list`].
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// The number of files with names that Glasshouse does not use.
    pub(super) foreign_files: u64,
    /// Some of their names, relative to the table.
    pub(super) foreign_names: Vec<String>,
}

/// Calls `each` with the path, the modification time in milliseconds since 1970 and the size in bytes of each data file.
pub(super) async fn list(table: &Table, each: &mut (dyn FnMut(&str, i64, u64) + Send)) -> Result<Listing> {
    let (store, folder) = table.location();
    let failed = |error: object_store::Error| {
        Error::unavailable(format!("cannot list the folder of table `{}`", table.contract().name)).with_source(error)
    };
    let mut listing = Listing::default();
    let mut see = |object: ObjectMeta| {
        let parts = object.location.prefix_match(folder).map(|parts| parts.map(|part| part.as_ref().to_owned()));
        let path = parts.map(|parts| parts.collect::<Vec<_>>().join("/")).unwrap_or_default();
        if is_data_file(&path) {
            each(&path, object.last_modified.timestamp_millis(), object.size);
            return;
        }
        listing.foreign_files += 1;
        if listing.foreign_names.len() < FOREIGN_NAMES_MAX {
            listing.foreign_names.push(path);
        }
    };
    // The log has many more objects than the other folders, so only these are listed.
    let top = store.objects.list_with_delimiter(Some(folder)).await.map_err(failed)?;
    top.objects.into_iter().for_each(&mut see);
    for prefix in top.common_prefixes {
        if prefix.filename().is_some_and(|name| OWN_FOLDERS.contains(&name)) {
            continue;
        }
        let mut objects = store.objects.list(Some(&prefix));
        while let Some(object) = objects.try_next().await.map_err(failed)? {
            see(object);
        }
    }
    Ok(listing)
}
