//! The batch-job-controller: a ConfigMap with a config and the template of a pod becomes a NodeBatchJob.

use serde_yaml::{Mapping, Value};

use crate::documents;
use crate::fields::Fields;
use crate::go_template;
use crate::metadata;
use crate::notes::Notes;
use crate::pod;
use crate::report_config::{self, Config};
use crate::values::{has, keys, map, put, shown, take, text};

/// The key of the template in its ConfigMap.
const TEMPLATE: &str = "pod-template.yaml";

/// Environment variables that pods get; the older system took no notice of others of these names.
const GIVEN: [&str; 8] = [
    "NAMESPACE",
    "NODE_NAME",
    "EXECUTION_ID",
    "CALLBACK_SERVICE_NAME",
    "CALLBACK_SERVICE_PORT",
    "CALLBACK_SERVICE_RESULT_URL",
    "CALLBACK_SERVICE_FILE_URL",
    "CALLBACK_SERVICE_EVENT_URL",
];

/// It is one of the batch-job-controller's: it has both keys, or a config that is plainly such a one.
pub(crate) fn is_config(object: &Mapping) -> bool {
    let Some(data) = map(object, "data") else { return false };
    let plainly = |config: &str| {
        ["cronExpression", "podPoolSize", "reportDirectory"].iter().all(|key| config.contains(key))
    };
    text(data, report_config::KEY).is_some_and(|config| has(data, TEMPLATE) || plainly(&config))
}

/// A NodeBatchJob.
pub(crate) fn job(mut object: Fields, notes: &mut Notes) -> Option<Value> {
    let mut meta = metadata::head(&mut object, notes)?;
    let map_name = text(&meta, "name").unwrap_or_default();
    let mut data = object.fields("data", notes)?;
    let config = data.text(report_config::KEY, notes).unwrap_or_default();
    let config = Config::read(document(&config, report_config::KEY, notes)?, &map_name, notes);
    named(&config, &mut meta, notes)?;
    let Some(template) = data.text(TEMPLATE, notes) else {
        notes.problem(&data.at(TEMPLATE), "is missing: give the template of the pods beside the config");
        return None;
    };
    let template = go_template::rewrite(&template, TEMPLATE, notes)?;
    let template = pod_template(document(&template, TEMPLATE, notes)?, &config, notes)?;
    left_behind(data, object, &map_name, notes);
    let mut spec = config.before;
    put(&mut spec, "podTemplate", template);
    spec.extend(config.behind);
    notes.change(
        "a pod that never ends keeps its place for ever, as before: give spec.activeDeadlineSeconds to bound it",
    );
    notes.change(
        "the pods' labels batch-job-controller.bakito.github.com/owner and …/execution-id are \
         stoker.dev/node-batch-job and stoker.dev/execution",
    );
    Some(metadata::object("NodeBatchJob", meta, spec))
}

/// A text of the ConfigMap, which is YAML itself.
fn document(text: &str, path: &str, notes: &mut Notes) -> Option<Fields> {
    let mut documents = documents::split(path, text).into_iter();
    let first = documents.next().map(|(_, document)| document);
    if documents.next().is_some() {
        notes.warn(format!(
            "{path}: only its first document is carried over, as the older system read no other"
        ));
    }
    match first {
        Some(Ok(Value::Mapping(map))) => return Some(Fields::new(path, map)),
        Some(Ok(other)) => notes.problem(path, format!("must be a map, and is {}", shown(&other))),
        Some(Err(words)) => notes.problem(path, words),
        None => notes.problem(path, "is empty"),
    }
    None
}

/// The object's name is the controller's, with which the pods' names begin. None = that is no name.
fn named(config: &Config, meta: &mut Mapping, notes: &mut Notes) -> Option<()> {
    let of_map = text(meta, "name").unwrap_or_default();
    let Some(name) = &config.name else {
        notes
            .change(format!("the object is named as the ConfigMap, {of_map}: config.yaml.name says nothing"));
        return Some(());
    };
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    if !name.chars().all(legal) || name.starts_with(['-', '.']) || name.ends_with(['-', '.']) {
        let words = format!("{name:?} is no name of an object: give one of lower case letters, digits and -");
        notes.problem("config.yaml.name", words);
        return None;
    }
    if *name != of_map {
        notes.change(format!(
            "the object is named {name} by config.yaml.name, as the pods were; the ConfigMap is {of_map}"
        ));
        put(meta, "name", name.as_str());
    }
    Some(())
}

