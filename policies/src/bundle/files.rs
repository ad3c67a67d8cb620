//! The files of a bundle in memory, from a folder or a tar, within limits.

use flate2::Compression;
use flate2::read::{GzEncoder, MultiGzDecoder};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use thiserror::Error;

/// Together. A hundred thousand rows are about ten.
pub(crate) const TOTAL_LIMIT: u64 = 64 << 20;
pub(crate) const FILE_LIMIT: u64 = 32 << 20;
pub(crate) const COUNT_LIMIT: usize = 1_000;
/// A tar has a block of 512 bytes before each file and pads it to the next.
const TAR_LIMIT: u64 = TOTAL_LIMIT + COUNT_LIMIT as u64 * 4096;
/// How gzip begins; no path of a tar does.
const GZIP: &[u8] = &[0x1f, 0x8b];
/// A folder of tests below the bundle's own is as deep as it goes.
const TESTS: &str = "tests";

/// Why there is no bundle to look at.
#[derive(Debug, Error)]
pub enum FilesError {
    #[error("cannot read `{path}`: {cause}")]
    Unreadable { path: String, cause: std::io::Error },
    #[error("`{path}` is neither a file nor a folder")]
    Kind { path: String },
    #[error("tar cannot be read: {cause}")]
    Tar { cause: std::io::Error },
    #[error("gzip cannot be read: {cause}")]
    Gzip { cause: std::io::Error },
    #[error("gzip holds more than {} MiB", TAR_LIMIT >> 20)]
    Unpacked,
    #[error("tar holds `{path}` twice")]
    Twice { path: String },
    #[error("tar holds `{path}`, which is not a relative path of plain UTF-8 names")]
    Path { path: String },
    #[error("bundle has more than {COUNT_LIMIT} files")]
    Count,
    #[error("`{path}` takes the bundle over the limit of {} MiB a file or {} MiB in all", FILE_LIMIT >> 20, TOTAL_LIMIT >> 20)]
    Size { path: String },
}

/// Path within the bundle → bytes. Paths use `/`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Files(BTreeMap<String, Vec<u8>>);

