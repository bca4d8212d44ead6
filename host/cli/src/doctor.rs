//! `stoker doctor`: whether a cluster has what Stoker needs, and what is not well, each with what to do.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Args as ClapArgs;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ApiResource, DynamicObject, ListParams, PostParams};
use kube::{Client, ResourceExt as _};
use stoker_api::{CRD_REVISION, keys};

use crate::claim::block_on;
use crate::{decisions, explain};

/// A clock that is further off than this makes instants late or early for whoever reads it.
const CLOCK: SignedDuration = SignedDuration::from_secs(1);

/// Objects that are told of.
const TOLD: usize = 10;

#[derive(ClapArgs)]
pub struct Args {
    /// The namespace of the operator's pods.
    #[arg(
        long,
        env = "STOKER_OPERATOR_NAMESPACE",
        value_name = "NAMESPACE",
        default_value = "stoker-system"
    )]
    operator_namespace: String,
}

/// How a check ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    Well,
    /// It could not be checked, or need not be as it should.
    Note,
    Ill,
}

/// What is told, line by line.
#[derive(Default)]
struct Report {
    ill: usize,
}

impl Report {
    fn tell(&mut self, mark: Mark, words: &str) {
        let sign = match mark {
            Mark::Well => "ok  ",
            Mark::Note => "note",
            Mark::Ill => "ILL ",
        };
        self.ill += usize::from(mark == Mark::Ill);
        say!("{sign}  {words}");
    }
}

