//! What a pool's pods are asked, whom, and what comes back.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use stoker_api::{BusyProbe, BusyProbeMode, ExecProbe, HttpPort, RedisProbe};
use stoker_core::PodView;
use stoker_core::asked::{Answer, Rules};

use crate::http_probe::HttpQuestion;

/// So much of a body, an output or a value is evidence.
pub const EVIDENCE_BYTES: usize = 4096;

/// One pool's question.
#[derive(Clone, Debug, PartialEq)]
pub enum Question {
    Http(Arc<HttpQuestion>),
    Exec(Arc<ExecProbe>),
    Redis(Arc<RedisProbe>),
}

impl Question {
    /// The question of a probe; none in the modes that ask nobody.
    pub fn of(probe: &BusyProbe) -> Option<(Self, Rules)> {
        let rules = Rules::of(probe)?;
        let question = match probe.mode {
            BusyProbeMode::Annotation | BusyProbeMode::Condition => return None,
            BusyProbeMode::Http => {
                Self::Http(Arc::new(HttpQuestion::new(probe.http.clone().unwrap_or_default())))
            }
            BusyProbeMode::Exec => Self::Exec(Arc::new(probe.exec.clone().unwrap_or_default())),
            // Admission refuses mode redis without its block.
            BusyProbeMode::Redis => Self::Redis(Arc::new(probe.redis.clone()?)),
        };
        Some((question, rules))
    }

    /// The mode's word, for metrics.
    pub fn mode(&self) -> &'static str {
        match self {
            Self::Http(_) => "http",
            Self::Exec(_) => "exec",
            Self::Redis(_) => "redis",
        }
    }

    /// One question is about all pods of the pool.
    pub fn is_for_all(&self) -> bool {
        matches!(self, Self::Redis(_))
    }
}

/// A pod that is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    pub namespace: Arc<str>,
    pub name: String,
    pub created: Timestamp,
    pub ip: Option<IpAddr>,
    /// The port that the probe means; none = the pod has none of that name.
    pub port: Option<u16>,
}

impl Target {
    pub fn new(namespace: Arc<str>, pod: &PodView, question: &Question) -> Self {
        let port = match question {
            Question::Http(http) => match &http.probe.port {
                HttpPort::Number(number) => Some(*number),
                HttpPort::Name(name) => pod.ports.iter().find(|(n, _)| n == name).map(|(_, port)| *port),
            },
            Question::Exec(_) | Question::Redis(_) => None,
        };
        Self { namespace, name: pod.name.clone(), created: pod.created, ip: pod.ip, port }
    }
}

/// What was found, for policies.
#[derive(Clone, Debug, PartialEq)]
pub enum Evidence {
    Http { status: u16, body: Box<[u8]> },
    Exec { code: i32, stdout: Box<[u8]> },
    Redis(Option<Box<[u8]>>),
    Error(String),
}

/// What a question about one pod came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    pub answer: Answer,
    pub evidence: Evidence,
}

impl Finding {
    /// There is no answer.
    pub fn none(words: impl Into<String>) -> Self {
        let words = words.into();
        Self { answer: Answer::unclear(words.clone()), evidence: Evidence::Error(words) }
    }
}

/// The first bytes, as far as they are evidence.
pub fn first_bytes(bytes: &[u8]) -> Box<[u8]> {
    bytes[..bytes.len().min(EVIDENCE_BYTES)].into()
}

/// The words for a question that was not answered in time.
pub fn too_late(timeout: Duration) -> String {
    format!("no answer within {} s", timeout.as_secs())
}
