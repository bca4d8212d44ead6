//! What Secrets and ConfigMaps in an object's namespace say of the servers that it names: credentials and certificates.

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Client;
use kube::api::Api;
use stoker_api::{CaSource, SecretKey};

/// A Secret.
pub async fn secret(client: &Client, namespace: &str, name: &str) -> Result<Secret, String> {
    match Api::<Secret>::namespaced(client.clone(), namespace).get_opt(name).await {
        Ok(Some(secret)) => Ok(secret),
        Ok(None) => Err(format!("Secret {namespace}/{name} does not exist")),
        Err(kube::Error::Api(status)) if status.code == 403 => Err(format!(
            "the operator may not read Secret {namespace}/{name}: bind the role stoker-redis-credentials of deploy/rbac.yaml in that namespace"
        )),
        Err(error) => Err(format!("Secret {namespace}/{name} cannot be read: {error}")),
    }
}

/// A key of a Secret.
pub async fn secret_key(client: &Client, namespace: &str, name: &str, key: &str) -> Result<Vec<u8>, String> {
    let bytes = secret(client, namespace, name).await?.data.and_then(|mut data| data.remove(key));
    bytes.map(|bytes| bytes.0).ok_or_else(|| missing("Secret", namespace, name, key))
}

/// An authority's certificate.
pub async fn certificate(client: &Client, namespace: &str, ca: &CaSource) -> Result<Vec<u8>, String> {
    if let Some(SecretKey { name, key }) = &ca.secret {
        return secret_key(client, namespace, name, key).await;
    }
    // Admission lets no other through than one with a ConfigMap.
    let Some(SecretKey { name, key }) = &ca.config_map else { return Err("ca names no source".to_owned()) };
    match Api::<ConfigMap>::namespaced(client.clone(), namespace).get_opt(name).await {
        Ok(Some(map)) => {
            let text = map.data.and_then(|mut data| data.remove(key));
            text.map(String::into_bytes).ok_or_else(|| missing("ConfigMap", namespace, name, key))
        }
        Ok(None) => Err(format!("ConfigMap {namespace}/{name} does not exist")),
        Err(error) => Err(format!("ConfigMap {namespace}/{name} cannot be read: {error}")),
    }
}

fn missing(what: &str, namespace: &str, name: &str, key: &str) -> String {
    format!("{what} {namespace}/{name} has no key `{key}`")
}
