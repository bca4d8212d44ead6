//! The busy probe of both kinds of pool.

use serde_yaml::{Mapping, Value};

use crate::Options;
use crate::fields::Fields;
use crate::notes::Notes;
use crate::values::{put, shown};

/// Where Redis is taken to be if nobody says it: the name that the Service of a Redis usually has.
const SOME_REDIS: &str = "redis://redis:6379";

/// Takes the probe out of a pool's spec. None = the pool has Stoker's default, which is the older operators', too.
pub(crate) fn take(spec: &mut Fields, options: &Options, notes: &mut Notes) -> Option<Mapping> {
    let mut probe = spec.fields("busyProbe", notes)?;
    let mut out = Mapping::new();
    let given = probe.text("mode", notes).filter(|mode| !mode.is_empty());
    let mode = given.as_deref().unwrap_or("annotation").to_lowercase();
    if !matches!(&*mode, "annotation" | "http" | "exec" | "redis") {
        let words = format!("{mode:?} is no mode: give annotation, http, exec or redis");
        notes.problem(&probe.at("mode"), words);
    }
    put(&mut out, "mode", mode.as_str());
    if let Some(key) = probe.text("annotationKey", notes) {
        if key.is_empty() {
            notes.change(format!("{} is left out: empty means the default", probe.at("annotationKey")));
        } else {
            put(&mut out, "annotationKey", key);
        }
    }
    for block in ["http", "exec", "redis"] {
        if block != mode {
            probe.without(block, &format!("with mode {mode} nobody reads it"), notes);
        }
    }
    match &*mode {
        "http" => {
            notes.change(
                "spec.busyProbe.http: 2xx and 503 are the only clear answers. The older operator took any other \
                 status, and no answer, for one, too; such a pod is unknown now and stays",
            );
            if let Some(block) = probe.fields("http", notes) {
                put(&mut out, "http", http(block, notes));
            }
        }
        "exec" => {
            notes.change(
                "spec.busyProbe.exec: exit codes 0 and 1 are the only clear answers, with any other a pod is unknown \
                 and stays. Bind the role stoker-exec-probes of deploy/rbac.yaml in this namespace",
            );
            if let Some(block) = probe.fields("exec", notes) {
                put(&mut out, "exec", exec(block, notes));
            }
        }
        "redis" => {
            let block = probe.fields("redis", notes);
            let path = probe.at("redis");
            put(
                &mut out,
                "redis",
                redis(block.unwrap_or_else(|| Fields::new(path, Mapping::new())), options, notes),
            );
        }
        _ => {}
    }
    probe.rest(notes);
    Some(out)
}

fn http(mut block: Fields, notes: &mut Notes) -> Mapping {
    let mut out = Mapping::new();
    if let Some(port) = block.raw("port") {
        // A number in quotes would be taken for a port's name.
        let number = port.as_str().and_then(|text| text.parse::<u64>().ok()).or(port.as_u64());
        match number {
            Some(number @ 1..=65535) => put(&mut out, "port", number),
            Some(number) => {
                notes.problem(&block.at("port"), format!("is {number}: give a port from 1 to 65535"))
            }
            None => put(&mut out, "port", port),
        }
    }
    if let Some(path) = block.text("path", notes) {
        let slash = if path.starts_with('/') { "" } else { "/" };
        if !slash.is_empty() {
            notes.change(format!("{} begins with a slash now", block.at("path")));
        }
        put(&mut out, "path", format!("{slash}{path}"));
    }
    spans(&mut block, &mut out, notes);
    if let Some(busy) = block.flag("successIsBusy", notes) {
        put(&mut out, "successIsBusy", busy);
    }
    block.rest(notes);
    out
}

fn exec(mut block: Fields, notes: &mut Notes) -> Mapping {
    let mut out = Mapping::new();
    match block.raw("command") {
        Some(Value::Sequence(words)) if words.is_empty() => {
            notes.change(format!("{} is left out: empty means the default", block.at("command")));
        }
        Some(Value::String(line)) => {
            notes.change(format!("{} is a list now, run by a shell", block.at("command")));
            put(&mut out, "command", vec![Value::from("sh"), Value::from("-c"), Value::from(line)]);
        }
        Some(words) => put(&mut out, "command", words),
        None => {}
    }
    if let Some(container) = block.text("container", notes).filter(|name| !name.is_empty()) {
        put(&mut out, "container", container);
    }
    spans(&mut block, &mut out, notes);
    if let Some(busy) = block.flag("successIsBusy", notes) {
        if !busy {
            let words =
                "some versions of the older operator took no notice of it, Stoker does: exit code 0 is idle";
            notes.warn(format!("{}: false: {words}", block.at("successIsBusy")));
        }
        put(&mut out, "successIsBusy", busy);
    }
    block.rest(notes);
    out
}

