//! What was decided of late, for whoever asks why: of each object the last decisions that changed something, and the records
//! of what its policies were asked, as long as there is room.

use std::collections::{HashMap, VecDeque};
use std::mem::size_of;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use jiff::Timestamp;
use serde::Serialize;
use stoker_core::pool::status::PoolStatus;
use stoker_policy::contract::{busyness, scaling, warm_up};
use stoker_policy::{Exchange, Record};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::context::Context;
use crate::object::{Key, Kind};
use crate::server::{answer, listen_at};
use crate::startup::StartError;

/// Of an object so many are kept.
const KEPT: usize = 64;

/// Records of all objects together take about so much memory at most; the oldest go first.
const ROOM: usize = 16 << 20;

/// A decision as it was applied.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// When it was made first.
    at: Timestamp,
    by: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    inputs: String,
    raw: u32,
    applied: u32,
    limited_by: String,
    reason: String,
    /// What the policy on trial would do otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    shadow: Option<String>,
}

impl Line {
    fn of(status: &PoolStatus, now: Timestamp) -> Option<Self> {
        let decision = status.last_decision.clone()?;
        let shadow = status.policy.as_ref().and_then(|policy| policy.shadow.as_ref());
        Some(Self {
            at: decision.time.unwrap_or(now),
            by: decision.by,
            digest: decision.digest,
            inputs: decision.inputs,
            raw: decision.raw,
            applied: decision.applied,
            limited_by: decision.limited_by,
            reason: decision.reason,
            shadow: shadow.and_then(|shadow| shadow.differs.clone()),
        })
    }

    /// Whether it is of the same decision as another one, which the policy on trial may have answered about since.
    fn is_of(&self, other: &Self) -> bool {
        let now =
            Self { at: other.at, inputs: other.inputs.clone(), shadow: other.shadow.clone(), ..self.clone() };
        now == *other
    }
}

/// What is kept of all objects, by UID.
pub struct Decisions {
    kept: bool,
    all: Mutex<All>,
}

#[derive(Default)]
struct All {
    objects: HashMap<String, Told>,
    /// The records in the order in which they came: whose they are. What is gone already is passed over.
    order: VecDeque<String>,
    bytes: usize,
}

#[derive(Default)]
struct Told {
    lines: VecDeque<Line>,
    records: VecDeque<(Arc<Record>, usize)>,
}

impl Decisions {
    /// Keeps decisions, or nothing.
    pub fn new(kept: bool) -> Self {
        Self { kept, all: Mutex::default() }
    }

    /// Whether anything is kept.
    pub fn kept(&self) -> bool {
        self.kept
    }

