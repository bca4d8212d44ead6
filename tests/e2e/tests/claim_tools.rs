//! Claims by those who do not speak HTTP themselves: `stoker claim`, `stoker release` and the examples' clients.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams, PostParams};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize as _;
use serde_json::{Value, json};
use stoker_api::{HotStandbyDeployment, keys};
use stoker_e2e::claims::{CLAIMS, account, address};
use stoker_e2e::operator::binary;
use stoker_e2e::{DEADLINE, World, root};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// What a program said.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

/// Somebody at a shell, with nothing around but what is given.
struct Shell<'a> {
    world: &'a World,
    token: &'a str,
    url: String,
}

impl<'a> Shell<'a> {
    fn new(world: &'a World, token: &'a str) -> Result<Self> {
        Ok(Self { world, token, url: format!("http://{}", address(world.operator())?) })
    }

    fn file(&self, name: &str) -> PathBuf {
        root().join("target/e2e").join(format!("{}.{name}", self.world.namespace))
    }

    fn command(&self, program: PathBuf, words: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(words)
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .env("HOME", self.file("home"))
            .env("STOKER_CLAIMS_URL", &self.url)
            .env("STOKER_CLAIMS_TOKEN", self.token)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// `stoker VERB -n NAMESPACE …`
    fn stoker(&self, verb: &str, words: &[&str]) -> Command {
        let mut line = vec![verb, "-n", &self.world.namespace];
        line.extend(words);
        self.command(binary(), &line)
    }

    async fn claim(&self, words: &[&str]) -> Result<Ran> {
        ended(self.stoker("claim", words).spawn()?).await
    }
}

async fn ended(child: Child) -> Result<Ran> {
    let output =
        tokio::time::timeout(DEADLINE, child.wait_with_output()).await.context("it does not end")??;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) })
}

/// The pool's claims as they stand on its pods.
async fn claims(world: &World, pool: &str) -> Result<Vec<Value>> {
    let of = |pod: Pod| pod.annotations().get(keys::CLAIM).map(|text| serde_json::from_str(text));
    Ok(world.alive(pool).await?.into_iter().filter_map(of).collect::<Result<_, _>>()?)
}

