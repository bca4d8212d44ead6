//! What is drawn: steps, their states, and which waits for which.

/// How far a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// It ended well.
    Succeeded,
    /// It ended badly.
    Failed,
    /// It is at work.
    Running,
    /// It has not started.
    Waiting,
    /// It will not run.
    Skipped,
}

impl State {
    /// All of them, in the order in which they are counted.
    pub(crate) const ALL: [Self; 5] =
        [Self::Succeeded, Self::Failed, Self::Running, Self::Waiting, Self::Skipped];

    /// The sign that tells the state without colour.
    pub(crate) fn mark(self) -> char {
        match self {
            Self::Succeeded => '✓',
            Self::Failed => '✗',
            Self::Running => '▶',
            Self::Waiting => '·',
            Self::Skipped => '⊘',
        }
    }

    /// The state in a word.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Skipped => "skipped",
        }
    }
}

/// One step, a box.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What it is called.
    pub name: String,
    /// How far it is.
    pub state: State,
    /// A few words below the name, such as how long it took; may be empty.
    pub detail: String,
    /// It runs once all others have ended: drawn below them, apart. Edges from or to it are left out.
    pub closing: bool,
}

/// That one step waits for another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edge {
    /// The step that comes first, by its place in [`Graph::steps`].
    pub from: usize,
    /// The step that waits for it.
    pub to: usize,
    /// What it waits for, if it is not the usual.
    pub label: Option<String>,
}

/// What is drawn.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Graph {
    /// What stands above the picture.
    pub title: String,
    /// The steps, in the order in which they were written.
    pub steps: Vec<Step>,
    /// Edges whose ends are no steps are left out.
    pub edges: Vec<Edge>,
    /// What is said below the picture, a line each.
    pub notes: Vec<String>,
}

impl Graph {
    /// How many steps are in each state, without those that none is in.
    pub(crate) fn counts(&self) -> Vec<(State, usize)> {
        let count = |state| self.steps.iter().filter(|step| step.state == state).count();
        State::ALL.map(|state| (state, count(state))).into_iter().filter(|&(_, count)| count > 0).collect()
    }
}
