//! Objects that people name on the command line, and what is said when there is none of that name.

use std::time::Duration;

use anyhow::anyhow;
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

/// How long the API server may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// An object that is named.
pub struct Named<K> {
    pub name: String,
    pub namespace: String,
    pub api: Api<K>,
}

impl<K> Named<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    /// The object of a name, in the namespace or, if none is given, in the client's own.
    pub fn new(client: Client, name: String, namespace: Option<String>) -> Self {
        let namespace = namespace.unwrap_or_else(|| client.default_namespace().to_owned());
        Self { name, api: Api::namespaced(client, &namespace), namespace }
    }

    /// The object as it is now.
    pub async fn get(&self) -> anyhow::Result<K> {
        self.ask("read", self.api.get(&self.name)).await
    }

    /// The answer to a request about the object; what goes wrong is told in words. `verb` is what was asked for, such as
    /// `read`.
    pub async fn ask<T>(
        &self,
        verb: &str,
        request: impl Future<Output = kube::Result<T>>,
    ) -> anyhow::Result<T> {
        let answer = tokio::time::timeout(PATIENCE, request).await;
        let answer =
            answer.map_err(|_| anyhow!("the API server does not answer within {} s", PATIENCE.as_secs()))?;
        answer.map_err(|error| self.in_words(verb, error))
    }

    fn in_words(&self, verb: &str, error: kube::Error) -> anyhow::Error {
        let Self { name, namespace, .. } = self;
        let (kind, plural) = (K::kind(&()), K::plural(&()));
        match error {
            kube::Error::Api(status) if status.code == 404 && status.reason == "NotFound" => {
                anyhow!(
                    "no {kind} {name} in namespace {namespace}; `kubectl get {plural} -A` lists those there are"
                )
            }
            kube::Error::Api(status) if status.code == 404 => anyhow!(
                "this cluster does not know {kind}s: `stoker crds | kubectl apply --server-side -f -` makes it do so"
            ),
            kube::Error::Api(status) if matches!(status.code, 401 | 403) => {
                anyhow!("you may not {verb} {kind} {name}: {}", status.message)
            }
            other => anyhow!(other).context(format!("cannot {verb} {kind} {name} in namespace {namespace}")),
        }
    }
}
