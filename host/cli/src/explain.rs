//! `stoker explain`: why an object is as it is now, told from its status, its Events and what the operator
//! decided of late.

mod story;

use std::pin::pin;
use std::process::ExitCode;

use anyhow::{Result, anyhow, bail};
use clap::Args as ClapArgs;
use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use kube::runtime::watcher;
use kube::{Client, Resource, ResourceExt as _};
use stoker_api::{DaemonJob, HotStandbyDeployment, HotStandbyJob, JobFlow, NodeBatchJob, PreScaledCronJob};

pub use story::is_ill;

use crate::claim::block_on;
use crate::decisions::{self, Reach};
use crate::out;

#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  stoker explain hsd/web              why the pool has the size that it has
  stoker explain HotStandbyJob/ci -n build --watch

Kinds have their long, plural or short names, as for kubectl: hsd, hsj, psc, jf, dj, nbj.")]
pub struct Args {
    /// The object: KIND/NAME.
    object: String,
    /// Its namespace. Omitted: that of the kubeconfig's current context, or of the pod that this runs in.
    #[arg(long, short = 'n')]
    namespace: Option<String>,
    #[command(flatten)]
    reach: Reach,
    /// Tell it again whenever it changes, until the object is deleted.
    #[arg(long, short = 'w')]
    watch: bool,
}

pub fn explain(args: Args) -> Result<ExitCode> {
    let (kind, name) = args
        .object
        .split_once('/')
        .ok_or_else(|| anyhow!("{:?}: name the object as KIND/NAME, such as hsd/web", args.object))?;
    let resource = resource(kind)?;
    block_on(async {
        let client = stoker_operator::connect().await?;
        let namespace = args.namespace.unwrap_or_else(|| client.default_namespace().to_owned());
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &namespace, &resource);
        let there = api.get(name).await.map_err(|error| match error {
            kube::Error::Api(status) if status.code == 404 => anyhow!(
                "no {} {name} in namespace {namespace}; `kubectl get {} -A` lists those there are",
                resource.kind,
                resource.plural
            ),
            other => anyhow!(other).context(format!("cannot read {} {name}", resource.kind)),
        })?;
        let reach = &args.reach;
        let mut told = tell(&client, reach, &resource.kind, &there, "").await?;
        if !args.watch {
            return Ok(());
        }
        let mut changes = pin!(watcher::watch_object(api, name));
        while let Some(change) = changes.next().await {
            match change {
                Ok(Some(object)) => told = tell(&client, reach, &resource.kind, &object, &told).await?,
                Ok(None) => return Ok(()),
                // The watch goes on by itself, after ever longer pauses.
                Err(error) => eprintln!("stoker: not up to date: {error}"),
            }
        }
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The kinds that tell of themselves, with their short names.
fn kinds() -> [(&'static str, ApiResource); 6] {
    fn of<K: Resource<DynamicType = ()>>(short: &'static str) -> (&'static str, ApiResource) {
        (short, ApiResource::erase::<K>(&()))
    }
    [
        of::<HotStandbyDeployment>("hsd"),
        of::<HotStandbyJob>("hsj"),
        of::<PreScaledCronJob>("psc"),
        of::<JobFlow>("jf"),
        of::<DaemonJob>("dj"),
        of::<NodeBatchJob>("nbj"),
    ]
}

/// The kinds that tell of themselves.
pub fn resources() -> impl Iterator<Item = ApiResource> {
    kinds().into_iter().map(|(_, resource)| resource)
}

/// A kind by any of its names.
pub fn resource(name: &str) -> Result<ApiResource> {
    let all = kinds();
    let wanted = name.to_lowercase();
    let is = |(short, resource): &&(&str, ApiResource)| {
        [short, resource.plural.as_str(), resource.kind.to_lowercase().as_str()].contains(&wanted.as_str())
    };
    if let Some((_, resource)) = all.iter().find(is) {
        return Ok(resource.clone());
    }
    let names: Vec<String> =
        all.iter().map(|(short, resource)| format!("{} ({short})", resource.kind)).collect();
    bail!("there is no kind {name:?} of Stoker; there are {}", names.join(", "))
}

/// Tells what there is to tell of an object, unless that was told just now.
async fn tell(
    client: &Client,
    reach: &Reach,
    kind: &str,
    object: &DynamicObject,
    told: &str,
) -> Result<String> {
    let events: Api<Event> = Api::namespaced(client.clone(), &object.namespace().unwrap_or_default());
    let selector = format!("involvedObject.uid={}", object.uid().unwrap_or_default());
    // Whoever may not read Events is told the rest.
    let events = events.list(&ListParams::default().fields(&selector)).await;
    let (events, hidden) = events.map_or_else(|error| (Vec::new(), Some(error)), |list| (list.items, None));
    let decided = match kind {
        "HotStandbyDeployment" | "HotStandbyJob" => {
            let namespace = object.namespace().unwrap_or_default();
            Some(decisions::lines(client, reach, kind, &namespace, &object.name_any()).await)
        }
        _ => None,
    };
    let (lines, unknown) = match decided {
        None => (Vec::new(), None),
        Some(Ok(lines)) => (lines, None),
        Some(Err(error)) => (Vec::new(), Some(error)),
    };
    let mut story = story::story(kind, object, &lines, &events, Timestamp::now());
    if let Some(error) = unknown {
        story += &format!("\nEarlier decisions are not at hand: {error:#}\n");
    }
    if let Some(error) = hidden {
        story += &format!("\nIts Events cannot be read: {error}\n");
    }
    if story != told {
        let before = if told.is_empty() { "" } else { "\n" };
        out::print(format_args!("{before}{story}"));
    }
    Ok(story)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_found_by_each_of_their_names() {
        for name in ["hsd", "HotStandbyDeployment", "hotstandbydeployments", "HotStandbyDeployments"] {
            assert_eq!(resource(name).unwrap().kind, "HotStandbyDeployment");
        }
        assert_eq!(resource("nbj").unwrap().plural, "nodebatchjobs");
        let error = resource("deployment").unwrap_err().to_string();
        assert!(
            error.starts_with(
                "there is no kind \"deployment\" of Stoker; there are HotStandbyDeployment (hsd)"
            )
        );
    }
}
