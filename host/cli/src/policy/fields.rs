//! The contract's records as people write them in cases; `wit/policy.wit` says what each field means.

use super::shape::{Field, Shape, field};

const TEXT: Shape = Shape::Text;
const NUMBER: Shape = Shape::Number;
const BOOL: Shape = Shape::Bool;
const TIME: Shape = Shape::Time;
const SPAN: Shape = Shape::Span;

/// When a case takes place unless it says otherwise: a Thursday.
pub const NOW: &str = "\"2026-01-01T12:00:00Z\"";

const POOL: Shape = Shape::Record(&[
    field("kind", TEXT, "\"HotStandbyDeployment\""),
    field("namespace", TEXT, "\"default\""),
    field("name", TEXT, "\"example\""),
    field("uid", TEXT, "\"00000000-0000-4000-8000-000000000000\""),
    field("generation", NUMBER, "1"),
]);

const POD_STATES: &[&str] = &["starting", "idle", "busy", "claimed", "unknown", "terminating", "failed"];
const VERDICTS: &[&str] = &["busy", "idle", "unknown", "starting"];

pub const COUNTS: &[Field] = &[
    field("current", NUMBER, "0"),
    field("ready", NUMBER, "0"),
    field("starting", NUMBER, "0"),
    field("idle", NUMBER, "0"),
    field("busy", NUMBER, "0"),
    field("claimed", NUMBER, "0"),
    field("unknown", NUMBER, "0"),
    field("terminating", NUMBER, "0"),
    field("unschedulable", NUMBER, "0"),
    field("failed", NUMBER, "0"),
];

const POD: Shape = Shape::Record(&[
    field("state", Shape::Word(POD_STATES), "\"idle\""),
    field("since", TIME, "\"2026-01-01T11:50:00Z\""),
    field("age", SPAN, "\"10m\""),
    field("node", NUMBER, "0"),
    field("cordoned", BOOL, "false"),
    field("templateCurrent", BOOL, "true"),
]);

const SAMPLE: Shape =
    Shape::Record(&[field("at", TIME, ""), field("busy", NUMBER, ""), field("total", NUMBER, "")]);

const SIGNAL: Shape =
    Shape::Record(&[field("name", TEXT, ""), field("value", Shape::Outcome, ""), field("age", SPAN, "0")]);

const PREVIOUS: Shape = Shape::Record(&[
    field("at", TIME, "\"2026-01-01T11:59:00Z\""),
    field("desired", NUMBER, ""),
    field("applied", NUMBER, ""),
    field("limitedBy", Shape::Word(&["none", "minimum", "maximum", "delay", "hold", "paused"]), "\"none\""),
    field("reason", TEXT, "\"\""),
]);

/// What `scale` is asked with.
pub const SCALE: Shape = Shape::Record(&[
    field("now", TIME, NOW),
    field("pool", POOL, "{}"),
    field("config", Shape::Json, "{}"),
    field("minimum", NUMBER, "0"),
    field("maximum", NUMBER, "100"),
    field("idleTarget", NUMBER, "1"),
    field("counts", Shape::Record(COUNTS), "{}"),
    field(
        "demand",
        Shape::Record(&[
            field("waiting", NUMBER, "0"),
            field("misses", NUMBER, "0"),
            field("oldestWait", SPAN, "0"),
        ]),
        "{}",
    ),
    field("pods", Shape::List(&POD), "[]"),
    field("history", Shape::List(&SAMPLE), "[]"),
    field(
        "startup",
        Shape::Record(&[
            field("samples", NUMBER, "0"),
            field("p50", SPAN, "0"),
            field("p90", SPAN, "0"),
            field("p99", SPAN, "0"),
        ]),
        "{}",
    ),
    field("signals", Shape::List(&SIGNAL), "[]"),
    field("previous", Shape::Optional(&PREVIOUS), "null"),
    field("state", Shape::Bytes, "\"\""),
    field("extensions", Shape::Pairs, "{}"),
]);

/// What `scale` answers.
pub const SCALED: &[Field] = &[
    field("desired", NUMBER, ""),
    field("reason", TEXT, ""),
    field("victims", Shape::List(&NUMBER), ""),
    field("wakeAfter", Shape::Optional(&SPAN), ""),
    field("validUntil", Shape::Optional(&TIME), ""),
    field("state", Shape::Bytes, ""),
    field("extensions", Shape::Pairs, ""),
];

