//! From text to an expression that may be evaluated: within its bounds, well formed, and using nothing that
//! does not exist. What is wrong is told with its column.

use std::collections::BTreeSet;

use cel::common::ast::{EntryExpr, Expr, IdedExpr, LiteralValue};
use cel::parser::{ParseErrors, PrattParser};

use crate::bounds::{self, place, position};
use crate::numbers::{FUNCTIONS, OPERATORS};
use crate::pool::{SIGNALS, VARIABLES};

/// CEL's own functions that an expression may call, as `size(x)` or `x.startsWith(y)`.
const CEL_FUNCTIONS: [&str; 7] = ["int", "double", "size", "string", "contains", "startsWith", "endsWith"];
/// CEL's macros: the parser has replaced them, save where they are called in a wrong way.
const MACROS: [(&str, &str); 6] = [
    ("has", "has(signals.queue)"),
    ("all", "list.all(x, x > 0)"),
    ("exists", "list.exists(x, x > 0)"),
    ("exists_one", "list.exists_one(x, x > 0)"),
    ("map", "list.map(x, x * 2)"),
    ("filter", "list.filter(x, x > 0)"),
];
/// What the parser's own variables begin with; nobody can write them.
const INTERNAL: char = '@';
/// Characters that an error quotes.
const QUOTED: usize = 40;

/// An expression that can be evaluated.
#[derive(Clone, Debug)]
pub struct Expression {
    text: String,
    tree: IdedExpr,
    uses: BTreeSet<String>,
    signals: Vec<String>,
}

impl Expression {
    /// Compiles an expression.
    ///
    /// # Errors
    /// A sentence that says what is wrong, at which column, and what there is.
    pub fn new(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Err("the expression is empty; write for example busy + idleTarget".to_owned());
        }
        bounds::check(text)?;
        let mut tree = PrattParser::default().parse(text).map_err(|errors| syntax(text, &errors))?;
        let mut check = Check { text, scope: Vec::new(), uses: BTreeSet::new(), signals: BTreeSet::new() };
        check.visit(&mut tree)?;
        let Check { uses, signals, .. } = check;
        Ok(Self { text: text.to_owned(), tree, uses, signals: signals.into_iter().collect() })
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn tree(&self) -> &IdedExpr {
        &self.tree
    }

    /// Whether it uses the variable.
    pub fn uses(&self, variable: &str) -> bool {
        self.uses.contains(variable)
    }

    /// The signals that it names.
    pub fn signals(&self) -> &[String] {
        &self.signals
    }
}

/// A walk through the tree, which replaces operators as it goes.
struct Check<'a> {
    text: &'a str,
    /// Variables of macros, such as `x` in `list.map(x, x * 2)`.
    scope: Vec<String>,
    uses: BTreeSet<String>,
    signals: BTreeSet<String>,
}

impl Check<'_> {
    fn visit(&mut self, node: &mut IdedExpr) -> Result<(), String> {
        match &mut node.expr {
            Expr::Ident(name) => self.variable(name),
            Expr::Select(select) => {
                self.note_signal(&select.operand, Some(&select.field));
                self.visit(&mut select.operand)
            }
            Expr::Call(call) => {
                if let [map, key] = &call.args[..] {
                    let key = match &key.expr {
                        Expr::Literal(LiteralValue::String(key)) => Some(key.inner().to_owned()),
                        _ => None,
                    };
                    if call.func_name == "_[_]" {
                        self.note_signal(map, key.as_deref());
                    }
                }
                let member = call.target.is_some();
                for part in call.target.as_deref_mut().into_iter().chain(&mut call.args) {
                    self.visit(part)?;
                }
                // The lists that macros build are not numbers, and stay as they are.
                let builds = call.args.first().is_some_and(
                    |first| matches!(&first.expr, Expr::Ident(name) if name.starts_with(INTERNAL)),
                );
                match OPERATORS.iter().find(|(operator, _)| *operator == call.func_name) {
                    Some((_, function)) if !builds => call.func_name = (*function).to_owned(),
                    Some(_) => {}
                    None => self.function(&call.func_name, member)?,
                }
                Ok(())
            }
            Expr::Comprehension(parts) => {
                self.visit(&mut parts.iter_range)?;
                self.visit(&mut parts.accu_init)?;
                let outer = self.scope.len();
                self.scope.push(parts.iter_var.clone());
                self.scope.extend(parts.iter_var2.clone());
                self.visit(&mut parts.loop_cond)?;
                self.visit(&mut parts.loop_step)?;
                self.visit(&mut parts.result)?;
                self.scope.truncate(outer);
                Ok(())
            }
            Expr::List(list) => list.elements.iter_mut().try_for_each(|element| self.visit(element)),
            Expr::Map(map) => map.entries.iter_mut().try_for_each(|entry| match &mut entry.expr {
                EntryExpr::MapEntry(entry) => {
                    self.visit(&mut entry.key)?;
                    self.visit(&mut entry.value)
                }
                EntryExpr::StructField(field) => self.visit(&mut field.value),
            }),
            Expr::Literal(_) => Ok(()),
            Expr::Struct(of_type) => Err(format!(
                "{}: there are no types such as {}; write a number or a call",
                self.place(&of_type.type_name),
                quoted(&of_type.type_name)
            )),
            Expr::Unspecified => Err("a part of the expression is not understood".to_owned()),
        }
    }

    fn variable(&mut self, name: &str) -> Result<(), String> {
        if name.starts_with(INTERNAL) || self.scope.iter().any(|inner| inner == name) {
            return Ok(());
        }
        if name == SIGNALS || VARIABLES.contains(&name) {
            self.uses.insert(name.to_owned());
            return Ok(());
        }
        Err(format!(
            "{}: unknown variable {}; there are {} and {SIGNALS}",
            self.place(name),
            quoted(name),
            VARIABLES.join(", ")
        ))
    }

    fn function(&self, name: &str, member: bool) -> Result<(), String> {
        // Operators that are not arithmetic have names like `_&&_` and `!_`.
        let known = !name.starts_with(|first: char| first.is_alphabetic())
            || CEL_FUNCTIONS.contains(&name)
            || FUNCTIONS.contains(&name) && !member;
        if known {
            return Ok(());
        }
        let place = self.place(name);
        if let Some((_, usage)) = MACROS.iter().find(|(known, _)| *known == name) {
            return Err(format!("{place}: {name} is written as {usage}"));
        }
        if FUNCTIONS.contains(&name) {
            return Err(format!("{place}: {name} stands before what it takes, as {name}(busy)"));
        }
        Err(format!(
            "{place}: unknown function {}; there are {}, {}, {}",
            quoted(name),
            FUNCTIONS.join(", "),
            CEL_FUNCTIONS.join(", "),
            MACROS.map(|(name, _)| name).join(", ")
        ))
    }

    fn place(&self, name: &str) -> String {
        place(self.text, bounds::find(self.text, name))
    }

    fn note_signal(&mut self, map: &IdedExpr, name: Option<&str>) {
        if let (Expr::Ident(variable), Some(name)) = (&map.expr, name)
            && variable == SIGNALS
        {
            self.signals.insert(name.to_owned());
        }
    }
}

