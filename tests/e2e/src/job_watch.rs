//! When the Jobs of a namespace came and when they were complete, as one watch shows both: on one clock and in the store's
//! own order, so that a Job that began too early would be seen to.

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use futures::TryStreamExt as _;
use k8s_openapi::api::batch::v1::Job;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::core::Request;
use kube::{Client, Resource as _};
use serde::Deserialize;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

use crate::World;

/// Whoever waits for the next Job for so long waits in vain.
const PATIENCE: Duration = Duration::from_secs(300);

/// A Job with what is read of it: thousands are decoded beside what is measured.
#[derive(Clone, Debug, Deserialize)]
struct Slim {
    metadata: SlimMeta,
    #[serde(default)]
    status: SlimStatus,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SlimMeta {
    name: String,
    uid: String,
    resource_version: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct SlimStatus {
    conditions: Vec<SlimCondition>,
}

#[derive(Clone, Debug, Deserialize)]
struct SlimCondition {
    #[serde(rename = "type")]
    type_: String,
    status: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Came,
    Completed,
    Failed,
}

/// When a Job came, and when it was complete.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    pub came: Instant,
    pub completed: Option<Instant>,
}

/// Jobs of a namespace that came since it began.
pub struct JobWatch {
    seen: UnboundedReceiver<Result<(String, What, Instant)>>,
    jobs: HashMap<String, Times>,
    at_work: usize,
    most: usize,
    task: JoinHandle<()>,
}

impl JobWatch {
    /// Begins.
    pub async fn start(world: &World) -> Result<Self> {
        let listed = world.api::<Job>().list_metadata(&ListParams::default().limit(1)).await?;
        let version = listed.metadata.resource_version.unwrap_or_default();
        let (into, seen) = unbounded_channel();
        let path = Job::url_path(&(), Some(&world.namespace));
        let client = world.client.clone();
        let task = tokio::spawn(async move {
            if let Err(error) = watch(client, &path, version, &into).await {
                into.send(Err(error)).ok();
            }
        });
        Ok(Self { seen, jobs: HashMap::new(), at_work: 0, most: 0, task })
    }

    /// Waits for the next Job that is complete, and returns its name. One that failed is an error.
    pub async fn next_completed(&mut self) -> Result<String> {
        loop {
            let next = tokio::time::timeout(PATIENCE, self.seen.recv()).await;
            let next = next.with_context(|| {
                format!("no Job has come or ended for {PATIENCE:?}; {} are at work", self.at_work)
            })?;
            let (name, what, at) = next.context("the watch of Jobs has ended")??;
            match what {
                What::Came => {
                    self.jobs.insert(name, Times { came: at, completed: None });
                    self.at_work += 1;
                    self.most = self.most.max(self.at_work);
                }
                What::Completed => {
                    if let Some(times) = self.jobs.get_mut(&name) {
                        times.completed = Some(at);
                    }
                    self.at_work -= 1;
                    return Ok(name);
                }
                What::Failed => bail!("Job {name} failed"),
            }
        }
    }

    /// What was seen of a Job.
    pub fn of(&self, name: &str) -> Result<Times> {
        self.jobs.get(name).copied().with_context(|| format!("Job {name} has not come"))
    }

    /// The most Jobs that had come and were not complete at a time.
    pub fn most(&self) -> usize {
        self.most
    }
}

impl Drop for JobWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Tells what happens to Jobs from a version on, until nobody listens.
async fn watch(
    client: Client,
    path: &str,
    mut version: String,
    into: &UnboundedSender<Result<(String, What, Instant)>>,
) -> Result<()> {
    let mut at_work = HashSet::new();
    loop {
        // A watch lasts a few minutes; the next one goes on where it ended.
        let request = Request::new(path).watch(&WatchParams::default(), &version)?;
        let mut events = pin!(client.request_events::<Slim>(request).await?);
        while let Some(event) = events.try_next().await? {
            let at = Instant::now();
            let (job, came) = match event {
                WatchEvent::Added(job) => (job, true),
                WatchEvent::Modified(job) => (job, false),
                WatchEvent::Deleted(job) => {
                    version = job.metadata.resource_version;
                    continue;
                }
                WatchEvent::Bookmark(mark) => {
                    version = mark.metadata.resource_version;
                    continue;
                }
                WatchEvent::Error(status) => {
                    return Err(anyhow!("the watch of Jobs broke: {}", status.message));
                }
            };
            version = job.metadata.resource_version;
            let tell = |what| into.send(Ok((job.metadata.name.clone(), what, at)));
            if came && at_work.insert(job.metadata.uid.clone()) && tell(What::Came).is_err() {
                return Ok(());
            }
            let ends = job.status.conditions.iter().find_map(|condition| match condition.type_.as_str() {
                _ if condition.status != "True" => None,
                "Complete" => Some(What::Completed),
                "Failed" => Some(What::Failed),
                _ => None,
            });
            if let Some(what) = ends
                && at_work.remove(&job.metadata.uid)
                && tell(what).is_err()
            {
                return Ok(());
            }
        }
    }
}
