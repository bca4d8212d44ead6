//! The accounts under which the operators and report services of tests work: service accounts that may do what the Helm
//! chart grants, and nothing else. Rules, bindings and names are read from what the chart renders, so that nothing has to be
//! repeated here, and a permission that the chart lacks is one that a test misses.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding};
use kube::api::{Api, PostParams};
use kube::config::Kubeconfig;
use kube::core::NamespaceResourceScope;
use kube::{Client, Resource as _};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{DEADLINE, client_by, root};

/// The release's name: a test may install another beside it.
const RELEASE: &str = "e2e";
/// The operator's account, as the chart calls it in that release.
pub const OPERATOR: &str = "e2e-stoker";
/// The report service's.
pub const REPORTS: &str = "e2e-stoker-reports";

/// Stands for the test's namespace in values and in what is rendered, so that one rendering serves many tests.
const NAMESPACE: &str = "the-tests-namespace";
/// And this for the namespace of the operator itself.
const OWN: &str = "the-operators-namespace";

/// Longer than any test or measurement takes.
const TOKEN: Duration = Duration::from_secs(4 * 3600);

/// Values of the chart of which the others know no better: no Lease, and Secrets that the chart need not make.
const BASE: [&str; 4] =
    ["crds.install=false", "replicas=1", "reports.key.existingSecret=key", "claims.tls.secretName=tls"];

/// Which of the chart's features are on, and where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Features(Vec<String>);

impl Features {
    /// Only what every installation for one namespace has.
    pub fn base() -> Self {
        Self(vec![format!("namespaces={{{NAMESPACE}}}")])
    }

    /// What an installation for all namespaces has.
    pub fn everywhere() -> Self {
        Self(Vec::new())
    }

    /// Everything that may be turned on, in the test's namespace.
    pub fn all() -> Self {
        let all = Self::base().lease().claims().reports();
        all.here("execProbes").here("redisCredentials").here("podLogs")
    }

    /// Beside these, further values, as Helm's `--set` takes them.
    pub fn with(mut self, value: impl Into<String>) -> Self {
        self.0.push(value.into());
        self
    }

    /// Several replicas, of which one leads.
    pub fn lease(self) -> Self {
        self.with("replicas=2")
    }

    /// Claims over HTTPS.
    pub fn claims(self) -> Self {
        self.with("claims.enabled=true")
    }

    /// A report service, which has an account of its own.
    pub fn reports(self) -> Self {
        self.with("reports.enabled=true")
    }

    /// One of the chart's `features`, in the test's namespace.
    pub fn here(self, feature: &str) -> Self {
        self.with(format!("features.{feature}.namespaces={{{NAMESPACE}}}"))
    }

    /// What the chart makes with these, of an operator in the namespace `own` that looks after another.
    pub fn objects(&self, own: &str, namespace: &str) -> Result<Vec<Value>> {
        let text = self.rendered()?.replace(NAMESPACE, namespace).replace(OWN, own);
        let documents = serde_yaml::Deserializer::from_str(&text);
        documents.map(|document| Ok(<Value as serde::Deserialize>::deserialize(document)?)).collect()
    }

    /// What the chart grants with these, and to whom, in a namespace.
    pub fn granted(&self, own: &str, namespace: &str) -> Result<Granted> {
        let mut granted = Granted::default();
        for object in self.objects(own, namespace)? {
            let Some(kind) = object["kind"].as_str() else { continue };
            match kind {
                "ServiceAccount" => granted.accounts.push(serde_json::from_value(object)?),
                "Role" => granted.roles.push(serde_json::from_value(object)?),
                "RoleBinding" => granted.bindings.push(serde_json::from_value(object)?),
                "ClusterRole" => granted.cluster_roles.push(serde_json::from_value(object)?),
                "ClusterRoleBinding" => granted.cluster_bindings.push(serde_json::from_value(object)?),
                _ => {}
            }
        }
        Ok(granted)
    }

    /// What Helm makes of the chart; once in a process for the same features.
    fn rendered(&self) -> Result<String> {
        static RENDERED: Mutex<BTreeMap<Features, String>> = Mutex::new(BTreeMap::new());
        let mut rendered = RENDERED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(text) = rendered.get(self) {
            return Ok(text.clone());
        }
        let helm = root().join("target/cluster/bin/helm");
        let sets = BASE.into_iter().chain(self.0.iter().map(String::as_str));
        let out = Command::new(&helm)
            .args(["template", RELEASE])
            .arg(root().join("deploy/helm/stoker"))
            .args(["--namespace", OWN])
            .args(sets.flat_map(|value| ["--set", value]))
            .output()
            .with_context(|| format!("run `make setup-chart`: {} does not start", helm.display()))?;
        ensure!(out.status.success(), "{self:?}: {}", String::from_utf8_lossy(&out.stderr));
        let text = String::from_utf8(out.stdout)?;
        rendered.insert(self.clone(), text.clone());
        Ok(text)
    }
}

