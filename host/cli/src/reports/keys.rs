//! The keys that prove pods' addresses, taken up again when their files change.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use stoker_reports::{BadKey, CapabilityKey, Keys, Reports};
use tokio::sync::watch;

/// How often it is looked whether a key has changed.
const PERIOD: Duration = Duration::from_secs(5);

/// Where the keys are.
pub struct KeyFiles {
    pub current: PathBuf,
    /// That of a key that is good, too; it may be missing.
    pub previous: Option<PathBuf>,
}

impl KeyFiles {
    /// The keys as the files have them now.
    pub fn read(&self) -> Result<Keys, BadKey> {
        let current = CapabilityKey::read(&self.current)?;
        let previous = self.previous.as_ref().filter(|file| file.exists());
        Ok(Keys::new(current, previous.map(|file| CapabilityKey::read(file)).transpose()?))
    }

    /// When the files were written.
    fn written(&self) -> (Option<SystemTime>, Option<SystemTime>) {
        let written = |file: &PathBuf| std::fs::metadata(file).ok()?.modified().ok();
        (written(&self.current), self.previous.as_ref().and_then(written))
    }

    /// Takes up keys that change, until told to stop.
    pub async fn keep_current(&self, reports: &Reports, mut stop: watch::Receiver<bool>) {
        let mut known = self.written();
        loop {
            tokio::select! {
                () = tokio::time::sleep(PERIOD) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            let now = self.written();
            if now == known {
                continue;
            }
            match self.read() {
                Ok(keys) => {
                    known = now;
                    reports.change_keys(keys);
                    tracing::info!("the keys of pods' addresses have changed");
                }
                Err(error) => tracing::warn!(%error, "the new keys cannot be used, the old ones stay"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_key_may_be_missing_and_the_first_may_not() {
        let dir = std::env::temp_dir().join(format!("stoker-reports-keys-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap_or_else(|error| panic!("{error}"));
        let files = KeyFiles { current: dir.join("key"), previous: Some(dir.join("previous")) };
        assert!(files.read().is_err());
        std::fs::write(&files.current, "k".repeat(40)).unwrap_or_else(|error| panic!("{error}"));
        assert!(files.read().is_ok());
        std::fs::write(dir.join("previous"), "short").unwrap_or_else(|error| panic!("{error}"));
        let error = files.read().map(drop).map_err(|error| error.to_string());
        assert!(error.is_err_and(|error| error.contains("previous: ") && error.contains("has 5 bytes")));
        std::fs::remove_dir_all(&dir).ok();
    }
}
