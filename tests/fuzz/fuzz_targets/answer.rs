//! Any answer: what passes the host's check keeps to the contract, word for word.
#![no_main]

#[path = "../src/host.rs"]
mod host;

use std::collections::HashSet;

use arbitrary::{Arbitrary, Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use stoker_policy::contract::{busyness, scaling, settings, types, warm_up};
use stoker_policy::fuzzing;

const HOUR: u64 = 3_600_000;

/// Numbers near the bounds, where mistakes live, and any others.
fn number(u: &mut Unstructured, bound: u64) -> Result<u64> {
    Ok(match u.int_in_range(0..=3)? {
        0 => bound,
        1 => bound.saturating_add(1),
        2 => u.int_in_range(0..=bound)?,
        _ => u64::arbitrary(u)?,
    })
}

/// A text of about that length.
fn text(u: &mut Unstructured, bound: usize) -> Result<String> {
    let letter = *u.choose(&["x", "é", "\u{1b}", "\n", "🚂"])?;
    let count = number(u, bound as u64)?.min(2 * bound as u64) as usize;
    Ok(letter.repeat(count / letter.len()))
}

fn extensions(u: &mut Unstructured) -> Result<types::Extensions> {
    let count = u.int_in_range(0..=34)?;
    (0..count).map(|_| Ok((text(u, 32)?, text(u, 1024)?))).collect()
}

fn printable(text: &str) -> bool {
    !text.contains(char::is_control)
}

fn scale(u: &mut Unstructured) -> Result<()> {
    let (busy, idle) = (u.int_in_range(0..=5)?, u.int_in_range(0..=5)?);
    let input = host::input(busy, idle);
    let mut answer = scaling::Decision {
        desired: number(u, 1_000_000)? as u32,
        reason: text(u, 1024)?,
        victims: (0..u.int_in_range(0..=6)?).map(|_| Ok(number(u, 10)? as u32)).collect::<Result<_>>()?,
        wake_after: if bool::arbitrary(u)? { Some(number(u, 24 * HOUR)?) } else { None },
        valid_until: Option::<i64>::arbitrary(u)?,
        state: vec![0; number(u, 4096)?.min(9000) as usize],
        extensions: extensions(u)?,
    };
    match fuzzing::scale(&mut answer, &input) {
        Ok(()) => {
            assert!(answer.desired <= 1_000_000 && answer.reason.len() <= 1024 && printable(&answer.reason));
            assert!(answer.wake_after.is_none_or(|w| (1000..=24 * HOUR).contains(&w)));
            assert!(answer.state.len() <= 4096 && answer.extensions.len() <= 32);
            let distinct: HashSet<u32> = answer.victims.iter().copied().collect();
            assert_eq!(distinct.len(), answer.victims.len());
            assert!(answer.victims.iter().all(|v| (busy..busy + idle).contains(v)));
        }
        Err(words) => assert!(words.starts_with("scale ")),
    }
    Ok(())
}

fn classify(u: &mut Unstructured) -> Result<()> {
    let pods = u.int_in_range(0..=4)?;
    let given = u.int_in_range(0..=4)?;
    let mut answer = Vec::new();
    for _ in 0..given {
        answer.push(busyness::Verdict {
            state: *u.choose(&[busyness::VerdictState::Busy, busyness::VerdictState::Idle])?,
            reason: text(u, 256)?,
            slots: Option::<(u32, u32)>::arbitrary(u)?,
            spent: bool::arbitrary(u)?,
            wake_after: if bool::arbitrary(u)? { Some(number(u, 24 * HOUR)?) } else { None },
        });
    }
    if fuzzing::classify(&mut answer, pods).is_ok() {
        assert_eq!(answer.len(), pods);
        for verdict in answer {
            assert!(verdict.reason.len() <= 256 && printable(&verdict.reason));
            assert!(verdict.slots.is_none_or(|(used, total)| used <= total));
            assert!(verdict.wake_after.is_none_or(|w| (1000..=24 * HOUR).contains(&w)));
        }
    }
    Ok(())
}

fn lead(u: &mut Unstructured) -> Result<()> {
    let mut answer = warm_up::Decision {
        lead: number(u, 24 * HOUR)?,
        reason: text(u, 1024)?,
        state: vec![0; number(u, 4096)?.min(9000) as usize],
        extensions: extensions(u)?,
    };
    if fuzzing::lead(&mut answer).is_ok() {
        assert!(answer.lead <= 24 * HOUR && answer.reason.len() <= 1024 && printable(&answer.reason));
        assert!(answer.state.len() <= 4096);
    }
    Ok(())
}

fn describe(u: &mut Unstructured) -> Result<()> {
    let keys = |u: &mut Unstructured| -> Result<Vec<String>> {
        (0..u.int_in_range(0..=17)?).map(|_| text(u, 317)).collect()
    };
    let mut info = settings::Info {
        name: text(u, 63)?,
        version: text(u, 63)?,
        summary: text(u, 256)?,
        config_schema: text(u, 64 << 10)?,
        wanted_labels: keys(u)?,
        wanted_annotations: keys(u)?,
    };
    if fuzzing::describe(&mut info).is_ok() {
        assert!((1..=63).contains(&info.name.len()) && info.version.len() <= 63 && info.summary.len() <= 256);
        assert!(printable(&info.name) && printable(&info.version) && printable(&info.summary));
        for keys in [&info.wanted_labels, &info.wanted_annotations] {
            assert!(keys.len() <= 16 && keys.iter().all(|key| (1..=317).contains(&key.len())));
        }
    }
    Ok(())
}

fn config_errors(u: &mut Unstructured) -> Result<()> {
    let errors: Vec<String> = (0..u.int_in_range(0..=20)?).map(|_| text(u, 512)).collect::<Result<_>>()?;
    let blank = |error: &String| error.chars().all(|c| c.is_control() || c.is_whitespace());
    let said = errors.iter().any(|error| !blank(error));
    match fuzzing::config_errors(errors) {
        Ok(kept) => {
            assert!(kept.len() <= 17 && kept.iter().all(|e| e.len() <= 512 && printable(e)));
        }
        Err(_) => assert!(!said),
    }
    Ok(())
}

fuzz_target!(|bytes: &[u8]| {
    let mut u = Unstructured::new(bytes);
    // An error means that the bytes ran out, which is no fault of the host's.
    let _ = match u.int_in_range(0..=4) {
        Ok(0) => scale(&mut u),
        Ok(1) => classify(&mut u),
        Ok(2) => lead(&mut u),
        Ok(3) => describe(&mut u),
        _ => config_errors(&mut u),
    };
});
