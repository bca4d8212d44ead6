//! Small helpers for raw YAML: what is read here keeps the order in which people wrote it.

use serde_yaml::{Mapping, Value};

/// The text under a key.
pub(crate) fn text(map: &Mapping, key: &str) -> Option<String> {
    map.get(key).and_then(Value::as_str).map(str::to_owned)
}

/// The map under a key.
pub(crate) fn map<'a>(of: &'a Mapping, key: &str) -> Option<&'a Mapping> {
    of.get(key).and_then(Value::as_mapping)
}

/// There is something under a key; null is nothing.
pub(crate) fn has(map: &Mapping, key: &str) -> bool {
    map.get(key).is_some_and(|value| !value.is_null())
}

/// Puts something under a key, behind what is there.
pub(crate) fn put(map: &mut Mapping, key: &str, value: impl Into<Value>) {
    map.insert(Value::from(key), value.into());
}

/// Takes out what is under a key; null is nothing.
pub(crate) fn take(map: &mut Mapping, key: &str) -> Option<Value> {
    map.shift_remove(key).filter(|value| !value.is_null())
}

/// The keys of a map, as people write them.
pub(crate) fn keys(map: &Mapping) -> impl Iterator<Item = String> {
    map.keys().map(shown)
}

/// A scalar as people write it, anything else as JSON.
pub(crate) fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => serde_json::to_string(other).unwrap_or_else(|_| "…".to_owned()),
    }
}

/// Nothing in it says anything.
pub(crate) fn hollow(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Mapping(map) => map.values().all(hollow),
        Value::Sequence(items) => items.is_empty(),
        _ => false,
    }
}

/// Fields of Jobs and pods that are true or false.
const FLAGS: [&str; 18] = [
    "allowPrivilegeEscalation",
    "automountServiceAccountToken",
    "enableServiceLinks",
    "hostIPC",
    "hostNetwork",
    "hostPID",
    "hostUsers",
    "manualSelector",
    "optional",
    "privileged",
    "readOnly",
    "readOnlyRootFilesystem",
    "runAsNonRoot",
    "setHostnameAsFQDN",
    "shareProcessNamespace",
    "stdin",
    "suspend",
    "tty",
];

/// Takes out what says nothing: nulls in maps, which is how older clients write zero values. File modes such as 0644, and
/// yes and no, are numbers and truth values to kubectl, which reads YAML 1.1, and texts to 1.2.
pub(crate) fn tidy(value: &mut Value) {
    match value {
        Value::Mapping(map) => {
            map.retain(|_, value| !value.is_null());
            for (key, value) in map.iter_mut() {
                tidy(value);
                let (key, text) = (key.as_str().unwrap_or_default(), value.as_str().unwrap_or_default());
                if matches!(key, "defaultMode" | "mode")
                    && let Some(mode) = octal(text)
                {
                    *value = mode.into();
                } else if FLAGS.contains(&key)
                    && let Some(flag) = truth(text)
                {
                    *value = flag.into();
                }
            }
        }
        Value::Sequence(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

/// The truth values of YAML 1.1.
pub(crate) fn truth(word: &str) -> Option<bool> {
    match word.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" => Some(true),
        "false" | "no" | "off" => Some(false),
        _ => None,
    }
}

fn octal(text: &str) -> Option<u64> {
    let digits = text.strip_prefix("0o").or_else(|| text.strip_prefix('0'))?;
    u64::from_str_radix(digits, 8).ok()
}

/// The whole seconds of a duration as Go writes one, such as `1m30s` or `1.5h`, rounded up.
pub(crate) fn go_duration(text: &str) -> Option<u64> {
    let mut rest = text.trim();
    let mut seconds = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest.get(..end)?.parse().ok()?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        seconds += number
            * match rest.get(..end)? {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" | "μs" => 1e-6,
                "ns" => 1e-9,
                _ => return None,
            };
        rest = &rest[end..];
    }
    // What is lost in binary fractions is no second more.
    Some((seconds - 1e-9_f64).ceil().max(0.0) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        let cases = [
            ("10s", Some(10)),
            ("1m30s", Some(90)),
            ("1.5h", Some(5400)),
            ("500ms", Some(1)),
            ("0s", Some(0)),
            ("2h0m0.1s", Some(7201)),
            ("", None),
            ("10", None),
            ("soon", None),
            ("3 weeks", None),
        ];
        for (text, wanted) in cases {
            assert_eq!(go_duration(text), wanted, "{text}");
        }
    }

    #[test]
    fn nulls_go_and_what_yaml_1_1_reads_otherwise_is_read_so() {
        let mut value: Value = serde_yaml::from_str(
            "{a: null, b: {creationTimestamp: null}, volumes: [{configMap: {defaultMode: 0755, x: null}}], mode: fast, \
             tty: yes, stdin: Off, suspend: never, other: yes}",
        )
        .unwrap();
        tidy(&mut value);
        let wanted = "{b: {}, volumes: [{configMap: {defaultMode: 493}}], mode: fast, tty: true, stdin: false, \
                      suspend: never, other: \"yes\"}";
        assert_eq!(value, serde_yaml::from_str::<Value>(wanted).unwrap());
    }
}
