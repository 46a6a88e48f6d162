//! Tells containerd what happens to containers, in the order in which it happens.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use containerd_shim_protos::api::ForwardRequest;
use containerd_shim_protos::events::task::{
    TaskCreate, TaskDelete, TaskExecAdded, TaskExecStarted, TaskExit, TaskOOM, TaskPaused, TaskResumed,
    TaskStart,
};
use containerd_shim_protos::protobuf::MessageFull;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::well_known_types::timestamp::Timestamp;
use containerd_shim_protos::shim::event::Envelope;
use containerd_shim_protos::shim_async::{Client, EventsClient};
use containerd_shim_protos::ttrpc::context;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

/// How long one attempt may take.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(5);
/// How often an event is offered, a second apart: containerd may be restarting.
const ATTEMPTS: u32 = 60;
/// How long the last events may take when the shim goes.
const FLUSH_LIMIT: Duration = Duration::from_secs(3);

/// An event with the topic that containerd files it under.
pub trait Event: MessageFull {
    /// The topic.
    const TOPIC: &'static str;
}

macro_rules! topics {
    ($($event:ty: $topic:literal),* $(,)?) => {
        $(impl Event for $event { const TOPIC: &'static str = $topic; })*
    };
}

topics! {
    TaskCreate: "/tasks/create",
    TaskStart: "/tasks/start",
    TaskExit: "/tasks/exit",
    TaskDelete: "/tasks/delete",
    TaskExecAdded: "/tasks/exec-added",
    TaskExecStarted: "/tasks/exec-started",
    TaskOOM: "/tasks/oom",
    TaskPaused: "/tasks/paused",
    TaskResumed: "/tasks/resumed",
}

enum Item {
    Event(Box<Envelope>),
    Flush(oneshot::Sender<()>),
}

/// The way to containerd.
#[derive(Clone)]
pub struct Events {
    namespace: String,
    queue: mpsc::UnboundedSender<Item>,
}

impl Events {
    /// Events of one of containerd's namespaces, to its ttrpc socket.
    pub fn start(address: String, namespace: &str) -> Events {
        let (queue, items) = mpsc::unbounded_channel();
        tokio::spawn(forward(address, items));
        Events { namespace: namespace.to_owned(), queue }
    }

    /// Publishes an event, without waiting.
    pub fn publish<E: Event>(&self, event: &E) {
        let event = match pack(event) {
            Ok(event) => event,
            Err(error) => {
                tracing::error!("an event that cannot be encoded: {error:#}");
                return;
            }
        };
        let envelope = Envelope {
            timestamp: Some(Timestamp::from(SystemTime::now())).into(),
            namespace: self.namespace.clone(),
            topic: E::TOPIC.to_owned(),
            event: Some(event).into(),
            ..Default::default()
        };
        // It goes only with this process.
        let _ = self.queue.send(Item::Event(Box::new(envelope)));
    }

    /// Waits a while until all that was published has been told.
    pub async fn flush(&self) {
        let (done, wait) = oneshot::channel();
        if self.queue.send(Item::Flush(done)).is_ok() {
            let _ = timeout(FLUSH_LIMIT, wait).await;
        }
    }
}

async fn forward(address: String, mut items: mpsc::UnboundedReceiver<Item>) {
    let mut client = None;
    while let Some(item) = items.recv().await {
        let envelope = match item {
            Item::Event(envelope) => envelope,
            Item::Flush(done) => {
                let _ = done.send(());
                continue;
            }
        };
        let request = ForwardRequest { envelope: Some(*envelope).into(), ..Default::default() };
        for attempt in 1..=ATTEMPTS {
            match offer(&mut client, &address, &request).await {
                Ok(()) => break,
                Err(error) if attempt == ATTEMPTS => {
                    tracing::error!("event {} is lost: {error:#}", request.envelope.topic);
                }
                Err(error) => {
                    tracing::debug!("event {}: {error:#}", request.envelope.topic);
                    client = None;
                    sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

async fn offer(client: &mut Option<EventsClient>, address: &str, request: &ForwardRequest) -> Result<()> {
    let connected = match client {
        Some(client) => client,
        None => {
            let url = if address.contains("://") { address.to_owned() } else { format!("unix://{address}") };
            let new = Client::connect(&url).await.with_context(|| format!("connecting to {url}"))?;
            client.insert(EventsClient::new(new))
        }
    };
    let limit = ATTEMPT_LIMIT.as_nanos() as i64;
    timeout(ATTEMPT_LIMIT, connected.forward(context::with_timeout(limit), request)).await??;
    Ok(())
}

/// A message with the name of its type, as Go's typeurl writes it.
pub fn pack<M: MessageFull>(message: &M) -> Result<Any> {
    Ok(Any {
        type_url: M::descriptor().full_name().to_owned(),
        value: message.write_to_bytes()?,
        ..Default::default()
    })
}
