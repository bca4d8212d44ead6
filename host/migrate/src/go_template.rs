//! The pod template of the batch-job-controller is a text of Go's template language, filled in before it is read as YAML.
//! Stoker's templates are YAML, in whose texts `${NODE_NAME}`, `${NAMESPACE}` and `${EXECUTION_ID}` stand for what they say.

use crate::notes::Notes;

/// What can be filled in, and what Stoker calls it.
const KNOWN: [(&str, &str); 3] =
    [("Namespace", "NAMESPACE"), ("ExecutionID", "EXECUTION_ID"), ("NodeName", "NODE_NAME")];

/// Rewrites what is filled in. None = something is not for Stoker, and the notes tell what.
pub(crate) fn rewrite(text: &str, path: &str, notes: &mut Notes) -> Option<String> {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    let (mut trim, mut filled, mut whole) = (false, 0, true);
    while let Some(at) = rest.find("{{") {
        let (before, from) = rest.split_at(at);
        let line = text[..text.len() - from.len()].matches('\n').count() + 1;
        let before = if trim { before.trim_start() } else { before };
        let Some(end) = end_of_action(&from[2..]) else {
            notes.problem(path, format!("line {line}: {{{{ is not closed: give the }}}}"));
            return None;
        };
        let (action, after) = (&from[2..2 + end], &from[2 + end + 2..]);
        let (trims_before, action) =
            match action.strip_prefix('-').filter(|rest| rest.starts_with([' ', '\n', '\t'])) {
                Some(action) => (true, action),
                None => (false, action),
            };
        let (trims_after, action) =
            match action.strip_suffix('-').filter(|rest| rest.ends_with([' ', '\n', '\t'])) {
                Some(action) => (true, action),
                None => (false, action),
            };
        out.push_str(&escaped(if trims_before { before.trim_end() } else { before }));
        match value_of(action.trim()) {
            Some(value) if value.starts_with("${") && out.ends_with('$') => {
                notes.problem(
                    path,
                    format!("line {line}: a $ right before {{{{{action}}}}} cannot be carried: part them"),
                );
                whole = false;
            }
            Some(value) => {
                filled += usize::from(value.contains("${"));
                out.push_str(&value);
            }
            None if whole => {
                notes.problem(
                    path,
                    format!(
                        "line {line}: {{{{{action}}}}} cannot be carried: only .Namespace, .NodeName and .ExecutionID are \
                         filled in. Decide such things in the container, by its environment variables NAMESPACE, \
                         NODE_NAME and EXECUTION_ID"
                    ),
                );
                whole = false;
            }
            None => notes.problem(path, format!("line {line}: {{{{{action}}}}} cannot, either")),
        }
        (rest, trim) = (after, trims_after);
    }
    out.push_str(&escaped(if trim { rest.trim_start() } else { rest }));
    if filled > 0 {
        notes.change(format!(
            "{path}: {{{{ .NodeName }}}} and the like are ${{NODE_NAME}}, ${{NAMESPACE}} and ${{EXECUTION_ID}}"
        ));
    }
    if out.contains("$${") {
        notes.change(format!(
            "{path}: $${{NODE_NAME}} and the like stand for ${{NODE_NAME}} itself, which shells read in their environment"
        ));
    }
    whole.then_some(out)
}

/// Where an action ends: the first `}}` outside of quotes and comments.
fn end_of_action(text: &str) -> Option<usize> {
    let inner = text.strip_prefix('-').unwrap_or(text).trim_start();
    if inner.starts_with("/*") {
        let comment = text.find("*/")?;
        return text[comment..].find("}}").map(|at| comment + at);
    }
    let (mut quote, mut escape) = (None, false);
    for (at, c) in text.char_indices() {
        match quote {
            Some(_) if escape => escape = false,
            Some('"') if c == '\\' => escape = true,
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if c == '"' || c == '`' => quote = Some(c),
            None if text[at..].starts_with("}}") => return Some(at),
            None => {}
        }
    }
    None
}

/// Text that stood there before means itself.
fn escaped(text: &str) -> String {
    let mut out = text.to_owned();
    for (_, name) in KNOWN {
        out = out.replace(&format!("${{{name}}}"), &format!("$${{{name}}}"));
    }
    out
}

