//! Determines how a user has to write the name of this executable in a POSIX shell. The commands that Glasshouse prints
//! for the user to run begin with this name.

use std::path::{Path, PathBuf};

/// The name of the executable.
const NAME: &str = "glasshouse";

/// Returns `glasshouse` if a `PATH` lookup of that name finds the running executable. Otherwise returns the
/// executable's absolute path, quoted if necessary.
pub(crate) fn program() -> String {
    let folders: Vec<PathBuf> =
        std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default();
    std::env::current_exe().map_or_else(|_| NAME.to_owned(), |running| word(&running, &folders))
}

fn word(running: &Path, folders: &[PathBuf]) -> String {
    let canonical = |path: &Path| path.canonicalize().ok();
    let found = folders.iter().map(|folder| folder.join(NAME)).find(|path| path.is_file());
    if found.is_some_and(|found| canonical(&found).is_some() && canonical(&found) == canonical(running)) {
        return NAME.to_owned();
    }
    shell_word(&running.display().to_string())
}

/// Quotes `text` for a POSIX shell if the shell would split or expand it.
fn shell_word(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+:,@%".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_name_is_used_if_path_leads_to_the_running_executable() {
        let home = tempfile::tempdir().unwrap();
        let folder = |name: &str| {
            let folder = home.path().join(name);
            std::fs::create_dir(&folder).unwrap();
            folder
        };
        let (built, other, linked, empty) = (folder("built"), folder("other one"), folder("linked"), folder("empty"));
        let running = built.join(NAME);
        std::fs::write(&running, "").unwrap();
        std::fs::write(other.join(NAME), "").unwrap();
        std::os::unix::fs::symlink(&running, linked.join(NAME)).unwrap();
        let path = running.display().to_string();
        let cases: [(&[&PathBuf], &str); 5] = [
            (&[&empty, &built], NAME),
            (&[&linked], NAME),
            (&[&other, &built], &path),
            (&[&empty], &path),
            (&[], &path),
        ];
        for (folders, expected) in cases {
            let folders: Vec<PathBuf> = folders.iter().map(|folder| (*folder).clone()).collect();
            assert_eq!(word(&running, &folders), expected, "{folders:?}");
        }
    }

    #[test]
    fn words_are_quoted_if_a_shell_would_split_or_expand_them() {
        let cases = [
            ("/a/b-c_1.2/glasshouse", "/a/b-c_1.2/glasshouse"),
            ("/a b/c", "'/a b/c'"),
            ("/it's/$HOME", r"'/it'\''s/$HOME'"),
            ("~/x", "'~/x'"),
            ("", "''"),
        ];
        for (text, expected) in cases {
            assert_eq!(shell_word(text), expected);
        }
    }
}
