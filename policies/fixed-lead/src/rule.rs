//! The rule: the lead that the object's spec asks for. All times are in milliseconds.

/// The longest lead that a policy may answer with.
const LONGEST: u64 = 24 * 60 * 60 * 1_000;

/// How long before the instant the warm-up begins, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// At most 24 h.
    pub lead: u64,
    pub reason: String,
}

/// Decides for one object.
pub fn decide(configured: u64) -> Answer {
    let lead = configured.min(LONGEST);
    let mut reason = format!("{} s as configured", seconds(configured));
    if lead < configured {
        reason += &format!(", cut to the longest lead of a policy, {} s", seconds(lead));
    }
    Answer { lead, reason }
}

/// Milliseconds as seconds with as many decimals as they need.
fn seconds(milliseconds: u64) -> String {
    let (whole, rest) = (milliseconds / 1_000, milliseconds % 1_000);
    let text = format!("{whole}.{rest:03}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configured_lead_is_the_answer() {
        for (configured, reason) in [
            (0, "0 s as configured"),
            (1, "0.001 s as configured"),
            (90_500, "90.5 s as configured"),
            (600_000, "600 s as configured"),
            (LONGEST, "86400 s as configured"),
        ] {
            assert_eq!(decide(configured), Answer { lead: configured, reason: reason.to_owned() });
        }
    }

    #[test]
    fn a_lead_that_no_policy_may_answer_with_is_cut_and_the_reason_says_so() {
        let reason = "86400.001 s as configured, cut to the longest lead of a policy, 86400 s".to_owned();
        assert_eq!(decide(LONGEST + 1), Answer { lead: LONGEST, reason });
        assert_eq!(decide(u64::MAX).lead, LONGEST);
    }
}
