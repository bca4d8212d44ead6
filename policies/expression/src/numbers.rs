//! Arithmetic in expressions. CEL refuses to mix whole and broken numbers, and cuts the quotient of whole
//! ones; here they mix, and a quotient is exact. Whole results stay whole, so they can be counted with.

use cel::extractors::Arguments;
use cel::{Context, ExecutionError, Value};

/// Arithmetic operators, and the functions that stand in for them.
pub const OPERATORS: [(&str, &str); 5] =
    [("_+_", "@add"), ("_-_", "@subtract"), ("_*_", "@multiply"), ("_/_", "@divide"), ("_%_", "@remainder")];

/// Functions that an expression may call, besides CEL's own.
pub const FUNCTIONS: [&str; 6] = ["max", "min", "ceil", "floor", "round", "abs"];

type Answer = Result<Value, ExecutionError>;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Number {
    Whole(i64),
    Broken(f64),
}
use Number::{Broken, Whole};

impl Number {
    fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Int(number) => Some(Whole(*number)),
            Value::UInt(number) => Some(i64::try_from(*number).map_or(Broken(*number as f64), Whole)),
            Value::Float(number) => Some(Broken(*number)),
            _ => None,
        }
    }

    fn float(self) -> f64 {
        match self {
            // Counts are far below 2^53, up to which this is exact.
            Whole(number) => number as f64,
            Broken(number) => number,
        }
    }
}

impl From<Number> for Value {
    fn from(number: Number) -> Self {
        match number {
            Whole(number) => Self::Int(number),
            Broken(number) => Self::Float(number),
        }
    }
}

/// Adds the operators and functions.
pub fn add_to(context: &mut Context<'_, '_>) -> Result<(), String> {
    let failed = |error: cel::DeclarationError| error.to_string();
    context.add_function("@add", |Arguments(args)| add(&args)).map_err(failed)?;
    context.add_function("@subtract", |Arguments(args)| subtract(&args)).map_err(failed)?;
    context.add_function("@multiply", |Arguments(args)| multiply(&args)).map_err(failed)?;
    context.add_function("@divide", |Arguments(args)| divide(&args)).map_err(failed)?;
    context.add_function("@remainder", |Arguments(args)| remainder(&args)).map_err(failed)?;
    context.add_function("max", |Arguments(args)| extreme("max", &args, f64::gt)).map_err(failed)?;
    context.add_function("min", |Arguments(args)| extreme("min", &args, f64::lt)).map_err(failed)?;
    context.add_function("ceil", |Arguments(args)| rounded("ceil", &args, f64::ceil)).map_err(failed)?;
    context.add_function("floor", |Arguments(args)| rounded("floor", &args, f64::floor)).map_err(failed)?;
    context.add_function("round", |Arguments(args)| rounded("round", &args, f64::round)).map_err(failed)?;
    context.add_function("abs", |Arguments(args)| abs(&args)).map_err(failed)
}

fn add(args: &[Value]) -> Answer {
    match two("+", args)? {
        (Whole(a), Whole(b)) => whole(a.checked_add(b)),
        (a, b) => Ok(Broken(a.float() + b.float()).into()),
    }
}

fn subtract(args: &[Value]) -> Answer {
    match two("-", args)? {
        (Whole(a), Whole(b)) => whole(a.checked_sub(b)),
        (a, b) => Ok(Broken(a.float() - b.float()).into()),
    }
}

fn multiply(args: &[Value]) -> Answer {
    match two("*", args)? {
        (Whole(a), Whole(b)) => whole(a.checked_mul(b)),
        (a, b) => Ok(Broken(a.float() * b.float()).into()),
    }
}

fn divide(args: &[Value]) -> Answer {
    match two("/", args)? {
        (_, b) if b.float() == 0.0 => Err(failure("division by zero")),
        (Whole(a), Whole(b)) if a.checked_rem(b) == Some(0) => whole(a.checked_div(b)),
        (a, b) => Ok(Broken(a.float() / b.float()).into()),
    }
}

fn remainder(args: &[Value]) -> Answer {
    match two("%", args)? {
        (_, b) if b.float() == 0.0 => Err(failure("remainder by zero")),
        (Whole(a), Whole(b)) => whole(a.checked_rem(b)),
        (a, b) => Ok(Broken(a.float() % b.float()).into()),
    }
}

/// The argument, or element of a list as the only argument, that beats all others.
fn extreme(name: &str, args: &[Value], beats: fn(&f64, &f64) -> bool) -> Answer {
    let values = match args {
        [Value::List(list)] => list,
        _ => args,
    };
    let mut best: Option<Number> = None;
    for value in values {
        let number = number(name, value)?;
        if best.is_none_or(|best| beats(&number.float(), &best.float())) {
            best = Some(number);
        }
    }
    best.map(Value::from).ok_or_else(|| failure(&format!("{name} needs at least one number")))
}

