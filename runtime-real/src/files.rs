//! Plain files, in folders that others may be able to write to.
//!
//! Who can put something into a folder can put a symbolic link there that leads to another file, or a pipe that blocks
//! whoever opens it. So nothing here follows a link that stands in the place of a file, unless it is asked to; nothing waits
//! in opening; and what was opened is looked at before it is used. What is made is readable by its owner only.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// What to do where a symbolic link stands in the place of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// To open what it leads to: the user's own files.
    Followed,
    /// To fail.
    Refused,
}

/// Of files that are made.
const MODE: u32 = 0o600;

/// Opens a plain file for reading.
///
/// # Errors
/// If it cannot be opened; [`io::ErrorKind::InvalidInput`] if it is something else than a plain file.
pub fn open(path: &Path, links: Links) -> io::Result<File> {
    let refused = if links == Links::Refused { libc::O_NOFOLLOW } else { 0 };
    let opened = OpenOptions::new().read(true).custom_flags(refused | libc::O_NONBLOCK).open(path);
    // What a link that is not followed is called by the system; and a socket.
    let other = |error: &io::Error| matches!(error.raw_os_error(), Some(libc::ELOOP | libc::ENXIO));
    checked(opened.map_err(|error| if other(&error) { not_plain() } else { error })?)
}

/// Opens a plain file for reading and writing, and makes it if there is none; what is in it stays.
///
/// # Errors
/// As of [`open`], which follows no link.
pub fn open_or_create(path: &Path) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let opened = OpenOptions::new().read(true).write(true).create(true).mode(MODE).custom_flags(flags).open(path)?;
    checked(opened)
}

fn checked(file: File) -> io::Result<File> {
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(not_plain())
}

fn not_plain() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "it is no plain file")
}

/// Makes an empty file for writing, in the place of whatever stands there under this name.
///
/// # Errors
/// If it cannot be made, or a folder stands there.
pub fn create(path: &Path) -> io::Result<File> {
    let make = || OpenOptions::new().write(true).create_new(true).mode(MODE).open(path);
    match make() {
        // Not emptied: it may be a link, or another name of a file that is somebody else's.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(path)?;
            make()
        }
        made => made,
    }
}

/// The text of a plain file, of which `bytes_max` are read at most.
///
/// # Errors
/// If it cannot be read, is no plain file, or no text.
pub fn read_text(path: &Path, bytes_max: u64) -> io::Result<String> {
    let mut text = String::new();
    open(path, Links::Refused)?.take(bytes_max).read_to_string(&mut text)?;
    Ok(text)
}

/// Makes a folder with this mode, whatever the umask is, and those above it as the umask has it. One that is there stays as
/// it is.
///
/// # Errors
/// If it cannot be made.
pub fn make_folder(path: &Path, mode: u32) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(above) = path.parent().filter(|above| !above.as_os_str().is_empty()) {
        fs::create_dir_all(above)?;
    }
    // No wider than asked for at any instant.
    match DirBuilder::new().mode(mode).create(path) {
        Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(mode)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Tries whether a file can be made in a folder. It has a name that nothing else has.
///
/// # Errors
/// If it cannot.
pub fn probe(folder: &Path) -> io::Result<()> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut made = Err(io::Error::from(io::ErrorKind::AlreadyExists));
    for _ in 0..PROBES_MAX {
        let probe = folder.join(format!(".probe-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed)));
        made = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&probe);
        match &made {
            Ok(_) => return fs::remove_file(&probe),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(_) => break,
        }
    }
    made.map(drop)
}

/// Names that are tried for a probe.
const PROBES_MAX: u32 = 100;
