//! What the API server has answered, as its own metrics count it. That is exact also where the audit log, whose size is
//! limited, has lost its beginning; whose requests they were the resource and the verb have to tell.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use hyper::Request;
use kube::Client;

/// Requests that were answered with 2xx, by verb and resource, such as `POST` and `jobs`, or `PUT` and `jobflows/status`.
pub struct Answered(BTreeMap<(String, String), u64>);

impl Answered {
    /// Those so far, dry runs apart.
    pub async fn so_far(client: &Client) -> Result<Self> {
        let text = client.request_text(Request::get("/metrics").body(Vec::new())?).await?;
        let mut counts = BTreeMap::new();
        for line in text.lines().filter(|line| line.starts_with("apiserver_request_total{")) {
            let of = |name: &str| label(line, name);
            if !of("code").starts_with('2') || !of("dry_run").is_empty() {
                continue;
            }
            let sub = of("subresource");
            let resource = of("resource").to_owned() + if sub.is_empty() { "" } else { "/" } + sub;
            let (_, count) = line.rsplit_once(' ').context("a metric without a value")?;
            *counts.entry((of("verb").to_owned(), resource)).or_default() += count.parse::<f64>()? as u64;
        }
        Ok(Self(counts))
    }

    /// Those of a verb and resource since an earlier time.
    pub fn since(&self, earlier: &Self, verb: &str, resource: &str) -> u64 {
        let key = (verb.to_owned(), resource.to_owned());
        let of = |at: &Self| at.0.get(&key).copied().unwrap_or_default();
        of(self).saturating_sub(of(earlier))
    }
}

/// A label's value in a sample; empty if it has none.
fn label<'a>(sample: &'a str, name: &str) -> &'a str {
    let begins = [format!("{{{name}=\""), format!(",{name}=\"")];
    let value = begins.iter().find_map(|begin| sample.split_once(begin.as_str()));
    value.and_then(|(_, rest)| rest.split_once('"')).map_or("", |(value, _)| value)
}

#[cfg(test)]
mod tests {
    use super::label;

    #[test]
    fn a_label_is_told_from_one_that_ends_like_it() {
        let sample =
            r#"apiserver_request_total{code="200",resource="jobflows",subresource="status",verb="PUT"} 7"#;
        assert_eq!(label(sample, "code"), "200");
        assert_eq!(label(sample, "resource"), "jobflows");
        assert_eq!(label(sample, "subresource"), "status");
        assert_eq!(label(sample, "source"), "");
    }
}
