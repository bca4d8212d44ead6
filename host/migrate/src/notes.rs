//! What is told about an object beside the object.

/// What is told about one object.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// What is written otherwise, and means the same or better.
    pub changes: Vec<String>,
    /// What is not carried over, or needs somebody's hand.
    pub warnings: Vec<String>,
    /// Why there is no object.
    pub problems: Vec<String>,
}

impl Notes {
    /// Something is written otherwise than it was.
    pub fn change(&mut self, words: impl Into<String>) {
        add(&mut self.changes, words.into());
    }

    /// Something is not carried over.
    pub fn warn(&mut self, words: impl Into<String>) {
        add(&mut self.warnings, words.into());
    }

    /// A field because of which there is no object.
    pub fn problem(&mut self, field: &str, words: impl AsRef<str>) {
        add(&mut self.problems, format!("{field}: {}", words.as_ref()));
    }

    /// A field because of which there is no object, unless it has been told of.
    pub fn problem_once(&mut self, field: &str, words: &str) {
        let told = format!("{field}: ");
        if !self.problems.iter().any(|problem| problem.starts_with(&told)) {
            self.problem(field, words);
        }
    }

    /// All problems in a line.
    pub fn told(&self) -> String {
        self.problems.join("; ")
    }
}

fn add(to: &mut Vec<String>, words: String) {
    if !to.contains(&words) {
        to.push(words);
    }
}