pub fn doctor(args: &Args) -> Result<ExitCode> {
    block_on(async {
        // Fails in words if there is no cluster.
        let client = stoker_operator::connect().await?;
        let mut report = Report::default();
        let version = client.apiserver_version().await?;
        report.tell(Mark::Well, &format!("the API server answers: Kubernetes {}", version.git_version));
        clock(&client, &mut report).await;
        crds(&client, &mut report).await;
        operator(&client, &args.operator_namespace, &mut report).await;
        objects(&client, &mut report).await;
        match report.ill {
            0 => say!("\nAll is well."),
            1 => say!("\nOne thing is not well."),
            ill => say!("\n{ill} things are not well."),
        }
        Ok(if report.ill == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}

/// This machine's clock against the API server's.
async fn clock(client: &Client, report: &mut Report) {
    let Ok(request) = http::Request::get("/version").body(kube::client::Body::empty()) else { return };
    let asked = Timestamp::now();
    let answer = tokio::time::timeout(Duration::from_secs(10), client.send(request)).await;
    let now = Timestamp::now();
    let date = answer.ok().and_then(Result::ok).and_then(|answer| {
        let date = answer.headers().get("date")?.to_str().ok()?.to_owned();
        jiff::fmt::rfc2822::parse(&date).ok().map(|zoned| zoned.timestamp())
    });
    let Some(date) = date else {
        return report
            .tell(Mark::Note, "the API server does not tell its time, so the clocks are not compared");
    };
    match off(asked, now, date) {
        None => report.tell(Mark::Well, "this machine's clock agrees with the API server's, to a second"),
        Some(off) => report.tell(
            Mark::Ill,
            &format!(
                "this machine's clock is {:.0} s off the API server's: synchronise clocks, as runs begin by their nodes' and leads by the operator's",
                off.as_secs_f64()
            ),
        ),
    }
}

/// By how much a clock is surely off: the other one told its time, in whole seconds, between two readings of this one.
fn off(asked: Timestamp, answered: Timestamp, told: Timestamp) -> Option<SignedDuration> {
    let (least, most) = (asked.duration_since(told), answered.duration_since(told));
    // It was told up to a second early.
    let (least, most) = (least - SignedDuration::from_secs(1), most);
    let off = if least > SignedDuration::ZERO {
        least
    } else if most < SignedDuration::ZERO {
        most
    } else {
        SignedDuration::ZERO
    };
    (off.abs() > CLOCK).then_some(off)
}

async fn crds(client: &Client, report: &mut Report) {
    const REMEDY: &str = "`stoker crds | kubectl apply --server-side -f -`, or upgrade the chart";
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let mut current = 0;
    for crd in stoker_api::crds() {
        let name = crd.name_any();
        match api.get_metadata_opt(&name).await {
            Ok(None) => report.tell(Mark::Ill, &format!("the CRD {name} is missing: {REMEDY}")),
            Err(error) => report.tell(Mark::Note, &format!("the CRD {name} cannot be read: {error}")),
            Ok(Some(found)) => {
                let revision =
                    found.annotations().get(keys::CRD_REVISION).and_then(|text| text.parse::<u32>().ok());
                match revision.unwrap_or(0) {
                    revision if revision < CRD_REVISION => report.tell(
                        Mark::Ill,
                        &format!("the CRD {name} is of revision {revision}, older than this program's {CRD_REVISION}: {REMEDY}"),
                    ),
                    revision if revision > CRD_REVISION => report.tell(
                        Mark::Note,
                        &format!("the CRD {name} is of revision {revision}, newer than this program's {CRD_REVISION}: use that release's stoker"),
                    ),
                    _ => current += 1,
                }
            }
        }
    }
    if current > 0 {
        report.tell(Mark::Well, &format!("{current} CRDs are of this program's revision {CRD_REVISION}"));
    }
}

/// The operator's pods, who leads, and what its account may do.
async fn operator(client: &Client, namespace: &str, report: &mut Report) {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let list = match pods.list(&ListParams::default().labels(decisions::PODS)).await {
        Ok(list) => list.items,
        Err(error) => {
            return report
                .tell(Mark::Note, &format!("the operator's pods in {namespace} cannot be listed: {error}"));
        }
    };
    if list.is_empty() {
        let words = format!(
            "no operator runs as a pod of namespace {namespace}: install the chart, or give --operator-namespace (an operator outside the cluster is not seen here)"
        );
        return report.tell(Mark::Ill, &words);
    }
    let ready = |pod: &&Pod| {
        let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
        conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
    };
    let count = list.iter().filter(ready).count();
    let mark = if count == 0 { Mark::Ill } else { Mark::Well };
    let words = format!("{count} of {} operator pods in {namespace} are Ready", list.len());
    report.tell(
        mark,
        &if count == 0 {
            format!("{words}: `kubectl -n {namespace} describe pods -l {}`", decisions::PODS)
        } else {
            words
        },
    );
    leader(client, namespace, list.len(), report).await;
    let account = list.first().and_then(|pod| pod.spec.as_ref()?.service_account_name.clone());
    if let Some(account) = account {
        permissions(client, namespace, &account, report).await;
    }
}

async fn leader(client: &Client, namespace: &str, replicas: usize, report: &mut Report) {
    let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let lease = match leases.get_opt("stoker").await {
        Ok(lease) => lease,
        Err(error) => {
            return report.tell(Mark::Note, &format!("the Lease {namespace}/stoker cannot be read: {error}"));
        }
    };
    let spec = lease.and_then(|lease| lease.spec).unwrap_or_default();
    let holder = spec.holder_identity.filter(|holder| !holder.is_empty());
    let age = spec.renew_time.map(|time| Timestamp::now().duration_since(time.0));
    let lasts = SignedDuration::from_secs(i64::from(spec.lease_duration_seconds.unwrap_or(0)));
    match (holder, age) {
        (Some(holder), Some(age)) if age <= lasts + CLOCK => {
            report.tell(Mark::Well, &format!("{holder} leads, and renewed its Lease {} s ago", age.as_secs().max(0)));
        }
        (Some(holder), Some(age)) => report.tell(
            Mark::Ill,
            &format!("{holder} has not renewed the Lease for {} s, and nobody has taken it: see the operator's log", age.as_secs()),
        ),
        _ if replicas > 1 => {
            report.tell(Mark::Ill, "nobody leads though there are several replicas: do they run with --lease?");
        }
        _ => report.tell(Mark::Note, "there is one replica, and no Lease: nobody takes over when it ends"),
    }
}

/// What every installation needs, as the chart grants it: group, resource, verbs.
const NEEDED: [(&str, &str, &[&str]); 8] = [
    ("stoker.dev", "hotstandbydeployments", &["list", "watch", "patch"]),
    ("stoker.dev", "prescaledcronjobs", &["list", "watch", "patch"]),
    ("stoker.dev", "jobflows", &["list", "watch", "patch", "delete"]),
    ("stoker.dev", "nodebatchjobs", &["list", "watch", "patch"]),
    ("", "pods", &["list", "watch", "create", "delete", "patch"]),
    ("batch", "jobs", &["list", "watch", "create", "delete", "patch"]),
    ("", "configmaps", &["get", "list", "watch"]),
    ("events.k8s.io", "events", &["create", "patch"]),
];

async fn permissions(client: &Client, namespace: &str, account: &str, report: &mut Report) {
    let reviews: Api<SubjectAccessReview> = Api::all(client.clone());
    let mut missing = Vec::new();
    for (group, resource, verbs) in NEEDED {
        for verb in verbs {
            let attributes = ResourceAttributes {
                group: Some(group.to_owned()),
                resource: Some(resource.to_owned()),
                verb: Some((*verb).to_owned()),
                ..ResourceAttributes::default()
            };
            let review = SubjectAccessReview {
                spec: SubjectAccessReviewSpec {
                    user: Some(format!("system:serviceaccount:{namespace}:{account}")),
                    resource_attributes: Some(attributes),
                    ..SubjectAccessReviewSpec::default()
                },
                ..SubjectAccessReview::default()
            };
            match reviews.create(&PostParams::default(), &review).await {
                Ok(review) if review.status.as_ref().is_some_and(|status| status.allowed) => {}
                Ok(_) => missing.push(format!("{verb} {resource}")),
                Err(error) => {
                    let words =
                        format!("what the account {namespace}/{account} may do cannot be asked: {error}");
                    return report.tell(Mark::Note, &words);
                }
            }
        }
    }
    if missing.is_empty() {
        report.tell(
            Mark::Well,
            &format!("the account {namespace}/{account} may do in all namespaces what it must"),
        );
    } else {
        let words = format!(
            "the account {namespace}/{account} may not, in all namespaces, do {} of {} things; that is well if roles keep the operator to some namespaces. The first: {}",
            missing.len(),
            NEEDED.iter().map(|(_, _, verbs)| verbs.len()).sum::<usize>(),
            missing[..missing.len().min(3)].join(", ")
        );
        report.tell(Mark::Note, &words);
    }
}

/// Objects that say of themselves that they are not well.
async fn objects(client: &Client, report: &mut Report) {
    let (mut seen, mut ill) = (0, Vec::new());
    for resource in explain::resources() {
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        match api.list(&ListParams::default()).await {
            Ok(list) => {
                seen += list.items.len();
                ill.extend(list.items.iter().filter_map(|object| unwell(&resource, object)));
            }
            Err(error) => {
                report.tell(Mark::Note, &format!("{} cannot be listed: {error}", resource.plural));
            }
        }
    }
    if ill.is_empty() {
        return report.tell(Mark::Well, &format!("none of {seen} objects says that it is not well"));
    }
    let more = ill.len().saturating_sub(TOLD);
    for words in ill.iter().take(TOLD) {
        report.tell(Mark::Ill, words);
    }
    if more > 0 {
        report.tell(Mark::Ill, &format!("and {more} more objects"));
    }
}

fn unwell(resource: &ApiResource, object: &DynamicObject) -> Option<String> {
    let conditions = object.data["status"]["conditions"].as_array()?;
    let bad = conditions.iter().find_map(|condition| {
        let (name, is) = (condition["type"].as_str()?, condition["status"].as_str()?);
        explain::is_ill(name, is).then_some((name, condition["message"].as_str().unwrap_or_default()))
    });
    let (name, words) = bad?;
    let place = format!("{} {}/{}", resource.kind, object.namespace().unwrap_or_default(), object.name_any());
    let words: String = words.chars().take(200).collect();
    Some(format!("{place}: {name}: {words}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_clock_is_off_only_if_the_answers_time_cannot_explain_it() {
        let at = |millis: i64| Timestamp::from_millisecond(millis).unwrap();
        for (asked, answered, told, seconds) in [
            (10_200, 10_300, 10_000, None),
            (10_900, 11_900, 10_000, None),
            (12_900, 12_950, 10_000, Some(1)),
            (10_000, 10_100, 11_000, None),
            (10_000, 10_100, 15_000, Some(-4)),
            (10_000, 40_000, 12_000, None),
        ] {
            let off = off(at(asked), at(answered), at(told)).map(|off| off.as_secs());
            assert_eq!(off, seconds, "{asked} {answered} {told}");
        }
    }

    #[test]
    fn an_object_that_is_not_well_is_told_with_its_first_reason() {
        let resource = explain::resource("hsd").unwrap();
        let object = |conditions: serde_json::Value| {
            let mut object = DynamicObject::new("web", &resource).within("shop");
            object.data = json!({"status": {"conditions": conditions}});
            object
        };
        let condition = |name: &str, status: &str| json!({"type": name, "status": status, "message": "m"});
        let well = object(json!([condition("Ready", "True"), condition("Reconciling", "True")]));
        assert_eq!(unwell(&resource, &well), None);
        let ill = object(json!([condition("Ready", "True"), condition("PolicyHealthy", "False")]));
        assert_eq!(
            unwell(&resource, &ill).as_deref(),
            Some("HotStandbyDeployment shop/web: PolicyHealthy: m")
        );
        assert_eq!(unwell(&resource, &object(json!(null))), None);
    }
}
