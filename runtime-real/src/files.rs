//! Plain files, in folders that other users may be able to write to.
//!
//! A user who can write into a folder can put a symbolic link there that leads to another file, or a pipe that blocks a
//! process that opens it. So nothing here follows a link in place of a file, unless it is asked to; opening never
//! waits; and what was opened is checked before it is used. What is created is readable by its owner only.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use rustix::{fs::OFlags, io::Errno};

/// What to do with a symbolic link in place of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// Open what it leads to: the user's own files.
    Followed,
    /// Fail.
    Refused,
}

/// Of files that are created.
const MODE: u32 = 0o600;

/// Opens a plain file for reading.
///
/// # Errors
/// If it cannot be opened; [`io::ErrorKind::InvalidInput`] if it is not a plain file.
pub fn open(path: &Path, links: Links) -> io::Result<File> {
    let refused = if links == Links::Refused { OFlags::NOFOLLOW } else { OFlags::empty() };
    let opened = OpenOptions::new().read(true).custom_flags(flags(refused | OFlags::NONBLOCK)).open(path);
    // The system's errors for a link that is not followed, and for a socket.
    let other = |error: &io::Error| matches!(Errno::from_io_error(error), Some(Errno::LOOP | Errno::NXIO));
    checked(opened.map_err(|error| if other(&error) { not_plain() } else { error })?)
}

/// Opens a plain file for reading and writing, and creates it if there is none; its content is kept.
///
/// # Errors
/// As for [`open`] with [`Links::Refused`].
pub fn open_or_create(path: &Path) -> io::Result<File> {
    let flags = flags(OFlags::NOFOLLOW | OFlags::NONBLOCK);
    let opened = OpenOptions::new().read(true).write(true).create(true).mode(MODE).custom_flags(flags).open(path)?;
    checked(opened)
}

/// Flags as the standard library takes them.
fn flags(flags: OFlags) -> i32 {
    flags.bits().cast_signed()
}

fn checked(file: File) -> io::Result<File> {
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(not_plain())
}

fn not_plain() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "it is not a plain file")
}

/// Creates an empty file for writing, in place of whatever has this name.
///
/// # Errors
/// If it cannot be created, or a folder has this name.
pub fn create(path: &Path) -> io::Result<File> {
    let make = || OpenOptions::new().write(true).create_new(true).mode(MODE).open(path);
    match make() {
        // Not truncated: it may be a link, or another name of a file with another owner.
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
/// If it cannot be read, is not a plain file, or is not text.
pub fn read_text(path: &Path, bytes_max: u64) -> io::Result<String> {
    let mut text = String::new();
    open(path, Links::Refused)?.take(bytes_max).read_to_string(&mut text)?;
    Ok(text)
}

/// Creates a folder with this mode, regardless of the umask, and missing parents as the umask says. An existing one is
/// not changed.
///
/// # Errors
/// If it cannot be created.
pub fn make_folder(path: &Path, mode: u32) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(above) = path.parent().filter(|above| !above.as_os_str().is_empty()) {
        fs::create_dir_all(above)?;
    }
    // At no instant wider than requested.
    match DirBuilder::new().mode(mode).create(path) {
        Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(mode)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Checks that a file can be created in a folder, by creating one with a unique name.
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
