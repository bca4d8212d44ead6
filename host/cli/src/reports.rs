//! `stoker reports`: takes what pods of NodeBatchJobs report, keeps it durably and serves it.
//!
//! ```text
//!   API server ──watch──▶ known ──views──▶ stoker_reports ◀── pods (callbacks), people and Prometheus (readers)
//!                                   Events ◀──┘   └──▶ --dir
//! ```
//!
//! It is a service of its own beside the operator, one process with a volume, so that the operator's replicas keep nothing.

mod cluster;
#[cfg(test)]
mod fixtures;
mod keys;
mod known;
mod listen;
mod nodes;
mod pod;
mod view;
mod watches;

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use clap::Args as ClapArgs;
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Client;
use kube::api::{Api, ListParams};
use stoker_api::NodeBatchJob;
use stoker_operator::StartError;
use stoker_reports::{Limits, Reports, Store};

use crate::service::{self, Logging};
use cluster::Watched;
use keys::KeyFiles;
use known::Known;
use listen::Address;

#[derive(ClapArgs)]
pub struct Args {
    /// Where pods report, by the addresses in their CALLBACK_SERVICE_…_URL.
    #[arg(
        long,
        env = "STOKER_REPORTS_LISTEN_CALLBACKS",
        value_name = "ADDRESS",
        default_value = "0.0.0.0:8090"
    )]
    listen_callbacks: String,
    /// Where reports are read: pages, JSON, /metrics, /healthz and /readyz.
    #[arg(
        long,
        env = "STOKER_REPORTS_LISTEN_READERS",
        value_name = "ADDRESS",
        default_value = "0.0.0.0:8091"
    )]
    listen_readers: String,
    /// The folder that keeps the reports, on a volume that outlives this process. One process at a time.
    #[arg(long, env = "STOKER_REPORTS_DIR", value_name = "DIR")]
    dir: PathBuf,
    /// The file of the key that proves pods' addresses, at least 32 random bytes: the operator's own. Taken up again when it
    /// changes.
    #[arg(long, env = "STOKER_REPORTS_KEY_FILE", value_name = "FILE")]
    key_file: PathBuf,
    /// The file of another key that is good, too, while the key is being changed. It may be missing.
    #[arg(long, env = "STOKER_REPORTS_PREVIOUS_KEY_FILE", value_name = "FILE")]
    previous_key_file: Option<PathBuf>,
    /// The certificate for callbacks, a PEM file; taken up again when it changes. Omitted: plain HTTP.
    #[arg(long, env = "STOKER_REPORTS_CALLBACKS_CERT", value_name = "FILE", requires = "callbacks_key")]
    callbacks_cert: Option<PathBuf>,
    /// The key of that certificate, a PEM file.
    #[arg(long, env = "STOKER_REPORTS_CALLBACKS_KEY", value_name = "FILE", requires = "callbacks_cert")]
    callbacks_key: Option<PathBuf>,
    /// The certificate for readers, a PEM file; taken up again when it changes. Omitted: plain HTTP.
    #[arg(long, env = "STOKER_REPORTS_READERS_CERT", value_name = "FILE", requires = "readers_key")]
    readers_cert: Option<PathBuf>,
    /// The key of that certificate, a PEM file.
    #[arg(long, env = "STOKER_REPORTS_READERS_KEY", value_name = "FILE", requires = "readers_cert")]
    readers_key: Option<PathBuf>,
    /// How long reports are kept after the last one to an execution when its NodeBatchJob has been deleted.
    #[arg(long, env = "STOKER_REPORTS_KEEP_DELETED", value_name = "DURATION", value_parser = keep, default_value = "168h")]
    keep_deleted: Duration,
    /// Watch this namespace only; may be given more than once. All namespaces if omitted.
    #[arg(long = "namespace", short = 'n', env = "STOKER_NAMESPACES", value_delimiter = ',')]
    namespaces: Vec<String>,
    #[command(flatten)]
    logging: Logging,
}

