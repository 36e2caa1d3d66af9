//! The keys of a cluster, from their files.

use std::{fs, io::Read, os::unix::fs::MetadataExt, path::Path, sync::Arc};

use omb_cluster::handshake::{Key, Keys, Nonce};

use crate::portable::cluster::Secret;

/// Largest file that is read: a longer one is not a key but a mistake.
const FILE_MAX: u64 = 64 << 10;

/// Reads the key in the file at `path`: all of its bytes, except for one newline at the end.
///
/// Logs a warning if users other than its owner may read the file (mode & 0o077).
///
/// # Errors
/// If the file cannot be read, or holds fewer than 16 bytes or more than 64 KiB; names the file, what was found and what is
/// allowed.
pub fn key(path: &Path) -> Result<Key, String> {
    made_of(&bytes(path)?, path)
}

fn made_of(bytes: &[u8], path: &Path) -> Result<Key, String> {
    Key::new(bytes).map_err(|error| {
        format!(
            "{}: {error}, such as `head -c 32 /dev/urandom | base64` makes (a newline at the end does not count)",
            path.display()
        )
    })
}

fn bytes(path: &Path) -> Result<Vec<u8>, String> {
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
    if mode & 0o077 != 0 {
        tracing::warn!("{name}: others may read the shared key (mode {:03o}): chmod 600 {name}", mode & 0o777);
    }
    Ok(bytes)
}

/// The keys in the files of clients and of peers, and nonces from the system's randomness; `None` without any file.
///
/// # Errors
/// As for [`key`]; if both files hold the same key, for then each client could act as a peer; or if the system has no
/// randomness.
pub fn secret(clients: Option<&Path>, peers: Option<&Path>) -> Result<Option<Secret>, String> {
    let read = |path: Option<&Path>| path.map(bytes).transpose();
    let (of_clients, of_peers) = (read(clients)?, read(peers)?);
    let key = |bytes: Option<&Vec<u8>>, path: Option<&Path>| {
        bytes.zip(path).map(|(bytes, path)| made_of(bytes, path)).transpose()
    };
    let keys = Keys { clients: key(of_clients.as_ref(), clients)?, peers: key(of_peers.as_ref(), peers)? };
    if let (Some(clients), Some(peers)) = (clients, peers)
        && of_clients == of_peers
    {
        return Err(format!(
            "{} (peer_key_file) holds the same key as {} (key_file): any client could act as a node; \
             make another one, such as `head -c 32 /dev/urandom | base64` does",
            peers.display(),
            clients.display()
        ));
    }
    if of_clients.is_none() && of_peers.is_none() {
        return Ok(None);
    }
    let mut probe = [0; 1];
    getrandom::fill(&mut probe).map_err(|error| format!("the system gives no random bytes: {error}"))?;
    Ok(Some(Secret { keys, nonces: Arc::new(nonce) }))
}

/// If it could be guessed, a proof could be replayed, so the process ends if the system stops giving random bytes.
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
    fn one_key_is_not_for_clients_and_peers() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let write = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            fs::write(&path, bytes).expect("it can be written");
            path
        };
        let (one, same, other) =
            (write("a", b"sixteen bytes ok"), write("b", b"sixteen bytes ok\n"), write("c", b"sixteen bytes, too"));
        let error = secret(Some(&one), Some(&same)).expect_err("the same key");
        assert!(
            error.contains("/b (peer_key_file) holds the same key as ") && error.contains("/a (key_file)"),
            "{error}"
        );
        let both = secret(Some(&one), Some(&other)).expect("two keys").expect("there are keys");
        assert!(both.keys.clients.is_some() && both.keys.peers.is_some());
        assert!(secret(None, None).expect("no file is no mistake").is_none());
    }

    #[test]
    fn nonces_do_not_come_twice() {
        assert_ne!(nonce(), nonce());
    }
}
