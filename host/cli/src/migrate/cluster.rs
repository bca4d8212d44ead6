//! The older systems' objects of a cluster. Kinds that it does not have are passed over.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams, TypeMeta};
use kube::{Client, Error};
use stoker_migrate::{OLDER_KINDS, OlderKind, Options, Origin, Outcome};

/// Objects of one answer.
const PAGE: u32 = 200;

/// How long the API server may take for one answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where to look.
pub enum Namespaces {
    /// Everywhere.
    All,
    /// In the client's own.
    Current,
    /// In this one.
    One(String),
}

/// What becomes of the objects that there are.
pub async fn objects(namespaces: Namespaces, options: &Options) -> Result<Outcome> {
    let client = stoker_operator::connect().await?;
    let namespace = match namespaces {
        Namespaces::All => None,
        Namespaces::Current => Some(client.default_namespace().to_owned()),
        Namespaces::One(name) => Some(name),
    };
    let mut outcome = Outcome::default();
    for kind in &OLDER_KINDS {
        for object in list(&client, kind, namespace.as_deref()).await? {
            let place = object.metadata.namespace.as_deref().unwrap_or_default();
            let source = format!("the cluster, namespace {place}");
            let origin = Origin { source, document: None, line: None, item: None };
            let value =
                serde_yaml::to_value(&object).context("an object of the cluster cannot be said in YAML")?;
            let mut found = stoker_migrate::migrate_object(origin, value, options);
            // Of all the ConfigMaps there are only the batch-job-controller's are meant.
            if kind.group.is_empty() {
                found.passed_over.clear();
            }
            outcome.extend(found);
        }
    }
    Ok(outcome)
}

/// All objects of a kind, a page at a time; none if the cluster does not know it.
async fn list(client: &Client, kind: &OlderKind, namespace: Option<&str>) -> Result<Vec<DynamicObject>> {
    let gvk = GroupVersionKind::gvk(kind.group, kind.version, kind.kind);
    let resource = ApiResource::from_gvk_with_plural(&gvk, kind.plural);
    let api: Api<DynamicObject> = match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let (mut all, mut params) = (Vec::new(), ListParams::default().limit(PAGE));
    loop {
        let answer = tokio::time::timeout(PATIENCE, api.list(&params)).await;
        let answer =
            answer.map_err(|_| anyhow!("the API server does not answer within {} s", PATIENCE.as_secs()))?;
        let page = match answer {
            Ok(page) => page,
            Err(Error::Api(status)) if status.code == 404 => return Ok(Vec::new()),
            Err(Error::Api(status)) if matches!(status.code, 401 | 403) => {
                let plural = kind.plural;
                let dot = if kind.group.is_empty() { "" } else { "." };
                bail!("you may not list {plural}{dot}{}: {}", kind.group, status.message)
            }
            Err(error) => return Err(anyhow!(error).context(format!("cannot list {}", kind.plural))),
        };
        let next = page.metadata.continue_.filter(|token| !token.is_empty());
        // Items of a list need not say what they are.
        all.extend(page.items.into_iter().map(|mut object| {
            object.types =
                Some(TypeMeta { api_version: resource.api_version.clone(), kind: kind.kind.to_owned() });
            object
        }));
        match next {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(all),
        }
    }
}
