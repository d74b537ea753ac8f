//! Files with the shared secrets of issuers (`secret_file`). Docker, Kubernetes and systemd provide such files.
//!
//! A development server creates a missing file with a random secret, so no configuration needs to contain a public
//! secret. `cli` calls [`create_missing_secrets`] only if no other host can reach the server.
//!
//! **Invariant:** a file appears under its final name only after it has been written completely, and an existing file
//! is never replaced. If several processes create the same file concurrently, they therefore all use the same secret.
//! **Invariant:** no error or log line contains a secret.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::config::{AuthConfig, IssuerConfig, Secret, shared_secret_problem};
use crate::error::{Error, Result};

/// The maximum size of a file, in bytes.
const FILE_BYTES_MAX: u64 = 4096;

/// Returns the shared secret of an issuer, which may be in a file. Returns `None` if the issuer has no shared secret.
pub(super) fn shared_secret(issuer: &IssuerConfig) -> Result<Option<Secret>> {
    match (&issuer.secret, &issuer.secret_file) {
        (Some(secret), _) if !secret.is_empty() => Ok(Some(secret.clone())),
        (_, Some(path)) => read(path, &issuer.algorithms).map(Some),
        (_, None) => Ok(None),
    }
}

/// Creates each missing file, with a new random secret. Returns the paths of the files that were created.
pub fn create_missing_secrets(auth: &AuthConfig) -> Result<Vec<PathBuf>> {
    let mut created = Vec::new();
    for path in missing(auth) {
        let is_created = create(path).map_err(|error| {
            Error::invalid(format!(
                "cannot create {} with a new secret: {error}: set `secret_file` of the issuer to a file in a writable folder",
                path.display()
            ))
            .with_source(error)
        })?;
        if is_created {
            created.push(path.to_owned());
        }
    }
    Ok(created)
}

/// Returns `auth` with a random secret in place of each missing file, so a check of the configuration can continue
/// without creating the files.
pub fn assume_missing_secrets(auth: &AuthConfig) -> AuthConfig {
    let mut assumed = auth.clone();
    for issuer in assumed.issuers.values_mut() {
        if issuer.secret_file.take_if(|path| !path.exists()).is_some() {
            issuer.secret = Some(Secret::new(new_secret()));
        }
    }
    assumed
}

fn missing(auth: &AuthConfig) -> impl Iterator<Item = &Path> {
    auth.issuers.values().filter_map(|issuer| issuer.secret_file.as_deref()).filter(|path| !path.exists())
}

fn read(path: &Path, algorithms: &[String]) -> Result<Secret> {
    let mut text = String::new();
    let file = File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            let message = "does not exist: create it with `umask 077; openssl rand -hex 32 >";
            Error::invalid(format!("{message} {}`", path.display())).with_source(error).at(path.display())
        }
        _ => unreadable(path, error),
    })?;
    let mode = file.metadata().map_err(|error| unreadable(path, error))?.permissions().mode();
    if mode & 0o004 != 0 {
        let file = path.display();
        tracing::warn!(%file, "every user of this host can read the secret: remove this permission (chmod o-r)");
    }
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| unreadable(path, error))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(Error::invalid(format!("is larger than {FILE_BYTES_MAX} bytes")).at(path.display()));
    }
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let secret = Secret::new(line.strip_suffix('\r').unwrap_or(line));
    match shared_secret_problem(&secret, algorithms) {
        Some(problem) => Err(Error::invalid(format!("the secret {problem}")).at(path.display())),
        None => Ok(secret),
    }
}

fn unreadable(path: &Path, error: io::Error) -> Error {
    Error::invalid(format!("cannot be read: {error}")).with_source(error).at(path.display())
}

/// Creates the file with a new secret, unless it exists. Returns true if the file was created. Only the current user
/// can read the file.
fn create(path: &Path) -> io::Result<bool> {
    let folder = path.parent().ok_or_else(|| io::Error::other("the path has no parent folder"))?;
    fs::create_dir_all(folder)?;
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", uuid::Uuid::new_v4()));
    let draft = PathBuf::from(name);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    let written = file.write_all(format!("{}\n", new_secret()).as_bytes()).and_then(|()| file.sync_all());
    // The link fails if another process has created the file in the meantime.
    let linked = written.and_then(|()| fs::hard_link(&draft, path));
    fs::remove_file(&draft)?;
    match linked {
        Ok(()) => File::open(folder)?.sync_all().map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

/// Returns 32 random bytes in hexadecimal.
fn new_secret() -> String {
    rand::random::<[u8; 32]>().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenancy::testing::auth;

    fn auth_with(path: &Path) -> AuthConfig {
        let mut auth = auth();
        let issuer = auth.issuers.get_mut("dev").unwrap();
        (issuer.secret, issuer.secret_file) = (None, Some(path.to_owned()));
        auth
    }

    fn secret_of(auth: &AuthConfig) -> Result<Secret> {
        shared_secret(&auth.issuers["dev"]).map(Option::unwrap)
    }

    #[test]
    fn processes_that_create_a_file_agree_on_its_secret() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/secret");
        let auth = auth_with(&path);
        let error = secret_of(&auth).unwrap_err();
        assert!(
            error.message().contains("does not exist: create it with `umask 077; openssl rand -hex 32 > "),
            "{error}"
        );
        assert_eq!(assume_missing_secrets(&auth).issuers["dev"].secret_file, None);
        assert!(!path.exists(), "a check creates no file");
        let secrets: Vec<_> = std::thread::scope(|scope| {
            let create = || create_missing_secrets(&auth).map(|created| (created.len(), secret_of(&auth).unwrap()));
            let running: Vec<_> = (0..8).map(|_| scope.spawn(create)).collect();
            running.into_iter().map(|thread| thread.join().unwrap().unwrap()).collect()
        });
        assert!(secrets.iter().all(|(_, secret)| *secret == secrets[0].1), "all processes use the same secret");
        assert_eq!(secrets.iter().map(|(created, _)| created).sum::<usize>(), 1);
        assert_eq!(secrets[0].1.expose().len(), 64);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let names: Vec<_> =
            fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["secret"], "no other files are left");
        assert_eq!(assume_missing_secrets(&auth).issuers["dev"].secret_file, Some(path));
    }

    #[test]
    fn a_file_has_one_secret() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let auth = auth_with(&path);
        let good = "0123456789abcdef0123456789abcdef";
        for end in ["", "\n", "\r\n"] {
            fs::write(&path, format!("{good}{end}")).unwrap();
            assert_eq!(secret_of(&auth).unwrap().expose(), good);
        }
        let cases = [
            ("", "must have at least 32 bytes for HS256"),
            ("short\n", "must have at least 32 bytes for HS256"),
            ("0123456789abcdef0123456789abcdef\n\n", "begins or ends with whitespace: remove it"),
            (" 0123456789abcdef0123456789abcdef", "begins or ends with whitespace: remove it"),
            ("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "repeats a short text"),
            ("${GLASSHOUSE_JWT_SECRET_PRODUCTION_KEY}", "is a placeholder that nothing has replaced"),
        ];
        for (text, expected) in cases {
            fs::write(&path, text).unwrap();
            let error = secret_of(&auth).expect_err(expected);
            assert!(error.message().contains(expected), "{text}: {error}");
            assert!(text.is_empty() || !error.message().contains(text), "{error}");
        }
        fs::write(&path, [b'a'; FILE_BYTES_MAX as usize + 1]).unwrap();
        assert!(secret_of(&auth).unwrap_err().message().contains("is larger than 4096 bytes"));
    }
}
