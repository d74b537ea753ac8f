//! The file with the revocations (`auth.revocations_file`). This module reads the file, reloads it when it changes, and
//! adds revocations to it.
//!
//! ```text
//!   glasshouse revoke ─► append ─► file ─► open (at startup), reload (every few seconds) ─► ActiveRevocations
//! ```
//!
//! **Invariant:** if the file is missing or invalid, the server does not start, and a running server keeps the last
//! valid revocations.
//! **Invariant:** revocations become inactive only if two consecutive reads return the same contents. Editors may
//! truncate a file before they write it, so a single read may return only a part of it.
//! **Invariant:** `append_revocation` replaces the whole file atomically, so a server never reads a partly written
//! file.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::revocations::{ActiveRevocations, Revocation, Revocations, parse};
use crate::config::AuthConfig;
use crate::error::{Error, Result};

/// The time between two reads of the file by a server.
pub const RELOAD_INTERVAL: Duration = Duration::from_secs(5);
/// The maximum size of the file, in bytes. It is enough for about 50,000 revocations.
const FILE_BYTES_MAX: u64 = 8 << 20;
/// The beginning of a new file.
const HEADER: &str =
    "# Revoked tokens. `glasshouse revoke` adds to this file, and running servers read it every few seconds.
# To end a revocation, remove it. A revocation of a single token can be removed when the token has expired.
";

/// A file with revocations.
#[derive(Debug)]
pub(super) struct RevocationFile {
    path: PathBuf,
    issuers: Vec<String>,
    state: Mutex<FileState>,
}

#[derive(Debug, Default)]
struct FileState {
    /// The digest of the contents that the active revocations were read from.
    applied: Option<[u8; 32]>,
    /// The digest of contents that lack an active revocation. They have been read once, and are not applied yet.
    unconfirmed: Option<[u8; 32]>,
    /// The reason why the file cannot be used.
    problem: Option<String>,
}

/// The result of reading the file again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reload {
    /// The active revocations are those in the file.
    Unchanged,
    /// The active revocations were replaced.
    Replaced,
    /// The contents will be applied if they are the same at the next read.
    Unconfirmed,
    /// The file cannot be used. The active revocations have not changed.
    Failed,
}

/// The result of adding a revocation to the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// The revocation was added.
    Added,
    /// The file already revokes these tokens, and was not changed.
    AlreadyRevoked,
}

impl RevocationFile {
    /// Reads the file at startup. Returns the file and its revocations.
    pub(super) fn open(path: &Path, auth: &AuthConfig) -> Result<(Self, Revocations)> {
        let issuers = issuers(auth);
        let text = read(path)?.ok_or_else(|| missing(path))?;
        let list = parse(&text, &issuers).map_err(|error| error.at(path.display()))?;
        tracing::info!(file = %path.display(), revocations = list.len(), "loaded the revocations");
        let state = FileState { applied: Some(digest(&text)), ..FileState::default() };
        Ok((Self { path: path.to_owned(), issuers, state: Mutex::new(state) }, Revocations::new(&list)))
    }

    /// Reads the file again, and replaces the `active` revocations if the file has changed. Logs each new problem once.
    pub(super) fn reload(&self, active: &ActiveRevocations) -> Reload {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let text = match read(&self.path).and_then(|text| text.ok_or_else(|| missing(&self.path))) {
            Ok(text) => text,
            Err(error) => return state.failed(&self.path, &error),
        };
        let digest = digest(&text);
        if state.applied == Some(digest) {
            state.recovered(&self.path);
            state.unconfirmed = None;
            return Reload::Unchanged;
        }
        let list = match parse(&text, &self.issuers) {
            Ok(list) => list,
            Err(error) => return state.failed(&self.path, &error.at(self.path.display())),
        };
        state.recovered(&self.path);
        let revocations = Revocations::new(&list);
        if !active.are_contained_in(&revocations) && state.unconfirmed != Some(digest) {
            state.unconfirmed = Some(digest);
            return Reload::Unconfirmed;
        }
        active.replace(revocations);
        *state = FileState { applied: Some(digest), ..FileState::default() };
        tracing::info!(file = %self.path.display(), revocations = list.len(), "loaded the changed revocations");
        Reload::Replaced
    }
}

impl FileState {
    fn failed(&mut self, path: &Path, error: &Error) -> Reload {
        self.unconfirmed = None;
        let problem = error.to_string();
        if self.problem.as_ref() != Some(&problem) {
            tracing::error!(file = %path.display(), ?error, "cannot load the revocations; the previous ones stay active");
            self.problem = Some(problem);
        }
        Reload::Failed
    }

