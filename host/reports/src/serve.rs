//! The two servers: pods report to one, readers ask the other. They are apart so that a NetworkPolicy can tell them apart.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum_server::Handle;
use axum_server::accept::Accept;
use axum_server::service::SendService;
use axum_server::tls_rustls::RustlsConfig;
use hyper_util::rt::TokioTimer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::callbacks;
use crate::reader;
use crate::service::Reports;

/// Most bytes of a connection that are read ahead. It bounds the memory of many uploads at once, and a request's head.
const READ_AHEAD: usize = 32 << 10;
/// How long a request's head may take, and how long a connection may wait for its next request.
const HEAD: Duration = Duration::from_secs(15);
/// How long requests may go on when the servers are told to stop.
const GRACE: Duration = Duration::from_secs(20);

/// Where to serve, with TLS or without.
pub struct Listener {
    pub socket: TcpListener,
    pub tls: Option<RustlsConfig>,
}

/// Serves and keeps the store in order until told to stop.
pub async fn serve(
    reports: Arc<Reports>,
    callbacks: Listener,
    readers: Listener,
    stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let upkeep = async {
        reports.clone().run(stop.clone()).await;
        Ok(())
    };
    let callbacks = listen(callbacks, callbacks::router(reports.clone()), stop.clone());
    let readers = listen(readers, reader::router(reports.clone()), stop.clone());
    futures::try_join!(upkeep, callbacks, readers).map(|_| ())
}

async fn listen(listener: Listener, router: Router, mut stop: watch::Receiver<bool>) -> io::Result<()> {
    let Listener { socket, tls } = listener;
    socket.set_nonblocking(true)?;
    let handle: Handle<SocketAddr> = Handle::new();
    let stopping = handle.clone();
    let watcher = tokio::spawn(async move {
        stop.wait_for(|stop| *stop).await.ok();
        stopping.graceful_shutdown(Some(GRACE));
    });
    let served = match tls {
        Some(config) => run(axum_server::from_tcp_rustls(socket, config)?.handle(handle), router).await,
        None => run(axum_server::from_tcp(socket)?.handle(handle), router).await,
    };
    watcher.abort();
    served
}

async fn run<A>(server: axum_server::Server<SocketAddr, A>, router: Router) -> io::Result<()>
where
    A: Accept<TcpStream, Router> + Clone + Send + Sync + 'static,
    A::Stream: AsyncRead + AsyncWrite + Unpin + Send,
    A::Service: SendService<axum::http::Request<hyper::body::Incoming>> + Send,
    A::Future: Send,
{
    // Else a connection may be silent for ever before it is known which version it speaks.
    let mut server = server.http1_only();
    server.http_builder().http1().max_buf_size(READ_AHEAD).timer(TokioTimer::new()).header_read_timeout(HEAD);
    server.serve(router.into_make_service()).await
}
