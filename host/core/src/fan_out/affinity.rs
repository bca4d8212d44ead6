//! Whether a pod may run on a node: node selector terms and tolerations, as the scheduler reads them from a pod's raw
//! spec (Kubernetes: Assigning Pods to Nodes; Taints and Tolerations).

use serde_json::{Map, Value};

use super::node::{NodeView, Taint};

/// A toleration of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Toleration {
    /// The key; None = any, with the operator Exists.
    pub key: Option<String>,
    /// `Equal` or `Exists`.
    pub exists: bool,
    /// The value, for Equal.
    pub value: String,
    /// The effect; None = any.
    pub effect: Option<String>,
}

fn text(value: &Value) -> Option<String> {
    value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

impl Toleration {
    /// The tolerations of a pod's spec. One with an operator that is not known here tolerates nothing.
    pub fn of(pod: &Map<String, Value>) -> Vec<Self> {
        let all = pod.get("tolerations").and_then(Value::as_array).into_iter().flatten();
        all.filter_map(|raw| {
            let exists = match raw["operator"].as_str().unwrap_or("Equal") {
                "" | "Equal" => false,
                "Exists" => true,
                _ => return None,
            };
            Some(Self {
                key: text(&raw["key"]),
                exists,
                value: raw["value"].as_str().unwrap_or_default().to_owned(),
                effect: text(&raw["effect"]),
            })
        })
        .collect()
    }

    /// Whether it tolerates a taint.
    pub fn tolerates(&self, taint: &Taint) -> bool {
        let key = match &self.key {
            Some(key) => *key == taint.key,
            None => self.exists,
        };
        key && self.effect.as_ref().is_none_or(|effect| *effect == taint.effect)
            && (self.exists || self.value == taint.value)
    }
}

/// Whether a node selector (core/v1 NodeSelector) selects a node: one of its terms must hold, and one that demands
/// nothing never does.
pub fn selects(selector: &Value, node: &NodeView) -> bool {
    let terms = selector["nodeSelectorTerms"].as_array();
    terms.is_some_and(|terms| terms.iter().any(|term| holds(term, node)))
}

fn holds(term: &Value, node: &NodeView) -> bool {
    let list = |field: &str| term[field].as_array().map_or(&[] as &[Value], Vec::as_slice);
    let (expressions, fields) = (list("matchExpressions"), list("matchFields"));
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let label = |key: &str| node.labels.get(key).map(String::as_str);
    let field = |key: &str| (key == "metadata.name").then_some(node.name.as_str());
    expressions.iter().all(|wanted| meets(wanted, label(wanted["key"].as_str().unwrap_or_default())))
        && fields.iter().all(|wanted| {
            // Of a field that there is not, nothing is known.
            let found = field(wanted["key"].as_str().unwrap_or_default());
            found.is_some() && meets(wanted, found)
        })
}

/// Whether a value, if there is one, meets a requirement.
fn meets(wanted: &Value, found: Option<&str>) -> bool {
    let values = || wanted["values"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let number = |text: &str| text.parse::<i64>().ok();
    let bound = || values().next().and_then(number);
    match wanted["operator"].as_str().unwrap_or_default() {
        "In" => found.is_some_and(|found| values().any(|value| value == found)),
        "NotIn" => found.is_none_or(|found| values().all(|value| value != found)),
        "Exists" => found.is_some(),
        "DoesNotExist" => found.is_none(),
        "Gt" => found.and_then(number).zip(bound()).is_some_and(|(found, bound)| found > bound),
        "Lt" => found.and_then(number).zip(bound()).is_some_and(|(found, bound)| found < bound),
        _ => false,
    }
}