pub fn reports(args: Args) -> anyhow::Result<()> {
    service::run(&args.logging, async |stop| {
        let keys = KeyFiles { current: args.key_file, previous: args.previous_key_file };
        let good = keys.read()?;
        let callbacks = Address {
            what: "callbacks",
            flag: "--listen-callbacks",
            address: args.listen_callbacks,
            tls: args.callbacks_cert.zip(args.callbacks_key),
        };
        let readers = Address {
            what: "readers",
            flag: "--listen-readers",
            address: args.listen_readers,
            tls: args.readers_cert.zip(args.readers_key),
        };
        // The lock is held for as long as this process lives.
        let _lock = lock(&args.dir)?;
        let store =
            Store::local(&args.dir).context("--dir: choose another folder, or make this one writable")?;

        let client = stoker_operator::connect().await?;
        check(&client, &args.namespaces).await?;
        let callbacks = callbacks.bind().await?;
        let readers = readers.bind().await?;

        let scopes: Vec<Option<String>> = match args.namespaces.is_empty() {
            true => vec![None],
            false => args.namespaces.into_iter().map(Some).collect(),
        };
        let known = Arc::new(Known::new(scopes.len()));
        let cluster = Watched::new(client.clone(), known.clone(), &instance());
        let limits = Limits { orphans: args.keep_deleted, ..Limits::default() };
        let reports = Reports::new(store, good, Arc::new(cluster), limits);
        tracing::info!(
            callbacks = %callbacks, readers = %readers, dir = %args.dir.display(), "taking and serving reports"
        );
        let watches = watches::follow(client, known, scopes, stop.clone());
        let served =
            stoker_reports::serve(reports.clone(), callbacks.listener, readers.listener, stop.clone());
        let beside = async {
            tokio::join!(watches, keys.keep_current(&reports, stop));
            // Uploads under way are let finish.
            std::future::pending::<()>().await;
        };
        tokio::select! {
            served = served => served.context("the servers ended"),
            () = beside => Ok(()),
        }
    })
}

/// Makes sure that no other process works in the folder: each clears away what the one before it left half-written.
fn lock(dir: &Path) -> anyhow::Result<File> {
    let name = dir.display();
    std::fs::create_dir_all(dir).with_context(|| {
        format!("--dir {name} cannot be made: choose another folder, or make its parent writable")
    })?;
    let file = dir.join(".lock");
    let file = File::create(&file).with_context(|| {
        format!("--dir {name} cannot be written to: choose another folder, or make it writable")
    })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            bail!("another process keeps reports in --dir {name}: end it, or choose another folder")
        }
        Err(TryLockError::Error(error)) => {
            tracing::warn!(%error, dir = %name, "this file system has no locks; see to it that one process works in the folder");
            Ok(file)
        }
    }
}

/// Checks that all that must be watched may be.
async fn check(client: &Client, namespaces: &[String]) -> Result<(), StartError> {
    let all = [String::new()];
    for namespace in if namespaces.is_empty() { &all } else { namespaces } {
        stoker_operator::may::<NodeBatchJob>(client, namespace, "nodebatchjobs.stoker.dev").await?;
        stoker_operator::may::<Pod>(client, namespace, "pods").await?;
    }
    match Api::<Node>::all(client.clone()).list_metadata(&ListParams::default().limit(1)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 403 => Err(StartError::Forbidden {
            verb: "list",
            what: "nodes",
            namespace: String::new(),
            error: status.message.clone(),
        }),
        Err(error) => Err(StartError::Unreachable { url: "the API server".into(), error: error.to_string() }),
    }
}

/// What tells this process from others in Events: its pod, whose name is its host's.
fn instance() -> String {
    let mut named = ["POD_NAME", "HOSTNAME"].iter().filter_map(|key| std::env::var(key).ok());
    named.find(|name| !name.is_empty()).unwrap_or_else(|| "stoker-reports".to_owned())
}

fn keep(text: &str) -> anyhow::Result<Duration> {
    let duration: SignedDuration =
        text.parse().map_err(|_| anyhow!("`{text}` is no duration: write for example 24h, 90m or 168h"))?;
    Duration::try_from(duration).map_err(|_| anyhow!("`{text}` is less than nothing"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i11_one_process_keeps_a_folder() {
        let dir = std::env::temp_dir().join(format!("stoker-reports-lock-{}", std::process::id()));
        let first = lock(&dir).unwrap_or_else(|error| panic!("{error:#}"));
        let error = lock(&dir).map(drop).map_err(|error| error.to_string());
        assert!(error.is_err_and(|error| error.starts_with("another process keeps reports in --dir")));
        drop(first);
        assert!(lock(&dir).is_ok(), "a process that has ended holds nothing");
        std::fs::remove_dir_all(&dir).ok();
    }

    #[test]
    fn durations_are_read() {
        assert_eq!(keep("168h").ok(), Some(Duration::from_secs(604_800)));
        assert!(keep("7").is_err() && keep("-1h").is_err());
    }
}
