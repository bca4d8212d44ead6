//! A file of decisions: what policies were asked and what they answered, for whoever wants to ask it again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use stoker_policy::{CompileCost, Digest, Observer, Record, Timing};

use crate::decisions::Decisions;
use crate::policy_metrics::PolicyMetrics;

/// A file that has this many bytes becomes FILE.1, in the place of an earlier one.
const FILE_BYTES: u64 = 64 << 20;

/// Decisions that wait to be written; more are left out: no decision waits for the disk.
const WAITING: usize = 1024;

/// Takes decisions to the file.
pub struct DecisionFile {
    to: SyncSender<Arc<Record>>,
    left_out: AtomicU64,
}

impl DecisionFile {
    /// Opens the file, to write at its end.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        let file = append(&path)?;
        let (to, records) = sync_channel(WAITING);
        thread::Builder::new()
            .name("decisions".into())
            .spawn(move || write(&path, file, &records, FILE_BYTES))?;
        Ok(Self { to, left_out: AtomicU64::new(0) })
    }

    fn note(&self, record: Arc<Record>) {
        if self.to.try_send(record).is_err() && self.left_out.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!(
                "decisions come faster than --record can write them: some are left out of the file"
            );
        }
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// Writes decisions until nobody makes any more.
fn write(path: &Path, mut file: File, records: &Receiver<Arc<Record>>, most: u64) {
    let mut size = file.metadata().map_or(0, |metadata| metadata.len());
    for record in records {
        let written = serde_json::to_vec(&*record).map_err(io::Error::from).and_then(|mut line| {
            line.push(b'\n');
            if size > 0 && size + line.len() as u64 > most {
                let mut older = path.as_os_str().to_owned();
                older.push(".1");
                fs::rename(path, older)?;
                (file, size) = (append(path)?, 0);
            }
            size += line.len() as u64;
            file.write_all(&line)
        });
        if let Err(error) = written {
            tracing::warn!(file = %path.display(), %error, "a decision could not be recorded");
        }
    }
}

/// Who is told of what the policy host does: metrics, and the file if there is one.
pub struct Witness {
    pub metrics: Arc<PolicyMetrics>,
    pub file: Option<DecisionFile>,
    pub decisions: Arc<Decisions>,
}

impl Observer for Witness {
    fn compiled(&self, digest: &Digest, outcome: &'static str, cost: CompileCost) {
        self.metrics.compiled(digest, outcome, cost);
    }

    fn called(&self, digest: &Digest, call: &'static str, outcome: &'static str, timing: Timing) {
        self.metrics.called(digest, call, outcome, timing);
    }

    fn forgotten(&self, digest: &Digest) {
        self.metrics.forgotten(digest);
    }

    fn records(&self) -> bool {
        self.file.is_some() || self.decisions.kept()
    }

    fn decided(&self, record: Record) {
        let record = Arc::new(record);
        if let Some(file) = &self.file {
            file.note(record.clone());
        }
        self.decisions.record(record);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let text = r#"{"version": 1, "digest": "sha256:0", "policy": "a 1", "timeoutMilliseconds": 100, "memoryBytes": 1,
            "call": "lead", "input": {"now": 0, "pool": {"kind": "", "namespace": "", "name": "", "uid": "",
            "generation": 1}, "config": "{}", "instants": [], "configured": 0, "runs": [], "state": [], "extensions": []},
            "answer": null, "error": {"kind": "trap", "words": "it stopped"}}"#;
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn each_decision_is_a_line_and_a_full_file_makes_room() {
        let folder = std::env::temp_dir().join(format!("stoker-decisions-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("decisions.jsonl");
        let (to, records) = sync_channel(8);
        (0..5).for_each(|_| to.send(Arc::new(record())).unwrap());
        drop(to);
        let line = serde_json::to_string(&record()).unwrap().len() as u64 + 1;
        write(&path, append(&path).unwrap(), &records, 2 * line);
        let lines = |name: &str| {
            let text = fs::read_to_string(folder.join(name)).unwrap();
            text.lines().map(|line| serde_json::from_str::<Record>(line).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(lines("decisions.jsonl"), [record()]);
        assert_eq!(lines("decisions.jsonl.1"), [record(), record()]);
        fs::remove_dir_all(&folder).unwrap();
    }
}