const PROBE: Shape = Shape::Choice(&[
    ("none", None),
    ("annotation", Some(Shape::Optional(&TEXT))),
    ("condition", Some(Shape::Optional(&TEXT))),
    ("http", Some(Shape::Record(&[field("status", NUMBER, "200"), field("body", Shape::Bytes, "\"\"")]))),
    ("exec", Some(Shape::Record(&[field("exitCode", NUMBER, "0"), field("stdout", Shape::Bytes, "\"\"")]))),
    ("redis", Some(Shape::Optional(&Shape::Bytes))),
    ("error", Some(TEXT)),
]);

const LAST: [Field; 2] =
    [field("state", Shape::Word(VERDICTS), ""), field("since", TIME, "\"2026-01-01T11:50:00Z\"")];

const EVIDENCE: Shape = Shape::Record(&[
    field("name", TEXT, "\"pod\""),
    field("phase", Shape::Word(&["pending", "running", "succeeded", "failed", "unknown"]), "\"running\""),
    field("ready", BOOL, "true"),
    field("everReady", BOOL, "true"),
    field("age", SPAN, "\"10m\""),
    field("restarts", NUMBER, "0"),
    field("labels", Shape::Pairs, "{}"),
    field("annotations", Shape::Pairs, "{}"),
    field("last", Shape::Optional(&Shape::Pair(&LAST)), "null"),
    field("probe", PROBE, "\"none\""),
    field("probeAge", SPAN, "0"),
    field("probeSays", Shape::Word(VERDICTS), "\"unknown\""),
    field("probeSaysSince", TIME, NOW),
    field("probeSaysResults", NUMBER, "1"),
    field("extensions", Shape::Pairs, "{}"),
]);

const QUESTION: Shape = Shape::Record(&[
    field("kind", Shape::Word(&["annotation", "condition", "http", "exec", "redis"]), ""),
    field("subject", TEXT, "\"\""),
    field("period", SPAN, "\"10s\""),
]);

/// What `classify` is asked with.
pub const CLASSIFY: Shape = Shape::Record(&[
    field("now", TIME, NOW),
    field("pool", POOL, "{}"),
    field("config", Shape::Json, "{}"),
    field("asks", Shape::Optional(&QUESTION), "null"),
    field("pods", Shape::List(&EVIDENCE), ""),
    field("extensions", Shape::Pairs, "{}"),
]);

const SLOTS: [Field; 2] = [field("used", NUMBER, ""), field("total", NUMBER, "")];

/// What `classify` answers for a pod.
pub const VERDICT: &[Field] = &[
    field("state", Shape::Word(VERDICTS), ""),
    field("reason", TEXT, ""),
    field("slots", Shape::Optional(&Shape::Pair(&SLOTS)), ""),
    field("spent", BOOL, ""),
    field("wakeAfter", Shape::Optional(&SPAN), ""),
];

const RUN: Shape = Shape::Record(&[
    field("instant", TIME, "\"2026-01-01T11:00:00Z\""),
    field("schedule", Shape::Optional(&SPAN), "null"),
    field("pull", Shape::Optional(&SPAN), "null"),
    field("start", Shape::Optional(&SPAN), "null"),
    field("ready", Shape::Optional(&SPAN), "null"),
]);

/// What `lead` is asked with.
pub const LEAD: Shape = Shape::Record(&[
    field("now", TIME, NOW),
    field("pool", POOL, r#"{"kind": "PreScaledCronJob"}"#),
    field("config", Shape::Json, "{}"),
    field("instants", Shape::List(&TIME), "[\"2026-01-01T13:00:00Z\"]"),
    field("configured", SPAN, "\"1m\""),
    field("runs", Shape::List(&RUN), "[]"),
    field("state", Shape::Bytes, "\"\""),
    field("extensions", Shape::Pairs, "{}"),
]);

/// What `lead` answers.
pub const LED: &[Field] = &[
    field("lead", SPAN, ""),
    field("reason", TEXT, ""),
    field("state", Shape::Bytes, ""),
    field("extensions", Shape::Pairs, ""),
];
