//! A log file that is set aside when it has grown to its limit: `server.log` becomes `server-<seconds>-<number>.log`,
//! and the oldest of those are removed by count and by age.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::config::LogRotation;

pub(super) struct RotatingFile {
    path: PathBuf,
    rotation: LogRotation,
    file: File,
    bytes: u64,
    /// Tells files apart that were set aside in the same second.
    number: u32,
}

impl RotatingFile {
    pub(super) fn open(path: &Path, rotation: LogRotation) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), rotation, file, bytes, number: 0 })
    }

    fn rotate(&mut self) -> io::Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let aside = loop {
            self.number = self.number.wrapping_add(1);
            let name = format!("{}{:010}-{:06}{}", self.stem(), now.as_secs(), self.number, self.extension());
            let candidate = self.path.with_file_name(name);
            if !candidate.try_exists()? {
                break candidate;
            }
        };
        fs::rename(&self.path, aside)?;
        self.file = OpenOptions::new().create(true).append(true).open(&self.path)?;
        self.bytes = 0;
        self.remove_old(now)
    }

    fn remove_old(&self, now: Duration) -> io::Result<()> {
        let directory =
            self.path.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let (stem, extension) = (self.stem(), self.extension());
        let mut aside: Vec<(String, u64)> = fs::read_dir(directory)?
            .filter_map(Result::ok)
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter_map(|name| {
                let middle = name.strip_prefix(&stem)?.strip_suffix(&extension)?;
                let (seconds, _) = middle.split_once('-')?;
                seconds.parse().ok().map(|seconds| (name.clone(), seconds))
            })
            .collect();
        // Newest first: the names sort by time.
        aside.sort_by(|a, b| b.cmp(a));
        let keep =
            if self.rotation.max_backups == 0 { usize::MAX } else { self.rotation.max_backups as usize };
        let age = match self.rotation.max_age_days {
            0 => u64::MAX,
            days => u64::from(days) * 24 * 60 * 60,
        };
        for (index, (name, seconds)) in aside.iter().enumerate() {
            if index >= keep || now.as_secs().saturating_sub(*seconds) > age {
                fs::remove_file(self.path.with_file_name(name))?;
            }
        }
        Ok(())
    }

    fn stem(&self) -> String {
        format!("{}-", self.path.file_stem().unwrap_or_default().to_string_lossy())
    }

    fn extension(&self) -> String {
        self.path
            .extension()
            .map_or_else(String::new, |extension| format!(".{}", extension.to_string_lossy()))
    }
}

impl Write for RotatingFile {
    /// One call is one line, which is never split over two files. When setting aside fails (a full disk), the line is
    /// still written to the old file: a log that is too long is better than none.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let grown = self.bytes.saturating_add(line.len() as u64);
        if self.bytes > 0 && grown > self.rotation.max_bytes {
            let _ = self.rotate();
        }
        self.file.write_all(line)?;
        self.bytes = self.bytes.saturating_add(line.len() as u64);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_is_set_aside_and_the_oldest_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("server.log");
        fs::write(directory.path().join("server-notes.log"), "not ours").unwrap();
        let rotation = LogRotation { max_bytes: 20, max_age_days: 0, max_backups: 2 };
        let mut log = RotatingFile::open(&path, rotation).unwrap();
        for number in 0..10 {
            log.write_all(format!("line number {number}\n").as_bytes()).unwrap();
        }
        let mut names: Vec<String> = fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names.len(), 4, "{names:?}");
        assert!(names.contains(&"server-notes.log".to_owned()));
        assert_eq!(fs::read_to_string(&path).unwrap(), "line number 9\n");
        let newest = names
            .iter()
            .rev()
            .find(|name| name.starts_with("server-0") || name.starts_with("server-1"))
            .unwrap();
        assert_eq!(fs::read_to_string(directory.path().join(newest)).unwrap(), "line number 8\n");
    }
}
