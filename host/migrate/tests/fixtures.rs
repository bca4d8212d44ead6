//! Every fixture is migrated and compared with what was committed beside it: `UPDATE_EXPECTED=1` writes it anew.
#![allow(clippy::unwrap_used)]

mod common;

use common::{fixtures, migrated};
use serde::de::DeserializeOwned;
use serde_yaml::Value;
use stoker_api::{
    DaemonJob, HotStandbyDeployment, HotStandbyJob, JobFlow, JobTemplate, NodeBatchJob, PreScaledCronJob,
};
use stoker_migrate::{Migrated, OLDER_KINDS, Options};

#[test]
fn every_fixture_becomes_what_was_committed() {
    let update = std::env::var_os("UPDATE_EXPECTED").is_some();
    for path in fixtures() {
        let (made, kept) = (migrated(&path).render(), path.with_extension("expected"));
        if update {
            std::fs::write(&kept, made).unwrap();
        } else {
            let committed = std::fs::read_to_string(&kept).unwrap_or_default();
            assert_eq!(made, committed, "{}: UPDATE_EXPECTED=1 writes it anew", kept.display());
        }
    }
}

/// The object as Stoker's type reads it, and as it writes it again: what the type does not know is gone then.
fn read<K: DeserializeOwned + serde::Serialize>(object: &Value) -> serde_json::Value {
    let json = serde_json::to_value(object).unwrap();
    let typed: K = serde_json::from_value(json.clone()).unwrap_or_else(|error| panic!("{error}\n{json:#}"));
    serde_json::to_value(typed).unwrap()
}

/// Everything that one value says another says, too; that may say more, for example what is the default.
fn says(all: &serde_json::Value, some: &serde_json::Value, path: &str) {
    use serde_json::Value::{Array, Object};
    match (some, all) {
        (Object(some), Object(all)) => {
            for (key, value) in some {
                let nothing = value.as_object().is_some_and(serde_json::Map::is_empty);
                let found = all.get(key);
                assert!(found.is_some() || nothing, "{path}.{key} is unknown to Stoker's type");
                says(found.unwrap_or(value), value, &format!("{path}.{key}"));
            }
        }
        (Array(some), Array(all)) if some.len() == all.len() => {
            some.iter().zip(all).for_each(|(some, all)| says(all, some, &format!("{path}[]")));
        }
        (some, all) => assert_eq!(some, all, "{path}"),
    }
}

#[test]
fn stokers_types_know_every_field_of_what_is_made() {
    let mut kinds = std::collections::BTreeSet::new();
    for Migrated { kind, object, .. } in fixtures().iter().flat_map(|path| migrated(path).objects) {
        let typed = match kind {
            "HotStandbyDeployment" => read::<HotStandbyDeployment>(&object),
            "HotStandbyJob" => read::<HotStandbyJob>(&object),
            "PreScaledCronJob" => read::<PreScaledCronJob>(&object),
            "JobFlow" => read::<JobFlow>(&object),
            "JobTemplate" => read::<JobTemplate>(&object),
            "DaemonJob" => read::<DaemonJob>(&object),
            "NodeBatchJob" => read::<NodeBatchJob>(&object),
            other => panic!("{other} is no kind of Stoker's"),
        };
        says(&typed, &serde_json::to_value(&object).unwrap(), kind);
        kinds.insert(kind);
    }
    assert_eq!(kinds.len(), OLDER_KINDS.len());
}

#[test]
fn what_is_written_is_what_was_made_for_readers_of_yaml_1_2_and_in_order() {
    for path in fixtures() {
        let outcome = migrated(&path);
        let text = outcome.render();
        let read: Vec<Value> = text
            .split("\n---\n")
            .filter_map(|part| serde_yaml::from_str(part).ok())
            .filter(Value::is_mapping)
            .collect();
        let made: Vec<Value> = outcome.objects.into_iter().map(|object| object.object).collect();
        assert_eq!(read, made, "{}", path.display());
    }
}

#[test]
fn migrating_what_was_made_passes_it_over() {
    for path in fixtures() {
        let outcome = migrated(&path);
        let again = stoker_migrate::migrate("again", &outcome.render(), &Options::default());
        assert!(again.objects.is_empty() && again.problems.is_empty(), "{again:?}");
        assert_eq!(again.passed_over.len(), outcome.objects.len());
    }
}

#[test]
fn what_manifests_do_not_say_is_taken_from_the_options() {
    let options = Options {
        redis_url: Some("rediss://redis.games:6380/1".to_owned()),
        script_image: Some("tools:2".to_owned()),
    };
    let text = "
apiVersion: apps.paia.tech/v1alpha1
kind: HotStandbyJob
metadata: {name: a}
spec: {busyProbe: {mode: redis}, jobTemplate: {image: game}}
---
apiVersion: api.practice.com/v1alpha1
kind: JobFlow
metadata: {name: b}
spec: {flows: [{name: a, jobTemplateRef: t}], ErrorHandler: {script: exit 1}}
";
    let outcome = stoker_migrate::migrate("text", text, &options);
    let spec = |index: usize| &outcome.objects[index].object["spec"];
    assert_eq!(spec(0)["busyProbe"]["redis"]["url"], "rediss://redis.games:6380/1");
    assert_eq!(spec(1)["onFailure"]["script"]["image"], "tools:2");
    assert_eq!(outcome.warnings(), 1, "{:?}", outcome.objects);
}
