//! How large an expression may be. The parser and the evaluation call themselves for every bracket and every
//! sign, on a stack of 512 KiB and within 100 ms, so they are counted before anything is parsed.

/// Bytes of an expression.
const LENGTH: usize = 4 << 10;
/// Brackets within brackets.
const NESTING: usize = 24;
/// Signs that are neither letters, digits nor blanks, outside of quotes: each may make the tree one deeper.
const SIGNS: usize = 200;

/// Checks the size of an expression.
///
/// # Errors
/// A sentence that says what is too large.
pub fn check(text: &str) -> Result<(), String> {
    if text.len() > LENGTH {
        return Err(format!(
            "{} bytes, at most {LENGTH} are allowed; write a shorter expression",
            text.len()
        ));
    }
    // The one operator that is a word. In a string it is counted, too; that does no harm.
    let words = text.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
    let (mut nesting, mut signs) = (0_usize, words.filter(|word| *word == "in").count());
    for (at, sign) in outside_quotes(text) {
        match sign {
            '(' | '[' | '{' => nesting += 1,
            ')' | ']' | '}' => nesting = nesting.saturating_sub(1),
            _ if sign.is_alphanumeric() || sign.is_whitespace() || sign == '_' => continue,
            _ => {}
        }
        signs += 1;
        if nesting > NESTING {
            return Err(format!("{}: more than {NESTING} brackets within brackets", place(text, at)));
        }
    }
    if signs > SIGNS {
        return Err(format!(
            "{signs} operators and brackets, at most {SIGNS} are allowed; write a simpler one"
        ));
    }
    Ok(())
}

/// Where the byte `at` of a text is, for people.
pub fn place(text: &str, at: usize) -> String {
    let before = text.get(..at).unwrap_or(text);
    let (line, column) = match before.rsplit_once('\n') {
        None => (1, before.chars().count() + 1),
        Some((above, begin)) => (above.matches('\n').count() + 2, begin.chars().count() + 1),
    };
    position(text, line, column)
}

/// The same of a line and a column, both from 1. The line is left out where there is only one.
pub fn position(text: &str, line: usize, column: usize) -> String {
    if text.contains('\n') { format!("line {line}, column {column}") } else { format!("column {column}") }
}

/// The byte at which `name` stands as a word of its own, outside of quotes; the text's begin when it does not.
pub fn find(text: &str, name: &str) -> usize {
    let part_of_word = |letter: char| letter.is_alphanumeric() || letter == '_';
    let is_word = |at: &usize| {
        text[*at..].strip_prefix(name).is_some_and(|after| !after.starts_with(part_of_word))
            && !text[..*at].ends_with(part_of_word)
    };
    outside_quotes(text).map(|(at, _)| at).find(is_word).unwrap_or(0)
}

/// The characters that are not part of a string. Prefixes and triple quotes need no care here: three quotes
/// are an empty string and the begin of another.
fn outside_quotes(text: &str) -> impl Iterator<Item = (usize, char)> {
    let mut quote = None;
    let mut escaped = false;
    text.char_indices().filter(move |(_, letter)| match quote {
        None => {
            if matches!(letter, '"' | '\'') {
                quote = Some(*letter);
            }
            quote.is_none()
        }
        Some(end) => {
            if escaped {
                escaped = false;
            } else if *letter == '\\' {
                escaped = true;
            } else if *letter == end {
                quote = None;
            }
            false
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_expression_is_small() {
        assert_eq!(check("busy + max(idleTarget, int(busy * 0.2))"), Ok(()));
        assert_eq!(check(&format!("signals[\"{}\"] + 1", "(".repeat(500))), Ok(()));
    }

    #[test]
    fn what_is_too_large_is_refused_with_its_place() {
        for (text, error) in [
            ("1".repeat(5_000), "5000 bytes, at most 4096 are allowed; write a shorter expression"),
            ("(".repeat(30), "column 25: more than 24 brackets within brackets"),
            ("1+".repeat(300), "300 operators and brackets, at most 200 are allowed; write a simpler one"),
            (
                "busy in ".repeat(300),
                "300 operators and brackets, at most 200 are allowed; write a simpler one",
            ),
            (format!("1\n{}", "(".repeat(30)), "line 2, column 25: more than 24 brackets within brackets"),
        ] {
            assert_eq!(check(&text), Err(error.to_owned()));
        }
    }

    #[test]
    fn a_name_is_found_where_it_stands_by_itself() {
        assert_eq!(find("busybody + 'busy' + busy", "busy"), 20);
        assert_eq!(find("busy", "idle"), 0);
    }

    #[test]
    fn places_count_letters_not_bytes() {
        assert_eq!(place("\"é\" x", 5), "column 5");
        assert_eq!(place("a\né x", 5), "line 2, column 3");
    }
}