/// Accounts, and what is granted to them.
#[derive(Clone, Debug, Default)]
pub struct Granted {
    accounts: Vec<ServiceAccount>,
    roles: Vec<Role>,
    bindings: Vec<RoleBinding>,
    cluster_roles: Vec<ClusterRole>,
    cluster_bindings: Vec<ClusterRoleBinding>,
}

/// Something that may be done, or that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deed {
    /// Such as `patch pods`, or `update jobflows.stoker.dev/status`.
    pub what: String,
    /// The one object with which it may be done, or was; None = any, or many.
    pub name: Option<String>,
}

impl Deed {
    pub fn new(verb: &str, group: &str, resource: &str, name: Option<&str>) -> Self {
        let dot = if group.is_empty() { "" } else { "." };
        let (resource, part) = resource.split_at(resource.find('/').unwrap_or(resource.len()));
        Self { what: format!("{verb} {resource}{dot}{group}{part}"), name: name.map(str::to_owned) }
    }

    /// Whether this permission is one by which that could be done.
    pub fn allows(&self, asked: &Self) -> bool {
        self.what == asked.what && (self.name.is_none() || self.name == asked.name)
    }
}

impl Display for Deed {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        self.name.as_ref().map_or(Ok(()), |name| write!(f, " {name}"))
    }
}

/// A role that is bound to an account.
struct Bound<'a> {
    /// Where it counts; None = everywhere.
    namespace: Option<&'a str>,
    rules: &'a [PolicyRule],
}

impl Granted {
    /// The roles that are bound to an account.
    fn bound(&self, account: &str) -> Vec<Bound<'_>> {
        let to = |subjects: &Option<Vec<k8s_openapi::api::rbac::v1::Subject>>| {
            subjects
                .iter()
                .flatten()
                .any(|subject| subject.kind == "ServiceAccount" && subject.name == account)
        };
        let mut bound = Vec::new();
        for binding in self.bindings.iter().filter(|binding| to(&binding.subjects)) {
            let place = &binding.metadata.namespace;
            let role = self.roles.iter().find(|role| {
                role.metadata.name.as_ref() == Some(&binding.role_ref.name)
                    && role.metadata.namespace == *place
            });
            bound.extend(role.map(|role| Bound {
                namespace: place.as_deref(),
                rules: role.rules.as_deref().unwrap_or_default(),
            }));
        }
        for binding in self.cluster_bindings.iter().filter(|binding| to(&binding.subjects)) {
            let name = Some(&binding.role_ref.name);
            let role = self.cluster_roles.iter().find(|role| role.metadata.name.as_ref() == name);
            bound.extend(
                role.map(|role| Bound { namespace: None, rules: role.rules.as_deref().unwrap_or_default() }),
            );
        }
        bound
    }

    /// All that an account may do, wherever.
    pub fn deeds(&self, account: &str) -> BTreeSet<Deed> {
        self.bound(account).iter().flat_map(|bound| bound.rules).flat_map(deeds).collect()
    }

    /// What of it it may do in a namespace only.
    pub fn in_namespaces(&self, account: &str) -> BTreeSet<Deed> {
        let bound = self.bound(account);
        let within = bound.iter().filter(|bound| bound.namespace.is_some());
        within.flat_map(|bound| bound.rules).flat_map(deeds).collect()
    }
}

/// What a rule allows.
fn deeds(rule: &PolicyRule) -> Vec<Deed> {
    let mut all = Vec::new();
    let names = rule.resource_names.iter().flatten().map(|name| Some(name.as_str()));
    let names: Vec<_> = if rule.resource_names.is_some() { names.collect() } else { vec![None] };
    for verb in &rule.verbs {
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                all.extend(names.iter().map(|name| Deed::new(verb, group, resource, *name)));
            }
        }
    }
    all
}

/// The accounts of a test, as the API server knows them.
pub struct Accounts {
    pub granted: Granted,
    /// Names as the API server's log has them, by the accounts' own.
    users: BTreeMap<String, String>,
    files: Vec<PathBuf>,
}

/// By what a service of a namespace reaches the cluster, once its account is made.
pub fn kubeconfig(namespace: &str, account: &str) -> PathBuf {
    root().join("target/e2e").join(format!("{namespace}.{account}.kubeconfig"))
}

