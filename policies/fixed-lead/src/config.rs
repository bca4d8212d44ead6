//! The configuration of `fixed-lead`, which is none. A key that does nothing would mislead whoever
//! wrote it, so anything but `{}` is refused.

/// An error has at most 512 bytes; it quotes this many characters of the configuration.
const QUOTED: usize = 80;

/// Accepts `{}`, and nothing else.
///
/// # Errors
/// One sentence that says what to do instead.
pub fn validate(config: &str) -> Result<(), Vec<String>> {
    if config.split_ascii_whitespace().flat_map(str::chars).eq("{}".chars()) {
        return Ok(());
    }
    let found: String = config.chars().take(QUOTED).collect();
    Err(vec![format!(
        "config: fixed-lead takes no keys, found {found}; remove it and set the warm-up in the object's spec"
    )])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_object_is_accepted() {
        assert_eq!(validate("{}"), Ok(()));
        assert_eq!(validate(" {\n} "), Ok(()));
    }

    #[test]
    fn every_key_is_refused_and_quoted() {
        let error = r#"config: fixed-lead takes no keys, found {"quantile":1}; remove it and set the warm-up in the object's spec"#;
        assert_eq!(validate(r#"{"quantile":1}"#), Err(vec![error.to_owned()]));
    }

    #[test]
    fn what_is_not_an_object_is_refused() {
        for config in ["", "[]", "3", "null", "{} {}"] {
            assert!(validate(config).is_err(), "{config:?}");
        }
    }

    #[test]
    fn a_long_configuration_gives_an_error_within_the_contract() {
        let error = &validate(&"é".repeat(10_000)).unwrap_err()[0];
        assert!(error.len() <= 512, "{} bytes", error.len());
    }
}
