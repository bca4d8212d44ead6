//! A row of the corpus: bytes that attack the host, and what must come of them.

use std::sync::Arc;

use stoker_policy::contract::{busyness, scaling, warm_up};
use stoker_policy::{CallError, ConfigRefusal, Limits, PolicyHost, Refusal};

use crate::fixtures::{self, Guest};

/// What is done with a policy, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Load,
    Validate,
    Scale,
    Classify,
    Lead,
}

impl Step {
    /// The function that is called, as messages name it.
    fn call(self) -> &'static str {
        match self {
            Self::Load => "describe",
            Self::Validate => "validate",
            Self::Scale => "scale",
            Self::Classify => "classify",
            Self::Lead => "lead",
        }
    }
}

/// How a row ends.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// At the step, with the error's short kind and its whole message.
    Fails(Step, &'static str, String),
    /// Every step succeeds; the answers of the interfaces that it exports.
    Answers(Box<Answers>),
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answers {
    pub scale: Option<scaling::Decision>,
    pub classify: Option<Vec<busyness::Verdict>>,
    pub lead: Option<warm_up::Decision>,
    /// Lines that are kept of what `scale` wrote, and how many more there were.
    pub log: (usize, u32),
}

#[derive(Clone)]
pub struct Case {
    pub name: String,
    pub bytes: Arc<[u8]>,
    pub input: scaling::Input,
    pub limits: Limits,
    pub end: End,
}

/// A row of which nothing is said yet but that it answers zeros.
pub fn case(name: impl Into<String>, bytes: impl Into<Arc<[u8]>>) -> Case {
    Case {
        name: name.into(),
        bytes: bytes.into(),
        input: fixtures::input(2, 3),
        // Long enough that a busy machine does not end what is to end by itself.
        limits: fixtures::limits(8_000),
        end: End::Answers(Box::new(Answers { scale: Some(desired(0)), ..Answers::default() })),
    }
}

pub fn guest(name: &str, guest: Guest) -> Case {
    case(name, guest.bytes())
}

impl Case {
    /// Is not loaded, with the whole message.
    pub fn refused(self, kind: &'static str, message: impl Into<String>) -> Self {
        Self { end: End::Fails(Step::Load, kind, message.into()), ..self }
    }

    pub fn misfits(self, words: &str) -> Self {
        let message = format!("the component does not fit the contract stoker:policy@1.0.0: {words}");
        self.refused("contract", message)
    }

    pub fn not_compiled(self, words: &str) -> Self {
        self.refused("compile", format!("the component does not compile: {words}"))
    }

    /// A call fails; the message is what that call's step puts before `words`, and they.
    pub fn fails(self, step: Step, kind: &'static str, words: impl AsRef<str>) -> Self {
        let words = words.as_ref();
        let (kind, message) = match step {
            Step::Load => ("describe", format!("describe failed: {words}")),
            Step::Validate => (kind, format!("the config could not be checked: {words}")),
            _ => (kind, words.to_owned()),
        };
        Self { end: End::Fails(step, kind, message), ..self }
    }

    pub fn stops(self, step: Step, words: &str) -> Self {
        self.fails(step, "trap", format!("{} stopped: {words}", step.call()))
    }

    pub fn times_out(self, step: Step) -> Self {
        let words = match step {
            Step::Load => "describe took longer than 1s: make it faster".to_owned(),
            _ => format!(
                "{} took longer than 100ms: make it faster, or raise policy.limits.timeoutMilliseconds",
                step.call()
            ),
        };
        self.within(100).fails(step, "timeout", words)
    }

    pub fn needs_memory(self, step: Step) -> Self {
        let words = match step {
            Step::Load => "describe needs more than 64 MiB of memory: use less".to_owned(),
            _ => format!(
                "{} needs more than 32 MiB of memory: use less, or raise policy.limits.memoryMiB",
                step.call()
            ),
        };
        self.fails(step, "memory", words)
    }

    pub fn needs_tables(self, step: Step) -> Self {
        let call = step.call();
        self.fails(
            step,
            "tables",
            format!("{call} needs more than 200000 table elements: link less code into the component"),
        )
    }

    pub fn needs_stack(self, step: Step) -> Self {
        let call = step.call();
        self.fails(step, "stack", format!("{call} used up its stack of 512 KiB: bound its recursion"))
    }

    pub fn scales(self, decision: scaling::Decision) -> Self {
        self.answers(|answers| answers.scale = Some(decision))
    }

    pub fn classifies(self, verdicts: Vec<busyness::Verdict>) -> Self {
        self.answers(|answers| (answers.scale, answers.classify) = (None, Some(verdicts)))
    }

    pub fn leads(self, decision: warm_up::Decision) -> Self {
        self.answers(|answers| (answers.scale, answers.lead) = (None, Some(decision)))
    }

    pub fn logs(self, kept: usize, dropped: u32) -> Self {
        self.answers(|answers| answers.log = (kept, dropped))
    }

    pub fn within(self, milliseconds: u64) -> Self {
        Self { limits: fixtures::limits(milliseconds), ..self }
    }

    pub fn at(self, now: i64) -> Self {
        Self { input: scaling::Input { now, ..self.input }, ..self }
    }

    fn answers(mut self, say: impl FnOnce(&mut Answers)) -> Self {
        if let End::Answers(answers) = &mut self.end {
            say(answers);
        }
        self
    }

    /// Does all steps, up to the first that fails. What a policy answers, it answers twice.
    pub async fn run(&self, host: &PolicyHost) -> End {
        match self.steps(host).await {
            Ok(answers) => End::Answers(Box::new(answers)),
            Err((step, kind, message)) => End::Fails(step, kind, message),
        }
    }

    async fn steps(&self, host: &PolicyHost) -> Result<Answers, (Step, &'static str, String)> {
        let refused = |refusal: Refusal| (Step::Load, refusal.kind(), refusal.to_string());
        let policy = host.load_for("mallory", Arc::clone(&self.bytes)).await.map_err(refused)?;
        host.validate(&policy, "{}", self.limits).await.map_err(|refusal| {
            let kind = match &refusal {
                ConfigRefusal::Invalid(_) => "invalid",
                ConfigRefusal::Call(error) => error.kind(),
            };
            (Step::Validate, kind, refusal.to_string())
        })?;
        let failed = |step| move |error: CallError| (step, error.kind(), error.to_string());
        let (exports, mut answers) = (policy.exports(), Answers::default());
        if exports.scaling {
            let ask = || host.scale(&policy, self.limits, self.input.clone());
            let first = ask().await.map_err(failed(Step::Scale))?;
            let again = ask().await.map_err(failed(Step::Scale))?;
            assert_eq!((&first.value, &first.log), (&again.value, &again.log), "{}", self.name);
            answers.log = (first.log.len(), first.log_dropped);
            answers.scale = Some(first.value);
        }
        if exports.busyness {
            let ask = || host.classify(&policy, self.limits, pods());
            let first = ask().await.map_err(failed(Step::Classify))?.value;
            assert_eq!(first, ask().await.map_err(failed(Step::Classify))?.value, "{}", self.name);
            answers.classify = Some(first);
        }
        if exports.warm_up {
            let ask = || host.lead(&policy, self.limits, fixtures::warm_up_input());
            let first = ask().await.map_err(failed(Step::Lead))?.value;
            assert_eq!(first, ask().await.map_err(failed(Step::Lead))?.value, "{}", self.name);
            answers.lead = Some(first);
        }
        Ok(answers)
    }
}

/// The input of every `classify`: three pods.
pub const PODS: usize = 3;

fn pods() -> busyness::Input {
    busyness::Input {
        now: 1_700_000_000_123,
        pool: fixtures::pool(),
        config: "{}".into(),
        asks: None,
        pods: (0..PODS).map(|_| fixtures::evidence(busyness::VerdictState::Busy)).collect(),
        extensions: vec![],
    }
}

/// The answer of a guest that sets nothing but `desired`.
pub fn desired(desired: u32) -> scaling::Decision {
    scaling::Decision {
        desired,
        reason: String::new(),
        victims: vec![],
        wake_after: None,
        valid_until: None,
        state: vec![],
        extensions: vec![],
    }
}

/// A guest that only scales.
pub fn scale(body: impl Into<String>) -> Guest {
    Guest { scale: body.into().leak(), ..Guest::default() }
}

/// Where `classify` answers: a pointer to verdicts and their number, at first 3 verdicts of zeros.
pub const VERDICTS: u32 = 4096;
/// The first verdict; each has 48 bytes.
pub const VERDICT: u32 = 4352;

/// A guest that only classifies.
pub fn classify(body: impl AsRef<str>) -> Guest {
    let body = body.as_ref();
    let more = format!(
        r#"(func (export "stoker:policy/busyness@1.0.0#classify") (param $input i32) (result i32)
            {} {} {body} (i32.const {VERDICTS}))"#,
        set(VERDICTS, VERDICT),
        set(VERDICTS + 4, 3),
    );
    Guest { world: "include stoker:policy/busyness-policy@1.0.0;", more: more.leak(), ..Guest::default() }
}

/// Where `lead` answers.
pub const LEAD: u32 = 4096;

/// A guest that only leads.
pub fn lead(body: impl AsRef<str>) -> Guest {
    let body = body.as_ref();
    let more = format!(
        r#"(func (export "stoker:policy/warm-up@1.0.0#lead") (param $input i32) (result i32)
            {body} (i32.const {LEAD}))"#
    );
    Guest { world: "include stoker:policy/warm-up-policy@1.0.0;", more: more.leak(), ..Guest::default() }
}

/// Stores a number of 32 bits.
pub fn set(at: u32, value: u32) -> String {
    format!("(i32.store (i32.const {at}) (i32.const {value}))")
}

/// Stores a number of 64 bits.
pub fn set64(at: u32, value: u64) -> String {
    format!("(i64.store (i32.const {at}) (i64.const {value}))")
}

/// Stores a byte.
pub fn set8(at: u32, value: u8) -> String {
    format!("(i32.store8 (i32.const {at}) (i32.const {value}))")
}