impl Accounts {
    /// Makes the accounts in the namespace `own`, and waits until they may do what is granted to them in another.
    pub async fn make(
        client: &Client,
        own: &Namespace,
        namespace: &str,
        features: &Features,
    ) -> Result<Self> {
        let place = own.metadata.name.clone().context("a namespace without a name")?;
        let granted = features.granted(&place, namespace)?;
        // What lies in no namespace goes with this one all the same.
        let owner = own.owner_ref(&()).context("a namespace that does not exist")?;
        for account in &granted.accounts {
            create_in_its_place(client, account).await?;
        }
        for role in &granted.roles {
            create_in_its_place(client, role).await?;
        }
        for binding in &granted.bindings {
            create_in_its_place(client, binding).await?;
        }
        for mut role in granted.cluster_roles.iter().cloned() {
            role.metadata.owner_references = Some(vec![owner.clone()]);
            create(&Api::all(client.clone()), &role).await?;
        }
        for mut binding in granted.cluster_bindings.iter().cloned() {
            binding.metadata.owner_references = Some(vec![owner.clone()]);
            create(&Api::all(client.clone()), &binding).await?;
        }
        let mut accounts = Self { granted, users: BTreeMap::new(), files: Vec::new() };
        let names = accounts.granted.accounts.iter().filter_map(|account| account.metadata.name.clone());
        for name in names.collect::<Vec<_>>() {
            let file = kubeconfig(namespace, &name);
            write_kubeconfig(client, &place, &name, &file).await?;
            let bound = accounts.granted.bound(&name);
            let own = client_by(&file).await?;
            try_join_all(bound.iter().map(|bound| in_force(&own, &name, bound))).await?;
            accounts.users.insert(name.clone(), format!("system:serviceaccount:{place}:{name}"));
            accounts.files.push(file);
        }
        Ok(accounts)
    }

    /// An account's name in the API server's log.
    pub fn user(&self, account: &str) -> Result<&str> {
        self.users.get(account).map(String::as_str).with_context(|| format!("there is no account {account}"))
    }

    /// The names of all.
    pub fn users(&self) -> impl Iterator<Item = &str> {
        self.users.values().map(String::as_str)
    }

    /// Removes the tokens.
    pub fn forget(&self) -> Result<()> {
        self.files.iter().try_for_each(|file| Ok(std::fs::remove_file(file)?))
    }
}

async fn create_in_its_place<K>(client: &Client, object: &K) -> Result<()>
where
    K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + fmt::Debug
        + serde::Serialize
        + DeserializeOwned,
{
    let place = object.meta().namespace.as_deref().context("the chart gives no namespace")?;
    create(&Api::namespaced(client.clone(), place), object).await
}

async fn create<K>(api: &Api<K>, object: &K) -> Result<()>
where
    K: kube::Resource + Clone + fmt::Debug + serde::Serialize + DeserializeOwned,
{
    api.create(&PostParams::default(), object).await?;
    Ok(())
}

/// Writes how an account reaches the cluster: as the test does, but with a token of its own.
async fn write_kubeconfig(client: &Client, namespace: &str, name: &str, file: &Path) -> Result<()> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let seconds = i64::try_from(TOKEN.as_secs())?;
    let spec = TokenRequestSpec { expiration_seconds: Some(seconds), ..TokenRequestSpec::default() };
    let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
    let token = accounts.create_token_request(name, &PostParams::default(), &request).await?;
    let token = token.status.context("no token")?.token;
    let mut config = Kubeconfig::read_from(crate::kubeconfig())?;
    for user in &mut config.auth_infos {
        user.auth_info = Some(serde_json::from_value(json!({"token": token}))?);
    }
    std::fs::create_dir_all(root().join("target/e2e"))?;
    std::fs::write(file, serde_json::to_string(&config)?)
        .with_context(|| format!("{} cannot be written", file.display()))
}

/// Waits until a role that is bound to an account counts: the API server's own caches learn of it a moment later. A role is
/// one object, so that one permission of it tells of all.
async fn in_force(own: &Client, account: &str, bound: &Bound<'_>) -> Result<()> {
    let rule = bound.rules.first().context("a role without rules")?;
    let first = |list: &Option<Vec<String>>| list.iter().flatten().next().cloned();
    let resource = first(&rule.resources).unwrap_or_default();
    let (resource, subresource) = resource.split_once('/').unwrap_or((&resource, ""));
    let review: SelfSubjectAccessReview = serde_json::from_value(json!({"spec": {"resourceAttributes": {
        "namespace": bound.namespace,
        "verb": rule.verbs.first(),
        "group": first(&rule.api_groups),
        "resource": resource,
        "subresource": subresource,
        "name": first(&rule.resource_names),
    }}}))?;
    let reviews: Api<SelfSubjectAccessReview> = Api::all(own.clone());
    let began = Instant::now();
    loop {
        let said = match reviews.create(&PostParams::default(), &review).await {
            Ok(answer) if answer.status.as_ref().is_some_and(|status| status.allowed) => return Ok(()),
            Ok(_) => "not allowed".to_owned(),
            // Neither is a new account known at once.
            Err(kube::Error::Api(status)) if status.code == 401 => status.message.clone(),
            Err(error) => return Err(error.into()),
        };
        if began.elapsed() > DEADLINE {
            bail!("{account} may not do what is granted to it: {said}: {review:?}");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