/// The template of the pods with what the older system wrote over it.
fn pod_template(mut template: Fields, config: &Config, notes: &mut Notes) -> Option<Mapping> {
    for key in ["apiVersion", "kind"] {
        template.without(key, "the template is a pod's", notes);
    }
    template.without("status", "a template has none", notes);
    let mut out = pod::template(template, notes)?;
    let spec = out.get_mut("spec").and_then(Value::as_mapping_mut)?;
    over(spec, "nodeName", "each pod gets its own node", notes);
    if text(spec, "restartPolicy").is_some_and(|policy| policy != "Never") {
        over(spec, "restartPolicy", "it is Never, always", notes);
    }
    let account = "config.yaml.jobServiceAccount wrote over it";
    over(spec, "serviceAccount", account, notes);
    if text(spec, "serviceAccountName") != config.account {
        over(spec, "serviceAccountName", account, notes);
    }
    if let Some(account) = &config.account {
        put(spec, "serviceAccountName", account.as_str());
    }
    let secrets = Value::Sequence(config.pull_secrets.clone());
    if spec.get("imagePullSecrets").is_some_and(|own| *own != secrets) {
        over(spec, "imagePullSecrets", "config.yaml.jobImagePullSecrets wrote over them", notes);
    }
    if !config.pull_secrets.is_empty() {
        put(spec, "imagePullSecrets", secrets);
    }
    variables(spec, notes);
    pod::on_every_node(spec, notes);
    if filled_keys(&out) {
        notes.warn(format!(
            "{TEMPLATE}: the key of a map has ${{NODE_NAME}} or the like in it, which stands for something in values only: \
             rewrite it"
        ));
    }
    Some(out)
}

/// Leaves a field of a pod's spec out that had no effect.
fn over(spec: &mut Mapping, key: &str, why: &str, notes: &mut Notes) {
    if let Some(was) = take(spec, key) {
        let was = if was.is_sequence() { String::new() } else { format!(" ({})", shown(&was)) };
        notes.change(format!("{TEMPLATE}.spec.{key}{was} is left out: {why}"));
    }
}

/// Takes out variables of the names that pods get anyway: in Stoker the template's own would win.
fn variables(spec: &mut Mapping, notes: &mut Notes) {
    let given = |one: &Value| {
        let name = one.get("name").and_then(Value::as_str);
        name.filter(|name| GIVEN.contains(name)).map(str::to_owned)
    };
    for list in ["initContainers", "containers"] {
        for container in spec.get_mut(list).and_then(Value::as_sequence_mut).into_iter().flatten() {
            let name = container.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
            let Some(Value::Sequence(env)) = container.get_mut("env") else { continue };
            for gone in env.iter().filter_map(given) {
                notes.change(format!(
                    "{TEMPLATE}.spec.{list}[{name}].env[{gone}] is left out: pods get {gone} anyway"
                ));
            }
            env.retain(|one| given(one).is_none());
            if env.is_empty() {
                container.as_mapping_mut().and_then(|container| take(container, "env"));
            }
        }
    }
}

/// A key has something in it that would have to be filled in.
fn filled_keys(map: &Mapping) -> bool {
    let in_value = |value: &Value| match value {
        Value::Mapping(map) => filled_keys(map),
        Value::Sequence(items) => items.iter().filter_map(Value::as_mapping).any(filled_keys),
        _ => false,
    };
    keys(map).any(|key| key.contains("${")) || map.values().any(in_value)
}

/// What else the ConfigMap holds stays there.
fn left_behind(data: Fields, mut object: Fields, map_name: &str, notes: &mut Notes) {
    let mut others: Vec<String> = keys(&data.into_map()).map(|key| format!("data.{key}")).collect();
    if let Some(binary) = object.fields("binaryData", notes) {
        others.extend(keys(&binary.into_map()).map(|key| format!("binaryData.{key}")));
    }
    if !others.is_empty() {
        notes.warn(format!(
            "left in the ConfigMap {map_name}: {}. Keep it if the pods mount it, and take only {} and {TEMPLATE} out",
            others.join(", "),
            report_config::KEY
        ));
    }
    object.without("immutable", "it is about the ConfigMap", notes);
    object.rest(notes);
}
