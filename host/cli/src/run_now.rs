//! `stoker run-now`: begins an execution of a NodeBatchJob, and follows it to its end if asked to.

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::io::Write as _;
use std::pin::{Pin, pin};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use clap::Args as ClapArgs;
use futures::{Stream, StreamExt as _};
use jiff::{SignedDuration, Timestamp};
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher;
use serde_json::json;
use stoker_api::{Execution, ExecutionCause, ExecutionState, NodeBatchJob, NodeBatchJobStatus, keys};
use tokio::time::{Instant, timeout_at};

use crate::claim::block_on;
use crate::objects::Named;

#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  stoker run-now disks                begins an execution and prints its id
  stoker run-now disks --wait         and follows it; the exit code is 0 if all nodes succeeded

A NodeBatchJob with suspend runs all the same. With concurrencyPolicy Forbid, it begins once the execution that is under \
way is over: --timeout says how long that may take.")]
pub struct Args {
    /// The NodeBatchJob.
    name: String,
    /// Its namespace. Omitted: that of the kubeconfig's current context, or of the pod that this runs in.
    #[arg(long, short = 'n')]
    namespace: Option<String>,
    /// Follow the execution to its end.
    #[arg(long, short = 'w')]
    wait: bool,
    /// How long the execution may take to begin, such as 30s or 10m.
    #[arg(long, value_name = "DURATION", value_parser = patience, default_value = "30s")]
    timeout: Duration,
}

pub fn run_now(args: Args) -> anyhow::Result<ExitCode> {
    block_on(async {
        let client = stoker_operator::connect().await?;
        let named: Named<NodeBatchJob> = Named::new(client, args.name, args.namespace);
        let before = named.get().await?;
        let known = before.status.iter().flat_map(|status| &status.executions);
        let known: HashSet<String> = known.map(|execution| execution.id.clone()).collect();
        let text = fresh();
        let patch = json!({"metadata": {"annotations": {keys::RUN_NOW: &text}}});
        named
            .ask("change", named.api.patch(&named.name, &PatchParams::default(), &Patch::Merge(&patch)))
            .await?;

        let mut changes = pin!(watcher::watch_object(named.api.clone(), &named.name));
        let begun = begun(&named, &text, &known, args.timeout, changes.as_mut()).await?;
        print(&begun.id)?;
        if !args.wait {
            return Ok(ExitCode::SUCCESS);
        }
        follow(&named, begun, changes).await
    })
}

/// A text that nobody has used before.
fn fresh() -> String {
    // A fresh state hashes nothing to a number by chance.
    format!("{}-{:08x}", Timestamp::now(), RandomState::new().build_hasher().finish() as u32)
}

type Changes<'a> = Pin<&'a mut (dyn Stream<Item = watcher::Result<Option<NodeBatchJob>>> + Send)>;

/// The object's next status.
async fn next(named: &Named<NodeBatchJob>, changes: &mut Changes<'_>) -> anyhow::Result<NodeBatchJob> {
    loop {
        match changes.next().await {
            Some(Ok(Some(object))) => return Ok(object),
            Some(Ok(None)) => bail!("NodeBatchJob {} has been deleted", named.name),
            // The watch goes on by itself, after ever longer pauses.
            Some(Err(error)) => tell(&format!("not up to date: {error}")),
            None => bail!("the watch of NodeBatchJob {} has ended", named.name),
        }
    }
}

/// Waits until the execution that was asked for has begun.
async fn begun(
    named: &Named<NodeBatchJob>,
    text: &str,
    known: &HashSet<String>,
    timeout: Duration,
    mut changes: Changes<'_>,
) -> anyhow::Result<Execution> {
    let until = Instant::now() + timeout;
    let mut last: Option<NodeBatchJob> = None;
    loop {
        let Ok(object) = timeout_at(until, next(named, &mut changes)).await else {
            return Err(not_begun(named, timeout, last.as_ref()));
        };
        let object = object?;
        match object.status.as_ref().and_then(|status| answer(status, text, known)) {
            Some(execution) => return Ok(execution.clone()),
            None => last = Some(object),
        }
    }
}

