//! The rule: the expression's value, rounded up, within the bounds. A value that is no number of replicas is
//! a failure, and not zero: the host then holds the last good target, and says why.

use std::sync::Arc;

use cel::{Context, Env, ExecutionError, Value};

use crate::check::Expression;
use crate::numbers;
use crate::pool::Pool;

/// Bytes of the expression that a reason repeats; a reason has at most 1 KiB.
const SHOWN: usize = 400;
/// Bytes of the variables' values.
const VALUES: usize = 400;
/// 14.3 % of 1000 is 143.00000000000003 in binary; that must not become 144.
const ROUNDING_ERROR: f64 = 1e-6;

/// How many replicas, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub desired: u32,
    pub reason: String,
    /// In milliseconds: when a variable changes even though nothing happens.
    pub wake_after: Option<u64>,
}

/// Decides for one pool.
///
/// # Errors
/// Words that say why the expression has no value now.
pub fn decide(expression: &Expression, pool: &Pool) -> Result<Answer, String> {
    let value = evaluate(expression, pool)?;
    // A cast from f64 saturates, and the value is not negative.
    let wanted = value as u32;
    let mut reason = format!(
        "{wanted} by {}, with {}",
        shortened(expression.text(), SHOWN),
        shortened(&pool.values(expression), VALUES)
    );
    let desired = wanted.max(pool.minimum).min(pool.maximum);
    if desired < wanted {
        reason += &format!(", cut to the maximum {desired}");
    } else if desired > wanted {
        reason += &format!(", raised to the minimum {desired}");
    }
    let wake_after = pool.changes_after(expression).map(|seconds| seconds * 1000);
    Ok(Answer { desired, reason, wake_after })
}

/// The expression's value, rounded up; 0 or more, and finite.
///
/// # Errors
/// Words that say why there is none.
pub fn evaluate(expression: &Expression, pool: &Pool) -> Result<f64, String> {
    let mut context = Context::with_env(Arc::new(Env::stdlib()));
    numbers::add_to(&mut context)?;
    pool.bind(&mut context);
    let value = match Value::resolve(expression.tree(), &context).map_err(|error| words(&error))? {
        Value::Int(number) => number as f64,
        Value::UInt(number) => number as f64,
        Value::Float(number) => number,
        other => return Err(format!("the result is {}, not a number", numbers::kind(&other))),
    };
    if value.is_nan() {
        Err("the result is not a number (NaN)".to_owned())
    } else if value.is_infinite() {
        Err("the result is infinite".to_owned())
    } else if value < -ROUNDING_ERROR {
        Err(format!("the result {value} is negative; write max(0, …)"))
    } else {
        // The sum turns -0 into 0.
        Ok((value - ROUNDING_ERROR).ceil() + 0.0)
    }
}

fn words(error: &ExecutionError) -> String {
    match error {
        ExecutionError::FunctionError { function, message } if function.is_empty() => message.clone(),
        ExecutionError::FunctionError { function, message } => format!("{function}: {message}"),
        ExecutionError::NoSuchKey(key) => {
            format!("{:?} has no value now; write has(signals.NAME) ? … : …", shortened(key, 60))
        }
        other => shortened(&other.to_string(), 200),
    }
}