    fn recovered(&mut self, path: &Path) {
        if self.problem.take().is_some() {
            tracing::info!(file = %path.display(), "the file with the revocations is valid again");
        }
    }
}

/// Returns the revocations in the configured file. A file that does not exist contains none.
pub fn revocations(auth: &AuthConfig) -> Result<Vec<Revocation>> {
    let path = configured(auth)?;
    let text = read(path)?.unwrap_or_default();
    parse(&text, &issuers(auth)).map_err(|error| error.at(path.display()))
}

/// Adds a revocation to the configured file, and creates the file if it does not exist. Keeps the existing text.
pub fn append_revocation(auth: &AuthConfig, revocation: &Revocation) -> Result<Appended> {
    let cannot = |error: io::Error, path: &Path| {
        Error::invalid(format!("cannot write {}: {error}", path.display())).with_source(error)
    };
    let path = configured(auth)?;
    // If the path is a symbolic link, the link is kept and its target is replaced.
    let path = &path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let folder = path.parent().ok_or_else(|| Error::invalid(format!("{} is not a file", path.display())))?;
    let lock = File::open(folder).map_err(|error| cannot(error, folder))?;
    // Without a lock on the folder, two commands that run at the same time could lose a revocation.
    lock.lock().map_err(|error| cannot(error, folder))?;
    let known = issuers(auth);
    let mut text = read(path)?.unwrap_or_else(|| HEADER.to_owned());
    let invalid = |error: Error| error.at(path.display());
    let list = parse(&text, &known).map_err(invalid)?;
    if Revocations::new(&list).contains(&Revocations::new(std::slice::from_ref(revocation))) {
        return Ok(Appended::AlreadyRevoked);
    }
    text.push_str(if text.ends_with('\n') { "\n" } else { "\n\n" });
    text.push_str(&revocation.to_toml());
    parse(&text, &known).map_err(invalid)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(too_large(path));
    }
    replace(path, &text).and_then(|()| lock.sync_all()).map_err(|error| cannot(error, path))?;
    Ok(Appended::Added)
}

/// Writes a new file next to `path`, and renames it to `path`. The new file gets the permissions and the owner of the
/// old one, so the server can still read it.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", uuid::Uuid::new_v4()));
    let draft = PathBuf::from(name);
    let written = (|| {
        let mut file = File::create_new(&draft)?;
        file.write_all(text.as_bytes())?;
        if let Ok(old) = fs::metadata(path) {
            let new = file.metadata()?;
            if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
                chown(&draft, Some(old.uid()), Some(old.gid()))?;
            }
            file.set_permissions(old.permissions())?;
        }
        file.sync_all()?;
        fs::rename(&draft, path)
    })();
    if written.is_err() {
        // If this fails, the leftover draft is harmless, because no process reads it.
        let _ = fs::remove_file(&draft);
    }
    written
}

fn configured(auth: &AuthConfig) -> Result<&Path> {
    auth.revocations_file.as_deref().ok_or_else(|| {
        Error::invalid(
            "no file for revocations is configured: set auth.revocations_file, such as \"revocations.toml\", and restart \
             the servers",
        )
    })
}

fn issuers(auth: &AuthConfig) -> Vec<String> {
    auth.issuers.values().map(|issuer| issuer.issuer.clone()).collect()
}

/// Reads the file. Returns `None` if it does not exist.
fn read(path: &Path) -> Result<Option<String>> {
    let mut text = String::new();
    let outcome = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text));
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::invalid(format!("cannot read {}: {error}", path.display())).with_source(error)),
        Ok(_) if text.len() as u64 > FILE_BYTES_MAX => Err(too_large(path)),
        Ok(_) => Ok(Some(text)),
    }
}

fn missing(path: &Path) -> Error {
    Error::invalid(format!("{0} does not exist: create an empty file with `touch {0}`", path.display()))
}

fn too_large(path: &Path) -> Error {
    Error::invalid(format!(
        "{} is larger than {FILE_BYTES_MAX} bytes: remove revocations of expired tokens, or revoke all older tokens with \
         `issued_before`",
        path.display()
    ))
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}

/// Reads the file again on the blocking pool.
pub(super) async fn reload(file: &Arc<RevocationFile>, active: &Arc<ActiveRevocations>) -> Result<Reload> {
    let (file, active) = (Arc::clone(file), Arc::clone(active));
    crate::supervise::blocking("reading the revocations", move || Ok(file.reload(&active))).await
}