/// A namespace with a pool of two whose pods have a named port.
async fn world(name: &str) -> Result<(World, String)> {
    let (world, token) = World::with_claims(name).await?;
    let container = json!({
        "name": "app", "image": "docker.io/local/busybox:1", "imagePullPolicy": "IfNotPresent",
        "command": ["sleep", "infinity"], "ports": [{"name": "http", "containerPort": 8080}],
    });
    world.apply_pool("game", json!({"podTemplate": {"spec": {"containers": [container]}}})).await?;
    world.counts("game", 0, 2, 2).await?;
    Ok((world, token))
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn a_pod_is_claimed_printed_and_released_from_a_shell() -> Result<()> {
    let (world, token) = world("shell").await?;
    let shell = Shell::new(&world, &token)?;
    let wanted = ["game", "--token", "match-7", "--wait", "2m", "--ttl", "1h", "--metadata", "match=7,8"];
    let ran = shell.claim(&wanted).await?;
    let words: Vec<&str> = ran.out.split_whitespace().collect();
    ensure!(ran.code == Some(0) && words.len() == 3, "{ran:?}");
    let (name, ip, id) = (words[0], words[1], words[2]);
    let pod = world.pods().get(name).await?;
    assert_eq!(pod.status.as_ref().unwrap().pod_ip.as_deref(), Some(ip));
    let noted = claims(&world, "game").await?;
    assert_eq!((&noted[0]["id"], &noted[0]["metadata"]["match"]), (&json!(id), &json!("7,8")), "{noted:?}");
    let lasts = |field: &str| noted[0][field].as_str().unwrap().parse::<Timestamp>().unwrap();
    assert_eq!(lasts("expiresAt").duration_since(lasts("claimedAt")).as_secs(), 3600);

    // The same token is the same claim, however it is printed.
    for (output, text) in [("name", name), ("ip", ip)] {
        let ran = shell.claim(&["game", "--token", "match-7", "-o", output]).await?;
        assert_eq!((ran.code, ran.out.trim_end()), (Some(0), text), "{ran:?}");
    }
    let ran = shell.claim(&["game", "--token", "match-7", "-o", "json"]).await?;
    let printed: Value = serde_json::from_str(&ran.out).with_context(|| format!("{ran:?}"))?;
    assert_eq!((&printed["id"], &printed["pod"]["ports"]["http"]), (&json!(id), &json!(8080)));

    let kind = ["game", "--kind", "HotStandbyDeployment", id];
    let ran = ended(shell.stoker("release", &kind).spawn()?).await?;
    assert_eq!((ran.code, ran.out), (Some(0), format!("released {name}\n")));
    assert!(claims(&world, "game").await?.is_empty());
    let ran = ended(shell.stoker("release", &["game", id]).spawn()?).await?;
    let words = format!(
        "stoker: not released in pool game in namespace {}: {id}: there is no such claim: it was released, has expired, or its pod's work is done\n",
        world.namespace
    );
    assert_eq!((ran.code, ran.err), (Some(1), words));

    // Labels choose.
    let pods = world.alive("game").await?;
    let patch = json!({"metadata": {"labels": {"size": "large", "zone": "a"}}});
    world.pods().patch(&pods[1].name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await?;
    let ran = shell.claim(&["game", "--selector", "size=large,zone=a", "--wait", "2m", "-o", "name"]).await?;
    assert_eq!(ran.out.trim_end(), pods[1].name_any(), "{ran:?}");
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn a_command_runs_as_long_as_its_claim_and_its_exit_code_is_passed_on() -> Result<()> {
    let (world, token) = world("command").await?;
    let shell = Shell::new(&world, &token)?;
    let script = r#"echo "$@" {print}; exit 7"#;
    let line = ["game", "--wait", "2m", "--", "sh", "-c", script];
    let words = ["sh", "{pod}", "http://{ip}:{port:http}/", "{node}", "{id}"];
    let ran = shell.claim(&[&line[..], &words[..]].concat()).await?;
    assert_eq!(ran.code, Some(7), "{ran:?}");
    let told: Vec<&str> = ran.out.split_whitespace().collect();
    let pod = world.pods().get(told[0]).await?;
    let status = pod.status.as_ref().unwrap();
    assert_eq!(told[1], format!("http://{}:8080/", status.pod_ip.as_deref().unwrap()));
    assert_eq!(Some(told[2]), pod.spec.as_ref().unwrap().node_name.as_deref());
    assert!(told[3].starts_with(&format!("{}.", told[0])), "{ran:?}");
    assert_eq!(told[4], "{print}");
    assert!(claims(&world, "game").await?.is_empty(), "it is not released");

    for (command, code, words) in [
        (vec!["true"], 0, ""),
        (vec!["sh", "-c", "kill -KILL $$"], 137, ""),
        (vec!["/no/such/program"], 127, "stoker: cannot run /no/such/program: No such file"),
        (vec!["echo", "{port:ws}"], 1, "stoker: `{port:ws}`: no container of pod "),
    ] {
        let ran = shell.claim(&[&["game", "--wait", "2m", "--"], &command[..]].concat()).await?;
        assert_eq!((ran.code, ran.out.as_str()), (Some(code), ""), "{command:?}: {ran:?}");
        assert!(ran.err.starts_with(words) && words.is_empty() == ran.err.is_empty(), "{command:?}: {ran:?}");
        assert!(claims(&world, "game").await?.is_empty(), "{command:?} is not released");
    }
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn a_claim_is_renewed_while_its_command_runs_and_released_when_a_signal_ends_it() -> Result<()> {
    let (world, token) = world("renewed").await?;
    let shell = Shell::new(&world, &token)?;
    let (begun, script) = (shell.file("begun"), "trap 'exit 9' INT; : >$0; while :; do sleep 0.05; done");
    let path = begun.display().to_string();
    let child = shell.stoker("claim", &["game", "--ttl", "12s", "--", "sh", "-c", script, &path]).spawn()?;
    world.until("game", "begun", || async { Ok(begun.exists()) }).await?;
    let expires = || async {
        let noted = claims(&world, "game").await?;
        let noted = noted.first().context("the claim is over")?;
        Ok::<_, anyhow::Error>(noted["expiresAt"].as_str().context("no end")?.parse::<Timestamp>()?)
    };
    let first = expires().await?;
    world.until("game", "renewed", || async { Ok(expires().await? > first) }).await?;
    let process = |child: &Child| Pid::from_raw(child.id().unwrap().try_into().unwrap()).unwrap();
    kill_process(process(&child), Signal::INT)?;
    let ran = ended(child).await?;
    assert_eq!((ran.code, ran.err.as_str()), (Some(9), ""));
    assert!(claims(&world, "game").await?.is_empty(), "it is not released");

    // Who waits for a pod, and is ended, waits no more.
    world.patch_pool("game", json!({"idleTarget": 0})).await?;
    world.counts("game", 0, 0, 0).await?;
    world.patch_pool("game", json!({"paused": true})).await?;
    let child = shell.stoker("claim", &["game", "--wait", "10m", "--", "true"]).spawn()?;
    let claimant = world.claimant(&token, "game")?;
    let waiting = async |count: u64| Ok(claimant.get("").await?.body["waiting"].as_u64() == Some(count));
    world.until("game", "waiting", || waiting(1)).await?;
    kill_process(process(&child), Signal::TERM)?;
    assert_eq!(ended(child).await?.code, Some(128 + 15));
    world.until("game", "gone", || waiting(0)).await?;
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn i11_the_tools_tell_refusals_in_the_servers_words_and_what_is_missing() -> Result<()> {
    let (world, token) = World::with_claims("tools-refused").await?;
    world.apply_pool("game", json!({"idleTarget": 0})).await?;
    world.counts("game", 0, 0, 0).await?;
    let namespace = world.namespace.as_str();
    let shell = Shell::new(&world, &token)?;

    let ran = shell.claim(&["game"]).await?;
    let words = format!(
        "stoker: no claim from pool game in namespace {namespace}: no pod of HotStandbyDeployment {namespace}/game stands by: try again, wait with waitSeconds, or raise its idleTarget\n"
    );
    assert_eq!((ran.code, ran.err.as_str()), (Some(1), words.as_str()));
    let ran = shell.claim(&["game", "--", "echo", "never"]).await?;
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (Some(1), "", words.as_str()));
    let ran = shell.claim(&["other"]).await?;
    assert!(ran.code == Some(1) && ran.err.contains("there is no pool other in namespace"), "{ran:?}");
    let ran = shell.claim(&["game", "--token", &"x".repeat(300)]).await?;
    assert!(ran.code == Some(1) && ran.err.contains("token must have 1 to 256 characters"), "{ran:?}");
    for (token, words) in [
        (account(&world, "other", &[]).await?.as_str(), "may not create hotstandbydeployments/claim game"),
        ("no-token", "the bearer token is refused: "),
    ] {
        let ran = Shell { world: &world, token, url: shell.url.clone() }.claim(&["game"]).await?;
        assert!(ran.code == Some(1) && ran.err.contains(words), "{ran:?}");
    }

    // What is known without asking.
    for (words, code, told) in [
        (&["game", "--wait", "30"][..], 2, "`30` is no duration: write for example 30s, 10m or 1h30m"),
        (&["game", "--ttl", "0s"], 2, "`0s` is not within 1 s and 31536000 s"),
        (&["game", "--metadata", "match"], 2, "`match` is not KEY=VALUE"),
        (&["game", "--kind", "Pod"], 2, "HotStandbyDeployment"),
        (&["game/../x"], 1, "must be letters, digits, dots and hyphens"),
        (
            &["game", "--server", "http://stoker.example"],
            1,
            "over http the bearer token would travel in clear",
        ),
        (&["game", "--server", "127.0.0.1:1"], 1, "write for example https://stoker.example:8443"),
        (&["game", "--server", "http://127.0.0.1:1"], 1, "does not answer: "),
        (&["game", "--ca", "/no/ca.pem"], 1, "--ca /no/ca.pem: No such file"),
        (&["game", "--bearer-file", "/no/token"], 1, "cannot read the bearer token in /no/token"),
    ] {
        let ran = shell.claim(words).await?;
        assert!(ran.code == Some(code) && ran.err.contains(told), "{words:?}: {ran:?}");
    }
    let ran = ended(shell.stoker("claim", &["game"]).env_remove("STOKER_CLAIMS_URL").spawn()?).await?;
    assert!(ran.code == Some(1) && ran.err.contains("give --server URL or set STOKER_CLAIMS_URL"), "{ran:?}");
    let ran = ended(shell.stoker("claim", &["game"]).env_remove("STOKER_CLAIMS_TOKEN").spawn()?).await?;
    assert!(ran.code == Some(1) && ran.err.contains("no bearer token: give --bearer-file"), "{ran:?}");
    let ran = ended(shell.command(binary(), &["claim", "game"]).spawn()?).await?;
    assert!(ran.code == Some(1) && ran.err.contains("no namespace: give --namespace"), "{ran:?}");

    // Metrics are served elsewhere.
    let log = world.operator().log();
    let (_, metrics) = log.rsplit_once(" address=").context("no metrics are served")?;
    let metrics = format!("http://{}", metrics.split_whitespace().next().context("no address")?);
    let ran = shell.claim(&["game", "--server", &metrics]).await?;
    let words = format!("at {metrics} no claim server answers, but somebody with 404");
    assert!(ran.code == Some(1) && ran.err.contains(&words), "{ran:?}");
    world.finish().await
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn the_kubeconfig_tells_namespace_and_token_and_a_certificate_is_checked() -> Result<()> {
    let pki = root().join("target/cluster/pki");
    if !pki.join("ca.crt").exists() {
        println!("skipped: no certificate is at hand but the local cluster's");
        return Ok(());
    }
    let path = |name: &str| pki.join(name).display().to_string();
    let (certificate, key, ca) = (path("apiserver.crt"), path("apiserver.key"), path("ca.crt"));
    let flags = ["--claims", "127.0.0.1:0", "--claims-cert", &certificate, "--claims-key", &key];
    let world = World::start_with("tools-tls", &flags).await?;
    let token = account(&world, "claimant", &CLAIMS).await?;
    world.apply_pool("game", json!({})).await?;
    world.counts("game", 0, 2, 2).await?;
    let url = format!("https://{}", address(world.operator())?);
    let shell = Shell { world: &world, token: &token, url };

    let kubeconfig = shell.file("kubeconfig");
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": world.namespace}}],
    });
    std::fs::write(&kubeconfig, text.to_string())?;
    let run = |words: &[&str]| {
        let mut command = shell.command(binary(), words);
        command.env("KUBECONFIG", &kubeconfig).env_remove("STOKER_CLAIMS_TOKEN");
        command.spawn()
    };
    let ran = ended(run(&["claim", "game", "--ca", &ca, "-o", "name"])?).await?;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    // A file of its own, with the line's end that editors and `echo` leave.
    let bearer = shell.file("bearer");
    std::fs::write(&bearer, format!("{token}\n"))?;
    let words = ["claim", "game", "--ca", &ca, "--bearer-file", bearer.to_str().unwrap(), "--", "true"];
    let ran = ended(run(&words)?).await?;
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    let ran = ended(run(&["claim", "game", "--ca", &certificate])?).await?;
    assert!(ran.code == Some(1) && ran.err.contains("certificate"), "{ran:?}");
    let ran = ended(run(&["claim", "game"])?).await?;
    assert!(ran.code == Some(1) && ran.out.is_empty(), "{ran:?}");
    std::fs::remove_file(bearer)?;
    std::fs::remove_file(kubeconfig)?;
    world.finish().await
}

/// Applies an examples file of several objects, and tells a token of the account in it.
async fn matchmaker(world: &World) -> Result<String> {
    let (client, namespace) = (world.client.clone(), world.namespace.as_str());
    let text = std::fs::read_to_string(root().join("examples/claims/rbac.yaml"))?;
    let create = PostParams::default();
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    for document in serde_yaml::Deserializer::from_str(&text) {
        let object = Value::deserialize(document)?;
        match object["kind"].as_str() {
            Some("ServiceAccount") => {
                accounts.create(&create, &serde_json::from_value(object)?).await?;
            }
            Some("Role") => {
                let roles: Api<Role> = Api::namespaced(client.clone(), namespace);
                roles.create(&create, &serde_json::from_value(object)?).await?;
            }
            _ => {
                let bindings: Api<RoleBinding> = Api::namespaced(client.clone(), namespace);
                bindings.create(&create, &serde_json::from_value(object)?).await?;
            }
        }
    }
    let spec = TokenRequestSpec { expiration_seconds: Some(3600), ..TokenRequestSpec::default() };
    let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
    let token = accounts.create_token_request("matchmaker", &create, &request).await?;
    token.status.and_then(|status| status.token).context("no token")
}

#[tokio::test]
#[ignore = "needs the local cluster: make e2e"]
async fn clients_in_python_and_node_claim_renew_and_release() -> Result<()> {
    let (world, _) = World::with_claims("claim-clients").await?;
    let token = matchmaker(&world).await?;
    let text = std::fs::read_to_string(root().join("examples/claims/pool.yaml"))?;
    let pool: HotStandbyDeployment = serde_yaml::from_str(&text)?;
    world.pools().create(&PostParams::default(), &pool).await?;
    world.counts("game-servers", 0, 3, 3).await?;
    let shell = Shell::new(&world, &token)?;
    for (program, file) in [("python3", "client.py"), ("node", "client.mjs")] {
        if Command::new(program).arg("--version").stdout(Stdio::null()).status().await.is_err() {
            println!(
                "skipped: {program} is missing, so {file} is not tried; hack/setup.sh packages installs it"
            );
            continue;
        }
        let script = root().join("examples/claims").join(file).display().to_string();
        let client = |token: &str| {
            let mut command = shell.command(program.into(), &[&script]);
            command
                .env("STOKER_NAMESPACE", &world.namespace)
                .env("STOKER_POOL", "game-servers")
                .env("STOKER_CLAIMS_TOKEN", token)
                .env("WORK_SECONDS", "0.1");
            command
        };
        let ran = ended(client(&token).spawn()?).await?;
        let lines: Vec<&str> = ran.out.lines().collect();
        ensure!(ran.code == Some(0) && lines.len() == 3, "{file}: {ran:?}");
        let pod = lines[0].split(' ').nth(1).context("no pod")?;
        assert!(
            lines[0].starts_with("claimed game-servers-") && lines[1].starts_with("renewed until 2"),
            "{ran:?}"
        );
        assert_eq!(lines[2], format!("released {pod}"));
        assert!(claims(&world, "game-servers").await?.is_empty(), "{file}: it is not released");

        // It is released when the client is told to stop at work, too.
        let mut child = client(&token).env("WORK_SECONDS", "3600").spawn()?;
        let mut said = BufReader::new(child.stdout.take().context("no output")?).lines();
        let said = tokio::time::timeout(DEADLINE, said.next_line()).await.context("it claims nothing")??;
        assert!(said.is_some_and(|line| line.starts_with("claimed ")), "{file}");
        assert_eq!(claims(&world, "game-servers").await?.len(), 1);
        let pid = Pid::from_raw(child.id().context("it has ended")?.try_into()?).context("no process")?;
        kill_process(pid, Signal::TERM)?;
        let ran = ended(child).await?;
        assert!(ran.code.is_some_and(|code| code != 0), "{file}: {ran:?}");
        assert!(claims(&world, "game-servers").await?.is_empty(), "{file}: it is not released");

        let ran = ended(client("no-token").spawn()?).await?;
        let words = format!("{file}: the bearer token is refused");
        assert!(ran.code == Some(1) && ran.err.contains(&words), "{ran:?}");
    }
    world.finish().await
}
