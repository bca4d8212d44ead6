//! What must hold before the operator starts, each with what to do when it does not.

use axum::http::{HeaderValue, header};
use futures::future::{BoxFuture, FutureExt as _, join_all};
use futures::join;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ListParams};
use kube::client::ClientBuilder;
use kube::{Client, Config};
use stoker_api::{
    CRD_REVISION, DaemonJob, HotStandbyDeployment, HotStandbyJob, JobFlow, JobTemplate, NodeBatchJob,
    PreScaledCronJob, StandbyClaim, keys,
};

use crate::api_requests::Observed;
use crate::context::Options;

/// By which the API server's audit log and its metrics tell Stoker's requests from others'.
const USER_AGENT: &str = concat!("stoker/", env!("CARGO_PKG_VERSION"));

const APPLY: &str = "stoker crds | kubectl apply --server-side -f -";

/// Why the operator does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no configuration for a cluster.
    #[error("no cluster is configured: set KUBECONFIG, write ~/.kube/config, or run inside a cluster ({0})")]
    NoConfig(String),
    /// The configuration cannot be used.
    #[error("the cluster's configuration cannot be used: {0}")]
    BadConfig(String),
    /// The API server does not answer.
    #[error(
        "the cluster at {url} does not answer: {error}; check that it runs and that the address is right"
    )]
    Unreachable {
        /// Its address.
        url: String,
        /// What happened.
        error: String,
    },
    /// A CRD is missing.
    #[error("the cluster does not know {0}: install the CRDs with `{APPLY}`")]
    CrdMissing(String),
    /// A CRD is older than this binary.
    #[error(
        "the CRD {name} in the cluster is of revision {found}, this binary needs {CRD_REVISION}: update it with `{APPLY}`"
    )]
    CrdOlder {
        /// The CRD's name.
        name: String,
        /// Its revision.
        found: u32,
    },
    /// The account may not do what the operator must.
    #[error("this account may not {verb} {what}{}: grant it, see the README's list of permissions ({error})", if namespace.is_empty() { " in all namespaces".to_owned() } else { format!(" in namespace {namespace}") })]
    Forbidden {
        /// The verb.
        verb: &'static str,
        /// The resource.
        what: &'static str,
        /// The namespace; empty = all.
        namespace: String,
        /// The API server's words.
        error: String,
    },
    /// The policy host does not start.
    #[error("{0}")]
    PolicyHost(String),
    /// The report service's address, key or certificates cannot be used.
    #[error("{0}")]
    Reports(String),
    /// Signals' authority cannot be used.
    #[error("{0}")]
    Signals(String),
    /// Another replica leads now, or may soon.
    #[error(transparent)]
    LeaseLost(#[from] crate::lease::Lost),
    /// The folder for the last good policies cannot be used.
    #[error(
        "the policy cache {folder} cannot be used: {error}; make the folder writable or choose another with --policy-cache"
    )]
    PolicyCache {
        /// The folder.
        folder: String,
        /// What happened.
        error: std::io::Error,
    },
    /// The file of decisions cannot be written.
    #[error("decisions cannot be recorded in {file}: {error}; choose another file with --record")]
    Record {
        /// The file.
        file: String,
        /// What happened.
        error: std::io::Error,
    },
    /// The address for claims is taken or not ours.
    #[error("cannot listen on {address} for claims: {error}; choose another with --claims")]
    ListenClaims {
        /// The address.
        address: String,
        /// What happened.
        error: std::io::Error,
    },
    /// The certificate for claims cannot be used.
    #[error(
        "the certificate {certificate} with the key {key} cannot be used: {error}; both must be PEM files that belong together"
    )]
    Certificate {
        /// The certificate's file.
        certificate: String,
        /// The key's file.
        key: String,
        /// What happened.
        error: std::io::Error,
    },
    /// Tokens would travel in clear.
    #[error(
        "claims on {address} need TLS, or tokens would travel in clear: give --claims-cert and --claims-key, or --claims-insecure behind a proxy that ends TLS"
    )]
    NoCertificate {
        /// The address.
        address: String,
    },
    /// The address is taken or not ours.
    #[error("cannot listen on {address}: {error}; choose another with --listen")]
    Listen {
        /// The address.
        address: String,
        /// What happened.
        error: std::io::Error,
    },
}

