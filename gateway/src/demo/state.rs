//! What the demo keeps between two runs: the development issuer's key, and the secrets that make cursors of an earlier run
//! readable.
//!
//! A secret's file is made whole, readable by its user only, and never made twice, however many processes start at once.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::SecretString;

/// The file of the development issuer's key, in [`folder`].
pub const DEVELOPMENT_KEY: &str = "development-issuer.key";

/// The environment variable that names the folder.
pub const FOLDER_VARIABLE: &str = "TIDEWIRE_STATE_DIR";

/// `TIDEWIRE_STATE_DIR`, or `tidewire` below `XDG_STATE_HOME` or `~/.local/state`.
#[must_use]
pub fn folder() -> PathBuf {
    choose_folder(|name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    })
}

fn choose_folder(variable: impl Fn(&str) -> Option<PathBuf>) -> PathBuf {
    if let Some(folder) = variable(FOLDER_VARIABLE) {
        return folder;
    }
    // The XDG base directory specification: relative paths there are to be ignored.
    if let Some(state) = variable("XDG_STATE_HOME").filter(|path| path.is_absolute()) {
        return state.join("tidewire");
    }
    match variable("HOME") {
        Some(home) => home.join(".local/state/tidewire"),
        None => std::env::temp_dir().join("tidewire"),
    }
}

/// The secret of that name, made where there is none: 32 random bytes as text.
///
/// # Errors
///
/// The folder or the file cannot be made or read, or the file holds no secret, or others may have had a hand in it.
pub fn secret(folder: &Path, name: &str) -> io::Result<SecretString> {
    let path = folder.join(name);
    match read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let text = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
    // Written under a name of our own, then linked: whoever comes second finds the first one's, whole.
    let draft = folder.join(format!(
        ".{name}.{}.{:016x}",
        std::process::id(),
        rand::random::<u64>()
    ));
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)?;
    let linked = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::hard_link(&draft, &path));
    fs::remove_file(&draft)?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => read(&path),
    }
}

fn read(path: &Path) -> io::Result<SecretString> {
    let mut file = fs::File::open(path)?;
    let found = file.metadata()?;
    // Where the folder is a shared one, somebody else may have been there first.
    if found.mode() & 0o077 != 0 || found.uid() != rustix::process::geteuid().as_raw() {
        let message = format!(
            "{} is another user's, or others may read it; delete it, or name another folder in {FOLDER_VARIABLE}",
            path.display()
        );
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    let text = text.trim();
    if text.len() < crate::config::keys::SECRET_MIN {
        let message = format!("{} holds no secret of ours; delete it", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    Ok(SecretString::from(text))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn a_secret_stays_the_same_and_is_its_users_only() {
        let root = tempfile::tempdir().expect("a folder");
        let folder = root.path().join("state/below");
        let first = secret(&folder, "cursor.key").expect("a secret");
        let again = secret(&folder, "cursor.key").expect("the same");
        let other = secret(&folder, "ticket.key").expect("another");
        assert_eq!(first.expose_secret(), again.expose_secret());
        assert_ne!(first.expose_secret(), other.expose_secret());
        let mode = fs::metadata(folder.join("cursor.key"))
            .expect("it is there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(
            fs::read_dir(&folder).expect("the folder").count(),
            2,
            "no drafts stay behind"
        );
    }

    #[test]
    fn processes_that_start_together_agree_on_the_secret() {
        let root = tempfile::tempdir().expect("a folder");
        let found: Vec<String> = std::thread::scope(|scope| {
            let start = || secret(root.path(), "cursor.key").map(|secret| secret.expose_secret().to_owned());
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("no panic").expect("a secret"))
                .collect()
        });
        assert!(found.iter().all(|secret| *secret == found[0]));
    }

    #[test]
    fn a_file_that_is_no_secret_is_refused() {
        let root = tempfile::tempdir().expect("a folder");
        fs::write(root.path().join("cursor.key"), "short").expect("a file");
        assert!(secret(root.path(), "cursor.key").is_err());
    }

    #[test]
    fn a_secret_that_others_may_read_is_refused() {
        let root = tempfile::tempdir().expect("a folder");
        secret(root.path(), "cursor.key").expect("a secret");
        let file = root.path().join("cursor.key");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("ours");
        let refused = secret(root.path(), "cursor.key").expect_err("others may have had a hand in it");
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn the_folder_follows_the_environment() {
        let folder = |set: &'static [(&str, &str)]| {
            choose_folder(move |name| {
                set.iter()
                    .find(|(key, _)| *key == name)
                    .map(|(_, value)| PathBuf::from(value))
            })
        };
        assert_eq!(
            folder(&[("TIDEWIRE_STATE_DIR", "/s"), ("HOME", "/h")]),
            Path::new("/s")
        );
        assert_eq!(
            folder(&[("XDG_STATE_HOME", "/x"), ("HOME", "/h")]),
            Path::new("/x/tidewire")
        );
        assert_eq!(
            folder(&[("XDG_STATE_HOME", "x"), ("HOME", "/h")]),
            Path::new("/h/.local/state/tidewire")
        );
    }
}
