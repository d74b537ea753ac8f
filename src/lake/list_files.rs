//! Lists the files in a table's folder, except its log.

use futures::TryStreamExt as _;
use object_store::ObjectMeta;

use crate::error::{Error, Result};
use crate::lake::Table;

/// The folders that belong to the table but contain no data files.
const OWN_FOLDERS: [&str; 2] = ["_delta_log", "_maintenance"];
/// The maximum number of foreign names that are reported.
const FOREIGN_NAMES_MAX: usize = 10;

/// The result of [`Table::list_files`].
#[derive(Debug, Default)]
pub(crate) struct ForeignFiles {
    /// The number of files with names that Glasshouse does not use.
    pub(crate) count: u64,
    /// Some of their names, relative to the table.
    pub(crate) names: Vec<String>,
}

impl Table {
    /// Calls `each` with the path, the modification time in milliseconds since 1970 and the size in bytes of each data file.
    pub(crate) async fn list_files(&self, each: &mut (dyn FnMut(&str, i64, u64) + Send)) -> Result<ForeignFiles> {
        let (store, folder) = self.location();
        let failed = |error: object_store::Error| {
            Error::unavailable(format!("cannot list the folder of table `{}`", self.contract.name)).with_source(error)
        };
        let mut foreign = ForeignFiles::default();
        let mut see = |object: ObjectMeta| {
            let parts = object.location.prefix_match(folder).map(|parts| parts.map(|part| part.as_ref().to_owned()));
            let path = parts.map(|parts| parts.collect::<Vec<_>>().join("/")).unwrap_or_default();
            if is_data_file(&path) {
                each(&path, object.last_modified.timestamp_millis(), object.size);
                return;
            }
            foreign.count += 1;
            if foreign.names.len() < FOREIGN_NAMES_MAX {
                foreign.names.push(path);
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
        Ok(foreign)
    }
}

/// Returns true if the path is that of a data file: `event_date=…/part-….parquet`, relative to the table.
pub(crate) fn is_data_file(path: &str) -> bool {
    let Some((day, name)) = path.split_once('/') else { return false };
    day.starts_with("event_date=") && name.starts_with("part-") && name.ends_with(".parquet") && !name.contains('/')
}

#[cfg(test)]
mod tests {
    use super::is_data_file;

    #[test]
    fn only_files_of_days_are_data_files() {
        for (path, expected) in [
            ("event_date=2026-03-01/part-0193f3a0.zstd.parquet", true),
            ("event_date=2026-03-01/part-00000-c000.snappy.parquet", true),
            ("event_date=2026-03-01/export.parquet", false),
            ("event_date=2026-03-01/part-1.csv", false),
            ("event_date=2026-03-01/a/part-1.parquet", false),
            ("part-1.parquet", false),
            ("_delta_log/part-1.parquet", false),
            ("_delta_log/00000000000000000001.checkpoint.parquet", false),
            ("", false),
        ] {
            assert_eq!(is_data_file(path), expected, "{path}");
        }
    }
}