/// The execution with which a status answers; `None` = it has not answered yet.
fn answer<'a>(status: &'a NodeBatchJobStatus, text: &str, known: &HashSet<String>) -> Option<&'a Execution> {
    if status.run_now.as_deref() != Some(text) {
        return None;
    }
    let new =
        |execution: &&Execution| execution.cause == ExecutionCause::Manual && !known.contains(&execution.id);
    status.executions.iter().find(new)
}

/// Why nothing has begun, as far as it can be told.
fn not_begun(named: &Named<NodeBatchJob>, timeout: Duration, last: Option<&NodeBatchJob>) -> anyhow::Error {
    let status = last.and_then(|object| object.status.as_ref());
    let ready =
        status.and_then(|status| status.conditions.iter().find(|condition| condition.type_ == "Ready"));
    let running = status.and_then(|status| status.executions.iter().find(|e| e.completion_time.is_none()));
    let why = match (running, ready) {
        (Some(running), _) => {
            format!("execution {} is under way, and the new one begins after it", running.id)
        }
        (None, Some(ready)) if ready.status != "True" => ready.message.clone(),
        _ => "is `stoker run` there, and does it watch this namespace?".to_owned(),
    };
    let seconds = timeout.as_secs();
    anyhow!(
        "NodeBatchJob {} has begun no execution within {seconds} s, and will as soon as it can: {why}",
        named.name
    )
}