/// Connects to the cluster of the environment: in-cluster, or the kubeconfig's current context.
pub async fn connect() -> Result<Client, StartError> {
    let mut config = Config::infer().await.map_err(|e| StartError::NoConfig(e.to_string()))?;
    // The client has no read timeout of its own; watches are renewed well within this one.
    config.read_timeout = Some(std::time::Duration::from_secs(305));
    config.headers.push((header::USER_AGENT, HeaderValue::from_static(USER_AGENT)));
    let url = config.cluster_url.to_string();
    let builder = ClientBuilder::try_from(config).map_err(|e| StartError::BadConfig(e.to_string()))?;
    let client = builder.with_layer(&Observed).build();
    let asked = tokio::time::timeout(std::time::Duration::from_secs(10), client.apiserver_version()).await;
    match asked {
        Ok(Ok(version)) => {
            tracing::info!(url, version = version.git_version, "connected");
            Ok(client)
        }
        Ok(Err(error)) => Err(StartError::Unreachable { url, error: error.to_string() }),
        Err(_) => Err(StartError::Unreachable { url, error: "no answer within 10 s".to_owned() }),
    }
}

/// Checks CRDs and permissions, all at once: each question costs a way to the API server and back.
pub async fn check(client: &Client, options: &Options) -> Result<(), StartError> {
    let namespaces =
        if options.namespaces.is_empty() { vec![String::new()] } else { options.namespaces.clone() };
    let crds = join_all(stoker_api::crds().into_iter().map(|crd| known(client, crd)));
    let permitted = join_all(namespaces.iter().map(|namespace| permitted(client, namespace)));
    let (crds, permitted) = join!(crds, permitted);
    // The first that is told does not depend on which answer came first.
    crds.into_iter().chain(permitted).collect()
}

async fn permitted(client: &Client, namespace: &str) -> Result<(), StartError> {
    let asked: [BoxFuture<'_, Result<(), StartError>>; 11] = [
        may::<HotStandbyDeployment>(client, namespace, "hotstandbydeployments.stoker.dev").boxed(),
        may::<HotStandbyJob>(client, namespace, "hotstandbyjobs.stoker.dev").boxed(),
        may::<StandbyClaim>(client, namespace, "standbyclaims.stoker.dev").boxed(),
        may::<PreScaledCronJob>(client, namespace, "prescaledcronjobs.stoker.dev").boxed(),
        may::<JobFlow>(client, namespace, "jobflows.stoker.dev").boxed(),
        may::<JobTemplate>(client, namespace, "jobtemplates.stoker.dev").boxed(),
        may::<DaemonJob>(client, namespace, "daemonjobs.stoker.dev").boxed(),
        may::<NodeBatchJob>(client, namespace, "nodebatchjobs.stoker.dev").boxed(),
        may::<k8s_openapi::api::core::v1::Pod>(client, namespace, "pods").boxed(),
        may::<k8s_openapi::api::batch::v1::Job>(client, namespace, "jobs.batch").boxed(),
        may::<k8s_openapi::api::core::v1::ConfigMap>(client, namespace, "configmaps").boxed(),
    ];
    join_all(asked).await.into_iter().collect()
}

/// Checks that the cluster has a CRD, and not an older one.
async fn known(client: &Client, crd: CustomResourceDefinition) -> Result<(), StartError> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let name = crd.metadata.name.unwrap_or_default();
    match api.get_metadata_opt(&name).await {
        Ok(Some(found)) => {
            let annotations = found.metadata.annotations.as_ref();
            let revision = annotations.and_then(|a| a.get(keys::CRD_REVISION)?.parse().ok()).unwrap_or(0);
            if revision < CRD_REVISION {
                return Err(StartError::CrdOlder { name, found: revision });
            }
            if revision > CRD_REVISION {
                tracing::warn!(name, revision, "the CRD is newer than this binary");
            }
            Ok(())
        }
        Ok(None) => Err(StartError::CrdMissing(name)),
        // An account without the right to read CRDs can still work: the listing tells if they exist.
        Err(kube::Error::Api(status)) if status.code == 403 => {
            tracing::warn!(name, "this account may not read CRDs, so their revision is not checked");
            Ok(())
        }
        Err(error) => Err(StartError::Unreachable { url: "the API server".into(), error: error.to_string() }),
    }
}

/// Checks that objects of a kind are known and may be listed; `namespace` is empty for all.
///
/// # Errors
/// When that is not so, in words that say what to do.
pub async fn may<K>(client: &Client, namespace: &str, what: &'static str) -> Result<(), StartError>
where
    K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + serde::de::DeserializeOwned
        + std::fmt::Debug,
{
    let api: Api<K> = if namespace.is_empty() {
        Api::all(client.clone())
    } else {
        Api::namespaced(client.clone(), namespace)
    };
    match api.list_metadata(&ListParams::default().limit(1)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 403 => Err(StartError::Forbidden {
            verb: "list",
            what,
            namespace: namespace.to_owned(),
            error: status.message.clone(),
        }),
        Err(kube::Error::Api(status)) if status.code == 404 => Err(StartError::CrdMissing(what.to_owned())),
        Err(error) => Err(StartError::Unreachable { url: "the API server".into(), error: error.to_string() }),
    }
}