    fn all(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of what was decided for a pool.
    pub fn note(&self, uid: &str, status: &PoolStatus, now: Timestamp) {
        let Some(line) = Some(status).filter(|_| self.kept).and_then(|status| Line::of(status, now)) else {
            return;
        };
        let mut all = self.all();
        let lines = &mut all.objects.entry(uid.to_owned()).or_default().lines;
        if let Some(last) = lines.back_mut().filter(|last| line.is_of(last)) {
            last.shadow = line.shadow.or_else(|| last.shadow.take());
            return;
        }
        lines.push_back(line);
        if lines.len() > KEPT {
            lines.pop_front();
        }
    }

    /// Takes note of what a policy was asked and answered.
    pub fn record(&self, record: Arc<Record>) {
        if !self.kept {
            return;
        }
        let uid = record.asked().1.uid.clone();
        let bytes = size(&record);
        let mut all = self.all();
        let records = &mut all.objects.entry(uid.clone()).or_default().records;
        records.push_back((record, bytes));
        let gone = if records.len() > KEPT { records.pop_front() } else { None };
        all.bytes += bytes;
        all.bytes -= gone.map_or(0, |(_, bytes)| bytes);
        all.order.push_back(uid);
        all.make_room(ROOM);
    }

    /// Forgets an object that is gone.
    pub fn forget(&self, uid: &str) {
        let mut all = self.all();
        if let Some(gone) = all.objects.remove(uid) {
            all.bytes -= gone.records.iter().map(|(_, bytes)| bytes).sum::<usize>();
            all.order.retain(|owner| owner != uid);
        }
    }

    fn lines(&self, uid: &str) -> Vec<Line> {
        self.all().objects.get(uid).map(|told| told.lines.iter().cloned().collect()).unwrap_or_default()
    }

    fn records(&self, uid: &str) -> Vec<Arc<Record>> {
        let all = self.all();
        let records = all.objects.get(uid).map(|told| &told.records);
        records.into_iter().flatten().map(|(record, _)| record.clone()).collect()
    }
}

impl All {
    /// Lets the oldest records go until the others take so much at most.
    fn make_room(&mut self, room: usize) {
        let count =
            |objects: &HashMap<String, Told>| objects.values().map(|told| told.records.len()).sum::<usize>();
        // Entries of records that their own object let go are dropped now and then.
        if self.order.len() > 2 * KEPT && self.order.len() > 2 * count(&self.objects) {
            let mut left: HashMap<&str, usize> =
                self.objects.iter().map(|(uid, told)| (uid.as_str(), told.records.len())).collect();
            let mut order: VecDeque<String> = VecDeque::new();
            for uid in self.order.iter().rev() {
                if let Some(left) = left.get_mut(uid.as_str()).filter(|left| **left > 0) {
                    *left -= 1;
                    order.push_front(uid.clone());
                }
            }
            self.order = order;
        }
        while self.bytes > room
            && let Some(uid) = self.order.pop_front()
        {
            let gone = self.objects.get_mut(&uid).and_then(|told| told.records.pop_front());
            self.bytes -= gone.map_or(0, |(_, bytes)| bytes);
        }
    }
}

/// About how much memory a record takes.
fn size(record: &Record) -> usize {
    let pool = 512;
    let log: usize = record.outcome.log.iter().map(|line| line.message.len() + 32).sum();
    let exchange = match &record.exchange {
        Exchange::Scale { input, answer } => {
            size_of::<scaling::Input>()
                + input.config.len()
                + input.pods.len() * size_of::<scaling::Pod>()
                + input.history.len() * size_of::<scaling::Sample>()
                + input.state.len()
                + answer.as_ref().map_or(0, |a| a.state.len() + a.reason.len() + a.victims.len() * 4)
        }
        Exchange::Classify { input, answer } => {
            let pods: usize = input.pods.iter().map(evidence).sum();
            let verdicts = answer.iter().flatten().map(|v| size_of::<busyness::Verdict>() + v.reason.len());
            pods + input.config.len() + verdicts.sum::<usize>()
        }
        Exchange::Lead { input, answer } => {
            size_of::<warm_up::Input>()
                + input.config.len()
                + input.runs.len() * size_of::<warm_up::Phases>()
                + input.state.len()
                + answer.as_ref().map_or(0, |a| a.state.len() + a.reason.len())
        }
    };
    pool + log + exchange
}

fn evidence(pod: &busyness::Evidence) -> usize {
    let pairs = |pairs: &[(String, String)]| pairs.iter().map(|(k, v)| k.len() + v.len() + 48).sum::<usize>();
    let probe = match &pod.probe {
        busyness::Probe::Http(answer) => answer.body.len(),
        busyness::Probe::Exec(answer) => answer.stdout.len(),
        busyness::Probe::Redis(value) => value.as_ref().map_or(0, Vec::len),
        busyness::Probe::Annotation(value) | busyness::Probe::Condition(value) => {
            value.as_ref().map_or(0, String::len)
        }
        busyness::Probe::Error(words) => words.len(),
        busyness::Probe::None => 0,
    };
    size_of::<busyness::Evidence>() + pod.name.len() + pairs(&pod.labels) + pairs(&pod.annotations) + probe
}

/// Serves them until told to stop. They hold what pods say of themselves, so the address is best one that only those reach
/// who may: in a pod the loopback, which `kubectl port-forward` reaches for those who may forward ports of that pod.
pub async fn serve(
    listen: Option<String>,
    context: Arc<Context>,
    stop: watch::Receiver<bool>,
) -> Result<JoinHandle<()>, StartError> {
    let Some(address) = listen else { return Ok(tokio::spawn(async {})) };
    let (listener, bound) = listen_at(&address).await?;
    tracing::info!(listens = %bound, "serving /decisions and /records");
    let router = Router::new()
        .route("/decisions/{kind}/{namespace}/{name}", get(lines))
        .route("/records/{kind}/{namespace}/{name}", get(records))
        .with_state(context);
    Ok(answer(listener, router, "/decisions and /records", stop))
}

type Object = Path<(String, String, String)>;

fn uid(context: &Context, Path((kind, namespace, name)): Object) -> Option<String> {
    context.uid_of(&Key { kind: Kind::named(&kind)?, namespace, name })
}

fn missing() -> Response {
    (StatusCode::NOT_FOUND, "this operator does not look after such an object\n").into_response()
}

async fn lines(State(context): State<Arc<Context>>, object: Object) -> Response {
    match uid(&context, object) {
        Some(uid) => Json(context.decisions.lines(&uid)).into_response(),
        None => missing(),
    }
}

async fn records(State(context): State<Arc<Context>>, object: Object) -> Response {
    let Some(uid) = uid(&context, object) else { return missing() };
    let mut text = Vec::new();
    for record in context.decisions.records(&uid) {
        // What was made of plain data is written as JSON without fail.
        if serde_json::to_writer(&mut text, &*record).is_ok() {
            text.push(b'\n');
        }
    }
    ([(header::CONTENT_TYPE, "application/jsonl")], Body::from(text)).into_response()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use stoker_api::DecisionSummary;

    use super::*;

    fn status(applied: u32, inputs: &str) -> PoolStatus {
        let last_decision =
            DecisionSummary { applied, inputs: inputs.to_owned(), ..DecisionSummary::default() };
        PoolStatus { last_decision: Some(last_decision), ..PoolStatus::default() }
    }

    fn record(uid: &str, config: usize) -> Arc<Record> {
        let text = r#"{"version": 1, "digest": "sha256:0", "policy": "a 1", "timeoutMilliseconds": 100, "memoryBytes": 1,
            "call": "lead", "input": {"now": 0, "pool": {"kind": "", "namespace": "", "name": "", "uid": "UID",
            "generation": 1}, "config": "CONFIG", "instants": [], "configured": 0, "runs": [], "state": [],
            "extensions": []}, "answer": null}"#;
        Arc::new(
            serde_json::from_str(&text.replace("UID", uid).replace("CONFIG", &"x".repeat(config))).unwrap(),
        )
    }