impl Files {
    pub fn get(&self, path: &str) -> Option<&[u8]> {
        self.0.get(path).map(Vec::as_slice)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice()))
    }

    /// For makers of bundles: tests, and whatever writes a manifest.
    pub fn insert(&mut self, path: &str, bytes: Vec<u8>) {
        self.0.insert(path.to_owned(), bytes);
    }

    pub fn remove(&mut self, path: &str) {
        self.0.remove(path);
    }

    /// Reads a folder, or a file as a tar, compressed or not.
    ///
    /// # Errors
    /// Something cannot be read or passes a limit.
    pub fn open(path: &Path) -> Result<Self, FilesError> {
        let unreadable = |cause| FilesError::Unreadable { path: path.display().to_string(), cause };
        let kind = std::fs::metadata(path).map_err(unreadable)?;
        if kind.is_dir() {
            return Self::from_folder(path);
        }
        let file = std::fs::File::open(path).map_err(unreadable)?;
        let mut bytes = Vec::new();
        file.take(TAR_LIMIT + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() as u64 > TAR_LIMIT {
            return Err(FilesError::Size { path: path.display().to_string() });
        }
        Self::from_tar(&bytes)
    }

    pub fn from_folder(folder: &Path) -> Result<Self, FilesError> {
        let mut files = Self::default();
        let mut total = 0;
        files.read_folder(folder, "", &mut total)?;
        Ok(files)
    }

    fn read_folder(&mut self, folder: &Path, within: &str, total: &mut u64) -> Result<(), FilesError> {
        let unreadable =
            |path: &Path, cause| FilesError::Unreadable { path: path.display().to_string(), cause };
        for entry in std::fs::read_dir(folder).map_err(|cause| unreadable(folder, cause))? {
            let entry = entry.map_err(|cause| unreadable(folder, cause))?;
            let path = entry.path();
            let name = entry
                .file_name()
                .into_string()
                .map_err(|_| FilesError::Path { path: path.display().to_string() })?;
            if name.starts_with('.') {
                continue;
            }
            let inner = format!("{within}{name}");
            // Links are followed: a mounted ConfigMap is made of them.
            let kind = std::fs::metadata(&path).map_err(|cause| unreadable(&path, cause))?;
            if kind.is_dir() && within.is_empty() && name == TESTS {
                self.read_folder(&path, "tests/", total)?;
            } else if kind.is_file() {
                let file = std::fs::File::open(&path).map_err(|cause| unreadable(&path, cause))?;
                let mut bytes = Vec::new();
                file.take(FILE_LIMIT + 1)
                    .read_to_end(&mut bytes)
                    .map_err(|cause| unreadable(&path, cause))?;
                self.add(inner, bytes, total)?;
            } else {
                return Err(FilesError::Kind { path: path.display().to_string() });
            }
        }
        Ok(())
    }

    /// Compressed by gzip or not.
    ///
    /// # Errors
    /// It cannot be read or passes a limit.
    pub fn from_tar(bytes: &[u8]) -> Result<Self, FilesError> {
        let broken = |cause| FilesError::Tar { cause };
        let mut files = Self::default();
        let mut total = 0;
        let bytes = unpacked(bytes)?;
        let mut archive = tar::Archive::new(&*bytes);
        for entry in archive.entries().map_err(broken)? {
            let mut entry = entry.map_err(broken)?;
            let raw = entry.path_bytes().into_owned();
            let shown = || raw.escape_ascii().to_string();
            let path = std::str::from_utf8(&raw).map_err(|_| FilesError::Path { path: shown() })?;
            let path = path.strip_prefix("./").unwrap_or(path).to_owned();
            match entry.header().entry_type() {
                tar::EntryType::Directory | tar::EntryType::XGlobalHeader => continue,
                tar::EntryType::Regular | tar::EntryType::Continuous => {}
                _ => return Err(FilesError::Kind { path: shown() }),
            }
            if path.is_empty() || path.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
                return Err(FilesError::Path { path: shown() });
            }
            let mut bytes = Vec::new();
            (&mut entry).take(FILE_LIMIT + 1).read_to_end(&mut bytes).map_err(broken)?;
            if files.0.contains_key(&path) {
                return Err(FilesError::Twice { path });
            }
            files.add(path, bytes, &mut total)?;
        }
        Ok(files)
    }

    /// The files as a tar: equal files are equal bytes.
    ///
    /// # Errors
    /// A path is longer than a tar takes.
    pub fn to_tar(&self) -> Result<Vec<u8>, FilesError> {
        let broken = |cause| FilesError::Tar { cause };
        let mut tar = tar::Builder::new(Vec::new());
        for (path, bytes) in &self.0 {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            header.set_mtime(0);
            tar.append_data(&mut header, path, bytes.as_slice()).map_err(broken)?;
        }
        tar.into_inner().map_err(broken)
    }

    /// The same, compressed. Another version of Keygate may make other bytes of equal files.
    ///
    /// # Errors
    /// A path is longer than a tar takes.
    pub fn to_packed_tar(&self) -> Result<Vec<u8>, FilesError> {
        let tar = self.to_tar()?;
        let mut packed = Vec::new();
        GzEncoder::new(tar.as_slice(), Compression::fast())
            .read_to_end(&mut packed)
            .map_err(|cause| FilesError::Gzip { cause })?;
        Ok(packed)
    }

    fn add(&mut self, path: String, bytes: Vec<u8>, total: &mut u64) -> Result<(), FilesError> {
        *total += bytes.len() as u64;
        if bytes.len() as u64 > FILE_LIMIT || *total > TOTAL_LIMIT {
            return Err(FilesError::Size { path });
        }
        if self.0.len() >= COUNT_LIMIT {
            return Err(FilesError::Count);
        }
        self.0.insert(path, bytes);
        Ok(())
    }
}

fn unpacked(bytes: &[u8]) -> Result<Cow<'_, [u8]>, FilesError> {
    if !bytes.starts_with(GZIP) {
        return Ok(Cow::Borrowed(bytes));
    }
    let mut tar = Vec::new();
    // All of it, as whoever unpacks it to look sees all of it.
    let decoder = MultiGzDecoder::new(bytes);
    decoder.take(TAR_LIMIT + 1).read_to_end(&mut tar).map_err(|cause| FilesError::Gzip { cause })?;
    if tar.len() as u64 > TAR_LIMIT {
        return Err(FilesError::Unpacked);
    }
    Ok(Cow::Owned(tar))
}
