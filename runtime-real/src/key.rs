//! The shared key of a cluster, from its file.

use std::{fs, io::Read, os::unix::fs::MetadataExt, path::Path, sync::Arc};

use omb_core::handshake::{Key, Nonce};

use crate::cluster::Secret;

/// Largest file that is read: a longer one is no key but a mistake.
const FILE_MAX: u64 = 64 << 10;

/// Reads the key in the file at `path`: all of its bytes, but for one newline at the end.
///
/// Warns in the log if others than its owner may read the file (mode & 0o077).
///
/// # Errors
/// If the file cannot be read, or holds fewer than 16 bytes or more than 64 KiB; names the file, what was found and what is
/// allowed.
pub fn key(path: &Path) -> Result<Key, String> {
    let name = path.display();
    let unreadable = |error| format!("{name}: cannot read the shared key: {error}");
    let file = fs::File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.mode();
    let mut bytes = Vec::new();
    file.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(format!("{name}: holds more than {FILE_MAX} bytes; allowed: a key of 16 to {FILE_MAX} bytes"));
    }
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    let key = Key::new(&bytes).map_err(|error| {
        format!(
            "{name}: {error}, such as `head -c 32 /dev/urandom | base64` makes (a newline at the end does not count)"
        )
    })?;
    if mode & 0o077 != 0 {
        tracing::warn!("{name}: others may read the shared key (mode {:03o}): chmod 600 {name}", mode & 0o777);
    }
    Ok(key)
}

/// The key in the file at `path`, and nonces from the system's randomness.
///
/// # Errors
/// As of [`key`]; or if the system has no randomness.
pub fn secret(path: &Path) -> Result<Secret, String> {
    let key = key(path)?;
    let mut probe = [0; 1];
    getrandom::fill(&mut probe).map_err(|error| format!("the system gives no random bytes: {error}"))?;
    Ok(Secret { key, nonces: Arc::new(nonce) })
}

/// Whoever could guess it could replay a proof, so a system that stops giving random bytes is not gone on with.
fn nonce() -> Nonce {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("the system gave random bytes before");
    Nonce(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn keys_are_read_and_what_is_none_is_named() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("cluster.key");
        let read = |bytes: &[u8]| {
            fs::write(&path, bytes).expect("it can be written");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("it is ours");
            key(&path)
        };
        assert!(read(b"sixteen bytes ok").is_ok());
        assert!(read(b"sixteen bytes ok\n").is_ok());
        let found = |outcome: Result<Key, String>, parts: &[&str]| {
            let error = outcome.expect_err("no key");
            assert!(error.contains("cluster.key"), "{error}");
            parts.iter().for_each(|part| assert!(error.contains(part), "{error}"));
        };
        found(read(b"fifteen bytes..\n"), &["holds 15 bytes", "at least 16"]);
        found(read(&vec![7; 1 << 17]), &["more than 65536"]);
        fs::remove_file(&path).expect("it is there");
        found(key(&path), &["No such file"]);
        found(key(&folder.path().join("cluster.key")), &["cannot read"]);
    }

    #[test]
    fn nonces_do_not_come_twice() {
        assert_ne!(nonce(), nonce());
    }
}