/// The parser's first error, without the list of everything that it could have gone on with.
fn syntax(text: &str, errors: &ParseErrors) -> String {
    let Some(error) = errors.errors.first() else {
        return "the expression is not understood".to_owned();
    };
    let words = error.msg.strip_prefix("Syntax error: ").unwrap_or(&error.msg);
    let (words, _) = words.split_once(" expecting ").unwrap_or((words, ""));
    let found =
        words.split_once('\'').and_then(|(_, rest)| rest.rsplit_once('\'')).map(|(found, _)| found.trim());
    let words = match found {
        Some("<EOF>") => "the expression ends too early".to_owned(),
        Some("=") => "unexpected \"=\"; to compare write ==".to_owned(),
        Some(found) if words.contains("input") || words.starts_with("token") => {
            format!("unexpected {}", quoted(found))
        }
        _ => shortened(words, 200),
    };
    match error.pos {
        (1.., 1..) => {
            format!("{}: {words}", position(text, error.pos.0.unsigned_abs(), error.pos.1.unsigned_abs()))
        }
        _ => words,
    }
}

fn quoted(text: &str) -> String {
    format!("{:?}", shortened(text, QUOTED))
}

fn shortened(text: &str, letters: usize) -> String {
    let mut short: String = text.chars().take(letters).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        Expression::new(text).unwrap_err()
    }

    #[test]
    fn unknown_names_are_told_with_their_column_and_what_there_is() {
        assert_eq!(
            error("busy + bussy"),
            "column 8: unknown variable \"bussy\"; there are busy, claimed, waiting, idle, starting, ready, \
             current, unknown, terminating, unschedulable, failed, misses, oldestWaitSeconds, idleTarget, \
             minReplicas, maxReplicas, startupP50Seconds, startupP90Seconds, startupP99Seconds, hour, minute, \
             weekday and signals"
        );
        assert_eq!(
            error("busy + maximum(1, 2)"),
            "column 8: unknown function \"maximum\"; there are max, min, ceil, floor, round, abs, int, double, \
             size, string, contains, startsWith, endsWith, has, all, exists, exists_one, map, filter"
        );
        assert!(error("\"é\" == \"é\" ? 1 : nope").starts_with("column 18: unknown variable \"nope\""));
        assert!(error("busy +\n  nope").starts_with("line 2, column 3: unknown variable"));
        assert!(error("@result").starts_with("column 1: unexpected character"));
    }

    #[test]
    fn syntax_errors_are_told_with_their_column() {
        for (text, words) in [
            ("busy +", "column 7: the expression ends too early"),
            ("max(1,", "column 7: the expression ends too early"),
            ("busy busy", "column 6: unexpected \"busy\""),
            ("busy = 2", "column 6: unexpected \"=\"; to compare write =="),
            ("busy + $", "column 8: unexpected character"),
            ("", "the expression is empty; write for example busy + idleTarget"),
            ("Pool{busy: 1}", "column 1: there are no types such as \"Pool\"; write a number or a call"),
            ("has(busy)", "column 5: invalid argument to has() macro"),
            ("[1].map(2)", "column 5: map is written as list.map(x, x * 2)"),
            ("busy.max(3)", "column 6: max stands before what it takes, as max(busy)"),
        ] {
            assert_eq!(error(text), words, "{text}");
        }
    }

    #[test]
    fn the_variables_and_signals_that_are_used_are_known() {
        let expression =
            Expression::new("busy + signals.queue + signals[\"jobs/s\"] + [1].map(x, x + idle)[0]").unwrap();
        assert!(["busy", "idle", "signals"].iter().all(|name| expression.uses(name)));
        assert!(!expression.uses("x") && !expression.uses("claimed"));
        assert_eq!(expression.signals(), ["jobs/s", "queue"]);
    }
}
