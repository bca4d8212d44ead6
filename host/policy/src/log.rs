//! What a guest says during a call: through `stoker:policy/log`, standard output or standard
//! error. Bounded, because it is kept with the decision.

/// Lines kept of one call.
const MAX_LINES: usize = 64;
/// Bytes kept of one call.
const MAX_BYTES: usize = 8 << 10;
/// Bytes kept of one line.
const MAX_LINE: usize = 1 << 10;
/// Bytes of standard error that go into the message of a failed call.
const MAX_LAST_WORDS: usize = 512;

/// Where a line came from, and how grave it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogLevel {
    /// `log.write` with level debug.
    Debug,
    /// `log.write` with level info.
    Info,
    /// `log.write` with level warn.
    Warn,
    /// `log.write` with level error.
    Error,
    /// Written to standard output.
    Stdout,
    /// Written to standard error.
    Stderr,
}

/// One line, at most 1 KiB.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LogLine {
    /// Its level.
    pub level: LogLevel,
    /// Its text, without the line break.
    pub message: String,
}

/// Collects the lines of one call.
#[derive(Debug, Default)]
pub(crate) struct Log {
    lines: Vec<LogLine>,
    bytes: usize,
    dropped: u32,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Log {
    /// Adds a message, cut to its limit.
    pub(crate) fn write(&mut self, level: LogLevel, message: &str) {
        let mut message = cut(message, MAX_LINE).to_owned();
        printable(&mut message);
        if self.lines.len() == MAX_LINES || self.bytes + message.len() > MAX_BYTES {
            self.dropped = self.dropped.saturating_add(1);
            return;
        }
        self.bytes += message.len();
        self.lines.push(LogLine { level, message });
    }

    /// Adds to standard output or error; a line is noted when it ends.
    pub(crate) fn stream(&mut self, level: LogLevel, bytes: &[u8]) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ended) = match part.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (part, false),
            };
            let pending = self.pending(level);
            let room = MAX_LINE.saturating_sub(pending.len()).min(text.len());
            pending.extend_from_slice(&text[..room]);
            if ended {
                let line = std::mem::take(pending);
                self.write(level, &String::from_utf8_lossy(&line));
            }
        }
    }

    fn pending(&mut self, level: LogLevel) -> &mut Vec<u8> {
        if level == LogLevel::Stderr { &mut self.stderr } else { &mut self.stdout }
    }

    /// The lines, and how many more there were.
    pub(crate) fn finish(mut self) -> (Vec<LogLine>, u32) {
        self.end_lines();
        (self.lines, self.dropped)
    }

    /// The end of what was written to standard error: where runtimes say why they give up.
    pub(crate) fn last_words(&mut self) -> Option<String> {
        self.end_lines();
        let said: Vec<&str> = self
            .lines
            .iter()
            .filter(|line| line.level == LogLevel::Stderr)
            .map(|line| line.message.trim())
            // Rust's panics end with advice on backtraces, of which there are none here.
            .filter(|text| !text.is_empty() && !text.starts_with("note: run with"))
            .collect();
        let last = said[said.len().saturating_sub(3)..].join(" / ");
        (!last.is_empty()).then(|| cut(&last, MAX_LAST_WORDS).to_owned())
    }

    fn end_lines(&mut self) {
        for level in [LogLevel::Stdout, LogLevel::Stderr] {
            let line = std::mem::take(self.pending(level));
            if !line.is_empty() {
                self.write(level, &String::from_utf8_lossy(&line));
            }
        }
    }
}

/// Takes out what a terminal would act on: the text is shown to people.
pub(crate) fn printable(text: &mut String) {
    if text.contains(char::is_control) {
        *text = text.replace(char::is_control, " ");
    }
}

/// Words of the engine for a status: they hold names that a component's author chose, of any
/// length and with any character.
pub(crate) fn brief(text: &str) -> String {
    const MAX: usize = 1 << 10;
    let mut words = cut(text, MAX).to_owned();
    if words.len() < text.len() {
        words.push('…');
    }
    printable(&mut words);
    words
}

/// The longest beginning of `text` that has at most `max` bytes.
pub(crate) fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_engine_are_one_short_line() {
        assert_eq!(brief("two\nlines"), "two lines");
        assert_eq!(brief(&"é".repeat(1_000)).chars().count(), 513);
    }

    #[test]
    fn lines_past_the_limits_are_counted() {
        let mut log = Log::default();
        (0..100).for_each(|_| log.write(LogLevel::Info, "x"));
        let (lines, dropped) = log.finish();
        assert_eq!((lines.len(), dropped), (MAX_LINES, 36));

        let mut log = Log::default();
        (0..10).for_each(|_| log.write(LogLevel::Info, &"é".repeat(1000)));
        let (lines, dropped) = log.finish();
        assert_eq!((lines.len(), lines[0].message.len(), dropped), (8, MAX_LINE, 2));
    }

    #[test]
    fn a_stream_is_noted_line_by_line() {
        let mut log = Log::default();
        log.stream(LogLevel::Stdout, b"one\ntw");
        log.stream(LogLevel::Stderr, b"mixed");
        log.stream(LogLevel::Stdout, b"o\n\xff");
        log.stream(LogLevel::Stderr, &[b'y'; 5000]);
        assert_eq!(log.last_words().unwrap().len(), MAX_LAST_WORDS);
        let lines = log.finish().0;
        let texts: Vec<_> = lines.iter().map(|line| &line.message[..line.message.len().min(7)]).collect();
        assert_eq!(texts, ["one", "two", "\u{fffd}", "mixedyy"]);
    }
}
