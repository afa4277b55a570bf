//! Events of a cluster: `kubectl describe catalogsource` shows them, `kubectl events` too.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Error};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::controller::{Announcement, Announcer};
use crate::model::{CATALOG_SOURCE, CatalogSource};

/// Who reports.
const CONTROLLER: &str = "packageserver";

/// The action that all of this is about.
const ACTION: &str = "Ingest";

/// Announcements that wait to be sent; those beyond are dropped, the status tells the same.
const WAITING: usize = 256;

/// How long an Event may take to be taken.
const ANSWER: Duration = Duration::from_secs(10);

/// Sends announcements as Events, one after the other, in the background. What repeats within minutes is counted in one
/// Event.
pub struct EventAnnouncer {
    waiting: mpsc::Sender<(ObjectReference, Event)>,
}

impl EventAnnouncer {
    /// Begins to send to a cluster, until this is dropped.
    pub fn start(client: Client) -> Self {
        let (waiting, mut received) = mpsc::channel::<(ObjectReference, Event)>(WAITING);
        let instance = std::env::var("POD_NAME").or_else(|_| std::env::var("HOSTNAME")).ok();
        let recorder = Recorder::new(client, Reporter { controller: CONTROLLER.to_owned(), instance });
        tokio::spawn(async move {
            while let Some((about, event)) = received.recv().await {
                let sent = tokio::time::timeout(ANSWER, recorder.publish(&event, &about)).await;
                match sent {
                    Ok(Ok(())) => {}
                    // Of a CatalogSource that is going with its namespace.
                    Ok(Err(Error::Api(status))) if matches!(status.code, 403 | 404) => {
                        tracing::debug!(reason = event.reason, %status, "an Event was not taken");
                    }
                    Ok(Err(error)) => tracing::warn!(%error, "cannot send an Event"),
                    Err(_) => tracing::warn!("cannot send an Event: the kube-apiserver does not answer"),
                }
            }
        });
        EventAnnouncer { waiting }
    }
}

impl Announcer for EventAnnouncer {
    fn announce(&self, source: &CatalogSource, announcement: Announcement) {
        let Announcement { is_warning, reason, message } = announcement;
        let about = ObjectReference {
            api_version: Some(CATALOG_SOURCE.api_version()),
            kind: Some(CATALOG_SOURCE.kind.to_owned()),
            name: source.metadata.name.clone(),
            namespace: source.metadata.namespace.clone(),
            uid: source.metadata.uid.clone(),
            ..ObjectReference::default()
        };
        let event = Event {
            type_: if is_warning { EventType::Warning } else { EventType::Normal },
            reason: reason.to_owned(),
            note: Some(message),
            action: ACTION.to_owned(),
            secondary: None,
        };
        if let Err(TrySendError::Full(_)) = self.waiting.try_send((about, event)) {
            tracing::debug!("too many Events wait; one is dropped");
        }
    }
}