fn shortened(text: &str, bytes: usize) -> String {
    let short = &text[..text.floor_char_boundary(bytes)];
    if short.len() < text.len() { format!("{short}…") } else { short.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::sample;

    fn decided(expression: &str, pool: &Pool) -> (u32, String) {
        let answer = decide(&Expression::new(expression).unwrap(), pool).unwrap();
        (answer.desired, answer.reason)
    }

    fn value(expression: &str) -> Result<f64, String> {
        evaluate(&Expression::new(expression)?, &Pool { signals: vec![("queue".into(), 12.0)], ..sample() })
    }

    #[test]
    fn the_share_of_the_busy_pods_or_the_idle_target_stays_idle() {
        let expression = "busy + max(idleTarget, int(busy * 0.2))";
        let reason = "15 by busy + max(idleTarget, int(busy * 0.2)), with busy 10, idleTarget 5".to_owned();
        assert_eq!(decided(expression, &sample()), (15, reason));
        assert_eq!(decided(expression, &Pool { busy: 50, ..sample() }).0, 60);
        assert_eq!(decided(expression, &Pool { busy: 0, ..sample() }).0, 5);
    }

    #[test]
    fn expressions_have_the_values_that_people_expect() {
        for (expression, expected) in [
            ("7", 7.0),
            ("busy * 1.5", 15.0),
            ("1.5 * busy", 15.0),
            ("busy / 4", 3.0),
            ("ceil(busy / 4) + floor(busy / 4)", 5.0),
            ("busy * 0.143 * 100", 143.0),
            ("0.1 + 0.2 - 0.3", 0.0),
            ("busy > 5 && hour >= 8 ? 20 : idleTarget", 20.0),
            ("busy > 9.5 ? 1 : 0", 1.0),
            ("max(busy, 3.5, idle) + min([busy, 3])", 13.0),
            ("[1, 2, 3, 4, 5, 6, 7][weekday]", 3.0),
            ("signals.queue / 5 + signals[\"queue\"]", 15.0),
            ("has(signals.jobs) ? signals.jobs : 4", 4.0),
            ("[busy, idle].map(x, x * 2)[0]", 20.0),
            ("max([busy, idle].filter(x, x > 7).map(x, x + 1))", 11.0),
            ("[busy, idle].exists_one(x, x > 7) ? 1 : 2", 1.0),
            ("size([1, 2]) + busy % 3", 3.0),
            ("waiting + startupP50Seconds + oldestWaitSeconds", 8.0),
            ("-idle + busy", 5.0),
            ("int(\"5\") + 3u", 8.0),
        ] {
            assert_eq!(value(expression), Ok(expected), "{expression}");
        }
    }

    #[test]
    fn what_is_no_number_of_replicas_is_a_failure() {
        for (expression, words) in [
            ("busy > 3", "the result is true or false, not a number"),
            ("idle - busy", "the result -5 is negative; write max(0, …)"),
            ("busy * -0.01", "the result -0.1 is negative; write max(0, …)"),
            ("1e308 * 10", "the result is infinite"),
            ("1e308 * 10 - 1e308 * 10", "the result is not a number (NaN)"),
            ("busy / (idle - 5)", "division by zero"),
            ("9223372036854775807 + 1", "a number became too large"),
            ("signals.jobs", "\"jobs\" has no value now; write has(signals.NAME) ? … : …"),
            ("busy + \"a\"", "+ needs numbers, found a text"),
            ("[1, 2][7]", "Index out of bounds: Int(7)"),
        ] {
            assert_eq!(value(expression), Err(words.to_owned()), "{expression}");
        }
    }

    #[test]
    fn the_bounds_hold_and_the_reason_says_so() {
        let cut = (100, "1000 by 1000, with no variables, cut to the maximum 100".to_owned());
        assert_eq!(decided("1000", &sample()), cut);
        let raised = (1, "0 by 0, with no variables, raised to the minimum 1".to_owned());
        assert_eq!(decided("0", &sample()), raised);
        assert_eq!(decided("1e300", &sample()).0, 100);
    }

    #[test]
    fn a_decision_by_the_clock_is_made_again_when_it_changes() {
        let wake =
            |expression: &str| decide(&Expression::new(expression).unwrap(), &sample()).unwrap().wake_after;
        assert_eq!(wake("hour < 8 ? 1 : 5"), Some(2_800_000));
        assert_eq!(wake("busy"), None);
    }

    #[test]
    fn reasons_are_within_the_contract() {
        let name = "€".repeat(120);
        let sum = vec![format!("signals[\"{name}\"]"); 8].join(" + ");
        let pool = Pool { signals: vec![(name, 1e300)], ..sample() };
        let (_, reason) = decided(&sum, &pool);
        assert!(reason.len() <= 1024, "{} bytes", reason.len());
    }
}
