//! One HTTP server for all simulated pods: whom a request is for, its address tells.

use std::collections::HashMap;
use std::net::{IpAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::Result;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::netns;

/// What a pod does with a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Says {
    /// 503.
    #[default]
    Idle,
    /// 200.
    Busy,
    /// 200, and this in its body.
    Body(String),
    /// It sends them elsewhere.
    Redirects,
    /// It closes the connection.
    Dead,
    /// It never answers.
    Hangs,
}

/// The server.
pub struct PodServer {
    pub port: u16,
    says: Mutex<HashMap<IpAddr, Says>>,
    others: Mutex<Says>,
    /// Requests so far.
    pub requests: AtomicUsize,
    /// The moments of the requests for each pod, if they are kept.
    pub moments: Option<Mutex<HashMap<IpAddr, Vec<Instant>>>>,
}

impl PodServer {
    /// Starts it inside the cluster's network.
    ///
    /// # Errors
    /// When there is none.
    pub fn start(keep_moments: bool) -> Result<Arc<Self>> {
        netns::answer_for_simulated_pods()?;
        let listener = netns::inside(|| TcpListener::bind("0.0.0.0:0"))??;
        listener.set_nonblocking(true)?;
        let server = Arc::new(Self {
            port: listener.local_addr()?.port(),
            says: Mutex::default(),
            others: Mutex::default(),
            requests: AtomicUsize::new(0),
            moments: keep_moments.then(Mutex::default),
        });
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let all = server.clone();
        tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => {
                        tokio::spawn(all.clone().serve(stream));
                    }
                    // Out of files, for example: what is under way must end first.
                    Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
                }
            }
        });
        Ok(server)
    }

    async fn serve(self: Arc<Self>, mut stream: TcpStream) {
        let Ok(pod) = stream.local_addr().map(|a| a.ip()) else { return };
        stream.set_nodelay(true).ok();
        let mut seen: Vec<u8> = Vec::new();
        let mut piece = [0; 512];
        loop {
            match stream.read(&mut piece).await {
                Ok(0) | Err(_) => return,
                Ok(n) => seen.extend_from_slice(&piece[..n]),
            }
            if !seen.ends_with(b"\r\n\r\n") {
                continue;
            }
            seen.clear();
            self.requests.fetch_add(1, Ordering::Relaxed);
            if let Some(moments) = &self.moments {
                let mut moments = moments.lock().unwrap_or_else(PoisonError::into_inner);
                moments.entry(pod).or_default().push(Instant::now());
            }
            let (status, body) = match self.what_it_says(pod) {
                Says::Idle => ("503 Idle", String::new()),
                Says::Busy => ("200 Busy", String::new()),
                Says::Body(body) => ("200 OK", body),
                Says::Redirects => ("302 Found\r\nLocation: /busy", String::new()),
                Says::Dead => return,
                Says::Hangs => std::future::pending().await,
            };
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }

    fn what_it_says(&self, pod: IpAddr) -> Says {
        let says = self.says.lock().unwrap_or_else(PoisonError::into_inner).get(&pod).cloned();
        says.unwrap_or_else(|| self.others.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Has pods say something from now on.
    pub fn set(&self, pods: &[Pod], says: &Says) {
        let mut all = self.says.lock().unwrap_or_else(PoisonError::into_inner);
        for pod in pods {
            match address(pod) {
                Some(ip) => all.insert(ip, says.clone()),
                None => panic!("{} has no address", pod.name_any()),
            };
        }
    }

    /// Has all pods say something from now on that were told nothing of their own.
    pub fn set_others(&self, says: Says) {
        *self.others.lock().unwrap_or_else(PoisonError::into_inner) = says;
    }
}

/// A pod's address.
pub fn address(pod: &Pod) -> Option<IpAddr> {
    pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()
}
