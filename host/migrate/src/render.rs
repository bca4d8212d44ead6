//! Migrated objects as YAML for `kubectl apply -f -`: above each, in comments, what became of it.

use crate::{Migrated, Outcome};

/// Where comments are wrapped.
const WIDTH: usize = 110;

impl Outcome {
    /// All objects as documents of one text, and in comments at its beginning what was passed over and what could not be
    /// migrated.
    pub fn render(&self) -> String {
        let mut out = String::new();
        for passed in &self.passed_over {
            comment(
                &mut out,
                "passed over: ",
                &format!("{} ({}): {}", passed.what, passed.origin, passed.why),
            );
        }
        for problem in &self.problems {
            comment(&mut out, "NOT MIGRATED: ", &problem.to_string());
        }
        for object in &self.objects {
            out.push_str("---\n");
            out.push_str(&object.render());
        }
        out
    }
}

impl Migrated {
    /// The object as YAML, with what became of it in comments above.
    pub fn render(&self) -> String {
        let mut out = String::new();
        let kind =
            if self.was.starts_with("ConfigMap ") { format!(", now a {}", self.kind) } else { String::new() };
        comment(&mut out, "", &format!("{} from {}{kind}", self.was, self.origin));
        for change in &self.changes {
            comment(&mut out, "- ", change);
        }
        for warning in &self.warnings {
            comment(&mut out, "WARNING: ", warning);
        }
        out.push_str(&crate::yaml::document(&self.object));
        out
    }
}

/// Writes words as comment lines, wrapped between words.
fn comment(out: &mut String, mark: &str, words: &str) {
    let mut line = format!("# {mark}");
    let mut fresh = true;
    for word in words.split_whitespace() {
        if !fresh && line.chars().count() + 1 + word.chars().count() > WIDTH {
            out.push_str(line.trim_end());
            out.push('\n');
            line = format!("# {}", if mark.is_empty() { "" } else { "  " });
            fresh = true;
        }
        if !fresh {
            line.push(' ');
        }
        line.push_str(word);
        fresh = false;
    }
    out.push_str(line.trim_end());
    out.push('\n');
}