/// The fork that has this mode took all about Redis from the operator's environment.
fn redis(mut block: Fields, options: &Options, notes: &mut Notes) -> Mapping {
    let mut out = Mapping::new();
    let url = block.text("url", notes);
    let host = block.text("host", notes);
    let port = block.text("port", notes);
    let database = block.text("db", notes);
    let url = match (url, host, &options.redis_url) {
        (Some(url), _, _) => url,
        (None, Some(host), _) => {
            let from = ["host", "port", "db"].map(|key| block.at(key)).join(", ");
            notes.change(format!("{} says what these said: {from}", block.at("url")));
            let port = port.as_deref().unwrap_or("6379");
            let database = database.map(|number| format!("/{number}")).unwrap_or_default();
            format!("redis://{host}:{port}{database}")
        }
        (None, None, Some(url)) => {
            notes.change(format!("{} is what --redis-url says", block.at("url")));
            url.clone()
        }
        (None, None, None) => {
            notes.warn(format!(
                "{} is a guess: the older operator took it from its environment REDIS_HOST, REDIS_PORT and REDIS_DB. \
                 Write it here, or migrate again with --redis-url redis://HOST:PORT/DATABASE; if REDIS_PASSWORD was \
                 set there, put the password into a Secret and name it in {}",
                block.at("url"),
                block.at("credentials"),
            ));
            SOME_REDIS.to_owned()
        }
    };
    put(&mut out, "url", address(&url, &block, notes));
    if let Some(key) = block.text("key", notes) {
        put(&mut out, "key", key);
    } else if let Some(prefix) = block.text("keyPrefix", notes) {
        notes.change(format!("{} says what {} said", block.at("key"), block.at("keyPrefix")));
        put(&mut out, "key", prefix);
    } else {
        notes.change(format!(
            "{} is mlgame-daemon-pod unless you give another: the older operator took it from REDIS_KEY_PREFIX",
            block.at("key")
        ));
    }
    spans(&mut block, &mut out, notes);
    let to = block.at("credentials");
    block.lost("password", &format!("put it into a Secret and name that in {to}"), notes);
    block.rest(notes);
    out
}

/// An address without user and password, which Stoker takes from a Secret only.
fn address(url: &str, block: &Fields, notes: &mut Notes) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or_default();
    let (user, place) = rest.rsplit_once('@').map_or((None, rest), |(user, place)| (Some(user), place));
    let legal = |c: char| c.is_ascii_alphanumeric() || "._-:/[]".contains(c);
    if !matches!(scheme, "redis" | "rediss") || place.is_empty() || !place.chars().all(legal) {
        let words = "must be redis://HOST[:PORT][/DATABASE], or rediss:// for TLS";
        notes.problem(&block.at("url"), words);
    }
    if user.is_some() {
        notes.warn(format!(
            "{}: user and password in it are not carried over: put them into a Secret and name that in {}",
            block.at("url"),
            block.at("credentials")
        ));
    }
    format!("{scheme}://{place}")
}

/// timeoutSeconds and periodSeconds. The older operators took fractions, and no notice of the period.
fn spans(block: &mut Fields, out: &mut Mapping, notes: &mut Notes) {
    let timeout = span(block, "timeoutSeconds", 60, notes);
    let period = span(block, "periodSeconds", 3600, notes);
    if let Some(timeout) = timeout {
        put(out, "timeoutSeconds", timeout);
    }
    match (timeout.unwrap_or(1), period) {
        (timeout, Some(period)) if timeout > period => {
            notes.change(format!(
                "{} is {timeout}, not {period}: no less than timeoutSeconds. The older operator asked every 10 s, \
                 whatever it said",
                block.at("periodSeconds")
            ));
            put(out, "periodSeconds", timeout);
        }
        (_, Some(period)) => put(out, "periodSeconds", period),
        // Stoker's default, which is the older operators'.
        (timeout, None) if timeout > 10 => {
            notes.change(format!("{} is {timeout}: no less than timeoutSeconds", block.at("periodSeconds")));
            put(out, "periodSeconds", timeout);
        }
        _ => {}
    }
}

/// Whole seconds from 1 to a bound.
fn span(block: &mut Fields, key: &str, most: u64, notes: &mut Notes) -> Option<u64> {
    let value = block.raw(key)?;
    let path = block.at(key);
    let seconds = match &value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim_end_matches('s').parse().ok(),
        _ => None,
    };
    let Some(seconds) = seconds.filter(|seconds| *seconds >= 0.0) else {
        notes.problem(&path, format!("must be a number of seconds, and is {}", shown(&value)));
        return None;
    };
    let whole = (seconds.ceil() as u64).clamp(1, most);
    if whole as f64 != seconds {
        notes.change(format!("{path} is {whole}, not {}: whole seconds from 1 to {most}", shown(&value)));
    }
    Some(whole)
}