    #[test]
    fn what_tells_the_same_is_kept_once_and_the_oldest_go() {
        let decisions = Decisions::new(true);
        let applied = |uid: &str| decisions.lines(uid).iter().map(|line| line.applied).collect::<Vec<_>>();
        for (count, inputs) in [(1, "a"), (1, "b"), (2, "b"), (1, "b")] {
            decisions.note("one", &status(count, inputs), Timestamp::UNIX_EPOCH);
        }
        assert_eq!(applied("one"), [1, 2, 1]);
        for count in 0..100 {
            decisions.note("one", &status(count, ""), Timestamp::UNIX_EPOCH);
        }
        assert_eq!(applied("one"), (36..100).collect::<Vec<_>>());
        assert!(applied("other").is_empty());
        decisions.forget("one");
        assert!(applied("one").is_empty());
    }

    #[test]
    fn records_of_all_objects_share_a_room() {
        let decisions = Decisions::new(true);
        for i in 0..100 {
            decisions.record(record(&format!("uid-{}", i % 2), 1 << 20));
        }
        let kept = |uid: &str| decisions.records(uid).len();
        assert_eq!(kept("uid-0") + kept("uid-1"), 15);
        assert!(kept("uid-0").abs_diff(kept("uid-1")) <= 1);
        decisions.forget("uid-0");
        let entries = decisions.all().order.len();
        assert_eq!((kept("uid-0"), entries), (0, kept("uid-1")));
    }

    #[test]
    fn of_one_object_so_many_records_are_kept_and_no_more() {
        let decisions = Decisions::new(true);
        for _ in 0..10_000 {
            decisions.record(record("busy", 1));
        }
        decisions.record(record("quiet", 1));
        assert_eq!((decisions.records("busy").len(), decisions.records("quiet").len()), (KEPT, 1));
        let all = decisions.all();
        assert!(all.order.len() <= 2 * KEPT + 3, "{}", all.order.len());
        let bytes: usize = all.objects.values().flat_map(|told| &told.records).map(|(_, bytes)| bytes).sum();
        assert_eq!(all.bytes, bytes);
    }

    #[test]
    fn where_nobody_asks_nothing_is_kept() {
        let decisions = Decisions::new(false);
        decisions.note("one", &status(1, ""), Timestamp::UNIX_EPOCH);
        decisions.record(record("one", 1));
        assert!(decisions.lines("one").is_empty() && decisions.records("one").is_empty());
    }
}