/// Tells how an execution goes on, to its end.
async fn follow(
    named: &Named<NodeBatchJob>,
    begun: Execution,
    mut changes: Changes<'_>,
) -> anyhow::Result<ExitCode> {
    let id = begun.id.clone();
    let (mut execution, mut told) = (begun, String::new());
    loop {
        let words = words(&execution);
        if words != told {
            tell(&words);
            told = words;
        }
        if execution.completion_time.is_some() {
            let well = execution.state == ExecutionState::Succeeded;
            return Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        let object = next(named, &mut changes).await?;
        let executions = object.status.unwrap_or_default().executions;
        let found = executions.into_iter().find(|execution| execution.id == id);
        execution = found.with_context(|| {
            format!(
                "execution {id} is no longer in the status of NodeBatchJob {}: how it ended is not known",
                named.name
            )
        })?;
    }
}

/// How an execution fares, in a line.
fn words(execution: &Execution) -> String {
    let (id, nodes) = (&execution.id, &execution.nodes);
    let mut parts = vec![format!("{} of {} nodes succeeded", nodes.succeeded, nodes.desired)];
    let others = [
        (nodes.running, "running"),
        (nodes.pending, "to come"),
        (nodes.failed, "failed"),
        (nodes.gone, "left"),
    ];
    parts
        .extend(others.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")));
    let counts = parts.join(", ");
    match (execution.completion_time, execution.state) {
        (None, _) => format!("execution {id}: {counts}"),
        (Some(_), ExecutionState::Succeeded | ExecutionState::Running) => {
            format!("execution {id} succeeded: {counts}")
        }
        (Some(_), ExecutionState::Failed) if nodes.desired == 0 => {
            format!("execution {id} failed: no node was chosen")
        }
        (Some(_), ExecutionState::Failed) => {
            let first = execution.failed_nodes.first();
            let first = first.map(|node| format!("; {}: {}", node.node, node.reason)).unwrap_or_default();
            format!("execution {id} failed: {counts}{first}")
        }
        (Some(_), ExecutionState::Replaced) => {
            format!("execution {id} ended early, since a later one took its place: {counts}")
        }
    }
}

fn print(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{line}").and_then(|()| out.flush()).context("cannot print the execution's id")
}

/// Says something beside the output. That nobody reads it is no reason to end.
fn tell(words: &str) {
    writeln!(std::io::stderr(), "stoker: {words}").ok();
}

fn patience(text: &str) -> anyhow::Result<Duration> {
    let duration: SignedDuration =
        text.parse().map_err(|_| anyhow!("`{text}` is no duration: write for example 30s, 10m or 1h30m"))?;
    let duration = Duration::try_from(duration).ok().filter(|duration| *duration >= Duration::from_secs(1));
    duration.with_context(|| format!("`{text}` is less than 1s"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::Value;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn status(value: Value) -> NodeBatchJobStatus {
        serde_json::from_value(value).unwrap_or_else(|error| panic!("{error}"))
    }

    fn execution(id: &str, cause: &str, more: Value) -> Value {
        let mut execution = json!({
            "id": id, "cause": cause, "startTime": "2026-08-03T09:10:00Z", "state": "Running",
            "nodes": {"desired": 0, "running": 0, "succeeded": 0, "failed": 0, "pending": 0, "gone": 0},
        });
        if let (Some(execution), Value::Object(more)) = (execution.as_object_mut(), more) {
            execution.extend(more);
        }
        execution
    }

    #[test]
    fn arguments_are_read_with_their_defaults() {
        let read = |words: &[&str]| Cli::try_parse_from(std::iter::once(&"run-now").chain(words));
        let args = read(&["disks", "-n", "ops", "--wait"]).map(|cli| cli.args).ok();
        let args = args.map(|args| (args.name, args.namespace, args.wait, args.timeout));
        let wanted = ("disks".to_owned(), Some("ops".to_owned()), true, Duration::from_secs(30));
        assert_eq!(args, Some(wanted));
        assert!(
            read(&["disks", "--timeout", "10m"])
                .is_ok_and(|cli| cli.args.timeout == Duration::from_secs(600))
        );
        assert!(read(&[]).is_err());
        for bad in ["0s", "soon", "-5s"] {
            assert!(read(&["disks", &format!("--timeout={bad}")]).is_err(), "{bad}");
        }
    }

    #[test]
    fn texts_are_fresh() {
        let texts: HashSet<String> = (0..100).map(|_| fresh()).collect();
        assert_eq!(texts.len(), 100);
    }

    #[test]
    fn the_answer_is_the_new_execution_by_hand() {
        let status = status(json!({"runNow": "mine", "executions": [
            execution("202608030912", "Schedule", json!({})),
            execution("202608030911", "Manual", json!({})),
            execution("202608030910", "Manual", json!({})),
        ]}));
        let known = HashSet::from(["202608030910".to_owned()]);
        assert_eq!(answer(&status, "mine", &known).map(|e| e.id.as_str()), Some("202608030911"));
        assert!(answer(&status, "another's", &known).is_none());
        let all = status.executions.iter().map(|e| e.id.clone()).collect();
        assert!(answer(&status, "mine", &all).is_none());
    }

    #[test]
    fn progress_is_told_in_a_line() {
        let line = |more: Value| {
            let status = status(json!({"executions": [execution("202608030910", "Manual", more)]}));
            words(&status.executions[0])
        };
        let nodes = |desired: u32, running: u32, succeeded: u32, failed: u32, pending: u32| {
            json!({"desired": desired, "running": running, "succeeded": succeeded, "failed": failed,
                "pending": pending, "gone": 0})
        };
        let end = "2026-08-03T09:11:00Z";
        assert_eq!(
            line(json!({"nodes": nodes(9, 3, 1, 0, 5)})),
            "execution 202608030910: 1 of 9 nodes succeeded, 3 running, 5 to come"
        );
        assert_eq!(
            line(json!({"nodes": nodes(2, 0, 2, 0, 0), "state": "Succeeded", "completionTime": end})),
            "execution 202608030910 succeeded: 2 of 2 nodes succeeded"
        );
        let failed = json!([{"node": "n1", "pod": "p", "attempts": 1, "reason": "Error: exit code 1"}]);
        assert_eq!(
            line(
                json!({"nodes": nodes(2, 0, 1, 1, 0), "state": "Failed", "completionTime": end, "failedNodes": failed})
            ),
            "execution 202608030910 failed: 1 of 2 nodes succeeded, 1 failed; n1: Error: exit code 1"
        );
        assert_eq!(
            line(json!({"nodes": nodes(0, 0, 0, 0, 0), "state": "Failed", "completionTime": end})),
            "execution 202608030910 failed: no node was chosen"
        );
    }
}