/// What an action writes; None = more than that can be told.
fn value_of(action: &str) -> Option<String> {
    if action.starts_with("/*") && action.ends_with("*/") {
        return Some(String::new());
    }
    let mut piped: Option<String> = None;
    for command in split(action, '|')? {
        let words = split(command.trim(), ' ')?;
        let words: Vec<&str> = words.iter().map(|word| word.trim()).filter(|word| !word.is_empty()).collect();
        let (first, arguments) = words.split_first()?;
        let mut values: Vec<String> = arguments.iter().map(|word| operand(word)).collect::<Option<_>>()?;
        let called = matches!(*first, "printf" | "print");
        if called {
            values.extend(piped.take());
        }
        piped = Some(match *first {
            "printf" => formatted(&values)?,
            "print" if values.len() == 1 => values.remove(0),
            _ if values.is_empty() && piped.is_none() => operand(first)?,
            _ => return None,
        });
    }
    piped
}

/// A field or a text in quotes.
fn operand(word: &str) -> Option<String> {
    if let Some(field) = word.strip_prefix('$').unwrap_or(word).strip_prefix('.') {
        let (_, name) = KNOWN.iter().find(|(known, _)| *known == field)?;
        return Some(format!("${{{name}}}"));
    }
    if let Some(raw) = word.strip_prefix('`').and_then(|rest| rest.strip_suffix('`')) {
        return Some(escaped(raw));
    }
    // Go's texts are close enough to JSON's.
    serde_json::from_str::<String>(word).ok().map(|text| escaped(&text))
}

/// `printf` with nothing but texts.
fn formatted(values: &[String]) -> Option<String> {
    let (format, arguments) = values.split_first()?;
    let mut parts = format.split('%');
    let mut out = parts.next()?.to_owned();
    let mut arguments = arguments.iter();
    for part in parts {
        out.push_str(arguments.next()?);
        out.push_str(part.strip_prefix(['s', 'v'])?);
    }
    arguments.next().is_none().then_some(out)
}

/// Parts between separators that stand outside of quotes; None = a quote is not closed.
fn split(text: &str, by: char) -> Option<Vec<&str>> {
    let (mut parts, mut from, mut quote, mut escape) = (Vec::new(), 0, None, false);
    for (at, c) in text.char_indices() {
        match quote {
            Some(_) if escape => escape = false,
            Some('"') if c == '\\' => escape = true,
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if c == '"' || c == '`' => quote = Some(c),
            None if c == by => {
                parts.push(&text[from..at]);
                from = at + c.len_utf8();
            }
            None => {}
        }
    }
    parts.push(&text[from..]);
    quote.is_none().then_some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_filled_in_is_rewritten() {
        let cases = [
            ("a: {{ .NodeName }}", "a: ${NODE_NAME}"),
            ("a: {{.Namespace}}/{{$.ExecutionID}}", "a: ${NAMESPACE}/${EXECUTION_ID}"),
            ("a:\n  {{- .NodeName -}}\n  b", "a:${NODE_NAME}b"),
            ("{{/* a word }} */}}a", "a"),
            ("{{- /* a word */ -}}\na", "a"),
            (r#"{{ printf "%s-%v" .NodeName .ExecutionID }}"#, "${NODE_NAME}-${EXECUTION_ID}"),
            (r#"{{ .NodeName | printf "x-%s" }}"#, "x-${NODE_NAME}"),
            (r#"{{ print .NodeName }} {{ "{{" }} {{ `}}` }}"#, "${NODE_NAME} {{ }}"),
            ("echo ${NODE_NAME} ${HOME} $${NODE_NAME}", "echo $${NODE_NAME} ${HOME} $$${NODE_NAME}"),
            ("nothing", "nothing"),
        ];
        for (text, wanted) in cases {
            let mut notes = Notes::default();
            assert_eq!(rewrite(text, "t", &mut notes).as_deref(), Some(wanted), "{text} {notes:?}");
        }
    }

    #[test]
    fn what_is_more_than_filling_in_is_refused_with_its_line() {
        let bad = [
            r#"{{ if eq .NodeName "a" }}x{{ end }}"#,
            "{{ range .Nodes }}",
            "{{ .Other }}",
            "{{ $x := .NodeName }}",
            "{{ .NodeName",
            "{{ }}",
            "${{ .NodeName }}",
            r#"{{ printf "%d" .NodeName }}"#,
        ];
        for text in bad {
            let mut notes = Notes::default();
            assert_eq!(rewrite(&format!("a: 1\n{text}\n"), "t", &mut notes), None, "{text}");
            assert!(notes.told().starts_with("t: line 2: "), "{text}: {}", notes.told());
        }
    }
}
