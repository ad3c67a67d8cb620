//! Files that nobody else may read, written whole or not at all.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use zeroize::Zeroizing;

use super::PkiError;

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PkiError {
    move |source| PkiError::Io { what, path: path.to_owned(), source }
}

pub(super) fn exists(path: &Path) -> Result<bool, PkiError> {
    path.try_exists().map_err(failed("look for", path))
}

/// Makes `path` and what is missing above it, 0700. One that is there and open to others is refused.
pub(super) fn make_directory(path: &Path) -> Result<(), PkiError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed("make the directory", path))?;
    owner_only(path, 0o077, 0o700)
}

fn owner_only(path: &Path, forbidden: u32, wanted: u32) -> Result<(), PkiError> {
    let mode = fs::metadata(path).map_err(failed("look at", path))?.permissions().mode() & 0o7777;
    match mode & forbidden {
        0 => Ok(()),
        _ => Err(PkiError::OpenToOthers { path: path.to_owned(), mode, wanted }),
    }
}

/// Refuses a key file of the operator's that strangers on the machine can read. Its group may read it, because that is
/// how keys are commonly given to a service.
pub fn private_file(path: &Path) -> Result<(), PkiError> {
    owner_only(path, 0o037, 0o600)
}

/// The text of a file of ours that must be the owner's alone.
pub(crate) fn read_secret(path: &Path) -> Result<Zeroizing<String>, PkiError> {
    owner_only(path, 0o077, 0o600)?;
    fs::read_to_string(path).map(Zeroizing::new).map_err(failed("read", path))
}

/// Writes `path` with mode 0600: into a new file beside it, synced, then renamed over it, and the directory synced.
pub(super) fn write_secret(path: &Path, contents: &[u8]) -> Result<(), PkiError> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut name = std::ffi::OsString::from(".new-");
    name.push(path.file_name().unwrap_or_default());
    let temporary = directory.join(name);
    // Left by a start that was killed.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed("remove", &temporary)(error));
        }
        _ => {}
    }
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(contents)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(directory)?.sync_all()
    };
    write().map_err(failed("write", path))
}
