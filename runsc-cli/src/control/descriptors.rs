//! File descriptors beside the control API.
//!
//! A caller connects to the socket `fds` (SOCK_SEQPACKET), and sends one packet: a token of 16 random bytes, with the
//! descriptors beside it (SCM_RIGHTS). The sentry answers with one byte when it has them. The caller then names the
//! token in one request, which takes them. They are closed if that does not happen before the caller closes the
//! connection. There is no other limit, since both sides may have to wait long for a processor.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::errno::Errno;
use parking_lot::Mutex;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Semaphore;

use super::{FDS_SOCKET, watch};
use crate::message;
use crate::state;

/// Names descriptors that were sent.
pub type Token = [u8; 16];

/// How long a caller may be silent.
const LIMIT: Duration = Duration::from_secs(10);
/// How many callers may have descriptors wait.
const MAX_WAITING: usize = 64;

/// The caller's side: descriptors that the sentry has, as long as this is not dropped, or until a request takes them.
#[derive(Debug)]
pub struct Sent {
    /// To be named in the request.
    pub token: Token,
    _connection: OwnedFd,
}

/// Sends descriptors to the sentry whose first container has this directory.
pub fn send(directory: &Path, fds: &[BorrowedFd<'_>]) -> Result<Sent> {
    let connection = state::connect(directory, FDS_SOCKET, state::Kind::Packets)?;
    let mut token = Token::default();
    platform::random::fill(&mut token);
    message::send(connection.as_fd(), &token, fds)?;
    let mut answer = [0; 1];
    match nix::unistd::read(&connection, &mut answer).context("waiting for the sandbox")? {
        1 => Ok(Sent { token, _connection: connection }),
        _ => bail!("the sandbox does not take file descriptors"),
    }
}

/// The sentry's side: what waits for requests.
#[derive(Clone, Default)]
pub struct Waiting(Arc<Mutex<HashMap<Token, Vec<OwnedFd>>>>);

impl Waiting {
    /// Takes what a request names.
    pub fn take(&self, token: &[u8]) -> Result<Vec<OwnedFd>> {
        let token = Token::try_from(token).context("a token has 16 bytes")?;
        self.0.lock().remove(&token).ok_or_else(|| anyhow!("there are no descriptors with this token"))
    }

    /// Accepts callers for ever.
    pub async fn serve(self, listening: OwnedFd) -> Result<()> {
        let listening = watch(listening, Interest::READABLE)?;
        let places = Arc::new(Semaphore::new(MAX_WAITING));
        loop {
            let connection = accept(&listening).await?;
            if let Ok(place) = places.clone().try_acquire_owned() {
                let waiting = self.clone();
                tokio::spawn(async move {
                    let _place = place;
                    if let Err(error) = waiting.keep(connection).await {
                        tracing::debug!("descriptors: {}", crate::report::line(&error));
                    }
                });
            }
        }
    }

    /// Receives descriptors and keeps them for a while.
    async fn keep(self, connection: OwnedFd) -> Result<()> {
        let connection = watch(connection, Interest::READABLE)?;
        let ready = tokio::time::timeout(LIMIT, connection.readable()).await.context("a silent caller")??;
        let (token, fds) = message::receive(connection.get_ref().as_fd(), size_of::<Token>())?;
        drop(ready);
        let token = Token::try_from(token.as_slice()).map_err(|_| anyhow!("a token has 16 bytes"))?;
        {
            let mut waiting = self.0.lock();
            if waiting.contains_key(&token) {
                bail!("a token that is taken");
            }
            waiting.insert(token, fds);
        }
        let sent = nix::unistd::write(connection.get_ref(), &[1]).context("telling that they are here");
        if sent.is_ok() {
            closed(&connection).await;
        }
        self.0.lock().remove(&token);
        sent.map(drop)
    }
}

/// Waits until the other side closes the connection, or says what it should not.
async fn closed(connection: &AsyncFd<OwnedFd>) {
    loop {
        let Ok(mut ready) = connection.readable().await else { return };
        match nix::unistd::read(connection.get_ref(), &mut [0; 1]) {
            Err(Errno::EAGAIN) => ready.clear_ready(),
            _ => return,
        }
    }
}

async fn accept(listening: &AsyncFd<OwnedFd>) -> Result<OwnedFd> {
    loop {
        let mut ready = listening.readable().await?;
        match message::accept(listening.get_ref().as_fd()) {
            Ok(connection) => return Ok(connection),
            Err(Errno::EAGAIN) => ready.clear_ready(),
            Err(Errno::ECONNABORTED | Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("accept"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn descriptors_go_to_who_names_them_and_away_with_their_sender() {
        let dir = tempfile::tempdir().unwrap();
        let listening = state::listen(dir.path(), FDS_SOCKET, state::Kind::Packets).unwrap();
        let waiting = Waiting::default();
        let serving = waiting.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let server = std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! { result = serving.serve(listening) => result.unwrap(), _ = stopped => {} }
            });
        });
        let (left, right) = std::os::unix::net::UnixStream::pair().unwrap();
        let sent = send(dir.path(), &[left.as_fd(), right.as_fd()]).unwrap();
        assert!(waiting.take(&[0; 16]).is_err() && waiting.take(&[]).is_err());
        let fds = waiting.take(&sent.token).unwrap();
        assert_eq!(fds.len(), 2);
        assert_ne!(fds[0].as_raw_fd(), left.as_raw_fd());
        assert!(waiting.take(&sent.token).is_err());
        drop(sent);
        // What is not taken goes with its sender.
        let sent = send(dir.path(), &[left.as_fd()]).unwrap();
        assert_eq!(waiting.0.lock().len(), 1);
        drop(sent);
        while !waiting.0.lock().is_empty() {
            std::thread::yield_now();
        }
        // There is an end to what may wait.
        let all: Vec<_> = (0..MAX_WAITING).map(|_| send(dir.path(), &[left.as_fd()]).unwrap()).collect();
        assert!(send(dir.path(), &[left.as_fd()]).is_err());
        drop(all);
        stop.send(()).unwrap();
        server.join().unwrap();
    }
}
