//! Checks answers against what the contract promises to everyone behind it: lengths, ranges,
//! positions. Each refusal is a sentence about the answer and the bound.

use crate::contract::{busyness, scaling, settings, types, warm_up};
use crate::log::{cut, printable};

const MAX_DESIRED: u32 = 1_000_000;
const MAX_REASON: usize = 1 << 10;
const MAX_VERDICT_REASON: usize = 256;
const MAX_STATE: usize = 4 << 10;
const MAX_EXTENSIONS: usize = 32;
const MAX_EXTENSION: usize = 1 << 10;
const MIN_WAKE_MS: u64 = 1_000;
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
const MAX_NAME: usize = 63;
const MAX_SUMMARY: usize = 256;
const MAX_SCHEMA: usize = 64 << 10;
const MAX_WANTED: usize = 16;
/// A label or annotation key: a DNS name, a slash and a name.
const MAX_KEY: usize = 253 + 1 + 63;
const MAX_CONFIG_ERRORS: usize = 16;
const MAX_CONFIG_ERROR: usize = 512;

type Checked = Result<(), String>;

pub(crate) fn info(info: &mut settings::Info) -> Checked {
    if info.name.is_empty() {
        return Err("describe answered with an empty name".into());
    }
    at_most("describe", "a name", info.name.len(), MAX_NAME)?;
    at_most("describe", "a version", info.version.len(), MAX_NAME)?;
    at_most("describe", "a summary", info.summary.len(), MAX_SUMMARY)?;
    at_most("describe", "a config-schema", info.config_schema.len(), MAX_SCHEMA)?;
    for (what, keys) in [("labels", &info.wanted_labels), ("annotations", &info.wanted_annotations)] {
        if keys.len() > MAX_WANTED {
            return Err(format!("describe wants {} {what}, at most {MAX_WANTED} are given", keys.len()));
        }
        if let Some(key) = keys.iter().find(|key| key.is_empty() || key.len() > MAX_KEY) {
            let length = key.len();
            return Err(format!(
                "describe wants {what} with a key of {length} bytes, 1 to {MAX_KEY} are allowed"
            ));
        }
    }
    [&mut info.name, &mut info.version, &mut info.summary].into_iter().for_each(printable);
    Ok(())
}

/// Bounds the errors of `validate`; too many or too long ones are shortened, not refused, for
/// whoever wrote the configuration needs to read them.
pub(crate) fn config_errors(errors: Vec<String>) -> Result<Vec<String>, String> {
    let errors: Vec<_> = errors.iter().map(|error| error.trim()).filter(|error| !error.is_empty()).collect();
    if errors.is_empty() {
        return Err("validate refused the config without saying why".into());
    }
    let more = errors.len().saturating_sub(MAX_CONFIG_ERRORS);
    let mut kept: Vec<String> = errors
        .iter()
        .take(MAX_CONFIG_ERRORS)
        .map(|error| {
            let mut error = cut(error, MAX_CONFIG_ERROR).to_owned();
            printable(&mut error);
            error
        })
        .collect();
    if more > 0 {
        kept.push(format!("and {more} more"));
    }
    Ok(kept)
}

pub(crate) fn scale(answer: &mut scaling::Decision, input: &scaling::Input) -> Checked {
    if answer.desired > MAX_DESIRED {
        let desired = answer.desired;
        return Err(format!("scale answered desired {desired}, at most {MAX_DESIRED} is allowed"));
    }
    common("scale", &mut answer.reason, &answer.state, &answer.extensions)?;
    wake("scale", answer.wake_after)?;
    victims(&answer.victims, &input.pods)
}

fn victims(victims: &[u32], pods: &[scaling::Pod]) -> Checked {
    let mut named = vec![false; if victims.is_empty() { 0 } else { pods.len() }];
    for victim in victims {
        let index = usize::try_from(*victim).unwrap_or(usize::MAX);
        let Some(pod) = pods.get(index) else {
            return Err(format!("scale named victim {victim}, but there are {} pods", pods.len()));
        };
        if pod.state != types::PodState::Idle {
            let state = state_name(pod.state);
            return Err(format!(
                "scale named victim {victim}, which is {state}; only idle pods may be named"
            ));
        }
        if std::mem::replace(&mut named[index], true) {
            return Err(format!("scale named victim {victim} twice"));
        }
    }
    Ok(())
}

/// As the contract spells it.
fn state_name(state: types::PodState) -> &'static str {
    match state {
        types::PodState::Starting => "starting",
        types::PodState::Idle => "idle",
        types::PodState::Busy => "busy",
        types::PodState::Claimed => "claimed",
        types::PodState::Unknown => "unknown",
        types::PodState::Terminating => "terminating",
        types::PodState::Failed => "failed",
    }
}

pub(crate) fn classify(answer: &mut [busyness::Verdict], pods: usize) -> Checked {
    if answer.len() != pods {
        return Err(format!("classify gave {} verdicts for {pods} pods", answer.len()));
    }
    for (index, verdict) in answer.iter_mut().enumerate() {
        at_most("classify", "a reason", verdict.reason.len(), MAX_VERDICT_REASON)?;
        printable(&mut verdict.reason);
        wake("classify", verdict.wake_after)?;
        if let Some((used, total)) = verdict.slots
            && used > total
        {
            return Err(format!("classify gave pod {index} {used} used slots of {total}"));
        }
    }
    Ok(())
}

pub(crate) fn lead(answer: &mut warm_up::Decision) -> Checked {
    if answer.lead > DAY_MS {
        return Err(format!("lead answered {} ms, at most {DAY_MS} is allowed", answer.lead));
    }
    common("lead", &mut answer.reason, &answer.state, &answer.extensions)
}

fn common(call: &str, reason: &mut String, state: &[u8], extensions: &types::Extensions) -> Checked {
    at_most(call, "a reason", reason.len(), MAX_REASON)?;
    printable(reason);
    at_most(call, "state", state.len(), MAX_STATE)?;
    if extensions.len() > MAX_EXTENSIONS {
        return Err(format!(
            "{call} answered {} extensions, at most {MAX_EXTENSIONS} are allowed",
            extensions.len()
        ));
    }
    extensions
        .iter()
        .try_for_each(|(name, value)| at_most(call, "an extension", name.len() + value.len(), MAX_EXTENSION))
}

fn wake(call: &str, after: Option<u64>) -> Checked {
    match after {
        Some(wake) if !(MIN_WAKE_MS..=DAY_MS).contains(&wake) => {
            Err(format!("{call} answered wake-after {wake} ms, {MIN_WAKE_MS} to {DAY_MS} are allowed"))
        }
        _ => Ok(()),
    }
}

fn at_most(call: &str, what: &str, bytes: usize, max: usize) -> Checked {
    if bytes <= max {
        return Ok(());
    }
    Err(format!("{call} answered with {what} of {bytes} bytes, at most {max} are allowed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_a_config_are_shortened() {
        let errors = config_errors(vec!["é".repeat(400); 20]).unwrap();
        assert_eq!((errors.len(), errors[0].len(), errors[16].as_str()), (17, 512, "and 4 more"));
        assert!(config_errors(vec![" ".into()]).unwrap_err().contains("without saying why"));
        assert!(config_errors(vec![]).unwrap_err().contains("without saying why"));
    }

    #[test]
    fn an_escape_sequence_is_taken_out_of_a_reason() {
        let mut answer =
            warm_up::Decision { lead: 1, reason: "\u{1b}[2Jgone".into(), state: vec![], extensions: vec![] };
        assert_eq!(lead(&mut answer), Ok(()));
        assert_eq!(answer.reason, " [2Jgone");
    }
}