/// The nearest whole number in a direction.
fn rounded(name: &str, args: &[Value], round: fn(f64) -> f64) -> Answer {
    match one(name, args)? {
        Whole(number) => Ok(Value::Int(number)),
        Broken(number) => {
            let rounded = round(number);
            // A cast from f64 saturates, and makes NaN zero; neither is an answer.
            if rounded.abs() < i64::MAX as f64 {
                Ok(Value::Int(rounded as i64))
            } else {
                Err(failure(&format!("{name}({number}) is not a whole number that can be counted with")))
            }
        }
    }
}

fn abs(args: &[Value]) -> Answer {
    match one("abs", args)? {
        Whole(number) => whole(number.checked_abs()),
        Broken(number) => Ok(Broken(number.abs()).into()),
    }
}

fn one(name: &str, args: &[Value]) -> Result<Number, ExecutionError> {
    match args {
        [value] => number(name, value),
        _ => Err(failure(&format!("{name} takes one number, found {}", args.len()))),
    }
}

fn two(name: &str, args: &[Value]) -> Result<(Number, Number), ExecutionError> {
    match args {
        [a, b] => Ok((number(name, a)?, number(name, b)?)),
        // The parser gives an operator its two sides.
        _ => Err(failure(&format!("{name} takes two numbers, found {}", args.len()))),
    }
}

fn number(name: &str, value: &Value) -> Result<Number, ExecutionError> {
    Number::of(value).ok_or_else(|| failure(&format!("{name} needs numbers, found {}", kind(value))))
}

fn whole(number: Option<i64>) -> Answer {
    number.map(Value::Int).ok_or_else(|| failure("a number became too large"))
}

fn failure(words: &str) -> ExecutionError {
    ExecutionError::FunctionError { function: String::new(), message: words.to_owned() }
}

/// What a value is, in words.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Int(_) | Value::UInt(_) | Value::Float(_) => "a number",
        Value::Bool(_) => "true or false",
        Value::String(_) => "a text",
        Value::List(_) => "a list",
        Value::Map(_) => "a map",
        Value::Null => "null",
        _ => "something else",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(answer: Answer) -> String {
        match answer {
            Ok(value) => format!("{value:?}"),
            Err(ExecutionError::FunctionError { message, .. }) => message,
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn whole_numbers_stay_whole_and_mix_with_broken_ones() {
        let (three, two, half) = (Value::Int(3), Value::Int(2), Value::Float(0.5));
        for (answer, expected) in [
            (add(&[three.clone(), two.clone()]), "Int(5)"),
            (add(&[three.clone(), half.clone()]), "Float(3.5)"),
            (subtract(&[two.clone(), three.clone()]), "Int(-1)"),
            (multiply(&[half.clone(), three.clone()]), "Float(1.5)"),
            (divide(&[three.clone(), two.clone()]), "Float(1.5)"),
            (divide(&[Value::Int(6), two.clone()]), "Int(3)"),
            (remainder(&[three.clone(), two.clone()]), "Int(1)"),
            (remainder(&[three.clone(), half.clone()]), "Float(0.0)"),
            (extreme("max", &[half.clone(), three.clone(), two.clone()], f64::gt), "Int(3)"),
            (extreme("min", &[Value::List(vec![two, half].into())], f64::lt), "Float(0.5)"),
            (rounded("ceil", &[Value::Float(2.1)], f64::ceil), "Int(3)"),
            (abs(&[Value::Int(-3)]), "Int(3)"),
        ] {
            assert_eq!(words(answer), expected);
        }
    }

    #[test]
    fn what_has_no_answer_is_told() {
        for (answer, expected) in [
            (divide(&[Value::Int(1), Value::Int(0)]), "division by zero"),
            (divide(&[Value::Int(1), Value::Float(0.0)]), "division by zero"),
            (remainder(&[Value::Int(1), Value::Int(0)]), "remainder by zero"),
            (add(&[Value::Int(i64::MAX), Value::Int(1)]), "a number became too large"),
            (divide(&[Value::Int(i64::MIN), Value::Int(-1)]), "Float(9.223372036854776e18)"),
            (add(&[Value::Int(1), Value::Bool(true)]), "+ needs numbers, found true or false"),
            (extreme("max", &[], f64::gt), "max needs at least one number"),
            (
                rounded("ceil", &[Value::Float(f64::NAN)], f64::ceil),
                "ceil(NaN) is not a whole number that can be counted with",
            ),
        ] {
            assert_eq!(words(answer), expected);
        }
    }
}
