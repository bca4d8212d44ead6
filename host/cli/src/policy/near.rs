//! Which name was meant by one that there is not.

/// From here on a name is near another: a slip of the finger or two, not another word.
const NEAR: f64 = 0.85;

/// `; did you mean NAME?`, where one of the names is near what was written, or else nothing.
pub fn hint(written: &str, known: &[&str]) -> String {
    let written = written.to_lowercase();
    let nearness = |name: &str| strsim::jaro_winkler(&written, &name.to_lowercase());
    let nearest = known.iter().max_by(|a, b| nearness(a).total_cmp(&nearness(b)));
    match nearest.filter(|name| nearness(name) >= NEAR) {
        Some(name) => format!("; did you mean {name}?"),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_near_and_another_word_is_not() {
        let known = ["now", "pool", "idleTarget", "minimum", "maximum", "counts"];
        for (written, meant) in [
            ("idelTarget", "idleTarget"),
            ("idle_target", "idleTarget"),
            ("IDLETARGET", "idleTarget"),
            ("maximun", "maximum"),
            ("count", "counts"),
        ] {
            assert_eq!(hint(written, &known), format!("; did you mean {meant}?"), "{written}");
        }
        for written in ["", "replicas", "x"] {
            assert_eq!(hint(written, &known), "", "{written}");
        }
        assert_eq!(hint("a", &[]), "");
    }
}
