//! A command in a pod, over the API server's WebSocket. A command that takes too long is left to itself: the
//! API has no way to end it.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::api::{Api, AttachParams};
use stoker_api::ExecProbe;
use stoker_core::asked::Answer;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::question::{EVIDENCE_BYTES, Evidence, Finding, Target, too_late};

/// Asks a pod.
pub async fn ask(client: &kube::Client, probe: &ExecProbe, target: &Target) -> Finding {
    let timeout = std::time::Duration::from_secs(u64::from(probe.timeout_seconds));
    match tokio::time::timeout(timeout, run(client, probe, target)).await {
        Ok(Ok((code, stdout))) => Finding {
            answer: Answer::exec(code, probe.success_is_busy),
            evidence: Evidence::Exec { code, stdout: stdout.into() },
        },
        Ok(Err(words)) => Finding::none(words),
        Err(_) => Finding::none(too_late(timeout)),
    }
}

async fn run(client: &kube::Client, probe: &ExecProbe, target: &Target) -> Result<(i32, Vec<u8>), String> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &target.namespace);
    let params = AttachParams {
        container: probe.container.clone(),
        stdin: false,
        stdout: true,
        stderr: false,
        tty: false,
        max_stdout_buf_size: Some(EVIDENCE_BYTES),
        ..AttachParams::default()
    };
    let mut process =
        api.exec(&target.name, &probe.command, &params).await.map_err(|error| refused(&error))?;
    let status = process.take_status().ok_or("the API server tells no exit code")?;
    let output = process.stdout().ok_or("the API server tells no output")?;
    let stdout = first_and_rest(output).await;
    let status = status.await.ok_or("the connection broke before the command ended")?;
    Ok((exit_code(&status)?, stdout))
}

/// The first bytes; what comes after them is read, so that the command can end, and dropped.
async fn first_and_rest(output: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut first = Vec::new();
    let mut output = output.take(EVIDENCE_BYTES as u64);
    // A broken stream shows in the status, which is missing then.
    output.read_to_end(&mut first).await.ok();
    tokio::io::copy(&mut output.into_inner(), &mut tokio::io::sink()).await.ok();
    first
}

/// The exit code, or why the command was not run.
fn exit_code(status: &Status) -> Result<i32, String> {
    if status.status.as_deref() == Some("Success") {
        return Ok(0);
    }
    let causes = status.details.iter().flat_map(|d| d.causes.iter().flatten());
    let code = causes.filter(|c| c.reason.as_deref() == Some("ExitCode")).find_map(|c| c.message.as_ref());
    match code.and_then(|code| code.parse().ok()) {
        Some(code) => Ok(code),
        None => {
            let words = status.message.as_deref().unwrap_or("no reason told");
            // Runtimes tell the way to the reason, too, with numbers that differ each time.
            let words =
                words.rsplit_once("unable to start container process: ").map_or(words, |(_, why)| why);
            Err(format!("the command cannot be run: {}", words.chars().take(300).collect::<String>()))
        }
    }
}

fn refused(error: &kube::Error) -> String {
    let words = error.to_string();
    if words.contains("403") {
        return "the operator may not run commands in pods: grant `create` and `get` of pods/exec, see deploy/rbac.yaml"
            .to_owned();
    }
    format!("the command cannot be run: {}", words.chars().take(300).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(text: &str) -> Status {
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn the_status_tells_the_exit_code_or_why_there_is_none() {
        assert_eq!(exit_code(&status(r#"{"metadata":{},"status":"Success"}"#)), Ok(0));
        let failed = r#"{"metadata":{},"status":"Failure","reason":"NonZeroExitCode","message":"command terminated with non-zero exit code",
            "details":{"causes":[{"reason":"ExitCode","message":"127"}]}}"#;
        assert_eq!(exit_code(&status(failed)), Ok(127));
        let missing =
            r#"{"metadata":{},"status":"Failure","reason":"InternalError","message":"no such file"}"#;
        assert_eq!(exit_code(&status(missing)), Err("the command cannot be run: no such file".to_owned()));
        let numbered = r#"{"metadata":{},"status":"Failure","reason":"InternalError","message":"failed to start exec \"68\": OCI runtime exec failed: unable to start container process: exec: no such file"}"#;
        assert_eq!(
            exit_code(&status(numbered)),
            Err("the command cannot be run: exec: no such file".to_owned())
        );
    }

    #[tokio::test]
    async fn output_is_read_to_its_end_and_kept_to_its_bound() {
        let long = vec![b'x'; 100_000];
        assert_eq!(first_and_rest(&long[..]).await.len(), EVIDENCE_BYTES);
        assert_eq!(first_and_rest(&b"idle"[..]).await, b"idle");
    }
}
