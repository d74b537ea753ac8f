//! The level of a data file, which is part of its name.
//!
//! A merged file is called `part-<level>-<range>-<uuid>.zstd.parquet`. Ingest and other writers use other names. Their
//! files have level 0. The level is only a hint for the policy: a wrong level costs time, but never rows.

use uuid::Uuid;

/// The highest level: files of a closed day, cut by tenant.
pub const LEVEL_MAX: u8 = 3;

/// Returns the level of a file. `path` is relative to the table.
pub fn level(path: &str) -> u8 {
    merged_level(path).unwrap_or(0)
}

fn merged_level(path: &str) -> Option<u8> {
    let name = path.rsplit('/').next()?;
    let name = name.strip_prefix("part-")?.strip_suffix(".zstd.parquet")?;
    let (level, rest) = name.split_once('-')?;
    let (range, id) = rest.split_once('-')?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
    let level = level.parse().ok().filter(|parsed: &u8| *parsed <= LEVEL_MAX && level.len() == 1)?;
    (is_number(range) && id.len() == 36 && Uuid::try_parse(id).is_ok()).then_some(level)
}

#[cfg(test)]
mod tests {
    use super::level;

    #[test]
    fn only_names_of_merged_files_have_a_level() {
        let id = "0193f3a0-7b1c-7def-8123-456789abcdef";
        for (name, expected) in [
            (format!("event_date=2026-03-01/part-2-17-{id}.zstd.parquet"), 2),
            (format!("part-3-0-{id}.zstd.parquet"), 3),
            (format!("event_date=2026-03-01/part-{id}.zstd.parquet"), 0),
            (format!("part-4-0-{id}.zstd.parquet"), 0),
            (format!("part-02-0-{id}.zstd.parquet"), 0),
            (format!("part-1--{id}.zstd.parquet"), 0),
            (format!("part-1-2-{id}.parquet"), 0),
            (format!("part-1-2-{id}-c000.zstd.parquet"), 0),
            (format!("part-00000-{id}-c000.snappy.parquet"), 0),
            (format!("part-1-2-{}.zstd.parquet", id.replace('-', "")), 0),
            ("part-1-2-3.zstd.parquet".to_owned(), 0),
            (String::new(), 0),
        ] {
            assert_eq!(level(&name), expected, "{name}");
        }
    }
}
