//! The policies that the binary carries. They are components like any user's, and are loaded,
//! checked and bounded in the same way.

/// Names that `spec.policy.builtin` may hold.
pub const NAMES: &[&str] = &[
    "buffer",
    "percent-buffer",
    "scheduled-buffer",
    "predictive",
    "queue-depth",
    "expression",
    "probe-verdict",
    "hysteresis",
    "json-status",
    "fixed-lead",
    "learned-lead",
];

/// The component of the built-in policy `name`, or nothing when there is none of that name.
pub fn bytes(name: &str) -> Option<&'static [u8]> {
    match name {
        "buffer" => Some(include_bytes!(env!("STOKER_BUILTIN_BUFFER"))),
        "percent-buffer" => Some(include_bytes!(env!("STOKER_BUILTIN_PERCENT_BUFFER"))),
        "scheduled-buffer" => Some(include_bytes!(env!("STOKER_BUILTIN_SCHEDULED_BUFFER"))),
        "predictive" => Some(include_bytes!(env!("STOKER_BUILTIN_PREDICTIVE"))),
        "queue-depth" => Some(include_bytes!(env!("STOKER_BUILTIN_QUEUE_DEPTH"))),
        "expression" => Some(include_bytes!(env!("STOKER_BUILTIN_EXPRESSION"))),
        "probe-verdict" => Some(include_bytes!(env!("STOKER_BUILTIN_PROBE_VERDICT"))),
        "hysteresis" => Some(include_bytes!(env!("STOKER_BUILTIN_HYSTERESIS"))),
        "json-status" => Some(include_bytes!(env!("STOKER_BUILTIN_JSON_STATUS"))),
        "fixed-lead" => Some(include_bytes!(env!("STOKER_BUILTIN_FIXED_LEAD"))),
        "learned-lead" => Some(include_bytes!(env!("STOKER_BUILTIN_LEARNED_LEAD"))),
        _ => None,
    }
}
